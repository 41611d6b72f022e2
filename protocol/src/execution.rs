//! Execution in words: what a program may use, how it ended, and what it used.
//!
//! The executor enforces these values, results carry them, receipts prove them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which executor ran a replica. Always said, in results and in receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorKind {
    /// A Docker container.
    Docker,
    /// A WebAssembly module in the embedded runtime.
    Wasm,
}

impl fmt::Display for ExecutorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Wasm => "wasm",
        })
    }
}

/// What one replica may use. Containers are held to all of it; what cannot apply to a module is
/// said by the executor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// CPU time per second of wall-clock time, in thousandths of a core.
    pub cpu_millis: u32,
    /// Memory in bytes; there is no swap beyond it.
    pub memory_bytes: u64,
    /// Size of the scratch file system at `/tmp`, in bytes; it counts as memory.
    pub tmp_bytes: u64,
    /// Total size of the files in `/output` and `/checkpoint` together, in bytes.
    pub output_bytes: u64,
    /// Number of files and directories in `/output` and `/checkpoint` together.
    pub output_files: u32,
    /// Processes and threads alive at one time.
    pub pids: u32,
    /// Wall-clock time from start to kill, in milliseconds.
    pub wall_ms: u64,
}

impl Limits {
    /// The wall-clock limit as a duration.
    #[must_use]
    pub const fn wall_time(&self) -> Duration {
        Duration::from_millis(self.wall_ms)
    }
}

/// How the program of a replica ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Exit {
    /// The program ended by itself with this code; 0 is success.
    Code {
        /// The exit code, 0 to 255.
        code: u8,
    },
    /// The program was ended by a signal that was not ours, or trapped.
    Crashed,
    /// The wall-clock limit was reached.
    TimedOut,
    /// The memory limit was reached.
    OutOfMemory,
    /// The output limit (bytes or files) was reached.
    OutputTooLarge,
    /// `/output` holds something that is not a plain file or directory, or a name that is
    /// not a relative UTF-8 path.
    OutputRefused,
    /// The image or module could not be loaded or started.
    NotStarted,
}

impl Exit {
    /// Whether the program did its work, so that its output may be compared.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Code { code: 0 })
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code { code } => write!(f, "exit code {code}"),
            Self::Crashed => f.write_str("crashed"),
            Self::TimedOut => f.write_str("wall-clock limit reached"),
            Self::OutOfMemory => f.write_str("memory limit reached"),
            Self::OutputTooLarge => f.write_str("output limit reached"),
            Self::OutputRefused => f.write_str("output holds something that is not a plain file"),
            Self::NotStarted => f.write_str("could not be started"),
        }
    }
}

/// What a replica used. Zero means measured as zero or not measurable by this executor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// CPU time of all its threads, in milliseconds.
    pub cpu_ms: u64,
    /// Wall-clock time from start to end, in milliseconds.
    pub wall_ms: u64,
    /// Highest memory use seen, in bytes.
    pub memory_peak_bytes: u64,
    /// WebAssembly fuel burned (a deterministic count of instructions), 0 for containers.
    pub fuel: u64,
}
