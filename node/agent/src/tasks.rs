//! The replicas that a node has, and where each of them stands.

use std::collections::BTreeMap;

use dockercomp_protocol::wire::work::Capacity;
use dockercomp_protocol::{ReplicaId, Timestamp};

use crate::{Counts, Lease};

/// Where a replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Inputs are on their way.
    Fetching(Lease),
    /// Inputs are here.
    Ready(Lease),
    /// The program runs.
    Running(Lease),
    /// It was told to stop and has not yet.
    Aborting(Lease),
    /// Finished, and the coordinator has not said that it has the result.
    Unreported,
    /// The coordinator has the result; the output is kept for it.
    Kept,
}

/// All replicas by id, which is also the order in which they were leased.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    tasks: BTreeMap<ReplicaId, Task>,
}

impl Tasks {
    /// Takes a lease, unless the replica is already here.
    pub(crate) fn insert_new(&mut self, lease: Lease) -> bool {
        let is_new = !self.tasks.contains_key(&lease.replica);
        if is_new {
            self.tasks.insert(lease.replica, Task::Fetching(lease));
        }
        is_new
    }

    pub(crate) fn insert(&mut self, replica: ReplicaId, task: Task) {
        self.tasks.insert(replica, task);
    }

    pub(crate) fn remove(&mut self, replica: ReplicaId) {
        self.tasks.remove(&replica);
    }

    pub(crate) fn ready(&mut self, replica: ReplicaId) {
        if let Some(task @ &mut Task::Fetching(lease)) = self.tasks.get_mut(&replica) {
            *task = Task::Ready(lease);
        }
    }

    pub(crate) fn running(&mut self, replica: ReplicaId) {
        if let Some(task @ &mut Task::Ready(lease)) = self.tasks.get_mut(&replica) {
            *task = Task::Running(lease);
        }
    }

    pub(crate) fn aborting(&mut self, replica: ReplicaId) {
        if let Some(task) = self.tasks.get_mut(&replica)
            && let Some(lease) = task.lease()
        {
            *task = Task::Aborting(lease);
        }
    }

    /// What runs, or has not stopped yet.
    pub(crate) fn busy(&self) -> Capacity {
        sum(self.tasks.values().filter_map(|task| match task {
            Task::Running(lease) | Task::Aborting(lease) => Some(lease.need),
            Task::Fetching(_) | Task::Ready(_) | Task::Unreported | Task::Kept => None,
        }))
    }

    /// What one replica takes if it runs, or has not stopped yet.
    pub(crate) fn busy_with(&self, replica: ReplicaId) -> Option<Capacity> {
        match self.tasks.get(&replica) {
            Some(Task::Running(lease) | Task::Aborting(lease)) => Some(lease.need),
            _ => None,
        }
    }

    /// The first ready replica that fits into `free`, and what it takes.
    pub(crate) fn next_to_start(&self, free: &Capacity) -> Option<(ReplicaId, Capacity)> {
        self.tasks.iter().find_map(|(replica, task)| match task {
            Task::Ready(lease) if free.holds(&lease.need) => Some((*replica, lease.need)),
            Task::Ready(_)
            | Task::Fetching(_)
            | Task::Running(_)
            | Task::Aborting(_)
            | Task::Unreported
            | Task::Kept => None,
        })
    }

    /// Replicas whose deadline has passed before they were ever started.
    pub(crate) fn late(&self, now: Timestamp) -> Vec<ReplicaId> {
        let late = self.not_begun().filter(|lease| lease.expires_at <= now);
        late.map(|lease| lease.replica).collect()
    }

    /// The next deadline of a replica that was never started.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.not_begun().map(|lease| lease.expires_at).min()
    }

    fn not_begun(&self) -> impl Iterator<Item = Lease> + '_ {
        self.waiting().filter(|lease| !lease.begun)
    }

    /// Whether a replica has not been started.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting().next().is_some()
    }

    fn waiting(&self) -> impl Iterator<Item = Lease> + '_ {
        self.tasks.values().filter_map(|task| match task {
            Task::Fetching(lease) | Task::Ready(lease) => Some(*lease),
            Task::Running(_) | Task::Aborting(_) | Task::Unreported | Task::Kept => None,
        })
    }

    /// What all unfinished leases take.
    pub(crate) fn reserved(&self) -> Capacity {
        sum(self.tasks.values().filter_map(Task::lease).map(|lease| lease.need))
    }

    pub(crate) fn is_unfinished(&self, replica: ReplicaId) -> bool {
        self.tasks.get(&replica).is_some_and(|task| task.lease().is_some())
    }

    pub(crate) fn is_aborting(&self, replica: ReplicaId) -> bool {
        matches!(self.tasks.get(&replica), Some(Task::Aborting(_)))
    }

    /// Whether a result is here, or was before its output was kept.
    pub(crate) fn is_reported(&self, replica: ReplicaId) -> bool {
        matches!(self.tasks.get(&replica), Some(Task::Unreported | Task::Kept))
    }

    pub(crate) fn is_kept(&self, replica: ReplicaId) -> bool {
        self.tasks.get(&replica) == Some(&Task::Kept)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(crate) fn has_unreported(&self) -> bool {
        self.unreported().next().is_some()
    }

    pub(crate) fn unreported(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.tasks
            .iter()
            .filter(|(_, task)| **task == Task::Unreported)
            .map(|(replica, _)| *replica)
    }

    pub(crate) fn kept(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.tasks.iter().filter(|(_, task)| **task == Task::Kept).map(|(replica, _)| *replica)
    }

    pub(crate) fn unfinished(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.tasks.iter().filter(|(_, task)| task.lease().is_some()).map(|(replica, _)| *replica)
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for task in self.tasks.values() {
            match task {
                Task::Fetching(_) => counts.fetching += 1,
                Task::Ready(_) => counts.ready += 1,
                Task::Running(_) | Task::Aborting(_) => counts.running += 1,
                Task::Unreported => counts.unreported += 1,
                Task::Kept => counts.kept += 1,
            }
        }
        counts
    }
}

impl Task {
    /// The lease, while the replica is not finished.
    fn lease(&self) -> Option<Lease> {
        match self {
            Self::Fetching(lease)
            | Self::Ready(lease)
            | Self::Running(lease)
            | Self::Aborting(lease) => Some(*lease),
            Self::Unreported | Self::Kept => None,
        }
    }
}

/// What several replicas take together.
pub(crate) fn sum(needs: impl Iterator<Item = Capacity>) -> Capacity {
    needs.fold(Capacity::default(), |sum, need| Capacity {
        cpu_millis: sum.cpu_millis.saturating_add(need.cpu_millis),
        memory_bytes: sum.memory_bytes.saturating_add(need.memory_bytes),
        disk_bytes: sum.disk_bytes.saturating_add(need.disk_bytes),
    })
}
