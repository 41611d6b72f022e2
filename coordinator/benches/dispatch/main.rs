//! `make bench-dispatch`: how many work units a second a coordinator validates.
//!
//! HyperQueue's zero-worker experiment with what a network of strangers needs on top: the real
//! coordinator process on a durable journal, and agents that answer at once over real
//! connections, with signed results, as many as the quorum wants of each unit.
//!
//! # What is counted
//!
//! From the moment at which a user's `job submit` begins until the coordinator says that the
//! job is done: every work unit leased, reported, compared, accepted and in the log of
//! receipts, its output stored, all of it synced to disk. Everything runs on this machine and
//! shares its cores.
//!
//! # What is not here
//!
//! Programs and inputs: agents make outputs of some bytes, which travel in their reports.

mod agents;
mod core_alone;
mod process;
mod table;

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use dockercomp_protocol::link::peer_of;
use multiaddr::Multiaddr;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use agents::Agent;
use process::{Coordinator, Process};
use table::{Row, Table};

/// Conversations that an agent carries on at one time.
const CONVERSATIONS: usize = 4;
/// How often the coordinator is asked whether the job is done.
const POLL: Duration = Duration::from_millis(20);
/// A job that has made no progress for this long has failed.
const STUCK: Duration = Duration::from_secs(120);
/// Idle agents in one process: each has several open files.
const CROWD: usize = 2500;
/// Agents that connect at one time.
const CONNECTING: usize = 32;

#[derive(Parser)]
#[command(about = "Measures how many work units a second a coordinator validates")]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// The release build of the binary that is measured.
    #[arg(long, default_value = "target/release/dockercomp")]
    binary: PathBuf,
    /// Work units of a job.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    units: Vec<u64>,
    /// Agents that work on it.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16])]
    agents: Vec<usize>,
    /// Results that must agree.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3])]
    quorum: Vec<u32>,
    /// Idle agents that stay connected for a minute; 0 leaves that out.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// A Python interpreter that has Dask `distributed`.
    #[arg(long)]
    dask: Option<PathBuf>,
    /// Where the data directories and the results go.
    #[arg(long, default_value = "target/bench")]
    into: PathBuf,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Part {
    /// The agents' process, which this program starts for itself.
    #[command(hide = true)]
    Agents {
        /// Where the coordinator is, ending in /p2p/ID.
        #[arg(long)]
        coordinator: Multiaddr,
        /// How many agents.
        #[arg(long)]
        n: usize,
        /// Whether they only stay connected.
        #[arg(long)]
        idle: bool,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(Part::Agents { coordinator, n, idle }) = args.part {
        return run_agents(&coordinator, n, idle).await;
    }
    ensure!(args.binary.is_file(), "build {} first: make bench-dispatch", args.binary.display());
    std::fs::create_dir_all(&args.into)?;
    let mut table = Table::default();
    for quorum in [1, 2, 3] {
        let units = 200_000;
        let seconds = tokio::task::spawn_blocking(move || core_alone::decide(units, quorum));
        table.core(quorum, units as f64 / seconds.await??);
    }
    if let Some(python) = &args.dask {
        table.dask(&dask(python)?);
    } else {
        println!("Dask is not measured: no Python with distributed was given (--dask)");
    }
    for &units in &args.units {
        for &n in &args.agents {
            for &quorum in args.quorum.iter().filter(|quorum| **quorum as usize <= n) {
                table.row(measure(&args, units, n, quorum).await?);
            }
        }
    }
    submit_millions(&args, &mut table).await?;
    if args.idle > 0 {
        stay_idle(&args, &mut table).await?;
    }
    table.finish(&args.into.join("dispatch.json"))
}

/// One job on a fresh coordinator.
async fn measure(args: &Args, units: u64, n: usize, quorum: u32) -> anyhow::Result<Row> {
    let coordinator = Coordinator::start(&args.binary, &args.into).await?;
    let agents = start_agents(&coordinator, n, false).await?;
    let before = (coordinator.used()?, agents.used()?);
    let started = Instant::now();
    let (job, _) = coordinator.submit(units, quorum).await?;
    wait_until_done(&coordinator, &job, units).await?;
    let seconds = started.elapsed().as_secs_f64();
    let after = (coordinator.used()?, agents.used()?);
    let row = Row {
        units,
        agents: n,
        quorum,
        seconds,
        coordinator_cpu: after.0.cpu - before.0.cpu,
        agents_cpu: after.1.cpu - before.1.cpu,
        peak: after.0.peak,
        disk: coordinator.disk()?,
    };
    agents.stop().await?;
    coordinator.stop().await?;
    Ok(row)
}

async fn wait_until_done(coordinator: &Coordinator, job: &str, units: u64) -> anyhow::Result<()> {
    let mut progress = (0, Instant::now());
    loop {
        let info = coordinator.job(job).await?;
        let stored = info["stored"].as_u64().context("work units whose output is stored")?;
        match info["state"].as_str() {
            Some("done") => {
                ensure!(stored == units, "the job is done with {stored} of {units} units");
                return Ok(());
            }
            Some("running") => {}
            other => bail!("the job is {other:?}"),
        }
        if stored > progress.0 {
            progress = (stored, Instant::now());
        }
        ensure!(progress.1.elapsed() < STUCK, "the job is stuck at {stored} of {units} units");
        tokio::time::sleep(POLL).await;
    }
}

/// How long it takes to submit a job of ten million work units.
async fn submit_millions(args: &Args, table: &mut Table) -> anyhow::Result<()> {
    let coordinator = Coordinator::start(&args.binary, &args.into).await?;
    let before = coordinator.used()?;
    let (_, seconds) = coordinator.submit(10_000_000, 2).await?;
    table.submitted(seconds, coordinator.used()?.resident.saturating_sub(before.resident));
    coordinator.stop().await
}

/// What connected nodes without work cost in a minute.
async fn stay_idle(args: &Args, table: &mut Table) -> anyhow::Result<()> {
    const MINUTE: Duration = Duration::from_secs(60);
    let coordinator = Coordinator::start(&args.binary, &args.into).await?;
    let alone = coordinator.used()?;
    let mut crowds = Vec::new();
    while crowds.len() * CROWD < args.idle {
        let n = CROWD.min(args.idle - crowds.len() * CROWD);
        crowds.push(start_agents(&coordinator, n, true).await?);
    }
    let before = coordinator.used()?;
    tokio::time::sleep(MINUTE).await;
    let after = coordinator.used()?;
    table.idle(args.idle, after.resident.saturating_sub(alone.resident), after.cpu - before.cpu);
    for crowd in crowds {
        crowd.stop().await?;
    }
    coordinator.stop().await
}

/// Starts the agents' process; they are registered when this returns.
async fn start_agents(coordinator: &Coordinator, n: usize, idle: bool) -> anyhow::Result<Process> {
    let this = std::env::current_exe()?;
    let n = n.to_string();
    let mut args = vec!["agents", "--coordinator", &coordinator.address, "--n", &n];
    args.extend(idle.then_some("--idle"));
    Ok(Process::start(&this, &args).await?.0)
}

/// The agents' process: connects them all, says so, and works until standard input ends.
async fn run_agents(coordinator: &Multiaddr, n: usize, idle: bool) -> anyhow::Result<()> {
    let peer = peer_of(coordinator).context("an address that ends in /p2p/ID")?;
    let shutdown = CancellationToken::new();
    let streams = if idle { 1 } else { CONVERSATIONS };
    let mut agents = Vec::with_capacity(n);
    let mut connecting = JoinSet::new();
    for _ in 0..n {
        if connecting.len() == CONNECTING {
            agents.extend(connecting.join_next().await.transpose()?.transpose()?);
        }
        let (address, shutdown) = (coordinator.clone(), shutdown.clone());
        let connect = async move { Agent::connect((peer, &address), streams, shutdown).await };
        connecting.spawn(connect);
    }
    while let Some(agent) = connecting.join_next().await {
        agents.push(agent??);
    }
    println!("ready");
    std::io::stdout().flush()?;
    let mut working = JoinSet::new();
    for agent in agents {
        let shutdown = shutdown.clone();
        working.spawn(async move {
            if idle { agent.idle(shutdown).await } else { agent.work(shutdown).await }
        });
    }
    let asked = shutdown.clone();
    std::thread::spawn(move || {
        while std::io::stdin().lock().lines().next().is_some() {}
        asked.cancel();
    });
    while let Some(ended) = working.join_next().await {
        ended??;
    }
    Ok(())
}

/// Empty tasks on Dask, as tasks a second.
fn dask(python: &Path) -> anyhow::Result<Vec<(u64, f64)>> {
    const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/dispatch/dask_empty.py");
    let output = std::process::Command::new(python).arg(SCRIPT).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}
