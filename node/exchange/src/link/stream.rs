//! One stream to one peer: its task, which sends questions and sorts answers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut as _, Bytes, BytesMut};
use dockercomp_protocol::NodeId;
use dockercomp_protocol::content::Digest;
use dockercomp_protocol::wire::chunk::{ANSWER_BYTES, Answer, Held, REQUEST_BYTES, Request};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{BlockAnswer, Command};
use crate::OPEN_MAX;
use crate::error::LinkError;
use crate::options::Options;
use crate::rate::Limits;

/// Small answers are read many at once.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// A question that was sent.
struct Asked {
    command: Command,
    at: Instant,
}

/// One stream. Its task ends when the stream breaks, is idle, or when the exchange is dropped.
pub(super) struct Link {
    peer: NodeId,
    options: Arc<Options>,
    limits: Arc<Limits>,
    asked: Mutex<BTreeMap<u32, Asked>>,
    /// One permit for each request that may still be opened.
    slots: Semaphore,
}

impl Link {
    pub(super) fn new(peer: NodeId, options: Arc<Options>, limits: Arc<Limits>) -> Self {
        Self { peer, options, limits, asked: Mutex::default(), slots: Semaphore::new(OPEN_MAX) }
    }

    /// Runs on the stream that `opening` gives.
    pub(super) async fn run<S: AsyncRead + AsyncWrite>(
        self,
        opening: impl Future<Output = Result<S, LinkError>>,
        mut commands: mpsc::Receiver<Command>,
        cut: CancellationToken,
    ) {
        let ended = cut.run_until_cancelled(self.serve(opening, &mut commands)).await;
        let was_cut = || Err(LinkError::Lost(io::ErrorKind::ConnectionAborted.into()));
        let ended = ended.unwrap_or_else(was_cut);
        commands.close();
        let error = Arc::new(ended.err().unwrap_or(LinkError::Closed));
        tracing::debug!(peer = %self.peer, reason = %error, "chunk stream ended");
        let asked = self.asked.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (_, asked) in asked {
            asked.command.fail(Arc::clone(&error));
        }
        while let Some(command) = commands.recv().await {
            command.fail(Arc::clone(&error));
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite>(
        &self,
        opening: impl Future<Output = Result<S, LinkError>>,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<(), LinkError> {
        let after = self.options.dial_timeout;
        let opened = timeout(after, opening).await;
        let stream = opened.map_err(|_| LinkError::DialTimedOut { after })??;
        let (read, write) = tokio::io::split(stream);
        tokio::select! {
            ended = self.receive(read) => ended.map(|never| match never {}),
            ended = self.send(write, commands) => ended,
        }
    }

    /// Sends questions as they come, as many at once as there are.
    async fn send(
        &self,
        mut write: impl AsyncWrite + Unpin,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<(), LinkError> {
        let mut id = 0;
        loop {
            let slot = self.slots.acquire().await.map_err(|_| LinkError::Closed)?;
            let first = match timeout(self.options.link_idle, commands.recv()).await {
                Ok(Some(command)) => command,
                Ok(None) => return Ok(()),
                Err(_) if self.asked().is_empty() => return Ok(()),
                Err(_) => continue,
            };
            let mut frames = Vec::with_capacity(OPEN_MAX * REQUEST_BYTES);
            let mut next = Some((first, slot));
            while let Some((command, slot)) = next.take() {
                if let Command::Stop { digest } = command {
                    for want in self.wants(&digest) {
                        frames.extend_from_slice(&Request::Stop { id, want }.encode());
                        id = id.wrapping_add(1);
                    }
                } else if !command.is_abandoned()
                    && let Some(request) = command.request(id)
                {
                    slot.forget();
                    frames.extend_from_slice(&request.encode());
                    self.asked().insert(id, Asked { command, at: Instant::now() });
                    id = id.wrapping_add(1);
                }
                if let Ok(slot) = self.slots.try_acquire() {
                    next = commands.try_recv().ok().map(|command| (command, slot));
                }
            }
            write.write_all(&frames).await.map_err(LinkError::Lost)?;
            write.flush().await.map_err(LinkError::Lost)?;
        }
    }

    /// The open requests for a block.
    fn wants(&self, digest: &Digest) -> Vec<u32> {
        let asked = self.asked();
        let is_it = |asked: &Asked| match &asked.command {
            Command::Block { digest: wanted, .. } => wanted == digest,
            Command::Held { .. } | Command::Open { .. } | Command::Stop { .. } => false,
        };
        asked.iter().filter(|(_, asked)| is_it(asked)).map(|(id, _)| *id).collect()
    }

    /// Reads answers and hands them to whoever asked.
    async fn receive(&self, read: impl AsyncRead + Unpin) -> Result<Infallible, LinkError> {
        let mut read = BufReader::with_capacity(READ_BUFFER_BYTES, read);
        loop {
            let mut frame = [0; ANSWER_BYTES];
            self.patiently(read.read_exact(&mut frame)).await?;
            match Answer::decode(&frame)? {
                Answer::Data { id, len } => {
                    self.expect(id, |command| matches!(command, Command::Block { .. }))?;
                    let payload = self.payload(&mut read, len as usize).await?;
                    self.answer_block(id, Ok(payload))?;
                }
                Answer::Miss { id, reason } => self.answer_block(id, Err(reason))?,
                Answer::Have { id, state } => match self.take(id)? {
                    Command::Held { reply, .. } => drop(reply.send(Ok(state))),
                    Command::Block { .. } | Command::Open { .. } | Command::Stop { .. } => {
                        return Err(LinkError::Unasked { id });
                    }
                },
                Answer::Open { id, port } => match self.take(id)? {
                    Command::Open { reply, .. } => drop(reply.send(Ok(port))),
                    Command::Block { .. } | Command::Held { .. } | Command::Stop { .. } => {
                        return Err(LinkError::Unasked { id });
                    }
                },
            }
        }
    }

    fn answer_block(&self, id: u32, answer: BlockAnswer) -> Result<(), LinkError> {
        match (self.take(id)?, answer) {
            (Command::Block { reply, .. }, answer) => drop(reply.send(Ok(answer))),
            // A server may be too busy, or not allowed, to say what it holds.
            (Command::Held { reply, .. }, Err(_)) => drop(reply.send(Ok(Held::None))),
            (Command::Open { reply, .. }, Err(_)) => drop(reply.send(Ok(0))),
            (Command::Held { .. } | Command::Open { .. }, Ok(_)) | (Command::Stop { .. }, _) => {
                return Err(LinkError::Unasked { id });
            }
        }
        Ok(())
    }

    /// Reads exactly `len` bytes, whose number was checked when the header was decoded.
    async fn payload(
        &self,
        read: &mut (impl AsyncRead + Unpin),
        len: usize,
    ) -> Result<Bytes, LinkError> {
        let mut payload = BytesMut::with_capacity(len);
        while payload.len() < len {
            let left = len - payload.len();
            let mut rest = (&mut payload).limit(left);
            let n = self.patiently(read.read_buf(&mut rest)).await?;
            if n == 0 {
                return Err(LinkError::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
            // What is not read holds the sender back.
            self.limits.down(n).await;
        }
        Ok(payload.freeze())
    }

    /// Waits for bytes: for ever while nothing is asked, else for as long as silence may last.
    async fn patiently<T>(
        &self,
        reading: impl Future<Output = io::Result<T>>,
    ) -> Result<T, LinkError> {
        let after = self.options.silence_max;
        let began = Instant::now();
        let mut reading = std::pin::pin!(reading);
        loop {
            if let Ok(read) = timeout(after, &mut reading).await {
                return read.map_err(LinkError::Lost);
            }
            let oldest = self.asked().values().map(|asked| asked.at).min();
            if oldest.is_some_and(|asked_at| began.max(asked_at).elapsed() >= after) {
                return Err(LinkError::Silent { after });
            }
        }
    }

    fn expect(&self, id: u32, kind: impl Fn(&Command) -> bool) -> Result<(), LinkError> {
        let expected = self.asked().get(&id).is_some_and(|asked| kind(&asked.command));
        if expected { Ok(()) } else { Err(LinkError::Unasked { id }) }
    }

    fn take(&self, id: u32) -> Result<Command, LinkError> {
        let asked = self.asked().remove(&id).ok_or(LinkError::Unasked { id })?;
        self.slots.add_permits(1);
        Ok(asked.command)
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<u32, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
