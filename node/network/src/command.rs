//! Commands: what a [`crate::Handle`] asks of the event loop.
//!
//! Each carries its own way back, so answers cannot be mixed up. A caller that gave up has
//! dropped its end: answering it is not an error, which [`answer`] says in one place.

use bytes::Bytes;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::sync::{mpsc, oneshot};

use crate::{
    error::{DialError, ProvideError, ProvidersError, PublishError, SubscribeError},
    gossip::{Gossip, PublishOutcome, Validator},
    info::{PeerInfo, Provider},
    streams::OpenReply,
};

/// The way back to a caller.
pub(crate) type Reply<T> = oneshot::Sender<T>;

/// Answers a caller, who may have given up meanwhile.
pub(crate) fn answer<T>(reply: Reply<T>, value: T) {
    let _ = reply.send(value);
}

/// One request of a handle.
pub(crate) enum Command {
    Provide {
        key: Vec<u8>,
        reply: Reply<Result<(), ProvideError>>,
    },
    StopProviding {
        key: Vec<u8>,
        reply: Reply<()>,
    },
    Providers {
        key: Vec<u8>,
        reply: Reply<Result<Vec<Provider>, ProvidersError>>,
    },
    AddAddresses {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: Reply<()>,
    },
    Addresses {
        peer: PeerId,
        reply: Reply<Vec<Multiaddr>>,
    },
    Publish {
        topic: String,
        data: Bytes,
        reply: Reply<Result<PublishOutcome, PublishError>>,
    },
    Subscribe {
        topic: String,
        validator: Validator,
        /// Absent where messages are only checked and passed on.
        queue: Option<mpsc::Sender<Gossip>>,
        reply: Reply<Result<(), SubscribeError>>,
    },
    Connect {
        peer: PeerId,
        reply: Reply<Result<(), DialError>>,
    },
    Open {
        peer: PeerId,
        protocol: StreamProtocol,
        reply: OpenReply,
    },
    Peers {
        reply: Reply<Vec<PeerInfo>>,
    },
    Remote {
        peer: PeerId,
        reply: Reply<Option<Multiaddr>>,
    },
    Disconnect {
        peer: PeerId,
        reply: Reply<bool>,
    },
    Ban {
        peer: PeerId,
        reply: Reply<bool>,
    },
    Unban {
        peer: PeerId,
        reply: Reply<bool>,
    },
}
