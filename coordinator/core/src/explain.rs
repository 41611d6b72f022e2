//! Why a node gets nothing, and why a unit waits: every reason, in a form to be shown.
//!
//! The same questions that [`crate::dispatch`] asks, asked to the end instead of to the first
//! refusal.

use std::time::Duration;

use dockercomp_protocol::wire::work::Capacity;
use dockercomp_protocol::{Cid, NodeId, Timestamp};

use crate::Core;
use crate::dispatch::{Hindrance, Lane};
use crate::job::JobNumber;
use crate::view::UnitView;

/// Nodes that are named for one unit.
const NODES_MAX: usize = 1000;
/// Waiting units of a job that are looked at for one node.
const UNITS_MAX: usize = 1000;
/// Running jobs that are looked at for one node, so that a question costs little.
const JOBS_MAX: usize = 32;

/// Why a node gets no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoWork {
    /// It has not registered since the coordinator started.
    NotRegistered,
    /// It holds as many leases as one node may.
    LeasesFull {
        /// How many that is.
        max: u32,
    },
    /// It had as many replicas today as it may have: its quota fell with errors, wrong results
    /// and missed deadlines, and doubles with each valid result.
    QuotaUsed {
        /// Replicas that it may have in a day.
        per_day: u32,
    },
    /// No job is running.
    NoJobs,
    /// It has none of the executors that the job needs.
    NoExecutor,
    /// One replica takes more than the node offers in all.
    TooLarge {
        /// What it takes.
        need: Capacity,
        /// What is offered.
        offer: Capacity,
    },
    /// It was caught with a wrong result, and the job's policy gives it nothing until others
    /// have confirmed so many of its results elsewhere.
    Barred {
        /// How many.
        confirmed_needed: u32,
    },
    /// Every unit of the job is begun, and none lacks a replica.
    NothingWaits,
    /// Units wait, but none that this node may have; why, for the first of them.
    NoneForIt {
        /// The unit.
        index: u64,
        /// Why not.
        hindrance: Hindrance,
    },
}

/// Why a node gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeExplanation {
    /// What holds for all jobs.
    pub general: Vec<NoWork>,
    /// What holds for each running job, in the order of submission; nothing where it could
    /// get a lease. The first 32.
    pub jobs: Vec<(Cid, Vec<NoWork>)>,
    /// Running jobs beyond those.
    pub n_more: usize,
}

/// A node that is there, and whether it could get a unit that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// When it was last heard.
    pub last_seen: Timestamp,
    /// What keeps it from the unit, the most lasting first; nothing if it could get it.
    pub reasons: Vec<NoWork>,
}

impl Core {
    /// Every reason why a node gets nothing at the moment.
    #[must_use]
    pub fn explain_node(&self, now: Timestamp, node: NodeId) -> NodeExplanation {
        let mut general = Vec::new();
        if !self.presence.visits.contains_key(&node) {
            general.push(NoWork::NotRegistered);
        }
        general.extend(self.why_no_more(now, node));
        let mut running = self.state.jobs.iter().filter(|(_, job)| job.is_running());
        let looked = running.by_ref().take(JOBS_MAX);
        let jobs: Vec<_> =
            looked.map(|(&number, job)| (job.id, self.why_not(now, node, number))).collect();
        if jobs.is_empty() {
            general.push(NoWork::NoJobs);
        }
        NodeExplanation { general, jobs, n_more: running.count() }
    }

    /// Which of the nodes that are there could get a unit, and why each of the others could
    /// not. At most a thousand nodes; nothing if the job is not known or the unit does not
    /// wait for a node.
    #[must_use]
    pub fn who_may(&self, now: Timestamp, job: Cid, index: u64) -> Vec<Candidate> {
        let Some(&number) = self.state.numbers.get(&job) else { return Vec::new() };
        let job = self.state.job(number);
        let view = self.explain_unit(job.id, index);
        let is_new = matches!(view, Some(UnitView::Waiting { .. }));
        let lacks = job.units.get(&index).is_some_and(|unit| job.wanted(unit) > 0);
        if !is_new && !lacks {
            return Vec::new();
        }
        let nodes = self.presence.visits.iter().take(NODES_MAX);
        nodes
            .map(|(&node, visit)| {
                let who = self.asking(now, number, node, &visit.profile.executors);
                let hindrance = lacks.then(|| self.state.hindrance(&who, index)).flatten();
                // Without an executor it is one of the terms that the node does not meet.
                let hindrance = hindrance.filter(|why| *why != Hindrance::NoExecutor);
                let hindrance = hindrance.map(|hindrance| NoWork::NoneForIt { index, hindrance });
                let (lasting, passing): (Vec<_>, Vec<_>) =
                    hindrance.into_iter().partition(NoWork::is_lasting);
                let reasons = lasting
                    .into_iter()
                    .chain(self.unmet_terms(node, number))
                    .chain(self.why_no_more(now, node))
                    .chain(passing);
                Candidate { node, last_seen: visit.last_seen, reasons: reasons.collect() }
            })
            .collect()
    }

    /// Whether somebody who has not had a unit, and was heard within `seen`, could compute it
    /// again if its output were lost. Who is of another class cannot: those who had it stay of
    /// theirs.
    #[must_use]
    pub fn is_replaceable(&self, now: Timestamp, job: Cid, index: u64, seen: Duration) -> bool {
        let Some(&number) = self.state.numbers.get(&job) else { return false };
        self.presence.visits.iter().any(|(&node, visit)| {
            let who = || self.asking(now, number, node, &visit.profile.executors);
            let is_kept_from_it = || {
                let hindrance = self.state.hindrance(&who(), index);
                hindrance.is_some_and(|why| why.is_lasting() || why == Hindrance::OtherClass)
            };
            now.since(visit.last_seen) < seen
                && self.unmet_terms(node, number).is_empty()
                && !is_kept_from_it()
        })
    }

    /// Why a node gets no more leases at the moment, of whatever job.
    fn why_no_more(&self, now: Timestamp, node: NodeId) -> Vec<NoWork> {
        let mut reasons = Vec::new();
        let held = self.state.nodes.get(&node).map_or(0, |tally| tally.in_progress);
        let max = self.state.config.leases_per_node_max;
        if held >= max.into() {
            reasons.push(NoWork::LeasesFull { max });
        }
        let quota = self.state.trust.get(&node).map(|trust| trust.quota).unwrap_or_default();
        if quota.left(now) == 0 {
            reasons.push(NoWork::QuotaUsed { per_day: quota.per_day });
        }
        reasons
    }

    /// What a job asks of a node that this one does not give; nothing of a node that is not
    /// there.
    fn unmet_terms(&self, node: NodeId, number: JobNumber) -> Vec<NoWork> {
        let job = self.state.job(number);
        let Some(visit) = self.presence.visits.get(&node) else { return Vec::new() };
        let Some(executor) = job.executor_of(&visit.profile.executors) else {
            return vec![NoWork::NoExecutor];
        };
        let mut reasons = Vec::new();
        let (need, offer) = (job.terms.need, visit.profile.offer);
        if !offer.holds(&need) {
            reasons.push(NoWork::TooLarge { need, offer });
        }
        let standing = self.state.standing_of(node, executor);
        if job.credibility().is_some() && standing.is_barred && standing.caught > 0 {
            reasons.push(NoWork::Barred { confirmed_needed: standing.confirmed_needed() });
        }
        reasons
    }

    fn why_not(&self, now: Timestamp, node: NodeId, number: JobNumber) -> Vec<NoWork> {
        let job = self.state.job(number);
        let Some(visit) = self.presence.visits.get(&node) else { return Vec::new() };
        let mut reasons = self.unmet_terms(node, number);
        if reasons.contains(&NoWork::NoExecutor) {
            return reasons;
        }
        if !job.has_work() {
            reasons.push(NoWork::NothingWaits);
        } else if !job.has_new() {
            let who = self.asking(now, number, node, &visit.profile.executors);
            let waiting = Lane::ALL.iter().flat_map(|&lane| job.lanes.lane(lane).values());
            let looked: Vec<_> = waiting
                .take(UNITS_MAX)
                .map(|&index| (index, self.state.hindrance(&who, index)))
                .collect();
            let is_none_free = looked.iter().all(|(_, hindrance)| hindrance.is_some());
            if let Some(&(index, Some(hindrance))) = looked.first().filter(|_| is_none_free) {
                reasons.push(NoWork::NoneForIt { index, hindrance });
            }
        }
        reasons
    }
}

impl NoWork {
    /// Whether it keeps a node from a unit for ever.
    const fn is_lasting(&self) -> bool {
        match self {
            Self::NoneForIt { hindrance, .. } => hindrance.is_lasting(),
            Self::NotRegistered
            | Self::LeasesFull { .. }
            | Self::QuotaUsed { .. }
            | Self::NoJobs
            | Self::NoExecutor
            | Self::TooLarge { .. }
            | Self::Barred { .. }
            | Self::NothingWaits => false,
        }
    }
}
