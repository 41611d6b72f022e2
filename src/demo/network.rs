//! The network of the demo: bootstrap, coordinator and nodes as processes on loopback.

use std::path::{Path, PathBuf};

use anyhow::Context;
use dockercomp_processes::{Process, StartError};
use serde::Deserialize;

use crate::cli::ExecutorChoice;
use crate::client::Client;
use crate::failure::{Code, Failure};

/// All processes of the demo.
pub(super) struct Network {
    processes: Vec<Process>,
    coordinator_dir: PathBuf,
    /// The nodes, in the order in which they were started.
    pub(super) nodes: Vec<DemoNode>,
}

/// One node of the demo.
pub(super) struct DemoNode {
    pub(super) name: String,
    pub(super) peer_id: String,
    pub(super) saboteur: bool,
    pub(super) executor: String,
    pub(super) executor_reason: String,
}

#[derive(Deserialize)]
struct BootstrapReady {
    addresses: Vec<String>,
}

#[derive(Deserialize)]
struct CoordinatorReady {
    join_link: String,
}

#[derive(Deserialize)]
struct NodeReady {
    peer_id: String,
    executor: String,
    executor_reason: String,
}

impl Network {
    /// Nothing runs yet.
    pub(super) fn new(dir: &Path) -> Self {
        Self { processes: Vec::new(), coordinator_dir: dir.join("coordinator"), nodes: Vec::new() }
    }

    /// Starts everything. What was started before an error is stopped by [`Self::stop`].
    pub(super) async fn start(
        &mut self,
        dir: &Path,
        nodes: usize,
        saboteurs: usize,
        executor: ExecutorChoice,
    ) -> anyhow::Result<()> {
        let bootstrap: BootstrapReady =
            self.add("bootstrap", dir, ["bootstrap", "start", "--ip", "127.0.0.1"]).await?;
        let mut args = vec!["coordinator", "start", "--ip", "127.0.0.1", "--name", "demo"];
        for address in &bootstrap.addresses {
            args.extend(["--bootstrap", address]);
        }
        let coordinator: CoordinatorReady = self.add("coordinator", dir, args).await?;
        let executor = match executor {
            ExecutorChoice::Auto => "auto",
            ExecutorChoice::Docker => "docker",
            ExecutorChoice::Wasm => "wasm",
        };
        for index in 1..=nodes {
            let name = format!("node-{index}");
            // The last ones misbehave, so that honest nodes are at work already.
            let saboteur = index > nodes - saboteurs;
            let mut args = vec!["node", "start", &coordinator.join_link, "--ip", "127.0.0.1"];
            args.extend(["--executor", executor, "--cpus", "1", "--memory", "512MiB"]);
            if saboteur {
                args.extend(["--fault", "wrong-results"]);
            }
            let ready: NodeReady = self.add(&name, dir, args).await?;
            self.nodes.push(DemoNode {
                name,
                peer_id: ready.peer_id,
                saboteur,
                executor: ready.executor,
                executor_reason: ready.executor_reason,
            });
        }
        Ok(())
    }

    async fn add<T: serde::de::DeserializeOwned>(
        &mut self,
        name: &str,
        dir: &Path,
        args: impl IntoIterator<Item = &str>,
    ) -> anyhow::Result<T> {
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let program = std::env::current_exe().context("cannot find this program")?;
        self.processes.push(Process::spawn(&program, name, dir, &args)?);
        let process = self.processes.last_mut().context("the process that was just started")?;
        process.ready().await.map_err(start_failed)
    }

    /// The coordinator's control door.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Client::open(&self.coordinator_dir)
    }

    /// What people call the node with this id.
    pub(super) fn node(&self, peer_id: &str) -> Option<&DemoNode> {
        self.nodes.iter().find(|node| node.peer_id == peer_id)
    }

    /// Stops everything, nodes first so that they can say goodbye and remove what they made.
    pub(super) async fn stop(&mut self) {
        for process in self.processes.iter_mut().skip(2) {
            process.ask_to_stop();
        }
        while let Some(process) = self.processes.pop() {
            let name = process.name().to_owned();
            if !process.stopped().await {
                tracing::warn!(process = name, "process did not stop in time and is killed");
            }
        }
    }
}

/// With the exit code and the advice that the process itself gave.
fn start_failed(error: StartError) -> anyhow::Error {
    let (code, advice) = match &error {
        StartError::Ended { code: Some(11), fix, .. } => (Code::Docker, fix.clone()),
        StartError::Ended { code: Some(5), fix, .. } => (Code::Conflict, fix.clone()),
        StartError::Ended { fix, .. } => (Code::Other, fix.clone()),
        StartError::TimedOut { .. } => (Code::TimedOut, None),
        _ => return error.into(),
    };
    let mut failure = Failure::new(code, error.to_string());
    failure.fix = advice;
    failure.into()
}
