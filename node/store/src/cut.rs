//! Cutting a file into chunks, and naming them and all its bytes together, in one reading.
//!
//! ```text
//! read ──► batch ──► chunks named ─┐ at the same time, and while the next batch is read
//!              └───► whole hashed ─┘
//! ```
//!
//! A chunk's name and the hash of the whole file share no work: BLAKE3 numbers its leaves from
//! the start of what is hashed. So a file of many chunks is hashed twice, and read once.
//!
//! # Bounds
//!
//! Two batches of [`BATCH_BYTES`] are in memory.

use std::io::{self, Read};
use std::ops::Range;
use std::thread;

use dockercomp_protocol::content::{self, Digest};
use dockercomp_protocol::manifest::{Chunk, Chunker};

/// A multiple of every fixed size, and far more than the largest chunk.
const BATCH_BYTES: usize = 16 << 20;

/// What a file was cut into.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) b3: Digest,
    pub(crate) size: u64,
}

/// Cuts all that can be read. More than one thread helps with files of several batches only.
pub(crate) fn cut(
    mut from: impl Read + Send,
    chunker: Chunker,
    threads: usize,
    done: impl Fn(u64),
) -> io::Result<Cut> {
    let (mut chunks, mut size, mut whole) = (Vec::new(), 0, blake3::Hasher::new());
    let mut batch = fill(&mut from, Vec::new())?;
    loop {
        let is_last = batch.len() < BATCH_BYTES;
        let cuts = boundaries(chunker, &batch, is_last);
        let used = cuts.last().map_or(0, |cut| cut.end);
        let rest = batch[used..].to_vec();
        if is_last && chunks.is_empty() && cuts.len() <= 1 {
            return Ok(single(&batch));
        }
        let next = if threads > 1 {
            thread::scope(|scope| {
                let reading =
                    scope.spawn(|| if is_last { Ok(rest) } else { fill(&mut from, rest) });
                let share = cuts.len().div_ceil(threads - 1).max(1);
                let name = |cuts: &[Range<usize>]| named(&batch, cuts);
                let naming: Vec<_> =
                    cuts.chunks(share).map(|cuts| scope.spawn(move || name(cuts))).collect();
                whole.update(&batch[..used]);
                for part in naming {
                    chunks.extend(part.join().unwrap_or_else(|why| std::panic::resume_unwind(why)));
                }
                reading.join().unwrap_or_else(|why| std::panic::resume_unwind(why))
            })?
        } else {
            for cut in &cuts {
                chunks.extend(named(&batch, std::slice::from_ref(cut)));
                // While it is in the processor's cache.
                whole.update(&batch[cut.clone()]);
            }
            if is_last { rest } else { fill(&mut from, rest)? }
        };
        size += used as u64;
        done(used as u64);
        if is_last {
            return Ok(Cut { chunks, b3: *whole.finalize().as_bytes(), size });
        }
        batch = next;
    }
}

/// A file of one chunk or none: the chunk's name is that of the file.
fn single(bytes: &[u8]) -> Cut {
    let b3 = content::digest_of(bytes);
    let chunk = Chunk(content::from_digest(content::RAW, b3), length(bytes.len()));
    let chunks = if bytes.is_empty() { Vec::new() } else { vec![chunk] };
    Cut { chunks, b3, size: bytes.len() as u64 }
}

fn named(batch: &[u8], cuts: &[Range<usize>]) -> Vec<Chunk> {
    let name =
        |cut: &Range<usize>| Chunk(content::chunk_cid(&batch[cut.clone()]), length(cut.len()));
    cuts.iter().map(name).collect()
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a chunk has at most 4 MiB")
}

/// Where the chunks of a batch lie. What follows the last one belongs to the next batch.
fn boundaries(chunker: Chunker, batch: &[u8], is_last: bool) -> Vec<Range<usize>> {
    match chunker {
        Chunker::Fixed { size } => {
            let size = size as usize;
            let starts = (0..batch.len()).step_by(size);
            starts.map(|start| start..(start + size).min(batch.len())).collect()
        }
        Chunker::FastCdc { min, avg, max } => {
            let (min, avg, max) = (min as usize, avg as usize, max as usize);
            let found = fastcdc::v2020::FastCDC::new(batch, min, avg, max);
            let mut cuts: Vec<_> =
                found.map(|chunk| chunk.offset..chunk.offset + chunk.length).collect();
            // Its end may be that of the batch, and not one that the content gives.
            if !is_last {
                cuts.pop();
            }
            cuts
        }
    }
}

/// Reads until the batch is full or nothing more comes.
fn fill(from: &mut impl Read, mut batch: Vec<u8>) -> io::Result<Vec<u8>> {
    let room = BATCH_BYTES - batch.len();
    from.by_ref().take(room as u64).read_to_end(&mut batch)?;
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    /// What is cut in batches, on any number of threads, is what is cut at once.
    #[test]
    fn batches_and_threads_change_nothing() {
        let bytes = noise(2 * BATCH_BYTES + 12_345);
        for chunker in [Chunker::Fixed { size: 256 << 10 }, Chunker::FAST_CDC] {
            let at_once = named(&bytes, &boundaries(chunker, &bytes, true));
            for threads in [1, 3] {
                let cut = cut(&bytes[..], chunker, threads, |_| {}).expect("memory can be read");
                assert_eq!(cut.chunks, at_once, "{chunker:?} on {threads} threads");
                assert_eq!(cut.b3, content::digest_of(&bytes));
                assert_eq!(cut.size, bytes.len() as u64);
            }
        }
    }

    /// An insertion at the front moves everything: fixed chunks all change, others hardly.
    #[test]
    fn content_defined_chunks_survive_an_insertion() {
        let before = noise(24 << 20);
        let after = [&b"x"[..], &before].concat();
        let kept = |chunker| {
            let [old, new] = [&before, &after]
                .map(|bytes| cut(&bytes[..], chunker, 1, |_| {}).expect("memory").chunks);
            new.iter().filter(|chunk| old.contains(chunk)).count() * 100 / new.len()
        };
        assert_eq!(kept(Chunker::default()), 0);
        assert!(kept(Chunker::FAST_CDC) >= 90, "{} %", kept(Chunker::FAST_CDC));
    }

    #[test]
    fn the_smallest_files() {
        for len in [0, 1, BATCH_BYTES] {
            let bytes = noise(len);
            let cut = cut(&bytes[..], Chunker::default(), 2, |_| {}).expect("memory");
            assert_eq!(cut.chunks.len(), len.div_ceil(1 << 20));
            assert_eq!(cut.b3, content::digest_of(&bytes));
        }
    }
}
