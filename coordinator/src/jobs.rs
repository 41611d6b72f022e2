//! Jobs as the shell needs them: the owner's signed words, and the plan that makes work units.
//!
//! The core knows a work unit as (job, number); its description is made here on demand, so a
//! job of millions costs no memory.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use dockercomp_protocol::envelope::{self, OpenError};
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::job::{JobSpec, SpecError, Work};
use dockercomp_protocol::unit::Plan;
use dockercomp_protocol::{Cid, codec};
use dockercomp_store::{Row, Store, StoreError, Table, Want};

/// One job.
#[derive(Debug)]
pub(crate) struct Job {
    /// Its id.
    pub(crate) cid: Cid,
    /// What the owner said.
    pub(crate) spec: JobSpec,
    /// The same, as signed.
    pub(crate) sealed: Vec<u8>,
    /// Makes its work units.
    pub(crate) plan: Plan,
}

/// Why a job was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The signature is not right.
    #[error("the job cannot be opened")]
    Open(#[from] OpenError),
    /// It is signed by somebody else.
    #[error("the job is not signed by the key of project {project}")]
    Foreign {
        /// The project of this coordinator.
        project: ProjectId,
    },
    /// It breaks a rule.
    #[error("the job is refused")]
    Spec(#[from] SpecError),
    /// Something it needs is not here.
    #[error("{what} {cid} is not here")]
    Missing {
        /// Image, module or dataset.
        what: &'static str,
        /// Its root.
        cid: Cid,
    },
    /// An image or module must be one file.
    #[error("{what} {cid} has {files} files; it must be one archive or program")]
    NotOneFile {
        /// Image or module.
        what: &'static str,
        /// Its root.
        cid: Cid,
        /// How many files it has.
        files: u64,
    },
    /// The store failed.
    #[error("the store could not be read")]
    Store(#[from] StoreError),
}

/// All jobs of the project.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jobs {
    jobs: Arc<RwLock<BTreeMap<Cid, Arc<Job>>>>,
}

impl Jobs {
    /// Reads all jobs that were ever accepted. Blocking.
    pub(crate) fn load(store: &Store, project: ProjectId) -> Result<Self, JobError> {
        const PAGE: usize = 256;
        let jobs = Self::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = store.scan(Table::Jobs, &[], after.as_deref(), PAGE)?;
            for (_, sealed) in &page {
                jobs.insert(Job::open(store, project, sealed.clone())?);
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(jobs),
            }
        }
    }

    pub(crate) fn insert(&self, job: Job) -> Arc<Job> {
        let job = Arc::new(job);
        let mut jobs = self.jobs.write().expect("no holder of this lock panics");
        jobs.insert(job.cid, Arc::clone(&job));
        job
    }

    pub(crate) fn get(&self, cid: &Cid) -> Option<Arc<Job>> {
        self.jobs.read().expect("no holder of this lock panics").get(cid).cloned()
    }
}

impl Job {
    /// Opens a submitted job and checks it against the store. Blocking.
    pub(crate) fn open(
        store: &Store,
        project: ProjectId,
        sealed: Vec<u8>,
    ) -> Result<Self, JobError> {
        let opened = envelope::open::<JobSpec>(&sealed)?;
        let spec = opened.statement;
        if opened.signer != project || spec.project != project {
            return Err(JobError::Foreign { project });
        }
        spec.check()?;
        for (what, cid) in [("image", spec.program.image), ("module", spec.program.module)] {
            let Some(cid) = cid else { continue };
            let files = held_files(store, what, &cid)?;
            if files != 1 {
                return Err(JobError::NotOneFile { what, cid, files });
            }
        }
        let files = match &spec.work {
            Work::Files { dataset, .. } => held_files(store, "dataset", dataset)?,
            Work::Sweep(_) => 0,
        };
        let (cid, _) = codec::block(&spec);
        let plan = Plan::new(cid, &spec, files)?;
        Ok(Self { cid, spec, sealed, plan })
    }

    /// The row that makes it durable.
    pub(crate) fn row(&self) -> Row {
        Row::Put { table: Table::Jobs, key: self.cid.to_bytes(), value: self.sealed.clone() }
    }

    /// The datasets that its work units need.
    pub(crate) fn roots(&self) -> impl Iterator<Item = Cid> + '_ {
        let dataset = match &self.spec.work {
            Work::Files { dataset, .. } => Some(*dataset),
            Work::Sweep(_) => None,
        };
        [self.spec.program.image, self.spec.program.module, dataset].into_iter().flatten()
    }

    /// The description of a work unit and its id.
    pub(crate) fn unit(&self, index: u64) -> Option<(Cid, Vec<u8>)> {
        self.plan.unit(index).map(|unit| codec::block(&unit))
    }
}

/// How many files a dataset has that must be here whole.
fn held_files(store: &Store, what: &'static str, cid: &Cid) -> Result<u64, JobError> {
    match store.root(cid)? {
        Some(root) if store.is_complete(cid, &Want::All)? => Ok(root.files),
        _ => Err(JobError::Missing { what, cid: *cid }),
    }
}
