//! One replica, from its lease to its signed result.
//!
//! Straight-line work: bring inputs and program here, lay them out, run, chunk the output,
//! sign. When to do which is the agent's decision; what is durable is the desk's.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dockercomp_executor::{Executor, Finished, Labels, PrepareError, Program, Run, RunError};
use dockercomp_peer::reply::chain;
use dockercomp_peer::{Located, Peer};
use dockercomp_protocol::execution::{ExecutorKind, Exit, Usage};
use dockercomp_protocol::limits::{CHUNK_BYTES_DEFAULT, LOG_TAIL_BYTES_MAX};
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::unit::WorkUnit;
use dockercomp_protocol::{Cid, ReplicaId, content, envelope};
use dockercomp_store::{AddOptions, Kind, Want};
use tokio_util::sync::CancellationToken;

use crate::api::Board;
use crate::desk::ResultRow;
use crate::fault::{self, Fault};
use crate::jobs::Job;

/// Pause before a run is tried again after the engine failed.
const ENGINE_PAUSE: Duration = Duration::from_secs(3);

/// A replica and what it is about.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) job: Arc<Job>,
    pub(crate) unit: WorkUnit,
    pub(crate) unit_cid: Cid,
}

/// Everything that running a replica needs.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) peer: Peer,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) board: Board,
    pub(crate) faults: Arc<[Fault]>,
    pub(crate) hints: Hints,
    /// Cancelled when the node stops.
    pub(crate) stopping: CancellationToken,
}

/// Who was said to hold which dataset; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    hints: Arc<Mutex<BTreeMap<Cid, Vec<Located>>>>,
}

impl Hints {
    pub(crate) fn learn(&self, root: Cid, peers: Vec<Located>) {
        self.hints.lock().expect("no holder of this lock panics").insert(root, peers);
    }

    fn of(&self, root: &Cid) -> Vec<Located> {
        let hints = self.hints.lock().expect("no holder of this lock panics");
        hints.get(root).cloned().unwrap_or_default()
    }
}

/// Why a replica cannot start. It ends with `Exit::NotStarted` and this as its log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareFailed {
    #[error("the job has nothing that {0} can run")]
    NoProgram(ExecutorKind),
    #[error("the program or the inputs are not to be had")]
    Fetch(#[from] dockercomp_peer::FetchError),
    #[error("the program or the inputs cannot be laid out")]
    Stage(#[from] dockercomp_store::StageError),
    #[error("the program's dataset is empty")]
    EmptyProgram,
    #[error("the program cannot be loaded")]
    Load(#[from] PrepareError),
    #[error("the working directory cannot be used")]
    Io(#[from] io::Error),
}

impl Bench {
    /// Brings the inputs and the program of a replica here and makes the program ready.
    pub(crate) async fn prepare(&self, replica: &Replica) -> Result<(), PrepareFailed> {
        let root = self.program_root(replica)?;
        self.peer.fetch(root, Want::All, self.hints.of(&root), None).await?;
        if let Some(inputs) = &replica.unit.inputs {
            let want = Want::Files { first: inputs.first, count: inputs.count.into() };
            let hints = self.hints.of(&inputs.dataset);
            self.peer.fetch(inputs.dataset, want, hints, None).await?;
        }
        let program = self.program(root).await?;
        self.executor.prepare(&program).await?;
        Ok(())
    }

    /// Runs a replica whose inputs are here. Nothing if it was cancelled.
    pub(crate) async fn run(
        &self,
        replica: &Replica,
        cancel: &CancellationToken,
    ) -> Option<ResultRow> {
        let folder = self.peer.store().dir().join("work").join(replica.id.to_string());
        let ran = self.run_in(replica, &folder, cancel).await;
        remove(&folder).await;
        match ran {
            Ok(result) => result,
            Err(error) => Some(self.failed(replica, &error)),
        }
    }

    /// The result of a replica that could not even start.
    pub(crate) fn failed(&self, replica: &Replica, error: &PrepareFailed) -> ResultRow {
        let finished =
            Finished { exit: Exit::NotStarted, usage: Usage::default(), log_tail: chain(error) };
        self.seal(replica, finished, None)
    }

    async fn run_in(
        &self,
        replica: &Replica,
        folder: &Path,
        cancel: &CancellationToken,
    ) -> Result<Option<ResultRow>, PrepareFailed> {
        let program = self.program(self.program_root(replica)?).await?;
        loop {
            let run = self.lay_out(replica, folder, program.clone()).await?;
            let output = run.output.clone();
            match self.executor.run(run, cancel.clone()).await {
                Ok(finished) => {
                    self.board.trouble(None);
                    return Ok(Some(self.conclude(replica, finished, &output).await));
                }
                Err(RunError::Cancelled) => return Ok(None),
                Err(error) => {
                    // The engine's fault, not the program's: the work waits until it is back.
                    let trouble = chain(&error);
                    tracing::warn!(replica = %replica.id, trouble, "executor failed, trying again");
                    self.board.trouble(Some(trouble));
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(None),
                () = tokio::time::sleep(ENGINE_PAUSE) => {}
            }
        }
    }

    /// Makes fresh folders for one run.
    async fn lay_out(
        &self,
        replica: &Replica,
        folder: &Path,
        program: Program,
    ) -> Result<Run, PrepareFailed> {
        remove(folder).await;
        let (input, output) = (folder.join("input"), folder.join("output"));
        let (store, unit) = (self.peer.store().clone(), replica.unit.clone());
        let (into, made) = (input.clone(), output.clone());
        let staged = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&into)?;
            std::fs::create_dir_all(&made)?;
            if let Some(inputs) = &unit.inputs {
                let want = Want::Files { first: inputs.first, count: inputs.count.into() };
                store.stage(&inputs.dataset, &want, &into)?;
            }
            Ok::<_, PrepareFailed>(())
        });
        staged.await.expect("laying out does not panic")?;
        Ok(Run {
            program,
            args: replica.unit.args.clone(),
            env: BTreeMap::new(),
            input,
            output,
            limits: replica.job.spec.limits.clone(),
            labels: Labels {
                job: replica.job.cid.to_string(),
                unit: replica.unit_cid.to_string(),
                replica: replica.id.to_string(),
            },
        })
    }

    /// Chunks the output of a run that succeeded, and signs the result.
    async fn conclude(&self, replica: &Replica, finished: Finished, output: &Path) -> ResultRow {
        if !finished.exit.is_success() {
            return self.seal(replica, finished, None);
        }
        if self.faults.contains(&Fault::WrongResults)
            && let Err(error) = fault::spoil(output, &self.peer.id())
        {
            tracing::error!(%error, "output could not be spoiled");
        }
        let options = AddOptions {
            name: None,
            chunk_bytes: CHUNK_BYTES_DEFAULT,
            kind: Kind::Output,
            progress: None,
            normalise: true,
        };
        match self.peer.add(output.to_owned(), options).await {
            Ok(added) => self.seal(replica, finished, Some(added.root)),
            Err(error) => {
                let finished =
                    Finished { exit: Exit::OutputRefused, log_tail: chain(&error), ..finished };
                self.seal(replica, finished, None)
            }
        }
    }

    fn seal(&self, replica: &Replica, finished: Finished, output: Option<Cid>) -> ResultRow {
        let statement = ResultStatement {
            v: 1,
            job: replica.job.cid,
            unit: replica.unit_cid,
            replica: replica.id,
            node: self.peer.id(),
            executor: self.executor.kind(),
            exit: finished.exit,
            output,
            usage: finished.usage,
        };
        let sealed = envelope::seal(self.peer.key(), &statement);
        ResultRow { sealed, log_tail: tail(finished.log_tail), output }
    }

    fn program_root(&self, replica: &Replica) -> Result<Cid, PrepareFailed> {
        let kind = self.executor.kind();
        let program = &replica.job.spec.program;
        match kind {
            ExecutorKind::Docker => program.image,
            ExecutorKind::Wasm => program.module,
        }
        .ok_or(PrepareFailed::NoProgram(kind))
    }

    /// The program as a file on disk, laid out once.
    async fn program(&self, root: Cid) -> Result<Program, PrepareFailed> {
        let store = self.peer.store().clone();
        let laid = tokio::task::spawn_blocking(move || {
            let folder = store.dir().join("programs").join(root.to_string());
            if !folder.is_dir() {
                // A crash in the middle, or two replicas at once, leave only a temporary folder.
                let fresh = folder.with_extension(format!("{:016x}", unique()));
                std::fs::create_dir_all(&fresh)?;
                store.stage(&root, &Want::All, &fresh)?;
                if std::fs::rename(&fresh, &folder).is_err() {
                    std::fs::remove_dir_all(&fresh)?;
                }
            }
            first_file(&folder)?.ok_or(PrepareFailed::EmptyProgram)
        });
        let file = laid.await.expect("laying out does not panic")?;
        Ok(match self.executor.kind() {
            ExecutorKind::Docker => Program::Image { id: root.to_string(), archive: file },
            ExecutorKind::Wasm => Program::Module { id: root.to_string(), file },
        })
    }
}

/// The id of a work unit's description.
pub(crate) fn unit_cid(bytes: &[u8]) -> Cid {
    content::block_cid(bytes)
}

fn first_file(folder: &Path) -> io::Result<Option<PathBuf>> {
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() {
            return Ok(Some(entry.into_path()));
        }
    }
    Ok(None)
}

/// A number that no other call in this process gets.
fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};

    static NEXT: AtomicU64 = AtomicU64::new(0);
    u64::from(std::process::id()) << 32 | NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Removes what runs of an earlier life left: their folders, and programs, which are laid out
/// again when they are needed.
pub(crate) async fn clear(dir: &Path) {
    remove(&dir.join("work")).await;
    remove(&dir.join("programs")).await;
}

/// Removes a folder that may not be there.
async fn remove(folder: &Path) {
    match tokio::fs::remove_dir_all(folder).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), %error, "folder not removed");
        }
        _ => {}
    }
}

/// The end of a text, within the bound of the message that carries it.
fn tail(mut text: String) -> String {
    if text.len() > LOG_TAIL_BYTES_MAX {
        let mut start = text.len() - LOG_TAIL_BYTES_MAX;
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text.drain(..start);
    }
    text
}
