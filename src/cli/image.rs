//! `dockercomp image`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use dockercomp_peer::reply::chain;

use super::dataset::{self, Process};
use crate::failure::{Code, Failure};
use crate::output::{self, Format};

/// Commands about container images.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Image {
    /// Add an image, so that it travels between peers and no registry is needed.
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
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let archive = if from_engine {
            let archive = folder.path().join("image.tar");
            dockercomp_executor::save_image(None, &image, &archive)
                .await
                .map_err(|error| Failure::new(Code::Docker, chain(&error)))?;
            archive
        } else {
            PathBuf::from(&image)
        };
        check(&archive)?;
        let info = dataset::add(&client, archive, name.or(Some(image)), None).await?;
        output::print(format, &info, |info| info.cid.clone());
        Ok(())
    }
}

/// Refuses what no engine could load, before anything is added.
pub(crate) fn check(archive: &Path) -> anyhow::Result<()> {
    let checked = read(archive);
    checked.map_err(|error| {
        Failure::new(Code::Usage, format!("{}: {}", archive.display(), chain(error.as_ref())))
            .fix("give a docker-save or OCI archive of one image, or a static Linux binary")
            .into()
    })
}

fn read(archive: &Path) -> anyhow::Result<()> {
    let mut start = [0; 4];
    let mut file = File::open(archive)?;
    let is_binary = file.read_exact(&mut start).is_ok() && start == *b"\x7fELF";
    if is_binary {
        dockercomp_executor::pack_static_binary(archive, "program", &mut io::sink())?;
    } else {
        dockercomp_executor::inspect_archive(archive)?;
    }
    Ok(())
}
