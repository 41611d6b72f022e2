//! Which work unit a replica is of, as far as one conversation has leased it.
//!
//! A result must name the work unit of its replica. That is known when the replica is leased,
//! and a replica is never of another unit, so what is remembered here cannot be wrong; what is
//! not (after a restart, on a new stream) is asked of the core.

use std::collections::BTreeMap;

use dockercomp_protocol::limits::HEARTBEAT_REPLICAS_MAX;
use dockercomp_protocol::{Cid, ReplicaId};

/// A work unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Its job.
    pub(crate) job: Cid,
    /// Its number in the job.
    pub(crate) index: u64,
    /// The identifier of its description.
    pub(crate) cid: Cid,
}

/// The replicas that one conversation has leased: the latest, at most as many as a node may
/// hold.
#[derive(Debug, Default)]
pub(crate) struct Known(BTreeMap<ReplicaId, Unit>);

impl Known {
    /// Remembers a lease.
    pub(crate) fn insert(&mut self, replica: ReplicaId, unit: Unit) {
        self.0.insert(replica, unit);
        if self.0.len() > HEARTBEAT_REPLICAS_MAX {
            self.0.pop_first();
        }
    }

    /// The unit of a replica. It is forgotten: a replica is reported once.
    pub(crate) fn take(&mut self, replica: ReplicaId) -> Option<Unit> {
        self.0.remove(&replica)
    }
}
