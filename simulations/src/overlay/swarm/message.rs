//! What nodes send each other, and what a node wants done.

use std::sync::Arc;

use dockercomp_exchange_core::scheduler::List;
use dockercomp_protocol::Cid;
use dockercomp_protocol::wire::chunk::Miss;
use dockercomp_protocol::wire::swarm::News;

/// A message. Those of the swarm and chunk protocols are named as there.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Join,
    List(Arc<List>),
    News(News),
    /// The sender takes no part any more: it has everything.
    Leave,
    Want(Cid),
    Stop(Cid),
    Miss(Cid, Miss),
    /// A block, and whether its bytes are right. Its body came as a flow.
    Data(Cid, bool),
    /// The connection to the sender is closed.
    Closed,
}

impl Message {
    /// Its number in a trace.
    pub(super) const fn kind(&self) -> u8 {
        match self {
            Self::Join => 0,
            Self::List(_) => 1,
            Self::News(_) => 2,
            Self::Leave => 3,
            Self::Want(_) => 4,
            Self::Stop(_) => 5,
            Self::Miss(..) => 6,
            Self::Data(..) => 7,
            Self::Closed => 8,
        }
    }

    /// The block that it is about.
    pub(super) const fn block(&self) -> Option<&Cid> {
        match self {
            Self::Want(block) | Self::Stop(block) | Self::Miss(block, _) | Self::Data(block, _) => {
                Some(block)
            }
            Self::Join | Self::List(_) | Self::News(_) | Self::Leave | Self::Closed => None,
        }
    }
}

/// What a node wants done.
#[derive(Debug)]
pub(super) enum Action {
    /// Send this; dial first if there is no connection.
    Send { to: u32, message: Message },
    /// Send a body of so many bytes.
    Transmit { to: u32, bytes: u64 },
    /// Close the stream on which a peer sends its bodies.
    Cut { from: u32 },
    /// Verify a block, and store it if it is right.
    Store { from: u32, number: usize, is_right: bool },
    /// Look for nodes that have everything.
    Look,
    /// In a moment, tell this member what is new.
    Gather { member: u32 },
}
