//! Request and response over one persistent stream: the asking side.
//!
//! A [`Client`] opens its stream with the first [`Client::call`], uses it for all later ones, and
//! opens it again once when it turns out to be broken. Bytes are opaque here.
//!
//! # What is not here
//!
//! - No server: the answering side is a loop over [`crate::Handle::accept`] with
//!   [`crate::framed::read_frame`] and [`crate::framed::write_frame`] in the crate that knows the
//!   messages.
//! - No retries beyond the one reopening, and no back-off: the caller knows what may be repeated
//!   when.
//!
//! # Bounds
//!
//! One call at a time (`&mut self`), each within one timeout, each frame within one limit.
//! Because of the reopening **a request may arrive twice**: requests must be idempotent.

use std::time::Duration;

use bytes::Bytes;
use libp2p::{PeerId, StreamProtocol};
use tokio::time::timeout;

use crate::{
    error::OpenError,
    framed::{FrameError, read_frame, write_frame},
    handle::Handle,
    streams::Stream,
};

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No stream to the peer. Boxed, because errors travel by value.
    #[error("failed to open a stream for the call")]
    Open(#[source] Box<OpenError>),
    /// The stream broke, or a frame was over the limit.
    #[error("the call to peer {peer} failed")]
    Frame {
        /// The peer that was called.
        peer: PeerId,
        /// What went wrong.
        #[source]
        source: FrameError,
    },
    /// The peer did not answer in time.
    #[error("peer {peer} did not answer within {after:?}")]
    TimedOut {
        /// The peer that was called.
        peer: PeerId,
        /// How long the answer was awaited.
        after: Duration,
    },
}

/// The asking side of a request-and-response protocol with one peer.
#[derive(Debug)]
pub struct Client {
    handle: Handle,
    peer: PeerId,
    protocol: StreamProtocol,
    max_bytes: usize,
    timeout: Duration,
    /// `None` while a call is under way, so that a dropped call cannot leave a stream behind
    /// whose next frame answers a question nobody remembers.
    stream: Option<Stream>,
}

impl Client {
    /// A client that has not opened its stream yet.
    ///
    /// `max_bytes` bounds both the request and the answer, `timeout` a whole call.
    #[must_use]
    pub fn new(
        handle: Handle,
        peer: PeerId,
        protocol: StreamProtocol,
        max_bytes: usize,
        timeout: Duration,
    ) -> Self {
        Self { handle, peer, protocol, max_bytes, timeout, stream: None }
    }

    /// The peer that is called.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    ///
    /// After any error the stream is dropped, and the next call opens a new one.
    pub async fn call(&mut self, request: &[u8]) -> Result<Bytes, CallError> {
        let (peer, after) = (self.peer, self.timeout);
        timeout(after, self.call_unbounded(request))
            .await
            .unwrap_or(Err(CallError::TimedOut { peer, after }))
    }

    async fn call_unbounded(&mut self, request: &[u8]) -> Result<Bytes, CallError> {
        if let Some(stream) = self.stream.take() {
            match self.exchange(stream, request).await {
                Err(error) if error.is_broken_stream() => {
                    tracing::debug!(peer = %self.peer, %error, "reopening a broken stream");
                }
                done => return self.blame(done),
            }
        }
        let opened = self.handle.open(self.peer, self.protocol.clone()).await;
        let stream = opened.map_err(|error| CallError::Open(Box::new(error)))?;
        let done = self.exchange(stream, request).await;
        self.blame(done)
    }

    /// One request and its answer. The stream is kept only if both went well.
    async fn exchange(&mut self, mut stream: Stream, request: &[u8]) -> Result<Bytes, FrameError> {
        write_frame(&mut stream, request, self.max_bytes).await?;
        let answer = read_frame(&mut stream, self.max_bytes).await?;
        self.stream = Some(stream);
        Ok(answer)
    }

    fn blame(&self, done: Result<Bytes, FrameError>) -> Result<Bytes, CallError> {
        done.map_err(|source| CallError::Frame { peer: self.peer, source })
    }
}
