//! What nodes say to each other.

use std::rc::Rc;

/// A published message, by its number.
pub(super) type MessageId = u32;

/// A node, by its number.
pub(super) type NodeId = u32;

/// One message on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A full message, and how often it has been forwarded.
    Data { id: MessageId, hops: u8 },
    /// I have these.
    IHave(Rc<[MessageId]>),
    /// Send me these.
    IWant(Vec<MessageId>),
    /// You are in my mesh.
    Graft,
    /// You are not in my mesh; here are others.
    Prune { others: Vec<NodeId> },
    /// I am a peer of yours now.
    Connect,
}

impl Message {
    /// Number of the kind, and a number about the content, for the trace.
    pub(super) fn kind(&self) -> (u8, u32) {
        match self {
            Self::Data { id, .. } => (1, *id),
            Self::IHave(ids) => (2, ids.len() as u32),
            Self::IWant(ids) => (3, ids.len() as u32),
            Self::Graft => (4, 0),
            Self::Prune { others } => (5, others.len() as u32),
            Self::Connect => (6, 0),
        }
    }
}

/// What a router wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Bring this to a peer.
    Send { to: NodeId, message: Message },
    /// A message is here for the first time.
    Deliver { id: MessageId, hops: u8 },
}
