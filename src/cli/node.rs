//! `dockercomp node`.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytesize::ByteSize;
use dockercomp_node::api::{Attach, Detach, NodeExplained, NodeStatus, ProjectInfo, Shared};
use dockercomp_node::{Fault, Options, Service};
use dockercomp_peer::{Rates, Sharing};
use dockercomp_protocol::limits::LABEL_BYTES_MAX;
use dockercomp_protocol::link::JoinLink;
use dockercomp_protocol::wire::work::{Capacity, is_operator};
use serde::Serialize;

use super::start::Start;
use super::{ExecutorChoice, explain};
use crate::client::Client;
use crate::failure::{Code, Failure};
use crate::output::{self, Format};
use crate::paths::{Role, data_dir};

/// Commands about a volunteer's node.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Node {
    /// Start a node that works for one project or several.
    Start(StartNode),
    /// Work for one more project.
    Attach {
        /// The join link that the project's coordinator printed.
        link: JoinLink,
        /// How much of the machine it gets, in proportion to the shares of the others: a project
        /// with 300 gets three times as much as one with 100. 100 if left out.
        #[arg(long, value_name = "N")]
        share: Option<u32>,
        #[command(flatten)]
        place: Place,
    },
    /// Work for a project no more, once what is there is finished and reported.
    Detach {
        /// The project's id, its name, or the end of its id.
        project: String,
        /// Drop what is there at once; others will have to compute it again.
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Give a project another share of the machine.
    Share {
        /// The project's id, its name, or the end of its id.
        project: String,
        /// How much of the machine it gets, in proportion to the shares of the others.
        share: u32,
        #[command(flatten)]
        place: Place,
    },
    /// List the projects that the node works for, and what each has had of the machine.
    Projects {
        #[command(flatten)]
        place: Place,
    },
    /// Say what the node on this machine does, and which bytes came from whom.
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// Say why the node on this machine has nothing to do.
    Explain {
        #[command(flatten)]
        place: Place,
    },
}

/// Which node is meant.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The node's data directory.
    #[arg(long, env = "DOCKERCOMP_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Place {
    fn client(&self) -> anyhow::Result<Client> {
        Client::open(&data_dir(self.data_dir.as_ref(), Role::Node)?)
    }
}

/// Options of `node start`.
#[derive(Debug, clap::Args)]
pub(crate) struct StartNode {
    /// The join links that coordinators printed. The node remembers its projects: without a
    /// link it goes on with them.
    links: Vec<JoinLink>,

    #[command(flatten)]
    start: Start,

    /// Cores that work may use, for example 1.5; half of the machine's if left out.
    #[arg(long)]
    cpus: Option<f64>,

    /// Memory that work may use, for example "2 GiB"; a quarter of the machine's if left out.
    #[arg(long)]
    memory: Option<ByteSize>,

    /// Disk that data may use.
    #[arg(long, default_value = "10 GiB")]
    disk: ByteSize,

    /// Who runs the node, if you like to say so: credit is added up under this name, and nodes
    /// of one operator never work on the same work unit. At most 64 bytes; use the same name
    /// on all of your nodes.
    #[arg(long, env = "DOCKERCOMP_OPERATOR", value_name = "NAME", value_parser = operator)]
    operator: Option<String>,

    /// Bytes a second that go to all peers together, for example "2 MiB"; no limit if left out.
    #[arg(long, value_name = "RATE")]
    upload: Option<ByteSize>,

    /// Bytes a second that come from all peers together.
    #[arg(long, value_name = "RATE")]
    download: Option<ByteSize>,

    /// Data that may pass in a month of the calendar (UTC), in both directions together, for
    /// example "50 GiB"; when it has, no data is fetched or served until the next month.
    #[arg(long, value_name = "SIZE")]
    monthly_volume: Option<ByteSize>,

    /// Encrypt data also between machines of one private network, which is slower.
    #[arg(long)]
    sealed: bool,

    /// What runs the work.
    #[arg(long, value_enum, default_value = "auto")]
    executor: ExecutorChoice,

    /// Loopback address for commands on this machine; port 0 lets the system choose.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    api: SocketAddr,

    /// Misbehave, so that a network can be seen to withstand it.
    #[arg(long, hide = true, value_enum)]
    fault: Vec<FaultChoice>,
}

/// Ways to misbehave, for demonstrations and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FaultChoice {
    /// Report plausible, wrong results.
    WrongResults,
    /// Serve chunks with wrong bytes.
    WrongChunks,
}

#[derive(Serialize)]
struct Ready {
    data_dir: PathBuf,
    peer_id: String,
    executor: String,
    executor_reason: String,
}

impl Node {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<()> {
        match self {
            Self::Start(start) => start.run(format).await,
            Self::Attach { link, share, place } => {
                let asked = Attach { link: link.to_string(), share };
                let info: ProjectInfo =
                    place.client()?.post_value("/api/v1/projects/attach", &asked).await?;
                output::print(format, &info, |info| {
                    format!("attached to {} with share {}\n", called(info), info.share)
                });
                Ok(())
            }
            Self::Detach { project, now, place } => {
                let asked = Detach { project, now };
                let asked: Detach =
                    place.client()?.post_value("/api/v1/projects/detach", &asked).await?;
                output::print(format, &asked, |asked| {
                    let how = if asked.now {
                        "what was there is dropped"
                    } else {
                        "what is there is finished first; dockercomp node projects says how far it is"
                    };
                    format!("detached from {}: {how}\n", asked.project)
                });
                Ok(())
            }
            Self::Share { project, share, place } => {
                let asked = Shared { project, share };
                let info: ProjectInfo =
                    place.client()?.post_value("/api/v1/projects/share", &asked).await?;
                output::print(format, &info, |info| {
                    format!("{} has share {} from now on\n", called(info), info.share)
                });
                Ok(())
            }
            Self::Projects { place } => {
                let projects: Vec<ProjectInfo> = place.client()?.get("/api/v1/projects").await?;
                output::print(format, &projects, |projects| list(projects));
                Ok(())
            }
            Self::Status { place } => {
                let status: NodeStatus = place.client()?.get("/api/v1/status").await?;
                output::print(format, &status, human);
                Ok(())
            }
            Self::Explain { place } => {
                let explained: NodeExplained = place.client()?.get("/api/v1/explain").await?;
                output::print(format, &explained, explain::own);
                Ok(())
            }
        }
    }
}

impl StartNode {
    async fn run(self, format: Format) -> anyhow::Result<()> {
        let shutdown = self.start.shutdown()?;
        let dir = data_dir(self.start.data_dir.as_ref(), Role::Node)?;
        let options = Options {
            dir: dir.clone(),
            offer: self.offer()?,
            sharing: self.sharing()?,
            listen: self.start.listen(),
            external: self.start.external.clone(),
            api: self.api,
            operator: self.operator,
            executor: self.executor.into(),
            faults: self
                .fault
                .iter()
                .map(|fault| match fault {
                    FaultChoice::WrongResults => Fault::WrongResults,
                    FaultChoice::WrongChunks => Fault::WrongChunks,
                })
                .collect(),
            links: self.links,
        };
        let service = Service::start(options, shutdown).await.map_err(super::start_failed)?;
        let (executor, executor_reason) = service.executor();
        let ready = Ready {
            data_dir: dir,
            peer_id: service.peer_id().to_string(),
            executor,
            executor_reason,
        };
        output::print_line(format, &ready, |ready| {
            format!(
                "node {} is ready; it runs work with {}\nit looks for its projects; \
                 dockercomp node projects says how they are\n",
                ready.peer_id, ready.executor_reason
            )
        });
        service.stopped().await;
        Ok(())
    }

    fn sharing(&self) -> anyhow::Result<Sharing> {
        let limit = |flag: &str, rate: Option<ByteSize>| match rate.map(|rate| rate.as_u64()) {
            // A chunk must come before its peer is taken for gone.
            Some(rate) if rate < 64 << 10 => {
                Err(Failure::new(Code::Usage, format!("{flag} must be at least 64 KiB")))
            }
            rate => Ok(rate),
        };
        let up = limit("--upload", self.upload)?;
        let down = limit("--download", self.download)?;
        let rates = Rates { up, up_per_peer: None, down };
        let monthly_bytes = self.monthly_volume.map(|size| size.as_u64());
        Ok(Sharing { rates, sealed: self.sealed, monthly_bytes })
    }

    fn offer(&self) -> anyhow::Result<Capacity> {
        const MIB: u64 = 1 << 20;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cpus = self.cpus.unwrap_or((cores as f64 / 2.0).max(1.0));
        let memory = self.memory.map_or_else(quarter_of_memory, |size| size.as_u64());
        let refuse = |message: &str| Err(Failure::new(Code::Usage, message).into());
        if !(0.01..=1024.0).contains(&cpus) {
            return refuse("--cpus must be a number from 0.01 to 1024");
        }
        if memory < 8 * MIB {
            return refuse("--memory must be at least 8 MiB");
        }
        if self.disk.as_u64() < MIB {
            return refuse("--disk must be at least 1 MiB");
        }
        Ok(Capacity {
            cpu_millis: (cpus * 1000.0).round() as u32,
            memory_bytes: memory,
            disk_bytes: self.disk.as_u64(),
        })
    }
}

/// A name of an operator that coordinators take.
fn operator(text: &str) -> Result<String, String> {
    let name = text.trim();
    if is_operator(name) {
        return Ok(name.to_owned());
    }
    Err(format!("a name has 1 to {LABEL_BYTES_MAX} bytes and no control characters"))
}

/// A quarter of the machine's memory, or 1 GiB where that cannot be found out.
fn quarter_of_memory() -> u64 {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    total.map_or(1 << 30, |kib| kib * 1024 / 4)
}

/// What a project is called, and its id.
fn called(info: &ProjectInfo) -> String {
    match &info.name {
        Some(name) => format!("{name} ({})", info.project),
        None => info.project.clone(),
    }
}

fn list(projects: &[ProjectInfo]) -> String {
    if projects.is_empty() {
        return "no projects; dockercomp node attach LINK adds one\n".to_owned();
    }
    let shares: u64 = projects.iter().map(|info| u64::from(info.share)).sum();
    let rows = projects.iter().map(|info| {
        let percent = f64::from(info.share) / shares as f64 * 100.0;
        vec![
            info.name.clone().unwrap_or_else(|| "not known yet".to_owned()),
            info.project.clone(),
            format!("{} ({percent:.0} %)", info.share),
            format!("{:.0} %", info.part_used * 100.0),
            info.text.clone(),
        ]
    });
    output::table(&["NAME", "PROJECT", "SHARE", "USED LATELY", "STATE"], rows) + "\n"
}

fn human(status: &NodeStatus) -> String {
    let mut text = format!(
        "node       {}\nexecutor   {}\ndisk       {} used\n",
        status.peer.peer_id,
        status.executor_reason,
        output::size(status.peer.used_bytes),
    );
    if let Some(volume) = &status.peer.volume {
        let (used, limit) = (output::size(volume.used_bytes), output::size(volume.limit_bytes));
        text += &format!("volume     {used} of {limit} passed in {} (UTC)", volume.month);
        text += if volume.is_used_up() {
            ": used up, no data is fetched or served until the month ends\n"
        } else {
            "\n"
        };
    }
    if let Some(operator) = &status.operator {
        text += &format!("operator   {operator}\n");
    }
    for info in &status.projects {
        text += &project(info);
    }
    if !status.peer.traffic.is_empty() {
        let rows = status.peer.traffic.iter().map(|peer| {
            vec![
                peer.peer_id.clone(),
                output::size(peer.down_bytes),
                output::size(peer.up_bytes),
                peer.wrong_blocks.to_string(),
            ]
        });
        text += "\nchunks by peer\n";
        text += &output::table(&["PEER", "FROM", "TO", "WRONG"], rows);
        text += "\n";
    }
    text
}

fn project(info: &ProjectInfo) -> String {
    let tasks = &info.tasks;
    let mut text = format!(
        "\nproject    {}\nshare      {}, {:.0} % of what was used lately\nstate      {}\n\
         coordinator {}\nwork       {} fetching, {} ready, {} running, {} to report, {} outputs \
         kept\n",
        called(info),
        info.share,
        info.part_used * 100.0,
        info.text,
        info.coordinator.as_deref().unwrap_or("not reached yet"),
        tasks.fetching,
        tasks.ready,
        tasks.running,
        tasks.unreported,
        tasks.kept,
    );
    if let Some(trouble) = &info.trouble {
        text += &format!("trouble    {trouble}\n");
    }
    if let Some(log) = &info.log {
        let (entries, at) = (log.entries, &log.signed_at);
        text += &format!("log        {entries} work units accepted, as signed on {at}\n");
    }
    if let Some(fork) = &info.fork {
        text += &format!("\nWARNING: {}\n", fork.message);
        for evidence in &fork.evidence {
            text += &format!("evidence   {}\n", evidence.display());
        }
    }
    text
}
