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
use dockercomp_protocol::job::{
    Adaptive, Audited, Credibility, Gather, JobSpec, Policy, Share, Stage,
};
use dockercomp_protocol::layout::Layout;
use dockercomp_protocol::receipt::{Basis, Votes};
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::WorkRequest;
use dockercomp_protocol::{Cid, NodeId, codec};
use proptest::prelude::*;

use super::env::{SEED, TestEnv, cid, node, request, result, sealed, spec};
use crate::{Action, Config, Event, Granted, JobState, Profile, Record};

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
        policy: u8,
    },
    /// Under an operator's name, or none.
    Register {
        node: u8,
        operator: Option<u8>,
    },
    Lose {
        lease: usize,
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
        2 => (job.clone(), 0u64..6, 1u32..4, 0u32..3, 0..SHAPES.len(), 0u8..4)
            .prop_map(|(job, units, quorum, slack, shape, policy)| {
                Op::AddJob { job, units, quorum, slack, shape, policy }
            }),
        2 => (node.clone(), prop::option::of(0u8..2))
            .prop_map(|(node, operator)| Op::Register { node, operator }),
        1 => lease.clone().prop_map(|lease| Op::Lose { lease }),
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

const POLICIES: [Policy; 4] = [
    Policy::Fixed,
    Policy::Adaptive(Adaptive { trusted_after: 2, replication_factor: 1 }),
    Policy::Credibility(Credibility {
        accepted_error: Share::from_millionths(100_000),
        saboteurs: Share::from_millionths(200_000),
        spot_checks: Share::from_millionths(300_000),
    }),
    Policy::Audited(Audited {
        accepted_error: Share::from_millionths(50_000),
        saboteurs: Share::from_millionths(200_000),
        audit_floor: Share::from_millionths(10_000),
        lot_max: 3,
        hold_ms: 1_800_000,
    }),
];

/// The second set of books.
struct World {
    env: TestEnv,
    jobs: BTreeMap<Cid, (JobSpec, Layout)>,
    leases: Vec<(NodeId, Granted)>,
    had: BTreeSet<(NodeId, Cid, u64)>,
    /// As they registered last.
    operators: BTreeMap<NodeId, Option<String>>,
    /// Operators by the units that they have had.
    had_by: BTreeSet<(String, Cid, u64)>,
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
            operators: BTreeMap::new(),
            had_by: BTreeSet::new(),
            accepted: BTreeMap::new(),
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::AddJob { job, units, quorum, slack, shape, policy } => {
                self.add_job(job, units, quorum, slack, SHAPES[shape], policy);
            }
            Op::Register { node, operator } => {
                let plain = Profile::plain(request(1).executors, request(1).free);
                let operator = operator.map(|number| format!("operator {number}"));
                self.operators.insert(member(node), operator.clone());
                let profile = Profile { operator, ..plain };
                self.step(Event::NodeRegistered { node: member(node), profile });
            }
            Op::Lose { lease } => {
                // Honest nodes could not compute a wrong one again.
                let right = cid("right");
                if let Some((_, lease)) = self.pick(lease)
                    && self.accepted.get(&(lease.job, lease.index)) == Some(&right)
                {
                    self.step(Event::OutputLost { job: lease.job, index: lease.index });
                }
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
            Op::Detach { node } => {
                self.operators.remove(&member(node));
                self.step(Event::NodeDetached { node: member(node) });
            }
            Op::Cancel { job } => {
                self.step(Event::JobCancelled { job: cid(&format!("job {job}")) });
            }
            Op::Snapshot => self.env.snapshot(),
            Op::Restart => {
                // What was not journaled is said again by the nodes, or not.
                self.operators.clear();
                self.env.restart();
                self.watch(None);
            }
        }
    }

    fn pick(&self, lease: usize) -> Option<(NodeId, Granted)> {
        self.leases.iter().rev().nth(lease).cloned()
    }

    fn add_job(
        &mut self,
        job: u8,
        units: u64,
        quorum: u32,
        slack: u32,
        shape: &[Gather],
        policy: u8,
    ) {
        let mut spec = spec();
        spec.validation.policy = POLICIES[usize::from(policy)];
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
                        if let Some(Some(operator)) = self.operators.get(&node) {
                            let unit = (operator.clone(), lease.job, lease.index);
                            assert!(self.had_by.insert(unit), "an operator got a unit twice");
                        }
                        self.leases.push((node, lease));
                    }
                }
                Action::Accept { job, index, output, basis, results, .. } => {
                    self.check_acceptance(job, index, output, basis, &results);
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
    fn check_acceptance(
        &mut self,
        job: Cid,
        index: u64,
        output: Cid,
        basis: Basis,
        results: &[Vec<u8>],
    ) {
        let before = self.accepted.insert((job, index), output);
        assert!(before.is_none(), "unit {index} of {job} was accepted twice");
        let rules = &self.jobs[&job].0.validation;
        let mut nodes = BTreeSet::new();
        let mut votes: BTreeMap<Option<Cid>, usize> = BTreeMap::new();
        for bytes in results {
            let result: ResultStatement = codec::decode(bytes).expect("what was reported");
            assert!(nodes.insert(result.node), "{} voted twice", result.node);
            let was_leased = self.leases.iter().any(|(node, lease)| {
                (*node, lease.replica, lease.job, lease.index)
                    == (result.node, result.replica, job, index)
            });
            assert!(was_leased, "a vote without a lease");
            *votes.entry(result.output).or_default() += 1;
        }
        let agreeing = votes.remove(&Some(output)).unwrap_or(0);
        let rival = votes.into_values().max().unwrap_or(0);
        let votes = Votes { agreeing, successes: results.len(), rival };
        assert!(basis.is_allowed_by(rules), "unit {index} was accepted by {basis}");
        assert!(basis.is_met_by(&votes, rules), "unit {index}: {basis} is not met");
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
    // 256 sequences, or as many as PROPTEST_CASES says.
    #![proptest_config(ProptestConfig::default())]

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
