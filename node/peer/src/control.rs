//! The door by which commands on this machine reach a running process.
//!
//! HTTP on loopback. The address and a random token are in `control.json` in the data
//! directory, readable by its owner only; every request must carry the token. So whoever may
//! read the data directory may command the process, and nobody else.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What `control.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Door {
    /// Where the process answers, for example `http://127.0.0.1:40123`.
    pub url: String,
    /// What every request carries as `Authorization: Bearer`.
    pub token: String,
    /// The process.
    pub pid: u32,
}

/// Why the door cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The address is taken, or not ours.
    #[error("the control address {address} cannot be used; choose another with --api")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The address must not be reachable from elsewhere.
    #[error("the control address {address} is not on loopback, so strangers could reach it")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The file that tells commands where the door is cannot be written.
    #[error("{path} cannot be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// How long open answers may go on after the process was asked to stop.
const LINGER: Duration = Duration::from_secs(2);

/// The name of the file in the data directory.
const FILE: &str = "control.json";

impl Door {
    /// Reads the door of the process that runs on a data directory. Nothing if none does, or
    /// if what is written there is left over from one that was killed.
    #[must_use]
    pub fn find(dir: &Path) -> Option<Self> {
        let bytes = fs::read(dir.join(FILE)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Serves `router` on loopback until `shutdown`, and says in `dir` where.
///
/// # Errors
/// See [`ControlError`]. Once it serves, it does not fail.
pub async fn serve(
    dir: &Path,
    address: SocketAddr,
    router: Router,
    shutdown: CancellationToken,
) -> Result<tokio::task::JoinHandle<()>, ControlError> {
    if !address.ip().is_loopback() {
        return Err(ControlError::NotLoopback { address });
    }
    let bind = |source| ControlError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    let local = listener.local_addr().map_err(bind)?;
    let token = Arc::new(hex::encode(rand::random::<[u8; 32]>()));
    let door =
        Door { url: format!("http://{local}"), token: token.to_string(), pid: std::process::id() };
    let path = dir.join(FILE);
    write_private(&path, &door)
        .map_err(|source| ControlError::Write { path: path.clone(), source })?;
    let guarded = router.layer(middleware::from_fn_with_state(token, check_token));
    Ok(tokio::spawn(async move {
        let asked = shutdown.clone();
        let serving = axum::serve(listener, guarded)
            .with_graceful_shutdown(async move { asked.cancelled().await });
        // Whoever reads an answer slowly must not hold the process for ever.
        let patience = async {
            shutdown.cancelled().await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            served = serving => if let Err(error) = served {
                tracing::error!(%error, "control server stopped");
            },
            () = patience => {}
        }
        // Another process may have taken the place over; its file is left alone.
        if Door::find(path.parent().unwrap_or(Path::new(".")))
            .is_some_and(|d| d.token == door.token)
        {
            let _ = fs::remove_file(&path);
        }
    }))
}

async fn check_token(State(token): State<Arc<String>>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if given.is_some_and(|given| same(given.as_bytes(), token.as_bytes())) {
        next.run(request).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

/// Compares without telling by the time it takes where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

fn write_private(path: &Path, door: &Door) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(door)?)?;
    fs::rename(&temporary, path)
}
