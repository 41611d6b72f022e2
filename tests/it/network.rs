//! A network of real processes on loopback.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long a test waits for a condition before it fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// The binary under test.
pub(crate) fn dockercomp() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dockercomp"));
    // Nothing of the machine that runs the tests may leak in.
    command.env_remove("DOCKERCOMP_DATA_DIR").env_remove("DOCKERCOMP_OUTPUT");
    command.env_remove("DOCKERCOMP_LOG");
    command
}

/// A folder of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The program of an example, which `make examples` builds.
pub(crate) fn example(path: &str) -> PathBuf {
    let path = repository("examples").join(path);
    assert!(path.exists(), "{} is missing: run make examples", path.display());
    path
}

/// The engine, for one test at a time; says that the test is skipped if none answers.
pub(crate) fn docker_or_skip(test: &str) -> Option<File> {
    let answer = Command::new("docker").arg("version").output();
    if !answer.as_ref().is_ok_and(|answer| answer.status.success()) {
        let reason = match answer {
            Ok(answer) => String::from_utf8_lossy(&answer.stderr).trim().to_owned(),
            Err(error) => format!("docker: {error}"),
        };
        eprintln!("skipped: {test}: no Docker engine answers ({reason})");
        return None;
    }
    let lock = File::create(std::env::temp_dir().join("dockercomp-it.lock")).expect("a file");
    lock.lock().expect("a lock");
    Some(lock)
}

/// A running process of the network. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    _stdin: Option<ChildStdin>,
    pub(crate) dir: PathBuf,
    /// What it said when it was ready.
    pub(crate) ready: Value,
    args: Vec<String>,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(log: PathBuf, dir: PathBuf, args: Vec<String>) -> Self {
        let stderr = File::options().create(true).append(true).open(&log).expect("a log");
        let mut child = dockercomp()
            .args(&args)
            .args(["--output", "json", "--log", "info", "--until-stdin-closes", "--data-dir"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            panic!("{args:?} said {line:?} ({error}); it logged:\n{log}")
        });
        let stdin = child.stdin.take();
        Self { child, _stdin: stdin, dir, ready, args, log }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) {
        drop(self._stdin.take());
        self.child.wait().expect("it ends");
    }

    /// Starts it again, on the same directory, with other arguments.
    pub(crate) fn restart_with(&mut self, args: &[&str]) {
        self.args = strings(args);
        self.restart();
    }

    /// Starts it again, on the same directory.
    pub(crate) fn restart(&mut self) {
        *self = Self::start(self.log.clone(), self.dir.clone(), self.args.clone());
    }

    pub(crate) fn text(&self, key: &str) -> String {
        self.ready[key].as_str().unwrap_or_else(|| panic!("no {key} in {}", self.ready)).to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Let nodes remove their containers; kill what does not stop.
        drop(self._stdin.take());
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::yield_now();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a coordinator is started; the address of a bootstrap node follows.
const COORDINATOR: [&str; 5] = ["coordinator", "start", "--ip", "127.0.0.1", "--bootstrap"];

/// Bootstrap, coordinator and nodes.
pub(crate) struct Network {
    // Dropped in this order: nodes first.
    pub(crate) nodes: Vec<Process>,
    pub(crate) coordinator: Process,
    pub(crate) bootstrap: Process,
    pub(crate) folder: TempDir,
}

impl Network {
    /// Starts a bootstrap node and a coordinator that finds it over TCP.
    pub(crate) fn start() -> Self {
        Self::start_over("/tcp/")
    }

    /// Starts a bootstrap node and a coordinator, which knows only those of its addresses that
    /// contain `transport`. So do the nodes, by the coordinator's join link.
    pub(crate) fn start_over(transport: &str) -> Self {
        Self::start_as(transport, &[])
    }

    /// The same, with more options of the coordinator.
    pub(crate) fn start_as(transport: &str, more: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("dockercomp-it-").tempdir().expect("a folder");
        // A fixed port, so that a restarted bootstrap node is where it was.
        let port = free_port().to_string();
        let bootstrap = Process::start(
            folder.path().join("bootstrap.log"),
            folder.path().join("bootstrap"),
            strings(&["bootstrap", "start", "--ip", "127.0.0.1", "--port", &port]),
        );
        let addresses = bootstrap.ready["addresses"].as_array().expect("a list");
        let address = addresses
            .iter()
            .filter_map(|address| address.as_str())
            .find(|address| address.contains(transport))
            .expect("an address of this transport")
            .to_owned();
        let coordinator = Process::start(
            folder.path().join("coordinator.log"),
            folder.path().join("coordinator"),
            strings(&[&COORDINATOR[..], &[&address], more].concat()),
        );
        Self { nodes: Vec::new(), coordinator, bootstrap, folder }
    }

    /// Starts the coordinator of another project at the same bootstrap node.
    pub(crate) fn start_another_project(&self, name: &str) -> Process {
        let address = self.bootstrap.ready["addresses"][0].as_str().expect("an address");
        let (log, dir) =
            (self.folder.path().join(format!("{name}.log")), self.folder.path().join(name));
        Process::start(log, dir, strings(&[&COORDINATOR[..], &[address, "--name", name]].concat()))
    }

    /// Adds nodes that run work with `executor`, each with one core.
    pub(crate) fn add_nodes(&mut self, count: usize, executor: &str, more: &[&str]) -> &mut Self {
        for _ in 0..count {
            let name = format!("node-{}", self.nodes.len() + 1);
            let link = self.coordinator.text("join_link");
            let mut args = strings(&["node", "start", &link, "--ip", "127.0.0.1", "--cpus", "1"]);
            args.extend(strings(&["--memory", "1GiB", "--executor", executor]));
            args.extend(strings(more));
            let log = self.folder.path().join(format!("{name}.log"));
            self.nodes.push(Process::start(log, self.folder.path().join(name), args));
        }
        self
    }

    /// Runs a command against the coordinator and gives its JSON.
    pub(crate) fn owner(&self, args: &[&str]) -> Value {
        json(run_on(&self.coordinator.dir, args))
    }

    /// Submits a job file and gives the job's id.
    pub(crate) fn submit(&self, file: &Path, more: &[&str]) -> String {
        let file = file.to_str().expect("a plain path");
        let submitted = self.owner(&[&["job", "submit", file], more].concat());
        submitted["job"].as_str().expect("an id").to_owned()
    }

    /// How far a job is.
    pub(crate) fn job(&self, job: &str) -> Value {
        self.owner(&["job", "status", job])
    }

    /// Waits until `condition` holds for a job.
    pub(crate) fn wait_for(
        &self,
        job: &str,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            let output = run_on(&self.coordinator.dir, &["job", "status", job]);
            if let Ok(info) = serde_json::from_slice::<Value>(&output.stdout) {
                last = info;
                if condition(&last) {
                    return last;
                }
            }
        }
        panic!("{what} did not happen in time; the job: {last:#}\n{}", self.logs())
    }

    /// Waits until a job is done.
    pub(crate) fn wait_for_done(&self, job: &str) -> Value {
        let info = self.wait_for(job, "the end of the job", |info| info["state"] != "running");
        assert_eq!(info["state"], "done", "{info:#}\n{}", self.logs());
        info
    }

    /// Fetches the results of a job into a fresh folder.
    pub(crate) fn fetch(&self, job: &str, executor: &str) -> PathBuf {
        let into = self.folder.path().join("results");
        let into_text = into.to_str().expect("a plain path");
        self.owner(&["job", "fetch", job, "--into", into_text, "--executor", executor]);
        into
    }

    /// The end of every log, for a test that failed.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        let entries = fs::read_dir(self.folder.path()).expect("the folder");
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "log") {
                let log = fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(20)..].join("\n");
                text += &format!("--- {}\n{tail}\n", path.display());
            }
        }
        text
    }
}

/// Runs a command on a data directory.
pub(crate) fn run_on(dir: &Path, args: &[&str]) -> Output {
    let mut command = dockercomp();
    command.args(args).args(["--output", "json", "--data-dir"]).arg(dir);
    command.output().expect("the binary starts")
}

/// The JSON of a command that must succeed.
pub(crate) fn json(output: Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "exit {:?}: {stderr}", output.status.code());
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Waits for a condition with a deadline.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "{what} did not happen in time");
        std::thread::yield_now();
    }
}

/// What a child wrote to standard error, once it has ended.
pub(crate) fn rest_of(stderr: Option<impl Read>) -> String {
    let mut text = String::new();
    if let Some(mut stderr) = stderr {
        stderr.read_to_string(&mut text).expect("text");
    }
    text
}

/// A port that was free a moment ago, for TCP and for QUIC.
pub(crate) fn free_port() -> u16 {
    loop {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        if std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}
