//! Outputs and receipts of a job, as one archive.
//!
//! ```text
//! job                        the owner's signed words
//! head                       the head of the log under which the receipts are
//! units/<index>/…            what each work unit of the last level left
//! receipts/<index>.receipt   why that, and everything that it was made of, is canonical
//! ```

use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use dockercomp_peer::Peer;
use dockercomp_peer::api::ProblemKind;
use dockercomp_peer::reply::Refused;
use dockercomp_protocol::codec;
use dockercomp_protocol::limits::ENVELOPE_BYTES_MAX;
use dockercomp_protocol::receipt::Entry;
use dockercomp_store::Want;
use futures::StreamExt;
use serde::Deserialize;
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::ApiState;
use super::jobs::{parse, unknown};
use crate::inline;
use crate::jobs::Job;
use crate::log::{Heads, SealedHead, Tiles};
use crate::receipts::{self, Seal};

/// Bytes between the thread that reads the store and the one that sends.
const BUFFER: usize = 256 << 10;
/// Receipts read at one time.
const PAGE: usize = 64;

/// All that an archive is made from.
struct Source {
    peer: Peer,
    seal: Arc<Seal>,
    heads: Heads,
    head: Arc<SealedHead>,
    job: Arc<Job>,
    with_outputs: bool,
}

/// Streams outputs and receipts of a finished job.
pub(super) async fn archive(
    State(state): State<ApiState>,
    Path(job): Path<String>,
) -> Result<Response, Refused> {
    let cid = parse(&job)?;
    let job = state.jobs.get(&cid).ok_or_else(|| unknown(&cid))?;
    let view = state.decider.look(move |core| core.job(cid)).await.map_err(Refused::internal)?;
    let view = view.ok_or_else(|| unknown(&cid))?;
    if view.stored < view.units {
        let message = format!("{} of {} work units are done", view.stored, view.units);
        return Err(Refused::message(ProblemKind::Conflict, message).fix("dockercomp job watch"));
    }
    stream(&state, job, true)
}

/// Streams the receipts that a job has so far.
pub(super) async fn receipts(
    State(state): State<ApiState>,
    Path(job): Path<String>,
) -> Result<Response, Refused> {
    let cid = parse(&job)?;
    let job = state.jobs.get(&cid).ok_or_else(|| unknown(&cid))?;
    stream(&state, job, false)
}

/// Which head is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Since {
    /// The number of entries of an earlier head, which it is to carry on.
    #[serde(default)]
    since: u64,
}

/// The newest head of the log, with the proof that it carries an earlier one on.
pub(super) async fn head(
    State(state): State<ApiState>,
    Query(Since { since }): Query<Since>,
) -> Result<Response, Refused> {
    let notices = state.heads.notices(vec![since]).await.map_err(Refused::internal)?;
    let notice = notices.into_iter().next().ok_or_else(no_head)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], notice).into_response())
}

fn no_head() -> Refused {
    Refused::message(ProblemKind::NotFound, "no work unit was accepted yet, so the log is empty")
}

fn stream(state: &ApiState, job: Arc<Job>, with_outputs: bool) -> Result<Response, Refused> {
    let source = Source {
        peer: state.peer.clone(),
        seal: Arc::clone(&state.seal),
        heads: state.heads.clone(),
        head: state.heads.newest().ok_or_else(no_head)?,
        job,
        with_outputs,
    };
    let (reader, writer) = tokio::io::duplex(BUFFER);
    let bridge = SyncIoBridge::new(writer);
    let writing = tokio::task::spawn_blocking(move || {
        source.write(bridge).inspect_err(|error| {
            tracing::error!(%error, job = %source.job.cid, "results could not be read");
        })
    });
    // An archive that was cut short could be taken for a whole one, so an error of the writer
    // ends the answer as an error.
    let ended = futures::stream::once(async move {
        match writing.await {
            Ok(Ok(())) => Ok(Bytes::new()),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    });
    let body = Body::from_stream(ReaderStream::new(reader).chain(ended));
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body).into_response())
}

impl Source {
    fn write(&self, writer: impl io::Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(writer);
        append(&mut archive, "job", &self.job.sealed)?;
        let notice = self.heads.notice(&self.head, 0).map_err(io::Error::other)?;
        append(&mut archive, "head", &codec::encode(&notice))?;
        let store = self.peer.store();
        let tiles = Tiles::new(store);
        let mut after = None;
        loop {
            let page = receipts::of_job(store, &self.job.cid, after, PAGE);
            let page = page.map_err(io::Error::other)?;
            for stored in &page {
                let receipt = receipts::receipt(stored, &self.job, &self.seal, &self.head, &tiles);
                let Some(receipt) = receipt.map_err(io::Error::other)? else { continue };
                let name = format!("receipts/{:08}.receipt", stored.index);
                append(&mut archive, &name, &receipt)?;
                let is_result = self.job.plan.layout().results().contains(&stored.index);
                if self.with_outputs && is_result {
                    self.write_output(&mut archive, &stored.entry, stored.index)?;
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.index),
                _ => break,
            }
        }
        archive.into_inner()?.flush()
    }

    fn write_output(
        &self,
        archive: &mut tar::Builder<impl io::Write>,
        entry: &[u8],
        index: u64,
    ) -> io::Result<()> {
        let entry: Entry =
            codec::decode_within(entry, ENVELOPE_BYTES_MAX).map_err(io::Error::other)?;
        let store = self.peer.store();
        let into = FilePath::new("units").join(format!("{index:08}"));
        if let Some(files) = inline::files(store, &entry.output)? {
            append_folder(archive, &into)?;
            for file in files {
                append(archive, into.join(&file.path), &file.bytes)?;
            }
            return Ok(());
        }
        // Staging links files instead of copying them.
        let staged = tempfile::tempdir_in(store.dir())?;
        store.stage(&entry.output, &Want::All, staged.path()).map_err(io::Error::other)?;
        archive.append_dir_all(into, staged.path())
    }
}

fn append_folder(archive: &mut tar::Builder<impl io::Write>, path: &FilePath) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    archive.append_data(&mut header, path, io::empty())
}

fn append(
    archive: &mut tar::Builder<impl io::Write>,
    path: impl AsRef<FilePath>,
    bytes: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, bytes)
}
