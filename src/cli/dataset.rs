//! `dockercomp dataset`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use bytesize::ByteSize;
use dockercomp_peer::api::{
    AddRequest, CarRequest, DatasetInfo, DatasetRequest, GetRequest, OriginRequest, ProviderInfo,
    StreamRequest,
};
use serde::Serialize;

use crate::client::Client;
use crate::failure::{Code, Failure};
use crate::output::{self, Format};
use crate::paths::{Role, data_dir};
use crate::progress;

/// Commands about datasets.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Dataset {
    /// Chunk a file, a folder, a bucket or a file on a web server into a running process, which
    /// then seeds it.
    ///
    /// Files and folders are copied into its store, unless --in-place says otherwise. What is in
    /// a bucket or on a web server stays there, unless --copy says otherwise: it is read once to
    /// name its chunks, and each chunk again when a peer asks for it.
    ///
    /// Adding a folder again after it changed stores only what changed, and says how much was
    /// there before.
    Add {
        /// The file or folder, https://HOST/FILE, s3://BUCKET/PREFIX, or - for standard input.
        path: PathBuf,
        /// What to call it.
        #[arg(long)]
        name: Option<String>,
        /// How files are cut: fixed:1MiB (a power of two from 256 KiB to 4 MiB), or fastcdc for
        /// files that grow and change.
        #[arg(long, default_value = "fixed:1MiB", value_name = "CHUNKER")]
        chunker: Chunking,
        /// Leave large files where they are and seed them from there. They must not be changed.
        #[arg(long)]
        in_place: bool,
        /// Copy everything into the store, also from a bucket or a web server.
        #[arg(long, conflicts_with = "in_place")]
        copy: bool,
        #[command(flatten)]
        origin: OriginOptions,
        #[command(flatten)]
        process: Process,
    },
    /// Fetch a dataset from peers, and lay it out in a folder.
    ///
    /// A download that was cut off goes on where it ended.
    Get {
        /// Its CID.
        cid: String,
        /// Only files whose paths match, such as 'images/**/*.png'.
        #[arg(value_name = "PATTERN")]
        paths: Vec<String>,
        /// An empty or missing folder.
        #[arg(long)]
        into: Option<PathBuf>,
        #[command(flatten)]
        process: Process,
    },
    /// List the datasets of a running process.
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        process: Process,
    },
    /// Keep a dataset from being removed.
    Pin(Named),
    /// Let a dataset be removed.
    Unpin(Named),
    /// Forget a dataset and give its room back. What was fetched out of it stays.
    Rm(Named),
    /// Read and verify a dataset, and fetch anew what has rotted.
    Check(Named),
    /// Who announces a dataset, and how much of it they hold.
    Providers(Named),
    /// Write a dataset to a CAR file, which other IPLD tools read.
    Export {
        /// Its CID.
        cid: String,
        /// The file; it must not exist.
        file: PathBuf,
        #[command(flatten)]
        process: Process,
    },
    /// Read a dataset from a CAR file that `export` wrote, and seed it.
    Import {
        /// The file.
        file: PathBuf,
        /// What to call it.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        process: Process,
    },
}

/// How a bucket or web server is reached. Keys are not among it: they are those of the
/// environment of the process that seeds (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` …).
#[derive(Debug, clap::Args)]
pub(crate) struct OriginOptions {
    /// Allow an origin without encryption.
    #[arg(long)]
    allow_http: bool,
    /// Read a bucket that is open to everybody, without keys.
    #[arg(long)]
    anonymous: bool,
    /// The URL of an S3 server that is not Amazon's.
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL")]
    s3_endpoint: Option<String>,
    /// The bucket's region.
    #[arg(long, env = "AWS_REGION", value_name = "REGION")]
    s3_region: Option<String>,
}

/// One dataset of a running process.
#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Its CID.
    cid: String,
    #[command(flatten)]
    process: Process,
}

/// How files are cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunking {
    /// Into pieces of this many bytes.
    Fixed(u32),
    /// Where the content says.
    FastCdc,
}

impl Chunking {
    /// The size of chunks, and whether the content says where they end.
    const fn parts(self) -> (Option<u32>, bool) {
        match self {
            Self::Fixed(bytes) => (Some(bytes), false),
            Self::FastCdc => (None, true),
        }
    }
}

impl FromStr for Chunking {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "fastcdc" {
            return Ok(Self::FastCdc);
        }
        let size = text.strip_prefix("fixed:").and_then(|size| size.parse::<ByteSize>().ok());
        let size = size.and_then(|size| u32::try_from(size.as_u64()).ok());
        size.map(Self::Fixed).ok_or_else(|| "say fixed:SIZE or fastcdc".to_owned())
    }
}

/// Which running process is meant.
#[derive(Debug, clap::Args)]
pub(crate) struct Process {
    /// Its data directory; the coordinator's if left out, else the node's.
    #[arg(long, env = "DOCKERCOMP_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Process {
    /// The process that was named, or the one that runs on this machine.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let coordinator = Client::open(&data_dir(self.data_dir.as_ref(), Role::Coordinator)?);
        match (coordinator, &self.data_dir) {
            (Err(error), None) => Client::open(&data_dir(None, Role::Node)?).map_err(|_| error),
            (found, _) => found,
        }
    }
}

impl Named {
    async fn post<T: serde::de::DeserializeOwned>(&self, verb: &str) -> anyhow::Result<T> {
        let request = DatasetRequest { cid: self.cid.clone() };
        self.process.client()?.post_value(&format!("/api/v1/datasets/{verb}"), &request).await
    }
}

impl Dataset {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<()> {
        match self {
            Self::Add { path, name, chunker, in_place, copy, origin, process } => {
                let client = process.client()?;
                let info = if path == Path::new("-") {
                    add_stdin(&client, name, chunker).await?
                } else if let Some(url) = url(&path) {
                    add_origin(&client, origin.request(url, name, chunker, copy)).await?
                } else {
                    add_with(&client, path, name, chunker, in_place).await?
                };
                output::print(format, &info, added);
            }
            Self::Get { cid, paths, into, process } => {
                let into = into.map(std::path::absolute).transpose().context("cannot find it")?;
                let info = get_paths(&process.client()?, cid, paths, into).await?;
                output::print(format, &info, |info| {
                    format!("{} files, {}", info.files, output::size(info.bytes))
                });
            }
            Self::Ls { process } => {
                let list: Vec<DatasetInfo> = process.client()?.get("/api/v1/datasets").await?;
                output::print(format, &list, |list| human(list));
            }
            Self::Pin(named) => {
                let info: DatasetInfo = named.post("pin").await?;
                output::print(format, &info, |info| format!("{} is kept", info.cid));
            }
            Self::Unpin(named) => {
                let info: DatasetInfo = named.post("unpin").await?;
                output::print(format, &info, |info| format!("{} may go", info.cid));
            }
            Self::Rm(named) => {
                let info: DatasetInfo = named.post("rm").await?;
                output::print(format, &info, |info| {
                    format!("{} is gone, it held {}", info.cid, output::size(info.held_bytes))
                });
            }
            Self::Check(named) => {
                let request = DatasetRequest { cid: named.cid };
                let client = named.process.client()?;
                let info = long(&client, "check", &request, "checking").await?;
                output::print(format, &info, checked);
            }
            Self::Providers(named) => {
                let list: Vec<ProviderInfo> = named.post("providers").await?;
                output::print(format, &list, |list| providers(list));
            }
            Self::Export { cid, file, process } => {
                let path = std::path::absolute(&file).context("cannot find it")?;
                let request = CarRequest { cid: Some(cid), path, name: None };
                let info = long(&process.client()?, "export", &request, "writing").await?;
                output::print(format, &info, |_| file.display().to_string());
            }
            Self::Import { file, name, process } => {
                let path = std::fs::canonicalize(&file)
                    .with_context(|| format!("cannot find {}", file.display()))?;
                let request = CarRequest { cid: None, path, name };
                let info = long(&process.client()?, "import", &request, "reading").await?;
                output::print(format, &info, |info| info.cid.clone());
            }
        }
        Ok(())
    }
}

/// The address of an origin, if it is one and not a path.
fn url(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let is_url = ["https://", "http://", "s3://"].iter().any(|scheme| text.starts_with(scheme));
    is_url.then(|| text.to_owned())
}

impl OriginOptions {
    fn request(
        self,
        url: String,
        name: Option<String>,
        chunker: Chunking,
        copy: bool,
    ) -> OriginRequest {
        let (chunk_bytes, content_defined) = chunker.parts();
        // They are of the environment, and mean nothing to a web server.
        let of_s3 = |setting: Option<String>| setting.filter(|_| url.starts_with("s3://"));
        OriginRequest {
            endpoint: of_s3(self.s3_endpoint),
            region: of_s3(self.s3_region),
            url,
            allow_http: self.allow_http,
            anonymous: self.anonymous,
            copy,
            name,
            chunk_bytes,
            content_defined,
        }
    }
}

/// Has a running process add what stays at its origin, with a bar.
async fn add_origin(client: &Client, request: OriginRequest) -> anyhow::Result<DatasetInfo> {
    long(client, "origin", &request, "reading").await
}

/// Chunks a file or folder into a running process, with a bar.
pub(crate) async fn add(
    client: &Client,
    path: PathBuf,
    name: Option<String>,
    chunk_bytes: Option<u32>,
) -> anyhow::Result<DatasetInfo> {
    let chunker = Chunking::Fixed(chunk_bytes.unwrap_or(1 << 20));
    add_with(client, path, name, chunker, false).await
}

async fn add_with(
    client: &Client,
    path: PathBuf,
    name: Option<String>,
    chunker: Chunking,
    in_place: bool,
) -> anyhow::Result<DatasetInfo> {
    let path =
        std::fs::canonicalize(&path).with_context(|| format!("cannot find {}", path.display()))?;
    let (chunk_bytes, content_defined) = chunker.parts();
    let request = AddRequest { path, name, chunk_bytes, content_defined, in_place };
    let bar = progress::bytes("adding");
    let added = client.steps("/api/v1/datasets", &request, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    let added = added.await;
    bar.finish_and_clear();
    added
}

/// Sends standard input to a running process as a dataset of one file.
async fn add_stdin(
    client: &Client,
    name: Option<String>,
    chunker: Chunking,
) -> anyhow::Result<DatasetInfo> {
    if !matches!(chunker, Chunking::FastCdc | Chunking::Fixed(0x10_0000)) {
        return Err(
            Failure::new(Code::Usage, "standard input is cut by fixed:1MiB or fastcdc").into()
        );
    }
    let file = name.clone().unwrap_or_else(|| "stdin".to_owned());
    let request = StreamRequest { file, name, content_defined: chunker == Chunking::FastCdc };
    let bar = progress::bytes("adding");
    let body = reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::with_capacity(
        tokio::io::stdin(),
        1 << 20,
    ));
    let added = client.steps_of("/api/v1/datasets/stream", &request, body, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    let added = added.await;
    bar.finish_and_clear();
    added
}

/// Has a running process fetch a dataset and lay it out, with a bar.
pub(crate) async fn get(
    client: &Client,
    cid: String,
    into: Option<PathBuf>,
) -> anyhow::Result<DatasetInfo> {
    get_paths(client, cid, Vec::new(), into).await
}

async fn get_paths(
    client: &Client,
    cid: String,
    paths: Vec<String>,
    into: Option<PathBuf>,
) -> anyhow::Result<DatasetInfo> {
    long(client, "get", &GetRequest { cid, into, paths }, "fetching").await
}

/// A long request, with a bar.
async fn long(
    client: &Client,
    verb: &str,
    request: &impl Serialize,
    message: &'static str,
) -> anyhow::Result<DatasetInfo> {
    let bar = progress::bytes(message);
    let path = format!("/api/v1/datasets/{verb}");
    let done = client.steps(&path, request, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    let done = done.await;
    bar.finish_and_clear();
    done
}

fn added(info: &DatasetInfo) -> String {
    match info.shared_bytes {
        Some(shared) if shared > 0 => {
            let (shared, all) = (output::size(shared), output::size(info.bytes));
            format!("{}\n{shared} of {all} were here before", info.cid)
        }
        _ => info.cid.clone(),
    }
}

fn checked(info: &DatasetInfo) -> String {
    let Some(found) = &info.found else { return info.cid.clone() };
    let mended = if found.mended { ", fetched anew" } else { "" };
    let here = format!(
        "{} chunks are right, {} had rotted{mended}, {} are not here",
        found.sound_chunks, found.rotten_chunks, found.missing_chunks
    );
    if found.gone_chunks == 0 {
        return here;
    }
    let objects = found.gone_objects.join("\n  ");
    format!("{here}, {} are gone at the origin, of\n  {objects}", found.gone_chunks)
}

fn providers(list: &[ProviderInfo]) -> String {
    let rows = list.iter().map(|provider| {
        let address = provider.addresses.first().cloned().unwrap_or_default();
        vec![provider.peer_id.clone(), provider.holds.clone(), address]
    });
    output::table(&["PEER", "HOLDS", "ADDRESS"], rows)
}

fn human(list: &[DatasetInfo]) -> String {
    let rows = list.iter().map(|dataset| {
        let held = match (dataset.complete, dataset.bytes) {
            (true, _) => "all".to_owned(),
            (false, _) if dataset.origin.is_some() => "at origin".to_owned(),
            (false, 0) => "none".to_owned(),
            (false, bytes) => format!("{} %", dataset.held_bytes * 100 / bytes),
        };
        vec![
            dataset.cid.clone(),
            dataset.name.clone().unwrap_or_default(),
            dataset.kind.clone(),
            dataset.files.to_string(),
            output::size(dataset.bytes),
            held,
            if dataset.pinned { "yes" } else { "" }.to_owned(),
            dataset.origin.clone().unwrap_or_default(),
        ]
    });
    output::table(&["CID", "NAME", "KIND", "FILES", "SIZE", "HELD", "PINNED", "ORIGIN"], rows)
}
