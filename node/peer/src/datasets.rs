//! Commands about datasets on the control door.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use dockercomp_protocol::Cid;
use dockercomp_protocol::manifest::Chunker;
use dockercomp_store::{
    AddError, AddOptions, CarError, Checked, Dataset, Kind, Origin, StoreError, Want,
};
use futures::StreamExt;
use tokio::sync::{mpsc, watch};

use crate::api::{
    AddRequest, CarRequest, DatasetInfo, DatasetRequest, Found, GetRequest, OriginRequest,
    ProblemKind, ProviderInfo, Step, StreamRequest,
};
use crate::library::{self, PathsError};
use crate::origins::shown;
use crate::reply::Refused;
use crate::spool::Spool;
use crate::{FetchError, OriginError, Peer};

/// Steps that wait for a slow reader; progress beyond them is dropped.
const STEPS: usize = 64;

/// The routes.
pub fn router(peer: Peer) -> Router {
    Router::new()
        .route("/api/v1/datasets", get(list).post(add))
        .route("/api/v1/datasets/stream", post(add_stream))
        .route("/api/v1/datasets/origin", post(add_origin))
        .route("/api/v1/datasets/get", post(fetch))
        .route("/api/v1/datasets/pin", post(pin))
        .route("/api/v1/datasets/unpin", post(unpin))
        .route("/api/v1/datasets/rm", post(remove))
        .route("/api/v1/datasets/check", post(check))
        .route("/api/v1/datasets/providers", post(providers))
        .route("/api/v1/datasets/export", post(export))
        .route("/api/v1/datasets/import", post(import))
        .with_state(peer)
}

async fn list(State(peer): State<Peer>) -> Result<Json<Vec<DatasetInfo>>, Refused> {
    let datasets = peer.datasets().await.map_err(Refused::internal)?;
    Ok(Json(datasets.into_iter().filter(|d| d.kind != Kind::Output).map(info).collect()))
}

async fn add(State(peer): State<Peer>, Json(request): Json<AddRequest>) -> Response {
    steps(move |steps| async move {
        let options = AddOptions {
            name: request.name,
            chunker: chunker(request.content_defined, request.chunk_bytes),
            in_place: request.in_place,
            ..AddOptions::default()
        };
        added(&peer, request.path, options, steps).await
    })
}

/// Adds what the body holds as a dataset of one file.
async fn add_stream(
    State(peer): State<Peer>,
    Query(request): Query<StreamRequest>,
    body: Body,
) -> Response {
    steps(move |steps| async move {
        dockercomp_protocol::manifest::check_path(&request.file)
            .map_err(|error| Refused::new(ProblemKind::BadRequest, error))?;
        let spool = Spool::fill(peer.store(), &request.file, body, &steps).await?;
        let options = AddOptions {
            name: request.name,
            chunker: chunker(request.content_defined, None),
            ..AddOptions::default()
        };
        added(&peer, spool.path.clone(), options, steps).await
    })
}

/// Adds what stays at its origin, and brings it here as well if that is asked for.
async fn add_origin(State(peer): State<Peer>, Json(request): Json<OriginRequest>) -> Response {
    steps(move |steps| async move {
        let copy = request.copy;
        let named = steps.clone();
        let report = move |done: dockercomp_store::Progress| {
            // Naming the chunks is one half of the way, if they are brought here afterwards.
            let done_bytes = if copy { done.bytes / 2 } else { done.bytes };
            let _ = named.try_send(Step::Progress { done_bytes, total_bytes: done.bytes_total });
        };
        let options = AddOptions {
            name: request.name,
            chunker: chunker(request.content_defined, request.chunk_bytes),
            progress: Some(Arc::new(report)),
            ..AddOptions::default()
        };
        let origin = Origin {
            url: request.url,
            endpoint: request.endpoint,
            region: request.region,
            allow_http: request.allow_http,
            anonymous: request.anonymous,
        };
        let added = peer.add_at(origin, options).await.map_err(of_origin)?;
        if copy {
            let total_bytes = added.bytes;
            let report = |done| {
                let done_bytes = u64::midpoint(total_bytes, done);
                let _ = steps.try_send(Step::Progress { done_bytes, total_bytes });
            };
            peer.bring(added.root, report).await.map_err(of_origin)?;
        }
        let info = describe(&peer, added.root).await?;
        Ok(DatasetInfo { shared_bytes: Some(added.shared_bytes), ..info })
    })
}

fn of_origin(error: OriginError) -> Refused {
    match error.met() {
        OriginError::Add(AddError::Store(StoreError::Quota { .. }))
        | OriginError::Store(StoreError::Quota { .. }) => no_room(error),
        OriginError::NoRanges { .. } => Refused::new(ProblemKind::BadRequest, error)
            .fix("copy it: curl -L URL | dockercomp dataset add - --name FILE"),
        OriginError::List { .. }
        | OriginError::Read { .. }
        | OriginError::TimedOut { .. }
        | OriginError::Away { .. } => Refused::new(ProblemKind::NotFound, error).fix(
            "see that the server answers, and that the process that seeds has the right \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or say --anonymous",
        ),
        OriginError::Empty { .. } => Refused::new(ProblemKind::NotFound, error),
        OriginError::Changed { .. } => Refused::new(ProblemKind::Conflict, error),
        OriginError::Store(_) | OriginError::Add(AddError::Store(_)) => Refused::internal(error),
        _ => Refused::new(ProblemKind::BadRequest, error),
    }
}

fn chunker(content_defined: bool, chunk_bytes: Option<u32>) -> Chunker {
    match chunk_bytes {
        _ if content_defined => Chunker::FAST_CDC,
        Some(size) => Chunker::Fixed { size },
        None => Chunker::default(),
    }
}

async fn added(
    peer: &Peer,
    path: PathBuf,
    options: AddOptions,
    steps: mpsc::Sender<Step>,
) -> Result<DatasetInfo, Refused> {
    let report = move |done: dockercomp_store::Progress| {
        // Naming the chunks is one half of the way, storing them the other.
        let before = match done.step {
            dockercomp_store::Step::Hash => 0,
            dockercomp_store::Step::Store => done.bytes_total,
        };
        let _ = steps.try_send(Step::Progress {
            done_bytes: u64::midpoint(before, done.bytes),
            total_bytes: done.bytes_total,
        });
    };
    let options = AddOptions { progress: Some(Arc::new(report)), ..options };
    let added = peer.add(path, options).await.map_err(|error| match &error {
        AddError::Store(StoreError::Quota { .. }) => no_room(error),
        AddError::Store(_) => Refused::internal(error),
        _ => Refused::new(ProblemKind::BadRequest, error),
    })?;
    let info = describe(peer, added.root).await?;
    Ok(DatasetInfo { shared_bytes: Some(added.shared_bytes), ..info })
}

async fn fetch(State(peer): State<Peer>, Json(request): Json<GetRequest>) -> Response {
    steps(move |steps| async move {
        let root = library::root(&request.cid)?;
        let into = request.into.map(empty_folder).transpose()?;
        let _lease = peer.lease(&root);
        let (progress, watched) = watch::channel(dockercomp_exchange::Progress::default());
        let forward = tokio::spawn(forward(watched, steps));
        let fetched = if request.paths.is_empty() {
            let fetched = peer.fetch(root, Want::All, Vec::new(), Some(progress)).await;
            fetched.map(|_| vec![Want::All]).map_err(not_fetched)
        } else {
            let fetched = peer.fetch_paths(root, &request.paths, progress).await;
            fetched.map_err(|error| match error {
                PathsError::Fetch(error) => not_fetched(error),
                PathsError::Pattern { .. } => Refused::new(ProblemKind::BadRequest, error),
                PathsError::Nothing { .. } => Refused::new(ProblemKind::NotFound, error),
                PathsError::Store(error) => Refused::internal(error),
            })
        };
        forward.abort();
        let wants = fetched?;
        let info = describe(&peer, root).await?;
        if info.complete {
            peer.announce(root).await;
        }
        if let Some(into) = into {
            lay_out(&peer, root, wants, into).await?;
        }
        Ok(info)
    })
}

/// Passes progress on until the fetch is over.
async fn forward(
    mut watched: watch::Receiver<dockercomp_exchange::Progress>,
    steps: mpsc::Sender<Step>,
) {
    while watched.changed().await.is_ok() {
        let now = *watched.borrow_and_update();
        let _ = steps.try_send(Step::Progress {
            done_bytes: now.done_bytes,
            total_bytes: now.total_bytes.unwrap_or_default(),
        });
    }
}

fn not_fetched(error: FetchError) -> Refused {
    match &error {
        FetchError::Store { source, .. } if matches!(**source, StoreError::Quota { .. }) => {
            no_room(error)
        }
        FetchError::Volume { .. } => Refused::new(ProblemKind::Quota, error)
            .fix("give more with --monthly-volume, or wait for the next month"),
        FetchError::Unavailable { .. } => Refused::new(ProblemKind::NotFound, error)
            .fix("check that a process which holds the dataset is running"),
        _ => Refused::internal(error),
    }
}

async fn pin(
    State(peer): State<Peer>,
    Json(request): Json<DatasetRequest>,
) -> Result<Json<DatasetInfo>, Refused> {
    let root = library::root(&request.cid)?;
    peer.pin(root).await.map_err(not_changed)?;
    Ok(Json(describe(&peer, root).await?))
}

async fn unpin(
    State(peer): State<Peer>,
    Json(request): Json<DatasetRequest>,
) -> Result<Json<DatasetInfo>, Refused> {
    let root = library::root(&request.cid)?;
    peer.unpin(root).await.map_err(not_changed)?;
    Ok(Json(describe(&peer, root).await?))
}

async fn remove(
    State(peer): State<Peer>,
    Json(request): Json<DatasetRequest>,
) -> Result<Json<DatasetInfo>, Refused> {
    let root = library::root(&request.cid)?;
    let info = describe(&peer, root).await?;
    peer.remove(root).await.map_err(not_changed)?;
    Ok(Json(info))
}

fn not_changed(error: StoreError) -> Refused {
    match &error {
        StoreError::Unknown { .. } => Refused::new(ProblemKind::NotFound, error)
            .fix("list what is here with: dockercomp dataset ls"),
        StoreError::Pinned { .. } => Refused::new(ProblemKind::Conflict, error)
            .fix("let it go first with: dockercomp dataset unpin"),
        _ => Refused::internal(error),
    }
}

/// Reads everything, and fetches anew what is not right.
async fn check(State(peer): State<Peer>, Json(request): Json<DatasetRequest>) -> Response {
    steps(move |steps| async move {
        let root = library::root(&request.cid)?;
        let DatasetInfo { bytes: total_bytes, origin, .. } = describe(&peer, root).await?;
        let at_origin = steps.clone();
        let progress = steps.clone();
        let report = move |done_bytes| {
            let _ = progress.try_send(Step::Progress { done_bytes, total_bytes });
        };
        let checked = match peer.check(root, report).await {
            Ok(checked) => checked,
            // A block of the manifest has rotted: it is fetched first.
            Err(StoreError::Incomplete { .. }) => {
                peer.fetch(root, Want::Manifest, Vec::new(), None).await.map_err(not_fetched)?;
                peer.check(root, |_| {}).await.map_err(not_changed)?
            }
            Err(error) => return Err(not_changed(error)),
        };
        // What is missing stays at the origin on purpose, and what has rotted is there too.
        let stays = origin.is_some() && checked.missing > 0;
        let mended = if checked.rotten > 0 && !stays {
            let fetched = peer.fetch(root, Want::All, Vec::new(), None).await;
            fetched.map_err(not_fetched)?;
            true
        } else {
            false
        };
        let Checked { sound, rotten, missing, sound_bytes } = checked;
        let report = move |done| {
            let done_bytes = sound_bytes + done;
            let _ = at_origin.try_send(Step::Progress { done_bytes, total_bytes });
        };
        let there = peer.check_origin(root, report).await.map_err(of_origin)?;
        let found = Found {
            sound_chunks: sound + there.sound,
            rotten_chunks: rotten,
            missing_chunks: if stays { 0 } else { missing },
            mended,
            gone_chunks: there.gone,
            gone_objects: there.objects.into_iter().collect(),
        };
        Ok(DatasetInfo { found: Some(found), ..describe(&peer, root).await? })
    })
}

async fn providers(
    State(peer): State<Peer>,
    Json(request): Json<DatasetRequest>,
) -> Result<Json<Vec<ProviderInfo>>, Refused> {
    let root = library::root(&request.cid)?;
    let holders = peer.holders(root).await.into_iter().map(|holder| ProviderInfo {
        peer_id: holder.located.peer.to_string(),
        addresses: holder.located.addresses.iter().map(ToString::to_string).collect(),
        holds: library::word(holder.holds).to_owned(),
    });
    Ok(Json(holders.collect()))
}

async fn export(State(peer): State<Peer>, Json(request): Json<CarRequest>) -> Response {
    steps(move |steps| async move {
        let root = library::root(request.cid.as_deref().unwrap_or_default())?;
        let info = describe(&peer, root).await?;
        let total_bytes = info.bytes;
        let report = move |done_bytes| {
            let _ = steps.try_send(Step::Progress { done_bytes, total_bytes });
        };
        // A file that others can read needs all of it here first.
        peer.bring(root, |_| {}).await.map_err(of_origin)?;
        peer.export_car(root, request.path, report).await.map_err(of_car)?;
        Ok(info)
    })
}

async fn import(State(peer): State<Peer>, Json(request): Json<CarRequest>) -> Response {
    steps(move |steps| async move {
        let total_bytes = std::fs::metadata(&request.path).map_or(0, |found| found.len());
        let report = move |done_bytes| {
            let _ = steps.try_send(Step::Progress { done_bytes, total_bytes });
        };
        let root = peer.import_car(request.path, report).await.map_err(of_car)?;
        if let Some(name) = request.name {
            let store = peer.store().clone();
            let naming = tokio::task::spawn_blocking(move || store.name(&root, &name));
            naming.await.map_err(Refused::internal)?.map_err(not_changed)?;
        }
        describe(&peer, root).await
    })
}

fn of_car(error: CarError) -> Refused {
    let kind = match &error {
        CarError::Io(_) | CarError::Header | CarError::Block | CarError::Length { .. } => {
            ProblemKind::BadRequest
        }
        CarError::Put { .. } | CarError::Incomplete { .. } => ProblemKind::Verification,
        CarError::Store(StoreError::Quota { .. }) => ProblemKind::Quota,
        CarError::Store(StoreError::Incomplete { .. } | StoreError::Unknown { .. }) => {
            ProblemKind::NotFound
        }
        _ => ProblemKind::Internal,
    };
    Refused::new(kind, error)
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
async fn lay_out(peer: &Peer, root: Cid, wants: Vec<Want>, into: PathBuf) -> Result<(), Refused> {
    let store = peer.store().clone();
    let laid = tokio::task::spawn_blocking(move || store.export(&root, &wants, &into));
    laid.await.map_err(Refused::internal)?.map_err(Refused::internal)
}

async fn describe(peer: &Peer, root: Cid) -> Result<DatasetInfo, Refused> {
    let datasets = peer.datasets().await.map_err(Refused::internal)?;
    let found = datasets.into_iter().find(|dataset| dataset.root == root);
    found.map(info).ok_or_else(|| {
        Refused::message(ProblemKind::NotFound, format!("dataset {root} is not here"))
            .fix("list what is here with: dockercomp dataset ls")
    })
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
        pinned: dataset.pinned,
        origin: dataset.origin.map(|origin| shown(&origin.url).to_owned()),
        shared_bytes: None,
        found: None,
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
