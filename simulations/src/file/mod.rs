//! Scenario files: TOML with strict keys, units, includes and settings.
//!
//! ```text
//! file ──include──► one table ──--set──► sweep ──► cells ──kind──► Model ──seed──► Run
//! ```
//!
//! What every kind of scenario shares is read here; the rest of the table belongs to its kind,
//! and `model` is the one place that knows them all.
//!
//! | Key | What |
//! |---|---|
//! | `schema` | 1 |
//! | `kind` | which model: `model` lists them |
//! | `about` | what it shows, for people |
//! | `include` | files that this one builds on; what is here wins |
//! | `seeds` | how many seeds a run takes unless it is told otherwise; 1 |
//! | `columns` | the metrics that a run prints |
//! | `[[sweep]]` | axes: see `sweep` |
//! | `[[expect]]` | targets: see `study::expect` |
//! | `[figure]` | what the report draws |

pub(crate) mod compile;
mod error;
pub(crate) mod merge;
mod policy;
pub(crate) mod quantity;
pub(crate) mod section;
mod spells;
pub(crate) mod sweep;
#[cfg(test)]
mod tests;
pub(crate) mod write;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

pub use error::FileError;
pub use quantity::QuantityError;
pub use spells::TraceError;
pub use write::write;

use crate::study::{Expectation, Figure, Model};
use sweep::{Axis, Cell};

/// The version of the format that this program reads.
const SCHEMA: i64 = 1;

/// A scenario file, resolved: includes and settings are in it.
#[derive(Clone, Debug)]
pub struct Document {
    /// The name: that of the file.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// Which model.
    pub kind: String,
    /// Seeds of a run.
    pub seeds: u64,
    /// The metrics that a run prints; all if none is named.
    pub columns: Vec<String>,
    /// What must come out.
    pub expectations: Vec<Expectation>,
    /// What the report draws.
    pub figure: Option<Figure>,
    axes: Vec<Axis>,
    /// What belongs to the kind.
    body: Table,
    /// Everything, as it is stored beside results.
    pub resolved: Table,
}

/// What every kind of scenario shares.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    schema: i64,
    kind: String,
    #[serde(default)]
    about: String,
    #[serde(default = "one")]
    seeds: u64,
    #[serde(default)]
    columns: Vec<String>,
    #[serde(default)]
    sweep: Vec<Axis>,
    #[serde(default)]
    expect: Vec<Expectation>,
    figure: Option<Figure>,
}

const HEAD: [&str; 8] =
    ["schema", "kind", "about", "seeds", "columns", "sweep", "expect", "figure"];

const fn one() -> u64 {
    1
}

impl Document {
    /// Reads a scenario file, what it includes, and settings of the form `a.b=c`.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn load(path: &Path, settings: &[String]) -> Result<Self, FileError> {
        let mut resolved = merge::read(path, 0)?;
        for setting in settings {
            let (path, value) = merge::parse_setting(setting)?;
            merge::set(&mut resolved, &path, value)?;
        }
        spells::inline(&mut resolved, path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_stem().map_or_else(PathBuf::new, PathBuf::from);
        Self::new(name.display().to_string(), resolved)
    }

    /// The same from a table that is resolved already.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn new(name: String, resolved: Table) -> Result<Self, FileError> {
        let (mut head, mut body) = (Table::new(), Table::new());
        for (key, value) in resolved.clone() {
            let part = if HEAD.contains(&key.as_str()) { &mut head } else { &mut body };
            part.insert(key, value);
        }
        let head: Head = Value::Table(head).try_into().map_err(|error| FileError::key(&error))?;
        if head.schema != SCHEMA {
            let reason = format!("is {}, this program reads {SCHEMA}", head.schema);
            return Err(FileError::invalid("schema", reason));
        }
        if head.seeds == 0 {
            return Err(FileError::invalid("seeds", "must be at least 1"));
        }
        let document = Self {
            name,
            about: head.about,
            kind: head.kind,
            seeds: head.seeds,
            columns: head.columns,
            expectations: head.expect,
            figure: head.figure,
            axes: head.sweep,
            body,
            resolved,
        };
        for expectation in &document.expectations {
            expectation.check(&document.axis_names())?;
        }
        Ok(document)
    }

    /// The names of the axes of the sweep.
    #[must_use]
    pub fn axis_names(&self) -> Vec<&str> {
        self.axes.iter().map(|axis| axis.name.as_str()).collect()
    }

    /// Every combination of the sweep's axes; one without labels if there is no sweep.
    ///
    /// # Errors
    /// If an axis is wrong, or there are too many cells.
    pub fn cells(&self) -> Result<Vec<Cell>, FileError> {
        sweep::cells(&self.axes)
    }

    /// What belongs to the kind in one cell.
    ///
    /// # Errors
    /// If a setting's path leads nowhere.
    pub fn body(&self, cell: &Cell) -> Result<Table, FileError> {
        let mut body = self.body.clone();
        for (path, value) in &cell.settings {
            merge::set(&mut body, path, value.clone())?;
        }
        Ok(body)
    }

    /// The model of one cell.
    ///
    /// # Errors
    /// If a key is unknown, or values cannot be simulated.
    pub fn model(&self, cell: &Cell) -> Result<Box<dyn Model>, FileError> {
        model(&self.kind, self.body(cell)?)
    }
}

/// The models there are, by the `kind` of their scenario files.
///
/// # Errors
/// If the kind is unknown, or the model refuses the table.
pub(crate) fn model(kind: &str, body: Table) -> Result<Box<dyn Model>, FileError> {
    match kind {
        "volunteers" => Ok(Box::new(compile::volunteers(body)?)),
        "availability" => Ok(Box::new(crate::availability::Availability::read(body)?)),
        "gossipsub" => crate::overlay::model::gossipsub(body),
        "kademlia" => crate::overlay::model::kademlia(body),
        "swarm" => crate::overlay::model::swarm(body),
        _ => {
            let known = "volunteers, availability, gossipsub, kademlia, swarm";
            let reason = format!("is {kind:?}; there are {known}");
            Err(FileError::invalid("kind", reason))
        }
    }
}

/// Reads the table of a kind, strictly.
///
/// # Errors
/// [`FileError::Key`], with the nearest key.
pub(crate) fn read<T: serde::de::DeserializeOwned>(body: Table) -> Result<T, FileError> {
    Value::Table(body).try_into().map_err(|error| FileError::key(&error))
}
