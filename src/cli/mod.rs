//! The command line: nouns and verbs.

mod bootstrap;
mod coordinator;
mod dataset;
mod explain;
mod history;
mod image;
mod job;
mod lab;
mod node;
mod sim;
mod start;
mod verify;

use clap::{Parser, Subcommand};
use dockercomp_peer::reply::chain;

pub(crate) use self::dataset::{add as add_dataset, get as get_dataset};
pub(crate) use self::image::add as add_image;
pub(crate) use self::job::watch as watch_job;
pub(crate) use self::verify::verify;

use crate::demo;
use crate::failure::Code;
use crate::output::Format;

/// A peer-to-peer volunteer compute network.
///
/// Try it: dockercomp demo
#[derive(Debug, Parser)]
#[command(name = "dockercomp", version, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 ok, 1 other, 2 usage, 4 timed out, 5 conflict, 10 no process \
    answers, 11 Docker not usable, 12 not found, 13 verification failed, 14 no room, 20 job \
    failed, 130 interrupted."
)]
pub(crate) struct Cli {
    /// How results are written to standard output.
    #[arg(
        long,
        short,
        global = true,
        value_enum,
        default_value = "human",
        env = "DOCKERCOMP_OUTPUT"
    )]
    pub(crate) output: Format,

    /// What is logged to standard error: a level, or directives such as dockercomp_node=debug.
    #[arg(
        long,
        global = true,
        default_value = "warn,libp2p_kad=error",
        env = "DOCKERCOMP_LOG",
        value_name = "FILTER"
    )]
    log: String,

    /// Log as JSON lines.
    #[arg(long, global = true)]
    log_json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See a whole network at work on this machine, and a saboteur caught.
    Demo(demo::Demo),
    /// The door to a network.
    #[command(subcommand)]
    Bootstrap(bootstrap::Bootstrap),
    /// A project's coordinator.
    #[command(subcommand)]
    Coordinator(coordinator::Coordinator),
    /// A volunteer's node.
    #[command(subcommand)]
    Node(node::Node),
    /// Files and folders, content-addressed and seeded to peers.
    #[command(subcommand)]
    Dataset(dataset::Dataset),
    /// Container images, which travel as datasets.
    #[command(subcommand)]
    Image(image::Image),
    /// Jobs of a project.
    Job(job::Job),
    /// Check receipts, or everything that `job fetch` wrote, offline.
    Verify(verify::Verify),
    /// Simulate whole networks of volunteers, with the code that runs in production.
    Sim(dockercomp_simulations::cli::Sim),
    /// Run scenarios of volunteers with real processes on this machine.
    #[command(subcommand)]
    Lab(dockercomp_simulations::cli::Lab),
}

impl Cli {
    /// Carries the command out.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        start_logging(&self.log, self.log_json)?;
        let output = self.output;
        match self.command {
            Command::Demo(demo) => demo.run(output).await,
            Command::Bootstrap(bootstrap) => bootstrap.run(output).await,
            Command::Coordinator(coordinator) => coordinator.run(output).await,
            Command::Node(node) => node.run(output).await,
            Command::Dataset(dataset) => dataset.run(output).await,
            Command::Image(image) => image.run(output).await,
            Command::Job(job) => job.run(output).await,
            Command::Verify(verify) => verify.run(output),
            Command::Sim(sim) => sim::run(sim),
            Command::Lab(lab) => lab::run(lab, output),
        }
    }
}

/// What runs work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExecutorChoice {
    /// Docker where an engine answers, else WebAssembly.
    Auto,
    /// Docker containers.
    Docker,
    /// WebAssembly modules in the embedded runtime.
    Wasm,
}

impl From<ExecutorChoice> for dockercomp_executor::Choice {
    fn from(choice: ExecutorChoice) -> Self {
        match choice {
            ExecutorChoice::Auto => Self::Auto,
            ExecutorChoice::Docker => Self::Docker,
            ExecutorChoice::Wasm => Self::Wasm,
        }
    }
}

/// Says why a process did not start, with the exit code of what its user can mend.
fn start_failed(error: impl Into<anyhow::Error>) -> anyhow::Error {
    use dockercomp_executor::ChooseError;
    use dockercomp_node::StartError;
    use dockercomp_store::OpenError;

    use crate::failure::Failure;

    let error = error.into();
    if let Some(StartError::Executor(ChooseError::Docker { .. })) = error.downcast_ref() {
        return Failure::new(Code::Docker, chain(error.as_ref()))
            .fix("start the engine (systemctl start docker), or use --executor wasm")
            .into();
    }
    if let Some(StartError::NoProject) = error.downcast_ref() {
        return Failure::new(Code::Usage, chain(error.as_ref()))
            .fix("name the join link that the project's coordinator printed")
            .into();
    }
    if let Some(StartError::TooManyProjects) = error.downcast_ref() {
        return Failure::new(Code::Conflict, chain(error.as_ref()))
            .fix("start it without a link, and leave some (dockercomp node detach)")
            .into();
    }
    let is_held = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(OpenError::Held { .. }))
    };
    let message = chain(error.as_ref());
    if let Some((code, fix)) = error.chain().find_map(remedy) {
        return Failure::new(code, message).fix(fix).into();
    }
    if error.chain().any(is_held) {
        return Failure::new(Code::Conflict, chain(error.as_ref()))
            .fix("stop that process, or use another --data-dir")
            .into();
    }
    error
}

/// What can be done about a data directory that cannot be used.
fn remedy(cause: &(dyn std::error::Error + 'static)) -> Option<(Code, &'static str)> {
    use dockercomp_coordinator::ReplayError;
    use dockercomp_coordinator::backup::BackupError;
    use dockercomp_coordinator::history::HistoryError;
    use dockercomp_store::{OpenError, StoreError};

    const NEWER: (Code, &str) =
        (Code::Conflict, "use the version of dockercomp that wrote it, or another --data-dir");
    const DAMAGED: (Code, &str) = (
        Code::Verification,
        "check the disk, move this data directory away, and take up the newest back-up \
         (dockercomp coordinator restore)",
    );
    if let Some(error) = cause.downcast_ref::<ReplayError>() {
        return Some(if error.is_of_another_version() { NEWER } else { DAMAGED });
    }
    if let Some(StoreError::DiskFull { .. }) = cause.downcast_ref() {
        return Some((Code::Quota, "free some room on that disk, or lower --disk-reserve"));
    }
    if let Some(HistoryError::Nothing { .. }) = cause.downcast_ref() {
        return Some((Code::NotFound, "name the data directory of a coordinator, or a back-up"));
    }
    match cause.downcast_ref::<BackupError>() {
        Some(BackupError::Exists { .. }) => {
            return Some((Code::Conflict, "name a directory that does not exist yet"));
        }
        Some(BackupError::NotOne { .. } | BackupError::Nothing { .. }) => {
            return Some((Code::NotFound, "name a directory that `coordinator backup` wrote"));
        }
        Some(BackupError::Newer { .. }) => return Some(NEWER),
        _ => {}
    }
    match cause.downcast_ref::<OpenError>() {
        Some(OpenError::Newer { .. } | OpenError::Older { .. }) => Some(NEWER),
        Some(error @ OpenError::Store { .. }) if is_damage(error) => Some(DAMAGED),
        _ => None,
    }
}

/// Whether RocksDB said that bytes are not what was written.
fn is_damage(error: &dyn std::error::Error) -> bool {
    chain(error).contains("Corruption")
}

fn start_logging(filter: &str, json: bool) -> anyhow::Result<()> {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;

    use crate::failure::Failure;

    let filter: EnvFilter = filter
        .parse()
        .map_err(|error| Failure::new(Code::Usage, format!("--log {filter:?}: {error}")))?;
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .with_env_filter(filter);
    if json {
        builder.json().init();
    } else {
        builder.init();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
