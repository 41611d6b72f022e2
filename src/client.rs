//! The asking side of a control door.

use std::path::{Path, PathBuf};

use anyhow::Context;
use dockercomp_peer::api::{DatasetInfo, Problem, Step};
use dockercomp_peer::control::Door;
use futures::StreamExt;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncBufReadExt;
use tokio_util::io::StreamReader;

use crate::failure::{Code, Failure};

/// A connection to the process that runs on a data directory.
pub(crate) struct Client {
    dir: PathBuf,
    door: Door,
    http: reqwest::Client,
}

impl Client {
    /// The process on `dir`, which must run.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let door = Door::find(dir).ok_or_else(|| nobody(dir))?;
        // Straight to loopback, whatever proxies the environment names.
        let http = reqwest::Client::builder().no_proxy().build().context("cannot make a client")?;
        Ok(Self { dir: dir.to_owned(), door, http })
    }

    /// The data directory of the process.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.send(self.request(Method::GET, path)).await?;
        response.json().await.context("the process answered something unexpected")
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<T> {
        let response = self.send(self.request(Method::POST, path).body(body)).await?;
        response.json().await.context("the process answered something unexpected")
    }

    /// Posts JSON.
    pub(crate) async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<T> {
        let request = self.request(Method::POST, path);
        let response = self.send(request.header("content-type", "application/json").body(body));
        response.await?.json().await.context("the process answered something unexpected")
    }

    /// Sends a value and gives the answer.
    pub(crate) async fn post_value<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let response = self.send(self.request(Method::POST, path).json(body)).await?;
        response.json().await.context("the process answered something unexpected")
    }

    /// The body of an answer as a stream of bytes.
    pub(crate) async fn stream(
        &self,
        path: &str,
    ) -> anyhow::Result<impl tokio::io::AsyncRead + Unpin + Send + use<>> {
        let response = self.send(self.request(Method::GET, path)).await?;
        let body = response.bytes_stream().map(|chunk| chunk.map_err(std::io::Error::other));
        Ok(StreamReader::new(Box::pin(body)))
    }

    /// A long request: calls `progress` for each step, gives what it ends with.
    pub(crate) async fn steps(
        &self,
        path: &str,
        body: &impl Serialize,
        progress: impl FnMut(u64, u64),
    ) -> anyhow::Result<DatasetInfo> {
        self.follow(self.request(Method::POST, path).json(body), progress).await
    }

    /// Like [`Self::steps`], with bytes as the body and what is said of them in the query.
    pub(crate) async fn steps_of(
        &self,
        path: &str,
        query: &impl Serialize,
        body: reqwest::Body,
        progress: impl FnMut(u64, u64),
    ) -> anyhow::Result<DatasetInfo> {
        self.follow(self.request(Method::POST, path).query(query).body(body), progress).await
    }

    async fn follow(
        &self,
        request: RequestBuilder,
        mut progress: impl FnMut(u64, u64),
    ) -> anyhow::Result<DatasetInfo> {
        let response = self.send(request).await?;
        let body = response.bytes_stream().map(|chunk| chunk.map_err(std::io::Error::other));
        let mut lines = StreamReader::new(Box::pin(body)).lines();
        while let Some(line) = lines.next_line().await.context("the process went away")? {
            match serde_json::from_str(&line).context("the process answered something else")? {
                Step::Progress { done_bytes, total_bytes, .. } => progress(done_bytes, total_bytes),
                Step::Done(info) => return Ok(info),
                Step::Failed(problem) => return Err(Failure::from(problem).into()),
            }
        }
        anyhow::bail!("the process went away before it was done")
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.door.url)).bearer_auth(&self.door.token)
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Err(nobody(&self.dir).into()),
            Err(error) => return Err(error).context("the process did not answer"),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            // Another process has taken the port of one that was killed.
            return Err(nobody(&self.dir).into());
        }
        let problem: Problem =
            response.json().await.with_context(|| format!("the process answered {status}"))?;
        Err(Failure::from(problem).into())
    }
}

fn nobody(dir: &Path) -> Failure {
    Failure::new(Code::Unreachable, format!("no process runs on {}", dir.display())).fix(
        "start one (dockercomp coordinator start, dockercomp node start), or name another data \
         directory with --data-dir",
    )
}
