//! One replica, from its lease to its result.
//!
//! Straight-line work: bring inputs and program here, lay them out, run, chunk the output.
//! A replica that was interrupted finds its checkpoint again ([`Workplace`]).
//! Results are signed when they are reported, many at once. When to do which is the agent's decision; what is durable is the desk's.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dockercomp_executor::{Executor, Finished, Labels, PrepareError, Program, Run, RunError};
use dockercomp_peer::reply::chain;
use dockercomp_peer::{Located, Peer};
use dockercomp_protocol::execution::{ExecutorKind, Exit, Usage};
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::limits::LOG_TAIL_BYTES_MAX;
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::unit::{Inputs, WorkUnit};
use dockercomp_protocol::{Cid, ReplicaId, codec, content};
use dockercomp_store::{AddError, Want};
use futures::StreamExt as _;
use serde_bytes::ByteBuf;
use tokio::sync::OwnedRwLockReadGuard;
use tokio_util::sync::CancellationToken;

use crate::api::Board;
use crate::borrowed::Loan;
use crate::desk::ResultRow;
use crate::fault::{self, Fault};
use crate::inline;
use crate::jobs::Job;
use crate::permits;
use crate::progress::{Mark, Progress};
use crate::shelf::Shelf;
use crate::workplace::{self, Workplace};

/// Pause before something is tried again that this node had trouble with.
const PAUSE: Duration = Duration::from_secs(3);
/// Outputs of others that are fetched at one time for one replica.
const PARALLEL: usize = 8;
/// How long nobody may give anything of an output before the whole is tried again.
const FETCH_PATIENCE: Duration = Duration::from_secs(30);

/// A replica and what it is about.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) job: Arc<Job>,
    pub(crate) unit: WorkUnit,
    pub(crate) unit_cid: Cid,
    /// The coordinator's permission to have the outputs that the unit takes.
    pub(crate) permission: Vec<u8>,
    /// Keeps those outputs here.
    pub(crate) _loan: Option<Arc<Loan>>,
}

/// Everything that running a replica of one project needs.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) project: ProjectId,
    pub(crate) peer: Peer,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) board: Board,
    pub(crate) faults: Arc<[Fault]>,
    pub(crate) shelf: Shelf,
    pub(crate) progress: Progress,
    /// Cancelled when the node stops.
    pub(crate) stopping: CancellationToken,
}

/// Why an attempt at a replica did not lead to a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
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
    #[error("the program cannot be run")]
    Run(#[from] RunError),
    #[error("the output cannot be kept")]
    Output(#[from] AddError),
    #[error("the working directory cannot be used")]
    Io(#[from] io::Error),
}

impl Trouble {
    /// Whether no node could do better. Everything else is this node's or its network's
    /// trouble: it waits until that is over, and blames nobody.
    fn is_programs_fault(&self) -> bool {
        match self {
            Self::NoProgram(_) | Self::EmptyProgram => true,
            Self::Load(error) => error.is_programs_fault(),
            Self::Output(AddError::Kind { .. } | AddError::Name { .. } | AddError::Manifest(_)) => {
                true
            }
            Self::Fetch(_) | Self::Stage(_) | Self::Run(_) | Self::Output(_) | Self::Io(_) => false,
        }
    }
}

/// A replica's result. Until it is on the desk, its output must not be taken for forgotten.
pub(crate) struct Outcome {
    pub(crate) row: ResultRow,
    _output: Option<OwnedRwLockReadGuard<()>>,
}

impl Bench {
    /// Brings the inputs and the program of a replica here and makes the program ready.
    /// Nothing if it was cancelled; a result if the program is at fault.
    pub(crate) async fn prepare(
        &self,
        replica: &Replica,
        cancel: &CancellationToken,
    ) -> Option<Result<(), Outcome>> {
        loop {
            let prepared = tokio::select! {
                () = cancel.cancelled() => return None,
                prepared = self.try_prepare(replica) => prepared,
            };
            match prepared {
                Ok(()) => {
                    self.board.trouble(None);
                    return Some(Ok(()));
                }
                Err(trouble) if trouble.is_programs_fault() => {
                    return Some(Err(self.failed(replica, &trouble)));
                }
                Err(trouble) => self.wait_out(replica, &trouble, cancel).await?,
            }
        }
    }

    async fn try_prepare(&self, replica: &Replica) -> Result<(), Trouble> {
        let root = self.program_root(replica)?;
        self.peer.fetch(root, Want::All, self.hints(&root), None).await?;
        match &replica.unit.inputs {
            None => {}
            Some(Inputs::Files(range)) => {
                let want = Want::Files { first: range.first, count: range.count.into() };
                let hints = self.hints(&range.dataset);
                self.peer.fetch(range.dataset, want, hints, None).await?;
            }
            Some(Inputs::Outputs(outputs)) => {
                self.fetch_outputs(outputs, &replica.permission).await?;
            }
        }
        let program = self.program(root).await?;
        self.executor.prepare(&program).await?;
        Ok(())
    }

    fn hints(&self, root: &Cid) -> Vec<Located> {
        self.shelf.hints.of(self.project, root)
    }

    /// Fetches outputs of others from those who hold them; the coordinator holds all of them.
    async fn fetch_outputs(&self, outputs: &[Cid], permission: &[u8]) -> Result<(), Trouble> {
        let hints: Vec<_> = outputs.iter().map(|output| (*output, self.hints(output))).collect();
        let coordinator = self.peer.trusted().get(&self.project).copied();
        let holders: Vec<Located> = hints
            .iter()
            .flat_map(|(_, holders)| holders)
            .filter(|holder| Some(holder.peer) != coordinator)
            .cloned()
            .collect();
        permits::present(&self.peer, permission, &holders).await;
        let fetches = hints.into_iter().map(|(output, mut holders)| {
            let known = holders.iter().any(|holder| Some(holder.peer) == coordinator);
            let missing = coordinator.filter(|_| !known);
            holders.extend(missing.map(|peer| Located { peer, addresses: Vec::new() }));
            self.peer.fetch_output(output, holders, FETCH_PATIENCE, None)
        });
        let mut fetches = futures::stream::iter(fetches).buffer_unordered(PARALLEL);
        while let Some(fetched) = fetches.next().await {
            fetched?;
        }
        Ok(())
    }

    fn workplace(&self, replica: &Replica) -> Workplace {
        let (dir, kind) = (self.peer.store().dir(), self.executor.kind());
        Workplace::new(dir, &self.project, replica.id, kind, &replica.unit_cid)
    }

    /// Removes all that runs of a replica left. Only when it is durable that it will not be
    /// started again: its checkpoint goes as well.
    pub(crate) async fn clear_away(&self, replica: ReplicaId) {
        let folder = workplace::folder(self.peer.store().dir(), &self.project, replica);
        removing(move || workplace::remove(&folder)).await;
    }

    /// Runs a replica whose inputs are here. Nothing if it was cancelled. Its checkpoint stays:
    /// see [`Self::clear_away`].
    pub(crate) async fn run(
        &self,
        replica: &Replica,
        cancel: &CancellationToken,
    ) -> Option<Outcome> {
        let place = self.workplace(replica);
        let ended = loop {
            match self.try_run(replica, &place, cancel).await {
                Ok(outcome) => {
                    self.board.trouble(None);
                    break Some(outcome);
                }
                Err(Trouble::Run(RunError::Cancelled)) => break None,
                Err(trouble) if trouble.is_programs_fault() => {
                    break Some(self.failed(replica, &trouble));
                }
                Err(trouble) => {
                    if self.wait_out(replica, &trouble, cancel).await.is_none() {
                        break None;
                    }
                }
            }
        };
        removing(move || place.tidy()).await;
        ended
    }

    async fn try_run(
        &self,
        replica: &Replica,
        place: &Workplace,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Trouble> {
        // Nothing of it is collected until the run ends; what went before is fetched again.
        let program_root = self.program_root(replica)?;
        let mut needed = vec![(program_root, Want::All)];
        match &replica.unit.inputs {
            None => {}
            Some(Inputs::Files(range)) => {
                let want = Want::Files { first: range.first, count: range.count.into() };
                needed.push((range.dataset, want));
            }
            Some(Inputs::Outputs(outputs)) => {
                needed.extend(outputs.iter().map(|output| (*output, Want::All)));
            }
        }
        let _leases: Vec<_> = needed.iter().map(|(root, _)| self.peer.lease(root)).collect();
        let store = self.peer.store().clone();
        let looking = tokio::task::spawn_blocking(move || {
            needed.iter().all(|(root, want)| store.is_complete(root, want).unwrap_or(false))
        });
        if !looking.await.expect("looking does not panic") {
            self.try_prepare(replica).await?;
        }
        let program = self.program(program_root).await?;
        let (run, found) = self.lay_out(replica, place, program).await?;
        let output = run.output.clone();
        let _attempt = self.progress.begin(replica.id, run.checkpoint.clone(), found);
        let finished = self.executor.run(run, cancel.clone()).await?;
        self.conclude(replica, finished, &output).await
    }

    /// Says what is wrong and waits a moment. Nothing if it was cancelled meanwhile.
    async fn wait_out(
        &self,
        replica: &Replica,
        trouble: &Trouble,
        cancel: &CancellationToken,
    ) -> Option<()> {
        let text = chain(trouble);
        tracing::warn!(replica = %replica.id, trouble = text, "trouble on this node, trying again");
        self.board.trouble(Some(text));
        tokio::select! {
            () = cancel.cancelled() => None,
            () = tokio::time::sleep(PAUSE) => Some(()),
        }
    }

    /// The result of a replica whose program is at fault.
    fn failed(&self, replica: &Replica, trouble: &Trouble) -> Outcome {
        let exit = match trouble {
            Trouble::Output(_) => Exit::OutputRefused,
            _ => Exit::NotStarted,
        };
        let finished = Finished { exit, usage: Usage::default(), log_tail: chain(trouble) };
        Outcome { row: self.state(replica, finished, None, Vec::new()), _output: None }
    }

    /// Makes folders for one attempt, fresh but for the checkpoint. Says what is in that.
    async fn lay_out(
        &self,
        replica: &Replica,
        place: &Workplace,
        program: Program,
    ) -> Result<(Run, Mark), Trouble> {
        let (store, unit) = (self.peer.store().clone(), replica.unit.clone());
        let made = place.clone();
        let staged = tokio::task::spawn_blocking(move || {
            made.make()?;
            let into = made.input();
            match &unit.inputs {
                None => {}
                Some(Inputs::Files(range)) => {
                    let want = Want::Files { first: range.first, count: range.count.into() };
                    store.stage(&range.dataset, &want, &into)?;
                }
                Some(Inputs::Outputs(outputs)) => {
                    for (place, output) in outputs.iter().enumerate() {
                        let folder = into.join(format!("{place:08}"));
                        std::fs::create_dir(&folder)?;
                        store.stage(output, &Want::All, &folder)?;
                    }
                }
            }
            Ok::<_, Trouble>(Mark::of(&made.checkpoint()))
        });
        let found = staged.await.expect("laying out does not panic")?;
        let run = Run {
            program,
            args: replica.unit.args.clone(),
            env: BTreeMap::new(),
            input: place.input(),
            output: place.output(),
            checkpoint: place.checkpoint(),
            limits: replica.job.spec.limits.clone(),
            labels: Labels {
                job: replica.job.cid.to_string(),
                unit: replica.unit_cid.to_string(),
                replica: workplace::name(&self.project, replica.id),
            },
        };
        Ok((run, found))
    }

    /// Chunks the output of a run that succeeded, and states the result.
    async fn conclude(
        &self,
        replica: &Replica,
        finished: Finished,
        output: &Path,
    ) -> Result<Outcome, Trouble> {
        if !finished.exit.is_success() {
            return Ok(Outcome {
                row: self.state(replica, finished, None, Vec::new()),
                _output: None,
            });
        }
        if self.faults.contains(&Fault::WrongResults)
            && let Err(error) = fault::spoil(output, &self.peer.id())
        {
            tracing::error!(%error, "output could not be spoiled");
        }
        let guard = self.shelf.hold().await;
        let added = self.peer.add_output(output.to_owned(), self.project).await?;
        let store = self.peer.store().clone();
        let reading = tokio::task::spawn_blocking(move || inline::read(&store, &added.root));
        let blocks = reading.await.expect("reading does not panic").map_err(AddError::from)?;
        let row = self.state(replica, finished, Some(added.root), blocks);
        Ok(Outcome { row, _output: Some(guard) })
    }

    fn state(
        &self,
        replica: &Replica,
        finished: Finished,
        output: Option<Cid>,
        inline: Vec<ByteBuf>,
    ) -> ResultRow {
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
        let statement = codec::encode(&statement);
        ResultRow { statement, log_tail: tail(finished.log_tail), output, inline }
    }

    fn program_root(&self, replica: &Replica) -> Result<Cid, Trouble> {
        let kind = self.executor.kind();
        replica.job.spec.program.of(kind).ok_or(Trouble::NoProgram(kind))
    }

    /// The program on disk, laid out once. When there is a new one, those that the store has
    /// given up are given up here as well: what is laid out holds its room on the disk.
    async fn program(&self, root: Cid) -> Result<Program, Trouble> {
        let store = self.peer.store().clone();
        let kind = self.executor.kind();
        let laid = tokio::task::spawn_blocking(move || {
            let folder = store.dir().join("programs").join(root.to_string());
            let mut gone = Vec::new();
            if !folder.is_dir() {
                gone = workplace::forget_programs(store.dir(), |program| {
                    *program == root || store.is_complete(program, &Want::All).unwrap_or(true)
                });
                // A crash in the middle, or two replicas at once, leave only a temporary folder.
                let fresh = folder.with_extension(format!("{:016x}", workplace::unique()));
                std::fs::create_dir_all(&fresh)?;
                store.stage(&root, &Want::All, &fresh)?;
                if std::fs::rename(&fresh, &folder).is_err() {
                    std::fs::remove_dir_all(&fresh)?;
                }
            }
            let program = Program::laid_out(kind, root.to_string(), &folder)?;
            Ok::<_, Trouble>((program.ok_or(Trouble::EmptyProgram)?, gone))
        });
        let (program, gone) = laid.await.expect("laying out does not panic")?;
        for program in gone {
            self.executor.forget(&program).await;
        }
        Ok(program)
    }
}

/// The id of a work unit's description.
pub(crate) fn unit_cid(bytes: &[u8]) -> Cid {
    content::block_cid(bytes)
}

/// Removes something; the next start removes what could not be.
async fn removing(remove: impl FnOnce() -> io::Result<()> + Send + 'static) {
    let removed = tokio::task::spawn_blocking(remove).await;
    if let Err(error) = removed.expect("removing does not panic") {
        tracing::warn!(%error, "what a run left was not removed");
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
