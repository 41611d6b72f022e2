//! One transfer by one contender: a sender on the left, a receiver on the right.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::load::Source;
use crate::watch::{Usage, Watched};
use crate::{Error, ours, raw, rivals};

/// The sender's address; the script gave it to the left end of the cable.
pub(crate) const LEFT: &str = "10.77.0.1";

/// Two network namespaces with a cable between them.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) left: String,
    pub(crate) right: String,
}

/// Who transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// Two peers of ours, as they are by default.
    Ours,
    /// The same, with everything encrypted, as between networks.
    Sealed,
    /// iroh-blobs as its authors ship it.
    Sendme,
    /// rsync from its daemon, whole files.
    Rsync,
    /// One TCP stream; the receiver hashes and writes.
    Raw,
}

/// What a transfer took.
#[derive(Debug)]
pub(crate) struct Run {
    /// From the start of the receiving process to its end.
    pub(crate) wall: Duration,
    /// What the receiver itself says that the transfer took, without its own start and end.
    pub(crate) transfer: Option<Duration>,
    /// What the sender used after it was ready.
    pub(crate) sender: Usage,
    pub(crate) receiver: Usage,
    /// Bytes that crossed the cable, in both directions.
    pub(crate) wire_bytes: u64,
    /// Of small messages on the same connection.
    pub(crate) ping_p99: Option<Duration>,
    /// How long the sender needed until the data could be fetched, where that means reading it.
    pub(crate) ingest: Option<Duration>,
    /// Where the files are now.
    pub(crate) arrived: PathBuf,
}

impl Contender {
    /// Those that are installed. Without the others the report has fewer lines.
    pub(crate) fn present() -> Vec<Self> {
        let all = [Self::Ours, Self::Sealed, Self::Sendme, Self::Rsync, Self::Raw];
        all.into_iter().filter(|one| one.is_present()).collect()
    }

    fn is_present(self) -> bool {
        let program = match self {
            Self::Ours | Self::Sealed | Self::Raw => return true,
            Self::Sendme => "sendme",
            Self::Rsync => "rsync",
        };
        let asked = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        let found = asked.is_ok_and(|status| status.success());
        if !found {
            eprintln!("bench-transfer: {program} is not installed, so nothing is compared with it");
        }
        found
    }

    pub(crate) const fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::Sealed)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "dockercomp",
            Self::Sealed => "dockercomp sealed",
            Self::Sendme => "sendme",
            Self::Rsync => "rsync",
            Self::Raw => "raw TCP + BLAKE3",
        }
    }

    pub(crate) fn run(self, ground: &Ground, source: &Source, work: &Path) -> Result<Run, Error> {
        settle()?;
        match self {
            Self::Ours => ours::run(ground, source, work, "plain"),
            Self::Sealed => ours::run(ground, source, work, "sealed"),
            Self::Sendme => rivals::sendme(ground, source, work),
            Self::Rsync => rivals::rsync(ground, source, work),
            Self::Raw => raw::run(ground, source, work),
        }
    }
}

impl Ground {
    /// A command on the sender's side.
    pub(crate) fn left(&self, program: impl AsRef<OsStr>) -> Command {
        within(&self.left, program.as_ref())
    }

    /// A command on the receiver's side.
    pub(crate) fn right(&self, program: impl AsRef<OsStr>) -> Command {
        within(&self.right, program.as_ref())
    }

    /// Bytes that the left end of the cable has received, and sent.
    fn counted_bytes(&self) -> Result<(u64, u64), Error> {
        let table = within(&self.left, "cat".as_ref()).arg("/proc/net/dev").output()?;
        let table = String::from_utf8(table.stdout)?;
        let line = table.lines().find_map(|line| line.trim().strip_prefix("cable:"));
        let fields: Vec<u64> =
            line.unwrap_or_default().split_whitespace().flat_map(str::parse).collect();
        let field = |n: usize| fields.get(n).copied().unwrap_or_default();
        Ok((field(0), field(8)))
    }

    fn wire_bytes(&self) -> Result<u64, Error> {
        let (received, sent) = self.counted_bytes()?;
        Ok(received + sent)
    }

    /// Bytes that the left end of the cable has sent.
    pub(crate) fn sent_bytes(&self) -> Result<u64, Error> {
        Ok(self.counted_bytes()?.1)
    }

    /// Runs the receiver while the sender is ready, and measures both.
    ///
    /// What the receiver prints is given to `read`.
    pub(crate) fn transfer<T>(
        &self,
        sender: Watched,
        mut receiver: Command,
        arrived: PathBuf,
        read: impl Fn(String) -> T,
    ) -> Result<(Run, T), Error> {
        settle()?;
        let (before, wire_before) = (sender.usage(), self.wire_bytes()?);
        let began = Instant::now();
        let mut receiver = Watched::new(receiver.stdout(Stdio::piped()).spawn()?, began);
        let said = receiver.child.stdout.take().map(BufReader::new);
        // Read to the end, or a talkative receiver would wait for us.
        let said: Vec<String> = said.into_iter().flat_map(|said| said.lines()).flatten().collect();
        let (status, wall, received) = receiver.finish()?;
        let (after, wire_bytes) = (sender.usage(), self.wire_bytes()? - wire_before);
        if !status.success() {
            return Err(format!("the receiver ended with {status}: {}", said.join(" ")).into());
        }
        let sent = Usage { cpu_seconds: after.cpu_seconds - before.cpu_seconds, ..after };
        let run = Run {
            wall,
            transfer: None,
            sender: sent,
            receiver: received,
            wire_bytes,
            ping_p99: None,
            ingest: None,
            arrived,
        };
        Ok((run, read(said.join("\n"))))
    }
}

/// Waits until all that was written is on the disk: the next to sync would wait for it, too.
fn settle() -> Result<(), Error> {
    let status = Command::new("sync").status()?;
    if status.success() { Ok(()) } else { Err(format!("sync ended with {status}").into()) }
}

fn within(namespace: &str, program: &OsStr) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program).stdin(Stdio::null());
    command
}

/// Starts a sender and waits until it prints a line that `ready` understands.
pub(crate) fn start<T>(
    mut sender: Command,
    ready: impl Fn(&str) -> Option<T>,
) -> Result<(Watched, T), Error> {
    let began = Instant::now();
    let mut sender = Watched::new(sender.stdout(Stdio::piped()).spawn()?, began);
    let mut said = BufReader::new(sender.child.stdout.take().ok_or("no output")?).lines();
    while let Some(line) = said.next() {
        if let Some(found) = ready(&line?) {
            // A sender that goes on talking must not meet a closed pipe.
            std::thread::spawn(move || said.for_each(drop));
            return Ok((sender, found));
        }
    }
    Err("the sender ended before it was ready".into())
}
