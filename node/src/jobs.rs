//! Jobs as a node knows them: the owner's signed words, checked before anything is run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::job::{JobError, JobSpec};
use dockercomp_protocol::unit::{Plan, WorkUnit};
use dockercomp_protocol::{Cid, codec};

/// Jobs that are remembered at one time.
const JOBS_MAX: usize = 64;

/// A job whose signature is right.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) cid: Cid,
    pub(crate) spec: JobSpec,
    pub(crate) sealed: Vec<u8>,
}

/// Why a lease is not worked on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    #[error("the coordinator did not answer")]
    NoAnswer,
    #[error(transparent)]
    Job(#[from] JobError),
    #[error("the job is not the one that was asked for")]
    Other,
    #[error("the work unit cannot be read")]
    Unit(#[from] codec::DecodeError),
    #[error("the work unit is not one of the job that the owner signed")]
    ForeignUnit,
}

impl Job {
    /// Opens a job that the project must have signed.
    pub(crate) fn open(sealed: Vec<u8>, project: ProjectId) -> Result<Self, JobError> {
        let (cid, spec) = JobSpec::open_for(&sealed, project)?;
        Ok(Self { cid, spec, sealed })
    }

    /// Reads a work unit and checks that it follows from what the owner signed, so that not
    /// even the coordinator can have something else run.
    pub(crate) fn unit(&self, bytes: &[u8]) -> Result<WorkUnit, LeaseError> {
        let unit: WorkUnit = codec::decode(bytes)?;
        let is_planned = Plan::new(self.cid, &self.spec).has(&unit);
        if is_planned { Ok(unit) } else { Err(LeaseError::ForeignUnit) }
    }
}

/// The jobs that a node has met; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jobs {
    jobs: Arc<Mutex<BTreeMap<Cid, Arc<Job>>>>,
}

impl Jobs {
    pub(crate) fn get(&self, cid: &Cid) -> Option<Arc<Job>> {
        self.jobs.lock().expect("no holder of this lock panics").get(cid).cloned()
    }

    pub(crate) fn insert(&self, job: Job) -> Arc<Job> {
        let job = Arc::new(job);
        let mut jobs = self.jobs.lock().expect("no holder of this lock panics");
        if jobs.len() >= JOBS_MAX {
            // Whichever goes is asked for again when it is needed.
            jobs.pop_first();
        }
        jobs.insert(job.cid, Arc::clone(&job));
        job
    }
}

#[cfg(test)]
mod tests {
    use dockercomp_protocol::content::chunk_cid;
    use dockercomp_protocol::job::JobFile;
    use dockercomp_protocol::unit::Inputs;
    use dockercomp_protocol::{NodeId, Timestamp};

    use super::*;

    fn job(split: &str, files: u64) -> Job {
        let text = format!(
            "version = 1\nname = \"j\"\n[program]\nmodule = \"file:m\"\nargs = [\"run\"]\n{split}"
        );
        let some = Some(chunk_cid(b"some"));
        let spec = JobFile::parse(&text)
            .expect("a job file")
            .resolve(NodeId::random(), Timestamp(0), None, some, some.map(|cid| (cid, files)))
            .expect("a job");
        let (cid, _) = codec::block(&spec);
        Job { cid, spec, sealed: Vec::new() }
    }

    #[test]
    fn units_of_the_plan_are_accepted_and_others_are_not() {
        for (split, files) in
            [("[sweep]\nx = [1, 2, 3]\n", 0), ("[inputs]\nfiles_per_unit = 4\n", 11)]
        {
            let job = job(split, files);
            let plan = Plan::new(job.cid, &job.spec);
            for index in 0..plan.units() {
                let unit = plan.unit(index).expect("within the plan");
                assert_eq!(job.unit(&codec::encode(&unit)).expect("planned"), unit);
                let mut other = unit.clone();
                other.args = vec!["rm".into()];
                assert!(job.unit(&codec::encode(&other)).is_err());
                if let Some(Inputs::Files(range)) = &mut unit.clone().inputs {
                    range.count -= 1;
                    let inputs = Some(Inputs::Files(range.clone()));
                    let fewer = WorkUnit { inputs, ..unit.clone() };
                    assert!(job.unit(&codec::encode(&fewer)).is_err());
                }
            }
        }
    }
}
