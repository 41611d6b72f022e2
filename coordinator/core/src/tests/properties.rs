//! Random events: whatever comes in any order, the rules hold.
//!
//! The core checks its own invariants after every event; here a second, independent set of
//! books watches what leaves it: no lease twice to one node, no acceptance twice or without
//! agreement; and replay, or a snapshot from any moment with the records after it, ends in the
//! same state. Afterwards honest nodes must be
//! able to bring every job to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dockercomp_protocol::execution::Exit;
use dockercomp_protocol::job::{Gather, JobSpec, Stage};
use dockercomp_protocol::layout::Layout;
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::WorkRequest;
use dockercomp_protocol::{Cid, NodeId, codec};
use proptest::prelude::*;

use super::env::{SEED, TestEnv, cid, node, request, result, sealed, spec};
use crate::{Action, Config, Event, Granted, JobState, Record};

const NODES: u8 = 7;
const JOBS: u8 = 3;
/// What jobs do with the outputs of their first stage.
const SHAPES: [&[Gather]; 5] = [
    &[],
    &[],
    &[Gather::Tree { fan_in: 2 }],
    &[Gather::Each, Gather::Tree { fan_in: 3 }],
    &[Gather::Tree { fan_in: 3 }, Gather::Each],
];

/// One thing that happens. Leases and units are picked by number among those there were.
#[derive(Clone, Debug)]
enum Op {
    AddJob {
        job: u8,
        units: u64,
        quorum: u32,
        slack: u32,
        shape: usize,
    },
    Request {
        node: u8,
        leases: u32,
    },
    /// By the holder, or by somebody else.
    Report {
        lease: usize,
        thief: Option<u8>,
        output: u8,
    },
    Fail {
        lease: usize,
    },
    Heartbeat {
        node: u8,
        of: usize,
    },
    Store {
        lease: usize,
    },
    Wait {
        minutes: u64,
    },
    Undelivered {
        lease: usize,
    },
    Detach {
        node: u8,
    },
    Cancel {
        job: u8,
    },
    Restart,
    Snapshot,
}

fn op() -> impl Strategy<Value = Op> {
    let (job, node, lease) = (0..JOBS, 0..NODES, 0usize..40);
    prop_oneof![
        2 => (job.clone(), 0u64..6, 1u32..4, 0u32..3, 0..SHAPES.len())
            .prop_map(|(job, units, quorum, slack, shape)| {
                Op::AddJob { job, units, quorum, slack, shape }
            }),
        10 => (node.clone(), 1u32..5).prop_map(|(node, leases)| Op::Request { node, leases }),
        14 => (lease.clone(), prop::option::weighted(0.1, node.clone()), 0u8..6)
            .prop_map(|(lease, thief, output)| Op::Report { lease, thief, output }),
        2 => lease.clone().prop_map(|lease| Op::Fail { lease }),
        3 => (node.clone(), 0usize..4).prop_map(|(node, of)| Op::Heartbeat { node, of }),
        4 => lease.clone().prop_map(|lease| Op::Store { lease }),
        2 => (1u64..50).prop_map(|minutes| Op::Wait { minutes }),
        1 => lease.prop_map(|lease| Op::Undelivered { lease }),
        1 => node.prop_map(|node| Op::Detach { node }),
        1 => job.prop_map(|job| Op::Cancel { job }),
        1 => Just(Op::Restart),
        1 => Just(Op::Snapshot),
    ]
}

/// The second set of books.
struct World {
    env: TestEnv,
    jobs: BTreeMap<Cid, (JobSpec, Layout)>,
    leases: Vec<(NodeId, Granted)>,
    had: BTreeSet<(NodeId, Cid, u64)>,
    accepted: BTreeMap<(Cid, u64), Cid>,
}

fn member(number: u8) -> NodeId {
    node(&format!("node {number}"))
}

impl World {
    fn new() -> Self {
        let config = Config { disagreements_max: 3, failures_per_job_max: 2, ..Config::default() };
        Self {
            env: TestEnv::with(config),
            jobs: BTreeMap::new(),
            leases: vec![],
            had: BTreeSet::new(),
            accepted: BTreeMap::new(),
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::AddJob { job, units, quorum, slack, shape } => {
                self.add_job(job, units, quorum, slack, SHAPES[shape]);
            }
            Op::Request { node, leases } => self.request(member(node), request(leases)),
            Op::Report { lease, thief, output } => {
                // Most agree; two outputs are wrong.
                let output =
                    ["right", "right", "right", "right", "wrong", "other"][usize::from(output)];
                if let Some((holder, lease)) = self.pick(lease) {
                    let by = thief.map_or(holder, member);
                    let output = format!("{output} {}", lease.index);
                    self.report(result(by, &lease, Ok(&output)));
                }
            }
            Op::Fail { lease } => {
                if let Some((holder, lease)) = self.pick(lease) {
                    self.report(result(holder, &lease, Err(Exit::Crashed)));
                }
            }
            Op::Heartbeat { node, of } => {
                let some = self.leases.iter().rev().skip(of).take(5);
                let running = some.map(|(_, lease)| lease.replica).collect::<Vec<_>>();
                let (node, kept, checkpointed) = (member(node), running.clone(), vec![]);
                self.step(Event::Heartbeat { node, running, kept, checkpointed });
            }
            Op::Store { lease } => {
                if let Some((_, lease)) = self.pick(lease) {
                    self.step(Event::OutputStored { job: lease.job, index: lease.index });
                }
            }
            Op::Wait { minutes } => {
                self.env.now = self.env.now + Duration::from_secs(60 * minutes);
                self.step(Event::DeadlineReached);
            }
            Op::Undelivered { lease } => {
                if let Some((_, lease)) = self.pick(lease) {
                    self.step(Event::LeasesUndelivered { replicas: vec![lease.replica] });
                }
            }
            Op::Detach { node } => self.step(Event::NodeDetached { node: member(node) }),
            Op::Cancel { job } => {
                self.step(Event::JobCancelled { job: cid(&format!("job {job}")) });
            }
            Op::Snapshot => self.env.snapshot(),
            Op::Restart => {
                self.env.restart();
                self.watch(None);
            }
        }
    }

    fn pick(&self, lease: usize) -> Option<(NodeId, Granted)> {
        self.leases.iter().rev().nth(lease).cloned()
    }

    fn add_job(&mut self, job: u8, units: u64, quorum: u32, slack: u32, shape: &[Gather]) {
        let mut spec = spec();
        spec.validation.min_quorum = quorum;
        spec.validation.target_nresults = quorum + slack % 2;
        spec.validation.max_success_results = quorum + slack;
        spec.validation.max_total_results = quorum + 1 + slack * 2;
        let stage = |gather| Stage { name: "stage".into(), args: vec![], gather };
        spec.stages = shape.iter().copied().map(stage).collect();
        let job = cid(&format!("job {job}"));
        let layout = Layout::new(units, shape);
        self.jobs.entry(job).or_insert_with(|| (spec.clone(), layout));
        self.step(Event::JobAdded { job, spec: Box::new(spec), units, seed: SEED });
    }

    fn request(&mut self, node: NodeId, request: WorkRequest) {
        self.env.step(Event::WorkRequested { node, request });
        self.watch(Some(node));
    }

    fn report(&mut self, result: ResultStatement) {
        let sealed = sealed(&result);
        self.step(Event::ResultReported { result: Box::new(result), sealed });
    }

    fn step(&mut self, event: Event) {
        self.env.step(event);
        self.watch(None);
    }

    /// Takes what the core did into these books, and checks it.
    fn watch(&mut self, asked_by: Option<NodeId>) {
        while let Some(action) = self.env.take() {
            match action {
                Action::Lease(granted) => {
                    let node = asked_by.expect("leases answer a request");
                    for lease in granted {
                        let is_first = self.had.insert((node, lease.job, lease.index));
                        assert!(is_first, "{node} got unit {} twice", lease.index);
                        self.check_inputs(&lease);
                        self.leases.push((node, lease));
                    }
                }
                Action::Accept { job, index, output, results, .. } => {
                    self.check_acceptance(job, index, output, &results);
                }
                Action::FetchOutput { job, index, holders, .. } => {
                    assert!(!holders.is_empty());
                    assert!(self.accepted.contains_key(&(job, index)), "fetched before accepted");
                }
                Action::Persist(_)
                | Action::Compare { .. }
                | Action::Verdict(_)
                | Action::HeartbeatAnswer { .. }
                | Action::AnnounceWork
                | Action::JobEnded { .. } => {}
            }
        }
    }

    /// A later unit takes what was accepted before it and is safe, and nothing else.
    fn check_inputs(&self, lease: &Granted) {
        let inputs = self.jobs[&lease.job].1.inputs(lease.index);
        let taken: Vec<Cid> = lease.inputs.iter().map(|input| input.output).collect();
        let accepted: Vec<Cid> =
            inputs.clone().map(|index| self.accepted[&(lease.job, index)]).collect();
        assert_eq!(taken, accepted, "unit {} took something else", lease.index);
        for index in inputs {
            let is_stored = |record: &Record| {
                matches!(record, Record::OutputStored { job, index: stored, .. }
                    if (*job, *stored) == (lease.job, index))
            };
            assert!(self.env.journal.iter().any(is_stored), "output {index} was not safe");
        }
        assert!(lease.inputs.iter().all(|input| !input.holders.is_empty()));
    }

    /// What an offline check of the receipt would ask.
    fn check_acceptance(&mut self, job: Cid, index: u64, output: Cid, results: &[Vec<u8>]) {
        let before = self.accepted.insert((job, index), output);
        assert!(before.is_none(), "unit {index} of {job} was accepted twice");
        let rules = &self.jobs[&job].0.validation;
        let mut nodes = BTreeSet::new();
        let mut agreeing = 0;
        for bytes in results {
            let result: ResultStatement = codec::decode(bytes).expect("what was reported");
            assert!(nodes.insert(result.node), "{} voted twice", result.node);
            let was_leased = self.leases.iter().any(|(node, lease)| {
                (*node, lease.replica, lease.job, lease.index)
                    == (result.node, result.replica, job, index)
            });
            assert!(was_leased, "a vote without a lease");
            agreeing += u32::from(result.output == Some(output));
        }
        assert!(agreeing >= rules.agreement(), "unit {index} was accepted without agreement");
        assert!(results.len() >= rules.min_quorum as usize);
    }

    /// Honest nodes, one replica after the other, until nothing is left to do.
    fn finish(&mut self) {
        for helper in 0..200u32 {
            let node = node(&format!("helper {helper}"));
            let from = self.leases.len();
            self.request(node, request(100));
            for (node, lease) in self.leases.split_off(from) {
                self.leases.push((node, lease.clone()));
                let output = format!("right {}", lease.index);
                self.report(result(node, &lease, Ok(&output)));
            }
            self.env.now = self.env.now + Duration::from_secs(3600);
            self.step(Event::DeadlineReached);
            let accepted: Vec<_> = self.accepted.keys().copied().collect();
            for (job, index) in accepted {
                self.step(Event::OutputStored { job, index });
            }
            let is_over = self.env.core.jobs().all(|view| view.state != JobState::Running);
            if is_over && self.env.core.next_deadline().is_none() {
                return;
            }
        }
        panic!("work is left: {:#?}", self.env.core.jobs().collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_whatever_happens(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
        }
        world.finish();
        // Nothing of an ended job stays in memory.
        let state = world.env.core.state();
        prop_assert!(state.replicas.is_empty() && state.with_work.is_empty());
        prop_assert!(state.jobs.values().all(|job| job.units.is_empty()));
        for view in world.env.core.jobs() {
            if matches!(view.state, JobState::Completed { .. }) {
                prop_assert_eq!((view.done, view.done + view.failed), (view.stored, view.units));
            }
        }
    }
}
