//! Two heads of one log: does the later one carry the earlier one on?

use std::path::{Path, PathBuf};

use dockercomp_peer::reply::chain;
use dockercomp_protocol::NodeId;
use dockercomp_protocol::codec;
use dockercomp_protocol::log::{HeadNotice, Notice, Path as LogPath};
use dockercomp_protocol::receipt::Receipt;
use serde::Serialize;

use super::{read, refuse};
use crate::failure::{Code, Failure};

/// Two heads that agree.
#[derive(Debug, Serialize)]
pub(crate) struct Agreement {
    pub(crate) project: String,
    pub(crate) coordinator: String,
    /// Entries of the shorter log.
    pub(crate) entries_before: u64,
    /// Entries of the longer one.
    pub(crate) entries: u64,
    /// When the longer one was signed.
    pub(crate) signed_at: String,
}

/// A signed head.
#[derive(Debug, Serialize)]
pub(crate) struct Head {
    pub(crate) path: PathBuf,
    pub(crate) project: String,
    pub(crate) coordinator: String,
    pub(crate) entries: u64,
    /// The root over them, in hexadecimal.
    pub(crate) root: String,
    pub(crate) signed_at: String,
    /// It comes with the proof that it carries on a log of so many entries.
    pub(crate) since: u64,
}

impl Head {
    pub(crate) fn human(&self) -> String {
        format!(
            "head       {}\nentries    {}\nroot       {}\nsigned     {}\nproject    {}",
            self.path.display(),
            self.entries,
            self.root,
            self.signed_at,
            self.project
        )
    }
}

/// Opens a head and checks who signed it.
pub(crate) fn head(path: &Path, project: Option<NodeId>) -> anyhow::Result<Head> {
    let Opened { path, notice } = open(path, project)?;
    Ok(Head {
        path,
        project: notice.head.project.to_string(),
        coordinator: notice.coordinator.to_string(),
        entries: notice.head.size,
        root: notice.head.root.iter().map(|byte| format!("{byte:02x}")).collect(),
        signed_at: notice.head.at.to_string(),
        since: notice.since,
    })
}

/// How many entries the log of a head has.
pub(crate) fn entries_of(path: &Path) -> anyhow::Result<u64> {
    Ok(open(path, None)?.notice.head.size)
}

/// Checks that one of two heads carries the other on. Each path is a head, a receipt, or a
/// folder that `job fetch` wrote.
pub(crate) fn heads(paths: [&Path; 2], project: Option<NodeId>) -> anyhow::Result<Agreement> {
    let [mut old, mut new] = [open(paths[0], project)?, open(paths[1], project)?];
    if old.notice.head.size > new.notice.head.size {
        std::mem::swap(&mut old, &mut new);
    }
    let (a, b) = (&old.notice, &new.notice);
    if (a.head.project, a.coordinator) != (b.head.project, b.coordinator) {
        let message = "the heads are of two projects, or of two coordinators of one";
        return Err(Failure::new(Code::Usage, message).into());
    }
    let (before, after) = (a.head.size, b.head.size);
    let coordinator = b.coordinator;
    let caught = |what: String| {
        let paths = format!("{} and {}", old.path.display(), new.path.display());
        let message = format!("{paths}: coordinator {coordinator} has rewritten its log: {what}");
        Err(Failure::new(Code::Verification, message)
            .fix("keep both files: they are signed, and prove it to anybody")
            .into())
    };
    if before < after && a.head.at > b.head.at {
        return caught(format!("it signed one of {before} entries after one of {after}"));
    }
    match b.carries_on(&a.head) {
        Some(true) => Ok(Agreement {
            project: b.head.project.to_string(),
            coordinator: coordinator.to_string(),
            entries_before: before,
            entries: after,
            signed_at: b.head.at.to_string(),
        }),
        Some(false) if before == after => {
            caught(format!("it signed two different ones of {before} entries"))
        }
        Some(false) => caught(format!(
            "the one of {after} entries does not begin with the one of {before}, by the proof \
             that came with it"
        )),
        None => {
            let (old, new) = (old.path.display(), new.path.display());
            let message = format!("{new} holds no proof that it carries on {old}");
            let fix = format!("dockercomp coordinator head --since {old} --into FILE");
            Err(Failure::new(Code::NotFound, message).fix(fix).into())
        }
    }
}

struct Opened {
    path: PathBuf,
    notice: Notice,
}

fn open(path: &Path, project: Option<NodeId>) -> anyhow::Result<Opened> {
    let path = if path.is_dir() { path.join("head") } else { path.to_owned() };
    let bytes = read(&path)?;
    let bytes = match Receipt::decode(&bytes) {
        Ok(Receipt { charter, head, .. }) => {
            let proof = LogPath::default();
            codec::encode(&HeadNotice { v: 1, charter, head, since: 0, proof })
        }
        Err(_) => bytes,
    };
    let notice = HeadNotice::open(&bytes).map_err(|error| refuse(&path, chain(&error)))?;
    let found = notice.head.project;
    match project {
        Some(expected) if expected != found => {
            Err(refuse(&path, format!("the head is of project {found}, not {expected}")))
        }
        Some(_) | None => Ok(Opened { path, notice }),
    }
}
