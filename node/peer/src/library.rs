//! What a peer does with its datasets beside fetching whole ones: some of their files, checks,
//! removal, CAR files, and who else has them.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::time::Duration;

use dockercomp_exchange::{FetchError, Progress, provider_key};
use dockercomp_protocol::wire::chunk::Held;
use dockercomp_protocol::{Cid, content};
use dockercomp_store::{CarError, Checked, Store, StoreError, Want};
use futures::StreamExt;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use tokio::sync::watch;

use crate::{Located, Peer};

/// How long a provider may take to say what it holds.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Providers that are asked at once.
const ASKED_MAX: usize = 16;
/// Files of a manifest that are looked at together.
const PAGE: u64 = 512;

/// Why files of a dataset were not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathsError {
    /// A pattern is not one.
    #[error("{pattern:?} is not a pattern of paths")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// No file has such a path.
    #[error("no file of dataset {root} matches")]
    Nothing {
        /// The dataset.
        root: Cid,
    },
    /// Something was not to be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Somebody who announced a dataset, and how much of it they say they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who and where.
    pub located: Located,
    /// `None`: they did not answer.
    pub holds: Option<Held>,
}

impl Peer {
    /// Fetches the files whose paths match, and says which they are.
    ///
    /// # Errors
    /// See [`PathsError`].
    pub async fn fetch_paths(
        &self,
        root: Cid,
        patterns: &[String],
        progress: watch::Sender<Progress>,
    ) -> Result<Vec<Want>, PathsError> {
        let matcher = matcher(patterns)?;
        self.fetch(root, Want::Manifest, Vec::new(), None).await?;
        let store = self.store().clone();
        let (wants, total) = blocking(move || matching(&store, &root, &matcher)).await?;
        if wants.is_empty() {
            return Err(PathsError::Nothing { root });
        }
        let mut done = 0;
        for (want, bytes) in &wants {
            self.fetch(root, *want, Vec::new(), None).await?;
            done += bytes;
            progress.send_replace(Progress { done_bytes: done, total_bytes: Some(total) });
        }
        Ok(wants.into_iter().map(|(want, _)| want).collect())
    }

    /// Lets a dataset be removed again.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn unpin(&self, root: Cid) -> Result<(), StoreError> {
        let store = self.store().clone();
        blocking(move || store.unpin(&root)).await
    }

    /// Forgets a dataset, and says so in Kademlia.
    ///
    /// # Errors
    /// If it is not here or is pinned.
    pub async fn remove(&self, root: Cid) -> Result<(), StoreError> {
        let store = self.store().clone();
        blocking(move || store.remove(&root)).await?;
        if let Err(error) = self.network().stop_providing(&provider_key(&root)).await {
            tracing::warn!(%root, %error, "removed dataset is still announced");
        }
        Ok(())
    }

    /// Reads and verifies a dataset; `progress` is told the bytes gone through. What is not
    /// right is forgotten, and missing from then on.
    ///
    /// # Errors
    /// If it is not here.
    pub async fn check(
        &self,
        root: Cid,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<Checked, StoreError> {
        let store = self.store().clone();
        blocking(move || store.check(&root, progress)).await
    }

    /// Who announces a dataset, and how much of it each says they hold.
    pub async fn holders(&self, root: Cid) -> Vec<Holder> {
        let found = self.network().providers(&provider_key(&root)).await.unwrap_or_default();
        let asked = futures::stream::iter(found).map(|provider| async move {
            let asking = self.inner.exchange.held(provider.peer, root);
            let answer = tokio::time::timeout(ANSWER_MAX, asking).await;
            let holds = answer.ok().and_then(Result::ok);
            let located = Located { peer: provider.peer, addresses: provider.addresses };
            Holder { located, holds }
        });
        asked.buffer_unordered(ASKED_MAX).collect().await
    }

    /// Writes a dataset to a new CAR file; `progress` is told the bytes written.
    ///
    /// # Errors
    /// See [`CarError`].
    pub async fn export_car(
        &self,
        root: Cid,
        path: PathBuf,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<(), CarError> {
        let store = self.store().clone();
        blocking(move || {
            let file = File::create_new(path)?;
            store.export_car(&root, BufWriter::with_capacity(1 << 20, file), progress)
        })
        .await
    }

    /// Stores the dataset of a CAR file and announces it; `progress` is told the bytes read.
    ///
    /// # Errors
    /// See [`CarError`].
    pub async fn import_car(
        &self,
        path: PathBuf,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<Cid, CarError> {
        let store = self.store().clone();
        let root = blocking(move || {
            let file = BufReader::with_capacity(1 << 20, File::open(path)?);
            store.import_car(file, progress)
        })
        .await?;
        self.announce(root).await;
        Ok(root)
    }
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => unreachable!("blocking work is not cancelled while it is awaited"),
    })
}

fn matcher(patterns: &[String]) -> Result<GlobSet, PathsError> {
    let mut set = GlobSetBuilder::new();
    let refuse = |pattern: &String| {
        let pattern = pattern.clone();
        move |source| PathsError::Pattern { pattern, source }
    };
    for pattern in patterns {
        // As in a shell: * ends at a slash, ** does not.
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        set.add(glob.map_err(refuse(pattern))?);
    }
    set.build().map_err(|source| PathsError::Pattern { pattern: patterns.join(" "), source })
}

/// Runs of consecutive files that match, each with its bytes, and the bytes of all.
fn matching(
    store: &Store,
    root: &Cid,
    matcher: &GlobSet,
) -> Result<(Vec<(Want, u64)>, u64), StoreError> {
    let manifest = store.root(root)?.ok_or(StoreError::Unknown { root: *root })?;
    let mut runs: Vec<(u64, u64, u64)> = Vec::new();
    let mut number = 0;
    while number < manifest.files {
        for entry in store.files(root, number, PAGE)? {
            if matcher.is_match(&entry.path) {
                match runs.last_mut() {
                    Some((first, count, bytes)) if *first + *count == number => {
                        *count += 1;
                        *bytes += entry.size;
                    }
                    _ => runs.push((number, 1, entry.size)),
                }
            }
            number += 1;
        }
    }
    let total = runs.iter().map(|(_, _, bytes)| bytes).sum();
    let want = |(first, count, bytes)| (Want::Files { first, count }, bytes);
    Ok((runs.into_iter().map(want).collect(), total))
}

/// The word for how much somebody holds.
pub(crate) const fn word(holds: Option<Held>) -> &'static str {
    match holds {
        Some(Held::All) => "all",
        Some(Held::Part) => "part",
        Some(Held::None) => "none",
        None => "unreachable",
    }
}

/// Parses a root that a person typed.
pub(crate) fn root(text: &str) -> Result<Cid, crate::reply::Refused> {
    let refuse = |error| crate::reply::Refused::new(crate::api::ProblemKind::BadRequest, error);
    content::parse(text).map_err(refuse)
}
