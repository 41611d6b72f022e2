//! Our own binary as child processes on this machine: started, ready, stopped, and never left
//! behind. The demo and the lab are made of them.
//!
//! A child stops when its standard input closes, so it ends with its parent however the parent
//! ends. It has a process group of its own: whoever interrupts the parent from the keyboard
//! does not interrupt the children before the parent stops them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a process may take until it is ready.
const READY: Duration = Duration::from_secs(60);
/// How long a process may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(20);

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// The first line that it says, and when.
    first: Option<oneshot::Receiver<(String, Instant)>>,
    started: Instant,
    took: Option<Duration>,
    log: PathBuf,
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its log cannot be written.
    #[error("cannot make {}", path.display())]
    Log {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The program cannot be started.
    #[error("cannot start {name}")]
    Spawn {
        /// What it is called.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// What it said when it was ready cannot be read.
    #[error("{name} said something unexpected")]
    Unexpected {
        /// What it is called.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// It ended before it was ready.
    #[error("{name} did not start: {message}")]
    Ended {
        /// What it is called.
        name: String,
        /// Its last words.
        message: String,
        /// What it said to do about it.
        fix: Option<String>,
        /// Its exit code.
        code: Option<i32>,
    },
    /// It took too long.
    #[error("{name} was not ready in time")]
    TimedOut {
        /// What it is called.
        name: String,
    },
}

impl Process {
    /// Starts `program` with `args` on the data directory `dir/name`; its log is `dir/name.log`,
    /// after what an earlier start wrote there.
    ///
    /// # Errors
    /// [`StartError::Log`], [`StartError::Spawn`].
    pub fn spawn(
        program: &Path,
        name: &str,
        dir: &Path,
        args: &[String],
    ) -> Result<Self, StartError> {
        let log = dir.join(format!("{name}.log"));
        let stderr = std::fs::File::options().create(true).append(true).open(&log);
        let stderr = stderr.map_err(|source| StartError::Log { path: log.clone(), source })?;
        let mut child = command(program)
            .args(args)
            .args(["--output", "json", "--log", "info", "--until-stdin-closes"])
            .arg("--data-dir")
            .arg(dir.join(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|source| StartError::Spawn { name: name.to_owned(), source })?;
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (say, first) = oneshot::channel();
        // Ends with the line, or with the process.
        tokio::spawn(async move {
            if let Ok(Some(line)) = lines.next_line().await {
                let _ = say.send((line, Instant::now()));
            }
        });
        let started = Instant::now();
        Ok(Self { name: name.to_owned(), child, first: Some(first), started, took: None, log })
    }

    /// Waits for the line in which it says that it is ready, and takes it.
    ///
    /// # Errors
    /// If it ends, takes too long, or says something else.
    pub async fn ready<T: DeserializeOwned>(&mut self) -> Result<T, StartError> {
        let name = self.name.clone();
        let Some(first) = &mut self.first else { return Err(self.failed().await) };
        match tokio::time::timeout(READY, first).await {
            Ok(Ok((line, at))) => {
                self.first = None;
                self.took = Some(at.duration_since(self.started));
                serde_json::from_str(&line)
                    .map_err(|source| StartError::Unexpected { name, source })
            }
            Ok(Err(_)) => Err(self.failed().await),
            Err(_) => Err(StartError::TimedOut { name }),
        }
    }

    /// How long it took until it was ready, once that was waited for.
    #[must_use]
    pub const fn took(&self) -> Option<Duration> {
        self.took
    }

    /// Why a process ended before it was ready: what it logged last, with its own exit code.
    async fn failed(&mut self) -> StartError {
        let code = self.child.wait().await.ok().and_then(|status| status.code());
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = text.lines().rev().find_map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).ok()?;
            Some((
                value["error"]["message"].as_str()?.to_owned(),
                value["error"]["fix"].as_str().map(str::to_owned),
            ))
        });
        let (message, fix) = last.unwrap_or_else(|| (text.trim().to_owned(), None));
        StartError::Ended { name: self.name.clone(), message, fix, code }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends it like a power cut: `kill -9`.
    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }

    /// Asks the process to stop.
    pub fn ask_to_stop(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until it has stopped; kills it if it takes too long, and says whether it had to.
    pub async fn stopped(mut self) -> bool {
        self.ask_to_stop();
        if tokio::time::timeout(STOP, self.child.wait()).await.is_ok() {
            return true;
        }
        let _ = self.child.kill().await;
        false
    }
}

/// A command of `program` that nothing of this process's surroundings leaks into, and that
/// neither outlives its handle nor hears what the keyboard tells this process.
#[must_use]
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DOCKERCOMP_") {
            command.env_remove(name);
        }
    }
    command.process_group(0).kill_on_drop(true);
    command
}

/// Waits until somebody asks this process to stop: by SIGINT, SIGTERM or SIGHUP.
///
/// # Errors
/// If signals cannot be listened to.
pub async fn asked_to_stop() -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(())
}

/// Where a file lies that comes with the program: below the working directory in a checkout, or
/// beside an installation.
#[must_use]
pub fn installed(path: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.parent()?.join("share/dockercomp").join(path)));
    [Some(PathBuf::from(path)), beside].into_iter().flatten().find(|path| path.is_file())
}
