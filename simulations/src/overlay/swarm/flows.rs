//! Bodies on their way, and how fast each of them is.
//!
//! A flow goes from the line up of its sender to the line down of its receiver. Where lines are
//! shared, each flow gets as much as it can without taking from one that has less or as much:
//! max-min fairness, what TCP connections of one round-trip time tend to (Bertsekas and
//! Gallager, Data Networks, section 6.5.2). It is found by filling: the line with the least room
//! for each of its flows is full first, its flows are settled, and so on with the others.
//!
//! Only flows that share a line with one that began or ended, directly or through others, are
//! looked at again.
//!
//! Integer times, and additions, divisions and comparisons of doubles: the same on every
//! platform.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::moment::Moment;

/// What flows that use one line do to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// They share it, fairly.
    #[default]
    MaxMin,
    /// Nothing: each is as fast as if it were alone. It is what simple models assume.
    None,
}

/// A line of a node, in one direction.
type Line = u32;

/// Sender and receiver.
pub(super) type Pair = (u32, u32);

const fn lines((from, to): Pair) -> [Line; 2] {
    [2 * from, 2 * to + 1]
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    /// Bytes that were left at `since`.
    left: f64,
    since: Moment,
    /// Bytes a second.
    rate: f64,
    ends: Moment,
}

/// All flows of a world; one for each pair at most.
#[derive(Debug)]
pub(super) struct Flows {
    sharing: Sharing,
    /// Bytes a second, by line.
    capacity: Vec<f64>,
    of_line: Vec<BTreeSet<Pair>>,
    flows: BTreeMap<Pair, Flow>,
    ends: BTreeSet<(Moment, Pair)>,
    /// Lines on which a flow began or ended since the last [`Self::settle`].
    touched: BTreeSet<Line>,
}

/// What a line still has for flows that are not settled.
#[derive(Clone, Copy, Debug)]
struct Room {
    rate: f64,
    n_flows: usize,
}

impl Room {
    /// Rates are not negative, so their bits have their order.
    fn share(self) -> u64 {
        (self.rate.max(0.0) / self.n_flows.max(1) as f64).to_bits()
    }
}

impl Flows {
    /// No flows, between nodes that send and receive so many bytes a second.
    pub(super) fn new(sharing: Sharing, nodes: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let capacity: Vec<f64> = nodes.into_iter().flat_map(|(up, down)| [up, down]).collect();
        Self {
            sharing,
            of_line: vec![BTreeSet::new(); capacity.len()],
            capacity,
            flows: BTreeMap::new(),
            ends: BTreeSet::new(),
            touched: BTreeSet::new(),
        }
    }

    /// A body leaves. If one of this pair was on its way, it takes that one's place.
    pub(super) fn begin(&mut self, now: Moment, pair: Pair, bytes: u64) {
        let before = self.flows.get(&pair).copied();
        if let Some(before) = before {
            self.ends.remove(&(before.ends, pair));
        } else {
            self.touch(pair, true);
        }
        let rate = before.map_or(0.0, |before| before.rate);
        self.put(pair, Flow { left: bytes as f64, since: now, rate, ends: Moment(u64::MAX) });
    }

    /// The pair has nothing more to send.
    pub(super) fn end(&mut self, pair: Pair) {
        if let Some(flow) = self.flows.remove(&pair) {
            self.ends.remove(&(flow.ends, pair));
            self.touch(pair, false);
        }
    }

    /// The first flow whose body will be through, and when. [`Self::settle`] comes before.
    pub(super) fn next_end(&self) -> Option<(Moment, Pair)> {
        self.ends.first().copied()
    }

    fn touch(&mut self, pair: Pair, is_new: bool) {
        for line in lines(pair) {
            self.touched.insert(line);
            let flows = &mut self.of_line[line as usize];
            if is_new {
                flows.insert(pair)
            } else {
                flows.remove(&pair)
            };
        }
    }

    fn put(&mut self, pair: Pair, mut flow: Flow) {
        if flow.rate > 0.0 {
            let micros = (flow.left / flow.rate * 1e6).ceil() as u64;
            flow.ends = Moment(flow.since.0.saturating_add(micros));
            self.ends.insert((flow.ends, pair));
        }
        self.flows.insert(pair, flow);
    }

    fn change(&mut self, now: Moment, pair: Pair, rate: f64) {
        let Some(&flow) = self.flows.get(&pair) else { return };
        if flow.rate == rate {
            return;
        }
        self.ends.remove(&(flow.ends, pair));
        let seconds = (now.0 - flow.since.0) as f64 / 1e6;
        let left = (flow.left - flow.rate * seconds).max(0.0);
        self.put(pair, Flow { left, since: now, rate, ends: Moment(u64::MAX) });
    }

    /// Gives every flow the rate that it has from now on.
    pub(super) fn settle(&mut self, now: Moment) {
        let touched = std::mem::take(&mut self.touched);
        let mut rooms = self.reached_from(touched);
        if self.sharing == Sharing::None {
            for pair in self.pairs(&rooms) {
                let [up, down] = lines(pair).map(|line| self.capacity[line as usize]);
                self.change(now, pair, up.min(down));
            }
            return;
        }
        let mut queue: BTreeSet<(u64, Line)> =
            rooms.iter().map(|(line, room)| (room.share(), *line)).collect();
        let mut settled = BTreeSet::new();
        while let Some((share, line)) = queue.pop_first() {
            let pairs: Vec<Pair> = self.of_line[line as usize].iter().copied().collect();
            for pair in pairs.into_iter().filter(|pair| settled.insert(*pair)) {
                let rate = f64::from_bits(share);
                self.change(now, pair, rate);
                let [up, down] = lines(pair);
                let other = if up == line { down } else { up };
                if let Some(room) = rooms.get_mut(&other) {
                    queue.remove(&(room.share(), other));
                    room.rate -= rate;
                    room.n_flows -= 1;
                    if room.n_flows > 0 {
                        queue.insert((room.share(), other));
                    }
                }
            }
        }
    }

    /// The lines that share flows with these, directly or through others, all empty.
    fn reached_from(&self, touched: BTreeSet<Line>) -> BTreeMap<Line, Room> {
        let mut rooms = BTreeMap::new();
        let mut open: Vec<Line> = touched.into_iter().collect();
        while let Some(line) = open.pop() {
            let flows = &self.of_line[line as usize];
            let room = Room { rate: self.capacity[line as usize], n_flows: flows.len() };
            if flows.is_empty() || rooms.insert(line, room).is_some() {
                continue;
            }
            open.extend(flows.iter().flat_map(|pair| lines(*pair)));
        }
        rooms
    }

    fn pairs(&self, rooms: &BTreeMap<Line, Room>) -> BTreeSet<Pair> {
        rooms.keys().flat_map(|line| &self.of_line[*line as usize]).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Moment = Moment(0);

    fn rates(flows: &Flows) -> Vec<f64> {
        flows.flows.values().map(|flow| flow.rate).collect()
    }

    /// The textbook's: two flows share a narrow line, and a third takes what they leave of
    /// another.
    #[test]
    fn who_cannot_use_its_share_leaves_it_to_others() {
        let mut flows =
            Flows::new(Sharing::MaxMin, [(1.0, 9.0), (3.0, 9.0), (9.0, 9.0), (9.0, 2.0)]);
        for pair in [(0, 2), (0, 3), (1, 3)] {
            flows.begin(NOW, pair, 100);
        }
        flows.settle(NOW);
        assert_eq!(rates(&flows), [0.5, 0.5, 1.5]);
        flows.end((0, 2));
        flows.settle(NOW);
        assert_eq!(rates(&flows), [1.0, 1.0]);
    }

    #[test]
    fn a_flow_keeps_what_it_has_sent_when_its_rate_changes() {
        let mut flows =
            Flows::new(Sharing::MaxMin, [(100.0, 100.0), (100.0, 100.0), (100.0, 100.0)]);
        flows.begin(NOW, (0, 1), 1000);
        flows.settle(NOW);
        assert_eq!(flows.next_end(), Some((Moment(10_000_000), (0, 1))));
        // Half-way, a second one comes: what is left takes twice as long.
        flows.begin(Moment(5_000_000), (0, 2), 1000);
        flows.settle(Moment(5_000_000));
        assert_eq!(flows.next_end(), Some((Moment(15_000_000), (0, 1))));
        flows.end((0, 1));
        flows.settle(Moment(15_000_000));
        assert_eq!(flows.next_end(), Some((Moment(20_000_000), (0, 2))));
    }

    #[test]
    fn without_sharing_each_is_as_fast_as_its_lines() {
        let mut flows = Flows::new(Sharing::None, [(4.0, 1.0), (1.0, 2.0), (1.0, 8.0)]);
        flows.begin(NOW, (0, 1), 100);
        flows.begin(NOW, (0, 2), 100);
        flows.settle(NOW);
        assert_eq!(rates(&flows), [2.0, 4.0]);
    }

    /// Max-min fairness has a definition that needs no algorithm: no line carries more than it
    /// can, and every flow uses a full line on which no other is faster.
    fn assert_fair(flows: &Flows) -> Result<(), TestCaseError> {
        let slack = 1.0 + 1e-9;
        let used = |line: Line| -> f64 {
            flows.of_line[line as usize].iter().map(|pair| flows.flows[pair].rate).sum()
        };
        for (pair, flow) in &flows.flows {
            let has_bottleneck = lines(*pair).into_iter().any(|line| {
                let others = &flows.of_line[line as usize];
                let fastest = others.iter().map(|pair| flows.flows[pair].rate).fold(0.0, f64::max);
                used(line) * slack >= flows.capacity[line as usize] && fastest <= flow.rate * slack
            });
            prop_assert!(has_bottleneck, "{pair:?} could be faster");
        }
        for (line, capacity) in flows.capacity.iter().enumerate() {
            let used = used(u32::try_from(line).expect("a few"));
            prop_assert!(used <= capacity * slack, "line {line} carries {used} of {capacity}");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn rates_are_fair_whoever_comes_and_goes(
            lines in prop::collection::vec((1u32..50, 1u32..50), 2..9),
            steps in prop::collection::vec((any::<bool>(), 0u32..9, 0u32..9), 1..60),
        ) {
            let n_nodes = u32::try_from(lines.len()).expect("a few");
            let lines = lines.into_iter().map(|(up, down)| (f64::from(up), f64::from(down)));
            let mut flows = Flows::new(Sharing::MaxMin, lines);
            for (number, (begins, from, to)) in steps.into_iter().enumerate() {
                let now = Moment(number as u64 * 1000);
                let pair = (from % n_nodes, to % n_nodes);
                if begins { flows.begin(now, pair, 1 << 20) } else { flows.end(pair) }
                flows.settle(now);
                assert_fair(&flows)?;
                prop_assert_eq!(flows.ends.len(), flows.flows.len());
            }
        }
    }
}
