//! Who gets what: the answer to a request for work.
//!
//! Sources, in this order: units that lost a replica or disagree (they hold their job up),
//! then units that lack replicas (those of later stages that have just got their inputs among
//! them, so that outputs are not kept for long), then new units. Within a source: jobs whose data the node
//! already has (or that need none), then the others, each in order of submission. A job is
//! considered only if the node has an executor for it and room for one more replica.
//!
//! # What is not here
//!
//! - Whether a node may have a certain unit: [`fit`]'s.
//! - What a result weighs: [`crate::judge`]'s.
//!
//! # Cost
//!
//! Units that lack replicas wait in [`Lanes`], first come first served, under ascending
//! tickets. A node that has a unit can never get it again, so what it once passed over it
//! need not look at again: a [`Cursors`] entry remembers how far it came. Every ticket is
//! passed over at most once by each node, and a lease costs a few tree look-ups. A request
//! also looks once at each job that has something to lease.

mod fit;
mod lanes;

use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::job::Policy;
use dockercomp_protocol::limits::LEASES_MAX;
use dockercomp_protocol::wire::work::{Capacity, WorkRequest};
use dockercomp_protocol::{NodeId, ReplicaId, Timestamp};

use crate::action::{Action, Granted};
use crate::chance::{Purpose, draw, falls_into};
use crate::checks::KNOWN_MAX;
use crate::identity::Identity;
use crate::job::{Job, JobNumber};
use crate::record::Record;
use crate::replica::{Replica, ReplicaState};
use crate::unit::Unit;
use crate::{Core, state::State};

pub(crate) use fit::CROWD;
pub use fit::Hindrance;
use fit::{Asking, Fit};
pub(crate) use lanes::{Cursors, Lane, Lanes, Place};

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
    /// Executors that are ready.
    executors: Vec<ExecutorKind>,
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
        let quota = self.state.trust.get(&node).map_or(u32::MAX, |trust| trust.quota.left(now));
        let leases = request
            .leases_max
            .min(quota)
            .min(u32::try_from(LEASES_MAX).unwrap_or(u32::MAX))
            .min(self.state.config.leases_per_node_max.saturating_sub(held));
        let offer = self.presence.visits.get(&node).map(|visit| visit.profile.offer);
        let mut room = Room {
            free: request.free,
            executors: request.executors.clone(),
            offer,
            leases,
            crowded: false,
        };
        let mut granted = Vec::new();
        let jobs = self.state.candidates(node, request);
        for source in SOURCES {
            for &job in &jobs {
                self.lease_from(now, node, source, job, &mut room, &mut granted);
            }
        }
        for &job in &jobs {
            self.hurry(now, node, job, &mut room, &mut granted);
        }
        // It could have done more: it is idle, and wants to hear of new work.
        self.is_somebody_idle |= room.leases > 0 && !room.crowded;
        self.actions.push_back(Action::Lease(granted));
    }

    /// At the end of a job, when all is leased, gives units whose holders are slow or silent to
    /// a node with a good record as well: whoever is first decides.
    fn hurry(
        &mut self,
        now: Timestamp,
        node: NodeId,
        number: JobNumber,
        room: &mut Room,
        granted: &mut Vec<Granted>,
    ) {
        while room.leases > 0 && !room.crowded {
            let who = self.asking(now, number, node, &room.executors);
            let Some(index) = self.straggler(&who) else { return };
            let job = self.state.job(number);
            let Some(target) = job.units.get(&index).and_then(Unit::target) else { return };
            let before = granted.len();
            let raised = Record::Sampled { at: now, job: job.id, index, target: target + 1 };
            self.persist(raised);
            self.lease_from(now, node, Source::Lane(Lane::Retry), number, room, granted);
            if granted.len() == before {
                return;
            }
        }
    }

    /// A unit that a reliable node should have as well: one whose holder has been silent, or
    /// which has been leased for long and whose deadline is far.
    fn straggler(&self, who: &Asking) -> Option<u64> {
        let job = self.state.job(who.job);
        let bound = job.terms.validation.delay_bound();
        let standing = self.state.standing_of(who.node, who.executor?);
        let is_reliable = standing.consecutive_valid >= RELIABLE && standing.record.late == 0;
        if job.has_work() || !is_reliable {
            return None;
        }
        let is_slow = |replica: &Replica| {
            let ReplicaState::InProgress { deadline } = replica.state else { return false };
            let left = deadline.since(who.now);
            let visit = self.presence.visits.get(&replica.node);
            let silence = visit.map(|visit| who.now.since(visit.last_seen));
            let is_silent =
                silence.is_some_and(|silence| silence >= self.state.config.silent_after);
            left > bound / 4 && (is_silent || left < bound - bound / 4)
        };
        let slow = |unit: &Unit| {
            let is_first_try = unit.target() == Some(unit.replicas.len() as u32);
            is_first_try && unit.replicas.iter().any(is_slow)
        };
        let open = job.units.iter().take(STRAGGLERS_MAX).filter(|(_, unit)| slow(unit));
        let mut indices = open.map(|(&index, _)| index);
        indices.find(|&index| self.state.hindrance(who, index).is_none())
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
            let executors = &room.executors;
            let Some(index) = self.next_unit(now, source, number, node, executors) else { return };
            let job = self.state.job(number);
            let need = job.terms.need;
            if room.offer.is_some_and(|offer| !offer.holds(&need)) {
                return;
            }
            if !room.free.holds(&need) {
                room.crowded = true;
                return;
            }
            let Some(executor) = job.executor_of(&room.executors) else { return };
            let (id, deadline) = (job.id, now + job.terms.validation.delay_bound());
            let replica = ReplicaId(self.state.next_replica);
            self.identify(now, node);
            let check = self.state.due_check(number, node);
            let index = check.unwrap_or(index);
            let inputs = self.state.job(number).inputs(index);
            if check.is_some() {
                self.persist(Record::SpotCheck {
                    at: now,
                    replica,
                    job: id,
                    index,
                    node,
                    executor,
                    deadline,
                });
            } else {
                let trusted = self.state.trust_alone(number, index, node, executor);
                self.persist(Record::Leased {
                    at: now,
                    replica,
                    job: id,
                    index,
                    node,
                    executor,
                    trusted,
                    deadline,
                });
            }
            granted.push(Granted { replica, job: id, index, deadline, inputs });
            room.free = room.free.minus(&need);
            room.leases -= 1;
        }
    }

    /// The first unit of a source that the node may have.
    fn next_unit(
        &mut self,
        now: Timestamp,
        source: Source,
        number: JobNumber,
        node: NodeId,
        executors: &[ExecutorKind],
    ) -> Option<u64> {
        let job = self.state.job(number);
        match job.in_its_order(source, self.state.config.undecided_max) {
            Source::New => job.has_new().then_some(job.next_unexpanded),
            Source::Lane(lane) => {
                let who = self.asking(now, number, node, executors);
                next_queued(&self.state, &who, lane, &mut self.cursors)
            }
        }
    }
}

/// Units that a request looks at and passes over for now; the next request looks again.
const NOT_NOW_MAX: usize = 64;

/// Replicated valid results in a row that make a node reliable (BOINC: `CONS_VALID_RELIABLE`).
const RELIABLE: u32 = 10;
/// Units in flight among which stragglers are looked for.
const STRAGGLERS_MAX: usize = 256;

fn next_queued(state: &State, who: &Asking, lane: Lane, cursors: &mut Cursors) -> Option<u64> {
    let job = state.job(who.job);
    let queue = job.lanes.lane(lane);
    let key = (who.job, who.node, lane);
    let start = cursors.0.get(&key).copied().unwrap_or(0);
    let (mut reached, mut n_passed) = (start, 0);
    let mut found = None;
    for (&ticket, &index) in queue.range(start..) {
        match state.fit(who, index) {
            Fit::Yes => {
                found = Some(index);
                break;
            }
            Fit::Never if n_passed == 0 => reached = ticket + 1,
            Fit::Never => {}
            Fit::NotNow => n_passed += 1,
        }
        if n_passed > NOT_NOW_MAX {
            break;
        }
    }
    if reached > start {
        cursors.0.insert(key, reached);
    }
    found
}

impl Core {
    /// Journals what ties a node to others, before it gets a lease, if it is not known.
    fn identify(&mut self, now: Timestamp, node: NodeId) {
        let Some(visit) = self.presence.visits.get(&node) else { return };
        let identity = Identity::from(&visit.profile);
        let known = self.state.identities.get(node);
        let is_news = known.map_or(identity != Identity::default(), |known| *known != identity);
        if is_news {
            self.persist(Record::NodeKnown { at: now, node, identity });
        }
    }
}

impl Job {
    /// Which source of this job is tried in the place of one: a job that weighs nodes by
    /// spot-checks begins new units first, once it has results to check with.
    fn in_its_order(&self, source: Source, undecided_max: usize) -> Source {
        let is_new_first = self.credibility().is_some()
            && self.n_done >= (KNOWN_MAX / 2) as u64
            && self.units.len() < undecided_max;
        match source {
            _ if !is_new_first => source,
            Source::Lane(Lane::Retry) => Source::New,
            Source::Lane(Lane::Fresh) => Source::Lane(Lane::Retry),
            Source::New => Source::Lane(Lane::Fresh),
        }
    }
}

impl State {
    /// Whether a node is trusted to decide a unit alone, and on which record (BOINC's rule).
    fn trust_alone(
        &self,
        number: JobNumber,
        index: u64,
        node: NodeId,
        executor: ExecutorKind,
    ) -> Option<u32> {
        let job = self.job(number);
        let Policy::Adaptive(rules) = &job.terms.validation.policy else { return None };
        let consecutive_valid = self.standing_of(node, executor).consecutive_valid;
        if consecutive_valid < rules.trusted_after.max(1) {
            return None;
        }
        let replica = self.next_replica;
        let drawn = draw(&job.seed, Purpose::Trust, index, &replica.to_le_bytes());
        let is_checked =
            falls_into(drawn, rules.replication_factor.into(), consecutive_valid.into());
        (!is_checked).then_some(consecutive_valid)
    }
}

impl State {
    /// Jobs that a node could work on, the best first.
    fn candidates(&self, node: NodeId, request: &WorkRequest) -> Vec<JobNumber> {
        let mut jobs: Vec<(bool, JobNumber)> = self
            .with_work
            .iter()
            .map(|&number| (number, self.job(number)))
            .filter(|(_, job)| self.may_work(node, job, request))
            .map(|(number, job)| {
                let fetches = job.terms.dataset.is_some_and(|root| !request.cached.contains(&root));
                (fetches, number)
            })
            .collect();
        jobs.sort_unstable();
        jobs.into_iter().map(|(_, number)| number).collect()
    }

    /// Whether a node can run a job, and is not barred from it: under policy `credibility` who
    /// was caught gets nothing (Sarmenta's blacklist).
    fn may_work(&self, node: NodeId, job: &Job, request: &WorkRequest) -> bool {
        job.executor_of(&request.executors).is_some_and(|executor| {
            job.credibility().is_none()
                || self.standing_of(node, executor).caught == 0
                || !self.standing_of(node, executor).is_barred
        })
    }
}
