//! One process of the coordinator: what reaches the shell, and what the core makes of it.
//!
//! Everything here is lost at a crash.
//!
//! # What is not here
//!
//! Signatures and encodings. A result is refused here if it does not come from the node that
//! it names, which in production its signature and the connection prove.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use dockercomp_coordinator_core::{Action, Core, Event as Fact, Granted, Profile, Record};
use dockercomp_protocol::receipt::Basis;
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::Verdict;
use dockercomp_protocol::{Cid, NodeId, ReplicaId, codec};

use crate::context::{Context, Event};
use crate::defect::Defect;
use crate::jobs::{UnitId, chance_of};
use crate::message::{Answer, Calling, Lease, Request};
use crate::moment::Moment;
use crate::names;
use crate::trace::What;

/// A canonical result, as somebody who was not there could check it.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    pub(crate) unit: UnitId,
    pub(crate) output: Cid,
    /// The rule that accepted it.
    pub(crate) basis: Basis,
    /// Encoded results; the signature around each is left out.
    pub(crate) results: Vec<Vec<u8>>,
}

/// What reaches the shell.
#[derive(Debug)]
pub(super) enum Input {
    Asked { calling: Calling, request: Request },
    Submitted { job: u32 },
    Cancelled { job: u32 },
    Undelivered { replicas: Vec<ReplicaId> },
    Pulled { unit: UnitId },
    Lost { unit: UnitId },
}

/// What a batch makes visible, in order.
#[derive(Debug)]
pub(super) enum Effect {
    Answer { calling: Calling, answer: Answer },
    Acknowledge { job: u32, cancelled: bool },
    Announce,
    Pull { unit: UnitId, output: Cid, holders: Vec<NodeId> },
}

/// What a batch of inputs leads to.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) records: Vec<Record>,
    pub(super) receipts: Vec<Receipt>,
    pub(super) effects: Vec<Effect>,
}

/// What the core answered to one event.
pub(super) enum Said {
    Leases(Vec<Granted>),
    Verdict(Verdict),
    Heartbeat { abandon: Vec<ReplicaId>, forget: Vec<ReplicaId> },
    Nothing,
}

/// An output that is being pulled.
#[derive(Debug)]
pub(super) struct Pulling {
    pub(super) output: Cid,
    pub(super) holders: BTreeSet<u32>,
    /// How long none of them has given it, while another host could have computed it.
    pub(super) drought: Duration,
}

/// The process, while it runs.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) core: Core,
    pub(super) inbox: VecDeque<Input>,
    /// The batch that is being made durable.
    pub(super) under_way: Option<Step>,
    /// Hosts whose connection was greeted, by their life.
    pub(super) greeted: BTreeMap<u32, u32>,
    pub(super) pulling: BTreeMap<UnitId, Pulling>,
    /// When the queue will remind of the deadline.
    pub(super) reminder: Option<Moment>,
}

impl Process {
    pub(super) const fn new(core: Core) -> Self {
        Self {
            core,
            inbox: VecDeque::new(),
            under_way: None,
            greeted: BTreeMap::new(),
            pulling: BTreeMap::new(),
            reminder: None,
        }
    }

    pub(super) fn on_input(&mut self, cx: &mut Context, input: Input, step: &mut Step) {
        match input {
            Input::Asked { calling, request } => {
                if let Some(answer) = self.on_request(cx, &calling, request, step) {
                    step.effects.push(Effect::Answer { calling, answer });
                }
            }
            Input::Submitted { job } => {
                cx.note(What::JobSubmitted, [job.into(), 0, 0]);
                let submitted = cx.jobs.job(job);
                let spec = Box::new(submitted.submitted(cx.scenario.defect));
                let (cid, units) = (submitted.cid, submitted.plan.units);
                let seed = chance_of(cx.seed, job);
                self.tell(cx, Fact::JobAdded { job: cid, spec, units, seed }, step);
                step.effects.push(Effect::Acknowledge { job, cancelled: false });
            }
            Input::Cancelled { job } => {
                cx.note(What::JobCancelled, [job.into(), 0, 0]);
                let cid = cx.jobs.job(job).cid;
                self.tell(cx, Fact::JobCancelled { job: cid }, step);
                step.effects.push(Effect::Acknowledge { job, cancelled: true });
            }
            Input::Undelivered { replicas } => {
                self.tell(cx, Fact::LeasesUndelivered { replicas }, step);
            }
            Input::Pulled { unit } => {
                let (job, index) = (cx.jobs.job(unit.job).cid, unit.index);
                self.tell(cx, Fact::OutputStored { job, index }, step);
            }
            Input::Lost { unit } => {
                let (job, index) = (cx.jobs.job(unit.job).cid, unit.index);
                self.tell(cx, Fact::OutputLost { job, index }, step);
            }
        }
    }

    fn on_request(
        &mut self,
        cx: &mut Context,
        calling: &Calling,
        request: Request,
        step: &mut Step,
    ) -> Option<Answer> {
        let host = calling.host;
        let node = self.name(cx, host, calling.life);
        let is_greeted = self.greeted.get(&host) == Some(&calling.life);
        Some(match request {
            Request::Register { executors, offer, operator } => {
                self.greeted.insert(host, calling.life);
                let operator = operator.map(names::operator);
                let profile = Profile { operator, ..Profile::plain(executors, offer) };
                self.tell(cx, Fact::NodeRegistered { node, profile }, step);
                Answer::Welcome
            }
            _ if !is_greeted => Answer::RegisterFirst,
            Request::Work(request) => {
                let said = self.tell(cx, Fact::WorkRequested { node, request }, step);
                let Said::Leases(granted) = said else { return None };
                Answer::Work(granted.iter().map(|granted| lease(cx, granted)).collect())
            }
            Request::Report(results) => {
                let verdicts =
                    results.into_iter().map(|result| self.report(cx, node, result, step));
                Answer::Reported(verdicts.collect())
            }
            Request::Heartbeat { running, kept } => {
                let checkpointed = Vec::new();
                let said =
                    self.tell(cx, Fact::Heartbeat { node, running, kept, checkpointed }, step);
                let Said::Heartbeat { abandon, forget } = said else { return None };
                Answer::Heartbeat { abandon, forget }
            }
        })
    }

    /// Checks what the core trusts the shell to have checked, then tells it.
    fn report(
        &mut self,
        cx: &mut Context,
        node: NodeId,
        mut result: ResultStatement,
        step: &mut Step,
    ) -> Verdict {
        if cx.has(Defect::NewNames) {
            result.node = node;
        }
        if result.node != node && !cx.has(Defect::StolenNames) {
            return Verdict::NotYours;
        }
        if let Some((job, index)) = self.core.unit_of(result.replica) {
            let unit = cx.jobs.unit(&job, index);
            if job != result.job || cx.jobs.unit_cid(unit) != result.unit {
                return Verdict::NotRight;
            }
        }
        let sealed = codec::encode(&result);
        let fact = Fact::ResultReported { result: Box::new(result), sealed };
        match self.tell(cx, fact, step) {
            Said::Verdict(verdict) => verdict,
            Said::Leases(_) | Said::Heartbeat { .. } | Said::Nothing => Verdict::NotRight,
        }
    }

    /// Under which name the core knows a host.
    fn name(&self, cx: &Context, host: u32, life: u32) -> NodeId {
        if cx.has(Defect::NewNames) { names::alias(host, life) } else { names::name(host) }
    }

    fn tell(&mut self, cx: &mut Context, fact: Fact, step: &mut Step) -> Said {
        self.core.handle(cx.now.timestamp(), fact);
        self.drain(cx, step)
    }

    /// Collects what the core wants, and gives the answer among it.
    pub(super) fn drain(&mut self, cx: &mut Context, step: &mut Step) -> Said {
        let mut said = Said::Nothing;
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Persist(record) => step.records.push(record),
                Action::Lease(granted) => said = Said::Leases(granted),
                Action::Verdict(verdict) => said = Said::Verdict(verdict),
                Action::HeartbeatAnswer { abandon, forget } => {
                    said = Said::Heartbeat { abandon, forget };
                }
                Action::Accept { job, index, inputs: _, output, at: _, basis, results } => {
                    let unit = cx.jobs.unit(&job, index);
                    step.receipts.push(Receipt { unit, output, basis, results });
                }
                Action::FetchOutput { job, index, output, holders } => {
                    let unit = cx.jobs.unit(&job, index);
                    step.effects.push(Effect::Pull { unit, output, holders });
                }
                // No host of a scenario computes what is not equal in every byte.
                Action::Compare { .. } => {}
                Action::AnnounceWork => step.effects.push(Effect::Announce),
                Action::JobEnded { job, state: _ } => {
                    let number = cx.jobs.unit(&job, 0).job;
                    cx.note(What::JobEnded, [number.into(), 0, 0]);
                    cx.job_ended = Some(cx.now);
                }
            }
        }
        said
    }

    /// Has the queue remind of the core's next deadline.
    pub(super) fn remind(&mut self, cx: &mut Context, life: u32) {
        let Some(at) = self.core.next_deadline().map(Moment::at) else { return };
        if cx.has(Defect::LostDeadlines) || self.reminder.is_some_and(|reminder| reminder <= at) {
            return;
        }
        self.reminder = Some(at);
        cx.queue.push(at, Event::Deadline { life, at });
    }
}

fn lease(cx: &Context, granted: &Granted) -> Lease {
    Lease {
        replica: granted.replica,
        unit: cx.jobs.unit(&granted.job, granted.index),
        expires_in: granted.deadline.since(cx.now.timestamp()),
    }
}
