//! The processes: a bootstrap node, a coordinator, and a node for each host, on loopback.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dockercomp_processes::{Process, command};
use dockercomp_protocol::execution::ExecutorKind;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::process::Command;

use super::error::LabError;
use super::namespaces::Namespaces;
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
    binary: &'a Path,
    /// Where groups of hosts can be cut off; without it everything is on loopback.
    namespaces: Option<Namespaces>,
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
        binary: &'a Path,
        dir: &'a Path,
        scenario: &'a Scenario,
        executor: ExecutorKind,
        seed: u64,
    ) -> Self {
        Self {
            binary,
            namespaces: None,
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

    /// Makes namespaces if groups of hosts will be cut off.
    pub(super) async fn separate(&mut self) -> Result<(), LabError> {
        self.namespaces = Some(Namespaces::make(self.scenario.crowds.len()).await?);
        Ok(())
    }

    /// Cuts a group off, or mends its link.
    pub(super) async fn set_link(&self, group: usize, is_up: bool) -> Result<(), LabError> {
        match &self.namespaces {
            Some(namespaces) => namespaces.set_link(group, is_up).await,
            None => Ok(()),
        }
    }

    /// Starts a process with the coordinator, or in a group's place.
    fn spawn(
        &self,
        group: Option<usize>,
        name: &str,
        args: Vec<String>,
    ) -> Result<Process, LabError> {
        let mut entering = self.enter(group);
        let program = PathBuf::from(entering.remove(0));
        entering.extend(args);
        Ok(Process::spawn(&program, name, self.dir, &entering)?)
    }

    /// The program and the first arguments that run the binary there.
    fn enter(&self, group: Option<usize>) -> Vec<String> {
        match &self.namespaces {
            Some(namespaces) => namespaces.enter(group, self.binary),
            None => vec![self.binary.display().to_string()],
        }
    }

    /// Where processes listen: with the coordinator, or in a group's place.
    fn address(&self, group: Option<usize>) -> String {
        match (&self.namespaces, group) {
            (None, _) => "127.0.0.1".to_owned(),
            (Some(_), None) => Namespaces::HUB.to_owned(),
            (Some(_), Some(group)) => Namespaces::address(group),
        }
    }

    /// Starts the bootstrap node and the coordinator.
    pub(super) async fn open(&mut self) -> Result<(), LabError> {
        let address = self.address(None);
        let args = strings(&["bootstrap", "start", "--ip", &address]);
        let process = self.spawn(None, "bootstrap", args)?;
        let bootstrap: BootstrapReady = self.bootstrap.insert(process).ready().await?;
        let plan = &self.scenario.coordinator;
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        let (grace, lost_after) = (ms(plan.core.resume_grace), ms(plan.outputs_lost_after));
        let mut args = strings(&["coordinator", "start", "--ip", &address, "--name", "lab"]);
        args.extend(strings(&["--restart-grace", &grace, "--outputs-lost-after", &lost_after]));
        for address in &bootstrap.addresses {
            args.extend(strings(&["--bootstrap", address]));
        }
        let process = self.spawn(None, "coordinator", args)?;
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
        let group = self.scenario.group_of(host);
        let mut args = strings(&["node", "start", &self.join_link, "--ip", &self.address(group)]);
        args.extend(strings(&["--executor", &executor, "--cpus", &cpus, "--memory", &memory]));
        if crowd.behaviour.may_lie() {
            args.extend(strings(&["--fault", "wrong-results"]));
        }
        if let Some(operator) = crowd.operator_of(host) {
            args.extend(strings(&["--operator", &names::operator(operator)]));
        }
        let process = self.spawn(group, &called(host), args)?;
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
        let named = || args.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        let output = self.commanded(args).output().await?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(LabError::Command { command: named(), status: output.status, message });
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|source| LabError::Unexpected { command: named(), source })
    }

    /// Waits until a job is over, on its own: gives the coordinator's answer, however it ended.
    pub(super) fn watch(&self, job: &str) -> impl Future<Output = Result<(), LabError>> + use<> {
        let mut watch = self.commanded(&["job", "watch", job]);
        async move {
            // A job that failed is over as well; how it ended is asked for later.
            watch.output().await?;
            Ok(())
        }
    }

    /// A command against the coordinator.
    fn commanded(&self, args: &[&str]) -> Command {
        let entering = self.enter(None);
        let (program, first) = entering.split_first().expect("a program is named");
        let mut asking = command(Path::new(program));
        asking.args(first).args(args).args(["--output", "json", "--data-dir"]);
        asking.arg(self.dir.join("coordinator"));
        asking
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
        if let Some(namespaces) = self.namespaces {
            namespaces.remove().await;
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
