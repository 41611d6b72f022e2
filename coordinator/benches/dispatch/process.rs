//! Processes that are measured: the real binary's, and what the kernel says about them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use dockercomp_peer::control::Door;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a process may take until it is ready, and until it has stopped.
const PATIENCE: Duration = Duration::from_secs(120);
/// Ticks of `/proc/<pid>/stat` in a second: `USER_HZ`, the same on every Linux that we know.
const TICKS: f64 = 100.0;

/// A running process; it is ended when this is dropped.
pub(crate) struct Process {
    child: Child,
    pid: u32,
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// CPU time of all its threads, in seconds.
    pub(crate) cpu: f64,
    /// The most memory that was resident, in bytes (`VmHWM`).
    pub(crate) peak: u64,
    /// The memory that is resident, in bytes (`VmRSS`).
    pub(crate) resident: u64,
}

impl Process {
    /// Starts a program whose first line says that it is ready, and gives that line.
    pub(crate) async fn start(program: &Path, args: &[&str]) -> anyhow::Result<(Self, String)> {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let pid = child.id().context("it runs")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await??;
        let line = line.with_context(|| format!("{} {args:?} is not ready", program.display()))?;
        Ok((Self { child, pid }, line))
    }

    /// What it has used so far.
    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let (_, fields) = stat.rsplit_once(") ").context("a line of /proc/<pid>/stat")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<f64>();
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let kib = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let line = line.with_context(|| format!("no {name} in /proc/<pid>/status"))?;
            Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
        };
        // Fields 14 and 15 of the file; two come before the name's end.
        let cpu = (ticks(11)? + ticks(12)?) / TICKS;
        Ok(Used { cpu, peak: kib("VmHWM:")?, resident: kib("VmRSS:")? })
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await??;
        ensure!(status.success(), "process {} ended with {status}", self.pid);
        Ok(())
    }
}

/// A coordinator of its own, with the door that it needs, in a fresh directory.
pub(crate) struct Coordinator {
    binary: PathBuf,
    dir: tempfile::TempDir,
    door: Process,
    process: Process,
    http: reqwest::Client,
    /// Where it is, ending in `/p2p/<id>`.
    pub(crate) address: String,
}

impl Coordinator {
    /// Starts both, below `within`.
    pub(crate) async fn start(binary: &Path, within: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir_in(within)?;
        let at = |name: &str| dir.path().join(name).display().to_string();
        let common = ["--ip", "127.0.0.1", "--output", "json", "--until-stdin-closes"];
        let common = common.into_iter().chain(["--log", "warn", "--data-dir"]);
        let data = at("bootstrap");
        let mut args = vec!["bootstrap", "start"];
        args.extend(common.clone().chain([data.as_str()]));
        let (door, ready) = Process::start(binary, &args).await?;
        let ready: Value = serde_json::from_str(&ready)?;
        let bootstrap = tcp(&ready["addresses"])?;
        let data = at("coordinator");
        let mut args = vec!["coordinator", "start", "--name", "bench", "--bootstrap", &bootstrap];
        args.extend(common.chain([data.as_str()]));
        let (process, _) = Process::start(binary, &args).await?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let binary = binary.to_owned();
        let mut this = Self { binary, dir, door, process, http, address: String::new() };
        let status = this.get("/api/v1/status").await?;
        this.address = tcp(&status["peer"]["addresses"])?;
        Ok(this)
    }

    /// Submits a sweep of `units` work units at this quorum, as a user does. Gives its id and
    /// the seconds that the command took.
    pub(crate) async fn submit(&self, units: u64, quorum: u32) -> anyhow::Result<(String, f64)> {
        let folder = self.dir.path().join("job");
        std::fs::create_dir_all(&folder)?;
        // Nothing runs it; it is fetched by nobody.
        std::fs::write(folder.join("program.wasm"), b"\0asm\x01\0\0\0")?;
        let job = folder.join("job.toml");
        let text = format!(
            "version = 1\nname = \"{units} at quorum {quorum}\"\n\
             [program]\nmodule = \"file:program.wasm\"\nargs = [\"{{n}}\"]\n\
             [sweep]\nn = {{ from = 1, to = {units} }}\n\
             [validation]\npolicy = \"fixed\"\nmin_quorum = {quorum}\n"
        );
        std::fs::write(&job, text)?;
        let started = std::time::Instant::now();
        let output = Command::new(&self.binary)
            .args(["job", "submit", "--output", "json", "--data-dir"])
            .arg(self.dir.path().join("coordinator"))
            .arg(&job)
            .stderr(Stdio::inherit())
            .output()
            .await?;
        let took = started.elapsed().as_secs_f64();
        ensure!(output.status.success(), "the job was not submitted");
        let submitted: Value = serde_json::from_slice(&output.stdout)?;
        let id = submitted["job"].as_str().context("the id of a job")?;
        Ok((id.to_owned(), took))
    }

    /// What the coordinator says about a job.
    pub(crate) async fn job(&self, id: &str) -> anyhow::Result<Value> {
        self.get(&format!("/api/v1/jobs/{id}")).await
    }

    /// What the process has used so far.
    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        self.process.used()
    }

    /// Bytes in its data directory.
    pub(crate) fn disk(&self) -> anyhow::Result<u64> {
        let mut folders = vec![self.dir.path().join("coordinator")];
        let mut bytes = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                match entry.metadata() {
                    Ok(data) if data.is_dir() => folders.push(entry.path()),
                    Ok(data) => bytes += data.len(),
                    // The database removes files while we look.
                    Err(_) => {}
                }
            }
        }
        Ok(bytes)
    }

    /// Stops both.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.process.stop().await?;
        self.door.stop().await
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let dir = self.dir.path().join("coordinator");
        let door = Door::find(&dir).context("the coordinator's control door is open")?;
        let request = self.http.get(format!("{}{path}", door.url)).bearer_auth(door.token);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }
}

/// The first TCP address of a list.
fn tcp(addresses: &Value) -> anyhow::Result<String> {
    let texts = addresses.as_array().into_iter().flatten().filter_map(Value::as_str);
    let address = texts.into_iter().find(|text| text.contains("/tcp/"));
    Ok(address.context("a process that listens on TCP")?.to_owned())
}
