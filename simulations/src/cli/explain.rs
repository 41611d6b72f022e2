//! `validate` and `explain`: a scenario file without running it.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, Failure, load};
use crate::file::sweep::shown;

/// Check a scenario file without running it.
#[derive(Debug, Args)]
pub(super) struct Validate {
    /// The scenario file.
    file: PathBuf,
    /// Put a value in its place, as in network.loss=0.1; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    settings: Vec<String>,
}

/// Say in words what a scenario file describes.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The scenario file.
    file: PathBuf,
    /// Put a value in its place, as in network.loss=0.1; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    settings: Vec<String>,
    /// Print the file as it is after includes and settings.
    #[arg(long)]
    resolved: bool,
}

impl Validate {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let document = load(&self.file, &self.settings)?;
        let wrong = |source| Failure::File { path: self.file.clone(), source };
        let cells = document.cells().map_err(wrong)?;
        for cell in &cells {
            document.model(cell).map_err(wrong)?;
        }
        let n = cells.len();
        println!("{}: {n} cells of kind {}, all can be run", document.name, document.kind);
        Ok(Exit::Held)
    }
}

impl Explain {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let document = load(&self.file, &self.settings)?;
        if self.resolved {
            print!("{}", document.resolved);
            return Ok(Exit::Held);
        }
        let wrong = |source| Failure::File { path: self.file.clone(), source };
        println!("{}: {}", document.name, document.about.trim());
        let cells = document.cells().map_err(wrong)?;
        println!("{} cells of {} seeds each", cells.len(), document.seeds);
        for axis in document.axis_names() {
            let mut values: Vec<String> = Vec::new();
            for value in cells.iter().filter_map(|cell| cell.label(axis)).map(shown) {
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            println!("  {axis}: {}", values.join(", "));
        }
        let Some(first) = cells.first() else { return Ok(Exit::Held) };
        println!("the first cell:");
        for (name, value) in document.model(first).map_err(wrong)?.explain() {
            println!("  {name}: {value}");
        }
        for expectation in &document.expectations {
            println!("expects {} after {}", expectation.metric, expectation.source);
        }
        Ok(Exit::Held)
    }
}
