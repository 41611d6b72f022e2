//! The durable state, and the one way to change it: applying a record.
//!
//! [`Core::handle`](crate::Core::handle) decides, makes a [`Record`](crate::Record), and applies it
//! ([`apply`]); a restart applies the same records from the journal. There is no third way, so the state
//! after a restart is the state before it.
//!
//! A record that does not fit is refused and changes nothing: the journal is then damaged
//! or of another program, and carrying on would lose work silently.
//!
//! What a snapshot holds of it, and what is rebuilt, is marked by `serde(skip)` and told in
//! [`crate::snapshot`].

mod apply;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::checks::Check;
use crate::config::Config;
use crate::identity::Identities;
use crate::job::{Job, JobNumber};
use crate::lots::Lots;
use crate::node::Disagreement;
use crate::replica::Tally;
use crate::trust::{Dirty, Trust};
use crate::unit::{Stage, Unit, UnitKey};

/// Everything that must survive a restart. Compare two to see whether two cores agree.
///
/// Not in it, because it is either said again by the nodes or only saves work: who is
/// present, how far each node came in the lanes, whether somebody idles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    #[serde(skip)]
    pub(crate) config: Config,
    /// In the order of submission.
    #[serde(with = "crate::snapshot::pairs")]
    pub(crate) jobs: BTreeMap<JobNumber, Job>,
    pub(crate) next_job: JobNumber,
    #[serde(skip)]
    pub(crate) numbers: BTreeMap<Cid, JobNumber>,
    /// Running jobs that have something to lease.
    #[serde(skip)]
    pub(crate) with_work: BTreeSet<JobNumber>,
    /// The replicas of all units in memory.
    #[serde(skip)]
    pub(crate) replicas: BTreeMap<ReplicaId, UnitKey>,
    /// One entry for each lease.
    #[serde(skip)]
    pub(crate) deadlines: BTreeSet<(Timestamp, ReplicaId)>,
    /// The leases of each node that has any, in the order in which they were given.
    #[serde(skip)]
    pub(crate) leases: BTreeMap<NodeId, Vec<ReplicaId>>,
    /// The books of every node that ever had a lease.
    #[serde(with = "crate::snapshot::pairs")]
    pub(crate) nodes: BTreeMap<NodeId, Tally>,
    /// Whom to trust how far.
    #[serde(with = "crate::snapshot::pairs")]
    pub(crate) trust: BTreeMap<NodeId, Trust>,
    /// Who belongs together.
    pub(crate) identities: Identities,
    /// Results that wait for audits.
    pub(crate) lots: Lots,
    /// Spot-checks that are leased.
    #[serde(with = "crate::snapshot::pairs")]
    pub(crate) checks: BTreeMap<ReplicaId, Check>,
    /// What is to be looked at again; empty between events.
    #[serde(skip)]
    pub(crate) dirty: Dirty,
    /// The latest, at most `Config::disagreements_max`.
    pub(crate) disagreements: VecDeque<Disagreement>,
    pub(crate) next_replica: u64,
    /// When the latest record was made.
    pub(crate) last_at: Timestamp,
}

/// Job numbers are given out once, and every index names jobs that are there.
pub(crate) const KNOWN: &str = "every job number names a job in memory";

/// What a record changed beyond the state itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// There is work now that was not there before, and that nobody has asked for.
    pub(crate) is_there_new_work: bool,
    /// The job that came to its end.
    pub(crate) ended: Option<JobNumber>,
}

/// Why a record does not fit the state it was applied to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The job is there already.
    #[error("job {job} was added twice")]
    KnownJob {
        /// Its id.
        job: Cid,
    },
    /// The job is not there, or not running.
    #[error("job {job} is not running")]
    NoSuchJob {
        /// Its id.
        job: Cid,
    },
    /// The work unit is not in flight, or not at the stage that the record speaks of.
    #[error("work unit {index} of job {job} is not at the stage that the record changes")]
    WrongStage {
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
    },
    /// Nobody reported the output that is said to be canonical.
    #[error("work unit {index} of job {job} has no result with the output that the record accepts")]
    WrongOutput {
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
    },
    /// The replica is not there, or is over already.
    #[error("replica {replica} is not in the state that the record changes")]
    WrongReplica {
        /// Its id.
        replica: ReplicaId,
    },
    /// The lot is not there, or closed already.
    #[error("lot {number} of node {node} in job {job} is not open")]
    WrongLot {
        /// The job.
        job: Cid,
        /// Whose it is.
        node: NodeId,
        /// Which of the node's.
        number: u32,
    },
    /// The lease breaks a rule: its number is not the next, the work unit lacks no replica,
    /// or the node had one before.
    #[error("replica {replica} of work unit {index} of job {job} cannot have been leased")]
    WrongLease {
        /// The replica.
        replica: ReplicaId,
        /// The job.
        job: Cid,
        /// The work unit's number.
        index: u64,
    },
}

impl State {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            jobs: BTreeMap::new(),
            next_job: JobNumber(0),
            numbers: BTreeMap::new(),
            with_work: BTreeSet::new(),
            replicas: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            leases: BTreeMap::new(),
            nodes: BTreeMap::new(),
            trust: BTreeMap::new(),
            identities: Identities::default(),
            lots: Lots::default(),
            checks: BTreeMap::new(),
            dirty: Dirty::default(),
            disagreements: VecDeque::new(),
            next_replica: 0,
            last_at: Timestamp::default(),
        }
    }
}

/// Finding things.
impl State {
    pub(crate) fn job(&self, number: JobNumber) -> &Job {
        &self.jobs[&number]
    }

    pub(crate) fn job_mut(&mut self, number: JobNumber) -> &mut Job {
        self.jobs.get_mut(&number).expect(KNOWN)
    }

    /// The unit that a key names, while it is in memory.
    pub(crate) fn unit(&self, key: UnitKey) -> Option<&Unit> {
        self.job(key.job).units.get(&key.index)
    }

    /// The unit of a key that was just looked up.
    pub(crate) fn unit_mut(&mut self, key: UnitKey) -> &mut Unit {
        let unit = self.job_mut(key.job).units.get_mut(&key.index);
        unit.expect("every key in the index names a unit in memory")
    }

    /// The number of a job that is running.
    fn running(&self, id: Cid) -> Result<JobNumber, ApplyError> {
        match self.numbers.get(&id) {
            Some(&number) if self.job(number).is_running() => Ok(number),
            Some(_) | None => Err(ApplyError::NoSuchJob { job: id }),
        }
    }

    /// The key of a unit that may be given up: it is undecided, or its accepted output is lost.
    fn endable(&self, job: Cid, index: u64) -> Result<UnitKey, ApplyError> {
        let key = UnitKey { job: self.running(job)?, index };
        let is_lost = self.unit(key).is_some_and(|unit| unit.is_lost() && !unit.is_leased());
        if is_lost { Ok(key) } else { self.open(job, index) }
    }

    /// The key of a unit that is undecided.
    fn open(&self, job: Cid, index: u64) -> Result<UnitKey, ApplyError> {
        let key = UnitKey { job: self.running(job)?, index };
        match self.unit(key).map(|unit| &unit.stage) {
            Some(Stage::Open { .. }) => Ok(key),
            Some(Stage::Accepted { .. } | Stage::Failed { .. }) | None => {
                Err(ApplyError::WrongStage { job, index })
            }
        }
    }
}
