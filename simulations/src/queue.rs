//! The event queue: what happens next, and nothing twice at once.
//!
//! Ordered by time, then by the order in which things were scheduled, so that two events at
//! one moment have one order and every run takes the same way.
//!
//! # Bounds
//!
//! As many entries as things are under way: each host has one timer, one question and one
//! entry a task; messages add those on their way.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::moment::Moment;

/// Events by time. See the module documentation.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    scheduled: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Moment,
    sequence: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), scheduled: 0 }
    }

    pub(crate) fn push(&mut self, at: Moment, event: E) {
        let sequence = self.scheduled;
        self.scheduled += 1;
        self.heap.push(Entry { at, sequence, event });
    }

    /// When the next event happens.
    pub(crate) fn next_at(&self) -> Option<Moment> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// The next event, when it happens, and its number.
    pub(crate) fn pop(&mut self) -> Option<(Moment, u64, E)> {
        self.heap.pop().map(|entry| (entry.at, entry.sequence, entry.event))
    }
}

impl<E> Ord for Entry<E> {
    /// Reversed: the heap gives the greatest, and the earliest is wanted.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_comes_first_and_ties_keep_their_order() {
        let mut queue = Queue::new();
        for (at, name) in [(5, "c"), (1, "a"), (5, "d"), (3, "b"), (5, "e")] {
            queue.push(Moment(at), name);
        }
        let order: Vec<&str> =
            std::iter::from_fn(|| queue.pop().map(|(_, _, name)| name)).collect();
        assert_eq!(order, ["a", "b", "c", "d", "e"]);
    }
}
