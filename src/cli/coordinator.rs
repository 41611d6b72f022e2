//! `dockercomp coordinator`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use dockercomp_coordinator::api::types::{
    BackupRequest, CoordinatorStatus, Leaderboard, NodeExplained, NodeInfo,
};
use dockercomp_coordinator::backup::{self, Note};
use dockercomp_coordinator::{Options, Rhythm, Service};
use multiaddr::Multiaddr;
use serde::Serialize;
use tokio::io::AsyncReadExt;

use super::explain;
use super::history;
use super::start::Start;
use crate::client::Client;
use crate::failure;
use crate::output::{self, Format};
use crate::paths::{Role, data_dir};
use crate::verify;

/// Commands about a project's coordinator.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Coordinator {
    /// Start a coordinator and print the link with which nodes join.
    Start(StartCoordinator),
    /// Say what the coordinator on this machine is, and how nodes join it.
    Status(Where),
    /// Copy everything that a coordinator needs to go on, keys included, while it runs or not.
    Backup {
        #[command(flatten)]
        at: Where,
        /// A directory that does not exist yet. Keep it as safe as the project's key.
        into: PathBuf,
    },
    /// Make a data directory of a back-up. Never run two coordinators of one project.
    Restore {
        /// What `coordinator backup` wrote.
        from: PathBuf,
        #[command(flatten)]
        at: Where,
    },
    /// Write what this coordinator has lived through as a scenario, to ask what would have been:
    /// `dockercomp sim run FILE --set jobs.j00.validation.policy=adaptive`.
    History {
        /// Its data directory, or a back-up; no coordinator may run on it.
        #[command(flatten)]
        at: Where,
        /// Where the scenario is written.
        #[arg(long, value_name = "FILE")]
        into: PathBuf,
    },
    /// Write the newest signed head of the log of accepted work units into a file, for
    /// `dockercomp verify --heads`.
    Head {
        #[command(flatten)]
        at: Where,
        /// An earlier head, which the new one is to prove that it carries on.
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
        /// Where it is written.
        #[arg(long, value_name = "FILE")]
        into: PathBuf,
    },
    /// List the nodes that the coordinator on this machine knows: what they offer, how they
    /// stand, and what they have earned.
    Nodes(Where),
    /// List nodes and operators by what they have earned.
    Leaderboard {
        #[command(flatten)]
        at: Where,
        /// How many of each.
        #[arg(long, default_value_t = 20, value_name = "N")]
        most: usize,
    },
    /// Say why a node gets no work.
    Explain {
        /// The node's id.
        node: String,
        #[command(flatten)]
        at: Where,
    },
}

/// Which coordinator is meant.
#[derive(Debug, clap::Args)]
pub(crate) struct Where {
    /// Its data directory.
    #[arg(long, env = "DOCKERCOMP_DATA_DIR", value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
}

/// Options of `coordinator start`.
#[derive(Debug, clap::Args)]
pub(crate) struct StartCoordinator {
    #[command(flatten)]
    start: Start,

    /// What people call the project.
    #[arg(long, default_value = "my project")]
    name: String,

    /// Address of a bootstrap node, ending in /p2p/ID; may be repeated.
    #[arg(long, required = true, value_name = "MULTIADDR")]
    bootstrap: Vec<Multiaddr>,

    /// Loopback address for commands on this machine; port 0 lets the system choose.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    api: SocketAddr,

    /// Room on the disk that is left free; below it no data is added, and below half of it the
    /// coordinator pauses.
    #[arg(long, default_value = "256MiB", value_name = "SIZE")]
    disk_reserve: bytesize::ByteSize,

    /// Write the whole state after this many records, so that a restart replays no more.
    #[arg(long, default_value_t = Rhythm::default().records, value_name = "RECORDS")]
    snapshot_every: u64,

    /// After a restart no lease runs out for this long: nodes could not report.
    #[arg(long, default_value = "2min", value_name = "DURATION")]
    restart_grace: humantime::Duration,

    /// Compute an accepted output again when all nodes that have it gave nothing of it for this
    /// long, while another node was there that could compute it.
    #[arg(long, default_value = "10min", value_name = "DURATION")]
    outputs_lost_after: humantime::Duration,
}

#[derive(Serialize)]
struct Ready {
    data_dir: std::path::PathBuf,
    peer_id: String,
    project: String,
    join_link: String,
}

impl Coordinator {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<()> {
        match self {
            Self::Start(start) => start.run(format).await,
            Self::Status(at) => {
                let status: CoordinatorStatus = at.client()?.get("/api/v1/status").await?;
                output::print(format, &status, |status| {
                    let paused = status.paused.as_ref();
                    let paused = paused.map(|why| format!("\npaused     {why}"));
                    format!(
                        "project    {} ({})\njoin with  dockercomp node start '{}'\npeers      {}\n\
                         disk       {} used{}",
                        status.project,
                        status.name,
                        status.join_link,
                        status.peer.peers.len(),
                        output::size(status.peer.used_bytes),
                        paused.unwrap_or_default(),
                    )
                });
                Ok(())
            }
            Self::Head { at, since, into } => {
                let since = since.map_or(Ok(0), |path| verify::entries_of(&path))?;
                let client = at.client()?;
                let mut stream = client.stream(&format!("/api/v1/log/head?since={since}")).await?;
                let mut notice = Vec::new();
                stream.read_to_end(&mut notice).await.context("the coordinator went away")?;
                std::fs::write(&into, notice)
                    .with_context(|| format!("cannot write {}", into.display()))?;
                let written = verify::head(&into, None)?;
                output::print(format, &written, verify::Head::human);
                Ok(())
            }
            Self::History { at, into } => history::write(&at, &into, format).await,
            Self::Backup { at, into } => back_up(&at, &into, format).await,
            Self::Restore { from, at } => {
                let dir = data_dir(at.data_dir.as_ref(), Role::Coordinator)?;
                let restored = tokio::task::spawn_blocking({
                    let dir = dir.clone();
                    move || backup::restore(&from, &dir)
                });
                let note = restored.await?.map_err(super::start_failed)?;
                output::print(format, &note, |note| {
                    format!("{} holds what was there at {}", dir.display(), note.begun_at)
                });
                Ok(())
            }
            Self::Leaderboard { at, most } => {
                let path = format!("/api/v1/leaderboard?most={most}");
                let board: Leaderboard = at.client()?.get(&path).await?;
                output::print(format, &board, leaderboard);
                Ok(())
            }
            Self::Explain { node, at } => {
                let path = format!("/api/v1/nodes/{node}/explain");
                let explained: NodeExplained = at.client()?.get(&path).await?;
                output::print(format, &explained, explain::node);
                Ok(())
            }
            Self::Nodes(at) => {
                let nodes: Vec<NodeInfo> = at.client()?.get("/api/v1/nodes").await?;
                output::print(format, &nodes, |nodes| table(nodes));
                Ok(())
            }
        }
    }
}

/// Asks the running coordinator for a back-up, or makes it if none runs.
async fn back_up(at: &Where, into: &Path, format: Format) -> anyhow::Result<()> {
    let dir = data_dir(at.data_dir.as_ref(), Role::Coordinator)?;
    let into = std::path::absolute(into).context("cannot find the directory")?;
    let request = serde_json::to_vec(&BackupRequest { into: into.clone() })?;
    let asked = match Client::open(&dir) {
        Ok(client) => client.post_json::<Note>("/api/v1/backup", request).await,
        Err(nobody) => Err(nobody),
    };
    let note = match asked {
        Err(error) if failure::is_unreachable(&error) && dir.join("db").exists() => {
            let into = into.clone();
            let made = tokio::task::spawn_blocking(move || backup::offline(&dir, &into)).await?;
            made.map_err(super::start_failed)?
        }
        asked => asked?,
    };
    output::print(format, &note, |note| {
        format!(
            "{} holds all that was there at {}, the project's key included",
            into.display(),
            note.begun_at
        )
    });
    Ok(())
}

impl Where {
    fn client(&self) -> anyhow::Result<Client> {
        Client::open(&data_dir(self.data_dir.as_ref(), Role::Coordinator)?)
    }
}

fn table(nodes: &[NodeInfo]) -> String {
    let rows = nodes.iter().map(|node| {
        vec![
            node.node.clone(),
            node.operator.clone().unwrap_or_else(none),
            node.executors.join(","),
            format!("{:.1}", f64::from(node.cpu_millis) / 1000.0),
            output::size(node.memory_bytes),
            node.running.to_string(),
            node.valid.to_string(),
            node.invalid.to_string(),
            node.errors.to_string(),
            node.no_reply.to_string(),
            credit(node.credit),
            node.last_seen.clone(),
        ]
    });
    let header = [
        "NODE",
        "OPERATOR",
        "EXECUTOR",
        "CPUS",
        "MEMORY",
        "RUNNING",
        "VALID",
        "INVALID",
        "ERRORS",
        "NO REPLY",
        "CREDIT",
        "LAST SEEN",
    ];
    let nodes_table = output::table(&header, rows);
    let standings = nodes.iter().flat_map(|node| {
        node.standings.iter().map(move |standing| {
            vec![
                node.node.clone(),
                standing.executor.clone(),
                standing.consecutive_valid.to_string(),
                format!("{:.1}", standing.valid_lately),
                format!("{:.1}", standing.invalid_lately),
                format!("{:.1}", standing.errors_lately),
                format!("{:.1}", standing.late_lately),
                standing.caught.to_string(),
                if standing.barred {
                    format!("until {} confirmed", standing.confirmed_needed)
                } else {
                    "no".to_owned()
                },
                format!("{} of {}", node.quota_left, node.quota_per_day),
            ]
        })
    });
    let standings: Vec<_> = standings.collect();
    if standings.is_empty() {
        return nodes_table;
    }
    let header = [
        "NODE",
        "EXECUTOR",
        "IN A ROW",
        "VALID",
        "INVALID",
        "ERRORS",
        "LATE",
        "CAUGHT",
        "BARRED",
        "QUOTA TODAY",
    ];
    let standings = output::table(&header, standings);
    format!("{nodes_table}\n\nhow they stand (results of a month ago count half)\n{standings}")
}

fn leaderboard(board: &Leaderboard) -> String {
    if board.nodes.is_empty() {
        return "nobody has earned anything yet".to_owned();
    }
    let rows = board.nodes.iter().enumerate().map(|(place, node)| {
        let operator = node.operator.clone().unwrap_or_else(none);
        vec![(place + 1).to_string(), node.node.clone(), operator, credit(node.credit)]
    });
    let nodes = output::table(&["PLACE", "NODE", "OPERATOR", "CREDIT"], rows);
    if board.operators.is_empty() {
        return nodes;
    }
    let rows = board.operators.iter().enumerate().map(|(place, of)| {
        vec![(place + 1).to_string(), of.operator.clone(), of.nodes.to_string(), credit(of.credit)]
    });
    let operators = output::table(&["PLACE", "OPERATOR", "NODES", "CREDIT"], rows);
    format!("{nodes}\n\n{operators}")
}

/// Cobblestones; small networks earn small parts of one.
fn credit(cobblestones: f64) -> String {
    format!("{cobblestones:.3}")
}

/// What is written where nothing was said.
fn none() -> String {
    "-".to_owned()
}

impl StartCoordinator {
    async fn run(self, format: Format) -> anyhow::Result<()> {
        let args = self;
        let shutdown = args.start.shutdown()?;
        let dir = data_dir(args.start.data_dir.as_ref(), Role::Coordinator)?;
        let options = Options {
            dir: dir.clone(),
            name: args.name,
            listen: args.start.listen(),
            external: args.start.external.clone(),
            bootstrap: args.bootstrap,
            api: args.api,
            reserve_bytes: Some(args.disk_reserve.as_u64()),
            restart_grace: args.restart_grace.into(),
            outputs_lost_after: args.outputs_lost_after.into(),
            rhythm: Rhythm { records: args.snapshot_every, ..Rhythm::default() },
        };
        let service = Service::start(options, shutdown).await.map_err(super::start_failed)?;
        let ready = Ready {
            data_dir: dir,
            peer_id: service.peer_id().to_string(),
            project: service.project().to_string(),
            join_link: service.join_link().to_string(),
        };
        output::print_line(format, &ready, |ready| {
            format!(
                "coordinator of project {} is ready; nodes join with:\n  \
                 dockercomp node start '{}'\n",
                ready.project, ready.join_link
            )
        });
        service.stopped().await.map_err(super::start_failed)?;
        Ok(())
    }
}
