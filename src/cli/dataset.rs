//! `dockercomp dataset`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use bytesize::ByteSize;
use dockercomp_peer::api::{
    AddRequest, CarRequest, DatasetInfo, DatasetRequest, GetRequest, ProviderInfo, StreamRequest,
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
    /// Chunk a file or folder into a running process, which then seeds it.
    ///
    /// Adding a folder again after it changed stores only what changed, and says how much was
    /// there before.
    Add {
        /// The file or folder; - for standard input.
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
            Self::Add { path, name, chunker, in_place, process } => {
                let client = process.client()?;
                let info = if path == Path::new("-") {
                    add_stdin(&client, name, chunker).await?
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
    let (chunk_bytes, content_defined) = match chunker {
        Chunking::Fixed(bytes) => (Some(bytes), false),
        Chunking::FastCdc => (None, true),
    };
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
    let Some(found) = info.found else { return info.cid.clone() };
    let mended = if found.mended { ", fetched anew" } else { "" };
    format!(
        "{} chunks are right, {} had rotted{mended}, {} are not here",
        found.sound_chunks, found.rotten_chunks, found.missing_chunks
    )
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
        ]
    });
    output::table(&["CID", "NAME", "KIND", "FILES", "SIZE", "HELD", "PINNED"], rows)
}
