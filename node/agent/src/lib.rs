//! The agent: what a volunteer's node does next.
//!
//! Pure: time arrives as an argument and effects leave as [`Action`]s, so the simulator and
//! the production shell run exactly this code.
//!
//! An [`Agent`] is the conversation with one project. A node that works for several has a
//! [`Household`] of agents, which divides between them what the node offers.
//!
//! # Shape
//!
//! ```text
//!            FetchInputs          Start               finished
//! leased ──► Fetching ──► Ready ──────► Running ──► Unreported ──► Kept ──► (gone)
//!    │            │          │             │        report stored   output forgotten
//!    └────────────┴──────────┴─────────────┘
//!       abandoned by the coordinator, or the deadline passed before the first start
//! ```
//!
//! The shell carries out the actions in order, feeds what happens back as [`Event`]s, and
//! calls [`Agent::handle`] with [`Event::Wake`] when [`Agent::next_wake`] has come.
//!
//! # What is not here
//!
//! - No sockets, disks or containers, and no clock.
//! - Nothing durable: the shell stores leases and finished results, and gives them back to
//!   [`Agent::new`] after a restart.
//!
//! # Bounds
//!
//! Leases held at once by capacity and [`Config::leases_max`]; one question of each kind on
//! its way at a time; failed questions are repeated with exponential back-off.

mod backoff;
mod household;
mod tasks;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::VecDeque;
use std::time::Duration;

use dockercomp_protocol::limits::{HEARTBEAT_REPLICAS_MAX, REPORTS_MAX};
use dockercomp_protocol::wire::work::Capacity;
use dockercomp_protocol::{ReplicaId, Timestamp};

use crate::backoff::Question;
pub use crate::household::{Connection, Household, Member, Standing};
use crate::tasks::{Task, Tasks};
pub use crate::usage::{CATCH_UP_MAX, HALF_LIFE, Share, TURN, Usage};

/// What a node is willing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What replicas may use at one time.
    pub offer: Capacity,
    /// Work held ready beyond what runs, in percent of `offer`: hides the way to the
    /// coordinator and the fetching of inputs. 100 means "as much again".
    pub buffer_percent: u32,
    /// Unfinished leases held at most.
    pub leases_max: u32,
    /// First pause after a question that failed.
    pub retry_first: Duration,
    /// Longest pause after questions that failed.
    pub retry_max: Duration,
    /// Seeds the jitter of pauses, so that nodes do not ask in step.
    pub seed: u64,
}

impl Config {
    /// The usual values for this offer.
    #[must_use]
    pub const fn new(offer: Capacity, seed: u64) -> Self {
        Self {
            offer,
            buffer_percent: 100,
            leases_max: 64,
            retry_first: Duration::from_millis(500),
            retry_max: Duration::from_secs(60),
            seed,
        }
    }

    /// What unfinished leases may take: the offer and the buffer. Disk is not bought twice.
    pub(crate) fn reservoir(&self) -> Capacity {
        let percent = 100 + u64::from(self.buffer_percent);
        let scaled = |amount: u64| amount.saturating_mul(percent) / 100;
        Capacity {
            cpu_millis: u32::try_from(scaled(self.offer.cpu_millis.into())).unwrap_or(u32::MAX),
            memory_bytes: scaled(self.offer.memory_bytes),
            disk_bytes: self.offer.disk_bytes,
        }
    }
}

/// A lease as the agent needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The replica.
    pub replica: ReplicaId,
    /// What it takes while it runs.
    pub need: Capacity,
    /// When it runs out.
    pub expires_at: Timestamp,
    /// An earlier run of this node has begun it and left a checkpoint. Like one that runs, it is
    /// given up only when the coordinator says so: its deadline may have been put off, and what
    /// is done would be lost.
    pub begun: bool,
}

/// What was left by an earlier run of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Leases that were not finished.
    pub leases: Vec<Lease>,
    /// Finished replicas whose reports were not acknowledged.
    pub unreported: Vec<ReplicaId>,
    /// Reported replicas whose outputs are kept.
    pub kept: Vec<ReplicaId>,
}

/// A fact that the shell observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The time returned by [`Agent::next_wake`] has come.
    Wake,
    /// The coordinator has welcomed this node (again).
    Welcomed {
        /// Time between heartbeats.
        heartbeat: Duration,
    },
    /// The project says that there is work.
    Announced,
    /// The answer to [`Action::AskForWork`].
    Assigned {
        /// The leases, which the shell has stored.
        leases: Vec<Lease>,
        /// When to ask again if they were too few.
        retry: Duration,
    },
    /// [`Action::AskForWork`] was not answered.
    AskFailed,
    /// The inputs and program of a replica are there.
    InputsReady {
        /// The replica.
        replica: ReplicaId,
    },
    /// A replica ended, its result is signed and stored, or it could not even start and
    /// that is its result.
    Finished {
        /// The replica.
        replica: ReplicaId,
    },
    /// A replica ended without a result, because it was aborted.
    Aborted {
        /// The replica.
        replica: ReplicaId,
    },
    /// The coordinator has answered the report of these replicas and the shell has stored
    /// that fact.
    Reported {
        /// Replicas that the coordinator has stored; their outputs must be kept.
        stored: Vec<ReplicaId>,
        /// Replicas that the coordinator does not want; their outputs can go.
        refused: Vec<ReplicaId>,
    },
    /// [`Action::Report`] was not answered.
    ReportFailed,
    /// The answer to [`Action::Heartbeat`].
    HeartbeatAnswered {
        /// Replicas whose results are not needed any more.
        abandon: Vec<ReplicaId>,
        /// Replicas whose outputs may be forgotten.
        forget: Vec<ReplicaId>,
    },
    /// [`Action::Heartbeat`] was not answered.
    HeartbeatFailed,
    /// The volunteer leaves the project: no new work is asked for, and
    /// [`Action::TakeLeave`] follows when nothing is left.
    Leave {
        /// Drop what is there instead of finishing and reporting it.
        now: bool,
    },
    /// The volunteer stays after all.
    Stay,
}

/// An effect that the shell must carry out, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the coordinator for leases.
    AskForWork {
        /// What is free.
        free: Capacity,
        /// How many leases at most.
        leases_max: u32,
    },
    /// Bring inputs and program of a replica here.
    FetchInputs {
        /// The replica.
        replica: ReplicaId,
    },
    /// Run a replica.
    Start {
        /// The replica.
        replica: ReplicaId,
    },
    /// Stop fetching for, or running, a replica; answer with [`Event::Aborted`].
    Abort {
        /// The replica.
        replica: ReplicaId,
        /// Why, for people.
        reason: AbortReason,
    },
    /// Report these results.
    Report {
        /// The replicas.
        replicas: Vec<ReplicaId>,
    },
    /// Tell the coordinator what is here.
    Heartbeat {
        /// Replicas that are not reported yet.
        running: Vec<ReplicaId>,
        /// Reported replicas whose outputs are kept.
        kept: Vec<ReplicaId>,
    },
    /// Forget the output of a replica and everything else about it.
    Forget {
        /// The replica.
        replica: ReplicaId,
    },
    /// Nothing of the project is left here: tell the coordinator that this node has gone.
    TakeLeave,
}

/// Why a replica is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortReason {
    /// The coordinator does not need it any more.
    NotNeeded,
    /// Its deadline passed before it could start.
    Late,
    /// The volunteer left the project and did not want to wait.
    Left,
}

/// The agent. See the crate's documentation.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    tasks: Tasks,
    ask: Question,
    report: Question,
    heartbeat: Question,
    heartbeat_every: Option<Duration>,
    /// The coordinator does not answer.
    is_unanswered: bool,
    /// The last answer to a request for work brought some, or there was none yet.
    has_more: bool,
    /// There was none the last time that there was room for any replica.
    lacks_work: bool,
    /// There was room for any replica when work was asked for.
    asked_for_any: bool,
    /// The volunteer leaves.
    is_leaving: bool,
    /// [`Action::TakeLeave`] is given.
    has_left: bool,
    actions: VecDeque<Action>,
}

/// What may be leased on top of what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) free: Capacity,
    pub(crate) leases_max: u32,
}

impl Room {
    /// Whether it is worth asking for work.
    const fn is_any(&self) -> bool {
        self.leases_max > 0 && self.free.cpu_millis > 0
    }
}

impl Agent {
    /// An agent that goes on where an earlier one stopped.
    #[must_use]
    pub fn new(config: Config, restored: Restored, now: Timestamp) -> Self {
        let question = |salt| Question::new(config.seed ^ salt, &config, now);
        let mut agent = Self {
            ask: question(1),
            report: question(2),
            heartbeat: question(3),
            heartbeat_every: None,
            tasks: Tasks::default(),
            is_unanswered: false,
            has_more: false,
            lacks_work: restored.leases.is_empty(),
            asked_for_any: false,
            is_leaving: false,
            has_left: false,
            actions: VecDeque::new(),
            config,
        };
        for lease in restored.leases {
            agent.accept(lease);
        }
        for replica in restored.unreported {
            agent.tasks.insert(replica, Task::Unreported);
        }
        for replica in restored.kept {
            agent.tasks.insert(replica, Task::Kept);
        }
        agent
    }

    /// Applies one event. Drain [`Self::poll_action`] afterwards; the effects of
    /// [`Self::new`] come with those of the first event.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        self.on_event(now, event);
        while let Some((replica, _)) = self.next_to_start(&self.config.offer.minus(&self.busy())) {
            self.start(replica);
        }
        self.ask_what_is_due(now, &self.room());
    }

    /// Applies one event, without starting or asking for anything.
    pub(crate) fn on_event(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::Wake => {}
            Event::Welcomed { heartbeat } => {
                (self.is_unanswered, self.has_more) = (false, true);
                self.heartbeat_every = Some(heartbeat);
                self.heartbeat.due(now);
                self.ask.due(now);
                self.report.due(now);
            }
            Event::Announced => self.ask.due(now),
            Event::Assigned { leases, retry } => self.on_assigned(now, leases, retry),
            Event::AskFailed => {
                (self.is_unanswered, self.has_more, self.lacks_work) = (true, false, true);
                self.ask.failed(now);
            }
            Event::InputsReady { replica } if self.tasks.is_aborting(replica) => {
                // They arrived while the fetch was being stopped: nothing is under way that
                // could still say that it has stopped, so ask again.
                self.actions.push_back(Action::Abort { replica, reason: AbortReason::NotNeeded });
            }
            Event::InputsReady { replica } => self.tasks.ready(replica),
            Event::Finished { replica } => {
                if self.tasks.is_unfinished(replica) {
                    self.tasks.insert(replica, Task::Unreported);
                    self.report.due(now);
                    self.ask.due_unless_waiting(now);
                }
            }
            Event::Aborted { replica } => {
                if self.tasks.is_unfinished(replica) {
                    self.tasks.remove(replica);
                    self.ask.due_unless_waiting(now);
                }
            }
            Event::Reported { stored, refused } => self.on_reported(now, &stored, &refused),
            Event::ReportFailed => {
                self.is_unanswered = true;
                self.report.failed(now);
            }
            Event::HeartbeatAnswered { abandon, forget } => {
                self.on_heartbeat_answered(now, &abandon, &forget);
            }
            Event::HeartbeatFailed => {
                self.is_unanswered = true;
                self.heartbeat.failed(now);
            }
            Event::Leave { now } => self.on_leave(now),
            Event::Stay => (self.is_leaving, self.has_left) = (false, false),
        }
        self.drop_late(now);
        if self.is_leaving && !self.has_left && self.tasks.is_empty() {
            self.has_left = true;
            self.actions.push_back(Action::TakeLeave);
        }
    }

    /// The next effect to carry out.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Event::Wake`] is due.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.next_wake_with(&self.room())
    }

    pub(crate) fn next_wake_with(&self, room: &Room) -> Option<Timestamp> {
        if self.has_left {
            return None;
        }
        let ask = self.wants_work(room).then(|| self.ask.next()).flatten();
        let report = self.tasks.has_unreported().then(|| self.report.next()).flatten();
        let heartbeat = self.heartbeat_every.and_then(|_| self.heartbeat.next());
        let late = self.tasks.next_deadline();
        [ask, report, heartbeat, late].into_iter().flatten().min()
    }

    /// Whether everything that was begun is finished, reported and forgotten.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Whether the volunteer leaves the project.
    pub(crate) const fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// Whether the coordinator has welcomed this node, and answered since.
    pub(crate) const fn is_answered(&self) -> bool {
        self.heartbeat_every.is_some() && !self.is_unanswered
    }

    /// Whether the project is expected to give work when it is asked.
    pub(crate) const fn may_give(&self) -> bool {
        self.heartbeat_every.is_some() && self.has_more && !self.is_leaving
    }

    /// Whether the project had no work the last time that it could have given any.
    pub(crate) const fn lacks_work(&self) -> bool {
        self.lacks_work
    }

    /// Whether a replica is here that is not finished.
    pub(crate) fn has_unfinished(&self) -> bool {
        self.tasks.unfinished().next().is_some()
    }

    /// Whether a replica is here that has not been started.
    pub(crate) fn has_waiting(&self) -> bool {
        self.tasks.has_waiting()
    }

    /// What all unfinished leases take.
    pub(crate) fn reserved(&self) -> Capacity {
        self.tasks.reserved()
    }

    /// What runs, or has not stopped yet.
    pub(crate) fn busy(&self) -> Capacity {
        self.tasks.busy()
    }

    /// What one replica takes if it runs, or has not stopped yet.
    pub(crate) fn busy_with(&self, replica: ReplicaId) -> Option<Capacity> {
        self.tasks.busy_with(replica)
    }

    /// The first ready replica that fits into `free`, and what it takes.
    pub(crate) fn next_to_start(&self, free: &Capacity) -> Option<(ReplicaId, Capacity)> {
        self.tasks.next_to_start(free)
    }

    /// There is room for more than when the coordinator last had nothing that fitted.
    pub(crate) fn has_more_room(&mut self, now: Timestamp) {
        self.ask.due_unless_waiting(now);
    }

    /// Starts a ready replica.
    pub(crate) fn start(&mut self, replica: ReplicaId) {
        self.tasks.running(replica);
        self.actions.push_back(Action::Start { replica });
    }

    /// How many replicas are in each state: fetching, ready, running, unreported, kept.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.tasks.counts()
    }

    fn accept(&mut self, lease: Lease) {
        if self.tasks.insert_new(lease) {
            self.actions.push_back(Action::FetchInputs { replica: lease.replica });
        }
    }

    fn on_assigned(&mut self, now: Timestamp, leases: Vec<Lease>, retry: Duration) {
        let got_any = !leases.is_empty();
        (self.is_unanswered, self.has_more) = (false, got_any);
        self.lacks_work = !got_any && (self.lacks_work || self.asked_for_any);
        for lease in leases {
            if !self.is_leaving {
                self.accept(lease);
            } else if self.tasks.insert_new(lease) {
                self.abort(lease.replica, AbortReason::Left);
            }
        }
        if got_any {
            // There may be more: ask again as soon as there is room.
            self.ask.answered(now, Duration::ZERO);
        } else if self.has_unfinished() {
            // Perhaps there was only no room for more: ask again when something ends.
            self.ask.answered(now, retry);
        } else {
            self.ask.answered_empty(now, retry);
        }
    }

    fn on_reported(&mut self, now: Timestamp, stored: &[ReplicaId], refused: &[ReplicaId]) {
        self.is_unanswered = false;
        for replica in stored {
            if self.tasks.is_reported(*replica) {
                self.tasks.insert(*replica, Task::Kept);
            } else {
                // It was dropped while its report was on its way.
                self.forget(*replica);
            }
        }
        for replica in refused {
            self.forget(*replica);
        }
        self.report.answered(now, Duration::ZERO);
    }

    fn on_heartbeat_answered(
        &mut self,
        now: Timestamp,
        abandon: &[ReplicaId],
        forget: &[ReplicaId],
    ) {
        self.is_unanswered = false;
        for replica in abandon {
            if self.tasks.is_unfinished(*replica) && !self.tasks.is_aborting(*replica) {
                self.abort(*replica, AbortReason::NotNeeded);
            }
        }
        for replica in forget {
            if self.tasks.is_kept(*replica) {
                self.forget(*replica);
            }
        }
        self.heartbeat.answered(now, self.heartbeat_every.unwrap_or(self.config.retry_max));
    }

    fn on_leave(&mut self, now: bool) {
        self.is_leaving = true;
        if !now {
            return;
        }
        let unfinished: Vec<ReplicaId> = self.tasks.unfinished().collect();
        for replica in unfinished {
            if !self.tasks.is_aborting(replica) {
                self.abort(replica, AbortReason::Left);
            }
        }
        let finished: Vec<ReplicaId> = self.tasks.unreported().chain(self.tasks.kept()).collect();
        for replica in finished {
            self.forget(replica);
        }
    }

    fn forget(&mut self, replica: ReplicaId) {
        self.tasks.remove(replica);
        self.actions.push_back(Action::Forget { replica });
    }

    fn abort(&mut self, replica: ReplicaId, reason: AbortReason) {
        self.tasks.aborting(replica);
        self.actions.push_back(Action::Abort { replica, reason });
    }

    /// Gives up what cannot be in time any more. What was already begun may still be wanted.
    fn drop_late(&mut self, now: Timestamp) {
        for replica in self.tasks.late(now) {
            self.abort(replica, AbortReason::Late);
        }
    }

    /// Asks the coordinator whatever it is time for.
    pub(crate) fn ask_what_is_due(&mut self, now: Timestamp, room: &Room) {
        if self.has_left {
            return;
        }
        if self.tasks.has_unreported() && self.report.is_due(now) {
            self.report.asked();
            let replicas = self.tasks.unreported().take(REPORTS_MAX).collect();
            self.actions.push_back(Action::Report { replicas });
        }
        if self.heartbeat_every.is_some() && self.heartbeat.is_due(now) {
            self.heartbeat.asked();
            // What is not named counts as lost, so results on their way are named as well.
            let unfinished = self.tasks.unfinished().chain(self.tasks.unreported());
            let running = unfinished.take(HEARTBEAT_REPLICAS_MAX).collect();
            let kept = self.tasks.kept().take(HEARTBEAT_REPLICAS_MAX).collect();
            self.actions.push_back(Action::Heartbeat { running, kept });
        }
        if self.wants_work(room) && self.ask.is_due(now) {
            self.ask.asked();
            let Room { free, leases_max } = *room;
            self.asked_for_any = free.holds(&Capacity { disk_bytes: 0, ..self.config.offer });
            self.actions.push_back(Action::AskForWork { free, leases_max });
        }
    }

    fn wants_work(&self, room: &Room) -> bool {
        // Before the first welcome nobody is there to ask.
        !self.is_leaving && self.heartbeat_every.is_some() && room.is_any()
    }

    fn room(&self) -> Room {
        self.room_in(&self.config.reservoir())
    }

    /// What may be leased on top of what is held, if all of `portion` is for this project.
    pub(crate) fn room_in(&self, portion: &Capacity) -> Room {
        let held = self.tasks.unfinished().count();
        let leases = usize::try_from(self.config.leases_max).unwrap_or(usize::MAX);
        let leases_max = u32::try_from(leases.saturating_sub(held)).unwrap_or(u32::MAX);
        Room { free: portion.minus(&self.tasks.reserved()), leases_max }
    }
}

/// How many replicas are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting for inputs.
    pub fetching: usize,
    /// Waiting for room.
    pub ready: usize,
    /// Running.
    pub running: usize,
    /// Finished, not yet acknowledged.
    pub unreported: usize,
    /// Reported, output kept.
    pub kept: usize,
}
