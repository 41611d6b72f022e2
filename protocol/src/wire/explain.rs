//! Why a node gets no work: what its coordinator says of it, and in which words people read it.
//!
//! A node learns of itself only. Of others nothing is said, nor which of its leases are checks,
//! nor which work unit waits for whom: who knows that could give wrong results where nobody
//! looks. [`Explanation::for_the_node`] leaves out what only the coordinator's side may see.

use std::fmt;

use bytesize::ByteSize;
use cid::Cid;
use serde::{Deserialize, Serialize};

use super::work::Capacity;
use crate::execution::ExecutorKind;
use crate::limits::{EXPLAINED_JOBS_MAX, EXPLAINED_REASONS_MAX, NAME_BYTES_MAX};

/// Why a node gets no work, and how it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// What holds for all jobs, at most [`EXPLAINED_REASONS_MAX`].
    pub general: Vec<Reason>,
    /// What holds for each running job, at most [`EXPLAINED_JOBS_MAX`].
    pub jobs: Vec<JobReasons>,
    /// Running jobs that are left off.
    pub more_jobs: u64,
    /// How much work it may have in a day, if that has fallen.
    pub quota: Option<Quota>,
    /// Executors with which its results count for nothing at the moment, in jobs that weigh
    /// nodes by their record; at most two.
    pub doubts: Vec<Doubt>,
}

/// Why a node gets no work of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobReasons {
    /// The job.
    pub job: Cid,
    /// What people call it, at most [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Every reason, at most [`EXPLAINED_REASONS_MAX`]; none if the node could get work of it.
    pub reasons: Vec<Reason>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reason {
    /// It has not registered since the coordinator started.
    NotRegistered,
    /// It holds as many leases as one node may.
    LeasesFull {
        /// How many that is.
        max: u32,
    },
    /// It had as many replicas today as it may have.
    QuotaUsed {
        /// Replicas that it may have in a day.
        per_day: u32,
    },
    /// No job is running.
    NoJobs,
    /// It has none of the executors that the job needs.
    NoExecutor {
        /// Those that would do, at most two.
        needs: Vec<ExecutorKind>,
    },
    /// One replica takes more than the node offers in all.
    TooLarge {
        /// What it takes.
        need: Capacity,
        /// What is offered.
        offer: Capacity,
    },
    /// It was caught with a wrong result, and the job gives such nodes nothing.
    Barred {
        /// Results that others must confirm before it gets something again.
        confirmed_needed: u32,
    },
    /// Every work unit is begun, and none lacks a replica.
    NothingWaits,
    /// Work units wait, but none that this node may have.
    NoneForIt {
        /// Why not, for the first of them.
        hindrance: Hindrance,
        /// Which one that is; never told to a node.
        unit: Option<u64>,
    },
    /// Nothing waits that this node may have. Said where it would tell too much whether
    /// anything waits.
    NothingForIt,
}

/// What keeps a node from a work unit that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hindrance {
    /// It was decided meanwhile.
    Decided,
    /// The node had a replica of it, whatever became of that.
    HadIt,
    /// Another node of the same operator had one.
    OperatorHadIt,
    /// It is committed to nodes of another platform or executor.
    OtherClass,
    /// A node of the same address range has it.
    NearAnother,
    /// Chance has drawn others to check it.
    NotDrawn,
}

/// How much work a node may have in a day, once that has fallen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Replicas in a day.
    pub per_day: u32,
    /// Those that are left today.
    pub left: u32,
}

/// Why the results of a node count for nothing at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Doubt {
    /// With which executor.
    pub executor: ExecutorKind,
    /// How often it was caught with a wrong result; none if it is doubted for the company that
    /// its addresses keep.
    pub caught: u32,
    /// Results that others must confirm before its results count: those that are missing, or
    /// all of them if it was never caught.
    pub confirmed_needed: u32,
}

impl Explanation {
    /// What of it the node itself may know. `is_open` says of which jobs a node may know
    /// whether work units of it wait: those in which every result is compared with others.
    #[must_use]
    pub fn for_the_node(mut self, is_open: impl Fn(&Cid) -> bool) -> Self {
        for JobReasons { job, reasons, .. } in &mut self.jobs {
            let is_open = is_open(job);
            for reason in reasons {
                match reason {
                    Reason::NothingWaits | Reason::NoneForIt { .. } if !is_open => {
                        *reason = Reason::NothingForIt;
                    }
                    Reason::NoneForIt { unit, .. } => *unit = None,
                    Reason::NotRegistered
                    | Reason::LeasesFull { .. }
                    | Reason::QuotaUsed { .. }
                    | Reason::NoJobs
                    | Reason::NoExecutor { .. }
                    | Reason::TooLarge { .. }
                    | Reason::Barred { .. }
                    | Reason::NothingWaits
                    | Reason::NothingForIt => {}
                }
            }
        }
        self
    }

    /// Whether every list is within its bound.
    pub(super) fn fits(&self) -> bool {
        let within = |reasons: &[Reason]| {
            reasons.len() <= EXPLAINED_REASONS_MAX
                && reasons.iter().all(|reason| match reason {
                    Reason::NoExecutor { needs } => needs.len() <= 2,
                    _ => true,
                })
        };
        within(&self.general)
            && self.jobs.len() <= EXPLAINED_JOBS_MAX
            && self.jobs.iter().all(|job| job.name.len() <= NAME_BYTES_MAX && within(&job.reasons))
            && self.doubts.len() <= 2
    }
}

impl Reason {
    /// Its name, for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotRegistered => "not_registered",
            Self::LeasesFull { .. } => "leases_full",
            Self::QuotaUsed { .. } => "quota_used",
            Self::NoJobs => "no_jobs",
            Self::NoExecutor { .. } => "no_executor",
            Self::TooLarge { .. } => "too_large",
            Self::Barred { .. } => "barred",
            Self::NothingWaits => "nothing_waits",
            Self::NoneForIt { hindrance, .. } => match hindrance {
                Hindrance::Decided => "decided",
                Hindrance::HadIt => "had_it",
                Hindrance::OperatorHadIt => "operator_had_it",
                Hindrance::OtherClass => "other_class",
                Hindrance::NearAnother => "near_another",
                Hindrance::NotDrawn => "not_drawn",
            },
            Self::NothingForIt => "nothing_for_it",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered => {
                f.write_str("it has not registered since the coordinator started")
            }
            Self::LeasesFull { max } => {
                write!(f, "it holds {max} leases, as many as one node may hold")
            }
            Self::QuotaUsed { per_day } => {
                write!(f, "it had all of the {} that it may have today", replicas(*per_day))
            }
            Self::NoJobs => f.write_str("no job is running"),
            Self::NoExecutor { needs } if needs.is_empty() => {
                f.write_str("it has no executor that the job can use")
            }
            Self::NoExecutor { needs } => {
                let needs: Vec<String> = needs.iter().map(ToString::to_string).collect();
                write!(f, "the job needs {}, which it does not have", needs.join(" or "))
            }
            Self::TooLarge { need, offer } => {
                write!(f, "a replica takes more than it offers: {}", shortage(need, offer))
            }
            Self::Barred { confirmed_needed } => write!(
                f,
                "it was caught with a wrong result, and this job gives it nothing until others \
                 have confirmed {} more of its results in other jobs",
                confirmed_needed
            ),
            Self::NothingWaits => {
                f.write_str("every work unit is begun, and none needs one more node")
            }
            Self::NoneForIt { hindrance, unit } => {
                f.write_str("work units wait, but not for it: ")?;
                match unit {
                    Some(unit) => write!(f, "of work unit {unit}, {hindrance}"),
                    None => write!(f, "of the first of them, {hindrance}"),
                }
            }
            Self::NothingForIt => f.write_str("nothing waits that it may have"),
        }
    }
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decided => "nothing is wanted any more",
            Self::HadIt => "it had a replica already",
            Self::OperatorHadIt => "another node of its operator had a replica",
            Self::OtherClass => {
                "the first node has another platform or executor, and the job asks for one kind"
            }
            Self::NearAnother => {
                "a node of the same address range has a replica, and others may come"
            }
            Self::NotDrawn => "others were drawn to check it; the circle widens with time",
        })
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "it may have {} a day, and {} more today: that fell with errors, wrong results or \
             missed deadlines, and doubles with each valid result",
            replicas(self.per_day),
            self.left
        )
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { executor, caught, confirmed_needed } = self;
        match caught {
            0 => write!(
                f,
                "many new nodes, or nodes that were caught, came from its addresses; in jobs that \
                 weigh nodes by their record, its results with {executor} count when others have \
                 confirmed {confirmed_needed} of them"
            ),
            _ => write!(
                f,
                "it was caught with a wrong result with {executor} ({}); in jobs that weigh \
                 nodes by their record, its results count again after others have confirmed \
                 {confirmed_needed} more of them",
                if *caught == 1 { "once".to_owned() } else { format!("{caught} times") }
            ),
        }
    }
}

fn replicas(count: u32) -> String {
    if count == 1 { "1 replica".to_owned() } else { format!("{count} replicas") }
}

/// What is short, in words.
fn shortage(need: &Capacity, offer: &Capacity) -> String {
    let cores = |millis: u32| f64::from(millis) / 1000.0;
    let size = |bytes: u64| ByteSize(bytes).display().iec().to_string();
    let mut short = Vec::new();
    if need.cpu_millis > offer.cpu_millis {
        let (need, offer) = (cores(need.cpu_millis), cores(offer.cpu_millis));
        short.push(format!("{need} cores of {offer}"));
    }
    for (what, need, offer) in [
        ("memory", need.memory_bytes, offer.memory_bytes),
        ("disk", need.disk_bytes, offer.disk_bytes),
    ] {
        if need > offer {
            short.push(format!("{} of {what} of {}", size(need), size(offer)));
        }
    }
    short.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::content::block_cid;
    use crate::wire::work::Response;

    fn of_job(reasons: Vec<Reason>) -> Explanation {
        let job = JobReasons { job: block_cid(b"job"), name: "job".into(), reasons };
        Explanation { jobs: vec![job], ..Explanation::default() }
    }

    #[test]
    fn a_node_is_told_nothing_from_which_it_could_see_who_is_checked() {
        let waits = Reason::NoneForIt { hindrance: Hindrance::HadIt, unit: Some(7) };
        let told = Reason::NoneForIt { hindrance: Hindrance::HadIt, unit: None };
        let reasons = vec![Reason::NothingWaits, waits];
        let all = of_job(reasons).for_the_node(|_| true);
        assert_eq!(all.jobs[0].reasons, [Reason::NothingWaits, told]);
        for reason in [
            Reason::NothingWaits,
            Reason::NoneForIt { hindrance: Hindrance::NotDrawn, unit: Some(7) },
        ] {
            let little = of_job(vec![reason]).for_the_node(|_| false);
            assert_eq!(little.jobs[0].reasons, [Reason::NothingForIt]);
        }
    }

    #[test]
    fn an_explanation_is_golden_and_bounded() {
        let explanation = Explanation {
            general: vec![Reason::QuotaUsed { per_day: 1 }],
            quota: Some(Quota { per_day: 1, left: 0 }),
            doubts: vec![Doubt { executor: ExecutorKind::Wasm, caught: 1, confirmed_needed: 9 }],
            ..of_job(vec![Reason::NoExecutor { needs: vec![ExecutorKind::Docker] }])
        };
        let bytes = codec::encode(&Response::Explained(explanation.clone()));
        insta::assert_snapshot!(hex::encode(&bytes), @"a1696578706c61696e6564a5646a6f627381a3636a6f62d82a58250001711e2063a2265e5c677a2d89fceda7adffcf95a8597d0927d2c1a27c00d89af997f9e6646e616d65636a6f6267726561736f6e7381a16b6e6f5f6578656375746f72a1656e656564738166646f636b65726571756f7461a2646c65667400677065725f6461790166646f7562747381a36663617567687401686578656375746f72647761736d70636f6e6669726d65645f6e6565646564096767656e6572616c81a16a71756f74615f75736564a1677065725f64617901696d6f72655f6a6f627300");
        assert_eq!(Response::decode(&bytes).ok(), Some(Response::Explained(explanation.clone())));
        for wrong in [
            Explanation {
                general: vec![Reason::NoJobs; EXPLAINED_REASONS_MAX + 1],
                ..explanation.clone()
            },
            Explanation {
                jobs: vec![explanation.jobs[0].clone(); EXPLAINED_JOBS_MAX + 1],
                ..explanation.clone()
            },
            of_job(vec![Reason::NoJobs; EXPLAINED_REASONS_MAX + 1]),
            of_job(vec![Reason::NoExecutor { needs: vec![ExecutorKind::Wasm; 3] }]),
            Explanation { doubts: vec![explanation.doubts[0]; 3], ..explanation.clone() },
        ] {
            assert!(Response::decode(&codec::encode(&Response::Explained(wrong))).is_err());
        }
    }

    #[test]
    fn what_is_short_is_named_and_nothing_else() {
        let need = Capacity { cpu_millis: 2000, memory_bytes: 1 << 30, disk_bytes: 1 << 20 };
        let offer = Capacity { cpu_millis: 500, memory_bytes: 1 << 30, disk_bytes: 1 << 30 };
        let words = Reason::TooLarge { need, offer }.to_string();
        assert_eq!(words, "a replica takes more than it offers: 2 cores of 0.5");
        let offer = Capacity { memory_bytes: 1 << 29, disk_bytes: 0, ..need };
        let words = Reason::TooLarge { need, offer }.to_string();
        let expected = "1.0 GiB of memory of 512.0 MiB, 1.0 MiB of disk of 0 B";
        assert_eq!(words, format!("a replica takes more than it offers: {expected}"));
    }

    #[test]
    fn a_node_that_was_caught_reads_what_it_must_do() {
        let quota = Quota { per_day: 1, left: 0 }.to_string();
        assert!(quota.starts_with("it may have 1 replica a day, and 0 more today"), "{quota}");
        let doubt = Doubt { executor: ExecutorKind::Wasm, caught: 2, confirmed_needed: 20 };
        let words = doubt.to_string();
        assert!(words.contains("(2 times)"), "{words}");
        assert!(words.contains("its results count again after others"), "{words}");
        assert!(words.contains("confirmed 20 more"), "{words}");
        let company = Doubt { caught: 0, ..doubt }.to_string();
        assert!(!company.contains("it was caught") && company.contains("addresses"), "{company}");
    }
}
