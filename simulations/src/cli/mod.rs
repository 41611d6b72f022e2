//! The command line, shared by `dockercomp sim` and `dockercomp-sim`.
//!
//! The second is the same thing without the rest of the system: it builds where there is no
//! RocksDB, Docker or libp2p.

mod explain;
mod fuzz;
mod lab;
mod replay;
mod run;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

pub use lab::{Lab, LabRun};

use crate::file::{Document, FileError};
use crate::lab::LabError;

const AFTER_HELP: &str = "\
Exit codes:
  0  every promise was kept, and every expectation met
  1  a core found itself contradicted and panicked
  2  wrong usage, or a scenario that cannot be simulated
  3  safety was violated: something happened that must not
  4  liveness was violated: something that must happen did not
  6  a figure is out of its stated tolerance
  7  two runs that were compared differ
  8  processes of the lab could not be run
  130  interrupted";

/// Simulate volunteer networks: the real coordinator core and the real agent, in virtual time.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Sim {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario, and compare what comes out with what it expects.
    Run(run::Run),
    /// Check a scenario file without running it.
    Validate(explain::Validate),
    /// Say in words what a scenario file describes.
    Explain(explain::Explain),
    /// Run small worlds drawn from seeds, with every fault there is, to find bugs.
    Fuzz(fuzz::Fuzz),
    /// Run one world again and tell its story.
    Replay(replay::Replay),
    /// Run each world twice, alone and beside others, and compare the traces.
    CheckDeterminism(replay::CheckDeterminism),
    /// Show the first event at which two runs part.
    Bisect(replay::Bisect),
    /// Run a scenario in the model and with real processes, and compare what comes out.
    Fidelity(lab::Fidelity),
    /// Shrink a world that fails, and write the smallest one to a file.
    Minimise(replay::Minimise),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// All is well.
    Held,
    /// An expectation is out of tolerance.
    Out,
    /// Two runs that were compared differ.
    Differs,
    /// Something that must happen did not.
    Liveness,
    /// Something happened that must not.
    Safety,
    /// A panic.
    Panicked,
    /// Processes of the lab could not be run.
    NoLab,
    /// Somebody asked for an end.
    Interrupted,
    /// The command line or a file is wrong.
    Usage,
}

impl Exit {
    const fn code(self) -> u8 {
        match self {
            Self::Held => 0,
            Self::Panicked => 1,
            Self::Usage => 2,
            Self::Safety => 3,
            Self::Liveness => 4,
            Self::Out => 6,
            Self::Differs => 7,
            Self::NoLab => 8,
            Self::Interrupted => 130,
        }
    }
}

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The scenario file is wrong.
    #[error("scenario {}", path.display())]
    File { path: PathBuf, source: FileError },
    /// The study could not be run.
    #[error("the study cannot be run")]
    Study(#[from] crate::study::RunnerError),
    /// Its results could not be written.
    #[error("the results cannot be written")]
    Write(#[from] crate::study::WriteError),
    /// The lab came to nothing.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// What the lab found cannot be kept.
    #[error("cannot write {}", path.display())]
    Keep { path: PathBuf, source: std::io::Error },
}

impl Failure {
    const fn exit(&self) -> Exit {
        match self {
            Self::Lab(LabError::Interrupted) => Exit::Interrupted,
            Self::Lab(_) => Exit::NoLab,
            Self::File { .. } | Self::Study(_) | Self::Write(_) | Self::Keep { .. } => Exit::Usage,
        }
    }
}

impl Sim {
    /// Carries the command out and gives the exit code. What people read goes to standard
    /// output, errors to standard error.
    #[must_use]
    pub fn run(self) -> u8 {
        let done = match self.command {
            Command::Run(run) => run.run(),
            Command::Validate(validate) => validate.run(),
            Command::Explain(explain) => explain.run(),
            Command::Fuzz(fuzz) => Ok(fuzz.run()),
            Command::Replay(replay) => replay.run(),
            Command::CheckDeterminism(check) => check.run(),
            Command::Bisect(bisect) => bisect.run(),
            Command::Fidelity(fidelity) => fidelity.run(),
            Command::Minimise(minimise) => minimise.run(),
        };
        ended(done)
    }
}

/// The exit code of a command; why it could not be carried out goes to standard error.
fn ended(done: Result<Exit, Failure>) -> u8 {
    let exit = done.unwrap_or_else(|failure| {
        eprintln!("error: {}", chain(&failure));
        failure.exit()
    });
    exit.code()
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn load(path: &Path, settings: &[String]) -> Result<Document, Failure> {
    Document::load(path, settings).map_err(|source| Failure::File { path: path.to_owned(), source })
}
