//! Frames: length-prefixed messages over a byte stream.
//!
//! # Shape
//!
//! ```text
//! ┌──────────────────┬─────────────────┐
//! │ length: u32, big │ length bytes    │
//! │ endian           │                 │
//! └──────────────────┴─────────────────┘
//! ```
//!
//! # Bounds
//!
//! The declared length is compared with the caller's limit before anything is allocated, and
//! memory then grows with the bytes that really arrive: a peer that declares much and sends
//! nothing costs 16 KiB.
//!
//! # Cancellation
//!
//! Neither function is cancel safe: a stream whose read or write was dropped half-way is out of
//! step and must be dropped too.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of the length prefix.
const HEADER_BYTES: usize = size_of::<u32>();

/// Memory given to a frame before its first byte has arrived.
const FIRST_READ_BYTES: usize = 16 * 1024;

/// Frames up to this size are sent in one write, so that the multiplexer makes one packet of
/// them; copying larger ones would cost more than it saves.
const COALESCE_BYTES_MAX: usize = 16 * 1024;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame is longer than the caller allows.
    #[error("a frame of {declared} bytes is over the limit of {max}")]
    TooLarge {
        /// The length that the frame has or claims to have.
        declared: usize,
        /// The caller's limit.
        max: usize,
    },
    /// The stream ended between two frames.
    #[error("the stream was closed")]
    Closed,
    /// The stream ended within a frame.
    #[error("the stream ended after {received} of {declared} bytes of a frame")]
    TruncatedFrame {
        /// Bytes that arrived, of the header if even that was cut.
        received: usize,
        /// Bytes that were due.
        declared: usize,
    },
    /// The stream broke.
    #[error("the stream broke")]
    Io(#[from] io::Error),
}

impl FrameError {
    /// Whether the stream broke, as opposed to a peer breaking the rules.
    #[must_use]
    pub fn is_broken_stream(&self) -> bool {
        match self {
            Self::Closed | Self::TruncatedFrame { .. } | Self::Io(_) => true,
            Self::TooLarge { .. } => false,
        }
    }
}

/// Writes one frame and flushes it.
///
/// # Errors
///
/// [`FrameError::TooLarge`] if `payload` is longer than `max` (nothing is written then), or
/// [`FrameError::Io`].
pub async fn write_frame<W>(io: &mut W, payload: &[u8], max: usize) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin + ?Sized,
{
    let too_large = FrameError::TooLarge { declared: payload.len(), max };
    if payload.len() > max {
        return Err(too_large);
    }
    let Ok(length) = u32::try_from(payload.len()) else {
        return Err(too_large);
    };
    if payload.len() <= COALESCE_BYTES_MAX {
        let mut frame = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(payload);
        io.write_all(&frame).await?;
    } else {
        io.write_all(&length.to_be_bytes()).await?;
        io.write_all(payload).await?;
    }
    io.flush().await?;
    Ok(())
}

/// Reads one frame.
///
/// # Errors
///
/// [`FrameError::Closed`] if the stream ends before the frame begins, which is how a peer says
/// that it has nothing more to say; otherwise as the variants say.
pub async fn read_frame<R>(io: &mut R, max: usize) -> Result<Bytes, FrameError>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let declared = read_header(io).await?;
    if declared > max {
        return Err(FrameError::TooLarge { declared, max });
    }
    let mut payload = BytesMut::with_capacity(declared.min(FIRST_READ_BYTES));
    let mut rest = io.take(declared as u64);
    while payload.len() < declared {
        if rest.read_buf(&mut payload).await? == 0 {
            return Err(FrameError::TruncatedFrame { received: payload.len(), declared });
        }
    }
    Ok(payload.freeze())
}

/// Reads the length prefix, telling a clean end from a cut one.
async fn read_header<R>(io: &mut R) -> Result<usize, FrameError>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let mut header = [0; HEADER_BYTES];
    let mut received = 0;
    while received < HEADER_BYTES {
        match io.read(&mut header[received..]).await? {
            0 if received == 0 => return Err(FrameError::Closed),
            0 => return Err(FrameError::TruncatedFrame { received, declared: HEADER_BYTES }),
            n => received += n,
        }
    }
    // A length that does not fit the address space is over every limit.
    Ok(usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 100_000;

    /// Bytes as a peer would have sent them before closing the stream.
    async fn received(bytes: &[u8]) -> Result<Bytes, FrameError> {
        let (mut ours, mut theirs) = tokio::io::duplex(MAX);
        theirs.write_all(bytes).await.expect("the buffer is large enough");
        drop(theirs);
        read_frame(&mut ours, MAX).await
    }

    #[tokio::test]
    async fn frames_arrive_in_order_and_whole() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let sizes = [0, 1, COALESCE_BYTES_MAX, COALESCE_BYTES_MAX + 1, MAX];
        let writer = tokio::spawn(async move {
            for size in sizes {
                write_frame(&mut theirs, &vec![7; size], MAX).await.expect("within the limit");
            }
        });
        for size in sizes {
            let frame = read_frame(&mut ours, MAX).await.expect("a whole frame");
            assert_eq!(frame, vec![7; size]);
        }
        assert!(matches!(read_frame(&mut ours, MAX).await, Err(FrameError::Closed)));
        writer.await.expect("the writer does not panic");
    }

    /// A peer that declares 4 GiB is refused although not one payload byte follows.
    #[tokio::test]
    async fn lying_length_is_refused_before_allocation() {
        let error = received(&[0xff; 4]).await.expect_err("over the limit");
        assert!(
            matches!(error, FrameError::TooLarge { declared, max: MAX } if declared == 0xffff_ffff)
        );
        assert!(!error.is_broken_stream());
    }

    /// A length within the limit that is never delivered ends as truncated, not as a short frame.
    #[tokio::test]
    async fn truncated_frame_is_told_from_a_clean_end() {
        let error = received(&[0, 0, 0, 5, 1, 2]).await.expect_err("two of five bytes");
        assert!(matches!(error, FrameError::TruncatedFrame { received: 2, declared: 5 }));
        let error = received(&[0, 0]).await.expect_err("half a header");
        assert!(matches!(error, FrameError::TruncatedFrame { received: 2, declared: 4 }));
        assert!(matches!(received(&[]).await, Err(FrameError::Closed)));
    }

    #[tokio::test]
    async fn oversize_frame_is_not_written() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let error = write_frame(&mut theirs, &[0; 11], 10).await.expect_err("over the limit");
        assert!(matches!(error, FrameError::TooLarge { declared: 11, max: 10 }));
        drop(theirs);
        assert!(matches!(read_frame(&mut ours, 10).await, Err(FrameError::Closed)));
    }
}
