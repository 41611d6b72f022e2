//! Why an operation of the [`crate::Handle`] or the start of a [`crate::Service`] failed.
//!
//! One enum an operation. Errors that a peer caused name the peer, so that callers can lower its
//! reputation. Errors of frames and calls live beside them in [`crate::framed`] and
//! [`crate::rpc`].

use std::{io, time::Duration};

use libp2p::{Multiaddr, PeerId, StreamProtocol, gossipsub};

/// The service itself gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The service has been shut down.
    #[error("the network service has stopped")]
    Stopped,
    /// The service is alive but did not answer in time.
    #[error("the network service gave no answer within {after:?}")]
    TimedOut {
        /// How long the answer was awaited.
        after: Duration,
    },
}

/// Why a [`crate::Service`] could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A listen address could not be bound.
    #[error("cannot listen on {address}: choose another address or port")]
    Listen {
        /// The address as it was given.
        address: Multiaddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A listen address names a transport that we do not have.
    #[error("cannot listen on {address}: only /tcp/<port> and /udp/<port>/quic-v1 are supported")]
    UnsupportedAddress {
        /// The address as it was given.
        address: Multiaddr,
    },
    /// A listener did not report its address.
    #[error("{pending} listeners reported no address within {after:?}")]
    ListenTimedOut {
        /// How many listeners were still silent.
        pending: usize,
        /// How long they were awaited.
        after: Duration,
    },
    /// A bootstrap address does not say whom to expect there.
    #[error("bootstrap address {address} does not end in /p2p/<peer id>")]
    BootstrapWithoutPeer {
        /// The address as it was given.
        address: Multiaddr,
    },
    /// The encryption of TCP connections could not be set up.
    #[error("failed to derive encryption keys from the identity")]
    Noise(#[from] libp2p::noise::Error),
    /// The system's resolver configuration could not be read.
    #[error("failed to read the system's DNS configuration")]
    Dns(#[source] io::Error),
}

/// Why no connection to a peer exists. It can be cloned: many callers may wait for one dial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nobody told us where the peer is.
    #[error("no address of peer {peer} is known")]
    NoAddresses {
        /// The peer that was to be reached.
        peer: PeerId,
    },
    /// Somebody else answered at the peer's address.
    #[error("{address} answered as peer {obtained} instead of {peer}")]
    WrongPeer {
        /// The peer that was to be reached.
        peer: PeerId,
        /// The peer that answered. Boxed, because errors travel by value and ids are large.
        obtained: Box<PeerId>,
        /// Where it answered.
        address: Multiaddr,
    },
    /// The peer id or the address is our own.
    #[error("peer {peer} is this process itself")]
    Own {
        /// The peer that was to be reached.
        peer: PeerId,
    },
    /// A connection limit or a ban forbids the connection.
    #[error("a connection limit or a ban forbids a connection to peer {peer}")]
    Denied {
        /// The peer that was to be reached.
        peer: PeerId,
    },
    /// No address answered.
    #[error("none of the {tried} addresses of peer {peer} answered")]
    Unreachable {
        /// The peer that was to be reached.
        peer: PeerId,
        /// How many addresses were tried.
        tried: usize,
    },
    /// The attempt was abandoned, for example because the peer was banned meanwhile.
    #[error("the dial to peer {peer} was abandoned")]
    Abandoned {
        /// The peer that was to be reached.
        peer: PeerId,
    },
    /// Too many dials are awaited already.
    #[error("too many dials are under way to reach peer {peer}")]
    Busy {
        /// The peer that was to be reached.
        peer: PeerId,
    },
}

/// Why [`crate::Handle::connect`] failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The peer could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The time for the whole operation is over.
    #[error("no connection to peer {peer} within {after:?}")]
    TimedOut {
        /// The peer that was to be reached.
        peer: PeerId,
        /// How long it was tried.
        after: Duration,
    },
    /// The service itself gave no answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why [`crate::Handle::open`] gave no stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The peer does not speak the protocol.
    #[error("peer {peer} does not support {protocol}")]
    Unsupported {
        /// The peer that refused.
        peer: PeerId,
        /// The protocol it was asked for.
        protocol: StreamProtocol,
    },
    /// Too many streams with the peer are open already.
    #[error("too many streams with peer {peer} are open")]
    Busy {
        /// The peer that was to be talked to.
        peer: PeerId,
    },
    /// The connection was lost while the stream was opened.
    #[error("the connection to peer {peer} was lost")]
    ConnectionLost {
        /// The peer that was to be talked to.
        peer: PeerId,
    },
    /// The stream broke while the protocol was negotiated.
    #[error("failed to negotiate {protocol} with peer {peer}")]
    Negotiation {
        /// The peer that was to be talked to.
        peer: PeerId,
        /// The protocol it was asked for.
        protocol: StreamProtocol,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The time for the whole operation is over.
    #[error("no stream to peer {peer} within {after:?}")]
    TimedOut {
        /// The peer that was to be talked to.
        peer: PeerId,
        /// How long it was tried.
        after: Duration,
    },
    /// The service itself gave no answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why [`crate::Handle::accept`] failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// Another part of the process accepts the protocol already.
    #[error("{protocol} is accepted elsewhere in this process")]
    AlreadyAccepted {
        /// The protocol that was asked for.
        protocol: StreamProtocol,
    },
    /// The service has been shut down.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why [`crate::Handle::provide`] failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvideError {
    /// This process provides as many keys as it may.
    #[error("{max} keys are provided already; only roots are to be announced, never chunks")]
    TooMany {
        /// The most keys a process may provide.
        max: usize,
    },
    /// The service itself gave no answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why [`crate::Handle::providers`] failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvidersError {
    /// Too many lookups are waiting.
    #[error("{max} lookups are waiting already")]
    Busy {
        /// The most lookups that may wait.
        max: usize,
    },
    /// The service itself gave no answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why [`crate::Handle::publish`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic is not among [`crate::Options::topics`].
    #[error("topic {topic} is not among the topics of this process")]
    UnknownTopic {
        /// The topic as it was given.
        topic: String,
    },
    /// The message is too large for gossip.
    #[error("a gossip message of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// The size of the message.
        bytes: usize,
        /// The largest size.
        max: usize,
    },
    /// The message could not be signed or encoded.
    #[error("failed to prepare the gossip message")]
    Prepare(#[source] gossipsub::PublishError),
    /// The service itself gave no answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why [`crate::Handle::subscribe`] failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The topic is not among [`crate::Options::topics`].
    #[error("topic {topic} is not among the topics of this process")]
    UnknownTopic {
        /// The topic as it was given.
        topic: String,
    },
    /// Another part of the process is subscribed already.
    #[error("topic {topic} is subscribed elsewhere in this process")]
    AlreadySubscribed {
        /// The topic as it was given.
        topic: String,
    },
    /// The service itself gave no answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
