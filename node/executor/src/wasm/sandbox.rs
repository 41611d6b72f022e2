//! What a WebAssembly program sees, and what it may take.
//!
//! | Thing | What it is |
//! |---|---|
//! | `/input` | read-only |
//! | `/output`, also as `.` | the run's output directory |
//! | `/checkpoint` | the run's checkpoint |
//! | arguments, environment | the run's own; the program is called `program` |
//! | standard input | empty |
//! | wall clock | stands still at the year 2000 |
//! | monotonic clock | advances by a microsecond each time it is read |
//! | random numbers | ChaCha20, seeded with the work unit |
//! | network | none |

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWrite;
use wasmtime::ResourceLimiter;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{FsPerms, HostMonotonicClock, HostWallClock, WasiCtxBuilder, async_trait};

use crate::error::RunError;
use crate::tail::Tail;
use crate::work::Run;

/// The state of one instance.
pub(super) struct Sandbox {
    wasi: WasiP1Ctx,
    pub(super) memory: MemoryBudget,
}

impl Sandbox {
    pub(super) fn new(run: &Run, tail: &Tail) -> Result<Self, RunError> {
        let mut builder = WasiCtxBuilder::new();
        builder.arg(PROGRAM_NAME).args(&run.args);
        for (name, value) in &run.env {
            builder.env(name, value);
        }
        builder.stdout(Printed(tail.clone())).stderr(Printed(tail.clone()));
        for (path, name, perms) in [
            (&run.input, "/input", FsPerms::ReadOnly),
            (&run.output, "/output", FsPerms::ReadWrite),
            // Relative paths lead to the output, as in a container.
            (&run.output, ".", FsPerms::ReadWrite),
            (&run.checkpoint, "/checkpoint", FsPerms::ReadWrite),
        ] {
            builder.preopened_dir(path, name, perms).map_err(|error| {
                let source = match error.downcast::<std::io::Error>() {
                    Ok(error) => error,
                    Err(error) => std::io::Error::other(error),
                };
                RunError::Directory { path: path.clone(), source }
            })?;
        }
        builder.wall_clock(Standing).monotonic_clock(Counting::default());
        builder.secure_random(random(&run.labels.unit, "random"));
        builder.insecure_random(random(&run.labels.unit, "insecure random"));
        builder.insecure_random_seed(0);
        builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        Ok(Self { wasi: builder.build_p1(), memory: MemoryBudget::new(run.limits.memory_bytes) })
    }

    pub(super) fn wasi(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }
}

/// The memory of an instance: linear memories and tables together.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    limit: u64,
    used: u64,
    /// The most that was used.
    pub(super) peak: u64,
    /// Whether the program asked for more than the limit.
    pub(super) was_refused: bool,
    /// What the last growth added, in case the host cannot give it.
    last: u64,
}

impl MemoryBudget {
    fn new(limit: u64) -> Self {
        Self { limit, used: 0, peak: 0, was_refused: false, last: 0 }
    }

    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>, unit: u64) -> bool {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // Refused by the program's own declaration, not by the limit.
            self.last = 0;
            return false;
        }
        let added = (desired.saturating_sub(current) as u64).saturating_mul(unit);
        match self.used.checked_add(added) {
            Some(used) if used <= self.limit => {
                self.used = used;
                self.peak = self.peak.max(used);
                self.last = added;
                true
            }
            _ => {
                self.was_refused = true;
                self.last = 0;
                false
            }
        }
    }

    fn take_back(&mut self) {
        self.used -= self.last;
        self.last = 0;
    }
}

impl ResourceLimiter for MemoryBudget {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired, maximum, 1))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired, maximum, TABLE_ELEMENT_BYTES))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }
}

/// A stream of random bytes that every replica of a work unit sees alike.
fn random(unit: &str, purpose: &str) -> ChaCha20Rng {
    let mut hash = Sha256::new();
    hash.update("dockercomp wasm 1 ");
    hash.update(purpose);
    hash.update([0]);
    hash.update(unit);
    ChaCha20Rng::from_seed(hash.finalize().into())
}

struct Standing;

impl HostWallClock for Standing {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        WALL_CLOCK
    }
}

/// Counts how often it is read, so that a loop that waits for time to pass comes to its end.
#[derive(Default)]
struct Counting(AtomicU64);

impl HostMonotonicClock for Counting {
    fn resolution(&self) -> u64 {
        MONOTONIC_STEP_NANOS
    }

    fn now(&self) -> u64 {
        self.0.fetch_add(MONOTONIC_STEP_NANOS, Ordering::Relaxed)
    }
}

/// Standard output and error: into the tail, at once and without end.
#[derive(Clone)]
struct Printed(Tail);

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Printed {
    async fn ready(&mut self) {}
}

impl OutputStream for Printed {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PRINT_BYTES_MAX)
    }
}

impl AsyncWrite for Printed {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.0.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The first argument of every program; its file's name differs between nodes.
const PROGRAM_NAME: &str = "program";
/// 1 January 2000, 00:00 UTC.
const WALL_CLOCK: Duration = Duration::from_secs(946_684_800);
/// What one reading of the monotonic clock adds.
const MONOTONIC_STEP_NANOS: u64 = 1_000;
/// Host memory behind one element of a table.
const TABLE_ELEMENT_BYTES: u64 = 16;
/// Bytes taken from a program in one write to its standard output or error.
const PRINT_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_over_all_memories_and_tables() {
        let mut budget = MemoryBudget::new(1000);
        assert!(budget.grow(0, 400, None, 1));
        assert!(budget.grow(0, 400, None, 1));
        assert!(!budget.grow(400, 700, Some(500), 1));
        assert!(!budget.was_refused, "its own maximum is not the limit");
        assert!(!budget.grow(0, 13, None, TABLE_ELEMENT_BYTES));
        assert!(budget.was_refused);
        assert!(budget.grow(0, 12, None, TABLE_ELEMENT_BYTES));
        budget.take_back();
        budget.take_back();
        assert_eq!((budget.used, budget.peak), (800, 992));
        assert!(!budget.grow(0, usize::MAX, None, u64::MAX));
    }
}
