//! The pure core alone: the same decisions in one thread, without sockets, signatures or disk.

use std::time::Instant;

use anyhow::ensure;
use dockercomp_coordinator_core::{Action, Config, Core, Event, Granted, JobState, Profile};
use dockercomp_protocol::content::block_cid;
use dockercomp_protocol::execution::{ExecutorKind, Exit, Usage};
use dockercomp_protocol::job::JobFile;
use dockercomp_protocol::limits::LEASES_MAX;
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::{Capacity, WorkRequest};
use dockercomp_protocol::{Cid, NodeId, Timestamp, codec};
use libp2p_identity::Keypair;

const PLENTY: Capacity =
    Capacity { cpu_millis: u32::MAX, memory_bytes: u64::MAX, disk_bytes: u64::MAX };

/// Seconds that the core takes to decide a job of `units` at `quorum` with as many nodes, from
/// the first request for work to the last output stored. Statements are made before they are
/// handed over, outside the clock.
pub(crate) fn decide(units: u64, quorum: u32) -> anyhow::Result<f64> {
    let keys: Vec<Keypair> = (0..quorum).map(|_| Keypair::generate_ed25519()).collect();
    let nodes: Vec<NodeId> = keys.iter().map(|key| key.public().to_peer_id()).collect();
    let text = format!(
        "version = 1\nname = \"core\"\n[program]\nmodule = \"file:m\"\n\
         [sweep]\nn = {{ from = 1, to = {units} }}\n\
         [validation]\npolicy = \"fixed\"\nmin_quorum = {quorum}\n"
    );
    let spec = JobFile::parse(&text)?.resolve(
        nodes[0],
        Timestamp(0),
        None,
        Some(block_cid(b"module")),
        None,
    )?;
    let (job, _) = codec::block(&spec);
    let mut core = Core::new(Config::default());
    core.resume(Timestamp(0));
    drain(&mut core, &mut Drained::default());
    let mut seconds = 0.0;
    handle(
        &mut core,
        Event::JobAdded { job, spec: Box::new(spec), units, seed: [0; 32] },
        &mut seconds,
    );
    for &node in &nodes {
        let profile = Profile::plain(vec![ExecutorKind::Wasm], PLENTY);
        handle(&mut core, Event::NodeRegistered { node, profile }, &mut seconds);
    }
    let request = WorkRequest {
        free: PLENTY,
        leases_max: u32::try_from(LEASES_MAX)?,
        executors: vec![ExecutorKind::Wasm],
        cached: vec![],
    };
    while core.job_state(job) == Some(JobState::Running) {
        for &node in &nodes {
            let request = request.clone();
            let asked = Event::WorkRequested { node, request };
            let granted = handle(&mut core, asked, &mut seconds).granted;
            for event in granted.into_iter().map(|granted| reported(node, granted)) {
                let wanted = handle(&mut core, event, &mut seconds).wanted;
                for (job, index) in wanted {
                    handle(&mut core, Event::OutputStored { job, index }, &mut seconds);
                }
            }
        }
    }
    let view = core.job(job);
    ensure!(view.is_some_and(|view| view.stored == units), "not every unit was accepted");
    Ok(seconds)
}

/// What an event led to, as far as this needs it.
#[derive(Default)]
struct Drained {
    granted: Vec<Granted>,
    wanted: Vec<(Cid, u64)>,
}

fn handle(core: &mut Core, event: Event, seconds: &mut f64) -> Drained {
    let mut drained = Drained::default();
    let started = Instant::now();
    core.handle(Timestamp(1), event);
    drain(core, &mut drained);
    *seconds += started.elapsed().as_secs_f64();
    drained
}

fn drain(core: &mut Core, drained: &mut Drained) {
    while let Some(action) = core.poll_action() {
        match action {
            Action::Lease(granted) => drained.granted = granted,
            Action::FetchOutput { job, index, .. } => drained.wanted.push((job, index)),
            _ => {}
        }
    }
}

fn reported(node: NodeId, granted: Granted) -> Event {
    let result = ResultStatement {
        v: 1,
        job: granted.job,
        unit: block_cid(&granted.index.to_be_bytes()),
        replica: granted.replica,
        node,
        executor: ExecutorKind::Wasm,
        exit: Exit::Code { code: 0 },
        output: Some(block_cid(&granted.index.to_le_bytes())),
        usage: Usage::default(),
    };
    // As long as a statement with its path and its signed root.
    Event::ResultReported { result: Box::new(result), sealed: vec![0; 750] }
}
