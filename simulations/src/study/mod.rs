//! Studies: many runs of one scenario, what they amount to, and what was expected.
//!
//! ```text
//! Document ──cells × seeds──► runner ──► Runs ──► estimates ──► expectations, tables, figures
//! ```
//!
//! | Module | What |
//! |---|---|
//! | `expect` | targets with tolerances |
//! | `runner` | runs side by side, resumable, failures kept |
//! | `statistics` | means and intervals |
//! | `table` | what a terminal shows |
//! | `output` | what a folder gets: CSV, Parquet, a summary |
//! | `figure`, `plot`, `report` | what is drawn, how, and the page around it |

pub(crate) mod expect;
mod figure;
mod output;
mod plot;
mod report;
mod runner;
pub(crate) mod statistics;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use expect::{Expectation, Verdict};
pub use output::{WriteError, write as write_tables};
pub use report::write as write_report;
pub use runner::{CellResult, End, Error as RunnerError, Plan, SeedRun, run};
pub use statistics::{Estimate, estimate};
pub use table::{cells as cell_table, verdicts as verdict_table};

/// What a scenario file describes: something that a seed makes a run of.
///
/// To add a kind of scenario: implement this, and name it in `file::model`.
pub trait Model: Send + Sync {
    /// Runs it. The same seed gives the same run, bit for bit, on any number of threads.
    fn run(&self, seed: u64) -> Run;

    /// The same run, and tells its story: one line for each event and decision. A model that
    /// has no story tells none.
    fn told(&self, seed: u64, _tell: &mut dyn FnMut(&str)) -> Run {
        self.run(seed)
    }

    /// What it is, line by line: a name and a value, units written out.
    fn explain(&self) -> Vec<(String, String)>;
}

/// What came of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// BLAKE3 over everything that happened.
    pub trace_hash: String,
    /// Figures, by name.
    pub measures: BTreeMap<String, Measure>,
    /// Broken promises; empty if all is well.
    pub problems: Vec<Problem>,
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// So many of so many.
    Share {
        /// How many.
        hits: u64,
        /// Of how many.
        of: u64,
    },
    /// A number.
    Number(f64),
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Whether something bad happened; if not, something good did not.
    pub is_of_safety: bool,
    /// What.
    pub text: String,
}

/// What the report draws: `y` over the axis `x`, one line for each value of the axis `by`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// The axis along which it goes.
    pub x: String,
    /// The axis that makes lines.
    pub by: Option<String>,
    /// The metrics, one panel each.
    pub y: Vec<String>,
    /// Words for axes and metrics.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The metrics that are drawn on a logarithmic scale.
    #[serde(default)]
    pub log: Vec<String>,
}

impl Measure {
    /// As a number.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Self::Share { hits: _, of: 0 } => 0.0,
            Self::Share { hits, of } => hits as f64 / of as f64,
            Self::Number(number) => number,
        }
    }
}
