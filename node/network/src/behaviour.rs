//! The swarm: which protocols it is composed of and how each is configured.
//!
//! Configuration only; what happens with their events is in [`crate::event_loop`]. Where a value
//! differs from libp2p's default, the reason stands beside it.

use std::{collections::HashSet, num::NonZeroUsize, sync::Arc, time::Duration};

use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder, allow_block_list, connection_limits, gossipsub, identify,
    identity::Keypair,
    kad, noise, peer_store, ping,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    tcp, yamux,
};

use crate::{
    addresses::ADDRESSES_PER_PEER_MAX,
    error::BindError,
    options::{Limits, Options},
    streams,
};

/// The Kademlia protocol: a table of our own, never the public one.
pub(crate) const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/dockercomp/kad/1");

/// The version that peers compare. Another one is not talked to through Kademlia.
pub(crate) const IDENTIFY_PROTOCOL: &str = "/dockercomp/1";

/// The largest frame of gossip. The signature, topic and sender take up to
/// [`GOSSIP_OVERHEAD_BYTES`] of it.
const GOSSIP_FRAME_BYTES_MAX: usize = 16 * 1024;

/// What a gossip frame carries beside its payload, rounded up.
const GOSSIP_OVERHEAD_BYTES: usize = 512;

/// The largest payload of one gossip message.
pub const GOSSIP_BYTES_MAX: usize = GOSSIP_FRAME_BYTES_MAX - GOSSIP_OVERHEAD_BYTES;

/// How long others keep our provider records: volunteers leave without saying so.
const PROVIDER_TTL: Duration = Duration::from_secs(3600);

/// How often provider records are renewed: two losses are survived.
const PROVIDER_INTERVAL: Duration = Duration::from_secs(1200);

/// Keys for which a Kademlia server keeps providers, its own keys included.
const PROVIDED_KEYS_MAX: usize = 65_536;

/// Providers kept a key. A full list ignores newcomers.
const PROVIDERS_PER_KEY_MAX: usize = 64;

/// Peers whose addresses are remembered.
const STORED_PEERS_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not zero");

/// Which topics others may subscribe to at us.
pub type SubscriptionFilter =
    gossipsub::MaxCountSubscriptionFilter<gossipsub::WhitelistSubscriptionFilter>;
/// Gossip restricted to a list of topics.
pub(crate) type Gossip = gossipsub::Behaviour<gossipsub::IdentityTransform, SubscriptionFilter>;

/// How often each end of a connection measures the way to the other; the first time at once.
/// Whoever waits for an answer has a timeout of its own, so nothing depends on it, and with
/// libp2p's 15 seconds it is most of what thousands of idle nodes cost.
const PING_INTERVAL: Duration = Duration::from_secs(60);

/// Everything we speak. Polled in this order: gates first, chatty protocols last.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) bans: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(crate) store: peer_store::Behaviour<peer_store::memory_store::MemoryStore>,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) streams: streams::Behaviour,
    pub(crate) kad: kad::Behaviour<kad::store::MemoryStore>,
    /// Absent where no topics are configured: its streams keep every connection alive.
    pub(crate) gossip: Toggle<Gossip>,
}

/// Builds the swarm. It listens nowhere yet.
pub(crate) fn swarm(
    options: &Options,
    registry: Arc<streams::Registry>,
) -> Result<Swarm<Behaviour>, BindError> {
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits(&options.limits)),
        bans: allow_block_list::Behaviour::default(),
        store: peer_store::Behaviour::new(store()),
        identify: identify(options),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
        streams: streams::Behaviour::new(registry),
        kad: kademlia(options),
        gossip: gossip(&options.keypair, &options.topics).into(),
    };
    let (dial, idle) = (options.timeouts.dial, options.timeouts.idle);
    let swarm = SwarmBuilder::with_existing_identity(options.keypair.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_quic()
        .with_dns()
        .map_err(BindError::Dns)?
        .with_behaviour(|_| behaviour)
        .unwrap_or_else(|never| match never {})
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(idle)
                // A full notification queue of one connection stalls all of them (default 32).
                .with_notify_handler_buffer_size(NonZeroUsize::new(256).expect("256 is not zero"))
                .with_per_connection_event_buffer_size(64)
                .with_max_negotiating_inbound_streams(256)
        })
        .with_connection_timeout(dial)
        .build();
    Ok(swarm)
}

fn limits(limits: &Limits) -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits.pending_incoming))
        .with_max_pending_outgoing(Some(limits.pending_outgoing))
        .with_max_established(Some(limits.established))
        .with_max_established_per_peer(Some(limits.established_per_peer))
}

fn store() -> peer_store::memory_store::MemoryStore {
    let per_peer = NonZeroUsize::new(ADDRESSES_PER_PEER_MAX).expect("the limit is not zero");
    peer_store::memory_store::MemoryStore::new(
        peer_store::memory_store::Config::default()
            .set_peer_capacity(STORED_PEERS_MAX)
            .set_record_capacity(per_peer),
    )
}

fn identify(options: &Options) -> identify::Behaviour {
    identify::Behaviour::new(
        identify::Config::new(IDENTIFY_PROTOCOL.to_owned(), options.keypair.public())
            .with_agent_version(options.agent.clone())
            // Its cache would offer addresses to every dial without our checks.
            .with_cache_size(0),
    )
}

/// Kademlia as we speak it, in the mode of the options' role.
#[must_use]
pub fn kademlia(options: &Options) -> kad::Behaviour<kad::store::MemoryStore> {
    let me = options.keypair.public().to_peer_id();
    let mut config = kad::Config::new(KAD_PROTOCOL);
    config
        .set_query_timeout(options.timeouts.query)
        // Only peers that identify as Kademlia servers of our version enter the table.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_provider_record_ttl(Some(PROVIDER_TTL))
        .set_provider_publication_interval(Some(PROVIDER_INTERVAL))
        // We store no value records.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        .set_substreams_timeout(Duration::from_secs(5))
        // The default of five minutes costs a spike of dials each time.
        .set_periodic_bootstrap_interval(Some(Duration::from_secs(900)));
    let store = kad::store::MemoryStore::with_config(
        me,
        kad::store::MemoryStoreConfig {
            max_records: 0,
            max_value_bytes: 0,
            max_providers_per_key: PROVIDERS_PER_KEY_MAX,
            max_provided_keys: PROVIDED_KEYS_MAX,
        },
    );
    let mut kad = kad::Behaviour::with_config(me, store, config);
    // Never automatic: an external address alone does not make a volunteer a server.
    let serves = options.role.serves_kademlia();
    kad.set_mode(Some(if serves { kad::Mode::Server } else { kad::Mode::Client }));
    kad
}

/// Gossip over the given topics only, or nothing if there are none.
fn gossip(keypair: &Keypair, topics: &[String]) -> Option<Gossip> {
    if topics.is_empty() {
        return None;
    }
    let (config, filter) = gossip_settings(topics);
    let authenticity = gossipsub::MessageAuthenticity::Signed(keypair.clone());
    let behaviour = Gossip::new_with_subscription_filter(authenticity, config, filter)
        .expect("signed messages satisfy strict validation");
    Some(behaviour)
}

/// Gossip's settings.
///
/// Messages are identified by sender and sequence number, which libp2p does by default: a notice
/// that is repeated on purpose is a new message, and one that found every queue full can be sent
/// again. There is no peer score: all nodes of a test bed share an address, and rejected messages
/// are counted by the event loop instead.
#[must_use]
pub fn gossip_settings(topics: &[String]) -> (gossipsub::Config, SubscriptionFilter) {
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id_prefix("/dockercomp/meshsub")
        .validation_mode(gossipsub::ValidationMode::Strict)
        // Nothing is forwarded until the event loop has accepted it.
        .validate_messages()
        .max_transmit_size(GOSSIP_FRAME_BYTES_MAX)
        // The default sends every message to every subscribed peer.
        .flood_publish(false)
        // The default of 5000 lets one slow peer hold 80 MB.
        .connection_handler_queue_len(256)
        .build()
        .expect("the constants above are consistent");
    let whitelist: HashSet<_> =
        topics.iter().map(|topic| gossipsub::IdentTopic::new(topic).hash()).collect();
    let filter = gossipsub::MaxCountSubscriptionFilter {
        max_subscribed_topics: whitelist.len(),
        max_subscriptions_per_request: 2 * whitelist.len(),
        filter: gossipsub::WhitelistSubscriptionFilter(whitelist),
    };
    (config, filter)
}
