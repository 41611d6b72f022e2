//! The processes: a bootstrap node, a coordinator, and a node for each host, on loopback.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dockercomp_processes::{Process, command};
use dockercomp_protocol::execution::ExecutorKind;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::LabError;
use super::work::MEMORY_MIB;
use crate::names;
use crate::scenario::Scenario;
use crate::weather::Nature;

/// How long all hosts may take to reach the coordinator.
const ARRIVAL: Duration = Duration::from_secs(120);
/// Pause between two looks whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lines of a log that are shown of a process that died.
const TAIL: usize = 20;

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
}

/// A node as the coordinator lists it; the rest of what it says is not needed.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct NodeInfo {
    pub(super) node: String,
    pub(super) invalid: u64,
}

/// All processes of a run, and what is known of them.
pub(super) struct Network<'a> {
    program: &'a Path,
    dir: &'a Path,
    scenario: &'a Scenario,
    executor: ExecutorKind,
    seed: u64,
    bootstrap: Option<Process>,
    coordinator: Option<Process>,
    join_link: String,
    nodes: BTreeMap<u32, Process>,
    /// Hosts by the id that their node has.
    hosts: BTreeMap<String, u32>,
    /// How long each start took until the node was ready.
    pub(super) startups: Vec<Duration>,
    pub(super) n_kills: u64,
}

impl<'a> Network<'a> {
    /// Nothing runs yet.
    pub(super) fn new(
        program: &'a Path,
        dir: &'a Path,
        scenario: &'a Scenario,
        executor: ExecutorKind,
        seed: u64,
    ) -> Self {
        Self {
            program,
            dir,
            scenario,
            executor,
            seed,
            bootstrap: None,
            coordinator: None,
            join_link: String::new(),
            nodes: BTreeMap::new(),
            hosts: BTreeMap::new(),
            startups: Vec::new(),
            n_kills: 0,
        }
    }

    /// Starts the bootstrap node and the coordinator.
    pub(super) async fn open(&mut self) -> Result<(), LabError> {
        let args = strings(&["bootstrap", "start", "--ip", "127.0.0.1"]);
        let process = Process::spawn(self.program, "bootstrap", self.dir, &args)?;
        let bootstrap: BootstrapReady = self.bootstrap.insert(process).ready().await?;
        let grace = self.scenario.coordinator.core.resume_grace;
        let grace = format!("{}ms", grace.as_millis());
        let mut args = strings(&["coordinator", "start", "--ip", "127.0.0.1", "--name", "lab"]);
        args.extend(strings(&["--restart-grace", &grace]));
        for address in &bootstrap.addresses {
            args.extend(strings(&["--bootstrap", address]));
        }
        let process = Process::spawn(self.program, "coordinator", self.dir, &args)?;
        let coordinator: CoordinatorReady = self.coordinator.insert(process).ready().await?;
        self.join_link = coordinator.join_link;
        Ok(())
    }

    /// Switches a host on. Its node is not waited for.
    pub(super) fn switch_on(&mut self, host: u32) -> Result<(), LabError> {
        let Some(crowd) = self.scenario.crowd_of(host) else { return Ok(()) };
        let cores = Nature::of(self.seed, host, crowd).cores;
        let (cpus, memory) = (cores.to_string(), format!("{} MiB", cores * MEMORY_MIB));
        let executor = self.executor.to_string();
        let mut args = strings(&["node", "start", &self.join_link, "--ip", "127.0.0.1"]);
        args.extend(strings(&["--executor", &executor, "--cpus", &cpus, "--memory", &memory]));
        if crowd.behaviour.may_lie() {
            args.extend(strings(&["--fault", "wrong-results"]));
        }
        if let Some(operator) = crowd.operator_of(host) {
            args.extend(strings(&["--operator", &names::operator(operator)]));
        }
        let process = Process::spawn(self.program, &called(host), self.dir, &args)?;
        self.nodes.insert(host, process);
        Ok(())
    }

    /// Learns which id the node of a host has, once it is ready.
    async fn learn(&mut self, host: u32) -> Result<(), LabError> {
        let Some(process) = self.nodes.get_mut(&host) else { return Ok(()) };
        if process.took().is_none() {
            let ready: NodeReady = process.ready().await?;
            self.startups.extend(process.took());
            self.hosts.insert(ready.peer_id, host);
        }
        Ok(())
    }

    async fn learn_all(&mut self) -> Result<(), LabError> {
        let hosts: Vec<u32> = self.nodes.keys().copied().collect();
        for host in hosts {
            self.learn(host).await?;
        }
        Ok(())
    }

    /// Waits until all hosts that are on have reached the coordinator.
    pub(super) async fn all_here(&mut self) -> Result<(), LabError> {
        self.learn_all().await?;
        let until = tokio::time::Instant::now() + ARRIVAL;
        loop {
            let (present, wanted) = (self.coordinators_nodes().await?.len(), self.nodes.len());
            if present >= wanted {
                return Ok(());
            }
            if tokio::time::Instant::now() > until {
                return Err(LabError::NotAllHere { present, wanted });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// `kill -9`, as a power cut would.
    pub(super) async fn kill(&mut self, host: u32) -> Result<(), LabError> {
        // It might have been switched on a moment ago; who it is must be known.
        self.learn(host).await?;
        if let Some(process) = self.nodes.remove(&host) {
            process.kill().await;
            self.n_kills += 1;
        }
        Ok(())
    }

    /// # Errors
    /// If a process that should run does not.
    pub(super) async fn check(&mut self) -> Result<(), LabError> {
        self.learn_all().await?;
        let services = self.bootstrap.iter_mut().chain(&mut self.coordinator);
        for process in services.chain(self.nodes.values_mut()) {
            if !process.is_running() {
                let name = process.name().to_owned();
                let log = std::fs::read_to_string(self.dir.join(format!("{name}.log")));
                let log = log.unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let log = lines[lines.len().saturating_sub(TAIL)..].join("\n");
                return Err(LabError::Died { name, log });
            }
        }
        Ok(())
    }

    pub(super) async fn coordinators_nodes(&self) -> Result<Vec<NodeInfo>, LabError> {
        self.ask(&["coordinator", "nodes"]).await
    }

    /// The host whose node has this id.
    pub(super) fn host(&self, node: &str) -> Option<u32> {
        self.hosts.get(node).copied()
    }

    /// Runs a command against the coordinator.
    pub(super) async fn ask<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T, LabError> {
        ask(self.program, &self.dir.join("coordinator"), args).await
    }

    /// Waits until a job is over, on its own: gives the coordinator's answer, however it ended.
    pub(super) fn watch(&self, job: &str) -> impl Future<Output = Result<(), LabError>> + use<> {
        let (program, dir) = (self.program.to_owned(), self.dir.join("coordinator"));
        let job = job.to_owned();
        async move {
            let mut watch = command(&program);
            watch.args(["job", "watch", &job, "--output", "json", "--data-dir"]).arg(dir);
            // A job that failed is over as well; how it ended is asked for later.
            watch.output().await?;
            Ok(())
        }
    }

    /// Stops everything, nodes first so that they can say goodbye and remove what they made.
    pub(super) async fn stop(mut self) {
        if self.executor == ExecutorKind::Docker && self.coordinator.is_some() {
            self.wake_all().await;
        }
        self.nodes.values_mut().for_each(Process::ask_to_stop);
        let services = self.coordinator.into_iter().chain(self.bootstrap);
        for process in self.nodes.into_values().chain(services) {
            let name = process.name().to_owned();
            if !process.stopped().await {
                eprintln!("{name} did not stop in time and was killed");
            }
        }
    }

    /// A node that was killed leaves its containers, and removes them when it starts again.
    async fn wake_all(&mut self) {
        let known: Vec<u32> = self.hosts.values().copied().collect();
        for host in known {
            if !self.nodes.contains_key(&host)
                && let Err(error) = self.switch_on(host)
            {
                eprintln!("{} may have left containers: {error}", called(host));
            }
        }
        if let Err(error) = self.learn_all().await {
            eprintln!("a host may have left containers: {error}");
        }
    }
}

/// Runs a command of `program` on a data directory, and reads what it says.
async fn ask<T: DeserializeOwned>(
    program: &Path,
    dir: &Path,
    args: &[&str],
) -> Result<T, LabError> {
    let named = || args.iter().take(2).copied().collect::<Vec<_>>().join(" ");
    let mut asking = command(program);
    asking.args(args).args(["--output", "json", "--data-dir"]).arg(dir);
    let output = asking.output().await?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(LabError::Command { command: named(), status: output.status, message });
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|source| LabError::Unexpected { command: named(), source })
}

/// What a host's process, directory and log are called.
fn called(host: u32) -> String {
    format!("host-{host:02}")
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// The binary to start: the one that was named, or `dockercomp` beside this program.
pub(super) fn binary(named: Option<&Path>) -> Result<PathBuf, LabError> {
    const NAME: &str = "dockercomp";
    if let Some(named) = named {
        return std::path::absolute(named).map_err(LabError::file(named));
    }
    let this = std::env::current_exe()?;
    let beside = this.with_file_name(NAME);
    if beside.is_file() { Ok(beside) } else { Err(LabError::NoBinary { beside }) }
}
