//! The sections of a scenario of volunteers, as they are written.

use std::collections::BTreeMap;

use dockercomp_protocol::execution::ExecutorKind;
use serde::Deserialize;

use super::quantity::{Time, Written};
use crate::defect::Defect;
use crate::scenario::{DepartedOutputs, Engine, RunPer};

/// What belongs to `kind = "volunteers"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Volunteers {
    #[serde(default)]
    pub(crate) engine: Engine,
    /// Hosts in all. The group that states neither `count` nor `share` gets the rest.
    pub(crate) population: u32,
    pub(crate) hosts: BTreeMap<String, Hosts>,
    pub(crate) jobs: BTreeMap<String, Job>,
    pub(crate) network: Option<Network>,
    pub(crate) coordinator: Option<Coordinator>,
    pub(crate) faults: Option<Faults>,
    pub(crate) patience: Option<Time>,
    /// A deliberate defect, to see that it is found.
    pub(crate) defect: Option<Defect>,
}

/// A group of hosts that are alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hosts {
    pub(crate) count: Option<u32>,
    pub(crate) share: Option<f64>,
    #[serde(default)]
    pub(crate) behaviour: Kind,
    /// How often it lies, errs or fails.
    pub(crate) rate: Option<f64>,
    pub(crate) answer: Option<AnswerKind>,
    pub(crate) together: Option<bool>,
    pub(crate) wakes_after: Option<u64>,
    pub(crate) detects: Option<f64>,
    pub(crate) speed: Option<Written>,
    pub(crate) cores: Option<Written>,
    pub(crate) executors: Option<Vec<ExecutorKind>>,
    /// How many operators run them; without it nobody says.
    pub(crate) operators: Option<u32>,
    pub(crate) clock_ahead: Option<Written>,
    pub(crate) joins: Option<Written>,
    /// From being switched on to the first question.
    pub(crate) startup: Option<Written>,
    /// Making a job's program ready, once after each start.
    pub(crate) prepare: Option<Written>,
    /// What each run takes besides the program.
    pub(crate) staging: Option<Written>,
    pub(crate) churn: Option<Churn>,
    /// When each was there: the name of a CSV file, and then what it says.
    pub(crate) trace: Option<Vec<Vec<(f64, f64)>>>,
    /// When all of them are cut off.
    #[serde(default)]
    pub(crate) cuts: Vec<Cut>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Day {
    pub(crate) swing: f64,
    pub(crate) peak: Time,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cut {
    pub(crate) at: Time,
    #[serde(rename = "for")]
    pub(crate) lasts: Time,
}

/// What hosts do with work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Computes.
    #[default]
    Honest,
    /// Lies at `rate`, each with an answer of its own.
    Saboteur,
    /// Lies at `rate`, all with one answer.
    Colluder,
    /// A colluder that is honest until `wakes_after` of its results were accepted.
    Sleeper,
    /// A colluder that recognises a spot-check with probability `detects`.
    Detector,
    /// One of a ring computes, erring at `rate`; the others copy.
    Copier,
    /// Gives an empty output at once.
    Lazy,
    /// A saboteur that votes under other names as well.
    Thief,
    /// Fails at `rate`.
    Flaky,
}

/// What wrong outputs look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AnswerKind {
    /// Each its own.
    Own,
    /// One for all.
    Shared,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Churn {
    pub(crate) up: Written,
    pub(crate) down: Written,
    #[serde(default)]
    pub(crate) departs: f64,
    /// How it follows the day.
    pub(crate) day: Option<Day>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    pub(crate) units: u64,
    /// Time that a unit runs on a host of the reference speed.
    pub(crate) run: Option<Written>,
    /// Or the work that it is.
    pub(crate) work: Option<Written>,
    pub(crate) run_per: Option<RunPer>,
    pub(crate) fetch: Option<Written>,
    pub(crate) submit: Option<Time>,
    pub(crate) cancel: Option<Time>,
    pub(crate) executors: Option<Vec<ExecutorKind>>,
    pub(crate) validation: Validation,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Validation {
    pub(crate) policy: PolicyName,
    pub(crate) min_quorum: u32,
    pub(crate) target_nresults: Option<u32>,
    pub(crate) max_error_results: Option<u32>,
    pub(crate) max_total_results: Option<u32>,
    pub(crate) max_success_results: Option<u32>,
    pub(crate) delay_bound: Option<Time>,
    pub(crate) trusted_after: Option<u32>,
    pub(crate) replication_factor: Option<u32>,
    pub(crate) accepted_error: Option<f64>,
    pub(crate) saboteurs: Option<f64>,
    pub(crate) spot_checks: Option<f64>,
    pub(crate) audit_floor: Option<f64>,
    pub(crate) lot_max: Option<u32>,
    pub(crate) hold: Option<Time>,
}

/// The policies, as in a job file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PolicyName {
    /// A fixed quorum.
    Fixed,
    /// BOINC's adaptive replication.
    Adaptive,
    /// Sarmenta's credibility.
    Credibility,
    /// Acceptance sampling by lots.
    Audited,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Network {
    pub(crate) latency: Option<Written>,
    pub(crate) loss: Option<f64>,
    pub(crate) duplication: Option<f64>,
    pub(crate) timeout: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Coordinator {
    pub(crate) sync: Option<Written>,
    pub(crate) pull: Option<Written>,
    pub(crate) heartbeat: Option<Time>,
    pub(crate) retry: Option<Time>,
    pub(crate) outputs_lost_after: Option<Time>,
    pub(crate) resume_grace: Option<Time>,
    pub(crate) leases_per_node_max: Option<u32>,
    pub(crate) expiries_per_step_max: Option<usize>,
    pub(crate) nodes_present_max: Option<usize>,
    pub(crate) churn: Option<Churn>,
    pub(crate) compare_every: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Faults {
    pub(crate) end: Time,
    #[serde(default)]
    pub(crate) reinforcements: u32,
    #[serde(default)]
    pub(crate) departed_outputs: DepartedOutputs,
}
