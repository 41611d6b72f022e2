//! `dockercomp image`.

use std::path::Path;

use anyhow::Context;
use dockercomp_executor::SplitError;
use dockercomp_peer::api::DatasetInfo;
use dockercomp_peer::reply::chain;
use tempfile::TempDir;

use super::dataset::{self, Process};
use crate::client::Client;
use crate::failure::{Code, Failure};
use crate::output::{self, Format};

/// Commands about container images.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Image {
    /// Add an image, so that it travels between peers and no registry is needed.
    ///
    /// It is added in parts: layers that it shares with another image are stored and fetched
    /// once.
    Add {
        /// A docker-save or OCI archive, a static binary, or, with --from-engine, the name of
        /// an image that the local Docker engine has.
        image: String,
        /// Take the image from the local Docker engine.
        #[arg(long)]
        from_engine: bool,
        /// What to call it.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        process: Process,
    },
}

impl Image {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<()> {
        let Self::Add { image, from_engine, name, process } = self;
        let client = process.client()?;
        let name = name.or_else(|| Some(image.clone()));
        let info = if from_engine {
            let parts = folder(&client)?;
            dockercomp_executor::save_image(None, &image, parts.path())
                .await
                .map_err(|error| Failure::new(Code::Docker, chain(&error)))?;
            dataset::add(&client, parts.path().to_owned(), name, None).await?
        } else {
            add(&client, Path::new(&image), name).await?
        };
        output::print(format, &info, |info| info.cid.clone());
        Ok(())
    }
}

/// Adds an archive or a static binary in parts. What no engine could load is refused before
/// anything is added.
pub(crate) async fn add(
    client: &Client,
    image: &Path,
    name: Option<String>,
) -> anyhow::Result<DatasetInfo> {
    let parts = folder(client)?;
    let (source, into) = (image.to_owned(), parts.path().to_owned());
    let splitting =
        tokio::task::spawn_blocking(move || dockercomp_executor::split_image(&source, &into));
    match splitting.await.context("the image was not read")? {
        Ok(_) => dataset::add(client, parts.path().to_owned(), name, None).await,
        Err(error @ SplitError::Copy { .. }) => Err(error.into()),
        Err(error) => {
            let message = format!("{}: {}", image.display(), chain(&error));
            Err(Failure::new(Code::Usage, message)
                .fix("give a docker-save or OCI archive of one image, or a static Linux binary")
                .into())
        }
    }
}

/// A folder for parts, where the store that they go to has its room. What a command that was
/// cut off leaves there is deleted when the store is opened.
fn folder(client: &Client) -> anyhow::Result<TempDir> {
    let place = client.dir().join("tmp");
    tempfile::Builder::new()
        .prefix("image-")
        .tempdir_in(&place)
        .with_context(|| format!("cannot make a folder in {}", place.display()))
}
