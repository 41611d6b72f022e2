//! Commands about datasets on the control door.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use dockercomp_protocol::limits::CHUNK_BYTES_DEFAULT;
use dockercomp_protocol::{Cid, content};
use dockercomp_store::{AddError, AddOptions, Dataset, Kind, StoreError, Want};
use futures::StreamExt;
use tokio::sync::{mpsc, watch};

use crate::api::{AddRequest, DatasetInfo, GetRequest, ProblemKind, Step};
use crate::reply::Refused;
use crate::{FetchError, Peer};

/// Steps that wait for a slow reader; progress beyond them is dropped.
const STEPS: usize = 64;

/// The routes.
pub fn router(peer: Peer) -> Router {
    Router::new()
        .route("/api/v1/datasets", get(list).post(add))
        .route("/api/v1/datasets/get", post(fetch))
        .with_state(peer)
}

async fn list(State(peer): State<Peer>) -> Result<Json<Vec<DatasetInfo>>, Refused> {
    let datasets = peer.datasets().await.map_err(Refused::internal)?;
    Ok(Json(datasets.into_iter().filter(|d| d.kind != Kind::Output).map(info).collect()))
}

async fn add(State(peer): State<Peer>, Json(request): Json<AddRequest>) -> Response {
    steps(move |steps| async move {
        let progress = steps.clone();
        let options = AddOptions {
            name: request.name,
            chunk_bytes: request.chunk_bytes.unwrap_or(CHUNK_BYTES_DEFAULT),
            kind: Kind::Added,
            progress: Some(Arc::new(move |done: dockercomp_store::Progress| {
                // Naming the chunks is one half of the way, storing them the other.
                let before = match done.step {
                    dockercomp_store::Step::Hash => 0,
                    dockercomp_store::Step::Store => done.bytes_total,
                };
                let _ = progress.try_send(Step::Progress {
                    done_bytes: (before + done.bytes) / 2,
                    total_bytes: done.bytes_total,
                });
            })),
            normalise: false,
        };
        let added = peer.add(request.path, options).await.map_err(|error| match &error {
            AddError::Store(StoreError::Quota { .. }) => no_room(error),
            AddError::Store(_) => Refused::internal(error),
            _ => Refused::new(ProblemKind::BadRequest, error),
        })?;
        describe(&peer, added.root).await
    })
}

async fn fetch(State(peer): State<Peer>, Json(request): Json<GetRequest>) -> Response {
    steps(move |steps| async move {
        let root = content::parse(&request.cid)
            .map_err(|error| Refused::new(ProblemKind::BadRequest, error))?;
        let into = request.into.map(empty_folder).transpose()?;
        let (progress, mut watched) = watch::channel(dockercomp_exchange::Progress::default());
        let forward = tokio::spawn(async move {
            while watched.changed().await.is_ok() {
                let now = *watched.borrow_and_update();
                let _ = steps.try_send(Step::Progress {
                    done_bytes: now.done_bytes,
                    total_bytes: now.total_bytes.unwrap_or_default(),
                });
            }
        });
        let fetched = peer.fetch(root, Want::All, Vec::new(), Some(progress)).await;
        forward.abort();
        fetched.map_err(|error| match &error {
            FetchError::Store { source, .. } if matches!(**source, StoreError::Quota { .. }) => {
                no_room(error)
            }
            FetchError::Unavailable { .. } => Refused::new(ProblemKind::NotFound, error)
                .fix("check that a process which holds the dataset is running"),
            _ => Refused::internal(error),
        })?;
        peer.announce(root).await;
        if let Some(into) = into {
            lay_out(&peer, root, into).await?;
        }
        describe(&peer, root).await
    })
}

fn no_room(error: impl std::error::Error) -> Refused {
    Refused::new(ProblemKind::Quota, error).fix("give more room with --disk, or free some")
}

/// An empty folder at an absolute path, made if missing.
fn empty_folder(path: PathBuf) -> Result<PathBuf, Refused> {
    let refuse = |message: String| Refused::message(ProblemKind::BadRequest, message);
    if !path.is_absolute() {
        return Err(refuse(format!("{} is not an absolute path", path.display())));
    }
    std::fs::create_dir_all(&path)
        .map_err(|error| refuse(format!("cannot make {}: {error}", path.display())))?;
    match path.read_dir().map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(path),
        Ok(false) => Err(refuse(format!("{} is not empty", path.display()))),
        Err(error) => Err(refuse(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Copies a dataset out of the store: what the owner then changes must not change the store.
async fn lay_out(peer: &Peer, root: Cid, into: PathBuf) -> Result<(), Refused> {
    let store = peer.store().clone();
    let laid = tokio::task::spawn_blocking(move || store.export(&root, &into));
    laid.await.map_err(Refused::internal)?.map_err(Refused::internal)
}

async fn describe(peer: &Peer, root: Cid) -> Result<DatasetInfo, Refused> {
    let datasets = peer.datasets().await.map_err(Refused::internal)?;
    let found = datasets.into_iter().find(|dataset| dataset.root == root);
    found.map(info).ok_or_else(|| Refused::message(ProblemKind::Internal, "the dataset vanished"))
}

fn info(dataset: Dataset) -> DatasetInfo {
    DatasetInfo {
        cid: dataset.root.to_string(),
        name: dataset.name,
        kind: match dataset.kind {
            Kind::Added => "added",
            Kind::Fetched => "fetched",
            Kind::Output => "output",
        }
        .to_owned(),
        files: dataset.files,
        bytes: dataset.bytes,
        held_bytes: dataset.held_bytes,
        complete: dataset.complete,
    }
}

/// Runs a long request and streams its steps, one JSON value on a line.
fn steps<F>(work: impl FnOnce(mpsc::Sender<Step>) -> F) -> Response
where
    F: Future<Output = Result<DatasetInfo, Refused>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(STEPS);
    let working = work(sender);
    let (end, mut ended) = mpsc::channel(1);
    tokio::spawn(async move {
        let last = match working.await {
            Ok(info) => Step::Done(info),
            Err(Refused(problem)) => Step::Failed(problem),
        };
        let _ = end.send(last).await;
    });
    let stream = futures::stream::poll_fn(move |cx| {
        if let std::task::Poll::Ready(Some(step)) = receiver.poll_recv(cx) {
            return std::task::Poll::Ready(Some(step));
        }
        ended.poll_recv(cx)
    });
    let lines = stream.map(|step| {
        let mut line = serde_json::to_vec(&step)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(line))
    });
    Body::from_stream(lines).into_response()
}
