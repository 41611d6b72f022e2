//! An iterative lookup: whom to ask next, and when it is over.
//!
//! Pure. The caller carries questions and answers, in whatever time.
//!
//! # Shape
//!
//! ```text
//! Heard ──ask──► Waiting ──answer──► Answered
//!                   └─────failure──► Failed
//! ```
//!
//! # When it is over
//!
//! - go-libp2p-kad-dht: once the `beta` closest that did not fail have answered; then the rest of
//!   the `k` closest is asked all at once, and whoever it names is not followed.
//! - rust-libp2p 0.57: once the `k` closest that did not fail have answered. While nothing closer
//!   turns up, `k` instead of `alpha` may be asked at once.

use super::key::{Key, NodeId};
use super::scenario::{Options, Rules};
use super::table::Entry;

/// See the module documentation.
#[derive(Clone, Debug)]
pub(super) struct Lookup<'a> {
    options: &'a Options,
    own: Key,
    target: Key,
    /// The closest first.
    heard: Vec<Candidate>,
    waiting: usize,
    /// Answers in a row that named nobody closer.
    no_progress: usize,
    follows_up: bool,
    pub(super) asked: u32,
    pub(super) failed: u32,
}

/// A peer that the lookup knows of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    distance: u64,
    pub(super) key: Key,
    pub(super) node: NodeId,
    pub(super) state: State,
    /// Hops on the way to it: 1 if it was in our own table.
    pub(super) depth: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Heard,
    Waiting,
    Answered,
    Failed,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask this one.
    Ask(Key, NodeId),
    /// Wait for an answer.
    Wait,
    /// It is over.
    Done,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(options: &'a Options, own: Key, target: Key, known: &[Entry]) -> Self {
        let mut lookup = Self {
            options,
            own,
            target,
            heard: Vec::with_capacity(64),
            waiting: 0,
            no_progress: 0,
            follows_up: false,
            asked: 0,
            failed: 0,
        };
        known.iter().for_each(|entry| {
            lookup.insert(entry.key, entry.node, 1);
        });
        lookup
    }

    pub(super) fn next(&mut self) -> Next {
        let next = if self.follows_up { self.next_follow_up() } else { self.next_step() };
        if let Next::Ask(key, _) = next {
            let place = self.place(key).expect("it was found a moment ago");
            self.heard[place].state = State::Waiting;
            self.waiting += 1;
            self.asked += 1;
        }
        next
    }

    /// A peer has named others. False if it was not asked.
    pub(super) fn on_answer(&mut self, key: Key, closer: &[Entry]) -> bool {
        let Some(place) = self.settle(key, State::Answered) else { return false };
        if self.follows_up {
            return true;
        }
        let depth = self.heard[place].depth + 1;
        let limit = self.heard.get(self.options.k - 1).map_or(u64::MAX, |last| last.distance);
        let mut is_progress = self.heard.len() < self.options.k;
        for entry in closer {
            let is_new = self.insert(entry.key, entry.node, depth);
            is_progress |= is_new && entry.key.distance(self.target) < limit;
        }
        self.no_progress = if is_progress { 0 } else { self.no_progress + 1 };
        true
    }

    /// A peer could not be reached or did not answer in time.
    pub(super) fn on_failure(&mut self, key: Key) {
        if self.settle(key, State::Failed).is_some() {
            self.failed += 1;
        }
    }

    /// The `k` closest: by go-libp2p those that were not known to have failed when the lookup
    /// was over, by rust-libp2p those that answered.
    pub(super) fn closest(&self) -> impl Iterator<Item = &Candidate> + '_ {
        let counts = |state| match self.options.rules {
            Rules::Go => state != State::Failed || self.follows_up,
            Rules::Libp2p => state == State::Answered,
        };
        self.heard.iter().filter(move |peer| counts(peer.state)).take(self.options.k)
    }

    /// The longest chain of peers that named each other, of those that answered.
    pub(super) fn depth(&self) -> u32 {
        let answered = self.heard.iter().filter(|peer| peer.state == State::Answered);
        answered.map(|peer| peer.depth).max().unwrap_or(0)
    }

    fn next_step(&mut self) -> Next {
        let is_over = match self.options.rules {
            Rules::Go => self.nearest_have_answered(self.options.beta),
            Rules::Libp2p => self.nearest_have_answered(self.options.k),
        };
        let stalled = self.options.rules == Rules::Libp2p && self.no_progress >= self.options.alpha;
        let parallel = if stalled { self.options.k } else { self.options.alpha };
        let heard = self.heard.iter().find(|peer| peer.state == State::Heard);
        match heard {
            _ if is_over => self.end_of_walk(),
            None if self.waiting == 0 => self.end_of_walk(),
            Some(peer) if self.waiting < parallel => Next::Ask(peer.key, peer.node),
            Some(_) | None => Next::Wait,
        }
    }

    /// Whether the `n` closest that did not fail have answered.
    fn nearest_have_answered(&self, n: usize) -> bool {
        let mut alive = self.heard.iter().filter(|peer| peer.state != State::Failed).take(n);
        let (mut seen, mut all) = (0, true);
        for peer in &mut alive {
            seen += 1;
            all &= peer.state == State::Answered;
        }
        all && seen == n
    }

    fn end_of_walk(&mut self) -> Next {
        match self.options.rules {
            Rules::Libp2p => Next::Done,
            Rules::Go => {
                self.follows_up = true;
                // Who failed on the walk is no candidate any more; who fails from now on is.
                self.heard.retain(|peer| peer.state != State::Failed);
                self.heard.truncate(self.options.k);
                self.waiting = self.heard.iter().filter(|p| p.state == State::Waiting).count();
                self.next_follow_up()
            }
        }
    }

    fn next_follow_up(&self) -> Next {
        let rest = self.heard.iter().find(|peer| peer.state == State::Heard);
        match rest {
            Some(peer) => Next::Ask(peer.key, peer.node),
            None if self.waiting == 0 => Next::Done,
            None => Next::Wait,
        }
    }

    fn place(&self, key: Key) -> Result<usize, usize> {
        let distance = key.distance(self.target);
        self.heard.binary_search_by_key(&distance, |peer| peer.distance)
    }

    fn settle(&mut self, key: Key, state: State) -> Option<usize> {
        let place = self.place(key).ok()?;
        if self.heard[place].state != State::Waiting {
            return None;
        }
        self.heard[place].state = state;
        self.waiting -= 1;
        Some(place)
    }

    /// True if it was not known.
    fn insert(&mut self, key: Key, node: NodeId, depth: u32) -> bool {
        let distance = key.distance(self.target);
        let Err(place) = self.place(key) else { return false };
        if key == self.own {
            return false;
        }
        self.heard.insert(place, Candidate { distance, key, node, state: State::Heard, depth });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key 0 is looked up, so that a key is its own distance.
    const TARGET: Key = Key(0);
    const OWN: Key = Key(u64::MAX);

    fn entry(distance: u64) -> Entry {
        Entry {
            key: Key(distance),
            node: distance as NodeId,
            network: None,
            heard: 0,
            opened: 0,
            is_gone: false,
        }
    }

    fn entries(distances: &[u64]) -> Vec<Entry> {
        distances.iter().copied().map(entry).collect()
    }

    fn options(rules: Rules) -> Options {
        Options { rules, k: 4, alpha: 2, beta: 2, ..Options::default() }
    }

    fn asked(lookup: &mut Lookup<'_>) -> Vec<u64> {
        let mut asked = Vec::new();
        while let Next::Ask(key, _) = lookup.next() {
            asked.push(key.0);
        }
        asked
    }

    fn result(lookup: &Lookup<'_>) -> Vec<u64> {
        lookup.closest().map(|peer| peer.key.0).collect()
    }

    #[test]
    fn the_closest_are_asked_first_and_alpha_at_once() {
        let options = options(Rules::Libp2p);
        let mut lookup = Lookup::new(&options, OWN, TARGET, &entries(&[50, 40, 60, 30]));
        assert_eq!(asked(&mut lookup), [30, 40]);
        assert!(lookup.on_answer(Key(30), &entries(&[5, 40])));
        assert_eq!(asked(&mut lookup), [5]);
        assert!(!lookup.on_answer(Key(60), &[]), "it was not asked");
    }

    #[test]
    fn libp2p_is_done_when_the_k_closest_have_answered() {
        let options = options(Rules::Libp2p);
        let mut lookup = Lookup::new(&options, OWN, TARGET, &entries(&[10, 20, 30, 40, 50]));
        assert_eq!(asked(&mut lookup), [10, 20]);
        lookup.on_answer(Key(10), &[]);
        lookup.on_failure(Key(20));
        assert_eq!(asked(&mut lookup), [30, 40]);
        lookup.on_answer(Key(30), &[]);
        lookup.on_answer(Key(40), &[]);
        assert_eq!(asked(&mut lookup), [50]);
        assert_eq!(lookup.next(), Next::Wait);
        lookup.on_answer(Key(50), &[]);
        assert_eq!(lookup.next(), Next::Done);
        assert_eq!(result(&lookup), [10, 30, 40, 50]);
        assert_eq!((lookup.asked, lookup.failed), (5, 1));
    }

    #[test]
    fn go_is_done_when_beta_have_answered_and_the_rest_was_followed_up() {
        let options = options(Rules::Go);
        let mut lookup = Lookup::new(&options, OWN, TARGET, &entries(&[10, 20, 30, 40, 50]));
        assert_eq!(asked(&mut lookup), [10, 20]);
        lookup.on_answer(Key(10), &[]);
        assert_eq!(asked(&mut lookup), [30]);
        lookup.on_answer(Key(20), &[]);
        // The walk is over; 30 is still waited for, 40 is followed up, 50 is not of the four.
        assert_eq!(asked(&mut lookup), [40]);
        lookup.on_answer(Key(30), &entries(&[5]));
        lookup.on_failure(Key(40));
        assert_eq!(lookup.next(), Next::Done);
        assert_eq!(result(&lookup), [10, 20, 30, 40], "5 was named too late, 40 failed too late");
    }

    #[test]
    fn depth_is_the_longest_chain_of_those_that_answered() {
        let options = options(Rules::Libp2p);
        let mut lookup = Lookup::new(&options, OWN, TARGET, &entries(&[100]));
        for (at, named) in [(100, 50), (50, 20), (20, 10)] {
            assert_eq!(asked(&mut lookup), [at]);
            lookup.on_answer(Key(at), &entries(&[named]));
        }
        assert_eq!(asked(&mut lookup), [10]);
        lookup.on_failure(Key(10));
        assert_eq!((lookup.next(), lookup.depth()), (Next::Done, 3));
    }

    #[test]
    fn nobody_asks_themselves_and_an_empty_table_ends_at_once() {
        let options = options(Rules::Go);
        let mut lookup = Lookup::new(&options, OWN, TARGET, &[entry(u64::MAX)]);
        assert_eq!(lookup.next(), Next::Done);
        assert_eq!(result(&lookup), [] as [u64; 0]);
    }
}
