//! One node's routing table: buckets by common prefix, at most `k` in each, the old ones stay.
//!
//! Who has answered us or asked us enters if there is room. Nobody who is believed to be there
//! is replaced, which is Kademlia's preference for the long-lived; by rust-libp2p's rules, an
//! entry without a connection gives way to a newcomer. By go-libp2p's rules, only a few of one
//! network enter: its filter against tables full of one operator's nodes
//! (`rt_diversity_filter.go`).

use super::key::{Key, NodeId};
use super::scenario::{Options, Rules};

/// Who somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contact {
    pub(super) key: Key,
    pub(super) node: NodeId,
    /// The network that it shares with others, if it does.
    pub(super) network: Option<u16>,
}

/// A peer in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) node: NodeId,
    pub(super) network: Option<u16>,
    /// When it last answered or asked, in seconds.
    pub(super) heard: u32,
    /// When the connection was made on which it last asked, in seconds.
    pub(super) opened: u32,
    /// It could not be reached.
    pub(super) is_gone: bool,
}

/// See the module documentation.
#[derive(Clone, Debug)]
pub(super) struct Table {
    own: Key,
    k: usize,
    rules: Rules,
    same_network_in_bucket: usize,
    same_network_in_table: usize,
    buckets: Vec<Vec<Entry>>,
}

impl Table {
    pub(super) fn new(own: Key, options: &Options) -> Self {
        let &Options { k, rules, same_network_in_bucket, same_network_in_table, .. } = options;
        Self { own, k, rules, same_network_in_bucket, same_network_in_table, buckets: Vec::new() }
    }

    /// A peer was heard. True if it is in the table afterwards.
    pub(super) fn hear(&mut self, contact: Contact, now: u32) -> bool {
        let Contact { key, node, network } = contact;
        if key == self.own {
            return false;
        }
        let place = self.own.bucket(key);
        if self.buckets.len() <= place {
            self.buckets.resize(place + 1, Vec::new());
        }
        let bucket = &mut self.buckets[place];
        if let Some(entry) = bucket.iter_mut().find(|entry| entry.node == node) {
            (entry.heard, entry.is_gone) = (now, false);
            return true;
        }
        if self.has_enough_of(network, place) {
            return false;
        }
        let bucket = &mut self.buckets[place];
        if bucket.len() >= self.k {
            let Some(gone) = bucket.iter().position(|entry| entry.is_gone) else { return false };
            bucket.remove(gone);
        }
        bucket.push(Entry { key, node, network, heard: now, opened: now, is_gone: false });
        true
    }

    /// Whether nobody else of a network may enter a bucket.
    fn has_enough_of(&self, network: Option<u16>, place: usize) -> bool {
        if network.is_none() || self.rules != Rules::Go {
            return false;
        }
        let of_it = |bucket: &Vec<Entry>| bucket.iter().filter(|e| e.network == network).count();
        of_it(&self.buckets[place]) >= self.same_network_in_bucket
            || self.buckets.iter().map(of_it).sum::<usize>() >= self.same_network_in_table
    }

    /// A peer could not be reached: go-libp2p-kad-dht drops it, rust-libp2p keeps it until
    /// somebody else wants its place.
    pub(super) fn fail(&mut self, key: Key, node: NodeId) {
        match self.rules {
            Rules::Libp2p => {
                if let Some(entry) = self.entry(key, node) {
                    entry.is_gone = true;
                }
            }
            Rules::Go => {
                if let Some(bucket) = self.buckets.get_mut(self.own.bucket(key)) {
                    bucket.retain(|entry| entry.node != node);
                }
            }
        }
    }

    pub(super) fn entry(&mut self, key: Key, node: NodeId) -> Option<&mut Entry> {
        let bucket = self.buckets.get_mut(self.own.bucket(key))?;
        bucket.iter_mut().find(|entry| entry.node == node)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> + '_ {
        self.buckets.iter().flatten()
    }

    #[cfg(test)]
    fn bucket(&self, place: usize) -> &[Entry] {
        self.buckets.get(place).map_or(&[], Vec::as_slice)
    }

    /// The deepest bucket with somebody in it.
    pub(super) fn deepest(&self) -> usize {
        self.buckets.iter().rposition(|bucket| !bucket.is_empty()).unwrap_or(0)
    }

    /// Fills `out` with the `n` closest to a key, the closest first.
    pub(super) fn closest(&self, target: Key, n: usize, out: &mut Vec<Entry>) {
        out.clear();
        let shared = self.own.bucket(target).min(self.buckets.len());
        // The target's own bucket is nearest, all deeper ones lie at one distance from it, and
        // then each shallower one is further away.
        let nearest = shared..(shared + 1).min(self.buckets.len());
        let deeper = (shared + 1).min(self.buckets.len())..self.buckets.len();
        let groups = [nearest, deeper].into_iter().chain((0..shared).rev().map(|b| b..b + 1));
        for group in groups {
            if out.len() >= n {
                break;
            }
            let from = out.len();
            self.buckets[group].iter().for_each(|bucket| out.extend_from_slice(bucket));
            out[from..].sort_unstable_by_key(|entry| entry.key.distance(target));
        }
        out.truncate(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(node: NodeId) -> Key {
        Key::of(3, "node", node.into())
    }

    fn contact(node: NodeId) -> Contact {
        Contact { key: key(node), node, network: None }
    }

    fn table(rules: Rules) -> Table {
        Table::new(key(0), &Options { rules, ..Options::default() })
    }

    #[test]
    fn buckets_hold_k_and_the_old_ones_stay() {
        let mut table = table(Rules::Go);
        let entered: Vec<NodeId> =
            (1..2000).filter(|node| table.hear(contact(*node), *node)).collect();
        assert_eq!(table.bucket(0).len(), 20);
        let first: Vec<NodeId> = (1..2000).filter(|n| key(*n).bucket(key(0)) == 0).collect();
        let held: Vec<NodeId> = table.bucket(0).iter().map(|entry| entry.node).collect();
        assert_eq!(held, first[..20]);
        assert_eq!(table.entries().count(), entered.len());
        assert!(!table.hear(contact(0), 1), "nobody is in their own table");
        table.fail(key(first[3]), first[3]);
        assert!(table.hear(contact(first[30]), 1), "there is room again");
    }

    #[test]
    fn by_libp2p_rules_the_gone_stay_until_their_place_is_wanted() {
        let mut table = table(Rules::Libp2p);
        let near: Vec<NodeId> = (1..200).filter(|n| key(*n).bucket(key(0)) == 0).take(21).collect();
        near[..20].iter().for_each(|node| assert!(table.hear(contact(*node), 0)));
        table.fail(key(near[3]), near[3]);
        assert_eq!(table.bucket(0).len(), 20);
        assert!(table.hear(contact(near[20]), 1));
        assert!(table.bucket(0).iter().all(|entry| entry.node != near[3]));
        assert!(!table.hear(contact(near[3]), 1), "full again");
    }

    #[test]
    fn by_go_rules_few_of_one_network_enter() {
        let of_one = |node| Contact { network: Some(7), ..contact(node) };
        let mut go = table(Rules::Go);
        let (far, near): (Vec<NodeId>, Vec<NodeId>) =
            (1..500).partition(|node| key(*node).bucket(key(0)) == 0);
        far.iter().for_each(|node| _ = go.hear(of_one(*node), 0));
        assert_eq!(go.entries().count(), 2, "two in a bucket");
        near.iter().for_each(|node| _ = go.hear(of_one(*node), 0));
        assert_eq!(go.entries().count(), 3, "three in a table");
        assert!(go.hear(of_one(far[0]), 1), "who is there stays known");
        // Who leaves makes room for another of the network, and others always have room.
        let gone = go.entries().next().copied().expect("three are there");
        go.fail(gone.key, gone.node);
        assert!((500..600).any(|node| go.hear(of_one(node), 0)));
        assert!(go.hear(contact(600), 0));
        assert!(go.hear(Contact { network: Some(8), ..contact(601) }, 0));

        let mut libp2p = table(Rules::Libp2p);
        (1..500).for_each(|node| _ = libp2p.hear(of_one(node), 0));
        assert_eq!(libp2p.bucket(0).len(), 20);
    }

    #[test]
    fn closest_is_what_a_search_of_all_entries_finds() {
        let mut table = table(Rules::Go);
        for node in 1..3000 {
            table.hear(contact(node), 0);
        }
        let mut out = Vec::new();
        for number in 0..200 {
            let target = Key::of(3, "content", number);
            let mut all: Vec<Entry> = table.entries().copied().collect();
            all.sort_unstable_by_key(|entry| entry.key.distance(target));
            table.closest(target, 20, &mut out);
            assert_eq!(out, all[..20]);
        }
        // Near to itself, where the deep buckets matter.
        let mut all: Vec<Entry> = table.entries().copied().collect();
        all.sort_unstable_by_key(|entry| entry.key.distance(key(0)));
        table.closest(key(0), 20, &mut out);
        assert_eq!(out, all[..20]);
    }
}
