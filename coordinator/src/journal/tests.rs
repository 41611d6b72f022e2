//! Start-ups on journals of all kinds.

use std::collections::VecDeque;

use dockercomp_coordinator_core::{Action, Event, Granted, Record};
use dockercomp_protocol::content::block_cid;
use dockercomp_protocol::execution::{ExecutorKind, Exit, Limits, Usage};
use dockercomp_protocol::job::{
    Comparison, Homogeneity, JobSpec, Policy, Program, SweepParameter, SweepValues, Validation,
    Work,
};
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::{Capacity, WorkRequest};
use dockercomp_protocol::{NodeId, Timestamp};
use dockercomp_store::Options;
use libp2p_identity::Keypair;
use tempfile::TempDir;

use super::*;

/// A core at work whose records go to a store.
struct Desk {
    dir: TempDir,
    store: Store,
    core: Core,
    journal: Journal,
    leases: VecDeque<(NodeId, Granted)>,
    now: u64,
}

const RHYTHM: Rhythm = Rhythm { records: 40, bytes: 1 << 30 };

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), Options::default()).expect("a store");
        let (core, journal) = recover(&store, RHYTHM, Config::default()).expect("an empty journal");
        let mut desk = Self { dir, store, core, journal, leases: VecDeque::new(), now: 1000 };
        desk.tell(Event::JobAdded {
            job: block_cid(b"job"),
            spec: Box::new(spec()),
            units: 1000,
            seed: [7; 32],
        });
        desk
    }

    fn tell(&mut self, event: Event) {
        self.now += 1;
        self.core.handle(Timestamp(self.now), event);
        self.drain();
    }

    fn drain(&mut self) {
        let mut records = Vec::new();
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Persist(record) => records.push(codec::encode(&record)),
                Action::Lease(granted) => {
                    let node = node(self.now);
                    self.leases.extend(granted.into_iter().map(|lease| (node, lease)));
                }
                _ => {}
            }
        }
        let bytes = records.iter().map(|record| record.len() as u64).sum();
        self.store.append(&records, &[]).expect("an append");
        self.journal.appended(records.len() as u64, bytes);
    }

    /// One node asks for work; one that asked before reports.
    async fn work(&mut self) {
        let free = Capacity { cpu_millis: u32::MAX, memory_bytes: u64::MAX, disk_bytes: u64::MAX };
        let executors = vec![ExecutorKind::Wasm];
        let request = WorkRequest { free, leases_max: 2, executors, cached: vec![] };
        let node = node(self.now + 1);
        self.tell(Event::WorkRequested { node, request });
        if self.leases.len() > 5
            && let Some((node, lease)) = self.leases.pop_front()
        {
            let result = ResultStatement {
                v: 1,
                job: lease.job,
                unit: block_cid(b"unit"),
                replica: lease.replica,
                node,
                executor: ExecutorKind::Wasm,
                exit: Exit::Code { code: 0 },
                output: Some(block_cid(b"output")),
                usage: Usage::default(),
            };
            let sealed = codec::encode(&result);
            self.tell(Event::ResultReported { result: Box::new(result), sealed });
        }
        if self.journal.is_due() {
            self.journal.snapshot(self.core.state().clone()).await;
        }
    }

    /// Waits for the snapshot that is being written, and gives up the directory.
    async fn close(mut self) -> (TempDir, State) {
        if let Some(writing) = self.journal.writing.take() {
            writing.await.expect("no panic").expect("a snapshot");
        }
        let state = self.core.state().clone();
        drop(self.store);
        drop(self.journal);
        (self.dir, state)
    }
}

fn node(number: u64) -> NodeId {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(number % 16).to_be_bytes());
    Keypair::ed25519_from_bytes(seed).expect("a seed").public().to_peer_id()
}

pub(crate) fn spec() -> JobSpec {
    JobSpec {
        v: 1,
        project: node(0),
        name: "job".into(),
        submitted_at: Timestamp(1),
        program: Program { image: None, module: Some(block_cid(b"module")), args: vec![] },
        work: Work::Sweep(vec![SweepParameter {
            name: "x".into(),
            values: SweepValues::Range { from: 1, to: 1000, step: 1 },
        }]),
        limits: Limits {
            cpu_millis: 1000,
            memory_bytes: 1 << 20,
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

fn reopen(dir: &TempDir) -> Store {
    Store::open(dir.path(), Options::default()).expect("a store")
}

#[tokio::test]
async fn a_restart_replays_only_what_the_newest_snapshot_does_not_know() {
    let mut desk = Desk::new();
    for _ in 0..200 {
        desk.work().await;
    }
    let (dir, state) = desk.close().await;
    let store = reopen(&dir);
    let (core, journal) = recover(&store, RHYTHM, Config::default()).expect("a journal");
    assert_eq!(*core.state(), state);
    assert!(journal.next > 300, "only {} records", journal.next);
    assert!(journal.since.records < journal.next / 2, "{} were replayed", journal.since.records);
    // The beginning of history is gone.
    assert!(matches!(store.replay(0).next(), Some(Err(StoreError::Gap { number: 0 }))));
}

#[tokio::test]
async fn the_past_is_told_from_the_oldest_record_that_is_there() {
    for rounds in [20, 200] {
        let mut desk = Desk::new();
        for _ in 0..rounds {
            desk.work().await;
        }
        let (dir, state) = desk.close().await;
        let store = reopen(&dir);
        let is_all = store.snapshots().expect("a list").len() < 2;
        assert_eq!(is_all, rounds == 20);
        let (mut core, first) = oldest(&store, Config::default()).expect("a journal");
        assert_eq!(first == 0, is_all);
        for record in records(&store, first).expect("versions") {
            core.apply(&record.expect("a record")).expect("it follows");
        }
        assert_eq!(*core.state(), state);
    }
}

#[tokio::test]
async fn a_bad_snapshot_is_passed_over_for_the_one_before_it() {
    let mut desk = Desk::new();
    for _ in 0..200 {
        desk.work().await;
    }
    let (dir, state) = desk.close().await;
    let store = reopen(&dir);
    let newest = store.snapshots().expect("a list")[0];
    let good = store.snapshot(newest).expect("a read").expect("a snapshot");
    for place in [0, good.len() / 2] {
        let mut bad = good.clone();
        bad[place] = 0;
        store.put_snapshot(newest, &bad).expect("a write");
        let (core, _) = recover(&store, RHYTHM, Config::default()).expect("an older snapshot");
        assert_eq!(*core.state(), state);
    }
    // With both gone there is nothing to start from, and that is said.
    let older = store.snapshots().expect("a list")[1];
    store.put_snapshot(newest, b"").expect("a write");
    store.put_snapshot(store.next_record(), b"").expect("a write");
    assert!(!store.snapshots().expect("a list").contains(&older));
    let refused =
        recover(&store, RHYTHM, Config::default()).map(|_| ()).expect_err("nothing is readable");
    assert!(matches!(refused, ReplayError::Snapshots { found: 2 }), "{refused}");
}

#[tokio::test]
async fn the_state_at_a_back_up_is_the_state_that_its_copy_starts_with() {
    let mut desk = Desk::new();
    let folder = tempfile::tempdir().expect("a directory");
    for round in 0..4 {
        for _ in 0..60 {
            desk.work().await;
        }
        let into = folder.path().join(round.to_string());
        desk.store.copy_to(&into).expect("a copy");
        let at_copy = desk.core.state().clone();
        desk.work().await;
        let copy = Store::open(&into, Options::default()).expect("a store");
        let (core, _) = recover(&copy, RHYTHM, Config::default()).expect("a journal");
        assert_eq!(*core.state(), at_copy);
    }
    desk.close().await;
}

fn put_versions(store: &Store, value: Vec<u8>) {
    let row = Row::Put { table: Table::Meta, key: VERSIONS_KEY.to_vec(), value };
    store.append(&[], &[row]).expect("an append");
}

#[tokio::test]
async fn newer_journals_are_refused_and_say_so() {
    let mut desk = Desk::new();
    for _ in 0..100 {
        desk.work().await;
    }
    let (dir, _) = desk.close().await;
    let store = reopen(&dir);
    put_versions(&store, codec::encode(&vec![(0u64, 1u8), (7, RECORD_VERSION + 1)]));
    let refused =
        recover(&store, RHYTHM, Config::default()).map(|_| ()).expect_err("newer records");
    assert!(refused.is_of_another_version(), "{refused}");
    put_versions(&store, codec::encode(&vec![(0u64, RECORD_VERSION)]));
    assert!(recover(&store, RHYTHM, Config::default()).is_ok());
    store.put_snapshot(store.next_record(), &[SNAPSHOT_VERSION + 1]).expect("a write");
    let refused =
        recover(&store, RHYTHM, Config::default()).map(|_| ()).expect_err("a newer snapshot");
    assert!(refused.is_of_another_version(), "{refused}");
}

/// The first program wrote one byte for the whole journal.
#[tokio::test]
async fn versions_are_known_by_range_and_the_first_form_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = reopen(&dir);
    put_versions(&store, vec![RECORD_VERSION]);
    let versions = Versions::of(&store).expect("the first form");
    assert_eq!(versions.0, [(0, RECORD_VERSION)]);
    let record = Record::JobCancelled { at: Timestamp(1), job: block_cid(b"job") };
    let bytes = codec::encode(&record);
    assert_eq!(versions.read(3, &bytes).expect("a record"), record);
    assert!(matches!(versions.read(3, b"x"), Err(ReplayError::Record { number: 3, .. })));
    // A journal goes on in the present version, whatever it began with.
    Versions(vec![(0, 0)]).continue_at(&store, 9).expect("a write");
    let found = store.get(Table::Meta, VERSIONS_KEY).expect("a read").expect("a row");
    assert_eq!(found, codec::encode(&vec![(0u64, 0u8), (9, RECORD_VERSION)]));
    let refused = Versions::of(&store).map(|_| ()).expect_err("nobody knows version 0");
    assert!(matches!(refused, ReplayError::Older { found: 0 }), "{refused}");
}

/// A record that is not there is noticed, whatever follows.
#[tokio::test]
async fn a_journal_that_contradicts_itself_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = reopen(&dir);
    let record = Record::JobCancelled { at: Timestamp(1), job: block_cid(b"job") };
    store.append(&[codec::encode(&record)], &[]).expect("an append");
    let refused = recover(&store, RHYTHM, Config::default()).map(|_| ()).expect_err("no such job");
    assert!(matches!(refused, ReplayError::Order { number: 0, .. }), "{refused}");
}
