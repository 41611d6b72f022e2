//! From a job file to a signed job: what it refers to is added, then the owner signs.

use std::path::Path;

use anyhow::Context;
use dockercomp_coordinator::api::types::Submitted;
use dockercomp_peer::api::DatasetInfo;
use dockercomp_peer::clock::Clock;
use dockercomp_peer::identity;
use dockercomp_protocol::job::{JobFile, JobSpec, Reference};
use dockercomp_protocol::{Cid, Timestamp, content, envelope};

use crate::cli::{add_dataset, add_image};
use crate::client::Client;
use crate::failure::{Code, Failure};

/// Reads a job file, adds what it refers to, signs it with the project's key and submits it.
pub(crate) async fn submit(
    client: &Client,
    path: &Path,
    dataset: Option<&str>,
) -> anyhow::Result<Submitted> {
    let file = read(path)?;
    let dataset = dataset.map(|text| parse_cid(text, "--dataset")).transpose()?;
    if file.needs_dataset() && dataset.is_none() && file.references()[2].is_none() {
        return Err(Failure::new(
            Code::Usage,
            format!("{}: the job works on a dataset, and none is named", path.display()),
        )
        .fix("add it (dockercomp dataset add FOLDER) and name it with --dataset CID")
        .into());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let [image, module, inputs] = file.references().map(Option::<&Reference>::cloned);
    let place = Place { client, folder, job: path };
    let image = place.resolve(image, Kind::Image).await?;
    let module = place.resolve(module, Kind::Files).await?;
    let inputs = match dataset {
        Some(dataset) => Some(dataset),
        None => place.resolve(inputs, Kind::Files).await?,
    };

    let key = identity::load(&client.dir().join(dockercomp_coordinator::OWNER_KEY))
        .context("cannot sign the job: the project's key is needed")?;
    let project = key.public().to_peer_id();
    let inputs = match inputs {
        Some(cid) => Some((cid, files_of(client, &cid).await?)),
        None => None,
    };
    let now = Clock::from(Timestamp::default()).now();
    let spec: JobSpec = file
        .resolve(project, now, image, module, inputs)
        .map_err(|error| Failure::new(Code::Usage, format!("{}: {error}", path.display())))?;
    client.post("/api/v1/jobs", envelope::seal(&key, &spec)).await
}

fn read(path: &Path) -> anyhow::Result<JobFile> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Code::Usage, format!("cannot read {}: {error}", path.display()))
    })?;
    JobFile::parse(&text).map_err(|error| {
        let place = format!("{}:{}:{}", path.display(), error.line, error.column);
        Failure::new(Code::Usage, format!("{place}: {}", error.reason)).fix(error.fix).into()
    })
}

/// Where references lead from, and where to.
struct Place<'a> {
    client: &'a Client,
    /// The folder that paths are relative to.
    folder: &'a Path,
    /// The job file.
    job: &'a Path,
}

/// What a reference is to.
#[derive(Clone, Copy)]
enum Kind {
    /// An image, which is added in parts.
    Image,
    /// Files, which are added as they are.
    Files,
}

impl Place<'_> {
    /// The content that a reference stands for; local files are added.
    async fn resolve(
        &self,
        reference: Option<Reference>,
        kind: Kind,
    ) -> anyhow::Result<Option<Cid>> {
        let file = match reference {
            None => return Ok(None),
            Some(Reference::Cid(cid)) => return Ok(Some(cid)),
            Some(Reference::File(file)) => file,
        };
        let path = self.folder.join(&file);
        if !path.exists() {
            let message = format!("{}: {} does not exist", self.job.display(), path.display());
            return Err(Failure::new(Code::Usage, message)
                .fix("build it first (for the examples: make examples)")
                .into());
        }
        let info = match kind {
            Kind::Image => add_image(self.client, &path, Some(file)).await?,
            Kind::Files => add_dataset(self.client, path, Some(file), None).await?,
        };
        Ok(Some(parse_cid(&info.cid, "the process's answer")?))
    }
}

fn parse_cid(text: &str, place: &str) -> anyhow::Result<Cid> {
    content::parse(text)
        .map_err(|error| Failure::new(Code::Usage, format!("{place}: {error}")).into())
}

/// How many files a dataset has, which must be where the job is submitted.
async fn files_of(client: &Client, cid: &Cid) -> anyhow::Result<u64> {
    let datasets: Vec<DatasetInfo> = client.get("/api/v1/datasets").await?;
    let text = cid.to_string();
    let is_it = |dataset: &DatasetInfo| {
        dataset.cid == text && (dataset.complete || dataset.origin.is_some())
    };
    let found = datasets.into_iter().find(is_it);
    found.map(|dataset| dataset.files).ok_or_else(|| {
        Failure::new(Code::NotFound, format!("dataset {cid} is not here"))
            .fix(
                "add it here first (dockercomp dataset add), or fetch it from peers (dockercomp \
                 dataset get CID)",
            )
            .into()
    })
}
