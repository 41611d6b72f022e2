//! What becomes visible once it is durable: answers, announcements, pulled outputs.

use std::time::Duration;

use dockercomp_coordinator_core::UnitView;
use dockercomp_protocol::wire::work::Verdict;
use dockercomp_protocol::{Cid, NodeId, ReplicaId};

use super::process::{Effect, Input, Pulling};
use super::{Coordinator, short};
use crate::context::{Context, Event};
use crate::jobs::UnitId;
use crate::message::{Answer, Calling};
use crate::names;
use crate::trace::What;

impl Coordinator {
    pub(super) fn publish(&mut self, cx: &mut Context, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer { calling, answer } => self.send(cx, calling, answer),
                Effect::Acknowledge { job, cancelled: false } => {
                    self.acknowledged.insert(job);
                }
                Effect::Acknowledge { job, cancelled: true } => {
                    self.cancelled.insert(job);
                }
                Effect::Announce => self.announce(cx),
                Effect::Pull { unit, output, holders } => self.pull(cx, unit, output, &holders),
            }
        }
    }

    fn send(&mut self, cx: &mut Context, calling: Calling, answer: Answer) {
        let Calling { host, life, question, reported } = calling;
        match &answer {
            Answer::Work(leases) => {
                for lease in leases {
                    cx.note(What::Granted, [host.into(), lease.replica.0, lease.unit.index]);
                    cx.books.granted(host, lease.replica, lease.unit);
                }
            }
            Answer::Reported(verdicts) => {
                for (verdict, replica) in verdicts.iter().zip(&reported) {
                    cx.note(What::Verdict, [host.into(), replica.0, *verdict as u64]);
                    if *verdict == Verdict::Stored {
                        cx.books.acknowledged(*replica);
                    }
                }
            }
            Answer::Welcome | Answer::Heartbeat { .. } | Answer::RegisterFirst => {}
        }
        let mut is_lost = true;
        for latency in cx.carry(host, &mut self.network) {
            is_lost = false;
            let answer = Box::new(answer.clone());
            cx.after(latency, Event::ToHost { host, life, question, answer });
        }
        // Sometimes the shell sees that an answer could not be sent, sometimes it does not.
        let is_noticed = self.network.chance(0.5);
        if is_lost {
            cx.note(What::AnswerLost, [host.into(), question, u64::from(is_noticed)]);
            if let (Answer::Work(leases), true, Some(process)) =
                (answer, is_noticed, &mut self.process)
            {
                let replicas: Vec<ReplicaId> = leases.iter().map(|lease| lease.replica).collect();
                if !replicas.is_empty() {
                    process.inbox.push_back(Input::Undelivered { replicas });
                }
            }
        }
    }

    fn announce(&mut self, cx: &mut Context) {
        cx.note(What::Announced, [0; 3]);
        for host in 0..cx.scenario.hosts() + cx.scenario.reinforcements {
            for latency in cx.carry(host, &mut self.network) {
                cx.after(latency, Event::Announced { host });
            }
        }
    }

    fn pull(&mut self, cx: &mut Context, unit: UnitId, output: Cid, holders: &[NodeId]) {
        let Some(process) = &mut self.process else { return };
        let holders = holders.iter().map(names::host);
        if let Some(pulling) = process.pulling.get_mut(&unit) {
            let before = pulling.holders.len();
            pulling.holders.extend(holders);
            if pulling.holders.len() > before {
                pulling.drought = Duration::ZERO;
            }
            return;
        }
        let (holders, drought) = (holders.collect(), Duration::ZERO);
        process.pulling.insert(unit, Pulling { output, holders, drought });
        let time = self.work.duration(&cx.scenario.coordinator.pull);
        cx.after(time, Event::Pull { life: self.life, unit });
    }

    /// Tries to pull an output; `serves` says whether a host gives it.
    pub(crate) fn on_pull(
        &mut self,
        cx: &mut Context,
        life: u32,
        unit: UnitId,
        serves: impl Fn(u32, Cid) -> bool,
    ) {
        /// Pause before an output that nobody gave is asked for again.
        const RETRY: Duration = Duration::from_secs(2);
        /// A host that was not heard of for this long is away.
        const AWAY_AFTER: Duration = Duration::from_secs(150);
        if life != self.life {
            return;
        }
        let Some(process) = &mut self.process else { return };
        let cid = cx.jobs.job(unit.job).cid;
        let known = process.core.explain_unit(cid, unit.index);
        if !matches!(known, Some(UnitView::Accepted { stored: false, .. })) {
            // Its job was cancelled, or it failed.
            process.pulling.remove(&unit);
            return;
        }
        let Some(pulling) = process.pulling.get_mut(&unit) else { return };
        let output = pulling.output;
        let is_here = self.journal.vault.contains(&output)
            || pulling.holders.iter().any(|&host| serves(host, output) && cx.cut(host).is_none());
        let UnitId { job, index } = unit;
        if is_here {
            cx.note(What::OutputPulled, [job.into(), index, short(output)]);
            self.journal.vault.insert(output);
            process.pulling.remove(&unit);
            self.push(cx, Input::Pulled { unit });
        } else {
            cx.note(What::OutputMissing, [job.into(), index, short(output)]);
            let now = cx.now.timestamp();
            if process.core.is_replaceable(now, cid, index, AWAY_AFTER) {
                pulling.drought += RETRY;
            }
            if pulling.drought >= cx.scenario.coordinator.outputs_lost_after {
                // Whoever computes it again is to be asked anew.
                process.pulling.remove(&unit);
                cx.note(What::OutputLost, [job.into(), index, short(output)]);
                self.push(cx, Input::Lost { unit });
            } else {
                cx.after(RETRY, Event::Pull { life, unit });
            }
        }
    }
}
