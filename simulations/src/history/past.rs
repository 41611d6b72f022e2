//! What a journal amounts to: hosts, jobs and what came of them, as a scenario file.

use std::time::Duration;

use toml::{Table, Value};

use crate::file;
use crate::scenario::Scenario;

/// Seeds that the scenario is run with.
const SEEDS: i64 = 5;

/// What a journal amounts to.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// The same hosts and jobs.
    pub scenario: Scenario,
    /// From the first record to the last.
    pub span: Duration,
    /// What happened.
    pub targets: Vec<Target>,
}

/// A figure of the past.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its name among the metrics of a run.
    pub metric: &'static str,
    /// What it was.
    pub value: f64,
    /// How near the model must come.
    pub(super) within: Within,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Within {
    Relative(f64),
    Absolute(f64),
}

impl Target {
    pub(super) const fn new(metric: &'static str, value: f64, within: Within) -> Self {
        Self { metric, value, within }
    }

    fn table(&self) -> Value {
        let (kind, amount) = match self.within {
            Within::Relative(part) => ("relative", part),
            Within::Absolute(amount) => ("absolute", amount),
        };
        Value::Table(Table::from_iter([
            ("metric".to_owned(), Value::from(self.metric)),
            ("target".to_owned(), Value::from(self.value)),
            (
                "tolerance".to_owned(),
                Value::Table(Table::from_iter([(kind.to_owned(), amount.into())])),
            ),
            ("source".to_owned(), Value::from("the coordinator's journal")),
        ]))
    }
}

impl Past {
    /// The scenario file.
    #[must_use]
    pub fn table(&self, about: &str) -> Table {
        let mut table = file::write(&self.scenario, about);
        let columns = self.targets.iter().map(|target| Value::from(target.metric));
        table.insert("columns".into(), Value::Array(columns.collect()));
        table.insert("seeds".into(), Value::Integer(SEEDS));
        let targets = self.targets.iter().map(Target::table);
        table.insert("expect".into(), Value::Array(targets.collect()));
        table
    }
}
