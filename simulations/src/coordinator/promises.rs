//! What must be true after a crash and at the end: checked against the journal, by cores that
//! are made from it for the purpose.

use std::time::Duration;

use dockercomp_coordinator_core::{Action, Core, Event as Fact};
use dockercomp_protocol::codec;
use dockercomp_protocol::wire::work::Verdict;

use super::Coordinator;
use crate::context::Context;
use crate::jobs::statement;
use crate::names;
use crate::violation::Violation;

impl Coordinator {
    /// Whatever a host was told is stored must be known to the next process: a report that is
    /// sent again must change nothing.
    pub(super) fn check_promises(&self, cx: &mut Context) {
        let mut probe = match self.journal.replay(&cx.scenario.coordinator.core) {
            Ok(core) => core,
            Err(violation) => return cx.violated(*violation),
        };
        for &job in &self.acknowledged {
            if probe.job_state(cx.jobs.job(job).cid).is_none() {
                cx.violated(Violation::JobLost { job });
            }
        }
        let mut lost = Vec::new();
        for (replica, host, unit, product) in cx.books.promises() {
            let name = names::name(host);
            let result = statement(&cx.jobs, replica, unit, name, product, Duration::ZERO);
            let sealed = codec::encode(&result);
            probe.handle(
                cx.now.timestamp(),
                Fact::ResultReported { result: Box::new(result), sealed },
            );
            let mut is_known = false;
            while let Some(action) = probe.poll_action() {
                match action {
                    Action::Verdict(Verdict::Stored | Verdict::TooLate) => is_known = true,
                    Action::Persist(_) => {
                        lost.push(replica);
                        is_known = true;
                    }
                    _ => {}
                }
            }
            if !is_known {
                lost.push(replica);
            }
        }
        for replica in lost {
            cx.violated(Violation::AcknowledgedLost { replica });
        }
    }

    /// The live core must be what its durable records say.
    pub(super) fn compare(&self, cx: &mut Context, core: &Core) {
        match self.journal.replay(&cx.scenario.coordinator.core) {
            Ok(standby) if standby.state() == core.state() => {}
            Ok(_) => cx.violated(Violation::ReplayDiffers { records: self.journal.len() }),
            Err(violation) => cx.violated(*violation),
        }
    }

    /// The last comparisons of a run.
    pub(crate) fn check_at_the_end(&self, cx: &mut Context) {
        let Some(process) = &self.process else { return };
        if process.under_way.is_none() {
            self.compare(cx, &process.core);
        }
        let figures: Vec<(u32, u64)> = cx
            .jobs
            .iter()
            .filter_map(|(number, job)| Some((number, process.core.job(job.cid)?.done)))
            .collect();
        for (job, done) in figures {
            cx.books.count(job, done);
        }
    }
}
