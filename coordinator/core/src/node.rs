//! What is known of nodes: who is there, and who was caught.
//!
//! How a node's replicas ended is part of the state, as one [`Tally`](crate::Tally) a node,
//! kept from its first lease on. Who is there is not: a node registers at the start of every
//! connection, so after a restart presence fills up by itself.
//!
//! # What is not here
//!
//! Reputation. Its input is here (the tallies, the disagreements); a policy that turns it
//! into trust belongs beside this file, and is asked by [`crate::dispatch`] and
//! [`crate::validate`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::wire::work::{Capacity, Platform};
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp};
use serde::{Deserialize, Serialize};

/// A success that was not equal to the canonical output: who was caught, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disagreement {
    /// When it was found.
    pub at: Timestamp,
    /// The job.
    pub job: Cid,
    /// The work unit's number.
    pub index: u64,
    /// Who.
    pub node: NodeId,
    /// As which replica.
    pub replica: ReplicaId,
    /// What the node said.
    pub said: Cid,
    /// What the quorum said.
    pub canonical: Cid,
}

/// What a node is: what it said of itself, and what the shell saw of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Executors that are ready.
    pub executors: Vec<ExecutorKind>,
    /// Everything it offers.
    pub offer: Capacity,
    /// Who runs it, if they said so.
    pub operator: Option<String>,
    /// What results may depend on.
    pub platform: Platform,
    /// From where it is connected, if that says anything.
    pub range: Option<AddressRange>,
}

impl Profile {
    /// A node that says nothing but what it can do.
    #[must_use]
    pub fn plain(executors: Vec<ExecutorKind>, offer: Capacity) -> Self {
        Self { executors, offer, operator: None, platform: Platform::default(), range: None }
    }
}

/// The part of an address that one customer of a provider usually has to itself: 24 bits of an
/// IPv4 address, 48 of an IPv6 address.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum AddressRange {
    /// The first 24 bits.
    V4([u8; 3]),
    /// The first 48 bits.
    V6([u8; 6]),
}

impl AddressRange {
    /// The range of an address; none for addresses that mean something on one machine or in
    /// one house only.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                // 100.64.0.0/10: behind a carrier's translator, or of a private overlay.
                let is_shared = a == 100 && (64..128).contains(&b);
                let is_global = !address.is_loopback()
                    && !address.is_private()
                    && !address.is_link_local()
                    && !address.is_unspecified()
                    && !is_shared;
                is_global.then_some(Self::V4([a, b, c]))
            }
            IpAddr::V6(address) => {
                let is_global = !address.is_loopback()
                    && !address.is_unique_local()
                    && !address.is_unicast_link_local()
                    && !address.is_unspecified();
                let range = address.octets().first_chunk().copied();
                range.filter(|_| is_global).map(Self::V6)
            }
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4([a, b, c]) => write!(f, "{}/24", Ipv4Addr::new(a, b, c, 0)),
            Self::V6(bytes) => {
                let mut octets = [0; 16];
                octets[..bytes.len()].copy_from_slice(&bytes);
                write!(f, "{}/48", Ipv6Addr::from(octets))
            }
        }
    }
}

/// A registered node, and when it was last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) profile: Profile,
    pub(crate) last_seen: Timestamp,
    /// Leases before this one are of an earlier registration. Nothing once the node has said
    /// which of them it still has.
    pub(crate) first_lease: Option<ReplicaId>,
}

/// The registered nodes, at most `Config::nodes_present_max`.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    pub(crate) visits: BTreeMap<NodeId, Visit>,
}

impl Presence {
    pub(crate) fn register(&mut self, node: NodeId, visit: Visit, nodes_max: usize) {
        if self.visits.len() < nodes_max || self.visits.contains_key(&node) {
            self.visits.insert(node, visit);
        }
    }

    pub(crate) fn seen(&mut self, now: Timestamp, node: NodeId) {
        if let Some(visit) = self.visits.get_mut(&node) {
            visit.last_seen = now;
        }
    }

    pub(crate) fn leave(&mut self, node: NodeId) {
        self.visits.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::AddressRange;

    #[test]
    fn only_addresses_of_the_internet_have_a_range() {
        let range = |address: &str| {
            let range = AddressRange::of(address.parse().expect("an address"));
            range.map(|range| range.to_string())
        };
        for nowhere in ["127.0.0.1", "10.1.2.3", "192.168.1.5", "172.16.0.1", "169.254.1.1"] {
            assert_eq!(range(nowhere), None, "{nowhere}");
        }
        for nowhere in ["100.64.0.1", "100.127.255.1", "0.0.0.0", "::", "::1", "fe80::1", "fd00::1"]
        {
            assert_eq!(range(nowhere), None, "{nowhere}");
        }
        assert_eq!(range("::ffff:192.168.1.5"), None, "an IPv4 address in IPv6 clothes");
        assert_eq!(range("203.0.113.7").as_deref(), Some("203.0.113.0/24"));
        assert_eq!(range("100.128.0.1").as_deref(), Some("100.128.0.0/24"));
        assert_eq!(range("::ffff:203.0.113.7").as_deref(), Some("203.0.113.0/24"));
        assert_eq!(range("2001:db8:1:2::3").as_deref(), Some("2001:db8:1::/48"));
    }
}
