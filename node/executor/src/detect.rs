//! Choosing the executor: Docker where an engine answers, WebAssembly elsewhere.
//!
//! The choice is always explained, because a volunteer who installed Docker and sees `wasm`
//! needs to know what is wrong with it.

use std::sync::Arc;

use crate::Executor;
use crate::docker::{ConnectError, DockerExecutor};
use crate::wasm::{RuntimeError, WasmExecutor};

/// What a person asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Docker if an engine answers, else WebAssembly.
    #[default]
    Auto,
    /// Docker, or an error.
    Docker,
    /// WebAssembly; no engine is asked.
    Wasm,
}

/// What an executor needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The node's id. Containers and image tags carry it, and cleanup goes by it: nodes that
    /// share an engine must have different ids.
    pub node: String,
    /// The engine's address; `None` is `DOCKER_HOST`, or the default socket.
    pub docker_host: Option<String>,
}

/// The executor that was chosen.
#[derive(Clone)]
pub struct Chosen {
    /// The executor.
    pub executor: Arc<dyn Executor>,
    /// Why this one, in one sentence for people.
    pub reason: String,
}

/// Why no executor could be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChooseError {
    /// Docker was asked for and cannot be used.
    #[error("{source}; {}", source.remedy())]
    Docker {
        /// What was tried, and the cause.
        source: ConnectError,
    },
    /// The WebAssembly runtime does not work on this machine.
    #[error("the WebAssembly runtime could not be started")]
    Wasm(#[source] RuntimeError),
}

/// Chooses an executor.
///
/// # Errors
///
/// When the one that was asked for cannot be used here; the message says what to do.
pub async fn choose(wanted: Choice, options: &Options) -> Result<Chosen, ChooseError> {
    match wanted {
        Choice::Wasm => wasm("because it was asked for"),
        Choice::Docker => {
            let connected = DockerExecutor::connect(options).await;
            let executor = connected.map_err(|source| ChooseError::Docker { source })?;
            Ok(docker(executor, "because it was asked for"))
        }
        Choice::Auto => match DockerExecutor::connect(options).await {
            Ok(executor) => Ok(docker(executor, "because its engine answers")),
            Err(error) => wasm(&format!("because {error}")),
        },
    }
}

fn docker(executor: DockerExecutor, because: &str) -> Chosen {
    let reason = format!("docker, {because} ({})", executor.version());
    Chosen { executor: Arc::new(executor), reason }
}

fn wasm(because: &str) -> Result<Chosen, ChooseError> {
    let executor = WasmExecutor::new().map_err(ChooseError::Wasm)?;
    Ok(Chosen { executor: Arc::new(executor), reason: format!("wasm, {because}") })
}

#[cfg(test)]
mod tests {
    use dockercomp_protocol::execution::ExecutorKind;

    use super::*;

    fn without_engine() -> Options {
        Options {
            node: "test".to_owned(),
            docker_host: Some("unix:///nonexistent/docker.sock".to_owned()),
        }
    }

    #[tokio::test]
    async fn without_an_engine_wasm_is_chosen_and_the_cause_said() {
        let chosen = choose(Choice::Auto, &without_engine()).await.expect("wasm always works");
        assert_eq!(chosen.executor.kind(), ExecutorKind::Wasm);
        assert_eq!(
            chosen.reason,
            "wasm, because no Docker engine answers at unix:///nonexistent/docker.sock: \
             No such file or directory"
        );
    }

    #[tokio::test]
    async fn asking_for_docker_without_an_engine_says_what_to_do() {
        let error = choose(Choice::Docker, &without_engine()).await.err().expect("an error");
        let text = error.to_string();
        for words in
            ["unix:///nonexistent/docker.sock", "No such file", "dockerd", "--executor wasm"]
        {
            assert!(text.contains(words), "{words:?} is not in {text:?}");
        }
    }

    #[tokio::test]
    async fn something_else_at_the_address_is_no_engine() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("tcp://{}", listener.local_addr().expect("an address"));
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                drop(socket);
            }
        });
        let options = Options { node: "test".to_owned(), docker_host: Some(address.clone()) };
        let chosen = choose(Choice::Auto, &options).await.expect("wasm always works");
        assert_eq!(chosen.executor.kind(), ExecutorKind::Wasm);
        assert!(chosen.reason.contains(&address), "{}", chosen.reason);
        server.abort();
    }
}
