//! The results of a job on the owner's disk: fetched, reduced, and checked.
//!
//! ```text
//! INTO/job                      the owner's signed words
//! INTO/head                     the signed head of the log under which the receipts are
//! INTO/units/<index>/…          what each work unit of the last level left in /output
//! INTO/receipts/<index>.receipt why that, and everything that it was made of, is canonical
//! INTO/result/…                 the only unit of the last level, or what the job's [collect]
//!                               makes of all units
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use dockercomp_coordinator::api::types::JobInfo;
use dockercomp_executor::{Choice, Labels, Program, Run};
use dockercomp_peer::reply::chain;
use dockercomp_protocol::job::JobSpec;
use dockercomp_protocol::{Cid, envelope};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cli::{get_dataset, verify};
use crate::client::Client;
use crate::failure::{Code, Failure};

/// What was fetched.
#[derive(Debug, Serialize)]
pub(crate) struct Fetched {
    /// One folder for each work unit of the last level.
    pub(crate) units: PathBuf,
    /// One receipt for each work unit.
    pub(crate) receipts: PathBuf,
    /// What the last stage or the reduction made, if that is one thing.
    pub(crate) result: Option<PathBuf>,
    /// The files of the result.
    pub(crate) files: Vec<PathBuf>,
    /// What ran the reduction.
    pub(crate) collected_with: Option<String>,
}

impl Fetched {
    pub(crate) fn human(&self) -> String {
        let mut text =
            format!("outputs   {}\nreceipts  {}\n", self.units.display(), self.receipts.display());
        if let Some(with) = &self.collected_with {
            text += &format!("reduced with {with}\n");
        }
        for file in &self.files {
            text += &format!("result    {}\n", file.display());
        }
        text
    }
}

/// Fetches all outputs and receipts of a finished job, verifies them, and reduces them as the
/// job says.
pub(crate) async fn fetch(
    client: &Client,
    job: &JobInfo,
    into: &Path,
    choice: Choice,
) -> anyhow::Result<Fetched> {
    let into = std::path::absolute(into).context("cannot find the folder")?;
    make_empty(&into)?;
    unpack(client, &format!("/api/v1/jobs/{}/results", job.job), &into).await?;
    let verified = verify(&into, None)?;
    if verified.len() as u64 != job.work_units {
        let message = format!("{} of {} work units arrived", verified.len(), job.work_units);
        return Err(Failure::new(Code::Verification, message).fix("fetch again").into());
    }

    let sealed = fs::read(into.join("job")).context("the coordinator sent no job")?;
    let spec = envelope::open::<JobSpec>(&sealed).context("the job is not right")?.statement;
    let mut fetched = Fetched {
        units: into.join("units"),
        receipts: into.join("receipts"),
        result: None,
        files: Vec::new(),
        collected_with: None,
    };
    if let Some(collect) = &spec.collect {
        let result = into.join("result");
        fs::create_dir(&result).context("cannot make the folder of the result")?;
        let with = reduce(client, &spec, &collect.args, &fetched.units, &result, choice).await?;
        fetched.files = walk(&result)?;
        fetched.result = Some(result);
        fetched.collected_with = Some(with);
    } else if let (false, Some(unit)) = (spec.stages.is_empty(), only_result(&spec)) {
        let result = into.join("result");
        copy(&fetched.units.join(format!("{unit:08}")), &result)?;
        fetched.files = walk(&result)?;
        fetched.result = Some(result);
    }
    Ok(fetched)
}

/// The work unit whose output is the whole result, if there is one.
fn only_result(spec: &JobSpec) -> Option<u64> {
    let results = spec.layout().results();
    (results.end - results.start == 1).then_some(results.start)
}

/// Copies the files below a folder, so that a result can be changed and the unit still verified.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for file in walk(from)? {
        let into = to.join(file.strip_prefix(from).context("a file lies outside its folder")?);
        let parent = into.parent().context("a file lies in no folder")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::copy(&file, &into).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

/// Makes a folder that must not have anything in it yet.
pub(crate) fn make_empty(folder: &Path) -> anyhow::Result<()> {
    if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let message = format!("{} is not empty", folder.display());
        return Err(Failure::new(Code::Conflict, message).fix("name another folder").into());
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Reads an archive to its end and unpacks it, never outside `into`.
pub(crate) async fn unpack(client: &Client, path: &str, into: &Path) -> anyhow::Result<()> {
    let mut stream = client.stream(path).await?;
    let archive = tempfile::NamedTempFile::new_in(into).context("cannot make a file")?;
    let mut file = tokio::fs::File::from_std(archive.reopen()?);
    let copied = tokio::io::copy(&mut stream, &mut file).await;
    copied.context("the coordinator went away while it sent the results")?;
    let into = into.to_owned();
    tokio::task::spawn_blocking(move || {
        tar::Archive::new(archive.reopen()?).unpack(&into)?;
        archive.close()
    })
    .await
    .context("unpacking was interrupted")?
    .context("cannot unpack the results")
}

/// Runs the job's program on all outputs, in the sandbox.
async fn reduce(
    client: &Client,
    spec: &JobSpec,
    args: &[String],
    units: &Path,
    result: &Path,
    choice: Choice,
) -> anyhow::Result<String> {
    let options = executor_options();
    let chosen = dockercomp_executor::choose(choice, &options).await.map_err(|error| {
        Failure::new(Code::Docker, chain(&error)).fix("start the engine, or use --executor wasm")
    })?;
    let chosen = match (chosen.executor.kind(), spec.program.image, spec.program.module) {
        // The job decides what can run at all.
        (dockercomp_protocol::execution::ExecutorKind::Docker, None, Some(_))
            if choice == Choice::Auto =>
        {
            dockercomp_executor::choose(Choice::Wasm, &options).await?
        }
        _ => chosen,
    };
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let program = program(client, spec, chosen.executor.kind(), folder.path()).await?;
    let executor = chosen.executor;
    let ran = async {
        executor.prepare(&program).await.context("the program cannot be loaded")?;
        // Always empty: a reduction that is interrupted begins again.
        let checkpoint = folder.path().join("checkpoint");
        std::fs::create_dir(&checkpoint).context("cannot make a temporary folder")?;
        let run = Run {
            program: program.clone(),
            args: args.to_vec(),
            env: BTreeMap::new(),
            input: units.to_owned(),
            output: result.to_owned(),
            checkpoint,
            limits: spec.limits.clone(),
            labels: Labels { job: "collect".into(), unit: "collect".into(), replica: "0".into() },
        };
        executor.run(run, CancellationToken::new()).await.context("the reduction did not run")
    };
    let finished = tokio::select! {
        finished = ran => finished,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Code::Interrupted, "interrupted").into()),
    };
    let cleaned = executor.cleanup().await;
    let finished = finished?;
    cleaned.context("cannot clean up after the reduction")?;
    if !finished.exit.is_success() {
        let message = format!("the reduction failed: {}\n{}", finished.exit, finished.log_tail);
        return Err(Failure::new(Code::JobFailed, message).into());
    }
    Ok(executor.version().to_owned())
}

/// Removes what a reduction that was cut off left in the engine.
pub(crate) async fn clean_up() {
    if let Ok(chosen) = dockercomp_executor::choose(Choice::Docker, &executor_options()).await
        && let Err(error) = chosen.executor.cleanup().await
    {
        tracing::warn!(error = chain(&error), "not everything was removed from the engine");
    }
}

/// The name under which this process's reductions are known to the engine.
fn executor_options() -> dockercomp_executor::Options {
    dockercomp_executor::Options {
        node: format!("fetch-{}", std::process::id()),
        ..dockercomp_executor::Options::default()
    }
}

/// Brings the job's program here, as the executor needs it.
async fn program(
    client: &Client,
    spec: &JobSpec,
    kind: dockercomp_protocol::execution::ExecutorKind,
    folder: &Path,
) -> anyhow::Result<Program> {
    use dockercomp_protocol::execution::ExecutorKind;

    let cid = match kind {
        ExecutorKind::Docker => spec.program.image,
        ExecutorKind::Wasm => spec.program.module,
    };
    let cid: Cid = cid.ok_or_else(|| {
        Failure::new(Code::Usage, format!("the job has nothing that {kind} can run"))
            .fix("choose the other one with --executor")
    })?;
    let into = folder.join("program");
    get_dataset(client, cid.to_string(), Some(into.clone())).await?;
    let program = Program::laid_out(kind, cid.to_string(), &into)?;
    program.context("the program's dataset is empty")
}

/// All files below a folder, sorted.
pub(crate) fn walk(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if entry.file_type().is_file() {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}
