//! The coordinator's decisions: which node works on what, until when, and which result counts.
//!
//! Pure: time arrives as an argument and effects leave as [`Action`]s, so the production
//! shell and the simulator run exactly this code. There is no clock, socket, disk, thread or
//! randomness in here, and no dependency that has one.
//!
//! # Shape
//!
//! ```text
//!  Event ──► handle(now, event) ──► decide ──► Record ──► apply ──► State
//!                                      │          └──► Action::Persist
//!                                      └──► other Actions, in order
//! ```
//!
//! The shell's loop: [`Core::handle`] an event, drain [`Core::poll_action`], commit what it
//! persisted, then send; sleep until [`Core::next_deadline`].
//! A restart: [`Core::restore`] the newest snapshot (or [`Core::new`]), [`Core::apply`] every
//! record after it, [`Core::resume`].
//!
//! # Where to find what
//!
//! | Module | Question |
//! |---|---|
//! | `event`, `action`, `record` | what comes in, what goes out, what is kept |
//! | `state`, with `apply`; `books` | what is kept, and how a record changes it |
//! | `snapshot` | how the state is written and read as a whole |
//! | `dispatch`, with `lanes` and `fit` | who gets what |
//! | `report` | what becomes of a result |
//! | `validate`, `judge`, `transition` | which result counts, and what follows when none does |
//! | `standing`, `odds`, `trust` | what a node's earlier results say of its next one |
//! | `lots`, `checks`, `chance` | held results and their audits, spot-checks, seeded draws |
//! | `gate` | when a unit of a later stage has what it needs |
//! | `heartbeat` | what a node may drop |
//! | `job`, `unit`, `replica`, `node` | what is known of each |
//! | `identity`, `quota`, `credit` | who belongs together, gets how much, and has earned what |
//! | `compare` | outputs that are the same though their bytes differ |
//! | `view`, `explain` | what people may see, and why something does not run |
//! | `invariants` | what must hold after every event |
//!
//! # Invariants
//!
//! - An output is accepted once, and only as the policy of its job demands.
//! - A node never gets two replicas of one work unit, whatever became of the first.
//! - Nobody sees an output of an undecided unit: views count, they do not quote.
//! - A unit of a later stage is begun when the outputs that it takes are accepted and safe, and
//!   those are kept until its own is.
//! - A late, repeated or foreign message changes nothing that it has no right to.
//! - Memory grows with what is in flight, with nodes and with jobs, not with work units.
//!
//! # What is not here
//!
//! - Signatures, unit descriptions, receipts, chunks: the shell's.

#![deny(clippy::wildcard_enum_match_arm)]

mod action;
mod books;
mod chance;
mod checks;
mod compare;
mod config;
mod credit;
mod dispatch;
mod event;
mod explain;
mod gate;
mod heartbeat;
mod identity;
mod invariants;
mod job;
mod judge;
mod lots;
mod node;
mod odds;
mod quota;
mod record;
mod replica;
mod report;
mod snapshot;
mod standing;
mod state;
#[cfg(test)]
mod tests;
mod transition;
mod trust;
mod unit;
mod validate;
mod view;

use std::collections::{BTreeMap, VecDeque};

use dockercomp_protocol::job::JobSpec;
use dockercomp_protocol::time::millis;
use dockercomp_protocol::{Cid, ReplicaId, Timestamp};

pub use action::{Action, Granted, Input};
pub use config::Config;
pub use dispatch::Hindrance;
pub use event::Event;
pub use explain::{Candidate, NoWork, NodeExplanation};
pub use identity::Identity;
pub use job::{JobState, UnitFailure};
pub use node::{AddressRange, Disagreement, Profile};
pub use quota::Quota;
pub use record::{
    Finding, OLDEST as RECORD_VERSION_OLDEST, Record, Seed, Silence, Terms, UnitError,
    VERSION as RECORD_VERSION,
};
pub use replica::{Tally, ValidateState};
pub use snapshot::{SnapshotError, VERSION as SNAPSHOT_VERSION};
pub use standing::{Record as Reputation, Standing};
pub use state::{ApplyError, State};
pub use view::{JobView, NodeView, Registered, ReplicaFate, ReplicaView, StageView, UnitView};

use dispatch::Cursors;
use node::{Presence, Visit};
use unit::UnitKey;

/// The coordinator's decisions. See the module documentation.
#[derive(Debug)]
pub struct Core {
    /// What the journal rebuilds.
    state: State,
    actions: VecDeque<Action>,
    /// Registered nodes; they register again after a restart.
    presence: Presence,
    /// Saves looking twice; empty after a restart.
    cursors: Cursors,
    /// Whether a node went away with less than it could have done since the last
    /// announcement. Assumed after a restart: one announcement too many is cheap.
    is_somebody_idle: bool,
    /// Whether the event at hand made work that nobody expects.
    is_there_new_work: bool,
    /// No lease runs out before this: nodes could not report while we were away.
    grace_until: Timestamp,
    /// Comparisons that were asked for; asked again after a restart.
    asked: BTreeMap<UnitKey, Vec<ReplicaId>>,
    /// When the nodes have had time to register since the last restart.
    settled_at: Timestamp,
    /// Whether they have had it, or none were known.
    is_settled: bool,
    /// Events handled, to check the costly invariants now and then.
    n_events: u64,
}

impl Core {
    /// A core that knows of nothing.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            state: State::new(config),
            actions: VecDeque::new(),
            presence: Presence::default(),
            cursors: Cursors::default(),
            is_somebody_idle: true,
            is_there_new_work: false,
            grace_until: Timestamp::default(),
            asked: BTreeMap::new(),
            settled_at: Timestamp::default(),
            is_settled: true,
            n_events: 0,
        }
    }

    /// Applies one record of the journal, in order, before [`Self::resume`].
    ///
    /// # Errors
    /// If the record does not fit; nothing is changed then, and the journal must not be used.
    pub fn apply(&mut self, record: &Record) -> Result<(), ApplyError> {
        let applied = self.state.apply(record).map(|_| ());
        // What followed from it was decided, and is in the records that come after it.
        self.state.dirty.clear();
        applied
    }

    /// Takes up work after the journal was replayed: asks again for what was owed when the
    /// last process ended. After a long absence leases have the time left that they had at the
    /// last record, since nobody could report meanwhile; a clock that was set forward looks the
    /// same.
    ///
    /// Drain [`Self::poll_action`] before the next call.
    ///
    /// # Panics
    /// If an event was handled before and its actions were not drained.
    pub fn resume(&mut self, now: Timestamp) {
        assert!(self.actions.is_empty(), "a core resumes once, before its first event");
        let grace = self.state.config.resume_grace;
        // Where nothing is leased, nobody could have missed a deadline.
        if !self.state.deadlines.is_empty() || !self.state.lots.deadlines.is_empty() {
            self.grace_until = now + grace;
        }
        self.settled_at = now + grace;
        self.is_settled = self.state.nodes.is_empty();
        let away = now.since(self.state.last_at);
        if away > grace && !self.state.deadlines.is_empty() {
            self.persist(Record::Away { at: now, ms: millis(away) });
        }
        for (&number, job) in &self.state.jobs {
            for &index in job.units.keys() {
                let key = UnitKey { job: number, index };
                self.actions.extend(self.state.owed_fetch(key));
            }
        }
        self.ask_again();
        self.look_again(now);
        self.is_there_new_work = true;
        self.announce_if_due();
        self.assert_invariants();
    }

    /// Says that nobody could reach the core for a while: no lease runs out for
    /// [`Config::resume_grace`] from `now` on.
    pub fn excuse(&mut self, now: Timestamp) {
        self.grace_until = self.grace_until.max(now + self.state.config.resume_grace);
    }

    /// Applies one event.
    ///
    /// Drain [`Self::poll_action`] before the next call.
    ///
    /// # Panics
    /// If the actions of the previous event were not drained, or if an invariant is broken:
    /// then the state is not to be trusted, and is rebuilt from the journal.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        assert!(self.actions.is_empty(), "actions of the previous event were not drained");
        self.is_settled |= now >= self.settled_at;
        match event {
            Event::JobAdded { job, spec, units, seed } => {
                self.on_job_added(now, job, &spec, units, seed);
            }
            Event::JobCancelled { job } => self.on_job_cancelled(now, job),
            Event::NodeRegistered { node, profile } => {
                let nodes_max = self.state.config.nodes_present_max;
                let first_lease = Some(ReplicaId(self.state.next_replica));
                let visit = Visit { profile, last_seen: now, first_lease };
                self.presence.register(node, visit, nodes_max);
            }
            Event::NodeDetached { node } => self.on_node_detached(now, node),
            Event::WorkRequested { node, request } => self.on_work_requested(now, node, &request),
            Event::LeasesUndelivered { replicas } => {
                self.end_all(now, &replicas, Silence::CouldntSend);
            }
            Event::ResultReported { result, sealed } => {
                self.on_result_reported(now, &result, sealed);
            }
            Event::Heartbeat { node, running, kept, checkpointed } => {
                self.extend_all(now, node, &checkpointed);
                self.on_heartbeat(now, node, &running, &kept);
            }
            Event::OutputStored { job, index } => self.on_output_stored(now, job, index),
            Event::OutputLost { job, index } => self.on_output_lost(now, job, index),
            Event::Compared { job, index, asked, classes } => {
                self.on_compared(now, job, index, &asked, classes);
            }
            Event::DeadlineReached => self.on_deadline_reached(now),
        }
        self.settle_dirty(now);
        self.announce_if_due();
        self.assert_invariants();
    }

    /// Returns the next effect to carry out.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns when [`Event::DeadlineReached`] is due, if any lease is out.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let lease = self.state.deadlines.first().map(|&(at, _)| at.max(self.grace_until));
        let lot = self.state.lots.deadlines.first().map(|&(at, _)| at.max(self.grace_until));
        lease.into_iter().chain(lot).min()
    }

    /// When the latest record was made: time must not be earlier when work is taken up.
    #[must_use]
    pub const fn last_record_at(&self) -> Timestamp {
        self.state.last_at
    }

    /// The durable state, to write it or to compare it with another.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The job and the number of the work unit that a replica is of, while it is in memory.
    /// The shell needs it to check that a result names the right work unit.
    #[must_use]
    pub fn unit_of(&self, replica: ReplicaId) -> Option<(Cid, u64)> {
        if let Some(check) = self.state.checks.get(&replica) {
            return Some((self.state.job(check.job).id, check.index));
        }
        let key = self.state.replicas.get(&replica)?;
        Some((self.state.job(key.job).id, key.index))
    }

    /// The outputs of earlier stages that a unit takes, in order, while it is in memory; none
    /// for a unit of the first stage.
    #[must_use]
    pub fn inputs_of(&self, job: Cid, index: u64) -> Vec<Cid> {
        let number = self.state.numbers.get(&job);
        let inputs = number.map(|&number| self.state.job(number).inputs(index));
        inputs.into_iter().flatten().map(|input| input.output).collect()
    }

    /// Looks at everything that waits for a decision, as after a restart.
    fn look_again(&mut self, now: Timestamp) {
        let lots: Vec<_> = self.state.lots.lots.keys().copied().collect();
        self.state.dirty.lots.extend(lots);
        self.settle_dirty(now);
    }

    fn on_job_added(
        &mut self,
        now: Timestamp,
        job: Cid,
        spec: &JobSpec,
        units: u64,
        seed: [u8; 32],
    ) {
        if !self.state.numbers.contains_key(&job) {
            let seed = Seed(seed);
            self.persist(Record::JobAdded { at: now, job, terms: Terms::of(spec), units, seed });
        }
    }

    fn on_job_cancelled(&mut self, now: Timestamp, job: Cid) {
        let number = self.state.numbers.get(&job);
        if number.is_some_and(|&number| self.state.job(number).is_running()) {
            self.persist(Record::JobCancelled { at: now, job });
        }
    }

    fn on_output_stored(&mut self, now: Timestamp, job: Cid, index: u64) {
        let key = self.state.numbers.get(&job).map(|&job| UnitKey { job, index });
        // Also one that was given up for lost meanwhile: here it is.
        if key.is_some_and(|key| self.state.is_unsafe(key)) {
            self.persist(Record::OutputStored { at: now, job, index });
        }
    }

    fn on_output_lost(&mut self, now: Timestamp, job: Cid, index: u64) {
        let key = self.state.numbers.get(&job).map(|&job| UnitKey { job, index });
        let is_owed = key.and_then(|key| self.state.owed_fetch(key)).is_some();
        if let Some(key) = key.filter(|_| is_owed) {
            self.persist(Record::OutputLost { at: now, job, index });
            self.forgo(now, key);
        }
    }

    /// Applies a record and has it made durable: the only way in which the state changes.
    fn persist(&mut self, record: Record) {
        let applied = self.state.apply(&record);
        let effects = applied.expect("the core makes only records that fit its state");
        self.is_there_new_work |= effects.is_there_new_work;
        self.actions.push_back(Action::Persist(record));
        if let Some(number) = effects.ended {
            self.cursors.forget_job(number);
            self.asked.retain(|key, _| key.job != number);
            let job = self.state.job(number);
            self.actions.push_back(Action::JobEnded { job: job.id, state: job.state });
        }
    }

    /// Tells idle nodes that there is work, if there is and they were not told yet.
    fn announce_if_due(&mut self) {
        let is_news = std::mem::take(&mut self.is_there_new_work);
        if is_news && self.is_somebody_idle && !self.state.with_work.is_empty() {
            self.is_somebody_idle = false;
            self.actions.push_back(Action::AnnounceWork);
        }
    }
}
