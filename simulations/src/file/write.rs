//! A scenario as a file: the way back from values to text, for regressions.
//!
//! Reading the file gives the scenario again, to the last microsecond; a test holds it to that.

use std::time::Duration;

use dockercomp_protocol::job::Validation;
use toml::{Table, Value};

use super::compile::REFERENCE_MFLOPS;
use super::policy;
use super::quantity::Dimension;
use crate::behaviour::{Answer, Behaviour, Wakes};
use crate::random::{Distribution, Spread};
use crate::scenario::{Churn, CoordinatorPlan, Crowd, DepartedOutputs, JobPlan, RunPer, Scenario};

/// The scenario as the table of a file that can be read again.
///
/// Only scenarios of the full engine are written: it is they that fail.
#[must_use]
pub fn write(scenario: &Scenario, about: &str) -> Table {
    let mut file = Table::new();
    put(&mut file, "schema", 1);
    put(&mut file, "kind", "volunteers");
    put(&mut file, "about", about);
    put(&mut file, "population", i64::from(scenario.hosts()));
    put(&mut file, "patience", time(scenario.patience));
    if let Some(defect) = scenario.defect {
        file.insert("defect".into(), Value::try_from(defect).expect("a name"));
    }
    let groups = (0..).zip(&scenario.crowds).map(|(n, group)| (format!("g{n:02}"), crowd(group)));
    file.insert("hosts".into(), Value::Table(groups.collect()));
    let jobs = (0..).zip(&scenario.jobs).map(|(n, plan)| (format!("j{n:02}"), job(plan)));
    file.insert("jobs".into(), Value::Table(jobs.collect()));
    let mut network = Table::new();
    put(&mut network, "latency", spread(&scenario.network.latency, Dimension::Time));
    put(&mut network, "loss", scenario.network.loss);
    put(&mut network, "duplication", scenario.network.duplication);
    put(&mut network, "timeout", time(scenario.network.timeout));
    file.insert("network".into(), Value::Table(network));
    file.insert("coordinator".into(), coordinator(&scenario.coordinator));
    let mut faults = Table::new();
    put(&mut faults, "end", time(scenario.faults_end));
    put(&mut faults, "reinforcements", i64::from(scenario.reinforcements));
    let departed = match scenario.departed_outputs {
        DepartedOutputs::Reachable => "reachable",
        DepartedOutputs::Lost => "lost",
    };
    put(&mut faults, "departed_outputs", departed);
    file.insert("faults".into(), Value::Table(faults));
    file
}

fn put(table: &mut Table, key: &str, value: impl Into<Value>) {
    table.insert(key.to_owned(), value.into());
}

fn crowd(crowd: &Crowd) -> Value {
    let mut table = Table::new();
    put(&mut table, "count", i64::from(crowd.hosts));
    behaviour(&mut table, crowd.behaviour);
    let percent = REFERENCE_MFLOPS / 100.0;
    put(&mut table, "speed", scaled(&crowd.speed, Dimension::Speed, percent));
    put(&mut table, "cores", spread(&crowd.cores, Dimension::Count));
    put(&mut table, "executors", executors(&crowd.executors));
    put(&mut table, "operators", i64::from(crowd.operators));
    put(&mut table, "clock_ahead", spread(&crowd.clock_ahead, Dimension::Time));
    put(&mut table, "joins", spread(&crowd.joins, Dimension::Time));
    put(&mut table, "startup", spread(&crowd.startup, Dimension::Time));
    put(&mut table, "prepare", spread(&crowd.prepare, Dimension::Time));
    put(&mut table, "staging", spread(&crowd.staging, Dimension::Time));
    if let Some(churn) = &crowd.churn {
        put(&mut table, "churn", self::churn(churn));
    }
    if !crowd.trace.is_empty() {
        table.remove("joins");
        let pair = |&(up, down): &(Duration, Duration)| {
            Value::Array([up, down].map(|time| Value::Float(time.as_secs_f64())).to_vec())
        };
        let host = |spells: &Vec<_>| Value::Array(spells.iter().map(pair).collect());
        put(&mut table, "trace", Value::Array(crowd.trace.iter().map(host).collect()));
    }
    let cuts = crowd.cuts.iter().map(|cut| {
        let mut table = Table::new();
        put(&mut table, "at", time(cut.at));
        put(&mut table, "for", time(cut.lasts));
        Value::Table(table)
    });
    put(&mut table, "cuts", Value::Array(cuts.collect()));
    Value::Table(table)
}

fn behaviour(table: &mut Table, behaviour: Behaviour) {
    let (name, rate) = match behaviour {
        Behaviour::Honest => ("honest", None),
        Behaviour::Deceiver(deceit) => {
            put(table, "detects", deceit.detects);
            put(table, "together", deceit.together);
            if let Wakes::AfterAccepted(n) = deceit.wakes {
                put(table, "wakes_after", i64::try_from(n).unwrap_or(i64::MAX));
            }
            let name = match deceit.answer {
                Answer::Own => "saboteur",
                Answer::Shared => "colluder",
            };
            (name, Some(deceit.rate))
        }
        Behaviour::Copier { rate } => ("copier", Some(rate)),
        Behaviour::Lazy => ("lazy", None),
        Behaviour::Thief => ("thief", None),
        Behaviour::Flaky { failure } => ("flaky", Some(failure)),
    };
    put(table, "behaviour", name);
    if let Some(rate) = rate {
        put(table, "rate", rate);
    }
}

fn job(plan: &JobPlan) -> Value {
    let mut table = Table::new();
    put(&mut table, "units", i64::try_from(plan.units).unwrap_or(i64::MAX));
    put(&mut table, "run", spread(&plan.run, Dimension::Time));
    let run_per = match plan.run_per {
        RunPer::Replica => "replica",
        RunPer::Unit => "unit",
    };
    put(&mut table, "run_per", run_per);
    put(&mut table, "fetch", spread(&plan.fetch, Dimension::Time));
    put(&mut table, "submit", time(plan.submit));
    if let Some(cancel) = plan.cancel {
        put(&mut table, "cancel", time(cancel));
    }
    put(&mut table, "executors", executors(&plan.executors));
    put(&mut table, "validation", validation(&plan.validation));
    Value::Table(table)
}

pub(crate) fn validation(rules: &Validation) -> Value {
    let mut table = Table::new();
    policy::write(rules, &mut table);
    put(&mut table, "min_quorum", i64::from(rules.min_quorum));
    put(&mut table, "target_nresults", i64::from(rules.target_nresults));
    put(&mut table, "max_error_results", i64::from(rules.max_error_results));
    put(&mut table, "max_total_results", i64::from(rules.max_total_results));
    put(&mut table, "max_success_results", i64::from(rules.max_success_results));
    put(&mut table, "delay_bound", time(rules.delay_bound()));
    Value::Table(table)
}

fn coordinator(plan: &CoordinatorPlan) -> Value {
    let size = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let mut table = Table::new();
    put(&mut table, "sync", spread(&plan.sync, Dimension::Time));
    put(&mut table, "pull", spread(&plan.pull, Dimension::Time));
    put(&mut table, "heartbeat", time(plan.heartbeat));
    put(&mut table, "retry", time(plan.retry));
    put(&mut table, "outputs_lost_after", time(plan.outputs_lost_after));
    put(&mut table, "resume_grace", time(plan.core.resume_grace));
    put(&mut table, "leases_per_node_max", i64::from(plan.core.leases_per_node_max));
    put(&mut table, "expiries_per_step_max", size(plan.core.expiries_per_step_max));
    put(&mut table, "nodes_present_max", size(plan.core.nodes_present_max));
    put(&mut table, "compare_every", i64::from(plan.compare_every));
    if let Some(churn) = &plan.churn {
        put(&mut table, "churn", self::churn(churn));
    }
    Value::Table(table)
}

fn churn(churn: &Churn) -> Value {
    let mut table = Table::new();
    put(&mut table, "up", spread(&churn.up, Dimension::Time));
    put(&mut table, "down", spread(&churn.down, Dimension::Time));
    put(&mut table, "departs", churn.departs);
    if let Some(day) = &churn.day {
        let mut written = Table::new();
        put(&mut written, "swing", day.swing);
        put(&mut written, "peak", time(day.peak));
        put(&mut table, "day", written);
    }
    Value::Table(table)
}

fn executors(kinds: &[dockercomp_protocol::execution::ExecutorKind]) -> Value {
    Value::try_from(kinds).expect("names")
}

fn time(time: Duration) -> String {
    format!("{}us", time.as_micros())
}

fn spread(spread: &Spread, dimension: Dimension) -> Value {
    scaled(spread, dimension, 1.0)
}

fn scaled(spread: &Spread, dimension: Dimension, factor: f64) -> Value {
    let amount = |value: f64| -> Value {
        match dimension {
            Dimension::Time => Value::String(format!("{value}us")),
            Dimension::Speed => Value::String(format!("{value} MFLOPS")),
            Dimension::Work => Value::String(format!("{value} MFLOP")),
            Dimension::Count => Value::Float(value),
        }
    };
    let whole = |value: u64| amount(value as f64 * factor);
    match spread {
        Spread::Fixed(value) => whole(*value),
        Spread::Uniform(low, high) => one("uniform", Value::Array(vec![whole(*low), whole(*high)])),
        Spread::Quantiles(values) => {
            one("quantiles", Value::Array(values.iter().map(|&value| whole(value)).collect()))
        }
        Spread::Law(law) => self::law(law, &|value| amount(value * factor)),
    }
}

fn one(key: &str, value: impl Into<Value>) -> Value {
    let mut table = Table::new();
    put(&mut table, key, value);
    Value::Table(table)
}

fn law(law: &Distribution, amount: &dyn Fn(f64) -> Value) -> Value {
    let mut table = Table::new();
    match law {
        Distribution::Weibull { shape, scale } => {
            put(&mut table, "shape", *shape);
            put(&mut table, "scale", amount(*scale));
            one("weibull", table)
        }
        Distribution::Gamma { shape, scale } => {
            put(&mut table, "shape", *shape);
            put(&mut table, "scale", amount(*scale));
            one("gamma", table)
        }
        Distribution::LogNormal { mu, sigma, unit } => {
            put(&mut table, "mu", *mu);
            put(&mut table, "sigma", *sigma);
            put(&mut table, "unit", amount(*unit));
            one("log_normal", table)
        }
        Distribution::HyperExponential { weights, means } => {
            put(&mut table, "weights", weights.clone());
            put(&mut table, "means", means.iter().map(|&mean| amount(mean)).collect::<Vec<_>>());
            one("hyper_exponential", table)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Document;
    use crate::run;

    /// Everything that a seed draws survives the way to a file and back, and runs the same.
    #[test]
    fn what_is_written_is_read_again() {
        for seed in 1..=40 {
            let mut drawn = Scenario::fuzz(seed);
            // What a file cannot say: bounds of lists that people read.
            let usual = Scenario::calm(1, 1).coordinator.core;
            drawn.coordinator.core.disagreements_max = usual.disagreements_max;
            drawn.coordinator.core.failures_per_job_max = usual.failures_per_job_max;
            let text = write(&drawn, "drawn").to_string();
            let table = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            let document = Document::new("drawn".into(), table).expect("a scenario");
            let cell = &document.cells().expect("a cell")[0];
            let body = document.body(cell).expect("a body");
            let read = super::super::compile::volunteers(body);
            let read = read.unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(read, drawn, "seed {seed}\n{text}");
            assert_eq!(run(&read, seed), run(&drawn, seed), "seed {seed}");
        }
    }
}
