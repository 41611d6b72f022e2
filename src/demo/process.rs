//! One process of the demo: started, ready, stopped, and never left behind.
//!
//! The child stops when its standard input closes, so it ends with this process however this
//! process ends.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::failure::{Code, Failure};

/// How long a process may take until it is ready.
const READY: Duration = Duration::from_secs(60);
/// How long a process may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(20);

/// A running child.
pub(super) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts this very program with `args`, and waits for the line in which it says that it
    /// is ready.
    pub(super) async fn start<T: DeserializeOwned>(
        name: &str,
        dir: &Path,
        args: &[String],
    ) -> anyhow::Result<(Self, T)> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let log = dir.join(format!("{name}.log"));
        let stderr = std::fs::File::create(&log)
            .with_context(|| format!("cannot make {}", log.display()))?;
        let mut child = Command::new(program)
            .args(args)
            .args(["--output", "json", "--log", "info", "--until-stdin-closes"])
            .arg("--data-dir")
            .arg(dir.join(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // Interrupting the demo must not interrupt its processes before it stops them.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(READY, lines.next_line()).await;
        let process = Self { name: name.to_owned(), child };
        match line {
            Ok(Ok(Some(line))) => {
                let ready = serde_json::from_str(&line)
                    .with_context(|| format!("{name} said something unexpected"))?;
                Ok((process, ready))
            }
            Ok(_) => Err(process.failed(&log).await),
            Err(_) => {
                Err(Failure::new(Code::TimedOut, format!("{name} was not ready in time")).into())
            }
        }
    }

    /// Why a process ended before it was ready: what it logged last, with its own exit code.
    async fn failed(mut self, log: &PathBuf) -> anyhow::Error {
        let status = self.child.wait().await.ok().and_then(|status| status.code());
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let last = text.lines().rev().find_map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).ok()?;
            Some((
                value["error"]["message"].as_str()?.to_owned(),
                value["error"]["fix"].as_str().map(str::to_owned),
            ))
        });
        let (message, fix) = last.unwrap_or_else(|| (text.trim().to_owned(), None));
        let code = match status {
            Some(11) => Code::Docker,
            Some(5) => Code::Conflict,
            _ => Code::Other,
        };
        let mut failure = Failure::new(code, format!("{} did not start: {message}", self.name));
        failure.fix = fix;
        failure.into()
    }

    /// Asks the process to stop.
    pub(super) fn ask_to_stop(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until it has stopped; kills it if it takes too long.
    pub(super) async fn stopped(mut self) {
        self.ask_to_stop();
        if tokio::time::timeout(STOP, self.child.wait()).await.is_err() {
            tracing::warn!(process = self.name, "process did not stop in time and is killed");
            let _ = self.child.kill().await;
        }
    }
}
