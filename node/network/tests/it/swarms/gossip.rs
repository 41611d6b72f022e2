//! gossipsub: copies per delivery, degrees of meshes, hops.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dockercomp_network::{Keypair, PeerId, protocols};
use dockercomp_simulations::overlay::{
    Latency, Report,
    gossip::{Options, Rules, Scenario, Traffic, Version, run},
};
use libp2p::{Swarm, gossipsub};

use super::{Comparison, DEADLINE, crowd::Crowd, number, resident_mb, wait_until};

const TOPIC: &str = "swarms";

/// Below libp2p's threshold for IDONTWANT, which the model does not have.
const PAYLOAD_BYTES: usize = 200;

type Gossip = gossipsub::Behaviour<Counting, protocols::SubscriptionFilter>;

/// Sees every full message that arrives, before libp2p drops those that it has seen.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicU64>);

impl gossipsub::DataTransform for Counting {
    fn inbound_transform(&self, raw: gossipsub::RawMessage) -> io::Result<gossipsub::Message> {
        self.0.fetch_add(1, Ordering::Relaxed);
        gossipsub::IdentityTransform.inbound_transform(raw)
    }

    fn outbound_transform(
        &self,
        topic: &gossipsub::TopicHash,
        data: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        gossipsub::IdentityTransform.outbound_transform(topic, data)
    }
}

/// First receptions: for each message, who got it from whom.
type Receptions = Arc<Mutex<BTreeMap<u8, BTreeMap<PeerId, PeerId>>>>;

/// A crowd's shape and what is published in it.
#[derive(Clone, Copy, Debug)]
struct Plan {
    swarms: usize,
    dials: usize,
    messages: u8,
    /// Heartbeats come only after five seconds; a short plan is over before them.
    heartbeats: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_crowd_gossips_as_the_model_does() {
    let plan = Plan { swarms: 32, dials: 8, messages: 10, heartbeats: false };
    let real = vec![measure(plan, 1).await];
    for comparison in Comparison::all(&real, &model(plan)) {
        comparison.print();
        comparison.assert_within(0.10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and gigabytes: make swarms"]
async fn a_large_crowd_gossips_as_the_model_does() {
    let swarms = number("DOCKERCOMP_SWARMS", 200);
    let plan = Plan { swarms, dials: 20, messages: 60, heartbeats: true };
    let mut real = Vec::new();
    for crowd in 0..number("DOCKERCOMP_CROWDS", 3) {
        real.push(measure(plan, crowd as u64).await);
    }
    println!("\ngossipsub, {plan:?}");
    let comparisons = Comparison::all(&real, &model(plan));
    comparisons.iter().for_each(Comparison::print);
    comparisons.iter().for_each(|comparison| comparison.assert_within(0.10));
}

fn make(key: &Keypair, copies: &Counting) -> Gossip {
    let (config, filter) = protocols::gossip_settings(&[TOPIC.to_owned()]);
    let mut gossip = Gossip::new_with_subscription_filter_and_transform(
        gossipsub::MessageAuthenticity::Signed(key.clone()),
        config,
        filter,
        copies.clone(),
    )
    .expect("settings that are ours");
    gossip.subscribe(&gossipsub::IdentTopic::new(TOPIC)).expect("the filter allows it");
    gossip
}

/// What one crowd gave, by the model's names.
async fn measure(plan: Plan, crowd_number: u64) -> Vec<(String, f64)> {
    let begun = Instant::now();
    let copies = Counting::default();
    let receptions = Receptions::default();
    let crowd = {
        let (copies, receptions) = (copies.clone(), Arc::clone(&receptions));
        Crowd::start(
            plan.swarms,
            move |key| make(key, &copies),
            move |_, swarm, event| on_event(&receptions, swarm, event),
        )
        .await
    };
    connect(&crowd, plan, crowd_number).await;
    println!("{} swarms connected after {:.1?}", plan.swarms, begun.elapsed());
    if plan.heartbeats {
        // Ten of them: the first comes five seconds after a swarm was made.
        let settled = begun + Duration::from_secs(15);
        wait_until("heartbeats", || Instant::now() >= settled).await;
    }
    let before = copies.0.load(Ordering::Relaxed);
    assert_eq!(before, 0, "nothing was published yet");
    publish(&crowd, plan, &receptions).await;
    silence(&copies).await;
    let degrees = crowd.ask_all(|swarm| swarm.behaviour().all_mesh_peers().count() as f64).await;
    let deliveries = plan.swarms * usize::from(plan.messages);
    let copies = copies.0.load(Ordering::Relaxed) as f64;
    println!("all delivered after {:.1?}, {:.0} MB resident", begun.elapsed(), resident_mb());
    let peers: Vec<PeerId> = crowd.members.iter().map(|member| member.peer).collect();
    vec![
        ("deliveries".to_owned(), deliveries as f64),
        ("copies_per_delivery".to_owned(), copies / deliveries as f64),
        ("mesh_degree".to_owned(), degrees.iter().sum::<f64>() / plan.swarms as f64),
        ("hops_mean".to_owned(), mean_hops(&receptions, &peers)),
    ]
}

fn on_event(receptions: &Receptions, swarm: &mut Swarm<Gossip>, event: gossipsub::Event) {
    let gossipsub::Event::Message { propagation_source, message_id, message } = event else {
        return;
    };
    let me = *swarm.local_peer_id();
    let mut receptions = receptions.lock().expect("nobody panics with it");
    receptions.entry(message.data[0]).or_default().insert(me, propagation_source);
    drop(receptions);
    let accept = gossipsub::MessageAcceptance::Accept;
    let gossip = swarm.behaviour_mut();
    assert!(gossip.report_message_validation_result(&message_id, &propagation_source, accept));
}

/// One after the other dials others, and goes on when it has heard all their subscriptions.
///
/// All at once would be another experiment: meshes are filled before anybody knows how full
/// others are, and how full they get depends on how busy the machine is.
async fn connect(crowd: &Crowd<Gossip>, plan: Plan, crowd_number: u64) {
    let mut links = BTreeSet::new();
    for from in 0..plan.swarms {
        let mut others: Vec<usize> = (0..plan.swarms).filter(|to| *to != from).collect();
        others.sort_unstable_by_key(|to| mixed(crowd_number, from as u64, *to as u64));
        for to in others.into_iter().take(plan.dials) {
            // A second link between two would be a second connection, which the model lacks.
            if links.insert((from.min(to), from.max(to))) {
                crowd.dial(from, to);
            }
        }
        let wanted = links.iter().filter(|(one, other)| *one == from || *other == from).count();
        let begun = Instant::now();
        while crowd.ask(from, |swarm| subscribed(swarm)).await < wanted {
            assert!(begun.elapsed() < DEADLINE, "member {from} misses subscriptions");
            tokio::task::yield_now().await;
        }
    }
}

fn subscribed(swarm: &Swarm<Gossip>) -> usize {
    swarm.behaviour().all_peers().filter(|(_, topics)| !topics.is_empty()).count()
}

/// From five members in turn, the next when the last has reached everybody.
async fn publish(crowd: &Crowd<Gossip>, plan: Plan, receptions: &Receptions) {
    for message in 0..plan.messages {
        let from = usize::from(message) % 5 * plan.swarms / 5;
        let mut payload = vec![0; PAYLOAD_BYTES];
        payload[0] = message;
        crowd.tell(from, move |swarm| {
            let topic = gossipsub::IdentTopic::new(TOPIC);
            swarm.behaviour_mut().publish(topic, payload).expect("there are peers");
        });
        let others = plan.swarms - 1;
        wait_until("the message at all others", || {
            let receptions = receptions.lock().expect("nobody panics with it");
            receptions.get(&message).is_some_and(|reached| reached.len() == others)
        })
        .await;
    }
}

/// After the last reception more copies are on their way.
async fn silence(copies: &Counting) {
    let last = Cell::new((0, Instant::now()));
    wait_until("silence", || {
        let now = copies.0.load(Ordering::Relaxed);
        if now != last.get().0 {
            last.set((now, Instant::now()));
        }
        last.get().1.elapsed() > Duration::from_millis(300)
    })
    .await;
}

/// By following each reception back to the publisher.
fn mean_hops(receptions: &Receptions, peers: &[PeerId]) -> f64 {
    let receptions = receptions.lock().expect("nobody panics with it");
    let (mut sum, mut n) = (0u64, 0u64);
    for from in receptions.values() {
        for peer in peers.iter().filter(|peer| from.contains_key(*peer)) {
            let way = std::iter::successors(Some(peer), |peer| from.get(*peer));
            sum += way.count() as u64 - 1;
            n += 1;
        }
    }
    sum as f64 / n as f64
}

/// The model with the same shape: ten seeds.
fn model(plan: Plan) -> Vec<Report> {
    // In milliseconds: until heartbeats begin, if they are to, and ten of them.
    let settled = if plan.heartbeats { 0 } else { 3_600_000 };
    let connecting = 100 * plan.swarms as u64;
    let scenario = Scenario {
        nodes: plan.swarms as u32,
        dials: plan.dials as u32,
        // In one process, what a link takes is the time until a task is polled.
        latency: Latency::Uniform {
            low: Duration::from_micros(500),
            high: Duration::from_millis(2),
            jitter: 1.0,
        },
        // Each long enough to hear of all it did before the next begins.
        connecting: Duration::from_millis(connecting),
        router: Options {
            rules: Rules::Libp2p,
            version: Version::V11,
            // libp2p's default.
            d_low: 5,
            first_heartbeat: Duration::from_millis(connecting + settled),
            flood_publish: false,
            ..Options::default()
        },
        traffic: Traffic {
            sources: 5,
            messages: plan.messages.into(),
            interval: Duration::from_millis(200),
            start: Duration::from_millis(connecting + 10_000),
            linger: Duration::from_secs(1),
        },
        churn: None,
    };
    (0..10).map(|seed| run(&scenario, seed).expect("a scenario that can be")).collect()
}

/// A number that looks random: splitmix64's finaliser.
fn mixed(seed: u64, one: u64, other: u64) -> u64 {
    let mut z = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(one.wrapping_mul(0xbf58_476d_1ce4_e5b9))
        .wrapping_add(other.wrapping_mul(0x94d0_49bb_1331_11eb));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
