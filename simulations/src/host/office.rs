//! A host's dealings with the coordinator: questions, answers, and what a thief sends.

use std::time::Duration;

use dockercomp_agent::{Event as Fact, Lease as Held};
use dockercomp_protocol::ReplicaId;
use dockercomp_protocol::limits::LEASES_MAX;
use dockercomp_protocol::time::millis;
use dockercomp_protocol::wire::work::{Verdict, WorkRequest};

use super::Host;
use crate::behaviour::Behaviour;
use crate::context::{Context, Event};
use crate::desk::{LeaseRow, ResultRow};
use crate::jobs::statement;
use crate::message::{Answer, Calling, Lease, Request};
use crate::names;
use crate::session::Question;
use crate::trace::What;

/// The number of a question whose answer nobody waits for.
const NOBODY: u64 = u64::MAX;

impl Host {
    /// Sends what can be sent, and sets the timer.
    pub(super) fn go_on(&mut self, cx: &mut Context) {
        let timeout = cx.scenario.network.timeout;
        let Some(process) = &mut self.process else { return };
        if let Some((number, question)) = process.session.next(cx.now, timeout) {
            self.send(cx, number, &question);
        }
        self.set_timer(cx);
    }

    fn send(&mut self, cx: &mut Context, question: u64, what: &Question) {
        cx.note(What::Asked, [self.number.into(), question, self.life.into()]);
        let mut reported = Vec::new();
        let request = match what {
            Question::Register => {
                let (executors, offer) = (self.crowd.executors.clone(), self.config.offer);
                Request::Register { executors, offer, operator: self.operator }
            }
            Question::Work { free, leases_max } => Request::Work(WorkRequest {
                free: *free,
                leases_max: (*leases_max).min(u32::try_from(LEASES_MAX).unwrap_or(u32::MAX)),
                executors: self.crowd.executors.clone(),
                cached: vec![],
            }),
            Question::Report { replicas } => {
                reported.extend(replicas.iter().filter(|id| self.desk.results.contains_key(id)));
                self.steal(cx, &reported);
                let rows = reported.iter().map(|&id| (id, &self.desk.results[&id]));
                let name = names::name(self.number);
                let state = |(id, row): (ReplicaId, &ResultRow)| {
                    statement(&cx.jobs, id, row.unit, name, &row.product, row.ran)
                };
                Request::Report(rows.map(state).collect())
            }
            Question::Heartbeat { running, kept } => {
                Request::Heartbeat { running: running.clone(), kept: kept.clone() }
            }
        };
        let calling = Calling { host: self.number, life: self.life, question, reported };
        self.post(cx, calling, request);
    }

    /// A thief reports its output under the name of everybody else who has the unit.
    fn steal(&mut self, cx: &mut Context, reported: &[ReplicaId]) {
        if self.crowd.behaviour != Behaviour::Thief {
            return;
        }
        let mut stolen = Vec::new();
        for id in reported {
            let row = &self.desk.results[id];
            for (replica, victim) in cx.books.siblings(*id) {
                let name = names::name(victim);
                stolen.push(statement(&cx.jobs, replica, row.unit, name, &row.product, row.ran));
            }
        }
        if !stolen.is_empty() {
            let (host, life) = (self.number, self.life);
            let calling = Calling { host, life, question: NOBODY, reported: vec![] };
            self.post(cx, calling, Request::Report(stolen));
        }
    }

    fn post(&mut self, cx: &mut Context, calling: Calling, request: Request) {
        for latency in cx.carry(self.number, &mut self.network) {
            let (calling, request) = (calling.clone(), Box::new(request.clone()));
            cx.after(latency, Event::ToCoordinator { calling, request });
        }
    }

    pub(crate) fn on_answer(&mut self, cx: &mut Context, life: u32, number: u64, answer: Answer) {
        if life != self.life {
            return;
        }
        let Some(process) = &mut self.process else { return };
        let Some(question) = process.session.answered(number) else { return };
        cx.note(What::Answered, [self.number.into(), number, self.life.into()]);
        let heartbeat = cx.scenario.coordinator.heartbeat;
        match (question, answer) {
            (Question::Register, Answer::Welcome) => {
                self.tell(cx, Fact::Welcomed { heartbeat });
            }
            (Question::Work { .. }, Answer::Work(leases)) => self.on_leases(cx, &leases),
            (Question::Report { replicas }, Answer::Reported(verdicts)) => {
                self.on_verdicts(cx, replicas, &verdicts);
            }
            (Question::Heartbeat { .. }, Answer::Heartbeat { abandon, forget }) => {
                self.tell(cx, Fact::HeartbeatAnswered { abandon, forget });
            }
            (question, _) => self.lose_session(cx, Some(question)),
        }
        self.go_on(cx);
    }

    fn on_leases(&mut self, cx: &mut Context, leases: &[Lease]) {
        let now = self.clock(cx.now);
        let mut held = Vec::with_capacity(leases.len());
        for lease in leases {
            // The wire carries whole milliseconds.
            let expires_at = now + Duration::from_millis(millis(lease.expires_in));
            let need = cx.jobs.job(lease.unit.job).need();
            self.desk.leases.insert(lease.replica, LeaseRow { unit: lease.unit, expires_at });
            held.push(Held { replica: lease.replica, need, expires_at, begun: false });
        }
        let retry = cx.scenario.coordinator.retry;
        self.tell(cx, Fact::Assigned { leases: held, retry });
    }

    fn on_verdicts(&mut self, cx: &mut Context, replicas: Vec<ReplicaId>, verdicts: &[Verdict]) {
        // What was sent: a result leaves the desk only when it is acknowledged.
        let sent = replicas.into_iter().filter(|id| self.desk.results.contains_key(id));
        let sent: Vec<ReplicaId> = sent.collect();
        let (mut stored, mut refused) = (Vec::new(), Vec::new());
        for (replica, verdict) in sent.into_iter().zip(verdicts) {
            let output = self.desk.results.get(&replica).and_then(|row| row.product.output);
            match (verdict, output) {
                (Verdict::Stored, Some(output)) => {
                    self.desk.reported(replica, output);
                    stored.push(replica);
                }
                (Verdict::Stored, None)
                | (Verdict::TooLate | Verdict::NotYours | Verdict::NotRight, _) => {
                    refused.push(replica);
                }
            }
        }
        self.tell(cx, Fact::Reported { stored, refused });
    }

    pub(super) fn lose_session(&mut self, cx: &mut Context, question: Option<Question>) {
        let Some(process) = &mut self.process else { return };
        for fact in process.session.lost(cx.now, &mut self.network, question) {
            self.tell(cx, fact);
        }
    }

    pub(crate) fn on_announced(&mut self, cx: &mut Context) {
        if self.process.is_some() {
            self.tell(cx, Fact::Announced);
            self.go_on(cx);
        }
    }
}
