//! A world in which anything may happen: nodes, jobs and time, driven by [`Op`]s.
//!
//! What leaves the core goes to a [`Witness`], which checks it.

use std::ops::Range;
use std::time::Duration;

use dockercomp_protocol::execution::Exit;
use dockercomp_protocol::job::{
    Adaptive, Audited, Comparison, Credibility, Gather, Policy, Share, Stage,
};
use dockercomp_protocol::layout::Layout;
use dockercomp_protocol::receipt::Basis;
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::WorkRequest;
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp};

use super::env::{SEED, TestEnv, cid, node, request, result, sealed, spec};
use super::witness::Witness;
use crate::{Action, Config, Event, Granted, JobState, Profile};

pub(super) const NODES: u8 = 6;
pub(super) const JOBS: u8 = 4;
/// What programs leave: most agree. What is close is the same to who compares by more than
/// bytes, and what is broken cannot be read then.
pub(super) const OUTPUTS: [&str; 16] = [
    "right", "right", "right", "right", "right", "right", "right", "right", "right", "right",
    "close", "close", "wrong", "wrong", "other", "broken",
];
/// Those of them that seldom agree.
pub(super) const DISCORD: Range<usize> = 8..14;
/// What jobs do with the outputs of their first stage.
pub(super) const SHAPES: [&[Gather]; 5] = [
    &[],
    &[],
    &[Gather::Tree { fan_in: 2 }],
    &[Gather::Each, Gather::Tree { fan_in: 3 }],
    &[Gather::Tree { fan_in: 3 }, Gather::Each],
];

/// One thing that happens. Leases and units are picked by number among those there were.
#[derive(Clone, Debug)]
pub(super) enum Op {
    AddJob {
        job: u8,
        units: u64,
        quorum: u32,
        slack: u32,
        shape: usize,
        policy: u8,
        /// Whether its outputs are compared by more than their bytes.
        compares: bool,
    },
    /// Under an operator's name, or none.
    Register {
        node: u8,
        operator: Option<u8>,
    },
    /// Nobody has the output of a lease's unit any more.
    Lose {
        lease: usize,
    },
    /// The answer to a comparison, of whichever age, that was asked for.
    Compare {
        question: usize,
    },
    Request {
        node: u8,
        leases: u32,
    },
    /// A node asks and at once gives what is right.
    Work {
        node: u8,
        leases: u32,
    },
    /// By the holder, or by somebody else.
    Report {
        lease: usize,
        thief: Option<u8>,
        /// Which of [`OUTPUTS`].
        output: usize,
    },
    Fail {
        lease: usize,
    },
    Heartbeat {
        node: u8,
        of: usize,
        saved: usize,
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

pub(super) const POLICIES: [Policy; 4] = [
    Policy::Fixed,
    Policy::Adaptive(Adaptive { trusted_after: 1, replication_factor: 1 }),
    Policy::Credibility(Credibility {
        accepted_error: Share::from_millionths(100_000),
        saboteurs: Share::from_millionths(200_000),
        spot_checks: Share::from_millionths(500_000),
    }),
    Policy::Audited(Audited {
        accepted_error: Share::from_millionths(50_000),
        saboteurs: Share::from_millionths(200_000),
        audit_floor: Share::from_millionths(10_000),
        lot_max: 3,
        hold_ms: 1_800_000,
    }),
];

/// See the module documentation.
pub(super) struct World {
    pub(super) env: TestEnv,
    witness: Witness,
    /// Records that the witness has seen.
    n_seen: usize,
    leases: Vec<(NodeId, Granted)>,
    /// Comparisons that were asked for.
    questions: Vec<Question>,
    /// No lease runs out before this.
    grace_until: Timestamp,
}

/// What [`Action::Compare`] asks.
#[derive(Clone)]
struct Question {
    job: Cid,
    index: u64,
    outputs: Vec<(ReplicaId, NodeId, Cid)>,
}

fn member(number: u8) -> NodeId {
    node(&format!("node {number}"))
}

/// What a node claims: not every one the same.
fn fuel(node: NodeId) -> u64 {
    let last = node.to_bytes().last().copied().unwrap_or_default();
    (1 + u64::from(last % 5)) * 1_000_000_000
}

impl World {
    pub(super) fn new() -> Self {
        let config = Config { disagreements_max: 3, failures_per_job_max: 2, ..Config::default() };
        Self {
            env: TestEnv::with(config),
            witness: Witness::default(),
            n_seen: 0,
            leases: vec![],
            questions: vec![],
            grace_until: Timestamp::default(),
        }
    }

    pub(super) fn run(&mut self, op: Op) {
        match op {
            Op::AddJob { .. } => self.add_job(&op),
            Op::Register { node, operator } => {
                let plain = Profile::plain(request(1).executors, request(1).free);
                let operator = operator.map(|number| format!("operator {number}"));
                self.witness.register(member(node), operator.clone());
                let profile = Profile { operator, ..plain };
                self.step(Event::NodeRegistered { node: member(node), profile });
            }
            Op::Lose { lease } => {
                if let Some((_, Granted { job, index, .. })) = self.pick(lease) {
                    self.step(Event::OutputLost { job, index });
                }
            }
            Op::Request { node, leases } => self.request(member(node), request(leases)),
            Op::Work { node, leases } => self.work(member(node), leases),
            Op::Report { lease, thief, output } => {
                if let Some((holder, lease)) = self.pick(lease) {
                    let by = thief.map_or(holder, member);
                    self.report(by, &lease, OUTPUTS[output]);
                }
            }
            // More than once, if it is picked again.
            Op::Compare { question } => {
                if let Some(question) = self.questions.iter().rev().nth(question).cloned() {
                    self.answer(question);
                }
            }
            Op::Fail { lease } => {
                if let Some((holder, lease)) = self.pick(lease) {
                    self.send(result(holder, &lease, Err(Exit::Crashed)));
                }
            }
            Op::Heartbeat { node, of, saved } => {
                let some = self.leases.iter().rev().skip(of).take(5);
                let running = some.map(|(_, lease)| lease.replica).collect::<Vec<_>>();
                let checkpointed = running.iter().copied().take(saved).collect();
                let (node, kept) = (member(node), running.clone());
                self.step(Event::Heartbeat { node, running, kept, checkpointed });
            }
            Op::Store { lease } => {
                if let Some((_, lease)) = self.pick(lease) {
                    self.step(Event::OutputStored { job: lease.job, index: lease.index });
                }
            }
            Op::Wait { minutes } => self.wait(Duration::from_secs(60 * minutes)),
            Op::Undelivered { lease } => {
                if let Some((_, lease)) = self.pick(lease) {
                    self.step(Event::LeasesUndelivered { replicas: vec![lease.replica] });
                }
            }
            Op::Detach { node } => {
                self.witness.detach(member(node));
                self.step(Event::NodeDetached { node: member(node) });
            }
            Op::Cancel { job } => {
                self.step(Event::JobCancelled { job: cid(&format!("job {job}")) });
            }
            Op::Snapshot => self.env.snapshot(),
            Op::Restart => {
                self.witness.restart();
                self.env.restart();
                self.grace_until = self.env.now + Config::default().resume_grace;
                self.watch(None);
            }
        }
    }

    /// By which rules units were accepted.
    pub(super) fn bases(&self) -> &[Basis] {
        self.witness.bases()
    }

    fn pick(&self, lease: usize) -> Option<(NodeId, Granted)> {
        self.leases.iter().rev().nth(lease).cloned()
    }

    fn add_job(&mut self, op: &Op) {
        let &Op::AddJob { job, units, quorum, slack, shape, policy, compares } = op else {
            return;
        };
        let mut spec = spec();
        spec.validation.policy = POLICIES[usize::from(policy)];
        spec.validation.min_quorum = quorum;
        spec.validation.target_nresults = quorum + slack % 2;
        spec.validation.max_success_results = quorum + slack;
        spec.validation.max_total_results = quorum + 1 + slack * 2;
        spec.validation.max_error_results = slack;
        if compares {
            spec.validation.comparison = Comparison::Checker { args: vec![] };
        }
        let stage = |gather| Stage { name: "stage".into(), args: vec![], gather };
        let shape = SHAPES[shape];
        spec.stages = shape.iter().copied().map(stage).collect();
        let job = cid(&format!("job {job}"));
        self.witness.add_job(job, &spec, Layout::new(units, shape));
        self.step(Event::JobAdded { job, spec: Box::new(spec), units, seed: SEED });
    }

    fn request(&mut self, node: NodeId, request: WorkRequest) {
        self.step(Event::WorkRequested { node, request });
    }

    fn work(&mut self, node: NodeId, leases: u32) {
        let from = self.leases.len();
        self.request(node, request(leases));
        let granted = self.leases[from..].to_vec();
        for (node, lease) in granted {
            self.report(node, &lease, "right");
        }
    }

    fn report(&mut self, by: NodeId, lease: &Granted, output: &str) {
        let name = |output: &str| format!("{output} {}", lease.index);
        self.witness.add_same(cid(&name("close")), cid(&name("right")));
        self.send(result(by, lease, Ok(&name(output))));
    }

    fn send(&mut self, mut result: ResultStatement) {
        result.usage.fuel = fuel(result.node);
        let sealed = sealed(&result);
        self.step(Event::ResultReported { result: Box::new(result), sealed });
    }

    fn answer(&mut self, Question { job, index, outputs }: Question) {
        let broken = cid(&format!("broken {index}"));
        let mut classes: Vec<(Cid, Vec<ReplicaId>)> = Vec::new();
        for &(replica, _, output) in outputs.iter().filter(|&&(.., output)| output != broken) {
            let stands = self.witness.class_of(job, output);
            match classes.iter_mut().find(|(class, _)| *class == stands) {
                Some((_, members)) => members.push(replica),
                None => classes.push((stands, vec![replica])),
            }
        }
        let asked = outputs.iter().map(|&(replica, ..)| replica).collect();
        let classes = classes.into_iter().map(|(_, members)| members).collect();
        self.step(Event::Compared { job, index, asked, classes });
    }

    fn wait(&mut self, time: Duration) {
        self.env.now = self.env.now + time;
        self.step(Event::DeadlineReached);
        if self.env.now >= self.grace_until {
            self.witness.check_deadlines(self.env.now);
        }
    }

    fn step(&mut self, event: Event) {
        self.env.step(event.clone());
        self.watch(Some(&event));
    }

    /// Shows the witness what the core did, and takes what nodes are given.
    fn watch(&mut self, event: Option<&Event>) {
        self.witness.records(&self.env.journal[self.n_seen..]);
        self.n_seen = self.env.journal.len();
        let actions: Vec<Action> = std::iter::from_fn(|| self.env.take()).collect();
        let (mut leases, mut answers, mut verdicts) = (0, 0, 0);
        for action in &actions {
            match (action, event) {
                (Action::Lease(granted), Some(Event::WorkRequested { node, .. })) => {
                    leases += 1;
                    self.leases.extend(granted.iter().map(|lease| (*node, lease.clone())));
                }
                (Action::HeartbeatAnswer { .. }, Some(Event::Heartbeat { .. })) => answers += 1,
                (Action::Verdict(verdict), Some(Event::ResultReported { result, .. })) => {
                    verdicts += 1;
                    self.witness.verdict(*verdict, result);
                }
                (Action::Compare { job, index, outputs }, _) => {
                    let (job, index, outputs) = (*job, *index, outputs.clone());
                    self.questions.push(Question { job, index, outputs });
                }
                (Action::Lease(_) | Action::HeartbeatAnswer { .. } | Action::Verdict(_), _) => {
                    panic!("nobody asked for {action:?}");
                }
                (
                    Action::Persist(_)
                    | Action::Accept { .. }
                    | Action::FetchOutput { .. }
                    | Action::AnnounceWork
                    | Action::JobEnded { .. },
                    _,
                ) => {}
            }
        }
        let (by, expected) = match event {
            Some(Event::WorkRequested { node, .. }) => (Some(*node), (1, 0, 0)),
            Some(Event::Heartbeat { node, .. }) => (Some(*node), (0, 1, 0)),
            Some(Event::ResultReported { result, .. }) => (Some(result.node), (0, 0, 1)),
            Some(_) | None => (None, (0, 0, 0)),
        };
        assert_eq!((leases, answers, verdicts), expected, "one answer to {event:?}");
        self.witness.actions(&actions, by);
        self.witness.check_credit(self.env.core.state());
    }

    /// Honest nodes, one replica after the other, until nothing is left to do.
    pub(super) fn finish(&mut self) {
        for helper in 0..200u32 {
            let node = node(&format!("helper {helper}"));
            self.work(node, 100);
            while let Some(question) = self.questions.pop() {
                self.answer(question);
            }
            self.wait(Duration::from_secs(3600));
            for (job, index) in self.witness.all_wanted() {
                self.step(Event::OutputStored { job, index });
            }
            let is_over = self.env.core.jobs().all(|view| view.state != JobState::Running);
            if is_over && self.env.core.next_deadline().is_none() {
                self.witness.check_end();
                return;
            }
        }
        panic!("work is left: {:#?}", self.env.core.jobs().collect::<Vec<_>>());
    }
}
