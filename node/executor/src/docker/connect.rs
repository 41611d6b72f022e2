//! Reaching an engine, and deciding whether it can be used.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use bollard::models::SystemInfo;
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::net::UnixStream;

use super::policy::{Host, NOBODY};
use crate::error::chain;

/// Why no Docker engine can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nothing listens at the engine's socket, or it may not be opened.
    #[error("no Docker engine answers at {address}: {}", plain(source))]
    Unreachable {
        /// The address that was tried.
        address: String,
        /// The operating system's words.
        #[source]
        source: io::Error,
    },
    /// Something listens, and does not speak as an engine does.
    #[error("no Docker engine answers at {address}: {}", chain(source))]
    Silent {
        /// The address that was tried.
        address: String,
        /// What went wrong.
        #[source]
        source: bollard::errors::Error,
    },
    /// The engine does not run Linux containers.
    #[error("the Docker engine at {address} runs {os} containers, and only linux ones are used")]
    OperatingSystem {
        /// The address that was tried.
        address: String,
        /// What it runs.
        os: String,
    },
    /// The engine maps user ids, so a container could not write its output directory.
    #[error("the Docker engine at {address} maps user ids ({mode}), which is not supported")]
    MappedUsers {
        /// The address that was tried.
        address: String,
        /// `rootless` or `userns`.
        mode: &'static str,
    },
}

impl ConnectError {
    /// What a person can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreachable { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "join the group `docker` (sudo usermod -aG docker $USER, then log in again) or use \
                 --executor wasm"
            }
            Self::Unreachable { .. } | Self::Silent { .. } => {
                "start it (sudo systemctl start docker, or dockerd), point DOCKER_HOST at it, or \
                 use --executor wasm"
            }
            Self::OperatingSystem { .. } | Self::MappedUsers { .. } => {
                "point DOCKER_HOST at an ordinary Linux engine or use --executor wasm"
            }
        }
    }
}

/// An engine that can be used.
pub(super) struct Connected {
    pub(super) docker: Docker,
    /// `docker 20.10.24`.
    pub(super) version: String,
    pub(super) host: Host,
}

/// Connects to the engine at `host`, at `DOCKER_HOST`, or at the default socket.
pub(super) async fn connect(host: Option<&str>) -> Result<Connected, ConnectError> {
    let address = host
        .map(str::to_owned)
        .or_else(|| std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()))
        .unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
    let address = if address.starts_with('/') { format!("unix://{address}") } else { address };

    // The client library hides why a socket cannot be opened; people need to know.
    if let Some(path) = address.strip_prefix("unix://") {
        UnixStream::connect(path)
            .await
            .map_err(|source| ConnectError::Unreachable { address: address.clone(), source })?;
    }
    let silent = |source| ConnectError::Silent { address: address.clone(), source };
    let docker = match address.strip_prefix("unix://") {
        Some(path) => Docker::connect_with_unix(path, CONNECT_SECONDS, API_DEFAULT_VERSION),
        None => Docker::connect_with_host(&address),
    };
    let docker = docker.map_err(silent)?.with_timeout(Duration::from_secs(CONNECT_SECONDS));
    let docker = docker.negotiate_version().await.map_err(silent)?;
    let info = docker.info().await.map_err(silent)?;
    check(&address, &info)?;

    let version = info.server_version.as_deref().unwrap_or("of unknown version");
    let version = format!("docker {}", version.split('+').next().unwrap_or(version));
    let (uid, gid) = container_user();
    let cpus = info.ncpu.and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
    Ok(Connected {
        docker: docker.with_timeout(REQUEST_TIMEOUT),
        version,
        host: Host { uid, gid, cpus },
    })
}

fn check(address: &str, info: &SystemInfo) -> Result<(), ConnectError> {
    let address = || address.to_owned();
    match info.os_type.as_deref() {
        None | Some("linux") => {}
        Some(os) => {
            return Err(ConnectError::OperatingSystem { address: address(), os: os.to_owned() });
        }
    }
    let options = info.security_options.as_deref().unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option.starts_with(name));
    for (option, mode) in [("name=rootless", "rootless"), ("name=userns", "userns")] {
        if has(option) {
            return Err(ConnectError::MappedUsers { address: address(), mode });
        }
    }
    if !has("name=seccomp") {
        tracing::warn!(address = address(), "the Docker engine has no seccomp filter");
    }
    Ok(())
}

/// User and group for containers: never root, and otherwise the node's own, so that the node
/// can read and remove what they write.
fn container_user() -> (u32, u32) {
    match std::fs::metadata("/proc/self") {
        Ok(own) if own.uid() != 0 => (own.uid(), own.gid()),
        Ok(_) | Err(_) => (NOBODY, NOBODY),
    }
}

/// The words of the operating system without its error number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// Where an engine listens when nothing else is said.
const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";
/// Longest wait for an engine that may not be there.
const CONNECT_SECONDS: u64 = 10;
/// Longest wait for the answer to an ordinary request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
