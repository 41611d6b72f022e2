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
//! | `state`, `books` | how a record changes the state |
//! | `snapshot` | how the state is written and read as a whole |
//! | `dispatch` | who gets what |
//! | `report` | what becomes of a result |
//! | `validate`, `transition` | which result counts, and what follows when none does |
//! | `heartbeat` | what a node may drop |
//! | `job`, `unit`, `replica`, `node` | what is known of each |
//! | `view` | what people may see |
//! | `invariants` | what must hold after every event |
//!
//! # Invariants
//!
//! - An output is accepted once, and only if a strict majority of the quorum gave it.
//! - A node never gets two replicas of one work unit, whatever became of the first.
//! - Nobody sees an output of an undecided unit: views count, they do not quote.
//! - A late, repeated or foreign message changes nothing that it has no right to.
//! - Memory grows with what is in flight, with nodes and with jobs, not with work units.
//!
//! # What is not here
//!
//! - Signatures, unit descriptions, receipts, chunks: the shell's.
//! - Trust: one node, one vote. `node` says where a policy belongs.

#![deny(clippy::wildcard_enum_match_arm)]

mod action;
mod books;
mod config;
mod dispatch;
mod event;
mod heartbeat;
mod invariants;
mod job;
mod node;
mod record;
mod replica;
mod report;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod transition;
mod unit;
mod validate;
mod view;

use std::collections::VecDeque;

use dockercomp_protocol::job::JobSpec;
use dockercomp_protocol::{Cid, ReplicaId, Timestamp};

pub use action::{Action, Granted};
pub use config::Config;
pub use event::Event;
pub use job::{JobState, UnitFailure};
pub use node::Disagreement;
pub use record::{Finding, Record, Silence, Terms, UnitError, VERSION as RECORD_VERSION};
pub use replica::{Tally, ValidateState};
pub use snapshot::{SnapshotError, VERSION as SNAPSHOT_VERSION};
pub use state::{ApplyError, State};
pub use view::{JobView, NodeView, Registered, UnitView};

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
            n_events: 0,
        }
    }

    /// Applies one record of the journal, in order, before [`Self::resume`].
    ///
    /// # Errors
    /// If the record does not fit; nothing is changed then, and the journal must not be used.
    pub fn apply(&mut self, record: &Record) -> Result<(), ApplyError> {
        self.state.apply(record).map(|_| ())
    }

    /// Takes up work after the journal was replayed: asks again for what was owed when the
    /// last process ended.
    ///
    /// Drain [`Self::poll_action`] before the next call.
    ///
    /// # Panics
    /// If an event was handled before and its actions were not drained.
    pub fn resume(&mut self, now: Timestamp) {
        assert!(self.actions.is_empty(), "a core resumes once, before its first event");
        self.grace_until = now + self.state.config.resume_grace;
        for (&number, job) in &self.state.jobs {
            for &index in job.units.keys() {
                let key = UnitKey { job: number, index };
                self.actions.extend(self.state.owed_fetch(key));
            }
        }
        self.is_there_new_work = true;
        self.announce_if_due();
        self.assert_invariants();
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
        match event {
            Event::JobAdded { job, spec, units } => self.on_job_added(now, job, &spec, units),
            Event::JobCancelled { job } => self.on_job_cancelled(now, job),
            Event::NodeRegistered { node, executors, offer } => {
                let nodes_max = self.state.config.nodes_present_max;
                let visit = Visit { executors, offer, last_seen: now };
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
            Event::Heartbeat { node, running, kept } => {
                self.on_heartbeat(now, node, &running, &kept);
            }
            Event::OutputStored { job, index } => self.on_output_stored(now, job, index),
            Event::DeadlineReached => self.on_deadline_reached(now),
        }
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
        self.state.deadlines.first().map(|&(at, _)| at.max(self.grace_until))
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
        let key = self.state.replicas.get(&replica)?;
        Some((self.state.job(key.job).id, key.index))
    }

    fn on_job_added(&mut self, now: Timestamp, job: Cid, spec: &JobSpec, units: u64) {
        if !self.state.numbers.contains_key(&job) {
            self.persist(Record::JobAdded { at: now, job, terms: Terms::of(spec), units });
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
        let is_owed = key.and_then(|key| self.state.owed_fetch(key)).is_some();
        if is_owed {
            self.persist(Record::OutputStored { at: now, job, index });
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
