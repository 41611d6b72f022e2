//! Upload slots: who is served large blocks now, and who is told to come again.
//!
//! A line that is shared by everybody who asks is of use to nobody: all of them wait for whole
//! blocks, and none has any to pass on. So a few peers are served at a time and the others are
//! answered `Busy`, and from time to time the slot that was held longest goes to somebody who
//! waits. Time is an argument: any clock that does not jump will do.
//!
//! ```text
//! ask ──slot is free, or held──► served
//!   └──all are taken───────────► waits: one turn goes to the peer that gave us most, the next to
//!                                the one that has waited longest, whatever it gave
//! ```
//!
//! # Bounds
//!
//! `WAITING_MAX` peers that wait are remembered; a peer that does not ask again within
//! `FORGET` is not waiting any more, and one that asks nothing for `IDLE` gives up its slot.

use std::collections::BTreeMap;
use std::time::Duration;

use dockercomp_protocol::{NodeId, Timestamp};

/// How long a slot is held while others wait.
const TURN: Duration = Duration::from_secs(5);
/// A slot whose peer asks nothing for this long is free.
const IDLE: Duration = Duration::from_millis(500);
/// Peers that wait ask again within this time, or are forgotten.
const FORGET: Duration = Duration::from_secs(3);
const WAITING_MAX: usize = 1024;

/// Slots where no rate is set: the bound is the blocks in memory.
const UNLIMITED: usize = 64;
/// Slots of a slow line.
const MIN: usize = 4;
/// Of a limited line, the least that each slot should have, in bytes a second.
const RATE_MIN: u64 = 1 << 20;

/// How many peers are served at once on a line of so many bytes a second.
#[must_use]
pub fn n_slots(rate: Option<u64>) -> usize {
    rate.map_or(UNLIMITED, |rate| {
        usize::try_from(rate / RATE_MIN).unwrap_or(UNLIMITED).clamp(MIN, UNLIMITED)
    })
}

/// Who holds a slot, and who waits for one.
#[derive(Debug)]
pub struct Slots {
    n_max: usize,
    held: BTreeMap<NodeId, Slot>,
    waiting: BTreeMap<NodeId, Waiting>,
    /// Turns that were given to somebody who waited.
    n_turns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    since: Timestamp,
    /// When it last asked or was given something.
    used_at: Timestamp,
    /// Requests of it that are being answered.
    n_open: usize,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: Timestamp,
    asked_at: Timestamp,
}

impl Slots {
    /// Slots that nobody holds; at least one.
    #[must_use]
    pub fn new(n_max: usize) -> Self {
        Self { n_max: n_max.max(1), held: BTreeMap::new(), waiting: BTreeMap::new(), n_turns: 0 }
    }

    /// A peer asks for a block. Whether it is served; then [`Self::on_done`] must follow.
    /// `gave` says how much a peer has given us.
    pub fn ask(&mut self, now: Timestamp, peer: NodeId, gave: impl Fn(&NodeId) -> u64) -> bool {
        self.waiting.retain(|_, waiting| now.since(waiting.asked_at) < FORGET);
        self.held.retain(|_, slot| slot.n_open > 0 || now.since(slot.used_at) < IDLE);
        if !self.held.contains_key(&peer) {
            self.await_turn(now, peer);
            self.end_a_turn(now);
            let is_next = self.next(&gave) == Some(peer);
            let n_free = self.n_max.saturating_sub(self.held.len());
            // A free slot is for whoever asks first, unless somebody has a better claim to it.
            if n_free == 0 || (n_free < self.waiting.len() && !is_next) {
                return false;
            }
            self.n_turns += u64::from(self.waiting.len() > 1);
            self.waiting.remove(&peer);
            self.held.insert(peer, Slot { since: now, used_at: now, n_open: 0 });
        }
        if let Some(slot) = self.held.get_mut(&peer) {
            slot.used_at = now;
            slot.n_open += 1;
        }
        true
    }

    /// What a peer asked for has been answered.
    pub fn on_done(&mut self, now: Timestamp, peer: &NodeId) {
        if let Some(slot) = self.held.get_mut(peer) {
            slot.used_at = now;
            slot.n_open = slot.n_open.saturating_sub(1);
        }
    }

    fn await_turn(&mut self, now: Timestamp, peer: NodeId) {
        if let Some(waiting) = self.waiting.get_mut(&peer) {
            waiting.asked_at = now;
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.insert(peer, Waiting { since: now, asked_at: now });
        }
    }

    /// Takes the slot that was held longest away, if its turn is over and somebody waits. What
    /// its peer has asked for before is still answered.
    fn end_a_turn(&mut self, now: Timestamp) {
        let is_full = self.held.len() >= self.n_max;
        let oldest = self.held.iter().min_by_key(|(_, slot)| slot.since);
        let oldest = oldest.map(|(peer, slot)| (*peer, slot.since));
        if let Some((peer, since)) = oldest
            && is_full
            && now.since(since) >= TURN
        {
            self.held.remove(&peer);
        }
    }

    /// Who waits and has the best claim.
    fn next(&self, gave: impl Fn(&NodeId) -> u64) -> Option<NodeId> {
        let longest = |(peer, waiting): &(&NodeId, &Waiting)| (waiting.since, **peer);
        let best = if self.n_turns.is_multiple_of(2) {
            self.waiting.iter().min_by_key(longest)
        } else {
            let claim = |one: &(&NodeId, &Waiting)| (std::cmp::Reverse(gave(one.0)), longest(one));
            self.waiting.iter().min_by_key(claim)
        };
        best.map(|(peer, _)| *peer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::peer;

    /// All of `n_peers` ask every 100 ms for so many seconds. How often each was served, and the
    /// most that held a slot at once.
    fn served(
        slots: &mut Slots,
        n_peers: u8,
        seconds: u32,
        gave: impl Fn(&NodeId) -> u64,
    ) -> (Vec<u32>, usize) {
        let start = Timestamp(1);
        let mut times = vec![0; usize::from(n_peers)];
        let mut most = 0;
        for tick in 0..seconds * 10 {
            let now = start + Duration::from_millis(100) * tick;
            for n in 0..n_peers {
                if slots.ask(now, peer(n), &gave) {
                    slots.on_done(now, &peer(n));
                    times[usize::from(n)] += 1;
                }
            }
            most = most.max(slots.held.len());
        }
        (times, most)
    }

    #[test]
    fn few_are_served_at_a_time_and_all_in_turn() {
        let mut slots = Slots::new(3);
        let (times, most) = served(&mut slots, 9, 60, |_| 0);
        assert_eq!(most, 3);
        let (least, most) = (times.iter().min(), times.iter().max());
        assert!(least >= Some(&100) && most <= Some(&350), "of 600 asks each: {times:?}");
    }

    #[test]
    fn who_gave_us_something_is_served_more_and_the_others_too() {
        let mut slots = Slots::new(2);
        let (times, _) = served(&mut slots, 8, 120, |who| u64::from(*who == peer(7)));
        let others = &times[..7];
        assert!(others.iter().all(|n| *n >= 100 && *n < times[7]), "{times:?}");
    }

    #[test]
    fn without_others_everybody_is_served_at_once() {
        let mut slots = Slots::new(4);
        let (times, _) = served(&mut slots, 4, 30, |_| 0);
        assert_eq!(times, [300; 4]);
    }

    #[test]
    fn a_line_has_as_many_slots_as_it_can_feed() {
        assert_eq!(n_slots(None), UNLIMITED);
        assert_eq!(n_slots(Some(100 << 10)), MIN);
        assert_eq!(n_slots(Some(10 << 20)), 10);
        assert_eq!(n_slots(Some(u64::MAX)), UNLIMITED);
    }

    proptest! {
        /// Whoever asks when: never more slots than there are, and the books stay bounded.
        #[test]
        fn slots_are_bounded(asks in prop::collection::vec((0u8..20, 0u64..2000, any::<bool>()), 0..300)) {
            let mut slots = Slots::new(3);
            let mut now = Timestamp(1);
            for (n, later, is_done) in asks {
                now = now + Duration::from_millis(later);
                if slots.ask(now, peer(n), |_| 0) && is_done {
                    slots.on_done(now, &peer(n));
                }
                prop_assert!(slots.held.len() <= 3 && slots.waiting.len() <= 20);
            }
        }
    }
}
