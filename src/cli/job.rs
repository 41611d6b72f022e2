//! `dockercomp job`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use dockercomp_coordinator::api::types::{JobInfo, UnitExplained};

use super::{ExecutorChoice, explain};
use crate::client::Client;
use crate::failure::{Code, Failure};
use crate::job_folder;
use crate::output::{self, Format};
use crate::paths::{Role, data_dir};
use crate::verify::Verified;
use crate::{progress, results, verify};

/// Commands about jobs.
#[derive(Debug, clap::Args)]
pub(crate) struct Job {
    /// The coordinator's data directory, on this machine.
    #[arg(long, env = "DOCKERCOMP_DATA_DIR", value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Sign a job and hand it to the coordinator.
    Submit {
        /// The job file.
        file: PathBuf,
        /// The dataset that the job works on, instead of the one in the file.
        #[arg(long, value_name = "CID")]
        dataset: Option<String>,
    },
    /// List all jobs, the newest last.
    List,
    /// Say how far a job is.
    Status {
        /// The job's id, the beginning of it, or "last".
        #[arg(default_value = "last")]
        job: String,
    },
    /// Wait until a job is over, with a bar.
    Watch {
        /// The job's id, the beginning of it, or "last".
        #[arg(default_value = "last")]
        job: String,
        /// Give up after this time, for example "10min".
        #[arg(long)]
        timeout: Option<humantime::Duration>,
    },
    /// Fetch the outputs and receipts of a job, and reduce them as the job says.
    Fetch {
        /// The job's id, the beginning of it, or "last".
        #[arg(default_value = "last")]
        job: String,
        /// An empty or missing folder.
        #[arg(long)]
        into: PathBuf,
        /// What runs the reduction.
        #[arg(long, value_enum, default_value = "auto")]
        executor: ExecutorChoice,
    },
    /// List the receipts that a job has so far, each of them verified.
    Receipts {
        /// The job's id, the beginning of it, or "last".
        #[arg(default_value = "last")]
        job: String,
        /// Keep the receipts in this empty or missing folder.
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// Say where a work unit stands, and of every node why it may not have it.
    Explain {
        /// The job's id, the beginning of it, or "last".
        job: String,
        /// The work unit's number, from 0.
        unit: u64,
    },
    /// Cancel a job.
    Cancel {
        /// The job's id, the beginning of it, or "last".
        job: String,
    },
}

impl Job {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<()> {
        let client = Client::open(&data_dir(self.data_dir.as_ref(), Role::Coordinator)?)?;
        match self.verb {
            Verb::Submit { file, dataset } => {
                let submitted = job_folder::submit(&client, &file, dataset.as_deref()).await?;
                output::print(format, &submitted, |submitted| {
                    format!(
                        "job {} with {} work units\n\nwatch it with: dockercomp job watch last",
                        submitted.job, submitted.work_units
                    )
                });
            }
            Verb::List => {
                let jobs: Vec<JobInfo> = client.get("/api/v1/jobs").await?;
                output::print(format, &jobs, |jobs| table(jobs));
            }
            Verb::Status { job } => {
                let info = find(&client, &job).await?;
                output::print(format, &info, human);
            }
            Verb::Watch { job, timeout } => {
                let job = select(&client, &job).await?;
                let info = watch(&client, &job, timeout.map(Into::into)).await?;
                output::print(format, &info, human);
                succeed(&info)?;
            }
            Verb::Fetch { job, into, executor } => {
                let info = find(&client, &job).await?;
                succeed(&info)?;
                let fetched = results::fetch(&client, &info, &into, executor.into()).await?;
                output::print(format, &fetched, results::Fetched::human);
            }
            Verb::Receipts { job, into } => {
                let job = select(&client, &job).await?;
                let receipts = receipts(&client, &job, into.as_deref()).await?;
                output::print(format, &receipts, |receipts| receipt_table(receipts));
            }
            Verb::Explain { job, unit } => {
                let job = select(&client, &job).await?;
                let path = format!("/api/v1/jobs/{job}/units/{unit}/explain");
                let explained: UnitExplained = client.get(&path).await?;
                output::print(format, &explained, explain::unit);
            }
            Verb::Cancel { job } => {
                let job = select(&client, &job).await?;
                let info: JobInfo = client.post(&format!("/api/v1/jobs/{job}/cancel"), "").await?;
                output::print(format, &info, human);
            }
        }
        Ok(())
    }
}

/// The job that a person means by an id, the beginning of one, or "last", with everything
/// that is known about it.
async fn find(client: &Client, selector: &str) -> anyhow::Result<JobInfo> {
    let job = select(client, selector).await?;
    client.get(&format!("/api/v1/jobs/{job}")).await
}

async fn select(client: &Client, selector: &str) -> anyhow::Result<String> {
    let mut jobs: Vec<JobInfo> = client.get("/api/v1/jobs").await?;
    if selector == "last" {
        let last = jobs.pop().map(|job| job.job);
        return last.ok_or_else(|| Failure::new(Code::NotFound, "there is no job").into());
    }
    jobs.retain(|job| job.job.starts_with(selector));
    match (jobs.pop(), jobs.is_empty()) {
        (Some(job), true) => Ok(job.job),
        (Some(_), false) => {
            let message = format!("more than one job begins with {selector:?}");
            Err(Failure::new(Code::Usage, message).fix("give more of the id").into())
        }
        (None, _) => {
            let message = format!("no job begins with {selector:?}");
            Err(Failure::new(Code::NotFound, message).fix("dockercomp job list").into())
        }
    }
}

/// Waits until a job is over. A coordinator that is away for a while is waited for.
pub(crate) async fn watch(
    client: &Client,
    job: &str,
    timeout: Option<Duration>,
) -> anyhow::Result<JobInfo> {
    let bar = progress::count("work units");
    let path = format!("/api/v1/jobs/{job}");
    let started = tokio::time::Instant::now();
    let mut away_since = None;
    loop {
        // The coordinator may come back on another port: look its door up again.
        let answer = match Client::open(client.dir()) {
            Ok(client) => client.get::<JobInfo>(&path).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(info) => {
                away_since = None;
                bar.set_length(info.work_units);
                bar.set_position(info.stored + info.failed);
                if info.results_invalid > 0 {
                    bar.set_message(format!("work units ({} wrong results)", info.results_invalid));
                }
                if info.state != "running" {
                    bar.finish_and_clear();
                    return Ok(info);
                }
            }
            Err(error) => {
                let since = *away_since.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() > Duration::from_secs(60) {
                    return Err(error);
                }
                bar.set_message("waiting for the coordinator");
            }
        }
        if timeout.is_some_and(|timeout| started.elapsed() > timeout) {
            return Err(Failure::new(Code::TimedOut, "the job is not over yet").into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn succeed(info: &JobInfo) -> anyhow::Result<()> {
    match info.state.as_str() {
        "done" => Ok(()),
        "running" => {
            let message = format!("job {} is not over yet", info.job);
            Err(Failure::new(Code::Conflict, message).fix("dockercomp job watch").into())
        }
        state => {
            let reasons: Vec<String> = info
                .failures
                .iter()
                .take(5)
                .map(|failure| format!("work unit {}: {}", failure.unit, failure.reason))
                .collect();
            let mut message = format!("job {} is {state}", info.job);
            if !reasons.is_empty() {
                message += &format!("; {}", reasons.join("; "));
            }
            Err(Failure::new(Code::JobFailed, message).into())
        }
    }
}

/// Fetches the receipts of a job and verifies each.
async fn receipts(
    client: &Client,
    job: &str,
    into: Option<&Path>,
) -> anyhow::Result<Vec<Verified>> {
    let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
    let into = into.unwrap_or(temporary.path());
    results::make_empty(into)?;
    results::unpack(client, &format!("/api/v1/jobs/{job}/receipts"), into).await?;
    verify::loose(into, None)
}

fn receipt_table(receipts: &[Verified]) -> String {
    let rows = receipts.iter().map(|receipt| {
        vec![
            receipt.unit.to_string(),
            receipt.output.clone(),
            receipt.rule.clone(),
            receipt.agreeing.len().to_string(),
            receipt.dissenting.len().to_string(),
            receipt.leaf.to_string(),
            receipt.accepted_at.clone(),
        ]
    });
    output::table(&["UNIT", "OUTPUT", "RULE", "AGREE", "DISSENT", "LEAF", "ACCEPTED"], rows)
}

fn table(jobs: &[JobInfo]) -> String {
    let rows = jobs.iter().map(|job| {
        vec![
            job.job.clone(),
            job.name.clone(),
            job.state.clone(),
            format!("{}/{}", job.stored, job.work_units),
            job.replicas.to_string(),
            job.results_invalid.to_string(),
            job.submitted_at.clone(),
        ]
    });
    output::table(&["JOB", "NAME", "STATE", "UNITS", "REPLICAS", "WRONG", "SUBMITTED"], rows)
}

fn human(job: &JobInfo) -> String {
    let mut text = format!(
        "job        {}\nname       {}\nstate      {}\nwork units {} of {} done, {} failed, {} in \
         flight\nreplicas   {}\nresults    {} valid, {} invalid, {} \
         errors, {} without reply\n",
        job.job,
        job.name,
        job.state,
        job.stored,
        job.work_units,
        job.failed,
        job.in_flight,
        job.replicas,
        job.results_valid,
        job.results_invalid,
        job.results_error,
        job.results_no_reply,
    );
    if job.stages.len() > 1 {
        for stage in &job.stages {
            text += &format!(
                "stage      {}: {} of {} done, {} failed\n",
                stage.name, stage.stored, stage.work_units, stage.failed
            );
        }
    }
    if job.state == "running" && job.replicas_in_progress == 0 && job.waiting_for_nodes > 0 {
        text += &format!(
            "\nno node works on it: {} work units wait for a node that offers what [resources] \
             asks for and has not had them yet\n(see: dockercomp job explain JOB UNIT)\n",
            job.waiting_for_nodes
        );
    }
    for failure in &job.failures {
        text += &format!("\nwork unit {} failed: {}", failure.unit, failure.reason);
        if let Some(tail) = &failure.log_tail {
            for line in tail.lines() {
                text += &format!("\n  | {line}");
            }
        }
    }
    text
}
