//! Small outputs, read back whole so that they can travel in the report of their result.

use dockercomp_protocol::inline::{self, InlineError};
use dockercomp_protocol::limits::INLINE_OUTPUT_BYTES_MAX;
use dockercomp_protocol::{Cid, content};
use dockercomp_store::{Store, StoreError};
use serde_bytes::ByteBuf;

/// Why an output does not travel in a report.
enum Stays {
    /// It is too large.
    Large,
    /// It cannot be read.
    Store(StoreError),
}

impl From<InlineError> for Stays {
    fn from(_: InlineError) -> Self {
        Self::Large
    }
}

/// All blocks of an output in the order in which they travel, or none if it is too large.
/// Blocking.
pub(crate) fn read(store: &Store, root: &Cid) -> Result<Vec<ByteBuf>, StoreError> {
    match blocks(store, root) {
        Ok(blocks) if inline::fits(&blocks) => Ok(blocks),
        Ok(_) | Err(Stays::Large) => Ok(Vec::new()),
        Err(Stays::Store(error)) => Err(error),
    }
}

fn blocks(store: &Store, root: &Cid) -> Result<Vec<ByteBuf>, Stays> {
    let manifest = store.root(root).map_err(Stays::Store)?.ok_or(Stays::Large)?;
    if manifest.bytes > INLINE_OUTPUT_BYTES_MAX as u64 {
        return Err(Stays::Large);
    }
    let block = |cid: &Cid| {
        let digest = content::digest(cid).map_err(|error| Stays::Store(error.into()))?;
        let bytes = store.block(&digest).map_err(Stays::Store)?;
        Ok(bytes.ok_or(Stays::Large)?.to_vec())
    };
    let listed = inline::list(root, |_, cid| block(cid))?;
    listed.iter().map(|listed| block(&listed.cid).map(ByteBuf::from)).collect()
}

#[cfg(test)]
mod tests {
    use dockercomp_store::AddOptions;

    use super::*;

    /// What `read` gives for a folder with one file of this size.
    fn read_file_of(bytes: usize) -> (Cid, Vec<ByteBuf>) {
        let dir = tempfile::tempdir().expect("a directory");
        let options = dockercomp_store::Options { quota_bytes: None, reserve_bytes: 0 };
        let store = Store::open(&dir.path().join("store"), options).expect("a store");
        let output = dir.path().join("output");
        std::fs::create_dir(&output).expect("a folder");
        std::fs::write(output.join("out.txt"), vec![7; bytes]).expect("a file");
        let added = store.add(&output, &AddOptions::output()).expect("added");
        (added.root, read(&store, &added.root).expect("readable"))
    }

    #[test]
    fn a_small_output_travels_whole() {
        let (root, blocks) = read_file_of(100);
        inline::check(&root, &blocks).expect("what a coordinator accepts");
        let files = inline::files(&blocks).expect("files");
        assert_eq!(files.len(), 1);
        assert_eq!((files[0].path.as_str(), files[0].bytes.len()), ("out.txt", 100));
    }

    #[test]
    fn a_larger_output_stays_here() {
        for bytes in [INLINE_OUTPUT_BYTES_MAX, 100 << 10] {
            assert!(read_file_of(bytes).1.is_empty(), "{bytes} bytes travelled");
        }
    }
}
