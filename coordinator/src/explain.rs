//! Why a node gets no work: the core's reasons, put as nodes and people are told them.

use std::time::Duration;

use dockercomp_coordinator_core::{Core, Hindrance, NoWork, NodeExplanation, NodeView};
use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::job::{Policy, Program};
use dockercomp_protocol::wire::explain::{self, Doubt, Explanation, JobReasons, Quota, Reason};
use dockercomp_protocol::{Cid, NodeId, Timestamp};

use crate::decider::{Handle as Decider, Stopped};
use crate::jobs::Jobs;

/// A node that was not heard of for this long is away: one that is idle asks every minute.
pub(crate) const AWAY_AFTER: Duration = Duration::from_secs(150);

/// Why a node gets no work, and how it stands; nothing if nobody knows it.
pub(crate) async fn of_node(
    decider: &Decider,
    jobs: &Jobs,
    node: NodeId,
) -> Result<Option<Explanation>, Stopped> {
    let now = decider.now();
    let look = move |core: &Core| core.node(node).map(|view| (core.explain_node(now, node), view));
    let looked = decider.look(look).await?;
    Ok(looked.map(|(explanation, view)| told(explanation, &view, jobs, now)))
}

/// The same, as far as the node itself may know it.
pub(crate) async fn for_node(
    decider: &Decider,
    jobs: &Jobs,
    node: NodeId,
) -> Result<Explanation, Stopped> {
    let explanation = of_node(decider, jobs, node).await?.unwrap_or_default();
    Ok(explanation.for_the_node(|job| is_open(jobs, job)))
}

/// Whether a node may know if work units of a job wait: where one result can decide, that
/// would tell it which of its results nobody compares.
fn is_open(jobs: &Jobs, job: &Cid) -> bool {
    jobs.get(job).is_some_and(|job| match job.spec.validation.policy {
        Policy::Fixed => job.spec.validation.min_quorum > 1,
        Policy::Adaptive(_) | Policy::Credibility(_) | Policy::Audited(_) => false,
    })
}

fn told(explanation: NodeExplanation, view: &NodeView, jobs: &Jobs, now: Timestamp) -> Explanation {
    let NodeExplanation { general, jobs: of_jobs, n_more } = explanation;
    let of_jobs = of_jobs.into_iter().map(|(cid, reasons)| {
        let job = jobs.get(&cid);
        let needs = job.as_ref().map(|job| executors_of(&job.spec.program)).unwrap_or_default();
        JobReasons {
            job: cid,
            name: job.map(|job| job.spec.name.clone()).unwrap_or_default(),
            reasons: reasons.into_iter().map(|why| reason(why, &needs)).collect(),
        }
    });
    let quota = view.quota;
    let left = quota.left(now);
    let doubts = view.standings.iter().filter(|(_, standing)| standing.is_barred);
    let doubts = doubts.map(|(&executor, standing)| Doubt {
        executor,
        caught: standing.caught,
        // Of a node that gets spot-checks the number would tell which of its leases was one.
        confirmed_needed: match standing.caught {
            0 => standing.probation(),
            _ => standing.confirmed_needed(),
        },
    });
    Explanation {
        general: general.into_iter().map(|why| reason(why, &[])).collect(),
        jobs: of_jobs.collect(),
        more_jobs: n_more as u64,
        quota: quota.has_fallen().then_some(Quota { per_day: quota.per_day, left }),
        doubts: doubts.collect(),
    }
}

/// The executors that can run a program.
pub(crate) fn executors_of(program: &Program) -> Vec<ExecutorKind> {
    let docker = program.image.map(|_| ExecutorKind::Docker);
    let wasm = program.module.map(|_| ExecutorKind::Wasm);
    docker.into_iter().chain(wasm).collect()
}

/// A reason of the core in the words of the protocol; `needs` are the executors that the job
/// can use.
pub(crate) fn reason(why: NoWork, needs: &[ExecutorKind]) -> Reason {
    let no_executor = || Reason::NoExecutor { needs: needs.to_vec() };
    match why {
        NoWork::NotRegistered => Reason::NotRegistered,
        NoWork::LeasesFull { max } => Reason::LeasesFull { max },
        NoWork::QuotaUsed { per_day } => Reason::QuotaUsed { per_day },
        NoWork::NoJobs => Reason::NoJobs,
        NoWork::NoExecutor => no_executor(),
        NoWork::TooLarge { need, offer } => Reason::TooLarge { need, offer },
        NoWork::Barred { confirmed_needed } => Reason::Barred { confirmed_needed },
        NoWork::NothingWaits => Reason::NothingWaits,
        NoWork::NoneForIt { index, hindrance } => {
            let hindrance = match hindrance {
                Hindrance::Decided => explain::Hindrance::Decided,
                Hindrance::HadIt => explain::Hindrance::HadIt,
                Hindrance::OperatorHadIt => explain::Hindrance::OperatorHadIt,
                Hindrance::NoExecutor => return no_executor(),
                Hindrance::OtherClass => explain::Hindrance::OtherClass,
                Hindrance::NearAnother => explain::Hindrance::NearAnother,
                Hindrance::NotDrawn => explain::Hindrance::NotDrawn,
            };
            Reason::NoneForIt { hindrance, unit: Some(index) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_executor_is_named_wherever_it_is_met() {
        let needs = [ExecutorKind::Wasm];
        let expected = Reason::NoExecutor { needs: needs.to_vec() };
        assert_eq!(reason(NoWork::NoExecutor, &needs), expected);
        let hindrance = Hindrance::NoExecutor;
        assert_eq!(reason(NoWork::NoneForIt { index: 3, hindrance }, &needs), expected);
    }
}
