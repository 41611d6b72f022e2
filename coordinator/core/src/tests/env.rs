//! A shell for tests: keeps the journal, names things, and rejects unexpected effects.

use std::collections::VecDeque;
use std::time::Duration;

use dockercomp_protocol::content::block_cid;
use dockercomp_protocol::execution::{ExecutorKind, Exit, Limits, Usage};
use dockercomp_protocol::job::{
    Comparison, Homogeneity, JobSpec, Policy, Program, SweepParameter, SweepValues, Validation,
    Work,
};
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::{Capacity, Verdict, WorkRequest};
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp, codec};

use crate::{Action, Config, Core, Event, Granted, JobState, Record};

/// Chance, for tests.
pub(super) const SEED: [u8; 32] = [5; 32];
pub(super) const DELAY_BOUND: Duration = Duration::from_secs(3600);

/// A core, its journal, and the effects that no test has expected yet.
pub(super) struct TestEnv {
    pub(super) core: Core,
    pub(super) now: Timestamp,
    pub(super) journal: Vec<Record>,
    /// Snapshots, each with the number of records that it stands for.
    snapshots: Vec<(usize, Vec<u8>)>,
    visible: VecDeque<Action>,
}

/// A node by its name. It costs no key: the core checks no signature.
pub(crate) fn node(name: &str) -> NodeId {
    let mut bytes = vec![0, u8::try_from(name.len()).expect("a short name")];
    bytes.extend(name.as_bytes());
    NodeId::from_bytes(&bytes).expect("an identity hash is a peer id")
}

/// A CID by its name.
pub(super) fn cid(name: &str) -> Cid {
    block_cid(name.as_bytes())
}

/// A sweep at quorum 2 that any node can run.
pub(super) fn spec() -> JobSpec {
    JobSpec {
        v: 1,
        project: node("owner"),
        name: "job".into(),
        submitted_at: Timestamp(1),
        program: Program { image: Some(cid("image")), module: Some(cid("module")), args: vec![] },
        work: Work::Sweep(vec![SweepParameter {
            name: "x".into(),
            values: SweepValues::Range { from: 1, to: 9, step: 1 },
        }]),
        limits: Limits {
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            tmp_bytes: 0,
            output_bytes: 1 << 20,
            output_files: 10,
            pids: 10,
            wall_ms: 60_000,
        },
        validation: Validation {
            policy: Policy::Fixed,
            min_quorum: 2,
            target_nresults: 2,
            max_error_results: 2,
            max_total_results: 6,
            max_success_results: 4,
            delay_bound_ms: 3_600_000,
            comparison: Comparison::Identical,
            homogeneous: Homogeneity::default(),
        },
        collect: None,
        stages: vec![],
    }
}

/// A request of a node that has room for everything.
pub(super) fn request(leases_max: u32) -> WorkRequest {
    WorkRequest {
        free: Capacity { cpu_millis: u32::MAX, memory_bytes: u64::MAX, disk_bytes: u64::MAX },
        leases_max,
        executors: vec![ExecutorKind::Docker, ExecutorKind::Wasm],
        cached: vec![],
    }
}

/// The result of a replica; `output` names what the program left, or how it failed.
pub(super) fn result(node: NodeId, lease: &Granted, output: Result<&str, Exit>) -> ResultStatement {
    let (exit, output) = match output {
        Ok(name) => (Exit::Code { code: 0 }, Some(cid(name))),
        Err(exit) => (exit, None),
    };
    ResultStatement {
        v: 1,
        job: lease.job,
        unit: cid("unit"),
        replica: lease.replica,
        node,
        executor: ExecutorKind::Wasm,
        exit,
        output,
        usage: Usage::default(),
    }
}

/// Stands for the signed form.
pub(super) fn sealed(result: &ResultStatement) -> Vec<u8> {
    codec::encode(result)
}

impl TestEnv {
    pub(super) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(super) fn with(config: Config) -> Self {
        let core = Core::new(config);
        let (journal, snapshots) = (vec![], vec![]);
        Self { core, now: Timestamp(1_000_000), journal, snapshots, visible: VecDeque::new() }
    }

    /// Applies one event, keeps its records, and leaves its other effects to be expected.
    pub(super) fn step(&mut self, event: Event) {
        let left = &self.visible;
        assert!(left.is_empty(), "before {event:?}, nobody expected {left:#?}");
        self.core.handle(self.now, event);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Persist(record) => {
                    let bytes = codec::encode(&record);
                    let read: Record = codec::decode(&bytes).expect("a record can be read back");
                    assert_eq!(read, record);
                    self.journal.push(record);
                }
                Action::Lease(_)
                | Action::Verdict(_)
                | Action::HeartbeatAnswer { .. }
                | Action::Accept { .. }
                | Action::Compare { .. }
                | Action::FetchOutput { .. }
                | Action::AnnounceWork
                | Action::JobEnded { .. } => self.visible.push_back(action),
            }
        }
    }

    /// Adds [`spec`] with other rules. That it is announced to idle nodes is taken as given.
    pub(super) fn job(&mut self, name: &str, units: u64, edit: impl Fn(&mut JobSpec)) -> Cid {
        let mut spec = spec();
        edit(&mut spec);
        self.step(Event::JobAdded { job: cid(name), spec: Box::new(spec), units, seed: SEED });
        self.visible.retain(|action| *action != Action::AnnounceWork);
        cid(name)
    }

    pub(super) fn request(&mut self, node: NodeId, request: WorkRequest) -> Vec<Granted> {
        self.step(Event::WorkRequested { node, request });
        match self.visible.pop_front() {
            Some(Action::Lease(leases)) => leases,
            other => panic!("expected leases, got {other:?}"),
        }
    }

    /// One lease, which there must be.
    pub(super) fn lease(&mut self, node: NodeId) -> Granted {
        let mut leases = self.request(node, request(1));
        leases.pop().expect("a lease")
    }

    pub(super) fn expect_no_work_for(&mut self, node: NodeId) {
        assert_eq!(self.request(node, request(1)), []);
    }

    pub(super) fn report(&mut self, node: NodeId, lease: &Granted, output: &str) -> Verdict {
        self.send(result(node, lease, Ok(output)))
    }

    pub(super) fn report_error(&mut self, node: NodeId, lease: &Granted) -> Verdict {
        self.send(result(node, lease, Err(Exit::Code { code: 3 })))
    }

    pub(super) fn send(&mut self, result: ResultStatement) -> Verdict {
        let sealed = sealed(&result);
        self.step(Event::ResultReported { result: Box::new(result), sealed });
        let is_verdict = |action: &Action| matches!(action, Action::Verdict(_));
        let position = self.visible.iter().position(is_verdict);
        match position.and_then(|position| self.visible.remove(position)) {
            Some(Action::Verdict(verdict)) => verdict,
            other => panic!("expected a verdict, got {other:?}"),
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        node: NodeId,
        running: &[&Granted],
        kept: &[&Granted],
    ) -> (Vec<ReplicaId>, Vec<ReplicaId>) {
        let ids = |leases: &[&Granted]| leases.iter().map(|lease| lease.replica).collect();
        let (running, kept, checkpointed) = (ids(running), ids(kept), vec![]);
        self.step(Event::Heartbeat { node, running, kept, checkpointed });
        match self.visible.pop_front() {
            Some(Action::HeartbeatAnswer { abandon, forget }) => (abandon, forget),
            other => panic!("expected an answer, got {other:?}"),
        }
    }

    pub(super) fn store(&mut self, job: Cid, index: u64) {
        self.step(Event::OutputStored { job, index });
    }

    /// Lets time pass, and tells the core when a deadline came.
    pub(super) fn advance(&mut self, time: Duration) {
        self.now = self.now + time;
        if self.core.next_deadline().is_some_and(|at| at <= self.now) {
            self.step(Event::DeadlineReached);
        }
    }

    /// Writes the state as it is.
    pub(super) fn snapshot(&mut self) {
        self.snapshots.push((self.journal.len(), self.core.state().encode()));
    }

    /// Ends the process and starts another on the newest snapshot and the journal after it.
    pub(super) fn restart(&mut self) {
        self.check_replay();
        let core = match self.snapshots.last() {
            Some((from, snapshot)) => self.restored(*from, snapshot),
            None => self.replayed(),
        };
        self.core = core;
        self.core.resume(self.now);
        self.drain();
    }

    /// A fresh core with the same journal.
    pub(super) fn replayed(&self) -> Core {
        let mut core = Core::new(self.core.state().config.clone());
        for record in &self.journal {
            core.apply(record).expect("a record that was written can be applied");
        }
        core
    }

    /// A core from a snapshot and the records after it.
    fn restored(&self, from: usize, snapshot: &[u8]) -> Core {
        let config = self.core.state().config.clone();
        let mut core = Core::restore(config, snapshot).expect("a snapshot that was written");
        assert_eq!(core.state().encode(), snapshot, "a snapshot has another encoding");
        for record in &self.journal[from..] {
            core.apply(record).expect("a record that was written can be applied");
        }
        core
    }

    /// Full replay, every snapshot with its tail, and the living core are equal.
    pub(super) fn check_replay(&self) {
        assert_eq!(self.replayed().state(), self.core.state(), "replay differs");
        for (from, snapshot) in &self.snapshots {
            let restored = self.restored(*from, snapshot);
            restored.state().assert_invariants();
            assert_eq!(restored.state(), self.core.state(), "a snapshot with its tail differs");
        }
    }

    /// Takes the next effect, whatever it is.
    pub(super) fn take(&mut self) -> Option<Action> {
        self.visible.pop_front()
    }

    pub(super) fn expect(&mut self, expected: Action) {
        assert_eq!(self.visible.pop_front(), Some(expected));
    }

    /// An acceptance, the fetch that follows, and nothing else.
    pub(super) fn expect_accepted(&mut self, lease: &Granted, output: &str, holders: &[NodeId]) {
        let (job, index, output) = (lease.job, lease.index, cid(output));
        match self.visible.pop_front() {
            Some(Action::Accept { job: j, index: i, output: o, at, results, .. }) => {
                assert_eq!((j, i, o, at), (job, index, output, self.now));
                assert!(results.len() >= holders.len());
            }
            other => panic!("expected an acceptance, got {other:?}"),
        }
        self.expect(Action::FetchOutput { job, index, output, holders: holders.to_vec() });
        self.expect_nothing_else();
    }

    pub(super) fn expect_job_completed(&mut self, job: Cid) {
        let state = JobState::Completed { at: self.now };
        self.expect(Action::JobEnded { job, state });
        self.expect_nothing_else();
    }

    #[track_caller]
    pub(super) fn expect_nothing_else(&self) {
        assert!(self.visible.is_empty(), "nobody expected {:#?}", self.visible);
    }
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.expect_nothing_else();
            self.core.state().assert_invariants();
            self.check_replay();
        }
    }
}
