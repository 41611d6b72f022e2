//! Reading an origin once, to name its chunks.
//!
//! ```text
//! list ──► small objects, many at once ─► ranges ─► chunks named ─┐
//!     └──► large ones, one after another ─► ranges ─► (all cores) ─┴─► the store: no bodies
//! ```
//!
//! # Bounds
//!
//! Memory: [`SMALL_AT_ONCE`] objects of less than [`LARGE_BYTES_MIN`], or one object's
//! [`AHEAD`] ranges and what is being hashed of it (two times 16 MiB).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use dockercomp_protocol::manifest::{ChunkedFile, Chunker};
use dockercomp_store::{AddOptions, Object, Progress, Step, chunked};
use futures::{StreamExt, TryStreamExt};
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::client::{Client, Listed, OriginError, RANGE_BYTES};

/// Objects from this size are read by several requests and hashed by all cores, in bytes.
const LARGE_BYTES_MIN: u64 = 4 << 20;
/// Smaller ones that are read together: mostly it is the server's answer that is waited for.
const SMALL_AT_ONCE: usize = 16;
/// Ranges of a large object that are asked for before they are needed.
const AHEAD: usize = 4;

/// Names the chunks of all that there is.
pub(super) async fn name_all(
    client: Arc<Client>,
    options: &AddOptions,
) -> Result<Vec<(ChunkedFile, Object)>, OriginError> {
    let listed = client.list().await?;
    let report = Report {
        options: options.clone(),
        done: AtomicU64::new(0),
        bytes_total: listed.iter().map(|file| file.size).sum(),
        files_total: listed.len() as u64,
    };
    let (report, chunker) = (Arc::new(report), options.chunker);
    let (large, small): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|file| file.size >= LARGE_BYTES_MIN);
    let naming = futures::stream::iter(small)
        .map(|file| name(Arc::clone(&client), file, chunker, 1, Arc::clone(&report)));
    let mut named: Vec<_> = naming.buffer_unordered(SMALL_AT_ONCE).try_collect().await?;
    let cores = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    for file in large {
        let (client, report) = (Arc::clone(&client), Arc::clone(&report));
        named.push(name(client, file, chunker, cores, report).await?);
    }
    Ok(named)
}

async fn name(
    client: Arc<Client>,
    Listed { path, key, size }: Listed,
    chunker: Chunker,
    threads: usize,
    report: Arc<Report>,
) -> Result<(ChunkedFile, Object), OriginError> {
    let (first, object) = match size {
        0 => (Bytes::new(), Object { key, size, e_tag: None, modified_ms: 0 }),
        // It is also what tells whether the server sends parts.
        _ => client.read(&key, 0..size.min(RANGE_BYTES), None).await?,
    };
    let changed = |what| OriginError::Changed { object: object.key.clone(), what };
    if object.size != size {
        return Err(changed("its size, while it was added"));
    }
    let starts = (RANGE_BYTES..size).step_by(usize::try_from(RANGE_BYTES).expect("it is small"));
    let expected = object.clone();
    let rest = futures::stream::iter(starts).map(move |start| {
        let (client, expected) = (Arc::clone(&client), expected.clone());
        async move {
            let range = start..size.min(start + RANGE_BYTES);
            client.read(&expected.key, range, Some(&expected)).await.map(|(bytes, _)| bytes)
        }
    });
    let ranges = futures::stream::once(async { Ok(first) }).chain(rest.buffered(AHEAD));
    let ranges = ranges.map_err(io::Error::other).boxed();
    let reader = SyncIoBridge::new(StreamReader::new(ranges));
    let naming = move || chunked(path, reader, chunker, threads, |bytes| report.done(bytes));
    let named = tokio::task::spawn_blocking(naming).await.expect("naming does not panic");
    let file = named.map_err(|error| match error.downcast::<OriginError>() {
        Ok(error) => error,
        Err(_) => changed("its length, while it was added"),
    })?;
    if file.size != size {
        return Err(changed("its length, while it was added"));
    }
    Ok((file, object))
}

/// Tells how far it is.
struct Report {
    options: AddOptions,
    done: AtomicU64,
    bytes_total: u64,
    files_total: u64,
}

impl Report {
    fn done(&self, bytes: u64) {
        let Self { bytes_total, files_total, .. } = *self;
        let bytes = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(progress) = &self.options.progress {
            progress(Progress { step: Step::Hash, bytes, bytes_total, files_total });
        }
    }
}
