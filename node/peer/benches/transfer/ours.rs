//! Our own contender: two peers, with all that a node has for data.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dockercomp_network::{Handle, Role, Stream, StreamProtocol};
use dockercomp_peer::{Located, Options, Peer, Sharing};
use dockercomp_protocol::{Cid, NodeId, content};
use dockercomp_store::{AddOptions, Want};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::load::Source;
use crate::run::{Ground, LEFT, Run, start};

/// Small messages that measure how long a connection makes others wait.
const ECHO: StreamProtocol = StreamProtocol::new("/dockercomp/bench/echo/1");
/// Where receivers listen.
pub(crate) const RECEIVER: &str = "/ip4/10.77.0.2/tcp/0";
const PING_EVERY: Duration = Duration::from_millis(5);

/// What the receiver must know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ticket {
    root: String,
    peer: String,
    addresses: Vec<String>,
    ingest_seconds: f64,
    sealed: bool,
}

impl Ticket {
    pub(crate) fn new(peer: &Peer, root: &Cid, ingest: Duration, sealed: bool) -> Self {
        let addresses = peer.network().advertised_addresses();
        Self {
            root: root.to_string(),
            peer: peer.id().to_string(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            ingest_seconds: ingest.as_secs_f64(),
            sealed,
        }
    }

    /// The dataset, and who has it.
    pub(crate) fn read(&self) -> Result<(Cid, Located), Error> {
        let addresses = self.addresses.iter().map(|at| at.parse()).collect::<Result<_, _>>()?;
        Ok((content::parse(&self.root)?, Located { peer: self.peer.parse()?, addresses }))
    }
}

/// What the receiver says.
#[derive(Debug, Serialize, Deserialize)]
struct Received {
    transfer_seconds: f64,
    ping_p99_seconds: Option<f64>,
}

/// `plane` is "plain" as people have it by default on near networks, or "sealed".
pub(crate) fn run(
    ground: &Ground,
    source: &Source,
    work: &Path,
    plane: &str,
) -> Result<Run, Error> {
    let this = std::env::current_exe()?;
    let mut sender = ground.left(&this);
    sender.args(["seed", plane]).arg(&source.path).arg(work.join("seed"));
    let (sender, (line, ticket)) = start(sender, |line| {
        let ticket: Ticket = serde_json::from_str(line).ok()?;
        Some((line.to_owned(), ticket))
    })?;
    let into = work.join("into");
    let mut receiver = ground.right(&this);
    receiver.arg("get").arg(line).arg(work.join("get")).arg(&into);
    let arrived = if source.is_folder() { into } else { into.join("source") };
    let read = |said: String| serde_json::from_str::<Received>(&said);
    let (mut run, received) = ground.transfer(sender, receiver, arrived, read)?;
    let received = received?;
    run.transfer = Some(Duration::from_secs_f64(received.transfer_seconds));
    run.ping_p99 = received.ping_p99_seconds.map(Duration::from_secs_f64);
    run.ingest = Some(Duration::from_secs_f64(ticket.ingest_seconds));
    Ok(run)
}

pub(crate) fn options(
    dir: PathBuf,
    role: Role,
    listen: &str,
    sharing: Sharing,
) -> Result<Options, Error> {
    Ok(Options {
        dir,
        role,
        listen: vec![listen.parse()?],
        external: Vec::new(),
        bootstrap: Vec::new(),
        remembered: None,
        quota_bytes: None,
        reserve_bytes: None,
        sharing,
        lie: false,
    })
}

/// The sender: adds the data, says where it is, and serves until it is ended.
#[tokio::main]
pub(crate) async fn seed(path: PathBuf, dir: PathBuf, sealed: bool) -> Result<(), Error> {
    let sharing = Sharing { sealed, ..Sharing::default() };
    let options = options(dir, Role::Server, &format!("/ip4/{LEFT}/tcp/0"), sharing)?;
    let shutdown = CancellationToken::new();
    let (peer, _tasks) = Peer::start(options, shutdown).await?;
    let began = Instant::now();
    let added = peer.add(path, AddOptions::default()).await?;
    let ticket = Ticket::new(&peer, &added.root, began.elapsed(), sealed);
    println!("{}", serde_json::to_string(&ticket)?);
    let mut incoming = peer.network().accept(ECHO)?;
    while let Some((_, mut stream)) = incoming.next().await {
        tokio::spawn(async move {
            let mut message = [0; 8];
            while stream.read_exact(&mut message).await.is_ok() {
                if stream.write_all(&message).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// The receiver: fetches everything and lays it out.
#[tokio::main]
pub(crate) async fn get(ticket: &str, dir: PathBuf, into: PathBuf) -> Result<(), Error> {
    let ticket: Ticket = serde_json::from_str(ticket)?;
    let shutdown = CancellationToken::new();
    let sharing = Sharing { sealed: ticket.sealed, ..Sharing::default() };
    let options = options(dir, Role::Client, RECEIVER, sharing)?;
    let (peer, tasks) = Peer::start(options, shutdown.clone()).await?;
    let (root, holder) = ticket.read()?;
    let sender = holder.peer;
    let began = Instant::now();
    let fetching = peer.fetch(root, Want::All, vec![holder], None);
    let mut pings = Vec::new();
    tokio::select! {
        fetched = fetching => drop(fetched?),
        error = ping(peer.network(), sender, &mut pings) => error?,
    }
    let transfer_seconds = began.elapsed().as_secs_f64();
    let store = peer.store().clone();
    let laid_out = tokio::task::spawn_blocking(move || {
        std::fs::create_dir(&into)?;
        store.stage(&root, &Want::All, &into)?;
        Ok::<_, Error>(())
    });
    laid_out.await??;
    pings.sort_unstable();
    let p99 = pings.get(pings.len() * 99 / 100).map(Duration::as_secs_f64);
    let received = Received { transfer_seconds, ping_p99_seconds: p99 };
    println!("{}", serde_json::to_string(&received)?);
    shutdown.cancel();
    for task in tasks {
        task.await?;
    }
    Ok(())
}

/// Sends a small message again and again. Ends only with an error.
async fn ping(network: &Handle, peer: NodeId, took: &mut Vec<Duration>) -> Result<(), Error> {
    // The fetch dials; a ping of a stranger would only be in its way.
    let mut stream: Stream = loop {
        match network.open(peer, ECHO).await {
            Ok(stream) => break stream,
            Err(error) => eprintln!("bench-transfer: no stream for pings yet: {error}"),
        }
    };
    let mut ticks = interval(PING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut message = [7; 8];
    loop {
        ticks.tick().await;
        let sent = Instant::now();
        stream.write_all(&message).await?;
        stream.flush().await?;
        stream.read_exact(&mut message).await?;
        took.push(sent.elapsed());
    }
}
