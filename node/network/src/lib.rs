//! The network: how processes of dockerComp find and talk to each other.
//!
//! The only crate that sees libp2p's swarm. Nodes, coordinators and bootstrap processes use it
//! alike: [`Options`] → [`Service::bind`] → [`Service::run`], and a clonable [`Handle`] for
//! everything else.
//!
//! # Shape
//!
//! ```text
//!  caller's tasks                      the service's task            connections' tasks
//! ┌──────────────┐  commands         ┌──────────────────┐          ┌──────────────────┐
//! │ Handle       │ ────────────────► │ event_loop       │ ◄──────► │ TCP+noise+yamux, │
//! │ rpc::Client  │ ◄── answers ───── │  kademlia, gossip │         │ QUIC             │
//! │ framed       │                   │  redial, dialer   │         └────────┬─────────┘
//! └──────┬───────┘                   └──────────────────┘                   │
//!        └───────────── Stream, Incoming: bytes, past the event loop ───────┘
//! ```
//!
//! - **Discovery**: [`Handle::provide`] and [`Handle::providers`] through Kademlia, and
//!   [`Handle::add_addresses`] for hints from elsewhere.
//! - **Streams**: [`Handle::open`] and [`Handle::accept`]; [`framed`] puts messages on them and
//!   [`rpc`] questions and answers.
//! - **Gossip**: [`Handle::publish`] and [`Handle::subscribe`], for small and rare notices.
//!
//! # What is not here
//!
//! - No words: keys, messages and frames are opaque bytes.
//! - No relay, hole punching, AutoNAT or mDNS yet: nodes must be reachable at one address.
//! - No reputation: facts for it are in [`PeerInfo`] and in errors that name a peer.
//!
//! # Trust
//!
//! Every connection is encrypted and both ends have proved their peer ids: a dial to a peer that
//! is answered by another fails. What a peer says about itself (addresses, agent) is bounded and
//! never believed further than the next dial.

mod addresses;
mod behaviour;
mod command;
mod error;
mod event_loop;
pub mod framed;
mod gossip;
mod handle;
mod info;
mod options;
pub mod rpc;
mod streams;

/// The protocols as we configure them, for whoever runs them over transports of their own.
pub mod protocols {
    pub use crate::behaviour::{SubscriptionFilter, gossip_settings, kademlia};
}

pub use libp2p::{Multiaddr, PeerId, StreamProtocol, identity::Keypair};

pub use self::{
    behaviour::GOSSIP_BYTES_MAX,
    error::{
        AcceptError, BindError, ConnectError, DialError, OpenError, ProvideError, ProvidersError,
        PublishError, SubscribeError, Unavailable,
    },
    event_loop::{PROVIDERS_MAX, Service},
    gossip::{Gossip, PublishOutcome, SUBSCRIPTION_QUEUE, Subscription},
    handle::Handle,
    info::{Direction, PeerInfo, Provider, Transport},
    options::{Backoff, Limits, Options, Role, Timeouts},
    streams::{INCOMING_QUEUE, Incoming, STREAMS_PER_CONNECTION_MAX, Stream},
};
