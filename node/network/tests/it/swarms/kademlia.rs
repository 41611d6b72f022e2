//! Kademlia: how full buckets are, who knows the closest to them, and what a lookup costs.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use dockercomp_network::{Keypair, Options as Network, PeerId, Role, protocols};
use dockercomp_simulations::overlay::{
    Latency, Report,
    kademlia::{Lookups, Options, Rules, Scenario, run},
};
use libp2p::{
    Swarm, identify,
    kad::{self, GetClosestPeersOk, KBucketKey, QueryResult},
    swarm::NetworkBehaviour,
};

use super::{Comparison, crowd::Crowd, number, resident_mb, wait_until};

/// Peers in a bucket and in a result: libp2p's default, which is ours.
const K: usize = 20;

/// Members that everybody dials.
const BOOTSTRAP: usize = 3;

#[derive(NetworkBehaviour)]
struct Node {
    identify: identify::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
}

/// What one lookup gave.
struct Lookup {
    by: PeerId,
    key: PeerId,
    result: Vec<PeerId>,
    asked: u32,
}

/// After so many refreshes a crowd is taken as it is.
const REFRESHES_MAX: usize = 10;

type Found = Arc<Mutex<Vec<Lookup>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_crowd_knows_each_other_as_in_the_model() {
    let (swarms, lookups) = (24, 20);
    let real = vec![measure(swarms, lookups).await];
    for comparison in Comparison::all(&real, &model(swarms, lookups, 10)) {
        comparison.print();
        comparison.assert_within(0.15);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and gigabytes: make swarms"]
async fn a_large_crowd_knows_each_other_as_in_the_model() {
    let (swarms, lookups) = (number("DOCKERCOMP_SWARMS", 100), 200);
    let mut real = Vec::new();
    for _ in 0..number("DOCKERCOMP_CROWDS", 3) {
        real.push(measure(swarms, lookups).await);
    }
    println!("\nKademlia, {swarms} swarms, {lookups} lookups");
    let comparisons = Comparison::all(&real, &model(swarms, lookups, 10));
    comparisons.iter().for_each(Comparison::print);
    comparisons.iter().for_each(|comparison| comparison.assert_within(0.15));
}

fn make(key: &Keypair) -> Node {
    let identify = identify::Config::new("/dockercomp/1".to_owned(), key.public());
    Node {
        identify: identify::Behaviour::new(identify.with_cache_size(0)),
        kad: protocols::kademlia(&Network::new(key.clone(), Role::Server)),
    }
}

/// What one crowd gave, by the model's names.
async fn measure(swarms: usize, lookups: usize) -> Vec<(String, f64)> {
    let begun = Instant::now();
    let found = Found::default();
    let crowd = {
        let found = Arc::clone(&found);
        Crowd::start(swarms, make, move |_, swarm, event| on_event(&found, swarm, event)).await
    };
    for member in 1..swarms {
        (0..BOOTSTRAP.min(member)).for_each(|known| crowd.dial(member, known));
    }
    crowd.wait_for("a server", |swarm| !entries(swarm).is_empty()).await;
    // libp2p refreshes as peers come in; again when everybody is there, as in the model. On a busy
    // machine queries run out of time, so until nobody learns of anybody.
    let mut known = 0;
    for _ in 0..REFRESHES_MAX {
        crowd.ask_all(|swarm| swarm.behaviour_mut().kad.bootstrap().is_ok()).await;
        crowd.wait_for("rest", |swarm| swarm.behaviour().kad.iter_queries().count() == 0).await;
        let now = crowd.ask_all(|swarm| entries(swarm).len()).await.into_iter().sum();
        if std::mem::replace(&mut known, now) == now {
            break;
        }
    }
    println!("{swarms} swarms joined after {:.1?}", begun.elapsed());
    let tables = crowd.ask_all(entries).await;
    look_up(&crowd, lookups, &found).await;
    println!("all looked up after {:.1?}, {:.0} MB resident", begun.elapsed(), resident_mb());
    let peers: Vec<PeerId> = crowd.members.iter().map(|member| member.peer).collect();
    let mut metrics = of_tables(&peers, &tables);
    metrics.extend(of_lookups(&peers, &found));
    metrics
}

fn on_event(found: &Found, swarm: &mut Swarm<Node>, event: NodeEvent) {
    match event {
        NodeEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
            for address in info.listen_addrs {
                swarm.behaviour_mut().kad.add_address(&peer_id, address);
            }
        }
        NodeEvent::Kad(kad::Event::OutboundQueryProgressed {
            result: QueryResult::GetClosestPeers(result),
            stats,
            ..
        }) => {
            let GetClosestPeersOk { key, peers } = result.expect("nobody is slow");
            let key = PeerId::from_bytes(&key).expect("we look for peers");
            let result = peers.into_iter().map(|peer| peer.peer_id).collect();
            let (by, asked) = (*swarm.local_peer_id(), stats.num_requests());
            found.lock().expect("nobody panics with it").push(Lookup { by, key, result, asked });
        }
        NodeEvent::Identify(_) | NodeEvent::Kad(_) => {}
    }
}

/// Each member looks for peers that do not exist, a few in turn.
async fn look_up(crowd: &Crowd<Node>, lookups: usize, found: &Found) {
    for lookup in 0..lookups {
        crowd.tell(lookup % crowd.members.len(), |swarm| {
            swarm.behaviour_mut().kad.get_closest_peers(PeerId::random());
        });
    }
    let count = || found.lock().expect("nobody panics with it").len();
    wait_until("all lookups", || count() == lookups).await;
}

fn entries(swarm: &mut Swarm<Node>) -> Vec<PeerId> {
    let buckets = swarm.behaviour_mut().kad.kbuckets();
    let peers = buckets.flat_map(|bucket| {
        bucket.iter().map(|entry| *entry.node.key.preimage()).collect::<Vec<_>>()
    });
    peers.collect()
}

/// The leading bits that two keys share.
fn bucket(one: PeerId, other: PeerId) -> Option<usize> {
    let distance = KBucketKey::from(one).distance(&KBucketKey::from(other));
    distance.ilog2().map(|log| 255 - log as usize)
}

/// Of all peers but one, the closest to a key.
fn closest(peers: &[PeerId], to: PeerId, but: PeerId, n: usize) -> Vec<PeerId> {
    let target = KBucketKey::from(to);
    let mut all: Vec<PeerId> = peers.iter().copied().filter(|peer| *peer != but).collect();
    all.sort_unstable_by_key(|peer| KBucketKey::from(*peer).distance(&target));
    all.truncate(n);
    all
}

fn of_tables(peers: &[PeerId], tables: &[Vec<PeerId>]) -> Vec<(String, f64)> {
    let n = peers.len() as f64;
    let mut counts = [0usize; 6];
    let mut know_all = 0usize;
    for (peer, table) in peers.iter().zip(tables) {
        for other in table {
            if let Some(count) = counts.get_mut(bucket(*peer, *other).expect("another")) {
                *count += 1;
            }
        }
        let table: BTreeSet<&PeerId> = table.iter().collect();
        let near = closest(peers, *peer, *peer, K);
        know_all += usize::from(near.iter().all(|near| table.contains(near)));
    }
    let mut metrics: Vec<(String, f64)> = counts
        .iter()
        .enumerate()
        .map(|(bucket, count)| (format!("bucket_{bucket}"), *count as f64 / n))
        .collect();
    metrics.push(("knows_20".to_owned(), know_all as f64 / n));
    metrics
}

fn of_lookups(peers: &[PeerId], found: &Found) -> Vec<(String, f64)> {
    let found = found.lock().expect("nobody panics with it");
    let (mut all_asked, mut right, mut all) = (0.0, 0usize, 0usize);
    for Lookup { by, key, result, asked } in found.iter() {
        all_asked += f64::from(*asked);
        // Nobody finds themselves, even where they are one of the closest.
        let truth = closest(peers, *key, *by, K);
        right += truth.iter().filter(|peer| result.contains(peer)).count();
        all += truth.len();
    }
    let accuracy = right as f64 / all as f64;
    vec![("asked".to_owned(), all_asked / found.len() as f64), ("accuracy".to_owned(), accuracy)]
}

/// The model with the same shape.
fn model(swarms: usize, lookups: usize, seeds: u64) -> Vec<Report> {
    let refresh = Duration::from_secs(900);
    let scenario = Scenario {
        reachable: swarms as u32,
        hidden: 0,
        bootstrap: BOOTSTRAP as u32,
        colocated: None,
        routing: Options { rules: Rules::Libp2p, refresh, ..Options::default() },
        churn: None,
        duration: refresh,
        crawl: Duration::from_secs(1),
        lookups: Some(Lookups {
            count: lookups as u32,
            latency: Latency::Constant { one_way: Duration::from_millis(1) },
            handshake_round_trips: 4,
            dial_timeout: Duration::from_secs(5),
        }),
    };
    (0..seeds).map(|seed| run(&scenario, seed).expect("a scenario that can be")).collect()
}
