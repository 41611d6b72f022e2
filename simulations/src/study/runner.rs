//! Runs side by side: every cell with every seed, over the machine's cores.
//!
//! A run is one thread's, and its result depends on nothing but its cell and its seed, so the
//! number of threads changes how long it takes and nothing else. With a folder each result is
//! written as a line the moment it is there, and a run that has a line is not run again.
//!
//! # What a result belongs to
//!
//! The key of a line is a BLAKE3 hash over the kind and the resolved table of the cell, the
//! seed, and the program itself: results of another build are not taken for this one's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Measure, Model, Problem, Run};
use crate::file::sweep::{Cell, shown};
use crate::file::{Document, FileError};

/// What to run.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The scenario.
    pub document: &'a Document,
    /// The first seed.
    pub first_seed: u64,
    /// How many.
    pub seeds: u64,
    /// Runs side by side; 0 is as many as the machine has cores.
    pub threads: usize,
    /// Where results are kept, so that a study that was interrupted goes on.
    pub folder: Option<PathBuf>,
}

/// Why a study could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A cell of the scenario is wrong.
    #[error("cell {cell:?}")]
    Cell {
        /// Its labels.
        cell: String,
        /// What is wrong with it.
        source: FileError,
    },
    /// The sweep is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// Results cannot be kept.
    #[error("results cannot be kept in {}", path.display())]
    Keep {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No threads.
    #[error("no threads can be started")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// How one run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With figures.
    Ran(Run),
    /// With a panic.
    Panicked {
        /// What it said.
        message: String,
    },
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct SeedRun {
    /// Its seed.
    pub seed: u64,
    /// How it ended.
    pub end: End,
}

/// All runs of one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct CellResult {
    /// Which.
    pub cell: Cell,
    /// In the order of their seeds.
    pub runs: Vec<SeedRun>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    seed: u64,
    end: End,
}

impl CellResult {
    /// The cell's labels in one line.
    #[must_use]
    pub fn name(&self) -> String {
        name(&self.cell)
    }

    /// The values of a metric, one a run that has it.
    #[must_use]
    pub fn measures(&self, metric: &str) -> Vec<Measure> {
        let ran = self.runs.iter().filter_map(|run| match &run.end {
            End::Ran(run) => run.measures.get(metric).copied(),
            End::Panicked { .. } => None,
        });
        ran.collect()
    }

    /// Every metric that a run has.
    #[must_use]
    pub fn metrics(&self) -> BTreeSet<String> {
        let ran = self.runs.iter().filter_map(|run| match &run.end {
            End::Ran(run) => Some(run.measures.keys().cloned()),
            End::Panicked { .. } => None,
        });
        ran.flatten().collect()
    }

    /// Everything that went wrong, with its seed; a panic is a problem of its own.
    pub fn problems(&self) -> impl Iterator<Item = (u64, Option<&Problem>, &str)> {
        self.runs.iter().flat_map(|run| {
            let (problems, panic) = match &run.end {
                End::Ran(run) => (run.problems.as_slice(), None),
                End::Panicked { message } => (&[] as &[Problem], Some(message.as_str())),
            };
            let problems = problems.iter().map(|problem| (Some(problem), problem.text.as_str()));
            let all = problems.chain(panic.map(|message| (None, message)));
            all.map(|(problem, text)| (run.seed, problem, text))
        })
    }
}

fn name(cell: &Cell) -> String {
    let one = |(axis, value): &(String, toml::Value)| format!("{axis}={}", shown(value));
    cell.labels.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Runs a plan. `on_run` hears of each run that is done.
///
/// # Errors
/// See [`Error`]. A run that panics is a result, not an error.
pub fn run(plan: &Plan, on_run: &(dyn Fn() + Sync)) -> Result<Vec<CellResult>, Error> {
    let mut cells = Vec::new();
    for cell in plan.document.cells()? {
        let body = plan.document.body(&cell)?;
        let model = plan.document.model(&cell);
        let model = model.map_err(|source| Error::Cell { cell: name(&cell), source })?;
        cells.push((cell, toml::Value::Table(body).to_string(), model));
    }
    let shelf = Shelf::open(plan.folder.as_deref())?;
    let program = plan.folder.as_ref().map_or_else(String::new, |_| program());
    let todo: Vec<(usize, u64)> = (0..cells.len())
        .flat_map(|cell| (0..plan.seeds).map(move |i| (cell, plan.first_seed + i)))
        .collect();
    let one = |&(number, seed): &(usize, u64)| -> Result<SeedRun, Error> {
        let (_, body, model) = &cells[number];
        let key = key(&program, &plan.document.kind, body, seed);
        let end = match shelf.take(&key) {
            Some(end) => end,
            None => {
                let end = run_one(model.as_ref(), seed);
                shelf.keep(Line { key, seed, end: end.clone() })?;
                end
            }
        };
        on_run();
        Ok(SeedRun { seed, end })
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(plan.threads).build()?;
    let runs: Result<Vec<SeedRun>, Error> = pool.install(|| todo.par_iter().map(one).collect());
    let mut runs = runs?.into_iter();
    let n = usize::try_from(plan.seeds).unwrap_or(usize::MAX);
    let results = cells.into_iter();
    Ok(results
        .map(|(cell, ..)| CellResult { cell, runs: runs.by_ref().take(n).collect() })
        .collect())
}

/// Runs a model, and takes a panic for a result.
pub(crate) fn run_one(model: &dyn Model, seed: u64) -> End {
    match catch_unwind(AssertUnwindSafe(|| model.run(seed))) {
        Ok(run) => End::Ran(run),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            End::Panicked { message: text.unwrap_or_else(|| "a panic without a message".into()) }
        }
    }
}

fn key(program: &str, kind: &str, body: &str, seed: u64) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [program, kind, body] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&seed.to_le_bytes());
    hasher.finalize().to_hex().to_string()
}

/// What is running: the hash of the executable, or its version if it cannot be read.
fn program() -> String {
    let executable = std::env::current_exe().and_then(std::fs::read);
    executable.map_or_else(
        |_| env!("CARGO_PKG_VERSION").to_owned(),
        |bytes| blake3::hash(&bytes).to_hex().to_string(),
    )
}

/// Results on disk, a line each.
struct Shelf {
    held: BTreeMap<String, End>,
    file: Option<Mutex<File>>,
    path: PathBuf,
}

impl Shelf {
    fn open(folder: Option<&Path>) -> Result<Self, Error> {
        let Some(folder) = folder else {
            return Ok(Self { held: BTreeMap::new(), file: None, path: PathBuf::new() });
        };
        let path = folder.join("runs.jsonl");
        let failed = |source| Error::Keep { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(failed)?;
        let mut held = BTreeMap::new();
        let mut ends_well = true;
        for line in BufReader::new(&file).split(b'\n') {
            let line = line.map_err(failed)?;
            // A line that was cut off when the program was ended is a run that is not done.
            let parsed = serde_json::from_slice::<Line>(&line);
            ends_well = parsed.is_ok();
            if let Ok(line) = parsed {
                held.insert(line.key, line.end);
            }
        }
        if !ends_well {
            file.write_all(b"\n").map_err(failed)?;
        }
        Ok(Self { held, file: Some(Mutex::new(file)), path })
    }

    fn take(&self, key: &str) -> Option<End> {
        self.held.get(key).cloned()
    }

    fn keep(&self, line: Line) -> Result<(), Error> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut text = serde_json::to_vec(&line).expect("plain values can be written");
        text.push(b'\n');
        let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(&text).map_err(|source| Error::Keep { path: self.path.clone(), source })
    }
}
