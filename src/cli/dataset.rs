//! `dockercomp dataset`.

use std::path::PathBuf;

use anyhow::Context;
use bytesize::ByteSize;
use dockercomp_peer::api::{AddRequest, DatasetInfo, GetRequest};

use crate::client::Client;
use crate::output::{self, Format};
use crate::paths::{Role, data_dir};
use crate::progress;

/// Commands about datasets.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Dataset {
    /// Chunk a file or folder into a running process, which then seeds it.
    Add {
        /// The file or folder.
        path: PathBuf,
        /// What to call it.
        #[arg(long)]
        name: Option<String>,
        /// Size of chunks: a power of two from 256 KiB to 4 MiB.
        #[arg(long)]
        chunk: Option<ByteSize>,
        #[command(flatten)]
        process: Process,
    },
    /// Fetch a dataset from peers, and lay it out in a folder.
    Get {
        /// Its CID.
        cid: String,
        /// An empty or missing folder.
        #[arg(long)]
        into: Option<PathBuf>,
        #[command(flatten)]
        process: Process,
    },
    /// List the datasets of a running process.
    List {
        #[command(flatten)]
        process: Process,
    },
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

impl Dataset {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<()> {
        match self {
            Self::Add { path, name, chunk, process } => {
                let chunk_bytes =
                    chunk.map(|size| u32::try_from(size.as_u64()).unwrap_or(u32::MAX));
                let info = add(&process.client()?, path, name, chunk_bytes).await?;
                output::print(format, &info, |info| info.cid.clone());
            }
            Self::Get { cid, into, process } => {
                let into = into.map(std::path::absolute).transpose().context("cannot find it")?;
                let info = get(&process.client()?, cid, into).await?;
                output::print(format, &info, |info| {
                    format!("{} files, {}", info.files, output::size(info.bytes))
                });
            }
            Self::List { process } => {
                let list: Vec<DatasetInfo> = process.client()?.get("/api/v1/datasets").await?;
                output::print(format, &list, |list| human(list));
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
    let path =
        std::fs::canonicalize(&path).with_context(|| format!("cannot find {}", path.display()))?;
    let request = AddRequest { path, name, chunk_bytes };
    let bar = progress::bytes("adding");
    let added = client.steps("/api/v1/datasets", &request, |done, total| {
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
    let bar = progress::bytes("fetching");
    let request = GetRequest { cid, into };
    let got = client.steps("/api/v1/datasets/get", &request, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    let got = got.await;
    bar.finish_and_clear();
    got
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
        ]
    });
    output::table(&["CID", "NAME", "KIND", "FILES", "SIZE", "HELD"], rows)
}
