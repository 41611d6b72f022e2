//! Outputs and receipts of a job, as one archive.
//!
//! ```text
//! job                        the owner's signed words
//! units/<index>/…            what each work unit left
//! receipts/<index>.receipt   why it is canonical
//! ```

use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use dockercomp_peer::api::ProblemKind;
use dockercomp_peer::reply::Refused;
use dockercomp_protocol::envelope;
use dockercomp_protocol::receipt::Receipt;
use dockercomp_store::{Store, Want};
use futures::StreamExt;
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::ApiState;
use super::jobs::{parse, unknown};
use crate::jobs::Job;
use crate::receipts;

/// Bytes between the thread that reads the store and the one that sends.
const BUFFER: usize = 256 << 10;
/// Receipts read at one time.
const PAGE: usize = 64;

/// Streams the archive.
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
    let (reader, writer) = tokio::io::duplex(BUFFER);
    let store = state.peer.store().clone();
    let bridge = SyncIoBridge::new(writer);
    let writing = tokio::task::spawn_blocking(move || {
        write(&store, &job, bridge).inspect_err(|error| {
            tracing::error!(%error, job = %job.cid, "results could not be read");
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

fn write(store: &Store, job: &Arc<Job>, writer: impl io::Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(writer);
    append(&mut archive, "job", &job.sealed)?;
    let mut after = None;
    loop {
        let page = receipts::of_job(store, &job.cid, after, PAGE).map_err(io::Error::other)?;
        for (index, sealed) in &page {
            append(&mut archive, &format!("receipts/{index:08}.receipt"), sealed)?;
            let receipt = envelope::open::<Receipt>(sealed).map_err(io::Error::other)?;
            // Staging links files instead of copying them.
            let staged = tempfile::tempdir_in(store.dir())?;
            store
                .stage(&receipt.statement.output, &Want::All, staged.path())
                .map_err(io::Error::other)?;
            let into = FilePath::new("units").join(format!("{index:08}"));
            archive.append_dir_all(into, staged.path())?;
        }
        match page.last() {
            Some((index, _)) if page.len() == PAGE => after = Some(*index),
            _ => break,
        }
    }
    archive.into_inner()?.flush()
}

fn append(archive: &mut tar::Builder<impl io::Write>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, bytes)
}
