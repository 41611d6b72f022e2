//! The lab: a scenario with real processes on this machine.
//!
//! ```text
//! scenario ──plan──► steps ──► processes of the real binary, libp2p, executor ──► measures
//!             │                 kill -9 and starts at the moments that the model draws
//!             └──► the model, with the same seed ─────────────────────────────► measures
//! ```
//!
//! | Module | What |
//! |---|---|
//! | `plan` | what a scenario means with real processes, and what it cannot mean |
//! | `network`, `namespaces` | the processes, and a network that can be cut |
//! | `work` | the job file, and which outputs are right |
//! | `fidelity` | model and lab side by side |
//!
//! # What is the same, and what is not
//!
//! Hosts, their cores, who lies, when each joins, crashes and returns, and how long each unit
//! runs come from the same streams of the seed as in the model. Everything between is real:
//! encodings, signatures, discovery, gossip, the exchange, the executor, disks, and a machine
//! whose processors all hosts share; so two runs with one seed differ.
//!
//! # What is left behind
//!
//! Nothing: processes end with this one however it ends, and the folder of a run is removed
//! unless it was asked for. If this process itself is killed, the folder stays.

mod error;
pub(crate) mod fidelity;
mod namespaces;
mod network;
pub(crate) mod plan;
mod work;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

pub use error::LabError;

use crate::study::{Measure, Problem, Run};
use network::Network;
use plan::{Plan, Step};
use work::Program;

/// How a run in the lab is done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The binary that is started; the one beside this program if it is not named.
    pub(crate) binary: Option<PathBuf>,
    /// Where data directories, logs and results are kept; nowhere if it is not named.
    pub(crate) keep: Option<PathBuf>,
}

/// A job as the coordinator tells it; the rest of what it says is not needed.
#[derive(Clone, Debug, Deserialize)]
struct JobInfo {
    state: String,
    work_units: u64,
    accepted: u64,
    failed: u64,
    replicas: u64,
    results_valid: u64,
    results_invalid: u64,
    results_error: u64,
    results_no_reply: u64,
}

#[derive(Deserialize)]
struct Submitted {
    job: String,
}

/// Runs a scenario with each of these seeds, one after the other, and waits for it. `tell` hears
/// of each run.
///
/// # Errors
/// If processes could not be run, or somebody asked for an end. What the network under test
/// did wrong is no error but a [`Problem`] of the run.
pub(crate) fn run(
    plan: &Plan,
    seeds: Range<u64>,
    settings: &Settings,
    tell: &mut (dyn FnMut(u64, &Run) + Send),
) -> Result<Vec<Run>, LabError> {
    on_a_runtime(async || {
        let mut stop = Box::pin(dockercomp_processes::asked_to_stop());
        let mut runs = Vec::new();
        for seed in seeds {
            let run = in_a_folder(plan, seed, settings, &mut stop).await?;
            tell(seed, &run);
            runs.push(run);
        }
        Ok(runs)
    })
}

/// Waits for a future on a runtime of its own: whoever calls may be on one already.
fn on_a_runtime<T: Send>(
    begin: impl AsyncFnOnce() -> Result<T, LabError> + Send,
) -> Result<T, LabError> {
    let wait = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(begin())
    };
    std::thread::scope(|scope| {
        scope.spawn(wait).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// One run, with a folder that is removed afterwards unless it is to be kept.
async fn in_a_folder(
    plan: &Plan,
    seed: u64,
    settings: &Settings,
    stop: &mut (impl Future<Output = std::io::Result<()>> + Unpin),
) -> Result<Run, LabError> {
    let program = Program::find()?;
    let binary = network::binary(settings.binary.as_deref())?;
    let temporary = tempfile::Builder::new().prefix("dockercomp-lab-").tempdir()?;
    let dir = match &settings.keep {
        Some(keep) => {
            let dir = keep.join(format!("seed-{seed}"));
            std::fs::create_dir_all(&dir).map_err(LabError::file(&dir))?;
            std::path::absolute(&dir).map_err(LabError::file(&dir))?
        }
        None => temporary.path().to_owned(),
    };
    let mut network = Network::new(&binary, &dir, &plan.scenario, plan.executor, seed);
    let run = tokio::select! {
        run = play(plan, seed, &program, &dir, &mut network) => run,
        asked = stop => asked.map_err(LabError::from).and(Err(LabError::Interrupted)),
    };
    eprintln!("stopping all processes");
    network.stop().await;
    temporary.close()?;
    run
}

/// What the clock said of a run.
struct Timing {
    /// From the beginning to the end of the last job; nothing if patience ended first.
    makespan: Option<Duration>,
    /// How far the run was behind its steps, at worst.
    lateness: Duration,
}

async fn play(
    plan: &Plan,
    seed: u64,
    program: &Program,
    dir: &Path,
    network: &mut Network<'_>,
) -> Result<Run, LabError> {
    let steps = plan.steps(seed);
    let is_first =
        |(at, step): &&(Duration, Step)| at.is_zero() && matches!(step, Step::Start { .. });
    eprintln!("seed {seed}: starting a bootstrap node, a coordinator and the first hosts");
    if plan.has_cuts() {
        network.separate().await?;
    }
    network.open().await?;
    for (_, step) in steps.iter().filter(is_first) {
        if let Step::Start { host } = step {
            network.switch_on(*host)?;
        }
    }
    network.all_here().await?;
    let mut jobs = Vec::new();
    let later = steps.iter().filter(|step| !is_first(step));
    let timing = carry_out(plan, seed, program, dir, network, later, &mut jobs).await?;
    network.check().await?;
    measure(plan, program, dir, network, &jobs, &timing).await
}

/// Takes the steps at their times, until all jobs are over or patience ends.
async fn carry_out(
    plan: &Plan,
    seed: u64,
    program: &Program,
    dir: &Path,
    network: &mut Network<'_>,
    steps: impl Iterator<Item = &(Duration, Step)>,
    jobs: &mut Vec<String>,
) -> Result<Timing, LabError> {
    let zero = Instant::now();
    let limit = zero + plan.limit();
    let mut steps = steps.peekable();
    let mut watching = JoinSet::new();
    let mut timing = Timing { makespan: None, lateness: Duration::ZERO };
    loop {
        if jobs.len() == plan.scenario.jobs.len() && watching.is_empty() {
            return Ok(timing);
        }
        let next = steps.peek().map_or(limit, |(at, _)| limit.min(zero + *at));
        tokio::select! {
            biased;
            Some(watched) = watching.join_next() => {
                watched.map_err(std::io::Error::other)??;
                timing.makespan = Some(zero.elapsed());
            }
            () = sleep_until(next) => {
                let Some((at, step)) = steps.next().filter(|_| next < limit) else {
                    timing.makespan = None;
                    return Ok(timing);
                };
                timing.lateness = timing.lateness.max(zero.elapsed().saturating_sub(*at));
                match *step {
                    Step::Start { host } => network.switch_on(host)?,
                    Step::Kill { host } => network.kill(host).await?,
                    Step::Cut { group } => network.set_link(group, false).await?,
                    Step::Mend { group } => network.set_link(group, true).await?,
                    Step::Submit { job } => {
                        let work = &plan.scenario.jobs[job as usize];
                        let file = program.job_file(seed, job, work, dir)?;
                        let file = file.to_string_lossy();
                        let submitted: Submitted = network.ask(&["job", "submit", &file]).await?;
                        watching.spawn(network.watch(&submitted.job));
                        jobs.push(submitted.job);
                    }
                }
                eprintln!("{:6.1} s  {step}", at.as_secs_f64());
            }
        }
    }
}

/// Asks what came of it, by the names that the model's figures have.
async fn measure(
    plan: &Plan,
    program: &Program,
    dir: &Path,
    network: &Network<'_>,
    jobs: &[String],
    timing: &Timing,
) -> Result<Run, LabError> {
    let mut problems = Vec::new();
    let mut sum = [0; 8];
    let mut wrong = Some(0);
    for (number, job) in jobs.iter().enumerate() {
        let info: JobInfo = network.ask(&["job", "status", job]).await?;
        let counts = [
            info.work_units,
            info.accepted,
            info.failed,
            info.replicas,
            info.results_valid,
            info.results_invalid,
            info.results_error,
            info.results_no_reply,
        ];
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        if info.state == "running" {
            let text = format!("job {number} is not over: {} accepted", info.accepted);
            problems.push(Problem { is_of_safety: false, text });
        }
        // Only what is done can be fetched as a whole.
        wrong = match wrong {
            Some(before) if info.state == "done" => {
                let into = dir.join(format!("results-{number}"));
                let (text, executor) = (into.to_string_lossy(), plan.executor.to_string());
                let fetch = ["job", "fetch", job, "--into", &text, "--executor", &executor];
                network.ask::<serde_json::Value>(&fetch).await?;
                Some(before + program.count_wrong(info.work_units, &into, dir).await?)
            }
            _ => None,
        };
    }
    let [units, accepted, failed, replicas, valid, invalid, errors, no_reply] = sum;
    let number = |value: u64| Measure::Number(value as f64);
    let seconds = |time: Duration| Measure::Number(time.as_secs_f64());
    let mut measures = BTreeMap::from([
        ("completed", Measure::Share { hits: accepted, of: units }),
        ("replicas_per_unit", Measure::Number(replicas as f64 / units.max(1) as f64)),
        ("accepted", number(accepted)),
        ("failed", number(failed)),
        ("replicas", number(replicas)),
        ("valid", number(valid)),
        ("invalid", number(invalid)),
        ("errors", number(errors)),
        ("no_reply", number(no_reply)),
        ("host_crashes", number(network.n_kills)),
        ("makespan_seconds", seconds(timing.makespan.unwrap_or(plan.limit()))),
        ("lateness_seconds", seconds(timing.lateness)),
    ]);
    if let Some(wrong) = wrong {
        measures.insert("wrong_accepted", number(wrong));
        measures.insert("accepted_error_rate", Measure::Share { hits: wrong, of: accepted });
    }
    let (mut caught, mut blamed) = (0, 0);
    for node in network.coordinators_nodes().await?.iter().filter(|node| node.invalid > 0) {
        let lies =
            network.host(&node.node).is_some_and(|host| plan.scenario.behaviour(host).may_lie());
        *(if lies { &mut caught } else { &mut blamed }) += 1;
    }
    let of = plan.scenario.saboteurs();
    measures.insert("caught", Measure::Share { hits: caught, of });
    measures.insert("blamed", number(blamed));
    let n_starts = network.startups.len().max(1) as f64;
    let startups: Duration = network.startups.iter().sum();
    measures.insert("startup_seconds", Measure::Number(startups.as_secs_f64() / n_starts));
    let measures = measures.into_iter().map(|(name, value)| (name.to_owned(), value));
    // Nothing in the lab is bit for bit.
    Ok(Run { trace_hash: String::new(), measures: measures.collect(), problems })
}
