//! The WebAssembly executor: WASI preview 1 modules in the embedded runtime, wasmtime.
//!
//! Nothing has to be installed, and a program's result does not depend on the machine: numbers
//! have one form of NaN, clocks and random numbers are a function of the work unit, and there
//! are no threads. Every instruction is counted as fuel, the same on every machine.
//!
//! - `modules`: compiled modules, cached;
//! - `sandbox`: what a program sees: files, clocks, random numbers, memory;
//! - `run`: the life of one instance.
//!
//! # What a limit means here
//!
//! | Limit | Here |
//! |---|---|
//! | `memory_bytes` | linear memories and tables together; growth beyond it fails |
//! | `wall_ms` | the program is interrupted within some 10 ms, also when it sleeps |
//! | `output_bytes`, `output_files` | measured as for containers, four times a second |
//! | `cpu_millis` | not enforced below one core: an instance is one thread |
//! | `pids` | does not apply: a program cannot start threads or processes |
//! | `tmp_bytes` | does not apply: there is no `/tmp` |
//!
//! # What is not deterministic
//!
//! The order of directory entries, inode numbers and file times are the host's. A program whose
//! result must agree between nodes sorts the names that it reads.

mod modules;
mod run;
mod sandbox;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use dockercomp_protocol::execution::{ExecutorKind, Exit, Usage};
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime::{Config, Engine, WasmFeatures};

pub use modules::ModuleError;
use modules::Modules;

use crate::Executor;
use crate::error::{CleanupError, PrepareError, RunError, chain};
use crate::tail::escape;
use crate::work::{Finished, Program, Removed, Run};

/// Runs modules inside this process. See the module documentation.
pub struct WasmExecutor {
    modules: Arc<Modules>,
    /// Runs, also those whose futures were dropped.
    tasks: TaskTracker,
    /// Stops all runs; renewed by each cleanup.
    stop: Mutex<CancellationToken>,
}

/// The runtime does not work on this machine.
#[derive(Debug, thiserror::Error)]
#[error("the runtime refuses its configuration")]
pub struct RuntimeError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl WasmExecutor {
    /// Starts the runtime. It costs no thread and next to no memory until a module is compiled.
    ///
    /// # Errors
    ///
    /// When the compiler does not support this processor.
    pub fn new() -> Result<Self, RuntimeError> {
        let engine = Engine::new(&config()).map_err(|error| RuntimeError(error.into()))?;
        let modules = Modules::new(engine).map_err(|error| RuntimeError(error.into()))?;
        Ok(Self { modules: Arc::new(modules), tasks: TaskTracker::new(), stop: Mutex::default() })
    }
}

impl Executor for WasmExecutor {
    fn kind(&self) -> ExecutorKind {
        ExecutorKind::Wasm
    }

    fn version(&self) -> &str {
        VERSION
    }

    fn prepare<'a>(&'a self, program: &'a Program) -> BoxFuture<'a, Result<(), PrepareError>> {
        Box::pin(async move { self.modules.prepare(program).await.map(drop) })
    }

    fn run(
        &self,
        run: Run,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<Finished, RunError>> {
        Box::pin(async move {
            // A task of its own: when this future is dropped, it still stops the instance.
            let dropped = CancellationToken::new();
            let _guard = dropped.clone().drop_guard();
            let stopped = self.stop.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let modules = Arc::clone(&self.modules);
            let task = self.tasks.spawn(async move {
                let cancelled = async {
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = dropped.cancelled() => {}
                        () = stopped.cancelled() => {}
                    }
                };
                prepare_and_run(&modules, run, cancelled).await
            });
            task.await.map_err(|_| RunError::Interrupted)?
        })
    }

    /// The cache of modules is small, and forgets the oldest by itself.
    fn forget<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn cleanup(&self) -> BoxFuture<'_, Result<Removed, CleanupError>> {
        Box::pin(async move {
            let stop = {
                let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *stop)
            };
            stop.cancel();
            self.tasks.close();
            self.tasks.wait().await;
            self.tasks.reopen();
            // Instances live in this process only: a crash leaves nothing behind.
            Ok(Removed::default())
        })
    }
}

async fn prepare_and_run(
    modules: &Modules,
    run: Run,
    cancelled: impl Future<Output = ()>,
) -> Result<Finished, RunError> {
    let mut cancelled = std::pin::pin!(cancelled);
    let prepared = tokio::select! {
        biased;
        () = &mut cancelled => return Err(RunError::Cancelled),
        prepared = modules.prepare(&run.program) => prepared,
    };
    match prepared {
        Ok(module) => run::run(module, run, cancelled).await,
        Err(error) if error.is_programs_fault() => Ok(Finished {
            exit: Exit::NotStarted,
            usage: Usage::default(),
            log_tail: escape(&chain(&error)),
        }),
        Err(error) => Err(RunError::Prepare(error)),
    }
}

fn config() -> Config {
    let mut config = Config::new();
    // Limits.
    config.consume_fuel(true);
    config.epoch_interruption(true);
    // The same result everywhere.
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);
    // A trap's backtrace must not push what the program said out of the tail.
    config.wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES_MAX));
    config.wasm_features(WasmFeatures::THREADS | WasmFeatures::SHARED_EVERYTHING_THREADS, false);
    config
}

/// Frames of a trap's backtrace that reach the tail.
const BACKTRACE_FRAMES_MAX: usize = 8;
/// The runtime has no constant for its version; the test below keeps this one true.
const VERSION: &str = "wasmtime 48.0.8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_is_linked() {
        let lock = include_str!("../../../../Cargo.lock");
        let version = VERSION.strip_prefix("wasmtime ").expect("the runtime's name");
        assert!(
            lock.contains(&format!("name = \"wasmtime\"\nversion = \"{version}\"\n")),
            "wasmtime was updated: correct VERSION"
        );
    }
}
