//! Who gets what: the answer to a request for work.
//!
//! Sources, in this order: units that lost a replica or disagree (they hold their job up),
//! then units that lack replicas, then new units. Within a source: jobs whose data the node
//! already has (or that need none), then the others, each in order of submission. A job is
//! considered only if the node has an executor for it and room for one more replica.
//!
//! # What is not here
//!
//! Trust. Every node may vote on every unit once. A reputation policy would say here who
//! may get what (and in [`crate::validate`] what a vote weighs).
//!
//! # Cost
//!
//! Units that lack replicas wait in [`Lanes`], first come first served, under ascending
//! tickets. A node that has a unit can never get it again, so what it once passed over it
//! need not look at again: a [`Cursors`] entry remembers how far it came. Every ticket is
//! passed over at most once by each node, and a lease costs a few tree look-ups. A request
//! also looks once at each job that has something to lease.

use std::collections::BTreeMap;

use dockercomp_protocol::limits::LEASES_MAX;
use dockercomp_protocol::wire::work::{Capacity, WorkRequest};
use dockercomp_protocol::{NodeId, ReplicaId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::action::{Action, Granted};
use crate::job::{Job, JobNumber};
use crate::record::Record;
use crate::unit::UnitKey;
use crate::{Core, state::State};

/// Why a unit waits for nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lane {
    /// It needs more than it was to need at first.
    Retry,
    /// It was expanded and lacks its first replicas still.
    Fresh,
}

impl Lane {
    pub(crate) const ALL: [Self; 2] = [Self::Retry, Self::Fresh];
}

/// Where a unit waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) lane: Lane,
    pub(crate) ticket: u64,
}

/// The units of one job that lack replicas, by ticket.
///
/// A snapshot leaves the queues out: every unit says its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lanes {
    #[serde(skip)]
    retry: BTreeMap<u64, u64>,
    #[serde(skip)]
    fresh: BTreeMap<u64, u64>,
    next_ticket: u64,
}

impl Lanes {
    pub(crate) fn is_empty(&self) -> bool {
        self.retry.is_empty() && self.fresh.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.retry.len() + self.fresh.len()
    }

    pub(crate) const fn lane(&self, lane: Lane) -> &BTreeMap<u64, u64> {
        match lane {
            Lane::Retry => &self.retry,
            Lane::Fresh => &self.fresh,
        }
    }

    const fn lane_mut(&mut self, lane: Lane) -> &mut BTreeMap<u64, u64> {
        match lane {
            Lane::Retry => &mut self.retry,
            Lane::Fresh => &mut self.fresh,
        }
    }

    /// Queues a unit behind all others.
    pub(crate) fn push(&mut self, lane: Lane, index: u64) -> Place {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.lane_mut(lane).insert(ticket, index);
        Place { lane, ticket }
    }

    /// Queues a unit at the place that it says it has; false if that place cannot be its own.
    pub(crate) fn restore(&mut self, place: Place, index: u64) -> bool {
        let is_given = place.ticket < self.next_ticket;
        is_given && self.lane_mut(place.lane).insert(place.ticket, index).is_none()
    }

    pub(crate) fn remove(&mut self, place: Place) {
        let was_queued = self.lane_mut(place.lane).remove(&place.ticket).is_some();
        assert!(was_queued, "a unit's place in its lane was empty");
    }
}

/// How far each node came in each lane: everything under a lower ticket is held by the
/// node. Only a memory of work done, so neither durable nor part of the state.
#[derive(Debug, Default)]
pub(crate) struct Cursors(BTreeMap<(JobNumber, NodeId, Lane), u64>);

impl Cursors {
    pub(crate) fn forget_job(&mut self, job: JobNumber) {
        self.0.retain(|&(of, ..), _| of != job);
    }
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Lane(Lane),
    New,
}

/// In the order in which they are tried.
const SOURCES: [Source; 3] = [Source::Lane(Lane::Retry), Source::Lane(Lane::Fresh), Source::New];

/// What a node can still take.
struct Room {
    free: Capacity,
    /// What it offers in all, if it said so: it may ask for work ahead of need, but what does
    /// not fit by itself would wait there for ever.
    offer: Option<Capacity>,
    leases: u32,
    /// Whether something was left out because it did not fit.
    crowded: bool,
}

impl Core {
    pub(crate) fn on_work_requested(
        &mut self,
        now: Timestamp,
        node: NodeId,
        request: &WorkRequest,
    ) {
        self.presence.seen(now, node);
        let held = self.state.nodes.get(&node).map_or(0, |tally| tally.in_progress);
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        let leases = request
            .leases_max
            .min(u32::try_from(LEASES_MAX).unwrap_or(u32::MAX))
            .min(self.state.config.leases_per_node_max.saturating_sub(held));
        let offer = self.presence.visits.get(&node).map(|visit| visit.offer);
        let mut room = Room { free: request.free, offer, leases, crowded: false };
        let mut granted = Vec::new();
        let jobs = self.state.candidates(request);
        for source in SOURCES {
            for &job in &jobs {
                self.lease_from(now, node, source, job, &mut room, &mut granted);
            }
        }
        // It could have done more: it is idle, and wants to hear of new work.
        self.is_somebody_idle |= room.leases > 0 && !room.crowded;
        self.actions.push_back(Action::Lease(granted));
    }

    /// Leases what one source of one job has for a node, as far as there is room.
    fn lease_from(
        &mut self,
        now: Timestamp,
        node: NodeId,
        source: Source,
        number: JobNumber,
        room: &mut Room,
        granted: &mut Vec<Granted>,
    ) {
        while room.leases > 0 {
            let Some(index) = self.next_unit(source, number, node) else { return };
            let job = self.state.job(number);
            let need = job.terms.need;
            if room.offer.is_some_and(|offer| !offer.holds(&need)) {
                return;
            }
            if !room.free.holds(&need) {
                room.crowded = true;
                return;
            }
            let (id, deadline) = (job.id, now + job.terms.validation.delay_bound());
            let replica = ReplicaId(self.state.next_replica);
            self.persist(Record::Leased { at: now, replica, job: id, index, node, deadline });
            granted.push(Granted { replica, job: id, index, deadline });
            room.free = room.free.minus(&need);
            room.leases -= 1;
        }
    }

    /// The first unit of a source that the node may have.
    fn next_unit(&mut self, source: Source, number: JobNumber, node: NodeId) -> Option<u64> {
        let job = self.state.job(number);
        match source {
            Source::New => (job.next_unexpanded < job.n_units).then_some(job.next_unexpanded),
            Source::Lane(lane) => next_queued(job, lane, &mut self.cursors, number, node),
        }
    }
}

fn next_queued(
    job: &Job,
    lane: Lane,
    cursors: &mut Cursors,
    number: JobNumber,
    node: NodeId,
) -> Option<u64> {
    let queue = job.lanes.lane(lane);
    let (&last, _) = queue.last_key_value()?;
    let key = (number, node, lane);
    let start = cursors.0.get(&key).copied().unwrap_or(0);
    let knows = |index: &u64| job.units.get(index).is_some_and(|unit| unit.knows(node));
    let found = queue.range(start..).find(|&(_, index)| !knows(index));
    let reached = found.map_or(last + 1, |(&ticket, _)| ticket);
    if reached > start {
        cursors.0.insert(key, reached);
    }
    found.map(|(_, &index)| index)
}

impl State {
    /// Jobs that a node could work on, the best first.
    fn candidates(&self, request: &WorkRequest) -> Vec<JobNumber> {
        let mut jobs: Vec<(bool, JobNumber)> = self
            .with_work
            .iter()
            .map(|&number| (number, self.job(number)))
            .filter(|(_, job)| job.runs_on(&request.executors))
            .map(|(number, job)| {
                let fetches = job.terms.dataset.is_some_and(|root| !request.cached.contains(&root));
                (fetches, number)
            })
            .collect();
        jobs.sort_unstable();
        jobs.into_iter().map(|(_, number)| number).collect()
    }

    /// The unit that a key names, while it is in memory.
    pub(crate) fn unit(&self, key: UnitKey) -> Option<&crate::unit::Unit> {
        self.job(key.job).units.get(&key.index)
    }
}
