//! The life of one instance.
//!
//! The instance runs on a thread of its own, as a future that gives way at every tick of the
//! engine's epoch. So it can be stopped anywhere, in a loop as well as in a sleep, by not
//! polling it any more.
//!
//! ```text
//! supervisor (async)                       thread
//!   tick the epoch every 10 ms ──────────►  instance gives way, looks at `stop`
//!   wall clock, output, cancel ──stop────►  instance is dropped
//!   judge  ◄──────────── result, fuel, memory, CPU time ───
//! ```

use std::fs;
use std::time::{Duration, Instant};

use dockercomp_protocol::execution::{Exit, Usage};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use wasmtime::Store;
use wasmtime_wasi::I32Exit;

use super::modules::Prepared;
use super::sandbox::Sandbox;
use crate::error::RunError;
use crate::output::{self, Violation, Written};
use crate::tail::Tail;
use crate::work::{Finished, Run};

/// Runs a prepared module.
pub(super) async fn run(
    module: Prepared,
    run: Run,
    cancelled: impl Future<Output = ()>,
) -> Result<Finished, RunError> {
    let engine = module.module().engine().clone();
    let tail = Tail::default();
    let sandbox = Sandbox::new(&run, &tail)?;
    let stop = CancellationToken::new();
    let started = Instant::now();
    let mut instance = {
        let (stop, handle) = (stop.clone(), Handle::current());
        spawn_blocking(move || handle.block_on(execute(module, sandbox, &stop)))
    };

    let mut ticks = tokio::time::interval(EPOCH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (end, executed) = {
        let mut cancelled = std::pin::pin!(cancelled);
        let mut watching = std::pin::pin!(output::watch(Written::by(&run), run.limits.clone()));
        let mut timeout = std::pin::pin!(tokio::time::sleep(run.limits.wall_time()));
        let end = loop {
            tokio::select! {
                biased;
                () = &mut cancelled => break End::Cancelled,
                executed = &mut instance => break End::ByItself(executed),
                () = &mut timeout => break End::TimedOut,
                violation = &mut watching => break End::Broke(violation),
                _ = ticks.tick() => engine.increment_epoch(),
            }
        };
        // In this order: an instance that gives way for the tick finds that it is stopped.
        stop.cancel();
        engine.increment_epoch();
        match end {
            End::ByItself(executed) => (None, executed),
            End::Cancelled => (Some(Stopped::Cancelled), instance.await),
            End::TimedOut => (Some(Stopped::With(Exit::TimedOut)), instance.await),
            End::Broke(violation) => (Some(Stopped::With(violation.into())), instance.await),
        }
    };
    let wall = started.elapsed();
    let executed = executed.map_err(|_| RunError::Interrupted)??;
    let mut exit = match end {
        Some(Stopped::Cancelled) => return Err(RunError::Cancelled),
        Some(Stopped::With(exit)) => exit,
        None => executed.judge(&tail),
    };

    let sealed = output::seal(Written::by(&run), run.limits.clone()).await;
    let sealed =
        sealed.map_err(|source| RunError::Directory { path: run.output.clone(), source })?;
    if let Err(violation) = sealed
        && exit.is_success()
    {
        exit = violation.into();
    }
    let usage = Usage {
        cpu_ms: millis(executed.cpu.unwrap_or(wall)),
        wall_ms: millis(wall),
        memory_peak_bytes: executed.memory_peak_bytes,
        fuel: executed.fuel,
    };
    Ok(Finished { exit, usage, log_tail: tail.render() })
}

/// Why an instance was no longer waited for.
enum End {
    ByItself(Result<Result<Executed, RunError>, tokio::task::JoinError>),
    TimedOut,
    Broke(Violation),
    Cancelled,
}

enum Stopped {
    Cancelled,
    With(Exit),
}

/// What an instance did, until its end or until it was stopped.
struct Executed {
    /// `None` when it was stopped.
    result: Option<wasmtime::Result<()>>,
    fuel: u64,
    memory_peak_bytes: u64,
    was_memory_refused: bool,
    cpu: Option<Duration>,
}

impl Executed {
    fn judge(&self, tail: &Tail) -> Exit {
        let exit = match &self.result {
            Some(Ok(())) => Exit::Code { code: 0 },
            // Stopped without a reason: cannot be, for the supervisor still waited.
            None => Exit::Crashed,
            Some(Err(error)) => match error.downcast_ref::<I32Exit>() {
                Some(exit) => {
                    u8::try_from(exit.0).map_or(Exit::Crashed, |code| Exit::Code { code })
                }
                None => {
                    tail.push(format!("{error:#}\n").as_bytes());
                    Exit::Crashed
                }
            },
        };
        if !exit.is_success() && self.was_memory_refused { Exit::OutOfMemory } else { exit }
    }
}

async fn execute(
    module: Prepared,
    sandbox: Sandbox,
    stop: &CancellationToken,
) -> Result<Executed, RunError> {
    let runtime = |error: wasmtime::Error| RunError::Runtime(error.into());
    let cpu_before = thread_cpu_time();
    let mut store = Store::new(module.module().engine(), sandbox);
    store.limiter(|sandbox| &mut sandbox.memory);
    store.set_fuel(FUEL).map_err(runtime)?;
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);

    let result = {
        let call = async {
            let instance = module.instantiate_async(&mut store).await?;
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
            start.call_async(&mut store, ()).await
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            result = call => Some(result),
        }
    };
    let cpu = cpu_before.and_then(|before| thread_cpu_time()?.checked_sub(before));
    let left = store.get_fuel().map_err(runtime)?;
    let memory = &store.data().memory;
    Ok(Executed {
        result,
        fuel: FUEL - left,
        memory_peak_bytes: memory.peak,
        was_memory_refused: memory.was_refused,
        cpu,
    })
}

/// CPU time of this thread, where the kernel tells it: in nanoseconds if it keeps scheduler
/// statistics, else in ticks.
fn thread_cpu_time() -> Option<Duration> {
    let precise = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = precise.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    if let Some(nanos @ 1..) = nanos {
        return Some(Duration::from_nanos(nanos));
    }
    let stat = fs::read_to_string("/proc/thread-self/stat").ok()?;
    // The name, in parentheses, may hold spaces; user and system time are fields 14 and 15.
    let fields = stat.rsplit_once(')')?.1;
    let mut fields = fields.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * TICK_MILLIS))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How often a running instance gives way.
const EPOCH_INTERVAL: Duration = Duration::from_millis(10);
/// Fuel to begin with: enough for centuries. Time is limited by the wall clock.
const FUEL: u64 = u64::MAX;
/// Length of a tick in `/proc`; the kernel's `USER_HZ` is 100 on every architecture.
const TICK_MILLIS: u64 = 10;
