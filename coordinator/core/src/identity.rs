//! Who belongs together: operators, address ranges, platforms.
//!
//! What a node says of itself, and from where it is connected, is journaled with its first
//! lease and whenever it has changed by the time of another.
//!
//! - **Operator**: a node may say who runs it. Nodes of one operator never get replicas of one
//!   unit. Nobody gains by naming another's operator: it can only cost leases.
//! - **Address range**: nodes that share one get replicas of one unit only when there is no
//!   choice. Identities cost nothing, addresses do: when a range has brought forth several nodes
//!   that were caught, or many new ones within a day, its new nodes begin like one that was
//!   caught, and count when others have confirmed them.
//! - **Platform**: where a job asks for it, the first node of a unit decides what the others
//!   must have in common with it (BOINC's homogeneous redundancy).

use std::collections::BTreeMap;

use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::wire::work::Platform;
use dockercomp_protocol::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::job::Job;
use crate::node::{AddressRange, Profile};
use crate::replica::Replica;
use crate::state::State;
use crate::unit::Unit;

/// Nodes of one range that were caught, from which on new ones are not believed.
const CAUGHT_MAX: u32 = 2;
/// New nodes of one range within a day that are believed.
const NEWCOMERS_MAX: u32 = 16;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// What ties a node to others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Who runs it, if they said so.
    pub operator: Option<String>,
    /// From where it is connected, if that says anything.
    pub range: Option<AddressRange>,
    /// What results may depend on.
    pub platform: Platform,
}

impl From<&Profile> for Identity {
    fn from(profile: &Profile) -> Self {
        let Profile { operator, range, platform, .. } = profile;
        Self { operator: operator.clone(), range: *range, platform: platform.clone() }
    }
}

/// What is known of an address range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Range {
    /// Nodes in it that were caught.
    pub(crate) caught: u32,
    /// Nodes that came within the day that began at `since`.
    newcomers: u32,
    since: Timestamp,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identities {
    #[serde(with = "crate::snapshot::pairs")]
    nodes: BTreeMap<NodeId, Identity>,
    #[serde(with = "crate::snapshot::pairs")]
    ranges: BTreeMap<AddressRange, Range>,
    #[serde(with = "crate::snapshot::pairs")]
    operators: BTreeMap<String, u32>,
}

impl Identities {
    /// What is journaled of a node.
    pub(crate) fn get(&self, node: NodeId) -> Option<&Identity> {
        self.nodes.get(&node)
    }

    /// The number of the operator of a node.
    pub(crate) fn operator(&self, node: NodeId) -> Option<u32> {
        self.number(self.nodes.get(&node)?.operator.as_deref()?)
    }

    pub(crate) fn number(&self, operator: &str) -> Option<u32> {
        self.operators.get(operator).copied()
    }

    /// Takes what a node is. Says whether it is to prove itself first.
    pub(crate) fn learn(&mut self, at: Timestamp, node: NodeId, identity: &Identity) -> bool {
        if let Some(operator) = &identity.operator
            && !self.operators.contains_key(operator)
        {
            let number = u32::try_from(self.operators.len()).unwrap_or(u32::MAX);
            self.operators.insert(operator.clone(), number);
        }
        let is_new = self.nodes.insert(node, identity.clone()).is_none();
        let Some(range) = identity.range.filter(|_| is_new) else { return false };
        let range = self.ranges.entry(range).or_default();
        if at.0.saturating_sub(range.since.0) >= DAY_MS {
            (range.newcomers, range.since) = (0, at);
        }
        range.newcomers = range.newcomers.saturating_add(1);
        range.caught >= CAUGHT_MAX || range.newcomers > NEWCOMERS_MAX
    }

    /// A node was caught: that is remembered of its range.
    pub(crate) fn note_caught(&mut self, node: NodeId) {
        let range = self.nodes.get(&node).and_then(|identity| identity.range);
        if let Some(range) = range.and_then(|range| self.ranges.get_mut(&range)) {
            range.caught = range.caught.saturating_add(1);
        }
    }
}

impl Unit {
    /// Whether a node has, or ever had, a replica of this unit, or another node of its
    /// operator. It never gets another: an error would repeat itself, and two votes of one
    /// operator are one.
    pub(crate) fn knows(&self, node: NodeId, operator: Option<u32>) -> bool {
        self.replicas.iter().any(|replica| {
            replica.node == node || (operator.is_some() && replica.operator == operator)
        })
    }

    /// Replicas that may still decide it.
    fn alive(&self) -> impl Iterator<Item = &Replica> {
        self.replicas
            .iter()
            .filter(|replica| replica.state.is_in_progress() || replica.state.output().is_some())
    }
}

impl State {
    /// Whether a node is of the class that a unit is committed to, if its job asks for one. A
    /// unit whose replicas were all lost is committed to none.
    pub(crate) fn is_of_class(
        &self,
        job: &Job,
        unit: &Unit,
        platform: &Platform,
        executor: ExecutorKind,
    ) -> bool {
        let asked = job.terms.validation.homogeneous;
        if !(asked.os || asked.cpu || asked.executor) {
            return true;
        }
        let Some(first) = unit.alive().next() else { return true };
        let usual = Platform::default();
        let other = self.identities.get(first.node).map_or(&usual, |identity| &identity.platform);
        (!asked.os || other.os == platform.os)
            && (!asked.cpu || other.cpu == platform.cpu)
            && (!asked.executor || first.executor == executor)
    }

    /// Whether somebody in an address range has the unit.
    pub(crate) fn is_near(&self, unit: &Unit, range: Option<AddressRange>) -> bool {
        range.is_some()
            && unit.alive().any(|replica| {
                self.identities.get(replica.node).is_some_and(|other| other.range == range)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::env::node;

    #[test]
    fn a_range_that_brings_many_or_bad_nodes_is_not_believed() {
        let range = Some(AddressRange::V4([203, 0, 113]));
        let identity = Identity { range, ..Identity::default() };
        let mut identities = Identities::default();
        let mut learn = |name: &str, at| identities.learn(Timestamp(at), node(name), &identity);
        for number in 0..16 {
            assert!(!learn(&format!("n{number}"), 0));
        }
        assert!(learn("one more", 1));
        assert!(!learn("one more", 2), "only new nodes are judged by their range");
        assert!(!learn("next day", DAY_MS));
        for number in 0..2 {
            identities.note_caught(node(&format!("n{number}")));
        }
        assert!(identities.learn(Timestamp(DAY_MS), node("late"), &identity));
    }
}
