//! `replay`, `check-determinism`, `bisect`, `minimise`: what to do with a run that one cannot
//! explain.
//!
//! Each is about one world: a cell of a scenario file, or, without a file, the small world
//! that `fuzz` draws from the seed.

use std::path::PathBuf;

use clap::Args;
use rayon::prelude::*;

use super::{Exit, Failure, load};
use crate::defect::Defect;
use crate::file::{self, FileError, sweep::shown};
use crate::minimise;
use crate::scenario::Scenario;
use crate::study::{Model, Run};
use crate::timeline::Timeline;

/// Which world.
#[derive(Debug, Args)]
struct World {
    /// The scenario file; without one, the small world that `fuzz` draws from the seed.
    file: Option<PathBuf>,
    /// The seed.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Put a value in its place, as in network.loss=0.1; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE", requires = "file")]
    settings: Vec<String>,
    /// Which cell of a sweep, from 1.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "file")]
    cell: usize,
    /// Put a deliberate defect into the drawn world.
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    defect: Option<Defect>,
}

/// Run one world again and tell its story.
#[derive(Debug, Args)]
pub(super) struct Replay {
    #[command(flatten)]
    world: World,
    /// The trace hash that must come out.
    #[arg(long, value_name = "HASH")]
    expect: Option<String>,
    /// Do not tell the story.
    #[arg(long)]
    quiet: bool,
    /// Write a timeline of hosts and replicas, which ui.perfetto.dev opens.
    #[arg(long, value_name = "FILE")]
    perfetto: Option<PathBuf>,
}

/// Run each world twice, alone and beside others, and compare the traces.
#[derive(Debug, Args)]
pub(super) struct CheckDeterminism {
    #[command(flatten)]
    world: World,
    /// This many seeds from the first one on.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seeds: u64,
}

/// Show the first event at which two runs part.
#[derive(Debug, Args)]
pub(super) struct Bisect {
    #[command(flatten)]
    world: World,
    /// The seed of the other run, if it is another one.
    #[arg(long, value_name = "S")]
    other_seed: Option<u64>,
    /// A setting of the other run, beside those of --set; may be repeated.
    #[arg(long, value_name = "PATH=VALUE", requires = "file")]
    other_set: Vec<String>,
    /// A deliberate defect of the other run.
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    other_defect: Option<Defect>,
    /// Common lines that are shown before the first that differs.
    #[arg(long, value_name = "N", default_value_t = 5)]
    context: usize,
}

/// Shrink a world that fails, and write the smallest one to a file.
#[derive(Debug, Args)]
pub(super) struct Minimise {
    #[command(flatten)]
    world: World,
    /// The file to be written.
    #[arg(long, value_name = "FILE", default_value = "regression.toml")]
    out: PathBuf,
}

impl World {
    fn model(&self, more: &[String], seed: u64) -> Result<Box<dyn Model>, Failure> {
        let Some(path) = &self.file else {
            return Ok(Box::new(Scenario { defect: self.defect, ..Scenario::fuzz(seed) }));
        };
        let settings: Vec<String> = self.settings.iter().chain(more).cloned().collect();
        let document = load(path, &settings)?;
        let wrong = |source| Failure::File { path: path.clone(), source };
        let cell = self.pick(&document).map_err(wrong)?;
        document.model(&cell).map_err(wrong)
    }

    fn pick(&self, document: &file::Document) -> Result<file::sweep::Cell, FileError> {
        let cells = document.cells()?;
        let place = self.cell.checked_sub(1).and_then(|number| cells.get(number));
        place.cloned().ok_or_else(|| {
            let reason = format!("there are {}, counted from 1", cells.len());
            FileError::invalid(format!("cell {}", self.cell), reason)
        })
    }

    /// The scenario itself, which only volunteers have.
    fn scenario(&self) -> Result<Scenario, Failure> {
        let Some(path) = &self.file else {
            return Ok(Scenario { defect: self.defect, ..Scenario::fuzz(self.seed) });
        };
        let document = load(path, &self.settings)?;
        let wrong = |source| Failure::File { path: path.clone(), source };
        let cell = self.pick(&document).map_err(wrong)?;
        if document.kind != "volunteers" {
            let reason = format!("is {:?}; only volunteers can be minimised", document.kind);
            return Err(wrong(FileError::invalid("kind", reason)));
        }
        for (axis, value) in &cell.labels {
            println!("{axis}={}", shown(value));
        }
        file::compile::volunteers(document.body(&cell).map_err(wrong)?).map_err(wrong)
    }
}

impl Replay {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let model = self.world.model(&[], self.world.seed)?;
        let run = match &self.perfetto {
            None if self.quiet => model.run(self.world.seed),
            None => model.told(self.world.seed, &mut |line| eprintln!("{line}")),
            Some(path) => {
                let mut timeline = Timeline::default();
                let run = model.told(self.world.seed, &mut |line| {
                    timeline.line(line);
                    if !self.quiet {
                        eprintln!("{line}");
                    }
                });
                let text = timeline.finish().to_string();
                let written = std::fs::write(path, text);
                written.map_err(|source| Failure::Keep { path: path.clone(), source })?;
                run
            }
        };
        for problem in &run.problems {
            println!("{}", problem.text);
        }
        println!("seed {}: trace {}", self.world.seed, run.trace_hash);
        if let Some(expected) = self.expect.filter(|expected| *expected != run.trace_hash) {
            println!("expected trace {expected}");
            return Ok(Exit::Differs);
        }
        Ok(worst(&run))
    }
}

fn worst(run: &Run) -> Exit {
    let exits = run
        .problems
        .iter()
        .map(|problem| if problem.is_of_safety { Exit::Safety } else { Exit::Liveness });
    exits.max().unwrap_or(Exit::Held)
}

impl CheckDeterminism {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let seeds: Vec<u64> = (0..self.seeds).map(|i| self.world.seed + i).collect();
        let models = seeds.iter().map(|&seed| Ok((seed, self.world.model(&[], seed)?)));
        let models = models.collect::<Result<Vec<_>, Failure>>()?;
        let alone: Vec<Run> = models.iter().map(|(seed, model)| model.run(*seed)).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        let pool = pool.map_err(crate::study::RunnerError::from)?;
        let beside: Vec<Run> =
            pool.install(|| models.par_iter().map(|(seed, model)| model.run(*seed)).collect());
        let mut exit = Exit::Held;
        let mut all = blake3::Hasher::new();
        for ((seed, one), other) in seeds.iter().zip(&alone).zip(&beside) {
            all.update(one.trace_hash.as_bytes());
            if one != other {
                println!("seed {seed}: {} and {}", one.trace_hash, other.trace_hash);
                exit = Exit::Differs;
            }
        }
        let word = if exit == Exit::Held { "the same twice" } else { "NOT the same twice" };
        println!("{} seeds, {word}; trace of all {}", seeds.len(), all.finalize().to_hex());
        Ok(exit)
    }
}

impl Bisect {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let seed = self.world.seed;
        let other_seed = self.other_seed.unwrap_or(seed);
        let one = self.world.model(&[], seed)?;
        let other_world = World { defect: self.other_defect.or(self.world.defect), ..self.world };
        let other = other_world.model(&self.other_set, other_seed)?;
        let mut story = Vec::new();
        one.told(seed, &mut |line| story.push(line.to_owned()));
        let (mut number, mut parted) = (0, None);
        other.told(other_seed, &mut |line| {
            if parted.is_none() && story.get(number).map(String::as_str) != Some(line) {
                parted = Some((number, Some(line.to_owned())));
            }
            number += 1;
        });
        if parted.is_none() && number < story.len() {
            parted = Some((number, None));
        }
        let Some((at, line)) = parted else {
            println!("the runs are the same: {number} lines");
            return Ok(Exit::Held);
        };
        for (number, common) in
            story.iter().enumerate().take(at).skip(at.saturating_sub(self.context))
        {
            println!("  {number} {common}");
        }
        println!("- {at} {}", story.get(at).map_or("(has ended)", String::as_str));
        println!("+ {at} {}", line.as_deref().unwrap_or("(has ended)"));
        Ok(Exit::Differs)
    }
}

impl Minimise {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (scenario, seed) = (self.world.scenario()?, self.world.seed);
        if minimise::failure(&scenario, seed).is_none() {
            println!("seed {seed} does not fail: there is nothing to minimise");
            return Ok(Exit::Held);
        }
        let (mut tries, mut kept) = (0, 0);
        let smallest = minimise::minimise(&scenario, seed, &mut |fails| {
            tries += 1;
            kept += u32::from(fails);
        });
        let outcome = std::panic::catch_unwind(|| crate::run(&smallest, seed));
        let (text, exit) = match &outcome {
            Ok(outcome) => {
                let first = outcome.violations.first();
                let is_safety = first.is_some_and(crate::Violation::is_of_safety);
                let text = first.map_or_else(String::new, ToString::to_string);
                (text, if is_safety { Exit::Safety } else { Exit::Liveness })
            }
            Err(_) => ("a core panics".to_owned(), Exit::Panicked),
        };
        let about = format!("Regression: with seed {seed}, {text}.");
        let table = file::write(&smallest, &about);
        std::fs::write(&self.out, table.to_string())
            .map_err(|source| crate::study::WriteError::File { path: self.out.clone(), source })?;
        println!("{text}");
        println!(
            "{} hosts and {} units instead of {} and {}, after {tries} tries of which {kept} failed",
            smallest.hosts(),
            smallest.jobs.iter().map(|job| job.units).sum::<u64>(),
            scenario.hosts(),
            scenario.jobs.iter().map(|job| job.units).sum::<u64>(),
        );
        println!("again: dockercomp sim run {} --seed {seed}", self.out.display());
        Ok(exit)
    }
}
