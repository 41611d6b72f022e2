//! `lab run` and `sim fidelity`: scenarios with real processes.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use dockercomp_protocol::execution::ExecutorKind;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::{Exit, Failure, load};
use crate::file::{Document, FileError};
use crate::lab::fidelity::{self, Compared};
use crate::lab::plan::Plan;
use crate::lab::{self, Settings};
use crate::model::summed_up;
use crate::study::table::number;
use crate::study::{Measure, Run};

/// What both commands take.
#[derive(Clone, Debug, Args)]
struct Common {
    /// The scenario file.
    file: PathBuf,
    /// Put a value in its place, as in population=10; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    settings: Vec<String>,
    /// What runs the work of all hosts.
    #[arg(long, value_enum, default_value = "wasm")]
    executor: Executor,
    /// The binary that is started; dockercomp beside this program if it is not named.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Keep data directories, logs, outputs and figures in this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What runs work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Executor {
    /// Docker containers.
    Docker,
    /// WebAssembly modules in the embedded runtime.
    Wasm,
}

/// Run scenarios of volunteers with real processes on this machine.
#[derive(Debug, Subcommand)]
pub enum Lab {
    /// Run a scenario once, with real processes, real libp2p and a real executor.
    Run(LabRun),
}

/// Options of `lab run`.
#[derive(Debug, Args)]
pub struct LabRun {
    #[command(flatten)]
    common: Common,
    /// What is drawn: who joins and crashes when, and how long units run.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// Run a scenario in the model and with real processes, and compare what comes out.
#[derive(Debug, Args)]
pub(super) struct Fidelity {
    #[command(flatten)]
    common: Common,
    /// Runs with real processes, with consecutive seeds.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// Runs of the model, from the same first seed.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(2..))]
    seeds: u64,
    /// The first of the seeds.
    #[arg(long, value_name = "S", default_value_t = 1)]
    first_seed: u64,
}

/// What `sim fidelity` found.
#[derive(Serialize)]
struct Report<'a> {
    scenario: &'a str,
    executor: String,
    model_runs: usize,
    lab_runs: usize,
    agrees: bool,
    figures: &'a [Compared],
    /// Parts of the model that the lab measured.
    parts: &'a [Part],
    problems: Vec<&'a str>,
}

/// A part of the model, beside what the lab measured of it.
#[derive(Serialize)]
struct Part {
    what: &'static str,
    modelled: Option<f64>,
    measured: f64,
}

impl Common {
    fn plan(&self) -> Result<(Document, Plan), Failure> {
        let document = load(&self.file, &self.settings)?;
        let executor = match self.executor {
            Executor::Docker => ExecutorKind::Docker,
            Executor::Wasm => ExecutorKind::Wasm,
        };
        let wrong = |source: FileError| Failure::File { path: self.file.clone(), source };
        let plan = Plan::new(&document, executor).map_err(wrong)?;
        Ok((document, plan))
    }

    fn lab(&self) -> Settings {
        Settings { binary: self.binary.clone(), keep: self.out.clone() }
    }

    /// Writes a file into the folder that was asked for, if one was.
    fn keep(&self, name: &str, text: &str) -> Result<(), Failure> {
        let Some(out) = &self.out else { return Ok(()) };
        let path = out.join(name);
        std::fs::write(&path, text).map_err(|source| Failure::Keep { path, source })
    }
}

impl Lab {
    /// Carries the command out and gives the exit code. `json` asks for JSON as the command's
    /// own option does.
    #[must_use]
    pub fn run(self, json: bool) -> u8 {
        let Self::Run(mut run) = self;
        run.common.json |= json;
        super::ended(run.run())
    }
}

impl LabRun {
    fn run(self) -> Result<Exit, Failure> {
        let (document, plan) = self.common.plan()?;
        let runs = lab::run(
            &plan,
            self.seed..self.seed.saturating_add(1),
            &self.common.lab(),
            &mut |_, _| {},
        )?;
        self.common.keep("scenario.toml", &document.resolved.to_string())?;
        for run in &runs {
            let line = line(self.seed, run);
            self.common.keep("run.json", &line)?;
            if self.common.json {
                println!("{line}");
            } else {
                print!("{}", figures(run));
            }
        }
        Ok(exit(&runs, true))
    }
}

impl Fidelity {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (document, plan) = self.common.plan()?;
        let seeds = self.first_seed..self.first_seed.saturating_add(self.seeds);
        let model: Vec<Run> = seeds
            .into_par_iter()
            .map(|seed| summed_up(&crate::run(&plan.scenario, seed)))
            .collect();
        let few = self.first_seed..self.first_seed.saturating_add(self.runs);
        let mut lines = String::new();
        let tell = &mut |seed, run: &Run| lines += &(line(seed, run) + "\n");
        let lab = lab::run(&plan, few, &self.common.lab(), tell)?;
        let compared = fidelity::compare(&model, &lab);
        let agrees = compared.iter().all(|figure| figure.agrees);
        let problems = model.iter().chain(&lab).flat_map(|run| &run.problems);
        let report = Report {
            scenario: &document.name,
            executor: plan.executor.to_string(),
            model_runs: model.len(),
            lab_runs: lab.len(),
            agrees,
            figures: &compared,
            parts: &parts(&plan, &lab),
            problems: problems.map(|problem| problem.text.as_str()).collect(),
        };
        let json = serde_json::to_string_pretty(&report).expect("plain values can be written");
        self.common.keep("scenario.toml", &document.resolved.to_string())?;
        self.common.keep("lab-runs.jsonl", &lines)?;
        self.common.keep("fidelity.json", &json)?;
        if self.common.json {
            println!("{json}");
        } else {
            print_report(&report, &self.common.file);
        }
        let runs: Vec<Run> = model.into_iter().chain(lab).collect();
        Ok(exit(&runs, agrees))
    }
}

/// What the model takes as given, beside what the lab measured.
fn parts(plan: &Plan, lab: &[Run]) -> Vec<Part> {
    let mean = |metric: &str| {
        let values = lab.iter().filter_map(|run| run.measures.get(metric));
        values.map(|value| value.value()).sum::<f64>() / lab.len().max(1) as f64
    };
    let crowds = &plan.scenario.crowds;
    let hosts = f64::from(plan.scenario.hosts().max(1));
    let startups = crowds.iter().map(|crowd| crowd.startup.mean() * f64::from(crowd.hosts));
    vec![
        Part {
            what: "from switching a host on until its node is ready, s",
            modelled: Some(startups.sum::<f64>() / hosts / 1e6),
            measured: mean("startup_seconds"),
        },
        Part {
            what: "how far the lab was behind its steps at worst, s",
            modelled: None,
            measured: mean("lateness_seconds"),
        },
    ]
}

fn print_report(report: &Report, file: &Path) {
    println!(
        "{}: {} runs of the model, {} with real processes ({})\n",
        file.display(),
        report.model_runs,
        report.lab_runs,
        report.executor
    );
    print!("{}", fidelity::table(report.figures));
    println!();
    for Part { what, modelled, measured } in report.parts {
        let modelled = modelled.map_or_else(String::new, |it| format!(", modelled {}", number(it)));
        println!("{what}: measured {}{modelled}", number(*measured));
    }
    for problem in &report.problems {
        println!("problem: {problem}");
    }
    let agree = report.figures.iter().filter(|figure| figure.agrees).count();
    println!("\n{agree} of {} figures agree", report.figures.len());
}

/// A run as one line of JSON.
fn line(seed: u64, run: &Run) -> String {
    json!({ "seed": seed, "measures": run.measures, "problems": run.problems }).to_string()
}

/// A run's figures, one a line.
fn figures(run: &Run) -> String {
    let shown = |measure: &Measure| match measure {
        Measure::Share { hits, of } => format!("{hits} of {of}"),
        Measure::Number(value) => number(*value),
    };
    let mut text = String::new();
    for (name, measure) in &run.measures {
        text += &format!("{name:<20} {}\n", shown(measure));
    }
    for problem in &run.problems {
        text += &format!("problem: {}\n", problem.text);
    }
    text
}

/// The worst of everything.
fn exit(runs: &[Run], agrees: bool) -> Exit {
    let problems = runs.iter().flat_map(|run| &run.problems);
    let worst = problems
        .map(|problem| if problem.is_of_safety { Exit::Safety } else { Exit::Liveness })
        .max();
    worst.unwrap_or(if agrees { Exit::Held } else { Exit::Out })
}
