//! What all parts of the world share: time, the queue, the network, the books, the trace.

use std::time::Duration;

use dockercomp_coordinator_core::Record;
use dockercomp_protocol::ReplicaId;

use crate::books::Books;
use crate::defect::Defect;
use crate::jobs::{Jobs, UnitId};
use crate::message::{Answer, Calling, Request};
use crate::moment::Moment;
use crate::queue::Queue;
use crate::random::Random;
use crate::scenario::{Cut, Scenario};
use crate::trace::{Trace, What};
use crate::violation::Violation;

/// What happens. A `life` names one start of a machine: what was meant for an earlier one is
/// void.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A host joins the network.
    HostJoins { host: u32 },
    /// A host's machine stops.
    HostCrashes { host: u32, life: u32 },
    /// It is switched on again.
    HostReturns { host: u32 },
    /// It has started, if that takes time.
    HostStarted { host: u32, life: u32 },
    /// The time that a host set itself has come.
    HostTimer { host: u32, life: u32, at: Moment },
    /// The task of a replica on a host came to an end.
    TaskEnds { host: u32, life: u32, replica: ReplicaId, task: u64, end: TaskEnd },
    /// A question reaches the coordinator.
    ToCoordinator { calling: Calling, request: Box<Request> },
    /// An answer reaches a host.
    ToHost { host: u32, life: u32, question: u64, answer: Box<Answer> },
    /// An announcement reaches a host.
    Announced { host: u32 },
    /// The coordinator's machine stops.
    CoordinatorCrashes { life: u32 },
    /// It starts again.
    CoordinatorReturns,
    /// The batch under way is durable.
    Committed { life: u32 },
    /// The core's deadline has come.
    Deadline { life: u32, at: Moment },
    /// The coordinator tries to pull an output.
    Pull { life: u32, unit: UnitId },
    /// The owner looks after a job: submits or cancels it, again until it is acknowledged.
    OwnerActs { job: u32 },
    /// Faults stop, if they have not yet.
    FaultsEnd,
    /// Somebody looks whether all is done.
    Look,
}

/// How the task of a replica ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskEnd {
    /// The inputs are there.
    Fetched,
    /// The program ended.
    Ran,
    /// The program reached its wall-clock limit.
    RanOut,
    /// It was stopped.
    Stopped,
}

/// See the module documentation.
pub(crate) struct Context<'a> {
    pub(crate) now: Moment,
    pub(crate) seed: u64,
    pub(crate) scenario: &'a Scenario,
    pub(crate) queue: Queue<Event>,
    pub(crate) trace: Trace<'a>,
    pub(crate) books: Books,
    pub(crate) jobs: Jobs,
    /// Whether messages get lost and machines crash.
    pub(crate) faults: bool,
    /// When the core last said that a job has ended.
    pub(crate) job_ended: Option<Moment>,
    /// Everything that became durable, if somebody wants it: the journal forgets.
    pub(crate) recorded: Option<Vec<Record>>,
}

impl Context<'_> {
    pub(crate) fn after(&mut self, time: Duration, event: Event) {
        self.queue.push(self.now + time, event);
    }

    pub(crate) fn note(&mut self, what: What, about: [u64; 3]) {
        self.trace.note(self.now, what, about);
    }

    pub(crate) fn has(&self, defect: Defect) -> bool {
        self.scenario.defect == Some(defect)
    }

    /// Takes what a checker found into the story and the books.
    pub(crate) fn violated(&mut self, violation: Violation) {
        self.books.report(violation);
    }

    /// What cuts a host off now.
    pub(crate) fn cut(&self, host: u32) -> Option<&Cut> {
        let age = self.now.age();
        let cuts = &self.scenario.crowd_of(host)?.cuts;
        cuts.iter().find(|cut| self.faults && cut.at <= age && age < cut.end())
    }

    /// When the copies of a message between a host and the coordinator arrive: none if it is lost, two if it is duplicated.
    ///
    /// A cut loses nothing that connections carry: it is sent again until it arrives, and whoever
    /// waits for an answer may lose patience before.
    ///
    /// Draws the same numbers whatever becomes of the message, so that a scenario without
    /// loss and one with differ in the lost messages only.
    pub(crate) fn carry(
        &self,
        host: u32,
        random: &mut Random,
    ) -> impl Iterator<Item = Duration> + use<> {
        let network = &self.scenario.network;
        let is_lost = random.chance(network.loss) && self.faults;
        let is_twice = random.chance(network.duplication) && self.faults;
        let (first, second) =
            (random.duration(&network.latency), random.duration(&network.latency));
        let first = (!is_lost).then_some(first);
        let second = is_twice.then_some(second);
        let held_up = self.cut(host).map_or(Duration::ZERO, |cut| cut.holds_up(self.now.age()));
        first.into_iter().chain(second).map(move |latency| latency + held_up)
    }
}
