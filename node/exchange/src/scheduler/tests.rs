//! Stories, and a world of random peers that must always come to an end.

use dockercomp_protocol::content::chunk_cid;
use dockercomp_protocol::wire::chunk::Miss;
use proptest::prelude::*;

use super::*;

/// A peer id that differs by `n` only.
fn peer(n: u8) -> NodeId {
    let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    bytes.extend([n; 32]);
    NodeId::from_bytes(&bytes).expect("an inlined ed25519 key")
}

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
    let blocks: Vec<Cid> = first.iter().map(|ask| ask.block).collect();
    assert_eq!(blocks, (0..6).map(block).collect::<Vec<_>>(), "blocks leave in order");

    store(&mut scheduler, at(1), first[0]);
    let next = asks(&mut scheduler, at(1));
    assert_eq!(next, [Ask { peer: first[0].peer, block: block(6) }]);
}

#[test]
fn blocks_in_memory_count_until_they_are_stored() {
    let mut scheduler = scheduler(20, 1, Options { per_peer: 16, total: 3, ..options() });
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
    assert_eq!(scheduler.stuck(), Some(Stuck { block: block(0), tried: vec![] }));
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
    let mut scheduler = scheduler(1, 2, options());
    let slow = scheduler.next_ask(at(0)).expect("somebody to ask");
    assert_eq!(scheduler.next_deadline(at(0)), Some(at(30)));
    assert_eq!(scheduler.on_timeout(at(29)), []);
    assert_eq!(scheduler.on_timeout(at(30)), [slow.peer]);

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
    assert_eq!(asks(&mut scheduler, at(0)).len(), 2);
    scheduler.retain(|cid| *cid == block(3));
    store(&mut scheduler, at(0), Ask { peer: peer(0), block: block(0) });
    assert_eq!(asks(&mut scheduler, at(0)), [Ask { peer: peer(0), block: block(3) }]);
}

/// How a peer of the random world treats a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Nature {
    Honest,
    Liar,
    /// Has every third block.
    Partial,
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
        Just(Nature::Leaves),
        Just(Nature::Silent),
        Just(Nature::Busy),
    ];
    prop::collection::vec(nature, 0..6)
}

fn has(nature: Nature, n: u32) -> bool {
    match nature {
        Nature::Honest | Nature::Busy => true,
        Nature::Partial => n.is_multiple_of(3),
        Nature::Liar | Nature::Leaves | Nature::Silent => false,
    }
}

/// The world's own books, kept without looking into the scheduler.
#[derive(Default)]
struct World {
    open: BTreeMap<Cid, NodeId>,
    caught: BTreeSet<NodeId>,
    stored: BTreeSet<Cid>,
    n_answers: usize,
}

impl World {
    fn on_ask(&mut self, ask: Ask, options: &Options) {
        assert!(!self.caught.contains(&ask.peer), "a liar was asked again");
        assert!(!self.stored.contains(&ask.block), "a stored block was asked for");
        let before = self.open.insert(ask.block, ask.peer);
        assert_eq!(before, None, "a block was asked for twice at once");
        let n_peer = self.open.values().filter(|peer| **peer == ask.peer).count();
        assert!(n_peer <= options.per_peer && self.open.len() <= options.total);
    }
}

proptest! {
    /// Whatever peers do, every block ends stored or stuck, and stored if an honest peer has it.
    #[test]
    fn every_block_ends_stored_or_stuck(
        natures in natures(),
        n_blocks in 0u32..40,
        seed: u64,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..50),
    ) {
        let options = Options { seed, total: 5, ..options() };
        let n_peers = u8::try_from(natures.len()).expect("a few");
        let mut scheduler = scheduler(n_blocks, n_peers, options.clone());
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

        for step in 0.. {
            prop_assert!(step < 5000, "no end");
            for ask in asks(&mut scheduler, now) {
                world.on_ask(ask, &options);
            }
            // The next thing that happens is any open request of a peer that does something.
            let answers: Vec<(Cid, NodeId)> = world.open.iter()
                .map(|(block, peer)| (*block, *peer))
                .filter(|(_, peer)| nature(*peer) != Nature::Silent)
                .collect();
            if answers.is_empty() {
                let Some(deadline) = scheduler.next_deadline(now) else { break };
                now = deadline;
                let silent = scheduler.on_timeout(now);
                world.open.retain(|_, peer| !silent.contains(peer));
                continue;
            }
            now = now + Duration::from_millis(3);
            let pick = picks.next().expect("a cycle has no end");
            let (cid, id) = *pick.get(&answers);
            match nature(id) {
                Nature::Honest | Nature::Partial | Nature::Busy if has(nature(id), number(cid)) => {
                    world.open.remove(&cid);
                    world.n_answers += 1;
                    if nature(id) == Nature::Busy && !world.n_answers.is_multiple_of(3) {
                        scheduler.on_miss(now, id, cid, Miss::Busy);
                    } else {
                        prop_assert!(scheduler.on_received(now, id, cid));
                        scheduler.on_block(id, cid);
                        world.stored.insert(cid);
                    }
                }
                Nature::Honest | Nature::Partial | Nature::Busy => {
                    world.open.remove(&cid);
                    scheduler.on_miss(now, id, cid, Miss::NotFound);
                }
                Nature::Liar => {
                    world.open.retain(|_, peer| *peer != id);
                    world.caught.insert(id);
                    prop_assert!(scheduler.on_received(now, id, cid));
                    scheduler.on_wrong_bytes(id, cid);
                }
                Nature::Leaves => {
                    world.open.retain(|_, peer| *peer != id);
                    scheduler.on_peer_gone(id);
                }
                Nature::Silent => unreachable!("it never answers"),
            }
        }

        for n in 0..n_blocks {
            let available = natures.iter().any(|nature| has(*nature, n));
            prop_assert_eq!(world.stored.contains(&block(n)), available, "block {}", n);
        }
        prop_assert_eq!(scheduler.stuck().is_some(), world.stored.len() < n_blocks as usize);
    }
}
