//! A host's disk: leases, unreported results, kept outputs.
//!
//! The drawers of the production node's desk. What is here survives a crash of the host, and
//! nothing else does. A write is durable at once: the node syncs before it goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use dockercomp_protocol::{Cid, ReplicaId, Timestamp};

use crate::behaviour::Product;
use crate::jobs::UnitId;

/// A lease as it was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseRow {
    pub(crate) unit: UnitId,
    /// When it runs out, by the host's clock.
    pub(crate) expires_at: Timestamp,
}

/// A result that is not acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct ResultRow {
    pub(crate) unit: UnitId,
    pub(crate) product: Product,
    /// What the program took.
    pub(crate) ran: Duration,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    pub(crate) leases: BTreeMap<ReplicaId, LeaseRow>,
    pub(crate) results: BTreeMap<ReplicaId, ResultRow>,
    pub(crate) kept: BTreeMap<ReplicaId, Cid>,
}

impl Desk {
    /// A replica ended with a result.
    pub(crate) fn finished(&mut self, replica: ReplicaId, result: ResultRow) {
        self.leases.remove(&replica);
        self.results.insert(replica, result);
    }

    /// The coordinator has this result; its output is kept.
    pub(crate) fn reported(&mut self, replica: ReplicaId, output: Cid) {
        self.results.remove(&replica);
        self.kept.insert(replica, output);
    }

    /// Nothing of a replica is needed any more.
    pub(crate) fn forget(&mut self, replica: ReplicaId) {
        self.leases.remove(&replica);
        self.results.remove(&replica);
        self.kept.remove(&replica);
    }

    /// Whether an output is here.
    pub(crate) fn holds(&self, output: Cid) -> bool {
        self.kept.values().any(|&kept| kept == output)
            || self.results.values().any(|result| result.product.output == Some(output))
    }
}
