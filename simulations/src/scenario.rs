//! What is simulated: hosts, jobs, network, faults, and how long patience lasts.
//!
//! A scenario is a plain value. Together with a seed it fixes a run bit for bit.
//!
//! ```text
//! 0 ──────── faults ────────► faults_end ─────── no faults ───────► + patience
//!                              reinforcements join; every job must end before
//! ```
//!
//! Adversaries stay what they are after the faults stop; loss, duplication and crashes end,
//! and whoever was down and has not departed comes back.

use std::time::Duration;

use dockercomp_coordinator_core::Config as CoreConfig;
use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::job::{SpecError, Validation};
use serde::Deserialize;

use crate::behaviour::Behaviour;
use crate::defect::Defect;
use crate::jobs;
use crate::random::Spread;

/// Everything about a run but its seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The hosts, in groups that are alike.
    pub crowds: Vec<Crowd>,
    /// The jobs.
    pub jobs: Vec<JobPlan>,
    /// The way between hosts and coordinator.
    pub network: Network,
    /// The coordinator's machine.
    pub coordinator: CoordinatorPlan,
    /// When faults stop; earlier if every job has ended.
    pub faults_end: Duration,
    /// After the faults stopped, every job must end within this time; and after the jobs have
    /// ended, every host must be rid of them within this time.
    pub patience: Duration,
    /// Honest hosts that join when faults stop. A node gets each unit once only, so faults can
    /// use up all nodes for a unit; `max_total_results` new ones always suffice.
    pub reinforcements: u32,
    /// What becomes of the outputs on hosts that leave for ever.
    pub departed_outputs: DepartedOutputs,
    /// A deliberate defect, to see that it is found.
    pub defect: Option<Defect>,
    /// How much of the world is simulated.
    pub engine: Engine,
}

/// How much of the world is simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Everything that the crate's documentation lists, every checker at every step.
    #[default]
    Full,
    /// The real core and the hosts' behaviour, and nothing between them: no agent, messages,
    /// crashes, journal or books. For figures that need millions of replicas.
    Direct,
}

/// Hosts that are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Crowd {
    /// How many.
    pub hosts: u32,
    /// How they behave.
    pub behaviour: Behaviour,
    /// How fast each is, in percent of the speed that run times are given for.
    pub speed: Spread,
    /// Cores that each offers.
    pub cores: Spread,
    /// What they can run.
    pub executors: Vec<ExecutorKind>,
    /// How many operators run them, each every so many hosts; 0: none says who runs it.
    /// Operators are the same in all crowds.
    pub operators: u32,
    /// How far each host's clock is ahead of the true time.
    pub clock_ahead: Spread,
    /// When each joins.
    pub joins: Spread,
    /// How long a machine takes from being switched on until its node asks its first question.
    pub startup: Spread,
    /// How long it takes to bring a job's program and make it ready, once after each start.
    pub prepare: Spread,
    /// What each run takes besides the program: laying its inputs out, starting it, keeping its
    /// output.
    pub staging: Spread,
    /// How they crash and return, if they do.
    pub churn: Option<Churn>,
    /// When each was there, instead of joining and churn; hosts take these in turn. Empty if
    /// nothing is known.
    pub trace: Vec<Vec<(Duration, Duration)>>,
    /// When all of them are cut off from everybody else: a partition, an outage of a region.
    pub cuts: Vec<Cut>,
}

/// A time without a way to the coordinator, while there are faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
}

impl Cut {
    /// When it ends.
    #[must_use]
    pub const fn end(&self) -> Duration {
        self.at.saturating_add(self.lasts)
    }

    /// How much later something arrives that is sent at this age of the world, while it lasts:
    /// TCP sends it again after 200 ms, and each time waits twice as long as before (RFC 6298;
    /// the first pause is Linux's least).
    pub(crate) fn holds_up(&self, sent: Duration) -> Duration {
        const FIRST: Duration = Duration::from_millis(200);
        let (mut pause, mut waited) = (FIRST, Duration::ZERO);
        while sent + waited < self.end() {
            waited += pause;
            pause = pause.saturating_mul(2);
        }
        waited
    }
}

/// Crashing and returning.
#[derive(Clone, Debug, PartialEq)]
pub struct Churn {
    /// Time from being switched on to the next crash.
    pub up: Spread,
    /// Time from a crash to the return.
    pub down: Spread,
    /// Probability that a crash is the last one: the machine never returns. Means nothing for
    /// the coordinator.
    pub departs: f64,
    /// How it follows the day, if it does.
    pub day: Option<Day>,
}

/// How churn follows the day: a host that is switched on at the peak stays longer, and one that
/// crashes then returns sooner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Day {
    /// By which part of their length, from 0 to 1: spells there are longer by up to so much at
    /// the peak, and shorter at night.
    pub swing: f64,
    /// When the peak is, after the world began and each day again.
    pub peak: Duration,
}

impl Day {
    /// What a spell of being there is longer by, and one of being away shorter by.
    pub(crate) fn factor(&self, at: Duration) -> f64 {
        const DAY: f64 = 86_400.0;
        let turn = (at.as_secs_f64() - self.peak.as_secs_f64()) / DAY;
        1.0 + self.swing * libm::cos(2.0 * std::f64::consts::PI * turn)
    }
}

/// The way between a host and the coordinator.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// One way, for each message; messages overtake each other.
    pub latency: Spread,
    /// Probability that a message is lost, while there are faults.
    pub loss: f64,
    /// Probability that a message arrives twice, while there are faults.
    pub duplication: f64,
    /// How long a host waits for an answer.
    pub timeout: Duration,
}

/// The coordinator's machine and its shell.
#[derive(Clone, Debug, PartialEq)]
pub struct CoordinatorPlan {
    /// The core's settings.
    pub core: CoreConfig,
    /// How long one synced batch takes.
    pub sync: Spread,
    /// Time between a node's heartbeats.
    pub heartbeat: Duration,
    /// When a node that got nothing asks again.
    pub retry: Duration,
    /// How long pulling an output takes.
    pub pull: Spread,
    /// An output is lost, and computed again, when all who have it have not given it for this
    /// long while somebody else could compute it.
    pub outputs_lost_after: Duration,
    /// How it crashes and returns, if it does.
    pub churn: Option<Churn>,
    /// After each so many batches the journal is replayed into a standby, and the live core
    /// must equal it. 0 compares after crashes and at the end only.
    pub compare_every: u32,
}

/// A job, as its owner plans it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPlan {
    /// Work units.
    pub units: u64,
    /// When results count.
    pub validation: Validation,
    /// Executors that can run it; not empty.
    pub executors: Vec<ExecutorKind>,
    /// Time to bring inputs to a host.
    pub fetch: Spread,
    /// Time that a unit runs at a speed of 100 percent.
    pub run: Spread,
    /// What a run time belongs to.
    pub run_per: RunPer,
    /// When it is submitted.
    pub submit: Duration,
    /// When it is cancelled, if it is.
    pub cancel: Option<Duration>,
}

/// What a run time belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunPer {
    /// Each replica: one unit takes different times on equal hosts.
    #[default]
    Replica,
    /// Each unit: its replicas take the same time on equal hosts.
    Unit,
}

/// What becomes of the outputs on hosts that leave for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DepartedOutputs {
    /// Somebody else serves them, as the exchange between peers is meant to see to.
    #[default]
    Reachable,
    /// They are gone. If all holders of a canonical output leave before it was pulled, others
    /// compute it again.
    Lost,
}

impl Scenario {
    /// A quiet world: `hosts` honest hosts and one job of `units` work units at quorum 2,
    /// no faults. Where scenarios start from.
    #[must_use]
    pub fn calm(hosts: u32, units: u64) -> Self {
        let seconds = Duration::from_secs;
        Self {
            crowds: vec![Crowd::honest(hosts)],
            jobs: vec![JobPlan::new(units)],
            network: Network {
                latency: Spread::times(Duration::from_millis(10), Duration::from_millis(150)),
                loss: 0.0,
                duplication: 0.0,
                timeout: seconds(30),
            },
            coordinator: CoordinatorPlan {
                core: CoreConfig::default(),
                sync: Spread::times(Duration::from_millis(1), Duration::from_millis(10)),
                heartbeat: seconds(5),
                retry: seconds(15),
                pull: Spread::times(Duration::from_millis(50), seconds(2)),
                outputs_lost_after: seconds(600),
                churn: None,
                compare_every: 0,
            },
            faults_end: Duration::ZERO,
            patience: seconds(24 * 3600),
            reinforcements: 0,
            departed_outputs: DepartedOutputs::Reachable,
            defect: None,
            engine: Engine::Full,
        }
    }

    /// Whether its jobs could be submitted: by the rules of the protocol.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        (0..).zip(&self.jobs).try_for_each(|(number, plan)| jobs::check(number, plan))
    }

    /// Hosts that may give wrong outputs.
    #[must_use]
    pub fn saboteurs(&self) -> u64 {
        let lying = self.crowds.iter().filter(|crowd| crowd.behaviour.may_lie());
        lying.map(|crowd| u64::from(crowd.hosts)).sum()
    }

    /// The crowd of a host, by its number: crowds come one after the other. Nothing if it is
    /// one of the reinforcements.
    pub(crate) fn crowd_of(&self, host: u32) -> Option<&Crowd> {
        self.crowds.get(self.group_of(host)?)
    }

    /// The place of that crowd among all.
    pub(crate) fn group_of(&self, host: u32) -> Option<usize> {
        let mut before = 0;
        self.crowds.iter().position(|crowd| {
            before += crowd.hosts;
            host < before
        })
    }

    /// How a host behaves; reinforcements are honest.
    pub(crate) fn behaviour(&self, host: u32) -> Behaviour {
        self.crowd_of(host).map_or(Behaviour::Honest, |crowd| crowd.behaviour)
    }

    /// Hosts in all crowds.
    #[must_use]
    pub fn hosts(&self) -> u32 {
        self.crowds.iter().map(|crowd| crowd.hosts).sum()
    }
}

impl Crowd {
    /// Honest hosts of four cores that are always on.
    #[must_use]
    pub fn honest(hosts: u32) -> Self {
        Self {
            hosts,
            behaviour: Behaviour::Honest,
            // Quantiles (0, 10, .., 100 %) of GFLOPS of 3.5 million hosts of SETI@home in 2016,
            // relative to the median of 3.36; the tail above 90 % is cut at p99.
            speed: Spread::Quantiles(vec![20, 34, 46, 60, 78, 100, 130, 164, 240, 402, 997]),
            cores: Spread::Fixed(4),
            executors: vec![ExecutorKind::Docker, ExecutorKind::Wasm],
            operators: 0,
            clock_ahead: Spread::Fixed(0),
            joins: Spread::times(Duration::ZERO, Duration::from_secs(10)),
            trace: Vec::new(),
            cuts: Vec::new(),
            startup: Spread::Fixed(0),
            prepare: Spread::Fixed(0),
            staging: Spread::Fixed(0),
            churn: None,
        }
    }
}

impl Crowd {
    /// Who runs one of its hosts, by the host's number.
    pub(crate) fn operator_of(&self, host: u32) -> Option<u32> {
        host.checked_rem(self.operators)
    }
}

impl JobPlan {
    /// A job at quorum 2 of units that run for half a minute to two.
    #[must_use]
    pub fn new(units: u64) -> Self {
        let seconds = Duration::from_secs;
        Self {
            units,
            validation: Validation {
                policy: dockercomp_protocol::job::Policy::Fixed,
                min_quorum: 2,
                target_nresults: 2,
                max_error_results: 10,
                max_total_results: 20,
                max_success_results: 10,
                delay_bound_ms: 3_600_000,
                comparison: dockercomp_protocol::job::Comparison::Identical,
                homogeneous: dockercomp_protocol::job::Homogeneity::default(),
            },
            executors: vec![ExecutorKind::Docker, ExecutorKind::Wasm],
            fetch: Spread::times(Duration::from_millis(100), seconds(2)),
            run: Spread::times(seconds(30), seconds(120)),
            run_per: RunPer::Replica,
            submit: Duration::ZERO,
            cancel: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cut_holds_up_arrives_when_it_is_sent_again() {
        let seconds = Duration::from_secs_f64;
        let cut = Cut { at: seconds(6.0), lasts: seconds(12.0) };
        // Sent again after 0.2, 0.6, 1.4, 3.0, 6.2 and 12.6 s.
        for (sent, held_up) in [(6.0, 12.6), (12.0, 6.2), (17.0, 1.4), (17.9, 0.2), (18.0, 0.0)] {
            assert_eq!(cut.holds_up(seconds(sent)), seconds(held_up), "sent at {sent} s");
        }
    }
}
