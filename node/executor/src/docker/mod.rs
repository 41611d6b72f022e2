//! The Docker executor: images run as containers of the local engine, through bollard.
//!
//! - [`policy`]: the sandbox, one pure function from a run to a container's configuration;
//! - [`archive`]: what an image holds, checked before an engine sees it; [`archive::parts`]: an
//!   image as a folder of its parts, which is how it travels;
//! - [`pack`]: an image from nothing but a static binary;
//! - [`save`]: an image of the engine as parts;
//! - `images`: images in the engine, loaded under tags of our own;
//! - `run`: the life of one container; `usage`: what it used; `connect`: reaching the engine.
//!
//! # Crash behaviour
//!
//! Containers and tags carry the node's name. After a crash of the node its containers may still
//! run; [`Executor::cleanup`] at the next start removes them. While the node lives, no container
//! outlives its run: cancelling a run or dropping its future kills and removes it.
//!
//! # What it does not do
//!
//! - No engine that maps user ids (rootless, userns-remap): the container could not write the
//!   output directory. Such an engine is refused with a remedy.
//! - No check of container tags at a registry: images come as datasets.

pub mod archive;
mod connect;
mod hashing;
mod images;
pub mod pack;
pub mod policy;
mod run;
pub mod save;
mod tarball;
mod usage;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::query_parameters::{ListContainersOptions, RemoveContainerOptions};
use dockercomp_protocol::execution::{ExecutorKind, Exit, Usage};
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use connect::ConnectError;
use images::Images;
use policy::Host;

use crate::error::{CleanupError, PrepareError, RunError, chain};
use crate::tail::escape;
use crate::work::{Finished, Program, Removed, Run};
use crate::{Executor, Options};

/// Runs images through a Docker engine. See the module documentation.
#[derive(Debug)]
pub struct DockerExecutor {
    engine: Arc<Engine>,
    version: String,
    /// Runs, also those whose futures were dropped.
    tasks: TaskTracker,
    /// Stops all runs; renewed by each cleanup.
    stop: Mutex<CancellationToken>,
}

/// What a run needs of the engine.
#[derive(Debug)]
struct Engine {
    docker: Docker,
    host: Host,
    images: Images,
    /// The node's id, as labels say it.
    node: String,
    /// The node's id, short and fit for names.
    short: String,
}

impl DockerExecutor {
    /// Connects to an engine and checks that it can be used.
    ///
    /// # Errors
    ///
    /// When none answers or it is of a kind that is not supported; see [`ConnectError::remedy`].
    pub async fn connect(options: &Options) -> Result<Self, ConnectError> {
        let connected = connect::connect(options.docker_host.as_deref()).await?;
        let short = short_name(&options.node);
        let images = Images::new(connected.docker.clone(), format!("dockercomp-{short}"));
        Ok(Self {
            engine: Arc::new(Engine {
                docker: connected.docker,
                host: connected.host,
                images,
                node: options.node.clone(),
                short,
            }),
            version: connected.version,
            tasks: TaskTracker::new(),
            stop: Mutex::default(),
        })
    }

    fn stop_token(&self) -> CancellationToken {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Executor for DockerExecutor {
    fn kind(&self) -> ExecutorKind {
        ExecutorKind::Docker
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn prepare<'a>(&'a self, program: &'a Program) -> BoxFuture<'a, Result<(), PrepareError>> {
        Box::pin(async move { self.engine.prepare(program).await.map(drop) })
    }

    fn run(
        &self,
        run: Run,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<Finished, RunError>> {
        Box::pin(async move {
            // The run is a task of its own, so that no request to the engine is cut in half when
            // this future is dropped: the task is told, and still removes its container.
            let dropped = CancellationToken::new();
            let _guard = dropped.clone().drop_guard();
            let stopped = self.stop_token();
            let engine = Arc::clone(&self.engine);
            let task = self.tasks.spawn(async move {
                let cancelled = async {
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = dropped.cancelled() => {}
                        () = stopped.cancelled() => {}
                    }
                };
                engine.run(run, cancelled).await
            });
            task.await.map_err(|_| RunError::Interrupted)?
        })
    }

    fn forget<'a>(&'a self, program: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.engine.images.forget(program))
    }

    fn cleanup(&self) -> BoxFuture<'_, Result<Removed, CleanupError>> {
        Box::pin(async move {
            let stop = {
                let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *stop)
            };
            stop.cancel();
            self.tasks.close();
            self.tasks.wait().await;
            self.tasks.reopen();

            let containers = self.engine.remove_containers().await?;
            let images = self.engine.images.cleanup().await?;
            Ok(Removed { containers, images })
        })
    }
}

impl Engine {
    async fn prepare(&self, program: &Program) -> Result<String, PrepareError> {
        match program {
            Program::Image { id, archive } => self.images.prepare(id, archive).await,
            Program::Module { id, .. } => {
                Err(PrepareError::WrongExecutor { id: id.clone(), executor: ExecutorKind::Docker })
            }
        }
    }

    async fn run(
        &self,
        run: Run,
        cancelled: impl Future<Output = ()>,
    ) -> Result<Finished, RunError> {
        let mut cancelled = std::pin::pin!(cancelled);
        let prepared = tokio::select! {
            biased;
            () = &mut cancelled => return Err(RunError::Cancelled),
            prepared = self.prepare(&run.program) => prepared,
        };
        let image = match prepared {
            Ok(image) => image,
            Err(error) if error.is_programs_fault() => return Ok(not_started(&chain(&error))),
            Err(error) => return Err(RunError::Prepare(error)),
        };
        run::run(self, &image, &run, cancelled).await
    }

    async fn remove_containers(&self) -> Result<usize, CleanupError> {
        let label = format!("{}={}", policy::LABEL_NODE, self.node);
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
            ..ListContainersOptions::default()
        };
        let containers = self
            .docker
            .list_containers(Some(options))
            .await
            .map_err(|source| CleanupError::Engine { action: "list containers", source })?;
        let mut removed = 0;
        for id in containers.into_iter().filter_map(|container| container.id) {
            self.remove_container(&id)
                .await
                .map_err(|source| CleanupError::Engine { action: "remove a container", source })?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Kills and removes a container, and returns when it is gone.
    ///
    /// An engine under load refuses at first: it is about to note that the container has ended,
    /// is removing it already, or still has its files open.
    async fn remove_container(&self, name: &str) -> Result<(), EngineError> {
        let mut tries = REMOVE_TRIES;
        loop {
            let options = RemoveContainerOptions { force: true, v: true, link: false };
            tries -= 1;
            match self.docker.remove_container(name, Some(options)).await {
                Err(error) if is_not_found(&error) => return Ok(()),
                Err(error) if tries > 0 && status(&error).is_some() => {
                    tracing::debug!(container = name, %error, "container is not removed yet");
                    tokio::time::sleep(REMOVE_INTERVAL).await;
                }
                result => return result,
            }
        }
    }
}

/// The end of a program that never started.
fn not_started(reason: &str) -> Finished {
    Finished { exit: Exit::NotStarted, usage: Usage::default(), log_tail: escape(reason) }
}

/// A name for this node that is short, lower-case and different for every node: peer ids begin
/// alike and tell upper from lower case.
fn short_name(node: &str) -> String {
    let mut name = hex::encode(Sha256::digest(node));
    name.truncate(12);
    name
}

fn status(error: &EngineError) -> Option<u16> {
    match error {
        EngineError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn is_not_found(error: &EngineError) -> bool {
    status(error) == Some(404)
}

fn is_conflict(error: &EngineError) -> bool {
    status(error) == Some(409)
}

/// How often the removal of a container is tried.
const REMOVE_TRIES: u32 = 50;
/// Time between two tries.
const REMOVE_INTERVAL: Duration = Duration::from_millis(200);
