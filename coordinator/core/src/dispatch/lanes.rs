//! Where units wait for nodes, first come first served.

use std::collections::BTreeMap;

use dockercomp_protocol::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::job::JobNumber;

/// Why a unit waits for nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lane {
    /// It needs more than it was to need at first.
    Retry,
    /// It was expanded and lacks its first replicas still.
    Fresh,
}

impl Lane {
    pub(crate) const ALL: [Self; 2] = [Self::Retry, Self::Fresh];
}

/// Where a unit waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) lane: Lane,
    pub(crate) ticket: u64,
    /// Since when.
    pub(crate) since: Timestamp,
}

/// The units of one job that lack replicas, by ticket.
///
/// A snapshot leaves the queues out: every unit says its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lanes {
    #[serde(skip)]
    retry: BTreeMap<u64, u64>,
    #[serde(skip)]
    fresh: BTreeMap<u64, u64>,
    next_ticket: u64,
}

impl Lanes {
    pub(crate) fn is_empty(&self) -> bool {
        self.retry.is_empty() && self.fresh.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.retry.len() + self.fresh.len()
    }

    pub(crate) const fn lane(&self, lane: Lane) -> &BTreeMap<u64, u64> {
        match lane {
            Lane::Retry => &self.retry,
            Lane::Fresh => &self.fresh,
        }
    }

    const fn lane_mut(&mut self, lane: Lane) -> &mut BTreeMap<u64, u64> {
        match lane {
            Lane::Retry => &mut self.retry,
            Lane::Fresh => &mut self.fresh,
        }
    }

    /// Queues a unit behind all others.
    pub(crate) fn push(&mut self, lane: Lane, index: u64, since: Timestamp) -> Place {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.lane_mut(lane).insert(ticket, index);
        Place { lane, ticket, since }
    }

    /// Queues a unit at the place that it says it has; false if that place cannot be its own.
    pub(crate) fn restore(&mut self, place: Place, index: u64) -> bool {
        let is_given = place.ticket < self.next_ticket;
        is_given && self.lane_mut(place.lane).insert(place.ticket, index).is_none()
    }

    pub(crate) fn remove(&mut self, place: Place) {
        let was_queued = self.lane_mut(place.lane).remove(&place.ticket).is_some();
        assert!(was_queued, "a unit's place in its lane was empty");
    }
}

/// How far each node came in each lane: everything under a lower ticket is held by the
/// node. Only a memory of work done, so neither durable nor part of the state.
#[derive(Debug, Default)]
pub(crate) struct Cursors(pub(super) BTreeMap<(JobNumber, NodeId, Lane), u64>);

impl Cursors {
    pub(crate) fn forget_job(&mut self, job: JobNumber) {
        self.0.retain(|&(of, ..), _| of != job);
    }
}
