//! Small worlds drawn from a seed: every size, every rule and every probability.
//!
//! Swarm testing: each kind of fault is left out in half of the worlds, so that a rare
//! combination is not hidden by a common one. Everything is small, so that units meet the
//! limits of their job, nodes run out, and crashes hit the moments that matter.

use std::time::Duration;

use dockercomp_coordinator_core::Config as CoreConfig;
use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::job::{
    Adaptive, Audited, Comparison, Credibility, Homogeneity, Policy, Share, Validation,
};

use crate::behaviour::{Answer, Behaviour, Deceit, Wakes};
use crate::random::{Entity, Purpose, Random, Spread};
use crate::scenario::{
    Churn, CoordinatorPlan, Crowd, DepartedOutputs, Engine, JobPlan, Network, RunPer, Scenario,
};

/// Rounds of leases that a unit may need after the faults stopped, beyond its own limit.
const SPARE_ROUNDS: u32 = 4;

impl Scenario {
    /// A small world, everything in it drawn from the seed.
    #[must_use]
    pub fn fuzz(seed: u64) -> Self {
        let mut draw = Draw(Random::keyed(seed, Entity::Author, Purpose::Nature));
        let mut rules = Draw(Random::keyed(seed, Entity::Author, Purpose::Rules));
        let mut crowds = draw.crowds();
        rules.assign_operators(&mut crowds);
        let n_jobs = draw.0.between(1, 3);
        let mut jobs: Vec<JobPlan> = (0..n_jobs).map(|_| draw.job()).collect();
        for job in &mut jobs {
            job.validation.policy = rules.policy();
        }
        let validations = || jobs.iter().map(|job| &job.validation);
        // As many as may have a unit, and compute its output again when it is lost.
        let most = |rules: &Validation| rules.max_total_results + rules.max_success_results + 1;
        let replicas = validations().map(most).max().unwrap_or(0);
        let bound = validations().map(Validation::delay_bound).max().unwrap_or_default();
        let hold = validations().map(|rules| hold(&rules.policy)).max().unwrap_or_default();
        let (departed_outputs, lost_after) = rules.losses();
        Self {
            network: draw.network(),
            coordinator: CoordinatorPlan { outputs_lost_after: lost_after, ..draw.coordinator() },
            faults_end: Duration::from_secs(draw.0.between(300, 3600)),
            // Every round costs at most a deadline, a lot's time, the time until a loss is
            // noticed, a timeout and the longest pauses.
            patience: (bound + hold + lost_after + Duration::from_secs(300))
                * (replicas + SPARE_ROUNDS),
            reinforcements: replicas,
            departed_outputs,
            defect: None,
            engine: Engine::Full,
            crowds,
            jobs,
        }
    }
}

/// How long a result may wait for others of its lot.
const fn hold(policy: &Policy) -> Duration {
    match policy {
        Policy::Audited(rules) => Duration::from_millis(rules.hold_ms),
        Policy::Fixed | Policy::Adaptive(_) | Policy::Credibility(_) => Duration::ZERO,
    }
}

struct Draw(Random);

impl Draw {
    fn coin(&mut self) -> bool {
        self.0.chance(0.5)
    }

    /// A probability up to `most`, or none in half of the worlds.
    fn probability(&mut self, most: f64) -> f64 {
        let drawn = self.0.fraction() * most;
        if self.coin() { drawn } else { 0.0 }
    }

    /// Up to `most_s` seconds, an even spread from a tenth of what is drawn.
    fn seconds(&mut self, least_s: u64, most_s: u64) -> Spread {
        let high = self.0.between(least_s, most_s);
        Spread::times(Duration::from_millis(high * 100), Duration::from_secs(high))
    }

    fn executors(&mut self) -> Vec<ExecutorKind> {
        match self.0.between(0, 4) {
            0 => vec![ExecutorKind::Docker],
            1 => vec![ExecutorKind::Wasm],
            _ => vec![ExecutorKind::Docker, ExecutorKind::Wasm],
        }
    }

    fn crowds(&mut self) -> Vec<Crowd> {
        let churn = self.coin().then(|| Churn {
            up: self.seconds(60, 1500),
            down: self.seconds(1, 600),
            departs: self.probability(0.3),
            day: None,
        });
        let flaky = Behaviour::Flaky { failure: self.0.fraction() };
        let mut crowds = vec![self.crowd(2, 8, Behaviour::Honest, churn.as_ref())];
        let deceit = Deceit {
            rate: self.0.fraction(),
            answer: if self.coin() { Answer::Shared } else { Answer::Own },
            wakes: Wakes::AfterAccepted(self.0.between(0, 5)),
            detects: self.probability(1.0),
            together: self.coin(),
        };
        let kinds = [
            Behaviour::SABOTEUR,
            Behaviour::COLLUDER,
            Behaviour::Deceiver(deceit),
            Behaviour::Copier { rate: self.probability(1.0) },
            Behaviour::Lazy,
            Behaviour::Thief,
            flaky,
        ];
        for behaviour in kinds {
            if self.0.chance(0.3) {
                crowds.push(self.crowd(1, 3, behaviour, churn.as_ref()));
            }
        }
        crowds
    }

    fn crowd(
        &mut self,
        least: u32,
        most: u32,
        behaviour: Behaviour,
        churn: Option<&Churn>,
    ) -> Crowd {
        Crowd {
            hosts: self.0.small(least, most),
            behaviour,
            speed: Spread::Uniform(30, 300),
            cores: Spread::Uniform(1, 4),
            executors: self.executors(),
            operators: 0,
            clock_ahead: Spread::times(Duration::ZERO, Duration::from_secs(20)),
            joins: self.seconds(1, 120),
            trace: Vec::new(),
            cuts: Vec::new(),
            startup: Spread::Fixed(0),
            prepare: Spread::Fixed(0),
            staging: Spread::Fixed(0),
            churn: churn.cloned(),
        }
    }

    fn job(&mut self) -> JobPlan {
        let min_quorum = self.0.small(1, 4);
        let target_nresults = min_quorum + self.0.small(0, 1);
        JobPlan {
            units: self.0.between(1, 25),
            validation: Validation {
                policy: Policy::Fixed,
                min_quorum,
                target_nresults,
                max_error_results: self.0.small(0, 5),
                max_total_results: target_nresults + self.0.small(0, 8),
                max_success_results: min_quorum + self.0.small(0, 5),
                delay_bound_ms: self.0.between(30, 600) * 1000,
                comparison: Comparison::Identical,
                homogeneous: Homogeneity::default(),
            },
            executors: self.executors(),
            fetch: self.seconds(1, 20),
            run: self.seconds(1, 200),
            run_per: RunPer::Replica,
            submit: Duration::from_secs(self.0.between(0, 300)),
            cancel: self.0.chance(0.1).then(|| Duration::from_secs(self.0.between(0, 900))),
        }
    }

    fn share(&mut self, least_permille: u32, most_permille: u32) -> Share {
        Share::from_millionths(self.0.small(least_permille * 1000, most_permille * 1000))
    }

    /// Each of the four, with constants at which a few units show everything that it does.
    fn policy(&mut self) -> Policy {
        match self.0.between(0, 4) {
            0 => Policy::Adaptive(Adaptive {
                trusted_after: self.0.small(1, 4),
                replication_factor: self.0.small(0, 2),
            }),
            1 => Policy::Credibility(Credibility {
                accepted_error: self.share(1, 200),
                saboteurs: self.share(10, 500),
                spot_checks: self.share(0, 600),
            }),
            2 => Policy::Audited(Audited {
                accepted_error: self.share(1, 200),
                saboteurs: self.share(10, 500),
                audit_floor: self.share(0, 100),
                lot_max: self.0.small(1, 6),
                hold_ms: self.0.between(1, 600) * 1000,
            }),
            _ => Policy::Fixed,
        }
    }

    /// In a third of the worlds some hosts have an operator, and some of those the same.
    fn assign_operators(&mut self, crowds: &mut [Crowd]) {
        let has_any = self.0.chance(0.33);
        for crowd in crowds {
            let operators = self.0.small(1, 6);
            if self.coin() && has_any {
                crowd.operators = operators;
            }
        }
    }

    /// What becomes of outputs whose hosts leave, and when they are given up.
    fn losses(&mut self) -> (DepartedOutputs, Duration) {
        let outputs = if self.coin() { DepartedOutputs::Lost } else { DepartedOutputs::Reachable };
        (outputs, Duration::from_secs(self.0.between(10, 600)))
    }

    fn network(&mut self) -> Network {
        let latency_ms = self.0.between(1, 1000);
        Network {
            latency: Spread::times(
                Duration::from_millis(latency_ms / 10),
                Duration::from_millis(latency_ms),
            ),
            loss: self.probability(0.25),
            duplication: self.probability(0.25),
            timeout: Duration::from_secs(self.0.between(3, 30)),
        }
    }

    fn coordinator(&mut self) -> CoordinatorPlan {
        let churn = self.coin().then(|| Churn {
            up: self.seconds(20, 900),
            down: self.seconds(1, 200),
            departs: 0.0,
            day: None,
        });
        CoordinatorPlan {
            core: CoreConfig {
                leases_per_node_max: self.0.small(1, 64),
                disagreements_max: 20,
                failures_per_job_max: 5,
                nodes_present_max: 100,
                expiries_per_step_max: self.0.between(1, 16) as usize,
                resume_grace: Duration::from_secs(self.0.between(0, 120)),
                ..CoreConfig::default()
            },
            sync: Spread::times(Duration::from_millis(1), Duration::from_millis(200)),
            heartbeat: Duration::from_secs(self.0.between(5, 30)),
            retry: Duration::from_secs(self.0.between(5, 60)),
            pull: self.seconds(1, 10),
            outputs_lost_after: Duration::MAX,
            churn,
            compare_every: 8,
        }
    }
}
