//! What other members of the swarm say: a stream to each, on which we ask what it holds.
//!
//! ```text
//! lists ──watch──► task: JOIN, LIST … ──► peer
//! session ◄─queue─ task ◄── ALL, MAP, HAVE, MEMBERS ──
//! ```
//!
//! A peer that does not speak the protocol, or says nothing, is asked for blocks as before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dockercomp_network::framed::{FrameError, read_frame, write_frame};
use dockercomp_protocol::content::{self, Digest};
use dockercomp_protocol::limits::SWARM_MESSAGE_BYTES_MAX;
use dockercomp_protocol::wire::swarm::{News, Question};
use dockercomp_protocol::{NodeId, codec};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::dial::{Dial, Protocol};
use crate::error::LinkError;
use crate::options::Options;
use crate::scheduler::List;

/// Something that one peer said, or why it says no more.
pub(super) type Heard = (NodeId, Result<News, LinkError>);

/// Our newest list; none before the first.
pub(super) type Lists = watch::Receiver<Option<Arc<List>>>;

/// Asks one peer what it holds of a dataset, again and again, until it says no more.
pub(super) async fn watch<D: Dial>(
    (dial, options): (D, Arc<Options>),
    (peer, root): (NodeId, Digest),
    lists: Lists,
    heard: mpsc::Sender<Heard>,
) {
    let after = options.dial_timeout;
    let opened = timeout(after, dial.open(peer, Protocol::Swarm)).await;
    let ended = match opened {
        Ok(Ok(stream)) => {
            let (read, write) = tokio::io::split(stream);
            let has_all = AtomicBool::new(false);
            tokio::select! {
                ended = ask(root, lists, write, &has_all) => ended,
                ended = hear(peer, read, &heard, &has_all) => ended,
            }
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(LinkError::DialTimedOut { after }),
    };
    // Whoever listens may have gone.
    let _ = heard.send((peer, Err(ended.err().unwrap_or(LinkError::Closed)))).await;
}

async fn ask(
    root: Digest,
    mut lists: Lists,
    mut write: impl AsyncWrite + Unpin,
    has_all: &AtomicBool,
) -> Result<(), LinkError> {
    send(&mut write, &Question::Join { root }).await?;
    loop {
        let list = lists.borrow_and_update().clone();
        if let Some(list) = list
            && !has_all.load(Ordering::Relaxed)
        {
            let digests: Vec<Digest> = list
                .blocks
                .iter()
                .map(|block| content::digest(block).expect("checked when it was listed"))
                .collect();
            send(&mut write, &Question::list(list.number, &digests)).await?;
        }
        if lists.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn send(
    write: &mut (impl AsyncWrite + Unpin),
    question: &Question,
) -> Result<(), FrameError> {
    write_frame(write, &codec::encode(question), SWARM_MESSAGE_BYTES_MAX).await
}

async fn hear(
    peer: NodeId,
    mut read: impl AsyncRead + Unpin,
    heard: &mpsc::Sender<Heard>,
    has_all: &AtomicBool,
) -> Result<(), LinkError> {
    loop {
        let news = News::decode(&read_frame(&mut read, SWARM_MESSAGE_BYTES_MAX).await?)?;
        if news == News::All {
            has_all.store(true, Ordering::Relaxed);
        }
        if heard.send((peer, Ok(news))).await.is_err() {
            return Ok(());
        }
    }
}
