//! The life of one container, from its creation to its removal.
//!
//! ```text
//! create ─► attach ─► start ─► wait ──┬─ ended by itself ──► exit code, OOM flag
//!                                     ├─ wall-clock limit ─► kill ─► timed out
//!                                     ├─ output too large ─► kill
//!                                     └─ cancelled ────────► kill
//!                              then always: remove, judge the output
//! ```
//!
//! # How an exit code is read
//!
//! The init process reports a program that was ended by signal *n* as 128 + *n*, and an engine
//! cannot tell this from a program that returned that number: 129 to 159 count as crashed.
//! 153 (file size limit) is an output that was too large, and 137 (killed) together with the
//! engine's word, or with memory at its limit, is out of memory.

use std::path::Path;
use std::time::{Duration, Instant};

use bollard::container::AttachContainerResults;
use bollard::errors::Error as EngineError;
use bollard::models::ContainerState;
use bollard::query_parameters::{AttachContainerOptions, CreateContainerOptions};
use dockercomp_protocol::execution::{Exit, Usage};
use futures::{Stream, StreamExt};

use super::policy::{self, Host};
use super::usage::{Meter, Reading};
use super::{Engine, is_conflict, is_not_found, not_started, status};
use crate::error::RunError;
use crate::output::{self, Violation, Written};
use crate::tail::Tail;
use crate::work::{Finished, Run};

/// Runs a prepared image. Must not be dropped before it ends, or the container is left behind.
pub(super) async fn run(
    engine: &Engine,
    image: &str,
    run: &Run,
    cancelled: impl Future<Output = ()>,
) -> Result<Finished, RunError> {
    open_directories(run, &engine.host)?;
    let id = match create(engine, image, run).await {
        Ok(id) => id,
        Err(error) if says_not_runnable(&error) => return Ok(not_started(&error.to_string())),
        Err(source) => return Err(RunError::Engine { action: "create", source }),
    };
    let result = supervise(engine, &id, run, cancelled).await;
    if let Err(error) = engine.remove_container(&id).await {
        // Its result stands. What is left carries our label and goes with the next cleanup.
        tracing::warn!(container = %id, %error, "container could not be removed");
    }
    let mut finished = result?;
    // Only now nobody writes to the directories any more.
    let sealed = output::seal(Written::by(run), run.limits.clone()).await;
    if let Err(violation) = sealed.map_err(|source| directory_error(&run.output, source))?
        && finished.exit.is_success()
    {
        finished.exit = violation.into();
    }
    Ok(finished)
}

/// Why a container was no longer waited for.
enum End {
    ByItself,
    TimedOut,
    Broke(Violation),
    Cancelled,
}

async fn supervise(
    engine: &Engine,
    id: &str,
    run: &Run,
    cancelled: impl Future<Output = ()>,
) -> Result<Finished, RunError> {
    let docker = &engine.docker;
    let tail = Tail::default();
    // Attached before it starts: nothing that it prints is lost, and nothing is kept on disk.
    let options = AttachContainerOptions {
        stream: true,
        stdout: true,
        stderr: true,
        ..AttachContainerOptions::default()
    };
    let AttachContainerResults { output, input } = docker
        .attach_container(id, Some(options))
        .await
        .map_err(|source| RunError::Engine { action: "attach to", source })?;
    let mut reading = std::pin::pin!(read_output(output, &tail));

    if let Err(error) = docker.start_container(id, None).await {
        return if status(&error) == Some(400) || says_not_runnable(&error) {
            Ok(not_started(&error.to_string()))
        } else {
            Err(RunError::Engine { action: "start", source: error })
        };
    }
    let started = Instant::now();

    let meter = Meter::default();
    let mut is_read = false;
    let end = {
        let mut exited = std::pin::pin!(exited(engine, id));
        let mut cancelled = std::pin::pin!(cancelled);
        let mut metering = std::pin::pin!(meter.run(docker, id));
        let mut watching = std::pin::pin!(output::watch(Written::by(run), run.limits.clone()));
        let mut timeout = std::pin::pin!(tokio::time::sleep(run.limits.wall_time()));
        loop {
            tokio::select! {
                biased;
                () = &mut cancelled => break End::Cancelled,
                exited = &mut exited => {
                    exited.map_err(|source| RunError::Engine { action: "wait for", source })?;
                    break End::ByItself;
                }
                () = &mut timeout => break End::TimedOut,
                violation = &mut watching => break End::Broke(violation),
                () = &mut metering => unreachable!("metering ends with the run"),
                () = &mut reading, if !is_read => is_read = true,
            }
        }
    };
    let wall = started.elapsed();
    if !matches!(end, End::ByItself) {
        // The engine cannot end a container whose output nobody reads.
        let mut killing = std::pin::pin!(kill(engine, id));
        loop {
            tokio::select! {
                () = &mut killing => break,
                () = &mut reading, if !is_read => is_read = true,
            }
        }
    }
    if !is_read && tokio::time::timeout(READ_TIMEOUT, reading).await.is_err() {
        tracing::debug!(container = %id, "the end of its output did not come");
    }
    drop(input);

    let used = meter.reading();
    let exit = match end {
        End::Cancelled => return Err(RunError::Cancelled),
        End::TimedOut => Exit::TimedOut,
        End::Broke(violation) => violation.into(),
        End::ByItself => {
            let state = final_state(engine, id, &used, run).await?;
            judge(&state, &used, run, &tail)
        }
    };
    let usage = Usage {
        cpu_ms: millis(used.cpu),
        wall_ms: millis(wall),
        memory_peak_bytes: used.memory_peak_bytes,
        fuel: 0,
    };
    Ok(Finished { exit, usage, log_tail: tail.render() })
}

/// Lets the container's user write the output directory and the checkpoint.
fn open_directories(run: &Run, host: &Host) -> Result<(), RunError> {
    for path in [&run.input, &run.output, &run.checkpoint] {
        let is_usable = path.is_absolute() && path.to_str().is_some();
        if !is_usable {
            return Err(directory_error(path, std::io::ErrorKind::InvalidInput.into()));
        }
        if !std::fs::metadata(path).map_err(|source| directory_error(path, source))?.is_dir() {
            return Err(directory_error(path, std::io::ErrorKind::NotADirectory.into()));
        }
    }
    if host.uid == policy::NOBODY {
        for path in [&run.output, &run.checkpoint] {
            std::os::unix::fs::chown(path, Some(host.uid), Some(host.gid))
                .map_err(|source| directory_error(path, source))?;
        }
    }
    Ok(())
}

async fn create(engine: &Engine, image: &str, run: &Run) -> Result<String, EngineError> {
    let name = container_name(&engine.short, &run.labels.replica);
    let options =
        CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
    let body = policy::container(run, image, &engine.node, &engine.host);
    match engine.docker.create_container(Some(options.clone()), body.clone()).await {
        Ok(created) => Ok(created.id),
        // A crash left one of this name: it is ours, for the name holds our name.
        Err(conflict) if is_conflict(&conflict) => {
            engine.remove_container(&name).await?;
            Ok(engine.docker.create_container(Some(options), body).await?.id)
        }
        Err(error) => Err(error),
    }
}

/// Returns when the container no longer runs.
async fn exited(engine: &Engine, id: &str) -> Result<(), EngineError> {
    loop {
        let answer = std::pin::pin!(engine.docker.wait_container(id, None)).next().await;
        match answer {
            // The library reports an exit code other than zero as an error.
            Some(Ok(_) | Err(EngineError::DockerContainerWaitError { .. })) => return Ok(()),
            Some(Err(error)) if is_not_found(&error) => return Err(error),
            // The connection broke. Is the engine gone, or only the connection?
            Some(Err(_)) | None => {
                let state = engine.docker.inspect_container(id, None).await?.state;
                if !state.and_then(|state| state.running).unwrap_or(false) {
                    return Ok(());
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
    }
}

async fn read_output(
    mut output: impl Stream<Item = Result<bollard::container::LogOutput, EngineError>> + Unpin,
    tail: &Tail,
) {
    while let Some(Ok(chunk)) = output.next().await {
        tail.push(chunk.as_ref());
    }
}

async fn kill(engine: &Engine, id: &str) {
    match engine.docker.kill_container(id, None).await {
        Ok(()) => {}
        // It ended at the same moment.
        Err(error) if is_conflict(&error) || is_not_found(&error) => {}
        // Its removal will kill it as well.
        Err(error) => tracing::warn!(container = %id, %error, "container could not be killed"),
    }
}

async fn final_state(
    engine: &Engine,
    id: &str,
    used: &Reading,
    run: &Run,
) -> Result<ContainerState, RunError> {
    let mut tries = OOM_FLAG_TRIES;
    loop {
        let container = engine
            .docker
            .inspect_container(id, None)
            .await
            .map_err(|source| RunError::Engine { action: "inspect", source })?;
        let state = container.state.unwrap_or_default();
        tries -= 1;
        // The engine hears of an exit and of its cause by two ways; the cause may come later.
        let may_come = state.exit_code == Some(KILLED)
            && state.oom_killed != Some(true)
            && !is_at_memory_limit(used, run);
        if !may_come || tries == 0 {
            return Ok(state);
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

fn judge(state: &ContainerState, used: &Reading, run: &Run, tail: &Tail) -> Exit {
    let code = state.exit_code.unwrap_or(-1);
    let was_oom_killed = state.oom_killed == Some(true);
    match code {
        // A child was killed, and the program got over it.
        0 => Exit::Code { code: 0 },
        _ if was_oom_killed => Exit::OutOfMemory,
        KILLED if is_at_memory_limit(used, run) => Exit::OutOfMemory,
        FILE_TOO_LARGE => Exit::OutputTooLarge,
        126 | 127 if tail.render().starts_with(INIT_FAILURE) => Exit::NotStarted,
        129..=159 => Exit::Crashed,
        code => u8::try_from(code).map_or(Exit::Crashed, |code| Exit::Code { code }),
    }
}

fn is_at_memory_limit(used: &Reading, run: &Run) -> bool {
    used.memory_peak_bytes >= run.limits.memory_bytes / 100 * 99
}

/// Whether the engine says that there is nothing in the image that it could run.
fn says_not_runnable(error: &EngineError) -> bool {
    let EngineError::DockerResponseServerError { message, .. } = error else { return false };
    let message = message.to_lowercase();
    ["exec format error", "executable file not found", "no command specified"]
        .iter()
        .any(|words| message.contains(words))
}

fn container_name(short: &str, replica: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let replica: String =
        replica.chars().map(|c| if is_plain(c) { c } else { '-' }).take(REPLICA_NAME_MAX).collect();
    format!("dockercomp-{short}-{replica}")
}

fn directory_error(path: &Path, source: std::io::Error) -> RunError {
    RunError::Directory { path: path.to_owned(), source }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// 128 + SIGKILL.
const KILLED: i64 = 137;
/// 128 + SIGXFSZ.
const FILE_TOO_LARGE: i64 = 153;
/// How the engine's init process begins when it cannot start the program.
const INIT_FAILURE: &str = "[FATAL tini";
/// Longest part of a replica's id in a container's name.
const REPLICA_NAME_MAX: usize = 100;
/// Time between two questions about the same thing.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How often the engine is asked for the cause of a kill.
const OOM_FLAG_TRIES: u32 = 5;
/// Longest wait for the end of the output after the container has ended.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dockercomp_protocol::execution::Limits;

    use super::*;
    use crate::work::{Labels, Program};

    fn run() -> Run {
        Run {
            program: Program::Image { id: "p".into(), archive: "/p".into() },
            args: vec![],
            env: BTreeMap::new(),
            input: "/i".into(),
            output: "/o".into(),
            checkpoint: "/c".into(),
            limits: Limits {
                cpu_millis: 1000,
                memory_bytes: 1_000_000,
                tmp_bytes: 1,
                output_bytes: 1,
                output_files: 1,
                pids: 1,
                wall_ms: 1,
            },
            labels: Labels { job: "j".into(), unit: "u".into(), replica: "r".into() },
        }
    }

    #[test]
    fn exit_codes_are_read_as_documented() {
        let none = Reading::default();
        let full = Reading { memory_peak_bytes: 1_000_000, ..none };
        for (code, oom, used, expected) in [
            (0, false, none, Exit::Code { code: 0 }),
            (0, true, full, Exit::Code { code: 0 }),
            (3, false, full, Exit::Code { code: 3 }),
            (255, false, none, Exit::Code { code: 255 }),
            (127, false, none, Exit::Code { code: 127 }),
            (1, true, none, Exit::OutOfMemory),
            (137, true, none, Exit::OutOfMemory),
            (137, false, full, Exit::OutOfMemory),
            (137, false, none, Exit::Crashed),
            (139, false, none, Exit::Crashed),
            (153, false, none, Exit::OutputTooLarge),
            (-1, false, none, Exit::Crashed),
        ] {
            let state = ContainerState {
                exit_code: Some(code),
                oom_killed: Some(oom),
                ..ContainerState::default()
            };
            let tail = Tail::default();
            assert_eq!(judge(&state, &used, &run(), &tail), expected, "code {code}, oom {oom}");
        }
    }

    #[test]
    fn an_init_failure_is_a_program_that_did_not_start() {
        let state = ContainerState { exit_code: Some(127), ..ContainerState::default() };
        let tail = Tail::default();
        tail.push(b"[FATAL tini (7)] exec /program failed: No such file or directory\n");
        assert_eq!(judge(&state, &Reading::default(), &run(), &tail), Exit::NotStarted);
    }

    #[test]
    fn names_are_ones_that_docker_accepts() {
        assert_eq!(container_name("ab", "u/1 r:2"), "dockercomp-ab-u-1-r-2");
        assert!(container_name("ab", &"x".repeat(500)).len() < 128);
    }
}
