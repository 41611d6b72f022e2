//! What is missing, as the store says. Blocking: not for the loop.

use dockercomp_protocol::Cid;
use dockercomp_store::{Store, StoreError, Want};

/// Blocks that a caller's list holds at most.
pub(super) const LIST_MAX: usize = 1024;

/// What is missing for a caller, as the store said at some moment.
pub(super) struct Listed {
    pub(super) missing: Vec<Cid>,
    /// Bytes of the wanted files, where it was asked for and is known.
    pub(super) total_bytes: Option<u64>,
}

/// What is missing, and how much is wanted in all.
pub(super) fn list(
    store: &Store,
    root: &Cid,
    want: &Want,
    with_total: bool,
) -> Result<Listed, StoreError> {
    let missing = store.missing(root, want, LIST_MAX)?;
    let total_bytes = if with_total { total_bytes(store, root, want)? } else { None };
    Ok(Listed { missing, total_bytes })
}

fn total_bytes(store: &Store, root: &Cid, want: &Want) -> Result<Option<u64>, StoreError> {
    match want {
        Want::Manifest => Ok(Some(0)),
        Want::All => Ok(store.root(root)?.map(|root| root.bytes)),
        Want::Files { first, count } => match store.files(root, *first, *count) {
            Ok(files) => Ok(Some(files.iter().map(|file| file.size).sum())),
            // The pages that list them are not here yet.
            Err(StoreError::Incomplete { .. } | StoreError::Unknown { .. }) => Ok(None),
            Err(error) => Err(error),
        },
    }
}
