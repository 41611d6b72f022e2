//! Checking one receipt after the other, offline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cid::Cid;

use super::{Basis, Entry, FileError, Part, Receipt, Votes};
use crate::batch::Roots;
use crate::codec::{self, DecodeError};
use crate::content::Digest;
use crate::envelope::{self, OpenError};
use crate::ids::{NodeId, ProjectId};
use crate::job::{JobError, JobSpec};
use crate::limits::{ENVELOPE_BYTES_MAX, UNIT_REPLICAS_MAX};
use crate::log::{Head, HeadError, PathError, leaf_hash};
use crate::statement::{Charter, CharterError, ResultError, ResultStatement};
use crate::time::Timestamp;
use crate::unit::Plan;

/// What a receipt proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The project, by its key.
    pub project: ProjectId,
    /// The coordinator that accepted the result.
    pub coordinator: NodeId,
    /// The job's id.
    pub job: Cid,
    /// The job's name.
    pub job_name: String,
    /// How many work units the job has.
    pub units: u64,
    /// The program as a container image, if the job has one.
    pub image: Option<Cid>,
    /// The program as a WebAssembly module, if the job has one.
    pub module: Option<Cid>,
    /// The work unit's id.
    pub unit: Cid,
    /// The work unit's number in the job.
    pub index: u64,
    /// The outputs of other work units that it took, with the numbers of those that the plan
    /// says they are of. [`check_whole`](super::check_whole) holds them against the receipts
    /// of those.
    pub inputs: Vec<(u64, Cid)>,
    /// Whether its output is part of the job's result, and not only what a later stage takes.
    pub is_result: bool,
    /// The canonical output.
    pub output: Cid,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The rule that accepted it.
    pub basis: Basis,
    /// Results that the owner asked for before they are compared.
    pub min_quorum: u32,
    /// The results that agree with it.
    pub agreeing: Vec<ResultStatement>,
    /// The results that do not.
    pub dissenting: Vec<ResultStatement>,
    /// Its place in the log.
    pub leaf: u64,
    /// The head of the log that it is proven to be under.
    pub head: Head,
}

/// Why a receipt proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// It is not a receipt, or a damaged one.
    #[error(transparent)]
    File(#[from] FileError),
    /// The charter's own envelope is not right.
    #[error("the charter in the receipt cannot be opened")]
    CharterEnvelope(#[source] OpenError),
    /// The charter is not the project's.
    #[error("the charter in the receipt is not right")]
    Charter(#[from] CharterError),
    /// The receipt is of another project than the reader expects.
    #[error("the receipt is of project {found}, not {expected}")]
    Project {
        /// The reader's project.
        expected: ProjectId,
        /// The receipt's.
        found: ProjectId,
    },
    /// The job is not right, or not the project's.
    #[error("the job in the receipt is not right")]
    Job(#[source] JobError),
    /// The head of the log is not right, or not the coordinator's.
    #[error("the head of the log in the receipt is not right")]
    Head(#[source] HeadError),
    /// The entry cannot be read.
    #[error("the entry in the receipt cannot be read")]
    Entry(#[source] DecodeError),
    /// A format that this version does not know.
    #[error("the entry has version {found}, this program reads version 2")]
    Version {
        /// What it says.
        found: u8,
    },
    /// The entry is about another job than the one beside it.
    #[error("the entry is about job {found}, not {expected}")]
    ForeignJob {
        /// The job in the receipt.
        expected: Cid,
        /// The entry's.
        found: Cid,
    },
    /// The work unit does not follow from the job.
    #[error("the job has no work unit {index} as the entry describes it")]
    ForeignUnit {
        /// The number that the entry gives it.
        index: u64,
    },
    /// More results than a work unit can have.
    #[error("the receipt has {found} results, more than a work unit can have")]
    TooManyResults {
        /// How many it has.
        found: usize,
    },
    /// A result is not right.
    #[error("result {index} in the receipt is not right")]
    Result {
        /// Its place in the receipt, from 0.
        index: usize,
        /// What is wrong with it.
        source: ResultError,
    },
    /// A result is of another work unit, or did not succeed.
    #[error("result {index} in the receipt is not a success of its work unit")]
    ForeignResult {
        /// Its place in the receipt, from 0.
        index: usize,
    },
    /// One node or one replica is counted twice.
    #[error("node {node} is counted twice in the receipt")]
    Doubled {
        /// The node.
        node: NodeId,
    },
    /// The owner did not allow the rule by which the result was accepted.
    #[error("the job does not allow acceptance by {basis}")]
    ForeignRule {
        /// The rule.
        basis: Basis,
    },
    /// The rule is not met.
    #[error(
        "{agreeing} of {successes} results agree, and {rival} with another output, which is not \
         enough for acceptance by {basis} (min_quorum {quorum})"
    )]
    NotEnough {
        /// Results that agree with the output.
        agreeing: usize,
        /// Results in all.
        successes: usize,
        /// Results that agree with one other output, at most.
        rival: usize,
        /// The rule.
        basis: Basis,
        /// The job's `min_quorum`.
        quorum: u32,
    },
    /// The entry is not in the log.
    #[error("the entry is not number {leaf} of the coordinator's log")]
    NotInLog {
        /// Its place, as the receipt says.
        leaf: u64,
        /// What is wrong with the path.
        source: PathError,
    },
    /// Accepted after the head that covers it was signed.
    #[error("the entry was accepted after the head of the log that covers it was signed")]
    Later,
}

impl ReceiptError {
    /// The part of the receipt that is not right, as far as the check tells.
    #[must_use]
    pub const fn part(&self) -> Part {
        match self {
            Self::File(FileError::Map) => Part::Map,
            Self::File(_) => Part::Header,
            Self::CharterEnvelope(_) | Self::Charter(_) | Self::Project { .. } => Part::Charter,
            Self::Job(_) => Part::Job,
            Self::Head(_) | Self::Later => Part::Head,
            Self::NotInLog { .. } => Part::Path,
            Self::Entry(_)
            | Self::Version { .. }
            | Self::ForeignJob { .. }
            | Self::ForeignUnit { .. }
            | Self::TooManyResults { .. }
            | Self::Result { .. }
            | Self::ForeignResult { .. }
            | Self::Doubled { .. }
            | Self::ForeignRule { .. }
            | Self::NotEnough { .. } => Part::Entry,
        }
    }
}

/// Checks receipts, and remembers what many of them share: charters, jobs, heads and the
/// signatures of nodes over many results are checked once.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    project: Option<ProjectId>,
    grounds: BTreeMap<Digest, Arc<Ground>>,
    heads: BTreeMap<Digest, Head>,
    roots: Roots,
}

/// What all receipts of one job stand on: its charter and the job itself.
#[derive(Debug)]
struct Ground {
    project: ProjectId,
    coordinator: NodeId,
    job: Cid,
    spec: JobSpec,
    plan: Plan,
}

impl Checker {
    /// A checker for receipts of the project that the reader trusts; without one, a proof
    /// holds for whichever project its receipt names.
    #[must_use]
    pub fn new(project: Option<ProjectId>) -> Self {
        Self { project, ..Self::default() }
    }

    /// Checks a receipt as it lies in a file.
    ///
    /// # Errors
    /// The first thing that is not right.
    pub fn check(&mut self, file: &[u8]) -> Result<Proof, ReceiptError> {
        self.check_parts(&Receipt::decode(file)?)
    }

    /// Checks a receipt that was taken apart.
    ///
    /// # Errors
    /// The first thing that is not right.
    pub fn check_parts(&mut self, receipt: &Receipt) -> Result<Proof, ReceiptError> {
        let ground = self.ground(receipt)?;
        let head = self.head(receipt, &ground)?;
        let entry: Entry = codec::decode_within(&receipt.entry, ENVELOPE_BYTES_MAX)
            .map_err(ReceiptError::Entry)?;
        if entry.v != Entry::VERSION {
            return Err(ReceiptError::Version { found: entry.v });
        }
        if entry.job != ground.job {
            return Err(ReceiptError::ForeignJob { expected: ground.job, found: entry.job });
        }
        let unit =
            entry.unit(&ground.plan).ok_or(ReceiptError::ForeignUnit { index: entry.index })?;
        let (unit, _) = codec::block(&unit);
        let (agreeing, dissenting) = judge(&entry, unit, &ground.spec, &mut self.roots)?;
        let leaf = receipt.leaf;
        receipt
            .path
            .check_inclusion(leaf_hash(&receipt.entry), leaf, head.size, &head.root)
            .map_err(|source| ReceiptError::NotInLog { leaf, source })?;
        if entry.accepted_at > head.at {
            return Err(ReceiptError::Later);
        }
        Ok(Proof {
            project: ground.project,
            coordinator: ground.coordinator,
            job: ground.job,
            job_name: ground.spec.name.clone(),
            units: ground.plan.units(),
            image: ground.spec.program.image,
            module: ground.spec.program.module,
            unit,
            index: entry.index,
            inputs: ground.plan.layout().inputs(entry.index).zip(entry.inputs).collect(),
            is_result: ground.plan.layout().results().contains(&entry.index),
            output: entry.output,
            accepted_at: entry.accepted_at,
            basis: entry.basis,
            min_quorum: ground.spec.validation.min_quorum,
            agreeing,
            dissenting,
            leaf,
            head,
        })
    }

    /// Checks charter and job, unless the same ones were checked before.
    fn ground(&mut self, receipt: &Receipt) -> Result<Arc<Ground>, ReceiptError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(receipt.charter.len() as u64).to_be_bytes());
        hasher.update(&receipt.charter).update(&receipt.job);
        let key = *hasher.finalize().as_bytes();
        if let Some(ground) = self.grounds.get(&key) {
            return Ok(Arc::clone(ground));
        }
        let charter =
            envelope::open::<Charter>(&receipt.charter).map_err(ReceiptError::CharterEnvelope)?;
        let (found, coordinator) = (charter.signer, charter.statement.coordinator);
        let project = self.project.unwrap_or(found);
        if found != project {
            return Err(ReceiptError::Project { expected: project, found });
        }
        Charter::open_for(&receipt.charter, project, coordinator)?;
        let (job, spec) = JobSpec::open_for(&receipt.job, project).map_err(ReceiptError::Job)?;
        let plan = Plan::new(job, &spec);
        let ground = Arc::new(Ground { project, coordinator, job, spec, plan });
        self.grounds.insert(key, Arc::clone(&ground));
        Ok(ground)
    }

    /// Checks a head, unless the same one was checked before.
    fn head(&mut self, receipt: &Receipt, ground: &Ground) -> Result<Head, ReceiptError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&ground.project.to_bytes()).update(&ground.coordinator.to_bytes());
        hasher.update(&receipt.head);
        let key = *hasher.finalize().as_bytes();
        if let Some(head) = self.heads.get(&key) {
            return Ok(head.clone());
        }
        let head = Head::open_for(&receipt.head, ground.project, ground.coordinator)
            .map_err(ReceiptError::Head)?;
        self.heads.insert(key, head.clone());
        Ok(head)
    }
}

/// Results that agree, and results that do not.
type Sides = (Vec<ResultStatement>, Vec<ResultStatement>);

/// Opens the results of an entry and checks that they fulfil the job's rule.
fn judge(
    entry: &Entry,
    unit: Cid,
    spec: &JobSpec,
    roots: &mut Roots,
) -> Result<Sides, ReceiptError> {
    let results = open_results(entry, unit, roots)?;
    let successes = results.len();
    let (agreeing, dissenting): (Vec<_>, Vec<_>) =
        results.into_iter().partition(|result| result.output == Some(entry.output));
    let votes = Votes { agreeing: agreeing.len(), successes, rival: strongest(&dissenting) };
    let (basis, terms) = (entry.basis, &spec.validation);
    if !basis.is_allowed_by(terms) {
        return Err(ReceiptError::ForeignRule { basis });
    }
    if !basis.is_met_by(&votes, terms) {
        let Votes { agreeing, successes, rival } = votes;
        let quorum = terms.min_quorum;
        return Err(ReceiptError::NotEnough { agreeing, successes, rival, basis, quorum });
    }
    Ok((agreeing, dissenting))
}

/// How many of these results agree on one output, at most.
fn strongest(results: &[ResultStatement]) -> usize {
    let mut groups = BTreeMap::new();
    for result in results {
        *groups.entry(result.output).or_insert(0) += 1;
    }
    groups.into_values().max().unwrap_or(0)
}

/// Opens every result, and refuses a node or replica that appears twice.
fn open_results(
    entry: &Entry,
    unit: Cid,
    roots: &mut Roots,
) -> Result<Vec<ResultStatement>, ReceiptError> {
    if entry.results.len() > UNIT_REPLICAS_MAX as usize {
        return Err(ReceiptError::TooManyResults { found: entry.results.len() });
    }
    let mut nodes = BTreeSet::new();
    let mut replicas = BTreeSet::new();
    let mut results = Vec::new();
    for (index, bytes) in entry.results.iter().enumerate() {
        let result = ResultStatement::open_with(bytes, roots)
            .map_err(|source| ReceiptError::Result { index, source })?;
        if result.job != entry.job || result.unit != unit || !result.exit.is_success() {
            return Err(ReceiptError::ForeignResult { index });
        }
        if !nodes.insert(result.node) || !replicas.insert(result.replica) {
            return Err(ReceiptError::Doubled { node: result.node });
        }
        results.push(result);
    }
    Ok(results)
}
