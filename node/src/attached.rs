//! The projects that a node is attached to, as it remembers them.
//!
//! A row for each project: its join link, its share, whether the volunteer leaves it, and what
//! it has used of the machine. A project that is left stays here until nothing of it is left on
//! the [desk](crate::desk), so a node that is killed meanwhile goes on leaving.

use dockercomp_agent::{Share, Usage};
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::link::JoinLink;
use dockercomp_protocol::{Timestamp, codec};
use dockercomp_store::{Row, Store, StoreError, Table};
use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::desk::read;

/// Projects that a node has at most.
pub(crate) const PROJECTS_MAX: usize = 64;

const LINKS: &[u8] = b"attached/";
const USED: &[u8] = b"used/";

/// A project that a node is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) link: JoinLink,
    pub(crate) share: Share,
    /// What its coordinator calls it, once that is known.
    pub(crate) name: Option<String>,
    pub(crate) leaving: Option<Leaving>,
}

/// How the volunteer leaves a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Leaving {
    /// What is there is finished and reported first.
    Finish,
    /// What is there is dropped.
    Drop,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkRow {
    link: String,
    share: u32,
    name: Option<String>,
    leaving: Option<Leaving>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsedRow {
    used_ms: u64,
    counted_ms: u64,
    at: Timestamp,
}

/// All projects that are remembered. Blocks.
pub(crate) fn all(store: &Store) -> Result<Vec<Attached>, StoreError> {
    let rows = store.scan(Table::Meta, LINKS, None, PROJECTS_MAX)?;
    let attached = |(_, bytes): (Vec<u8>, Vec<u8>)| {
        let LinkRow { link, share, name, leaving } = read(&bytes)?;
        Some(Attached { link: link.parse().ok()?, share: Share::new(share)?, name, leaving })
    };
    Ok(rows.into_iter().filter_map(attached).collect())
}

/// The doors of all projects that are remembered. Blocks.
pub(crate) fn doors(store: &Store) -> Vec<Multiaddr> {
    all(store).unwrap_or_default().into_iter().flat_map(|attached| attached.link.via).collect()
}

/// Remembers a project, or what has changed about it. Blocks.
pub(crate) fn remember(store: &Store, attached: &Attached) -> Result<(), StoreError> {
    let row = LinkRow {
        link: attached.link.to_string(),
        share: attached.share.get(),
        name: attached.name.clone(),
        leaving: attached.leaving,
    };
    let (key, value) = (key(LINKS, &attached.link.project), codec::encode(&row));
    store.append(&[], &[Row::Put { table: Table::Meta, key, value }])
}

/// Forgets a project. Blocks.
pub(crate) fn forget(store: &Store, project: &ProjectId) -> Result<(), StoreError> {
    let rows =
        [LINKS, USED].map(|prefix| Row::Delete { table: Table::Meta, key: key(prefix, project) });
    store.append(&[], &rows)
}

/// What a project has used, as far as it was remembered. Blocks.
pub(crate) fn usage(store: &Store, project: &ProjectId) -> Result<Usage, StoreError> {
    let row = store.get(Table::Meta, &key(USED, project))?.and_then(|bytes| read(&bytes));
    Ok(row.map_or_else(Usage::default, |UsedRow { used_ms, counted_ms, at }| {
        Usage::remembered(used_ms, counted_ms, at)
    }))
}

/// Remembers what projects have used. Blocks.
pub(crate) fn remember_usage(
    store: &Store,
    usages: &[(ProjectId, Usage)],
) -> Result<(), StoreError> {
    let row = |(project, usage): &(ProjectId, Usage)| {
        let (used_ms, counted_ms, at) = usage.to_remember();
        let value = codec::encode(&UsedRow { used_ms, counted_ms, at });
        Row::Put { table: Table::Meta, key: key(USED, project), value }
    };
    store.append(&[], &usages.iter().map(row).collect::<Vec<_>>())
}

fn key(prefix: &[u8], project: &ProjectId) -> Vec<u8> {
    [prefix, &project.to_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_attached_is_remembered() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), dockercomp_store::Options::default()).expect("one");
        let id = "12D3KooWRBhwfeP2Y4TCx1SM6s9rUoHhR5STiGwxBhgFRcw3UERE";
        let link = format!("dockercomp://{id}?via=/ip4/127.0.0.1/tcp/4001/p2p/{id}");
        let link: JoinLink = link.parse().expect("a link");
        let project = link.project;
        let mut attached =
            Attached { link: link.clone(), share: Share::default(), name: None, leaving: None };
        remember(&store, &attached).expect("durable");
        attached.name = Some("folding".into());
        attached.leaving = Some(Leaving::Drop);
        remember(&store, &attached).expect("durable");
        assert_eq!(all(&store).expect("readable"), [attached]);
        assert_eq!(doors(&store), link.via);

        let used = Usage::remembered(7, 5, Timestamp(3));
        remember_usage(&store, &[(project, used)]).expect("durable");
        assert_eq!(usage(&store, &project).expect("readable"), used);

        forget(&store, &project).expect("durable");
        assert_eq!(all(&store).expect("readable"), []);
        assert_eq!(usage(&store, &project).expect("readable"), Usage::default());
    }
}
