//! Why a run in the lab came to nothing.

use std::path::PathBuf;
use std::process::ExitStatus;

use dockercomp_processes::StartError;

/// Why a run in the lab came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The binary is not where it was looked for.
    #[error("the binary dockercomp is not beside this program ({}); name it with --binary", beside.display())]
    NoBinary {
        /// Where.
        beside: PathBuf,
    },
    /// What the hosts are to run is not there.
    #[error("{path} is not here; run in a checkout after `make examples`, or install the examples")]
    NoProgram {
        /// What was looked for.
        path: &'static str,
    },
    /// A file or folder of the run.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A process did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A process ended by itself.
    #[error("{name} ended by itself; the end of its log:\n{log}")]
    Died {
        /// Which.
        name: String,
        /// Its last words.
        log: String,
    },
    /// A scenario with cuts, and no namespaces to cut.
    #[error(
        "hosts.*.cuts needs network namespaces, and `{command}` was refused ({reason}); run as root"
    )]
    Namespaces {
        /// What was tried.
        command: String,
        /// What the system said.
        reason: String,
    },
    /// Not all hosts reached the coordinator.
    #[error("{present} of {wanted} hosts reached the coordinator in time")]
    NotAllHere {
        /// How many did.
        present: usize,
        /// Of how many.
        wanted: usize,
    },
    /// A command failed.
    #[error("`dockercomp {command}` ended with {status}: {message}")]
    Command {
        /// Its first words.
        command: String,
        /// How.
        status: ExitStatus,
        /// What it said.
        message: String,
    },
    /// A command did not say what was expected.
    #[error("`dockercomp {command}` said something unexpected")]
    Unexpected {
        /// Its first words.
        command: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The system refused something that every run needs.
    #[error("the system refuses processes or signals")]
    System(#[from] std::io::Error),
    /// Somebody asked for an end.
    #[error("interrupted")]
    Interrupted,
}

impl LabError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
