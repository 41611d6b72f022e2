//! Agents that answer at once: real identities, connections, messages and signatures, no work.
//!
//! Each has a key, a swarm and a connection of its own, and carries on several conversations
//! with the coordinator over it. A conversation asks for as many leases as one message holds,
//! makes for each work unit the output that a program would have made (one small file with the
//! unit's number), states and signs the results, and reports them with their outputs.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use dockercomp_network::rpc::Client;
use dockercomp_network::{Handle, Options, Role, Service, StreamProtocol};
use dockercomp_protocol::content::chunk_cid;
use dockercomp_protocol::execution::{ExecutorKind, Exit, Usage};
use dockercomp_protocol::limits::{LEASES_MAX, WORK_MESSAGE_BYTES_MAX};
use dockercomp_protocol::manifest::{self, Chunk, ChunkedFile, Chunker};
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::unit::WorkUnit;
use dockercomp_protocol::wire::work::{
    Capacity, Lease, PROTOCOL, Platform, Register, Report, Request, Response, Verdict, WorkRequest,
};
use dockercomp_protocol::{Cid, NodeId, batch, codec, content};
use libp2p_identity::Keypair;
use multiaddr::Multiaddr;
use serde_bytes::ByteBuf;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A call that is not answered by then has failed.
const CALL_MAX: Duration = Duration::from_secs(120);
/// When somebody who got no lease asks again.
const PAUSE: Duration = Duration::from_millis(5);
/// Enough for any number of leases.
const PLENTY: Capacity =
    Capacity { cpu_millis: u32::MAX, memory_bytes: u64::MAX, disk_bytes: u64::MAX };

/// One agent, connected and registered.
pub(crate) struct Agent {
    key: Keypair,
    conversations: Vec<Client>,
    heartbeat: Duration,
}

impl Agent {
    /// Connects an agent to the coordinator and registers it on `n` streams. Its swarm runs
    /// until `shutdown`.
    pub(crate) async fn connect(
        coordinator: (NodeId, &Multiaddr),
        n: usize,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let key = Keypair::generate_ed25519();
        let service = Service::bind(Options::new(key.clone(), Role::Client)).await?;
        let handle = service.handle();
        tokio::spawn(service.run(shutdown));
        handle.add_addresses(coordinator.0, vec![coordinator.1.clone()]).await?;
        let mut agent = Self { key, conversations: Vec::new(), heartbeat: Duration::ZERO };
        for _ in 0..n {
            let client = agent.register(&handle, coordinator.0).await?;
            agent.conversations.push(client);
        }
        Ok(agent)
    }

    async fn register(&mut self, handle: &Handle, coordinator: NodeId) -> anyhow::Result<Client> {
        let protocol = StreamProtocol::new(PROTOCOL);
        let mut client =
            Client::new(handle.clone(), coordinator, protocol, WORK_MESSAGE_BYTES_MAX, CALL_MAX);
        let register = Register {
            agent: "dockercomp-bench".into(),
            executors: vec![ExecutorKind::Wasm],
            offer: PLENTY,
            addresses: vec![],
            operator: None,
            platform: Platform::default(),
        };
        match ask(&mut client, Request::Register(register)).await? {
            Response::Welcome { heartbeat_ms, .. } => {
                self.heartbeat = Duration::from_millis(heartbeat_ms);
                Ok(client)
            }
            other => bail!("a registration was answered with {other:?}"),
        }
    }

    /// Works until `shutdown`.
    pub(crate) async fn work(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut conversations = JoinSet::new();
        for client in self.conversations {
            let (key, shutdown) = (self.key.clone(), shutdown.clone());
            conversations.spawn(async move {
                // The network stops with the agent: what fails then is no failure.
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => Ok(()),
                    failed = converse(client, &key) => failed,
                }
            });
        }
        while let Some(ended) = conversations.join_next().await {
            ended.context("a conversation panicked")??;
        }
        Ok(())
    }

    /// Does what a node without work does until `shutdown`: says now and then that it is there.
    pub(crate) async fn idle(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let client = self.conversations.first_mut().context("an idle agent has one stream")?;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.heartbeat) => {}
            }
            let nothing =
                Request::Heartbeat { running: vec![], kept: vec![], checkpointed: vec![] };
            let answer = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                answer = ask(client, nothing) => answer?,
            };
            ensure!(matches!(answer, Response::Heartbeat { .. }), "a heartbeat got {answer:?}");
        }
    }
}

async fn ask(client: &mut Client, request: Request) -> anyhow::Result<Response> {
    let answer = client.call(&codec::encode(&request)).await?;
    Ok(Response::decode(&answer)?)
}

async fn converse(mut client: Client, key: &Keypair) -> anyhow::Result<()> {
    let request = Request::Work(WorkRequest {
        free: PLENTY,
        leases_max: u32::try_from(LEASES_MAX).unwrap_or(u32::MAX),
        executors: vec![ExecutorKind::Wasm],
        cached: vec![],
    });
    loop {
        let leases = match ask(&mut client, request.clone()).await? {
            Response::Work(assignment) => assignment.leases,
            other => bail!("a request for work was answered with {other:?}"),
        };
        if leases.is_empty() {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let results = leases.iter().map(|lease| finish(key, lease));
        let results = results.collect::<anyhow::Result<Vec<Report>>>()?;
        let statements: Vec<&[u8]> = results.iter().map(|report| &*report.statement).collect();
        let root = batch::sign(key, &statements);
        match ask(&mut client, Request::Report { root, results }).await? {
            Response::Reported { verdicts } => {
                let stored = verdicts.iter().all(|verdict| *verdict == Verdict::Stored);
                ensure!(stored && verdicts.len() == leases.len(), "verdicts {verdicts:?}");
            }
            other => bail!("a report was answered with {other:?}"),
        }
    }
}

/// The result of a lease, as if its program had run.
fn finish(key: &Keypair, lease: &Lease) -> anyhow::Result<Report> {
    let unit: WorkUnit = codec::decode(&lease.unit)?;
    let (root, output) = output(unit.index)?;
    let statement = ResultStatement {
        v: 1,
        job: unit.job,
        unit: content::block_cid(&lease.unit),
        replica: lease.replica,
        node: key.public().to_peer_id(),
        executor: ExecutorKind::Wasm,
        exit: Exit::Code { code: 0 },
        output: Some(root),
        usage: Usage::default(),
    };
    Ok(Report { statement: codec::encode(&statement), log_tail: String::new(), output })
}

/// What a work unit leaves: one file with its number, as the blocks of a dataset.
fn output(index: u64) -> anyhow::Result<(Cid, Vec<ByteBuf>)> {
    let bytes = index.to_string().into_bytes();
    let len = u32::try_from(bytes.len())?;
    let cid = chunk_cid(&bytes);
    let (b3, chunks) = (content::digest(&cid)?, vec![Chunk(cid, len)]);
    let file = ChunkedFile { path: "number".into(), size: len.into(), exec: false, b3, chunks };
    let built = manifest::build(Chunker::default(), vec![file])?;
    let manifest = built.blocks.into_iter().rev().map(|(_, block)| block);
    Ok((built.cid, manifest.chain([bytes]).map(ByteBuf::from).collect()))
}
