//! Peers in directories of their own, and servers that can go away and come back.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use dockercomp_network::Role;
use dockercomp_peer::{Located, Options, Peer, Sharing};
use dockercomp_protocol::Cid;
use dockercomp_store::{AddOptions, Origin, Want};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// A peer, which ends with this.
pub(crate) struct TestPeer {
    pub(crate) peer: Peer,
    pub(crate) dir: TempDir,
    shutdown: CancellationToken,
}

impl TestPeer {
    pub(crate) async fn start(role: Role) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let shutdown = CancellationToken::new();
        let options = Options {
            dir: dir.path().to_owned(),
            role,
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")],
            external: Vec::new(),
            bootstrap: Vec::new(),
            remembered: None,
            quota_bytes: None,
            reserve_bytes: Some(0),
            sharing: Sharing::default(),
            lie: false,
        };
        let (peer, _tasks) = Peer::start(options, shutdown.clone()).await.expect("it starts");
        Self { peer, dir, shutdown }
    }

    pub(crate) fn located(&self) -> Located {
        let addresses = self.peer.network().advertised_addresses();
        Located { peer: self.peer.id(), addresses }
    }

    /// All files of a dataset that is here.
    pub(crate) fn files(&self, root: &Cid) -> BTreeMap<String, Vec<u8>> {
        let into = tempfile::tempdir().expect("a temporary directory");
        self.peer.store().export(root, &[Want::All], into.path()).expect("it is complete");
        read(into.path())
    }

    /// Files that the store keeps beside its database.
    pub(crate) fn bodies(&self) -> BTreeMap<String, Vec<u8>> {
        read(&self.dir.path().join("data"))
    }
}

impl Drop for TestPeer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The root that these files have when they are added as a folder.
pub(crate) async fn root_of(files: &BTreeMap<String, Vec<u8>>) -> Cid {
    let folder = tempfile::tempdir().expect("a temporary directory");
    write(folder.path(), files);
    let peer = TestPeer::start(Role::Client).await;
    let added = peer.peer.add(folder.path().to_owned(), AddOptions::default()).await;
    added.expect("a plain folder").root
}

/// Bytes that depend on the seed and do not repeat.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
    out
}

pub(crate) fn write(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a directory");
        fs::write(path, bytes).expect("a file");
    }
}

fn read(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = walkdir::WalkDir::new(dir).into_iter().map(|entry| entry.expect("an entry"));
    let files = entries.filter(|entry| entry.file_type().is_file());
    let named = files.map(|entry| {
        let name = entry.path().strip_prefix(dir).expect("below it");
        let name = name.to_str().expect("UTF-8").to_owned();
        (name, fs::read(entry.path()).expect("a file"))
    });
    named.collect()
}

/// A server on loopback.
pub(crate) struct Server {
    pub(crate) at: SocketAddr,
    router: Router,
    /// GET requests so far.
    gets: Arc<AtomicUsize>,
    running: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves this.
    pub(crate) async fn start(router: Router) -> Self {
        let gets = Arc::new(AtomicUsize::new(0));
        let router = router.layer(from_fn_with_state(Arc::clone(&gets), count));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let running = Some(tokio::spawn(accept(listener, router.clone())));
        Self { at, router, gets, running }
    }

    /// An S3 server whose buckets are the folders in `root`, for whoever has the key and its
    /// secret.
    pub(crate) async fn s3(root: PathBuf, key: Option<(&str, &str)>) -> Self {
        let files = s3s_fs::FileSystem::new(root).expect("a folder");
        let mut builder = S3ServiceBuilder::new(files);
        if let Some((key, secret)) = key {
            builder.set_auth(SimpleAuth::from_single(key, secret));
        }
        let service = builder.build();
        let answer = move |request: Request| async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.expect("a small body");
            let request = axum::http::Request::from_parts(parts, s3s::Body::from(body));
            match service.call(request).await {
                Ok(answer) => answer.map(Body::new),
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        };
        Self::start(Router::new().fallback(answer)).await
    }

    /// Ends the server and all its connections.
    pub(crate) async fn stop(&mut self) {
        let running = self.running.take().expect("it runs");
        running.abort();
        let _ = running.await;
    }

    /// Starts it again where it was.
    pub(crate) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.at).await.expect("the same port");
        self.running = Some(tokio::spawn(accept(listener, self.router.clone())));
    }

    pub(crate) fn gets(&self) -> usize {
        self.gets.load(Ordering::Relaxed)
    }

    /// A file of this web server.
    pub(crate) fn file(&self, path: &str) -> Origin {
        Origin {
            url: format!("http://{}/{path}", self.at),
            endpoint: None,
            region: None,
            allow_http: true,
            anonymous: true,
        }
    }

    /// A bucket of this S3 server, or what is below a prefix of it.
    pub(crate) fn bucket(&self, address: &str) -> Origin {
        let endpoint = Some(format!("http://{}", self.at));
        Origin { url: format!("s3://{address}"), endpoint, ..self.file("") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

async fn count(State(gets): State<Arc<AtomicUsize>>, request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        gets.fetch_add(1, Ordering::Relaxed);
    }
    next.run(request).await
}

/// Connections end with this, unlike those of `axum::serve`.
async fn accept(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let builder = Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}
