//! Compiled modules: checked, linked to WASI, and kept for the next run.
//!
//! # Bounds
//!
//! Modules of up to [`MODULE_BYTES_MAX`] bytes; the [`CACHED_MAX`] last used ones are kept. One
//! module is compiled at a time, with all processors.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use dockercomp_protocol::execution::ExecutorKind;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use wasmtime::{Engine, ExternType, InstancePre, Linker, Module};
use wasmtime_wasi::p1;

use super::sandbox::Sandbox;
use crate::error::PrepareError;
use crate::work::Program;

/// Why a module cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The operating system could not read the file.
    #[error("it could not be read")]
    Read(#[source] io::Error),
    /// The file is too large.
    #[error("it has more than {MODULE_BYTES_MAX} bytes")]
    TooLarge,
    /// It is not a valid module, or uses features that are switched off (threads).
    #[error("it is not a valid WebAssembly module")]
    Invalid(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It imports something other than WASI preview 1.
    #[error("it imports more than WASI preview 1; build it with --target wasm32-wasip1")]
    Import(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is a library.
    #[error("it exports no function `_start`: it is a library and not a program")]
    NoStart,
}

impl ModuleError {
    /// Whether the module is to blame and not the disk it is read from.
    #[must_use]
    pub fn is_modules_fault(&self) -> bool {
        !matches!(self, Self::Read(_))
    }
}

/// A module that is ready to be instantiated.
pub(super) type Prepared = InstancePre<Sandbox>;

/// The modules of one engine.
pub(super) struct Modules {
    engine: Engine,
    linker: Linker<Sandbox>,
    /// The last used one is at the back. The lock is held while a module is compiled.
    cached: Mutex<VecDeque<(String, Prepared)>>,
}

impl Modules {
    pub(super) fn new(engine: Engine) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(&engine);
        p1::add_to_linker_async(&mut linker, Sandbox::wasi)?;
        Ok(Self { engine, linker, cached: Mutex::default() })
    }

    /// Returns the compiled module, compiling it if need be.
    pub(super) async fn prepare(&self, program: &Program) -> Result<Prepared, PrepareError> {
        let (id, path) = match program {
            Program::Module { id, file } => (id, file),
            Program::Image { id, .. } => {
                let executor = ExecutorKind::Wasm;
                return Err(PrepareError::WrongExecutor { id: id.clone(), executor });
            }
        };
        let mut cached = self.cached.lock().await;
        if let Some(at) = cached.iter().position(|(cached, _)| cached == id) {
            let entry = cached.remove(at).expect("its position was just found");
            let module = entry.1.clone();
            cached.push_back(entry);
            return Ok(module);
        }
        let module = self.compile(id, path.clone()).await?;
        if cached.len() >= CACHED_MAX {
            cached.pop_front();
        }
        cached.push_back((id.clone(), module.clone()));
        Ok(module)
    }

    async fn compile(&self, id: &str, path: PathBuf) -> Result<Prepared, PrepareError> {
        let (engine, linker) = (self.engine.clone(), self.linker.clone());
        spawn_blocking(move || {
            let bytes = read(&path)?;
            let module = Module::from_binary(&engine, &bytes)
                .map_err(|error| ModuleError::Invalid(error.into()))?;
            match module.get_export("_start") {
                Some(ExternType::Func(start))
                    if start.params().len() == 0 && start.results().len() == 0 => {}
                _ => return Err(ModuleError::NoStart),
            }
            linker.instantiate_pre(&module).map_err(|error| ModuleError::Import(error.into()))
        })
        .await
        .map_err(|_| PrepareError::Interrupted { id: id.to_owned() })?
        .map_err(|source| PrepareError::Module { id: id.to_owned(), source })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ModuleError> {
    let file = File::open(path).map_err(ModuleError::Read)?;
    let mut bytes = Vec::new();
    file.take(MODULE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(ModuleError::Read)?;
    if bytes.len() as u64 > MODULE_BYTES_MAX {
        return Err(ModuleError::TooLarge);
    }
    Ok(bytes)
}

/// Largest module. The compiler needs many times its size of memory.
const MODULE_BYTES_MAX: u64 = 64 << 20;
/// Compiled modules kept in memory.
const CACHED_MAX: usize = 16;
