//! What can go wrong around a program, and who is to blame.

use std::io;
use std::path::PathBuf;

use dockercomp_protocol::execution::ExecutorKind;

use crate::docker::archive::ArchiveError;
use crate::docker::pack::PackError;
use crate::wasm::ModuleError;

/// Why a program could not be made ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// An image was given to the WebAssembly executor, or a module to Docker.
    #[error("program {id} does not run on the {executor} executor")]
    WrongExecutor {
        /// The program.
        id: String,
        /// The executor that was asked.
        executor: ExecutorKind,
    },
    /// The image is malformed or refused.
    #[error("image {id} cannot be used")]
    Archive {
        /// The program.
        id: String,
        /// What is wrong with it.
        #[source]
        source: ArchiveError,
    },
    /// The binary is not static, or could not be packed.
    #[error("binary {id} cannot be used as an image")]
    Binary {
        /// The program.
        id: String,
        /// What is wrong with it.
        #[source]
        source: PackError,
    },
    /// The engine read the archive and refused its content.
    #[error("the engine refused image {id}")]
    Refused {
        /// The program.
        id: String,
        /// The engine's words.
        #[source]
        source: bollard::errors::Error,
    },
    /// The engine holds another image than the archive describes.
    #[error("image {id} became {actual} in the engine instead of {expected}")]
    OtherImage {
        /// The program.
        id: String,
        /// The image id that follows from the archive.
        expected: String,
        /// The image id that the engine gives.
        actual: String,
    },
    /// The WebAssembly module is malformed or refused.
    #[error("module {id} cannot be used")]
    Module {
        /// The program.
        id: String,
        /// What is wrong with it.
        #[source]
        source: ModuleError,
    },
    /// The program's file could not be read from this node's disk.
    #[error("program {id} cannot be read from {path}")]
    Read {
        /// The program.
        id: String,
        /// Its file.
        path: PathBuf,
        /// The operating system's words.
        #[source]
        source: io::Error,
    },
    /// The engine does not answer, or failed for a reason of its own.
    #[error("the engine failed while it prepared program {id}")]
    Engine {
        /// The program.
        id: String,
        /// The engine's words.
        #[source]
        source: bollard::errors::Error,
    },
    /// The node is stopping, or a worker thread died.
    #[error("preparing program {id} was interrupted")]
    Interrupted {
        /// The program.
        id: String,
    },
}

impl PrepareError {
    /// Whether the program is to blame, so that no node will ever run it. Otherwise this node
    /// is, and another one may do better.
    #[must_use]
    pub fn is_programs_fault(&self) -> bool {
        match self {
            Self::Archive { source, .. } => source.is_archives_fault(),
            Self::Binary { source, .. } => source.is_binarys_fault(),
            Self::Module { source, .. } => source.is_modules_fault(),
            Self::Refused { .. } | Self::OtherImage { .. } => true,
            Self::WrongExecutor { .. }
            | Self::Read { .. }
            | Self::Engine { .. }
            | Self::Interrupted { .. } => false,
        }
    }
}

/// Why nothing can be said about how a program would have ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The run was cancelled.
    #[error("the run was cancelled")]
    Cancelled,
    /// The program could not be made ready, and it is not to blame.
    #[error("the program could not be made ready")]
    Prepare(#[source] PrepareError),
    /// The engine does not answer, or failed for a reason of its own.
    #[error("the engine failed to {action} the container")]
    Engine {
        /// What it was asked to do.
        action: &'static str,
        /// The engine's words.
        #[source]
        source: bollard::errors::Error,
    },
    /// The input, output or checkpoint directory cannot be used.
    #[error("directory {path} cannot be used")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's words.
        #[source]
        source: io::Error,
    },
    /// The WebAssembly runtime failed before the program was started.
    #[error("the WebAssembly runtime failed")]
    Runtime(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The node is stopping, or a worker thread died.
    #[error("the run was interrupted")]
    Interrupted,
}

/// Why a cleanup did not finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CleanupError {
    /// The engine does not answer, or refused.
    #[error("the engine failed to {action}")]
    Engine {
        /// What it was asked to do.
        action: &'static str,
        /// The engine's words.
        #[source]
        source: bollard::errors::Error,
    },
}

/// All causes of an error in one line, the outermost first.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Transparent wrappers repeat their cause.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
