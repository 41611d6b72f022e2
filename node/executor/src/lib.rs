//! Execution: running a program that a stranger wrote, within limits, on a volunteer's machine.
//!
//! One trait, [`Executor`], and two implementations that enforce the same [`Limits`]:
//! [`docker::DockerExecutor`] runs container images through the Docker engine, and
//! [`wasm::WasmExecutor`] runs WASI modules inside this process, with nothing to install.
//! [`detect::choose`] takes the one that works here and says why.
//!
//! # Shape
//!
//! ```text
//! Program ──prepare──► loaded image / compiled module          (cached, idempotent)
//! Run     ──run──────► exit + usage + tail of what it printed  (everything removed again)
//! crash   ──cleanup──► containers and image tags of this node are gone
//! ```
//!
//! A program sees `/input` (read-only), `/output` (its result, also its working directory),
//! `/checkpoint` (what it wants to find again if it is interrupted), its arguments and
//! environment, and no network. How it ended is an [`Exit`]; a failure of the
//! machinery around it, which must not be held against the program, is a [`RunError`].
//!
//! # What is not here
//!
//! - No chunks and no CIDs: the caller stages `/input` and collects `/output`.
//! - No life of a checkpoint: the caller keeps the directory while the replica may be started
//!   again, and removes it.
//! - No decision about *what* to run: that is the agent's.
//!
//! # Bounds
//!
//! The output directory and the checkpoint are measured together, about four times a second
//! while the program runs and once after it ended, so a program may exceed its output limit by
//! what it can write in a quarter of a second before it is killed; see [`docker::policy`] and [`wasm`] for what else holds.
//!
//! [`Limits`]: dockercomp_protocol::execution::Limits
//! [`Exit`]: dockercomp_protocol::execution::Exit

pub mod detect;
pub mod docker;
mod elf;
mod error;
mod output;
mod tail;
pub mod wasm;
mod work;

use dockercomp_protocol::execution::ExecutorKind;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub use detect::{Choice, ChooseError, Chosen, Options, choose};
pub use docker::archive::parts::{PARTS_MAX, SplitError, are_parts, split_image};
pub use docker::archive::{ArchiveError, ImageInfo, inspect_archive};
pub use docker::pack::{PackError, pack_static_binary};
pub use docker::save::{SaveError, save_image};
pub use elf::ElfError;
pub use error::{CleanupError, PrepareError, RunError};
pub use work::{Finished, Labels, Program, Removed, Run};

/// Runs programs within limits. Object-safe: nodes hold an `Arc<dyn Executor>`.
pub trait Executor: Send + Sync {
    /// Which executor this is, as results and receipts say it.
    fn kind(&self) -> ExecutorKind;

    /// The engine and its version, for people: `docker 20.10.24` or `wasmtime 48.0.8`.
    fn version(&self) -> &str;

    /// Makes a program ready to run: loads its image or compiles its module.
    ///
    /// Idempotent and cached by the program's id. [`Self::run`] does this as well; calling it
    /// earlier only saves time.
    ///
    /// # Errors
    ///
    /// See [`PrepareError::is_programs_fault`] for who is to blame.
    fn prepare<'a>(&'a self, program: &'a Program) -> BoxFuture<'a, Result<(), PrepareError>>;

    /// Runs a program to its end, and removes what it used.
    ///
    /// When `cancel` fires, or when the returned future is dropped, the program is killed and
    /// removed; a dropped run does so in the background, and [`Self::cleanup`] waits for it.
    /// A program that cannot be loaded or started ends with `Exit::NotStarted` and the reason as
    /// its log tail.
    ///
    /// # Errors
    ///
    /// Only for failures that are not the program's: the engine is gone, a directory is missing,
    /// or the run was cancelled.
    fn run(&self, run: Run, cancel: CancellationToken)
    -> BoxFuture<'_, Result<Finished, RunError>>;

    /// Gives back what [`Self::prepare`] made of a program, by its id; it can be prepared again.
    /// What a run still uses stays until [`Self::cleanup`].
    fn forget<'a>(&'a self, program: &'a str) -> BoxFuture<'a, ()>;

    /// Stops every run of this executor and removes all that this node left in the engine, also
    /// in an earlier life. Call it at the start and at the end of a node.
    ///
    /// # Errors
    ///
    /// When the engine does not answer or refuses; what was removed until then stays removed.
    fn cleanup(&self) -> BoxFuture<'_, Result<Removed, CleanupError>>;
}
