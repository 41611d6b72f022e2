//! Jobs as the shell needs them: the owner's signed words, and the plan that makes work units.
//!
//! The core knows a work unit as (job, number); its description is made here on demand, so a
//! job of millions costs no memory.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use dockercomp_executor::{PARTS_MAX, are_parts};
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::job::{JobError, JobSpec, Work};
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

/// Why a job was not taken on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The owner's words are not right.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Something it needs is not here.
    #[error("{what} {cid} is not here")]
    Missing {
        /// Image, module or dataset.
        what: &'static str,
        /// Its root.
        cid: Cid,
    },
    /// A module must be one file, and a dataset what the owner says it is.
    #[error("{what} {cid} has {files} files, not {expected}")]
    Files {
        /// Image, module or dataset.
        what: &'static str,
        /// Its root.
        cid: Cid,
        /// How many files it has.
        files: u64,
        /// How many it should have.
        expected: u64,
    },
    /// An image must be one file, or a folder of parts.
    #[error("image {cid} has {files} files, which are not the parts of an image")]
    Image {
        /// Its root.
        cid: Cid,
        /// How many files it has.
        files: u64,
    },
    /// The store failed.
    #[error("the store could not be read")]
    Store(#[from] StoreError),
}

/// All jobs of the project; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jobs {
    jobs: Arc<RwLock<BTreeMap<Cid, Arc<Job>>>>,
}

impl Jobs {
    /// Reads all jobs that were ever accepted. Blocking. Whether their data is still here is
    /// not asked: what was accepted stays accepted.
    pub(crate) fn load(store: &Store, project: ProjectId) -> Result<Self, SubmitError> {
        const PAGE: usize = 256;
        let jobs = Self::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = store.scan(Table::Jobs, &[], after.as_deref(), PAGE)?;
            for (_, sealed) in &page {
                jobs.insert(Job::open(sealed.clone(), project)?);
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

    /// Whether some job needs this dataset.
    pub(crate) fn need(&self, root: &Cid) -> bool {
        let jobs = self.jobs.read().expect("no holder of this lock panics");
        jobs.values().any(|job| job.roots().any(|needed| needed == *root))
    }
}

impl Job {
    /// Opens a job that the project must have signed.
    pub(crate) fn open(sealed: Vec<u8>, project: ProjectId) -> Result<Self, JobError> {
        let (cid, spec) = JobSpec::open_for(&sealed, project)?;
        let plan = Plan::new(cid, &spec);
        Ok(Self { cid, spec, sealed, plan })
    }

    /// Checks that everything the job needs is here. Blocking.
    pub(crate) fn check_data(&self, store: &Store) -> Result<(), SubmitError> {
        let program = &self.spec.program;
        let mut needs = vec![("image", program.image, None), ("module", program.module, Some(1))];
        if let Work::Files { dataset, files, .. } = &self.spec.work {
            needs.push(("dataset", Some(*dataset), Some(*files)));
        }
        for (what, cid, expected) in needs {
            let Some(cid) = cid else { continue };
            let root = store.root(&cid)?.ok_or(SubmitError::Missing { what, cid })?;
            // What stays at its origin can be given to nodes as well.
            let is_whole = store.dataset(&cid)?.is_some_and(|dataset| dataset.is_whole());
            if !is_whole && !store.is_complete(&cid, &Want::All)? {
                return Err(SubmitError::Missing { what, cid });
            }
            let files = root.files;
            match expected {
                Some(expected) if files != expected => {
                    return Err(SubmitError::Files { what, cid, files, expected });
                }
                None if files != 1 && !is_in_parts(store, &cid, files)? => {
                    return Err(SubmitError::Image { cid, files });
                }
                Some(_) | None => {}
            }
        }
        Ok(())
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

    /// What people call its stages, the first one included.
    pub(crate) fn stage_names(&self) -> Vec<String> {
        let later = self.spec.stages.iter().map(|stage| stage.name.clone());
        std::iter::once("map".to_owned()).chain(later).collect()
    }

    /// The description of a work unit, which takes these outputs of others, and its id.
    pub(crate) fn unit(&self, index: u64, inputs: &[Cid]) -> Option<(Cid, Vec<u8>)> {
        self.plan.unit_of(index, inputs).map(|unit| codec::block(&unit))
    }
}

/// Whether the files of a dataset are called as those of an image in parts are. What is in them,
/// whoever loads the image looks at.
fn is_in_parts(store: &Store, root: &Cid, files: u64) -> Result<bool, StoreError> {
    if files > PARTS_MAX as u64 {
        return Ok(false);
    }
    let entries = store.files(root, 0, files)?;
    Ok(are_parts(entries.iter().map(|entry| entry.path.as_str())))
}
