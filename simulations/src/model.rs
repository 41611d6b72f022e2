//! A scenario of volunteers as a [`Model`]: its figures by name, and its explanation.

use std::collections::BTreeMap;

use crate::outcome::{Counters, Outcome};
use crate::random::Spread;
use crate::scenario::{Engine, Scenario};
use crate::study::{Measure, Model, Problem, Run};
use crate::world::{run, run_told};

impl Model for Scenario {
    fn run(&self, seed: u64) -> Run {
        summed_up(&run(self, seed))
    }

    fn told(&self, seed: u64, tell: &mut dyn FnMut(&str)) -> Run {
        summed_up(&run_told(self, seed, tell))
    }

    fn explain(&self) -> Vec<(String, String)> {
        let mut lines = vec![(
            "engine".to_owned(),
            match self.engine {
                Engine::Full => "full: agents, messages, crashes, journal, books",
                Engine::Direct => "direct: the core and the hosts' behaviour",
            }
            .to_owned(),
        )];
        for (number, crowd) in self.crowds.iter().enumerate() {
            let text = format!(
                "{} hosts, {:?}, speed {:.2} on average, {:.1} cores",
                crowd.hosts,
                crowd.behaviour,
                crowd.speed.mean() / 100.0,
                crowd.cores.mean(),
            );
            lines.push((format!("hosts, group {number}"), text));
            if let Some(churn) = &crowd.churn {
                let (up, down) = (hours(&churn.up), hours(&churn.down));
                let text = format!(
                    "up {up:.2} h, down {down:.2} h: there {:.1} % of the time",
                    100.0 * up / (up + down)
                );
                lines.push((format!("hosts, group {number}, churn"), text));
            }
        }
        for (number, job) in self.jobs.iter().enumerate() {
            let rules = &job.validation;
            let text = format!(
                "{} units of {:.0} s, policy {:?}, quorum {} of {}, deadline {} s",
                job.units,
                job.run.mean() / 1e6,
                rules.policy,
                rules.min_quorum,
                rules.target_nresults,
                rules.delay_bound_ms / 1000,
            );
            lines.push((format!("job {number}"), text));
        }
        if self.engine == Engine::Full {
            let text = format!(
                "{:.0} ms one way, loss {}, duplication {}",
                self.network.latency.mean() / 1000.0,
                self.network.loss,
                self.network.duplication
            );
            lines.push(("network".to_owned(), text));
            lines.push(("faults end".to_owned(), format!("{:?}", self.faults_end)));
        }
        lines.push(("patience".to_owned(), format!("{:?}", self.patience)));
        lines
    }
}

/// The figures and problems of a run.
pub(crate) fn summed_up(outcome: &Outcome) -> Run {
    let problems = outcome.violations.iter().map(|violation| Problem {
        is_of_safety: violation.is_of_safety(),
        text: violation.to_string(),
    });
    Run {
        trace_hash: outcome.trace_hash.clone(),
        measures: measures(&outcome.counters),
        problems: problems.collect(),
    }
}

fn hours(spread: &Spread) -> f64 {
    spread.mean() / 3600e6
}

/// The figures of a run, by name. `docs/simulation.md` says what each is.
fn measures(counters: &Counters) -> BTreeMap<String, Measure> {
    let Counters { units, accepted, .. } = *counters;
    let number = |value: u64| Measure::Number(value as f64);
    let named = [
        ("accepted_error_rate", Measure::Share { hits: counters.wrong_accepted, of: accepted }),
        ("completed", Measure::Share { hits: accepted, of: units }),
        ("replicas_per_unit", Measure::Number(counters.replicas_per_unit())),
        ("accepted", number(accepted)),
        ("failed", number(counters.failed)),
        ("withdrawn", number(counters.withdrawn)),
        ("wrong_accepted", number(counters.wrong_accepted)),
        ("replicas", number(counters.replicas)),
        ("valid", number(counters.valid)),
        ("invalid", number(counters.invalid)),
        ("errors", number(counters.errors)),
        ("no_reply", number(counters.no_reply)),
        ("caught", Measure::Share { hits: counters.caught, of: counters.saboteurs }),
        ("blamed", number(counters.blamed)),
        ("host_crashes", number(counters.host_crashes)),
        ("coordinator_crashes", number(counters.coordinator_crashes)),
        ("records", number(counters.records)),
        ("events", number(counters.events)),
        ("makespan_seconds", Measure::Number(counters.virtual_seconds)),
    ];
    named.map(|(name, measure)| (name.to_owned(), measure)).into()
}
