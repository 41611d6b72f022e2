//! Reading one origin through `object_store`: what there is, and ranges of it.
//!
//! Everything is read by ranges, at most [`RANGE_BYTES`] at once, and every answer is compared
//! with the version that was read first. So what changes while it is read, or after it was
//! added, is noticed by the request that meets it.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use dockercomp_protocol::manifest::{self, ManifestError};
use dockercomp_store::{AddError, Object, Origin, StoreError};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore,
    ObjectStoreExt, RetryConfig,
};
use url::Url;

/// Bytes of one request at the most, twice the largest chunk.
pub(super) const RANGE_BYTES: u64 = 8 << 20;
/// Objects that are looked at together.
const HEADS_AT_ONCE: usize = 16;
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Why an origin was not added, or not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// The address is not one of an origin.
    #[error("{url:?} is not an origin: {reason}")]
    Url {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The client could not be made.
    #[error("{url} cannot be used")]
    Setup {
        /// The address.
        url: String,
        /// What is wrong with it.
        source: Box<object_store::Error>,
    },
    /// What there is could not be listed.
    #[error("{url} could not be listed")]
    List {
        /// The address.
        url: String,
        /// What the server said.
        source: Box<object_store::Error>,
    },
    /// There is nothing.
    #[error("there is nothing at {url}")]
    Empty {
        /// The address.
        url: String,
    },
    /// An object has a name that no dataset may have.
    #[error("object {key:?} cannot be part of a dataset")]
    Name {
        /// Its key.
        key: String,
        /// What is wrong with it.
        source: Box<ManifestError>,
    },
    /// An object is not what was added, or not what was read of it before.
    #[error("{object} changed at its origin: {what}; add it again to share what it is now")]
    Changed {
        /// Its key.
        object: String,
        /// What differs.
        what: &'static str,
    },
    /// The server gives whole files only.
    #[error("the server of {object} does not send parts of a file, so no chunk can be read there")]
    NoRanges {
        /// Its key.
        object: String,
    },
    /// The origin did not answer, or refused.
    #[error("{object} could not be read at its origin")]
    Read {
        /// Its key.
        object: String,
        /// What the server said.
        source: Box<object_store::Error>,
    },
    /// The origin took too long.
    #[error("{object} could not be read at its origin within {after:?}")]
    TimedOut {
        /// Its key.
        object: String,
        /// How long was waited.
        after: Duration,
    },
    /// The origin failed a moment ago, and is left alone.
    #[error("the origin of {object} does not answer at the moment")]
    Away {
        /// The key of what was asked for.
        object: String,
    },
    /// No origin has the block.
    #[error("no origin is known to have the block")]
    Unknown,
    /// The dataset could not be put into the store.
    #[error(transparent)]
    Add(#[from] AddError),
    /// The store failed or is full.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What somebody met who asked for the same at the same time.
    #[error(transparent)]
    Shared(Arc<OriginError>),
}

impl OriginError {
    /// The error itself, whoever met it.
    pub(crate) fn met(&self) -> &Self {
        match self {
            Self::Shared(error) => error.met(),
            error => error,
        }
    }

    /// Whether the same may be had later: nothing says that it is gone.
    pub(super) fn is_passing(&self) -> bool {
        !matches!(self.met(), Self::Changed { .. } | Self::NoRanges { .. } | Self::Unknown)
    }
}

/// How long a request is tried again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// Hours of reading must survive a server that restarts.
    Adding,
    /// A peer waits, and asks again by itself.
    Serving,
}

impl Patience {
    const fn retry(self) -> RetryConfig {
        let (first, longest, max_retries, retry_timeout) = match self {
            Self::Adding => (100, 10_000, 12, 180),
            Self::Serving => (100, 1000, 3, 10),
        };
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(first),
                max_backoff: Duration::from_millis(longest),
                base: 2.,
            },
            max_retries,
            retry_timeout: Duration::from_secs(retry_timeout),
        }
    }

    /// For one request, with its body.
    const fn timeout(self) -> &'static str {
        match self {
            Self::Adding => "120s",
            Self::Serving => "15s",
        }
    }
}

/// One origin, ready to be read. Connections are shared and reused.
#[derive(Debug)]
pub(super) struct Client {
    url: String,
    store: Arc<dyn ObjectStore>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// One file of a web server.
    File(Path),
    /// What a bucket holds below this prefix.
    Below(Path),
}

/// One file that there is.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// Its path in the dataset.
    pub(super) path: String,
    pub(super) key: String,
    pub(super) size: u64,
}

impl Client {
    /// Prepares to read an origin; nothing is sent. Credentials of S3 are those of this
    /// process's environment.
    pub(super) fn open(origin: &Origin, patience: Patience) -> Result<Self, OriginError> {
        let is_plain = |url: &String| url.to_ascii_lowercase().starts_with("http://");
        let mut addresses = std::iter::once(&origin.url).chain(&origin.endpoint);
        if !origin.allow_http && addresses.any(is_plain) {
            return Err(refused(origin, "it is not encrypted; allow that with --allow-http"));
        }
        let (store, what) = match origin.url.strip_prefix("s3://") {
            Some(address) => bucket(origin, address, patience)?,
            None => web(origin, patience)?,
        };
        Ok(Self { url: origin.url.clone(), store, what })
    }

    /// All files that there are, with names that a dataset may have.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, OriginError> {
        let found = match &self.what {
            What::File(key) => vec![self.one(key).await?],
            What::Below(prefix) => self.below(prefix).await?,
        };
        for Listed { path, key, .. } in &found {
            manifest::check_path(path).map_err(|source| OriginError::Name {
                key: key.clone(),
                source: Box::new(source),
            })?;
        }
        if found.is_empty() { Err(OriginError::Empty { url: self.url.clone() }) } else { Ok(found) }
    }

    /// One object, named after itself.
    async fn one(&self, key: &Path) -> Result<Listed, OriginError> {
        let found = match self.store.head(key).await {
            Err(object_store::Error::NotFound { .. }) => {
                return Err(OriginError::Empty { url: self.url.clone() });
            }
            found => found.map_err(self.unlisted())?,
        };
        let path = key.filename().unwrap_or_default().to_owned();
        Ok(Listed { path, key: key.to_string(), size: found.size })
    }

    async fn below(&self, prefix: &Path) -> Result<Vec<Listed>, OriginError> {
        let below = if prefix.as_ref().is_empty() { String::new() } else { format!("{prefix}/") };
        let listed =
            self.store.list(Some(prefix)).map_ok(|ObjectMeta { location, size, .. }| {
                let key = location.to_string();
                let path = key.strip_prefix(&below).unwrap_or(&key).to_owned();
                Listed { path, key, size }
            });
        let listed: Vec<_> = listed.try_collect().await.map_err(self.unlisted())?;
        if listed.is_empty() && !below.is_empty() {
            return Ok(vec![self.one(prefix).await?]);
        }
        self.without_markers(listed).await
    }

    /// Leaves out the empty objects `folder/` that tools make to show a folder. Their slash is
    /// lost in the list, so those that could be files are looked at.
    async fn without_markers(&self, listed: Vec<Listed>) -> Result<Vec<Listed>, OriginError> {
        let mut folders = HashSet::new();
        for Listed { path, .. } in &listed {
            folders.extend(path.match_indices('/').map(|(end, _)| path[..end].to_owned()));
        }
        let folders = &folders;
        let looked = futures::stream::iter(listed).map(|file| async move {
            if file.size > 0 {
                return Ok(Some(file));
            }
            if folders.contains(&file.path) {
                return Ok(None);
            }
            match self.store.head(&self.location(&file.key)?).await {
                Ok(_) => Ok(Some(file)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(self.unlisted()(error)),
            }
        });
        let looked = looked.buffered(HEADS_AT_ONCE).try_collect::<Vec<_>>().await?;
        Ok(looked.into_iter().flatten().collect())
    }

    fn unlisted(&self) -> impl FnOnce(object_store::Error) -> OriginError {
        let url = self.url.clone();
        |source| OriginError::List { url, source: Box::new(source) }
    }

    /// Reads a range of an object, which must be the one that is expected, and says which it is.
    pub(super) async fn read(
        &self,
        key: &str,
        range: Range<u64>,
        expected: Option<&Object>,
    ) -> Result<(Bytes, Object), OriginError> {
        let changed = |what| OriginError::Changed { object: key.to_owned(), what };
        let location = self.location(key)?;
        let len = range.end - range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let answer = match self.store.get_opts(&location, options).await {
            Ok(answer) => answer,
            Err(object_store::Error::NotFound { .. }) => return Err(changed("it is gone")),
            Err(object_store::Error::NotSupported { .. }) => {
                return Err(OriginError::NoRanges { object: key.to_owned() });
            }
            Err(error) => {
                // A range behind the end is refused in many ways: it is shorter now.
                if let Some(expected) = expected
                    && let Ok(found) = self.store.head(&location).await
                    && found.size != expected.size
                {
                    return Err(changed("its size"));
                }
                let source = Box::new(error);
                return Err(OriginError::Read { object: key.to_owned(), source });
            }
        };
        let found = seen(key, &answer.meta);
        if let Some(expected) = expected {
            differs(expected, &found).map_or(Ok(()), |what| Err(changed(what)))?;
        }
        let bytes = answer.bytes().await.map_err(|source| OriginError::Read {
            object: key.to_owned(),
            source: Box::new(source),
        })?;
        if bytes.len() as u64 == len { Ok((bytes, found)) } else { Err(changed("its size")) }
    }

    fn location(&self, key: &str) -> Result<Path, OriginError> {
        Path::parse(key).map_err(|source| OriginError::Setup {
            url: self.url.clone(),
            source: Box::new(object_store::Error::InvalidPath { source }),
        })
    }
}

fn seen(key: &str, meta: &ObjectMeta) -> Object {
    Object {
        key: key.to_owned(),
        size: meta.size,
        e_tag: meta.e_tag.clone(),
        modified_ms: meta.last_modified.timestamp_millis(),
    }
}

/// What tells that an object is another now.
fn differs(expected: &Object, found: &Object) -> Option<&'static str> {
    if expected.size != found.size {
        return Some("its size");
    }
    if expected.e_tag != found.e_tag {
        return Some("its ETag");
    }
    let is_dated = expected.e_tag.is_none() && expected.modified_ms != found.modified_ms;
    is_dated.then_some("the time of its last change")
}

fn refused(origin: &Origin, reason: &'static str) -> OriginError {
    OriginError::Url { url: shown(&origin.url).to_owned(), reason }
}

/// An address without its query, which may hold a signature.
pub(crate) fn shown(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

fn bucket(
    origin: &Origin,
    address: &str,
    patience: Patience,
) -> Result<(Arc<dyn ObjectStore>, What), OriginError> {
    let (name, prefix) = address.split_once('/').unwrap_or((address, ""));
    if name.is_empty() {
        return Err(refused(origin, "it names no bucket"));
    }
    let prefix = Path::parse(prefix)
        .map_err(|_| refused(origin, "its prefix has an empty part, or a part \".\" or \"..\""))?;
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(name)
        .with_allow_http(origin.allow_http)
        .with_retry(patience.retry())
        .with_config(
            object_store::aws::AmazonS3ConfigKey::Client(ClientConfigKey::Timeout),
            patience.timeout(),
        );
    if let Some(endpoint) = &origin.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    if let Some(region) = &origin.region {
        builder = builder.with_region(region);
    }
    if origin.anonymous {
        builder = builder.with_skip_signature(true);
    }
    let store = builder.build().map_err(unusable(origin))?;
    Ok((Arc::new(store), What::Below(prefix)))
}

fn web(origin: &Origin, patience: Patience) -> Result<(Arc<dyn ObjectStore>, What), OriginError> {
    let refuse = |reason| refused(origin, reason);
    let mut base =
        Url::parse(&origin.url).map_err(|_| refuse("say https://HOST/FILE or s3://BUCKET"))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(refuse("say https://HOST/FILE or s3://BUCKET"));
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err(refuse("a name or password in an address would be shown to others"));
    }
    let last = base.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
    if last.is_empty() {
        return Err(refuse("it must name one file"));
    }
    let key = Path::from_url_path(last).map_err(|_| refuse("its last part is no file name"))?;
    if let Ok(mut parts) = base.path_segments_mut() {
        parts.pop();
    }
    base.set_fragment(None);
    let options = ClientOptions::new()
        .with_allow_http(origin.allow_http)
        .with_connect_timeout(CONNECT_MAX)
        .with_config(ClientConfigKey::Timeout, patience.timeout());
    let builder = HttpBuilder::new().with_url(base).with_client_options(options);
    let store = builder.with_retry(patience.retry()).build().map_err(unusable(origin))?;
    Ok((Arc::new(store), What::File(key)))
}

fn unusable(origin: &Origin) -> impl FnOnce(object_store::Error) -> OriginError {
    let url = shown(&origin.url).to_owned();
    |source| OriginError::Setup { url, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin {
            url: url.to_owned(),
            endpoint: None,
            region: None,
            allow_http: false,
            anonymous: true,
        }
    }

    #[test]
    fn addresses_are_read_or_refused() {
        for url in ["s3://bucket", "s3://bucket/", "s3://bucket/a/b/", "https://host/a%20b?v=1"] {
            assert!(Client::open(&origin(url), Patience::Serving).is_ok(), "{url}");
        }
        for url in [
            "s3://",
            "s3:///a",
            "s3://bucket/a//b",
            "s3://bucket/a/../b",
            "https://host",
            "https://host/folder/",
            "https://host/a%2F..",
            "https://me:secret@host/file",
            "http://host/file",
            "ftp://host/file",
            "file:///etc/passwd",
            "folder",
        ] {
            let refused = Client::open(&origin(url), Patience::Serving);
            assert!(matches!(refused, Err(OriginError::Url { .. })), "{url}: {refused:?}");
        }
        let plain = Origin { endpoint: Some("http://host".into()), ..origin("s3://bucket") };
        assert!(Client::open(&plain, Patience::Serving).is_err());
        let allowed = Origin { allow_http: true, ..plain };
        assert!(Client::open(&allowed, Patience::Serving).is_ok());
    }

    #[test]
    fn an_object_is_the_same_by_size_and_tag_or_time() {
        let object = |size, e_tag: Option<&str>, modified_ms| Object {
            key: "k".into(),
            size,
            e_tag: e_tag.map(str::to_owned),
            modified_ms,
        };
        let tagged = object(1, Some("a"), 5);
        assert_eq!(differs(&tagged, &object(1, Some("a"), 6)), None);
        assert_eq!(differs(&tagged, &object(1, Some("b"), 5)), Some("its ETag"));
        assert_eq!(differs(&tagged, &object(1, None, 5)), Some("its ETag"));
        assert_eq!(differs(&tagged, &object(2, Some("a"), 5)), Some("its size"));
        let dated = object(1, None, 5);
        assert!(differs(&dated, &object(1, None, 6)).is_some());
    }
}
