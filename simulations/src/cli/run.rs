//! `run`: a scenario with its seeds, and its expectations beside what came out.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Exit, Failure, load};
use crate::file::Document;
use crate::file::sweep::shown;
use crate::study::{self, CellResult, End, Plan, Verdict};

/// Run a scenario, and compare what comes out with what it expects.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The scenario file.
    file: PathBuf,
    /// Run each cell with this seed only.
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "first_seed"])]
    seed: Option<u64>,
    /// Run each cell with this many consecutive seeds, instead of as many as the file says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// The first of the seeds.
    #[arg(long, value_name = "S", default_value_t = 1)]
    first_seed: u64,
    /// Put a value in its place, as in network.loss=0.1; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    settings: Vec<String>,
    /// Runs side by side; as many as there are cores unless it is said.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Keep results in this folder, with tables, figures and a report; a study that was
    /// interrupted goes on where it stopped.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Print one JSON object a run, and one a verdict.
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let document = load(&self.file, &self.settings)?;
        let (first_seed, seeds) = match self.seed {
            Some(seed) => (seed, 1),
            None => (self.first_seed, self.seeds.unwrap_or(document.seeds)),
        };
        let wrong = |source| Failure::File { path: self.file.clone(), source };
        let n = document.cells().map_err(wrong)?.len() as u64 * seeds;
        let bar = progress(n);
        let folder = self.out.clone();
        let plan = Plan { document: &document, first_seed, seeds, threads: self.threads, folder };
        let results = study::run(&plan, &|| bar.inc(1))?;
        bar.finish_and_clear();
        let verdicts: Vec<Verdict> =
            document.expectations.iter().flat_map(|expected| expected.judge(&results)).collect();
        if let Some(folder) = &self.out {
            study::write_tables(folder, &document, &results, &verdicts)?;
            study::write_report(folder, &document, &results, &verdicts, &self.command(seeds))?;
            eprintln!("written to {}: report.html, runs.csv, runs.parquet", folder.display());
        }
        if self.json {
            print_json(&results, &verdicts);
        } else {
            print_text(&document, &results, &verdicts);
        }
        Ok(exit(&results, &verdicts))
    }
}

impl Run {
    /// The command that does the same again.
    fn command(&self, seeds: u64) -> String {
        let first = self.seed.unwrap_or(self.first_seed);
        let mut command = format!(
            "dockercomp sim run {} --seeds {seeds} --first-seed {first}",
            self.file.display()
        );
        for setting in &self.settings {
            let _ = write!(command, " --set '{setting}'");
        }
        command
    }
}

/// A bar with the time left, on a terminal only.
fn progress(runs: u64) -> ProgressBar {
    let bar = ProgressBar::new(runs);
    let template = "{wide_bar} {pos}/{len} runs, {elapsed} gone, {eta} left";
    bar.with_style(ProgressStyle::with_template(template).expect("a template that is right"))
}

fn print_text(document: &Document, results: &[CellResult], verdicts: &[Verdict]) {
    print!("{}", study::cell_table(results, &document.columns));
    for result in results {
        for (seed, _, text) in result.problems() {
            println!("seed {seed} {}: {text}", result.name());
        }
    }
    if let [CellResult { runs, .. }] = results {
        for run in runs {
            if let End::Ran(ran) = &run.end {
                println!("seed {}: trace {}", run.seed, ran.trace_hash);
            }
        }
    } else {
        println!("trace of all runs: {}", all_traces(results));
    }
    if !verdicts.is_empty() {
        println!("\n{}", study::verdict_table(verdicts).trim_end());
        let within = verdicts.iter().filter(|verdict| verdict.is_within()).count();
        println!("{within} of {} within their tolerance", verdicts.len());
    }
}

/// One hash for all runs, in their order.
fn all_traces(results: &[CellResult]) -> String {
    let mut hasher = blake3::Hasher::new();
    for run in results.iter().flat_map(|result| &result.runs) {
        match &run.end {
            End::Ran(run) => hasher.update(run.trace_hash.as_bytes()),
            End::Panicked { message } => hasher.update(message.as_bytes()),
        };
    }
    hasher.finalize().to_hex().to_string()
}

fn print_json(results: &[CellResult], verdicts: &[Verdict]) {
    for result in results {
        let labels =
            result.cell.labels.iter().map(|(axis, value)| (axis.clone(), json!(shown(value))));
        let labels: serde_json::Map<_, _> = labels.collect();
        for run in &result.runs {
            println!("{}", json!({ "cell": labels, "seed": run.seed, "end": run.end }));
        }
    }
    for verdict in verdicts {
        println!("{}", verdict.json());
    }
}

/// The worst of everything.
fn exit(results: &[CellResult], verdicts: &[Verdict]) -> Exit {
    let problems = results.iter().flat_map(CellResult::problems);
    let worst = problems.map(|(_, problem, _)| match problem {
        None => Exit::Panicked,
        Some(problem) if problem.is_of_safety => Exit::Safety,
        Some(_) => Exit::Liveness,
    });
    let is_out = verdicts.iter().any(|verdict| !verdict.is_within());
    let figures = if is_out { Exit::Out } else { Exit::Held };
    worst.max().unwrap_or(Exit::Held).max(figures)
}
