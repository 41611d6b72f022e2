//! What must come out: targets with their tolerance and their source.
//!
//! ```toml
//! [[expect]]
//! metric = "accepted_error_rate"
//! by = ["phi", "m"]
//! table = [[0.1, 2, 0.028], [0.1, 3, 8.56e-3]]   # the cell's labels, then its target
//! tolerance = { sigma = 3.0 }                    # or { relative = 0.03 }, { absolute = 0.01 }
//! source = "Sarmenta 2001"
//! ```
//!
//! A sigma of a share is that of a binomial law around the target, over all trials of all
//! seeds; of a number, it is the standard error over seeds.

use serde::Deserialize;
use toml::{Table, Value};

use super::{Estimate, Measure, estimate};
use crate::file::FileError;
use crate::file::sweep::{Cell, shown};
use crate::study::CellResult;

/// One metric and its targets.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// Which metric.
    pub metric: String,
    /// The cells it is about: what each has on these axes. All cells if it is empty.
    #[serde(default, rename = "where")]
    pub cells: Table,
    /// The target of these cells.
    pub target: Option<f64>,
    /// The axes that the rows of `table` name.
    #[serde(default)]
    pub by: Vec<String>,
    /// For each cell its labels on the axes of `by`, then its target.
    #[serde(default)]
    pub table: Vec<Vec<Value>>,
    /// How far off is within.
    pub tolerance: Tolerance,
    /// Where the target is from.
    pub source: String,
    /// Whether the source itself could be checked.
    #[serde(default = "yes")]
    pub verified: bool,
}

const fn yes() -> bool {
    true
}

/// How far off is within.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// This part of the target.
    Relative(f64),
    /// This much.
    Absolute(f64),
    /// So many standard deviations.
    Sigma(f64),
    /// So many standard deviations of a single run, between seeds: for a target that was a
    /// single run itself.
    Spread(f64),
}

/// One target, and what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The cell, as its labels.
    pub cell: String,
    /// Which metric.
    pub metric: String,
    /// What was measured; nothing if the cell or the metric is not there.
    pub measured: Option<Estimate>,
    /// What was expected.
    pub target: f64,
    /// How far off is within; nothing if it takes more seeds to say.
    pub allowed: Option<f64>,
    /// Where the target is from.
    pub source: String,
    /// Whether the source itself could be checked.
    pub verified: bool,
}

impl Verdict {
    /// Whether the measured value is within the tolerance.
    #[must_use]
    pub fn is_within(&self) -> bool {
        let off = self.measured.map(|measured| (measured.mean - self.target).abs());
        matches!((off, self.allowed), (Some(off), Some(allowed)) if off <= allowed)
    }
}

impl Verdict {
    /// For machines.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "cell": self.cell,
            "metric": self.metric,
            "measured": self.measured.map(|measured| measured.mean),
            "target": self.target,
            "allowed": self.allowed,
            "within": self.is_within(),
            "source": self.source,
            "verified": self.verified,
        })
    }
}

impl Expectation {
    /// Checks what can be checked before anything runs.
    pub(crate) fn check(&self, axes: &[&str]) -> Result<(), FileError> {
        let place = format!("expect {:?}", self.metric);
        let refuse = |reason: String| Err(FileError::invalid(&place, reason));
        if self.target.is_some() != self.table.is_empty() {
            return refuse("needs either target or table".into());
        }
        let named = self.by.iter().map(String::as_str).chain(self.cells.keys().map(String::as_str));
        for name in named {
            if !axes.contains(&name) {
                return refuse(format!("names the axis {name:?}, which the sweep does not have"));
            }
        }
        for row in &self.table {
            if row.len() != self.by.len() + 1 {
                return refuse(format!("a row has a value for each of {:?} and a target", self.by));
            }
        }
        let (Tolerance::Relative(width)
        | Tolerance::Absolute(width)
        | Tolerance::Sigma(width)
        | Tolerance::Spread(width)) = self.tolerance;
        if width < 0.0 {
            return refuse("a tolerance is not negative".into());
        }
        Ok(())
    }

    /// Compares with what was measured.
    #[must_use]
    pub fn judge(&self, results: &[CellResult]) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let is_meant = |cell: &Cell| {
            self.cells.iter().all(|(axis, value)| cell.label(axis).is_some_and(|l| same(l, value)))
        };
        let meant: Vec<&CellResult> =
            results.iter().filter(|result| is_meant(&result.cell)).collect();
        if let Some(target) = self.target {
            verdicts.extend(meant.iter().map(|result| self.compare(Some(result), target, "")));
        }
        for row in &self.table {
            let Some((target, labels)) = row.split_last() else { continue };
            let fits = |result: &&&CellResult| {
                let mut pairs = self.by.iter().zip(labels);
                pairs.all(|(axis, value)| result.cell.label(axis).is_some_and(|l| same(l, value)))
            };
            let target = number(target).unwrap_or(f64::NAN);
            let wanted: Vec<String> = labels.iter().map(shown).collect();
            verdicts.push(self.compare(
                meant.iter().find(fits).copied(),
                target,
                &wanted.join(" "),
            ));
        }
        verdicts
    }

    fn compare(&self, result: Option<&CellResult>, target: f64, wanted: &str) -> Verdict {
        let measures: Vec<Measure> =
            result.map(|result| result.measures(&self.metric)).unwrap_or_default();
        let measured = estimate(&measures);
        let sigma = measured.and_then(|measured| match measured.trials {
            Some(trials) => Some((target * (1.0 - target) / trials.max(1) as f64).sqrt()),
            None => measured.error,
        });
        let allowed = match self.tolerance {
            Tolerance::Relative(part) => Some(part * target.abs()),
            Tolerance::Absolute(width) => Some(width),
            Tolerance::Sigma(times) => sigma.map(|sigma| times * sigma),
            Tolerance::Spread(times) => measured.and_then(|measured| {
                measured.error.map(|error| times * error * (measures.len() as f64).sqrt())
            }),
        };
        let cell = result.map_or_else(|| wanted.to_owned(), CellResult::name);
        Verdict {
            cell,
            metric: self.metric.clone(),
            measured,
            target,
            allowed,
            source: self.source.clone(),
            verified: self.verified,
        }
    }
}

/// Equal as people mean it: 1 is 1.0.
fn same(one: &Value, other: &Value) -> bool {
    match (number(one), number(other)) {
        (Some(one), Some(other)) => (one - other).abs() <= 1e-9 * one.abs().max(other.abs()),
        _ => one == other,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}
