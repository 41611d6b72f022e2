//! Comparing outputs whose bytes differ, for jobs that ask for more than equality.
//!
//! The outputs are brought here from the nodes that computed them, laid out side by side, and
//! compared: number by number within the owner's tolerance, or by the owner's own program in
//! the sandbox. The core is told the classes. Nothing of this is shown to anybody else.
//!
//! # The owner's program
//!
//! It is the job's program with the arguments of the comparison. It finds the two outputs in
//! `/input/a` and `/input/b` and says with its exit code: 0, they are the same; 1, they are
//! not. Anything else is an error of the program; the two then count as different.
//!
//! # What is not here
//!
//! - Outputs that lost stay in the store: another work unit may have the same one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use dockercomp_compare::{Class, CompareError, Tolerance, ToleranceError};
use dockercomp_coordinator_core::{Core, Event, UnitView};
use dockercomp_executor::{Choice, ChooseError, Executor, Labels, Program, Run};
use dockercomp_peer::reply::chain;
use dockercomp_protocol::execution::{ExecutorKind, Exit};
use dockercomp_protocol::job::Comparison;
use dockercomp_protocol::{Cid, NodeId, ReplicaId};
use dockercomp_store::{StageError, Store, Want};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::decider::Answer;
use crate::jobs::Job;
use crate::outputs::Effects;

/// How often an output is asked for before it counts as unreadable.
const TRIES: u32 = 5;
/// How long nodes may give nothing.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pause between two tries; after a comparison that could not be made, the first one.
const RETRY: Duration = Duration::from_secs(2);
/// Longest pause after a comparison that could not be made.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Why outputs were not compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the job is not known")]
    UnknownJob,
    #[error("cannot make a folder for the outputs")]
    Folder(#[source] std::io::Error),
    #[error("an output cannot be laid out")]
    Export(#[from] StageError),
    #[error("the job's tolerance makes no sense")]
    Tolerance(#[from] ToleranceError),
    #[error(transparent)]
    Compare(#[from] CompareError),
    #[error("nothing can run the job's program here")]
    Choose(#[from] ChooseError),
    #[error("the job has nothing that {0} can run")]
    NoProgram(ExecutorKind),
    #[error("the job's program cannot be loaded")]
    Prepare(#[from] dockercomp_executor::PrepareError),
    #[error("the job's program did not run")]
    Run(#[from] dockercomp_executor::RunError),
}

impl Effects {
    /// Compares the outputs of a work unit and tells the core. What hinders that is not the
    /// nodes' fault: it is tried again until it is done or the work unit is over.
    pub(crate) async fn compare(
        &self,
        job: Cid,
        index: u64,
        outputs: Vec<(ReplicaId, NodeId, Cid)>,
        permits: &Semaphore,
        shutdown: &CancellationToken,
    ) {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(RETRY)
            .with_max_delay(RETRY_MAX)
            .with_jitter()
            .without_max_times();
        for pause in pauses.build() {
            let is_wanted = move |core: &Core| {
                matches!(core.explain_unit(job, index), Some(UnitView::Open { .. }))
            };
            if !self.decider.look(is_wanted).await.unwrap_or(false) {
                return;
            }
            let classes = {
                let Ok(_permit) = permits.acquire().await else { return };
                self.classes(job, &outputs, shutdown).await
            };
            match classes {
                Ok(classes) => {
                    let asked = outputs.iter().map(|&(replica, ..)| replica).collect();
                    let compared = Event::Compared { job, index, asked, classes };
                    // The decider is gone only while the process stops; then it asks again.
                    if !matches!(self.decider.tell(compared).await, Ok(Answer::NoRoom)) {
                        return;
                    }
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(%job, index, error, "outputs not compared yet");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn classes(
        &self,
        job: Cid,
        outputs: &[(ReplicaId, NodeId, Cid)],
        shutdown: &CancellationToken,
    ) -> Result<Vec<Vec<ReplicaId>>, Error> {
        let job = self.jobs.get(&job).ok_or(Error::UnknownJob)?;
        let mut holders: BTreeMap<Cid, Vec<NodeId>> = BTreeMap::new();
        for &(_, node, output) in outputs {
            holders.entry(output).or_default().push(node);
        }
        let folder = tempfile::tempdir().map_err(Error::Folder)?;
        let mut roots = Vec::new();
        let mut folders = Vec::new();
        // In the order of their leases, so that the first stands for its class.
        for &(.., output) in outputs {
            if roots.contains(&output) || !self.bring(output, &holders[&output]).await {
                continue;
            }
            let into = folder.path().join(roots.len().to_string());
            export(self.peer.store().clone(), output, into.clone()).await?;
            roots.push(output);
            folders.push(into);
        }
        let classes = match &job.spec.validation.comparison {
            Comparison::Identical => (0..roots.len())
                .map(|index| Class { centre: index, members: vec![index] })
                .collect(),
            Comparison::Numeric(tolerance) => {
                let (relative, absolute) = (tolerance.relative, tolerance.absolute);
                numeric(folders, Tolerance::new(relative.to_f64(), absolute.to_f64())?).await?
            }
            Comparison::Checker { args } => {
                // One at a time: whoever is done removes what it had in the engine.
                let _alone = self.checking.lock().await;
                let mut checker = Checker::new(self, &job, args, folder.path()).await?;
                let classes = checker.classes(&folders, shutdown).await;
                checker.clean_up().await;
                classes?
            }
        };
        let replicas = |class: Class| {
            let is_in = |output: &Cid| class.members.iter().any(|&member| roots[member] == *output);
            let members = outputs.iter().filter(|(.., output)| is_in(output));
            members.map(|&(replica, ..)| replica).collect()
        };
        Ok(classes.into_iter().map(replicas).collect())
    }

    /// Brings an output here. Says whether it is here.
    async fn bring(&self, output: Cid, holders: &[NodeId]) -> bool {
        for attempt in 1..=TRIES {
            match self.peer.fetch_output(output, self.locate(holders), PATIENCE, None).await {
                Ok(()) => return true,
                Err(error) => {
                    tracing::warn!(%output, attempt, error = chain(&error), "output not fetched");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
        false
    }
}

async fn export(store: Store, root: Cid, into: PathBuf) -> Result<(), Error> {
    let exported = tokio::task::spawn_blocking(move || {
        std::fs::create_dir(&into).map_err(Error::Folder)?;
        Ok(store.export(&root, &[Want::All], &into)?)
    });
    exported.await.expect("exporting does not panic")
}

async fn numeric(folders: Vec<PathBuf>, tolerance: Tolerance) -> Result<Vec<Class>, CompareError> {
    let compared = tokio::task::spawn_blocking(move || {
        let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        dockercomp_compare::classes(&folders, &tolerance)
    });
    compared.await.expect("comparing does not panic")
}

/// The owner's program, ready to run.
struct Checker<'a> {
    executor: Arc<dyn Executor>,
    program: Program,
    job: &'a Job,
    args: &'a [String],
    folder: &'a Path,
    n_runs: u32,
}

impl<'a> Checker<'a> {
    async fn new(
        effects: &Effects,
        job: &'a Job,
        args: &'a [String],
        folder: &'a Path,
    ) -> Result<Self, Error> {
        let program = &job.spec.program;
        // A module needs nothing but this process.
        let choice = if program.module.is_some() { Choice::Wasm } else { Choice::Docker };
        let options = dockercomp_executor::Options {
            node: format!("compare-{}", effects.peer.id()),
            ..dockercomp_executor::Options::default()
        };
        let executor = dockercomp_executor::choose(choice, &options).await?.executor;
        let kind = executor.kind();
        let root = match kind {
            ExecutorKind::Docker => program.image,
            ExecutorKind::Wasm => program.module,
        };
        let root = root.ok_or(Error::NoProgram(kind))?;
        let into = folder.join("program");
        export(effects.peer.store().clone(), root, into.clone()).await?;
        let program = Program::laid_out(kind, root.to_string(), &into).map_err(Error::Folder)?;
        let program = program.ok_or(Error::NoProgram(kind))?;
        executor.prepare(&program).await?;
        Ok(Self { executor, program, job, args, folder, n_runs: 0 })
    }

    /// Groups the outputs by what the program says of each pair.
    async fn classes(
        &mut self,
        folders: &[PathBuf],
        shutdown: &CancellationToken,
    ) -> Result<Vec<Class>, Error> {
        let mut matches = vec![vec![false; folders.len()]; folders.len()];
        for (first, a) in folders.iter().enumerate() {
            matches[first][first] = true;
            for (second, b) in folders.iter().enumerate().skip(first + 1) {
                let same = self.is_same(a, b, shutdown).await?;
                matches[first][second] = same;
                matches[second][first] = same;
            }
        }
        Ok(dockercomp_compare::group(&matches))
    }

    async fn is_same(
        &mut self,
        a: &Path,
        b: &Path,
        shutdown: &CancellationToken,
    ) -> Result<bool, Error> {
        self.n_runs += 1;
        let place = self.folder.join(format!("run-{}", self.n_runs));
        let [input, output, checkpoint] =
            ["input", "output", "checkpoint"].map(|name| place.join(name));
        let lay_out = || {
            std::fs::create_dir_all(&input)?;
            std::fs::create_dir(&output)?;
            // Always empty: a comparison that is interrupted begins again.
            std::fs::create_dir(&checkpoint)?;
            std::fs::rename(a, input.join("a"))?;
            std::fs::rename(b, input.join("b"))
        };
        lay_out().map_err(Error::Folder)?;
        let run = Run {
            program: self.program.clone(),
            args: self.args.to_vec(),
            env: BTreeMap::new(),
            input: input.clone(),
            output,
            checkpoint,
            limits: self.job.spec.limits.clone(),
            labels: Labels {
                job: self.job.cid.to_string(),
                unit: "compare".into(),
                replica: self.n_runs.to_string(),
            },
        };
        let finished = self.executor.run(run, shutdown.clone()).await;
        let put_back = || {
            std::fs::rename(input.join("a"), a)?;
            std::fs::rename(input.join("b"), b)
        };
        put_back().map_err(Error::Folder)?;
        let finished = finished?;
        match finished.exit {
            Exit::Code { code: 0 } => Ok(true),
            Exit::Code { code: 1 } => Ok(false),
            exit => {
                let (job, tail) = (self.job.cid, finished.log_tail);
                tracing::warn!(%job, %exit, tail, "the owner's comparison failed");
                Ok(false)
            }
        }
    }

    async fn clean_up(&self) {
        if let Err(error) = self.executor.cleanup().await {
            tracing::warn!(error = chain(&error), "not everything was removed from the engine");
        }
    }
}
