//! Stories, and a world of random peers that must always come to an end.

use dockercomp_protocol::content::{block_cid, chunk_cid};
use dockercomp_protocol::wire::chunk::Miss;
use proptest::prelude::*;

use super::*;
use crate::testing::peer;

fn block(n: u32) -> Cid {
    chunk_cid(&n.to_le_bytes())
}

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1000)
}

fn options() -> Options {
    Options {
        per_peer: 2,
        total: 8,
        silence_max: Duration::from_secs(30),
        busy_pause: Duration::from_secs(1),
        seed: 7,
    }
}

/// A scheduler that wants blocks `0..n_blocks` from peers `0..n_peers`.
fn scheduler(n_blocks: u32, n_peers: u8, options: Options) -> Scheduler {
    let mut scheduler = Scheduler::new(options);
    for n in 0..n_blocks {
        scheduler.want(block(n));
    }
    for n in 0..n_peers {
        assert!(scheduler.add_peer(peer(n)));
    }
    scheduler
}

fn asks(scheduler: &mut Scheduler, now: Timestamp) -> Vec<Ask> {
    std::iter::from_fn(|| scheduler.next_ask(now)).collect()
}

fn store(scheduler: &mut Scheduler, now: Timestamp, ask: Ask) {
    assert!(scheduler.on_received(now, ask.peer, ask.block));
    scheduler.on_block(ask.peer, ask.block);
}

#[test]
fn requests_are_limited_for_each_peer_and_spread_evenly() {
    let mut scheduler = scheduler(20, 3, options());
    let first = asks(&mut scheduler, at(0));
    for n in 0..3 {
        assert_eq!(first.iter().filter(|ask| ask.peer == peer(n)).count(), 2);
    }
    store(&mut scheduler, at(1), first[0]);
    let next = asks(&mut scheduler, at(1));
    assert_eq!(next.iter().map(|ask| ask.peer).collect::<Vec<_>>(), [first[0].peer]);
    assert!(first.iter().all(|ask| ask.block != next[0].block), "asked for twice");
}

#[test]
fn the_manifest_comes_first_and_in_order() {
    let mut scheduler = scheduler(20, 1, options());
    let pages = [3, 1, 2].map(|n: u8| block_cid(&[n]));
    for page in pages {
        scheduler.want(page);
    }
    for page in pages {
        let ask = scheduler.next_ask(at(0)).expect("a free peer");
        assert_eq!(ask.block, page);
        store(&mut scheduler, at(0), ask);
    }
}

#[test]
fn different_seeds_ask_for_different_blocks_first() {
    let first = |seed| {
        let mut scheduler = scheduler(64, 1, Options { seed, ..options() });
        scheduler.next_ask(at(0)).expect("a free peer").block
    };
    let chosen: BTreeSet<Cid> = (0..64).map(first).collect();
    assert!(chosen.len() >= 32, "only {} of 64 blocks were chosen", chosen.len());
}

/// A map for the newest list.
fn tell(scheduler: &mut Scheduler, list: &List, n: u8, has: impl Fn(&Cid) -> bool) {
    let held: Vec<Cid> = list.blocks.iter().filter(|block| has(block)).copied().collect();
    scheduler.on_map(peer(n), list, &held);
}

#[test]
fn the_rarest_block_is_asked_for_first_and_of_who_has_it() {
    let mut scheduler = scheduler(12, 4, Options { per_peer: 1, ..options() });
    let list = scheduler.new_list().expect("blocks that no list has named");
    assert_eq!(list.blocks.len(), 12);
    assert_eq!(scheduler.new_list(), None);
    scheduler.on_holds_all(peer(0));
    // Block 3 is with one part holder, block 4 with two, and all others with three.
    tell(&mut scheduler, &list, 1, |block| *block != self::block(5));
    tell(&mut scheduler, &list, 2, |block| ![3, 5].map(self::block).contains(block));
    tell(&mut scheduler, &list, 3, |block| ![3, 4, 5].map(self::block).contains(block));
    let asked = asks(&mut scheduler, at(0));
    let expected = [(5, 0), (3, 1), (4, 2)].map(|(n, of)| Ask { peer: peer(of), block: block(n) });
    assert_eq!(asked[..3], expected);
    assert_eq!(asked[3].peer, peer(3));
}

#[test]
fn who_says_that_it_lacks_a_block_is_asked_when_it_has_it() {
    let mut scheduler = scheduler(2, 1, options());
    let list = scheduler.new_list().expect("new blocks");
    tell(&mut scheduler, &list, 0, |_| false);
    assert_eq!(asks(&mut scheduler, at(0)), []);
    assert_eq!(scheduler.n_stuck(), 2);
    scheduler.on_have(peer(0), &[block(1)]);
    assert_eq!(asks(&mut scheduler, at(0)), [Ask { peer: peer(0), block: block(1) }]);
    // What is wanted later waits for its answer, and is not given up.
    scheduler.want(block(7));
    let list = scheduler.new_list().expect("a new block");
    assert!(!scheduler.is_stuck(&block(7)));
    assert_eq!(asks(&mut scheduler, at(0)), []);
    tell(&mut scheduler, &list, 0, |block| *block == self::block(7));
    assert_eq!(asks(&mut scheduler, at(0)), [Ask { peer: peer(0), block: block(7) }]);
    // Who says nothing any more is asked for anything.
    scheduler.on_quiet(peer(0));
    assert_eq!(scheduler.n_stuck(), 0);
}

/// A list that was on its way when the peer said that it has everything is answered too.
#[test]
fn who_has_everything_has_what_is_wanted_later() {
    let mut scheduler = scheduler(2, 1, options());
    let list = scheduler.new_list().expect("new blocks");
    scheduler.on_holds_all(peer(0));
    tell(&mut scheduler, &list, 0, |_| true);
    scheduler.retain(|_| false);
    scheduler.want(block(7));
    assert!(scheduler.new_list().is_some());
    assert_eq!(asks(&mut scheduler, at(0)), [Ask { peer: peer(0), block: block(7) }]);
}

#[test]
fn a_window_grows_while_answers_come_at_once_and_shrinks_while_they_queue() {
    let mut scheduler = scheduler(100, 1, Options { per_peer: 16, total: 64, ..options() });
    let mut open = asks(&mut scheduler, at(0));
    assert_eq!(open.len(), 2);
    for _ in 0..20 {
        store(&mut scheduler, at(0), open.remove(0));
        open.extend(asks(&mut scheduler, at(0)));
    }
    assert_eq!(open.len(), 16);
    for seconds in (2..40).step_by(2) {
        store(&mut scheduler, at(seconds), open.remove(0));
        open.extend(asks(&mut scheduler, at(seconds)));
    }
    assert_eq!(open.len(), 1);
}

#[test]
fn at_the_end_a_late_block_is_asked_of_a_second_peer_and_one_answer_counts() {
    let mut scheduler = scheduler(1, 2, options());
    let slow = scheduler.next_ask(at(0)).expect("a free peer");
    assert_eq!(scheduler.next_ask(at(0)), None);
    assert_eq!(scheduler.next_deadline(at(0)), Some(at(1)));
    let quick = scheduler.next_ask(at(1)).expect("the block is late");
    assert_eq!(quick.block, slow.block);
    assert_ne!(quick.peer, slow.peer);
    assert_eq!(scheduler.next_ask(at(20)), None, "there is no third");
    assert!(scheduler.on_received(at(2), quick.peer, quick.block));
    assert_eq!(scheduler.next_stop(), Some(slow));
    assert_eq!(scheduler.next_stop(), None);
    assert!(!scheduler.on_received(at(2), slow.peer, slow.block), "it was here already");
    scheduler.on_block(quick.peer, quick.block);
    assert_eq!(scheduler.n_blocks(), 0);
    assert_eq!(scheduler.next_deadline(at(2)), None);
}

/// Providers may be silent, and without the manifest nothing goes on; a chunk costs too much to
/// ask everybody for it.
#[test]
fn a_late_manifest_is_asked_of_one_peer_more_each_second() {
    for (block, most) in [(block_cid(b"manifest"), 6), (block(0), CHUNK_ASKED_MAX)] {
        let mut scheduler = scheduler(0, 6, options());
        scheduler.want(block);
        let asked: Vec<Ask> =
            (0..20).filter_map(|seconds| scheduler.next_ask(at(seconds))).collect();
        let peers: BTreeSet<NodeId> = asked.iter().map(|ask| ask.peer).collect();
        assert_eq!((asked.len(), peers.len()), (most, most), "each peer once");
        let last = asked[most - 1];
        assert!(scheduler.on_received(at(20), last.peer, block));
        let stops = std::iter::from_fn(|| scheduler.next_stop()).count();
        assert_eq!(stops, most - 1, "all others are told");
        scheduler.on_block(last.peer, block);
        // Nobody owes anything any more.
        assert_eq!((scheduler.n_blocks(), scheduler.next_deadline(at(20))), (0, None));
    }
}

#[test]
fn a_second_peer_that_fails_leaves_the_first_alone() {
    let mut scheduler = scheduler(1, 2, options());
    let slow = scheduler.next_ask(at(0)).expect("a free peer");
    let other = scheduler.next_ask(at(1)).expect("the block is late");
    scheduler.on_miss(at(2), other.peer, other.block, Miss::NotFound);
    assert!(scheduler.is_asked(slow.peer, &slow.block));
    assert_eq!(scheduler.next_ask(at(9)), None);
    scheduler.on_peer_gone(slow.peer);
    assert_eq!(scheduler.n_stuck(), 1);
}

#[test]
fn who_breaks_its_word_too_often_is_dropped() {
    let mut scheduler = scheduler(99, 1, options());
    scheduler.on_holds_all(peer(0));
    let n_asked = (0..).find(|_| {
        let ask = scheduler.next_ask(at(0)).expect("it said that it has everything");
        scheduler.on_miss(at(0), ask.peer, ask.block, Miss::NotFound)
    });
    assert_eq!(n_asked, Some(BROKEN_MAX));
    assert!(!scheduler.add_peer(peer(0)), "it came back");
}

#[test]
fn blocks_in_memory_count_until_they_are_stored() {
    let mut scheduler = scheduler(20, 2, Options { per_peer: 16, total: 3, ..options() });
    let first = asks(&mut scheduler, at(0));
    assert_eq!(first.len(), 3);
    assert!(scheduler.on_received(at(0), first[0].peer, first[0].block));
    assert_eq!(asks(&mut scheduler, at(0)), []);
    scheduler.on_block(first[0].peer, first[0].block);
    assert_eq!(asks(&mut scheduler, at(0)).len(), 1);
}

#[test]
fn the_faster_of_two_idle_peers_is_asked_first() {
    let mut scheduler = scheduler(4, 2, options());
    let [a, b] = [(); 2].map(|()| scheduler.next_ask(at(0)).expect("two free peers"));
    assert_ne!(a.peer, b.peer);
    store(&mut scheduler, at(9), a);
    store(&mut scheduler, at(2), b);
    assert_eq!(scheduler.next_ask(at(9)).map(|ask| ask.peer), Some(b.peer));
}

#[test]
fn different_seeds_ask_different_peers_first() {
    let first = |seed| scheduler(1, 8, Options { seed, ..options() }).next_ask(at(0));
    assert_eq!(first(3), first(3));
    let chosen: BTreeSet<NodeId> = (0..64).filter_map(first).map(|ask| ask.peer).collect();
    assert!(chosen.len() >= 6, "only {} of 8 peers were chosen", chosen.len());
}

#[test]
fn a_liar_is_dropped_and_its_blocks_go_elsewhere() {
    let mut scheduler = scheduler(4, 2, options());
    let first = asks(&mut scheduler, at(0));
    let (lie, honest): (Vec<Ask>, Vec<Ask>) =
        first.iter().partition(|ask| ask.peer == first[0].peer);
    assert!(scheduler.on_received(at(1), lie[0].peer, lie[0].block));
    scheduler.on_wrong_bytes(lie[0].peer, lie[0].block);
    assert!(!scheduler.add_peer(lie[0].peer), "a liar came back");
    assert!(!scheduler.on_received(at(1), lie[1].peer, lie[1].block), "a late answer counted");

    for ask in honest {
        store(&mut scheduler, at(1), ask);
    }
    let again = asks(&mut scheduler, at(1));
    let blocks: BTreeSet<Cid> = again.iter().map(|ask| ask.block).collect();
    assert_eq!(blocks, lie.iter().map(|ask| ask.block).collect());
    assert!(again.iter().all(|ask| ask.peer != lie[0].peer));
}

#[test]
fn a_block_that_all_lack_is_stuck_until_somebody_comes() {
    let mut scheduler = scheduler(1, 2, options());
    for _ in 0..2 {
        let ask = scheduler.next_ask(at(0)).expect("somebody to ask");
        assert_eq!(scheduler.stuck(), None);
        scheduler.on_miss(at(0), ask.peer, ask.block, Miss::NotFound);
    }
    let tried = scheduler.peers();
    assert_eq!(tried.len(), 2);
    assert_eq!(scheduler.stuck(), Some(Stuck { block: block(0), tried }));
    assert_eq!(scheduler.next_ask(at(0)), None);

    scheduler.add_peer(peer(9));
    assert_eq!(scheduler.next_ask(at(0)), Some(Ask { peer: peer(9), block: block(0) }));
}

#[test]
fn without_peers_everything_is_stuck() {
    let mut scheduler = scheduler(2, 0, options());
    assert_eq!(scheduler.stuck().map(|stuck| stuck.tried), Some(vec![]));
    scheduler.add_peer(peer(0));
    assert_eq!(scheduler.stuck(), None);
    scheduler.on_peer_gone(peer(0));
    assert!(scheduler.stuck().is_some());
    scheduler.revive();
    assert_eq!(asks(&mut scheduler, at(0)).len(), 2);
}

#[test]
fn a_busy_peer_is_asked_again_later() {
    let mut scheduler = scheduler(1, 1, options());
    let ask = scheduler.next_ask(at(5)).expect("somebody to ask");
    scheduler.on_miss(at(5), ask.peer, ask.block, Miss::Busy);
    assert_eq!(scheduler.stuck(), None);
    assert_eq!(scheduler.next_ask(at(5)), None);
    assert_eq!(scheduler.next_deadline(at(5)), Some(at(6)));
    assert_eq!(scheduler.next_ask(at(6)), Some(ask));
}

#[test]
fn a_silent_peer_loses_its_blocks_and_its_late_answers_count_for_nothing() {
    let mut scheduler = scheduler(1, 1, options());
    let slow = scheduler.next_ask(at(0)).expect("somebody to ask");
    assert_eq!(scheduler.next_deadline(at(0)), Some(at(30)));
    assert_eq!(scheduler.on_timeout(at(29)), []);
    assert_eq!(scheduler.on_timeout(at(30)), [slow.peer]);
    scheduler.add_peer(peer(1));

    let other = scheduler.next_ask(at(30)).expect("the other peer");
    assert_eq!(other.block, slow.block);
    assert_ne!(other.peer, slow.peer);
    assert!(!scheduler.on_received(at(31), slow.peer, slow.block));
    store(&mut scheduler, at(31), other);
    assert_eq!(scheduler.next_deadline(at(31)), None);
}

#[test]
fn a_peer_that_answers_now_and_then_is_not_silent() {
    let mut scheduler = scheduler(3, 1, Options { per_peer: 3, ..options() });
    let first = asks(&mut scheduler, at(0));
    store(&mut scheduler, at(20), first[0]);
    assert_eq!(scheduler.on_timeout(at(40)), []);
    assert_eq!(scheduler.next_deadline(at(40)), Some(at(50)));
}

#[test]
fn what_nobody_wants_any_more_is_not_asked_for() {
    let mut scheduler = scheduler(4, 1, options());
    let first = asks(&mut scheduler, at(0));
    assert_eq!(first.len(), 2);
    let is_waiting = |n: &u32| first.iter().all(|ask| ask.block != block(*n));
    let kept = (0..4).find(is_waiting).map(block).expect("two wait");
    scheduler.retain(|cid| *cid == kept);
    store(&mut scheduler, at(0), first[0]);
    store(&mut scheduler, at(0), first[1]);
    assert_eq!(asks(&mut scheduler, at(0)), [Ask { peer: peer(0), block: kept }]);
}

/// How a peer of the random world treats a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Nature {
    Honest,
    Liar,
    /// Has every third block.
    Partial,
    /// Has every third block, and says so.
    Tells,
    /// Says that it has everything, and has nothing.
    Boasts,
    /// Leaves with the first request, each time it is asked.
    Leaves,
    Silent,
    /// Is busy two times of three, honest otherwise.
    Busy,
}

fn natures() -> impl Strategy<Value = Vec<Nature>> {
    let nature = prop_oneof![
        Just(Nature::Honest),
        Just(Nature::Liar),
        Just(Nature::Partial),
        Just(Nature::Tells),
        Just(Nature::Boasts),
        Just(Nature::Leaves),
        Just(Nature::Silent),
        Just(Nature::Busy),
    ];
    prop::collection::vec(nature, 0..6)
}

fn has(nature: Nature, n: u32) -> bool {
    match nature {
        Nature::Honest | Nature::Busy => true,
        Nature::Partial | Nature::Tells => n.is_multiple_of(3),
        Nature::Liar | Nature::Boasts | Nature::Leaves | Nature::Silent => false,
    }
}

/// The world's own books, kept without looking into the scheduler.
#[derive(Default)]
struct World {
    open: BTreeSet<(Cid, NodeId)>,
    caught: BTreeSet<NodeId>,
    stored: BTreeSet<Cid>,
    n_answers: usize,
    n_asked: BTreeMap<NodeId, usize>,
}

impl World {
    fn on_ask(&mut self, ask: Ask, n_blocks: usize, options: &Options) {
        assert!(!self.caught.contains(&ask.peer), "a liar was asked again");
        assert!(!self.stored.contains(&ask.block), "a stored block was asked for");
        let n_before = self.open.iter().filter(|(block, _)| *block == ask.block).count();
        let n_missing = n_blocks - self.stored.len();
        assert!(n_before == 0 || n_missing <= END_GAME_MAX, "asked for twice before the end");
        let most = if ask.block.codec() == RAW { CHUNK_ASKED_MAX } else { PEERS_MAX };
        assert!(n_before < most, "a chunk was asked of three");
        assert!(self.open.insert((ask.block, ask.peer)), "a peer was asked twice");
        *self.n_asked.entry(ask.peer).or_default() += 1;
        let n_peer = self.open.iter().filter(|(_, peer)| *peer == ask.peer).count();
        let blocks: BTreeSet<&Cid> = self.open.iter().map(|(block, _)| block).collect();
        assert!(n_peer <= options.per_peer && blocks.len() <= options.total);
    }
}

proptest! {
    /// Whatever peers do and say, every block ends stored or stuck, and stored if an honest
    /// peer has it.
    #[test]
    fn every_block_ends_stored_or_stuck(
        natures in natures(),
        n_chunks in 0u32..60,
        n_pages in 0u32..4,
        seed: u64,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..50),
    ) {
        let options = Options { seed, total: 5, ..options() };
        let n_peers = u8::try_from(natures.len()).expect("a few");
        let mut scheduler = scheduler(n_chunks, n_peers, options.clone());
        // Blocks of the manifest have the numbers after those of the chunks.
        let n_blocks = n_chunks + n_pages;
        let block = |n: u32| if n < n_chunks { block(n) } else { block_cid(&n.to_le_bytes()) };
        (n_chunks..n_blocks).for_each(|n| scheduler.want(block(n)));
        let nature = |id: NodeId| {
            let index = (0..n_peers).position(|n| peer(n) == id);
            natures[index.expect("one that was added")]
        };
        let number = |cid: Cid| {
            (0..n_blocks).find(|n| block(*n) == cid).expect("one that was wanted")
        };
        let mut world = World::default();
        let mut now = at(0);
        let mut picks = picks.iter().cycle();
        if let Some(list) = scheduler.new_list() {
            for n in 0..n_peers {
                let nature = natures[usize::from(n)];
                if let Nature::Tells | Nature::Boasts = nature {
                    let claims = |cid: &Cid| nature == Nature::Boasts || has(nature, number(*cid));
                    tell(&mut scheduler, &list, n, claims);
                }
            }
        }

        for step in 0.. {
            prop_assert!(step < 5000, "no end");
            // A shell wakes when a deadline comes, also one between two answers.
            let silent = scheduler.on_timeout(now);
            world.open.retain(|(_, peer)| !silent.contains(peer));
            for ask in asks(&mut scheduler, now) {
                world.on_ask(ask, n_blocks as usize, &options);
            }
            // The next thing that happens is any open request of a peer that does something.
            let answers: Vec<(Cid, NodeId)> =
                world.open.iter().filter(|(_, peer)| nature(*peer) != Nature::Silent).copied().collect();
            if answers.is_empty() {
                let Some(deadline) = scheduler.next_deadline(now) else { break };
                prop_assert!(deadline > now, "a deadline that has passed");
                now = deadline;
                continue;
            }
            now = now + Duration::from_millis(3);
            let pick = picks.next().expect("a cycle has no end");
            let (cid, id) = *pick.get(&answers);
            match nature(id) {
                Nature::Leaves => {
                    world.open.retain(|(_, peer)| *peer != id);
                    scheduler.on_peer_gone(id);
                }
                Nature::Liar => {
                    world.open.retain(|(_, peer)| *peer != id);
                    world.caught.insert(id);
                    prop_assert!(scheduler.on_received(now, id, cid));
                    while let Some(stop) = scheduler.next_stop() {
                        prop_assert!(world.open.remove(&(stop.block, stop.peer)));
                    }
                    scheduler.on_wrong_bytes(id, cid);
                }
                found if has(found, number(cid)) => {
                    world.open.remove(&(cid, id));
                    world.n_answers += 1;
                    if found == Nature::Busy && !world.n_answers.is_multiple_of(3) {
                        scheduler.on_miss(now, id, cid, Miss::Busy);
                    } else {
                        prop_assert!(scheduler.on_received(now, id, cid));
                        while let Some(stop) = scheduler.next_stop() {
                            prop_assert!(world.open.remove(&(stop.block, stop.peer)));
                        }
                        scheduler.on_block(id, cid);
                        world.stored.insert(cid);
                    }
                }
                found => {
                    world.open.remove(&(cid, id));
                    if scheduler.on_miss(now, id, cid, Miss::NotFound) {
                        prop_assert_eq!(found, Nature::Boasts, "blamed without reason");
                        world.open.retain(|(_, peer)| *peer != id);
                        world.caught.insert(id);
                    }
                }
            }
            prop_assert!(world.open.iter().all(|(cid, id)| scheduler.is_asked(*id, cid)));
        }

        for n in 0..n_blocks {
            let available = natures.iter().any(|nature| has(*nature, n));
            prop_assert_eq!(world.stored.contains(&block(n)), available, "block {}", n);
        }
        prop_assert_eq!(scheduler.stuck().is_some(), world.stored.len() < n_blocks as usize);
        for (id, n_asked) in world.n_asked {
            let bound = BROKEN_MAX + options.per_peer;
            prop_assert!(nature(id) != Nature::Boasts || n_asked <= bound, "{} lies", n_asked);
        }
    }
}
