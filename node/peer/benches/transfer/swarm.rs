//! One seeder and eight nodes, each of which can send so much and no more: how long until all
//! have the dataset, against the seeder serving one after the other (S5 turned round).
//!
//! Every node is a process of its own with a whole [`Peer`], and knows the seeder only. The nodes
//! share one end of the cable, so what the seeder sent is what its end counted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dockercomp_network::Role;
use dockercomp_peer::{Peer, Rates, Sharing};
use dockercomp_store::{AddOptions, Want};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::load::Source;
use crate::ours::{RECEIVER, Ticket, options};
use crate::report::Row;
use crate::run::{Ground, LEFT, start};
use crate::watch::Watched;

/// Its name among the loads.
pub(crate) const NAME: &str = "swarm";
const N_NODES: usize = 8;
/// What every process may send, in bytes a second: a line of 32 Mbit/s.
const RATE: u64 = 4 << 20;

/// Runs both ways, and says how they compare.
pub(crate) fn run(ground: &Ground, source: &Source, work: &Path) -> Result<Vec<Row>, Error> {
    let swarm = serve(ground, source, &work.join("together"), N_NODES)?;
    let mut alone = Duration::ZERO;
    let mut alone_copies = 0.0;
    for node in 0..N_NODES {
        let one = serve(ground, source, &work.join(format!("alone-{node}")), 1)?;
        alone += one.took;
        alone_copies += one.copies;
    }
    let seconds = swarm.took.as_secs_f64();
    let one_after_another = "one after the other".to_owned();
    let row = |what: &str, value, unit, against: Option<(&str, f64)>| Row {
        name: format!("{NAME} of {N_NODES}, {what}"),
        value,
        unit,
        against: against.map(|(against, _)| against.to_owned()),
        ratio: against.map(|(_, ratio)| ratio),
    };
    Ok(vec![
        row("all have it", seconds, "s", Some((&one_after_another, alone.as_secs_f64() / seconds))),
        row(
            "seeder sent",
            swarm.copies,
            "copies",
            Some((&one_after_another, alone_copies / swarm.copies)),
        ),
        row("least node peak memory", swarm.peaks.0, "MiB", None),
        row("greatest node peak memory", swarm.peaks.1, "MiB", None),
        row("seeder peak memory", swarm.seeder_peak, "MiB", None),
    ])
}

/// What it took until so many nodes had the dataset.
struct Served {
    took: Duration,
    /// How often the seeder sent it, by what left its end of the cable.
    copies: f64,
    /// The least and the greatest of the nodes, in MiB.
    peaks: (f64, f64),
    seeder_peak: f64,
}

fn serve(ground: &Ground, source: &Source, work: &Path, n_nodes: usize) -> Result<Served, Error> {
    const MIB: f64 = (1_u64 << 20) as f64;
    let this = std::env::current_exe()?;
    let mut seeder = ground.left(&this);
    seeder.arg("swarm-seed").arg(&source.path).arg(work.join("seed"));
    let (seeder, ticket) = start(seeder, |line| line.starts_with('{').then(|| line.to_owned()))?;
    let sent_before = ground.sent_bytes()?;
    let began = Instant::now();
    let starting: Vec<_> = (0..n_nodes)
        .map(|node| {
            let mut getter = ground.right(&this);
            getter.arg("swarm-get").arg(&ticket).arg(work.join(format!("get-{node}")));
            // Each thread ends when its node has everything; the node goes on serving.
            std::thread::spawn(move || {
                start(getter, |line| (line == HAVE_IT).then_some(()))
                    .map(|(node, ())| (node, began.elapsed()))
            })
        })
        .collect();
    let ended = starting.into_iter().map(|node| node.join().map_err(|_| "a thread panicked")?);
    let nodes: Vec<(Watched, Duration)> = ended.collect::<Result<_, Error>>()?;
    let took = nodes.iter().map(|(_, took)| *took).max().unwrap_or_default();
    let copies = (ground.sent_bytes()? - sent_before) as f64 / source.bytes as f64;
    let peaks = nodes.iter().map(|(node, _)| node.usage().peak_bytes as f64 / MIB);
    let peaks =
        peaks.fold((f64::MAX, 0.0_f64), |(least, most), peak| (least.min(peak), most.max(peak)));
    let seeder_peak = seeder.usage().peak_bytes as f64 / MIB;
    for node in 0..n_nodes {
        let arrived = work.join(format!("get-{node}")).join(INTO).join("source");
        source.check(&arrived)?;
    }
    Ok(Served { took, copies, peaks, seeder_peak })
}

/// What a node prints when it has everything.
const HAVE_IT: &str = "have it";
/// Where a node lays the data out.
const INTO: &str = "into";

fn sharing() -> Sharing {
    Sharing { rates: Rates { up: Some(RATE), ..Rates::default() }, ..Sharing::default() }
}

/// The seeder: adds the data, says where it is, and serves until it is ended.
#[tokio::main]
pub(crate) async fn seed(path: PathBuf, dir: PathBuf) -> Result<(), Error> {
    let options = options(dir, Role::Server, &format!("/ip4/{LEFT}/tcp/0"), sharing())?;
    let (peer, _tasks) = Peer::start(options, CancellationToken::new()).await?;
    let began = Instant::now();
    let added = peer.add(path, AddOptions::default()).await?;
    let ticket = Ticket::new(&peer, &added.root, began.elapsed(), false);
    println!("{}", serde_json::to_string(&ticket)?);
    std::future::pending().await
}

/// A node: fetches everything, says so, and serves until it is ended.
#[tokio::main]
pub(crate) async fn get(ticket: &str, dir: PathBuf) -> Result<(), Error> {
    let ticket: Ticket = serde_json::from_str(ticket)?;
    let into = dir.join(INTO);
    let options = options(dir, Role::Client, RECEIVER, sharing())?;
    let (peer, _tasks) = Peer::start(options, CancellationToken::new()).await?;
    let (root, holder) = ticket.read()?;
    peer.fetch(root, Want::All, vec![holder], None).await?;
    let store = peer.store().clone();
    let laid_out = tokio::task::spawn_blocking(move || {
        std::fs::create_dir(&into)?;
        store.stage(&root, &Want::All, &into)?;
        Ok::<_, Error>(())
    });
    laid_out.await??;
    println!("{HAVE_IT}");
    std::future::pending().await
}
