//! `dockercomp demo`: a whole network on this machine, one real job, a saboteur caught.

mod network;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use dockercomp_coordinator::api::types::JobInfo;
use dockercomp_processes::{asked_to_stop, installed};
use serde::Serialize;

use self::network::Network;
use crate::cli::{ExecutorChoice, verify, watch_job};
use crate::failure::{Code, Failure};
use crate::output::{self, Format};
use crate::{job_folder, results};

/// See a whole network at work on this machine, and a saboteur caught.
///
/// Starts a bootstrap node, a coordinator and volunteers' nodes as processes on loopback, runs
/// a job, and leaves nothing behind but the picture.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Number of nodes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=50))]
    nodes: u16,

    /// How many of them report plausible, wrong results.
    #[arg(long, default_value_t = 1)]
    saboteurs: u16,

    /// What runs the work.
    #[arg(long, value_enum, default_value = "auto")]
    executor: ExecutorChoice,

    /// The job to run; the Mandelbrot example if left out.
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,

    /// Keep data directories, logs, outputs and receipts in this folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// What the demo ends with.
#[derive(Debug, Serialize)]
struct Report {
    /// What ran the work.
    executor: String,
    executor_reason: String,
    work_units: u64,
    replicas: u64,
    results_valid: u64,
    results_invalid: u64,
    caught: Vec<Caught>,
    nodes: Vec<NodeReport>,
    receipts_verified: usize,
    picture: PathBuf,
    seconds: f64,
}

/// A node of the demo.
#[derive(Debug, Serialize)]
struct NodeReport {
    node: String,
    peer_id: String,
    executor: String,
}

/// A node that was caught, and how.
#[derive(Debug, Serialize)]
struct Caught {
    node: String,
    peer_id: String,
    saboteur: bool,
    wrong_results: usize,
    how: String,
}

impl Demo {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<()> {
        if self.saboteurs * 2 > self.nodes {
            let message = "at most half of the nodes can be saboteurs";
            return Err(Failure::new(Code::Usage, message).into());
        }
        let job = self.job_file()?;
        let temporary = tempfile::Builder::new()
            .prefix("dockercomp-demo-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        let dir = match &self.keep {
            Some(dir) => {
                std::fs::create_dir_all(dir)
                    .with_context(|| format!("cannot make {}", dir.display()))?;
                std::path::absolute(dir)?
            }
            None => temporary.path().to_owned(),
        };
        let mut network = Network::new(&dir);
        let report = tokio::select! {
            report = self.play(&mut network, &dir, &job) => report,
            stop = asked_to_stop() => {
                results::clean_up().await;
                stop?;
                Err(Failure::new(Code::Interrupted, "interrupted").into())
            }
        };
        eprintln!("stopping all processes");
        network.stop().await;
        let is_interrupted = |error: &anyhow::Error| {
            error.downcast_ref::<Failure>().is_some_and(|f| f.code == Code::Interrupted)
        };
        if report.as_ref().is_err_and(|error| !is_interrupted(error)) && self.keep.is_none() {
            copy_logs(&dir);
        }
        temporary.close().context("cannot remove the temporary folder")?;
        output::print(format, &report?, Report::human);
        Ok(())
    }

    async fn play(&self, network: &mut Network, dir: &Path, job: &Path) -> anyhow::Result<Report> {
        let (nodes, saboteurs) = (usize::from(self.nodes), usize::from(self.saboteurs));
        eprintln!("starting a bootstrap node, a coordinator and {nodes} nodes on loopback");
        network.start(dir, nodes, saboteurs, self.executor).await?;
        let first = network.nodes.first().context("there is no node")?;
        let (executor, executor_reason) = (first.executor.clone(), first.executor_reason.clone());
        eprintln!("work is run with {executor_reason}");

        let started = Instant::now();
        let client = network.client()?;
        let submitted = job_folder::submit(&client, job, None).await?;
        eprintln!("job {} has {} work units", submitted.job, submitted.work_units);
        let info = watch_job(&client, &submitted.job, None).await?;
        let seconds = started.elapsed().as_secs_f64();
        if info.state != "done" {
            let message = format!("the job is {}: {:?}", info.state, info.failures.first());
            return Err(Failure::new(Code::JobFailed, message).into());
        }
        let into = dir.join("results");
        let fetched = results::fetch(&client, &info, &into, self.executor.into()).await?;
        let receipts = verify(&into, None)?;
        let picture = self.keep_picture(&fetched)?;
        Ok(Report {
            executor,
            executor_reason,
            work_units: info.work_units,
            replicas: info.replicas,
            results_valid: info.results_valid,
            results_invalid: info.results_invalid,
            caught: caught(&info, network),
            nodes: network
                .nodes
                .iter()
                .map(|node| NodeReport {
                    node: node.name.clone(),
                    peer_id: node.peer_id.clone(),
                    executor: node.executor.clone(),
                })
                .collect(),
            receipts_verified: receipts.len(),
            picture,
            seconds,
        })
    }

    /// The job file that was asked for, or the example where it lies in a checkout or an
    /// installation.
    fn job_file(&self) -> anyhow::Result<PathBuf> {
        const EXAMPLE: &str = "examples/mandelbrot/job.toml";
        if let Some(job) = &self.job {
            if !job.is_file() {
                let message = format!("{} is not a file", job.display());
                return Err(Failure::new(Code::Usage, message).into());
            }
            return Ok(job.clone());
        }
        installed(EXAMPLE).ok_or_else(|| {
            Failure::new(Code::Usage, format!("{EXAMPLE} is not here"))
                .fix("run the demo in a checkout of dockercomp, or name a job with --job")
                .into()
        })
    }

    /// Puts the first file of the result where it outlives the demo.
    fn keep_picture(&self, fetched: &results::Fetched) -> anyhow::Result<PathBuf> {
        let Some(file) = fetched.files.first() else {
            return Ok(fetched.units.clone());
        };
        if self.keep.is_some() {
            return Ok(file.clone());
        }
        let name = file.file_name().context("the result has no name")?;
        let name = format!("dockercomp-demo-{}", name.to_string_lossy());
        let kept = std::env::current_dir()?.join(name);
        std::fs::copy(file, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
        Ok(kept)
    }
}

/// Who reported results that were outvoted.
fn caught(info: &JobInfo, network: &Network) -> Vec<Caught> {
    let mut wrong: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for disagreement in &info.disagreements {
        wrong.entry(&disagreement.node).or_default().push(disagreement.unit);
    }
    wrong
        .into_iter()
        .map(|(peer_id, units)| {
            let node = network.node(peer_id);
            Caught {
                node: node.map_or_else(|| "unknown".to_owned(), |node| node.name.clone()),
                peer_id: peer_id.to_owned(),
                saboteur: node.is_some_and(|node| node.saboteur),
                wrong_results: units.len(),
                how: "its outputs differ from those that a quorum of other nodes agreed on".into(),
            }
        })
        .collect()
}

impl Report {
    fn human(&self) -> String {
        let mut text = format!(
            "picture    {}\nrun with   {}\nwork units {}, in {} replicas\nresults    {} valid, {} \
             invalid\n",
            self.picture.display(),
            self.executor_reason,
            self.work_units,
            self.replicas,
            self.results_valid,
            self.results_invalid,
        );
        for caught in &self.caught {
            text += &format!(
                "caught     {} ({}): {} wrong results; {}\n",
                caught.node, caught.peer_id, caught.wrong_results, caught.how
            );
        }
        text += &format!(
            "receipts   {} verified offline\ntime       {:.1} s\n",
            self.receipts_verified, self.seconds
        );
        text
    }
}

/// Prints the end of each log, since the folder is about to go.
fn copy_logs(dir: &Path) {
    let logs = results::walk(dir).unwrap_or_default();
    for log in logs.iter().filter(|path| path.extension().is_some_and(|end| end == "log")) {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(10)..];
        if !tail.is_empty() {
            eprintln!("--- {}", log.file_name().unwrap_or_default().to_string_lossy());
            tail.iter().for_each(|line| eprintln!("{line}"));
        }
    }
}
