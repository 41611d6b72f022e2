//! The jobs of a run: specifications, work units, and small numbers for large names.
//!
//! The cores know a job by its CID; books and queues of the simulator know it by its place in
//! the scenario, which takes 4 bytes instead of 96.

use std::collections::BTreeMap;
use std::time::Duration;

use dockercomp_protocol::content::block_cid;
use dockercomp_protocol::execution::{ExecutorKind, Limits, Usage};
use dockercomp_protocol::job::{JobSpec, Program, SpecError, SweepParameter, SweepValues, Work};
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::unit::Plan;
use dockercomp_protocol::wire::work::Capacity;
use dockercomp_protocol::{Cid, NodeId, ReplicaId, codec};

use crate::behaviour::Product;
use crate::defect::Defect;
use crate::moment::Moment;
use crate::scenario::{JobPlan, Scenario};

/// Memory that one core's worth of work takes.
pub(crate) const CORE_MEMORY_BYTES: u64 = 1 << 30;

/// A work unit: its job's place in the scenario, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnitId {
    pub(crate) job: u32,
    pub(crate) index: u64,
}

/// One job.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) cid: Cid,
    /// What the owner signed.
    pub(crate) spec: JobSpec,
    pub(crate) plan: JobPlan,
    units: Plan,
}

/// All jobs.
#[derive(Debug)]
pub(crate) struct Jobs {
    jobs: Vec<Job>,
    numbers: BTreeMap<Cid, u32>,
}

impl Jobs {
    /// # Panics
    /// If a job could not be submitted: the scenario is wrong.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let jobs: Vec<Job> =
            (0..).zip(&scenario.jobs).map(|(number, plan)| Job::new(number, plan)).collect();
        let numbers = (0..).zip(&jobs).map(|(number, job)| (job.cid, number)).collect();
        Self { jobs, numbers }
    }

    pub(crate) fn job(&self, number: u32) -> &Job {
        &self.jobs[number as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Job)> {
        (0..).zip(&self.jobs)
    }

    /// The unit that the core names so. The core only names jobs that were submitted.
    pub(crate) fn unit(&self, job: &Cid, index: u64) -> UnitId {
        let number = self.numbers.get(job).expect("the core knows only jobs of the scenario");
        UnitId { job: *number, index }
    }

    pub(crate) fn unit_cid(&self, unit: UnitId) -> Cid {
        let cid = self.job(unit.job).units.unit_cid(unit.index);
        cid.expect("the core leases only units that the job has")
    }
}

impl Job {
    fn new(number: u32, plan: &JobPlan) -> Self {
        let spec = specification(number, plan);
        if let Err(error) = spec.check() {
            panic!("job {number} of the scenario cannot be submitted: {error}");
        }
        let (cid, _) = codec::block(&spec);
        let units = Plan::new(cid, &spec);
        Self { cid, spec, plan: plan.clone(), units }
    }

    /// What one replica takes.
    pub(crate) const fn need(&self) -> Capacity {
        Capacity::of(&self.spec.limits)
    }

    /// The specification as the shell gives it to the core.
    pub(crate) fn submitted(&self, defect: Option<Defect>) -> JobSpec {
        let mut spec = self.spec.clone();
        if defect == Some(Defect::QuorumOfOne) {
            spec.validation.min_quorum = 1;
            spec.validation.target_nresults = 1;
        }
        spec
    }
}

/// Whether a job could be submitted.
pub(crate) fn check(number: u32, plan: &JobPlan) -> Result<(), SpecError> {
    specification(number, plan).check()
}

fn specification(number: u32, plan: &JobPlan) -> JobSpec {
    let wanted = |kind, name: &[u8]| plan.executors.contains(&kind).then(|| block_cid(name));
    JobSpec {
        v: JobSpec::VERSION,
        project: NodeId::from_bytes(b"\0\x05owner").expect("an identity hash is a peer id"),
        name: format!("job {number}"),
        submitted_at: (Moment::default() + plan.submit).timestamp(),
        program: Program {
            image: wanted(ExecutorKind::Docker, b"image"),
            module: wanted(ExecutorKind::Wasm, b"module"),
            args: vec!["{x}".into()],
        },
        work: Work::Sweep(vec![SweepParameter {
            name: "x".into(),
            values: SweepValues::Range {
                from: 1,
                to: i64::try_from(plan.units).unwrap_or(i64::MAX),
                step: 1,
            },
        }]),
        limits: Limits {
            cpu_millis: 1000,
            memory_bytes: CORE_MEMORY_BYTES,
            tmp_bytes: 0,
            output_bytes: 1 << 20,
            output_files: 10,
            pids: 10,
            wall_ms: plan.validation.delay_bound_ms,
        },
        validation: plan.validation.clone(),
        collect: None,
        stages: vec![],
    }
}

/// What the chance in a job is drawn from; in production it is random.
pub(crate) fn chance_of(run: u64, job: u32) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&run.to_le_bytes());
    seed[8..12].copy_from_slice(&job.to_le_bytes());
    seed
}

/// The statement of a host about a replica, whose program ran for so long.
pub(crate) fn statement(
    jobs: &Jobs,
    replica: ReplicaId,
    unit: UnitId,
    node: NodeId,
    product: &Product,
    ran: Duration,
) -> ResultStatement {
    ResultStatement {
        v: 1,
        job: jobs.job(unit.job).cid,
        unit: jobs.unit_cid(unit),
        replica,
        node,
        executor: ExecutorKind::Wasm,
        exit: product.exit.clone(),
        output: product.output,
        usage: Usage {
            wall_ms: u64::try_from(ran.as_millis()).unwrap_or(u64::MAX),
            ..Usage::default()
        },
    }
}
