//! Folders to add, stores to keep them in, and a fetch without a network.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cid::Cid;
use dockercomp_protocol::content;
use dockercomp_protocol::manifest::Chunker;
use dockercomp_store::{AddOptions, Options, Store, StoreError, Want};
use tempfile::TempDir;

/// The smallest chunk size, so that small tests have files of many chunks.
pub(crate) const CHUNK: u32 = 256 << 10;

/// A store in a directory of its own, which goes with it.
pub(crate) struct TestStore {
    pub(crate) store: Store,
    pub(crate) dir: TempDir,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        Self::with_quota(None)
    }

    pub(crate) fn with_quota(quota_bytes: Option<u64>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(dir.path(), Options { quota_bytes, ..Options::default() })
            .expect("a new store");
        Self { store, dir }
    }

    /// Closes the store and opens it again.
    pub(crate) fn reopen(self) -> Self {
        let Self { store, dir } = self;
        drop(store);
        let store = Store::open(dir.path(), Options::default()).expect("an old store");
        Self { store, dir }
    }
}

impl std::ops::Deref for TestStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

/// Bytes that depend on the seed and do not repeat.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A folder with empty, small, one-chunk and many-chunk files in several directories.
pub(crate) fn sample() -> BTreeMap<String, Vec<u8>> {
    let chunk = CHUNK as usize;
    let mut files = BTreeMap::new();
    files.insert("empty".into(), Vec::new());
    files.insert("small.txt".into(), b"small".to_vec());
    files.insert("a/limit".into(), noise(1, 64 << 10));
    files.insert("a/over".into(), noise(2, (64 << 10) + 1));
    files.insert("a/b/whole".into(), noise(3, 3 * chunk));
    files.insert("a/b/broken".into(), noise(4, 5 * chunk + 17));
    files.insert("zeros".into(), vec![0; 40 * chunk]);
    files.insert("same as small".into(), b"small".to_vec());
    // More chunks than an entry lists itself, so they are on a page of their own.
    files.insert("paged".into(), noise(5, 18 * chunk));
    for number in 0..20 {
        files.insert(format!("many/{number:03}"), noise(100 + number, 10));
    }
    files
}

pub(crate) fn write(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a directory");
        fs::write(path, bytes).expect("a file");
    }
}

/// Every file below a directory.
pub(crate) fn read(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = format!("{prefix}{}", entry.file_name().to_str().expect("UTF-8"));
            if entry.file_type().expect("a type").is_dir() {
                walk(&entry.path(), &format!("{name}/"), files);
            } else {
                files.insert(name, fs::read(entry.path()).expect("a file"));
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(dir, "", &mut files);
    files
}

pub(crate) fn options() -> AddOptions {
    AddOptions { chunker: Chunker::Fixed { size: CHUNK }, ..AddOptions::default() }
}

/// Adds these files to a store.
pub(crate) fn add(store: &Store, files: &BTreeMap<String, Vec<u8>>) -> Cid {
    let folder = tempfile::tempdir().expect("a temporary directory");
    write(folder.path(), files);
    store.add(folder.path(), &options()).expect("a plain folder").root
}

/// Brings what is missing from another store, and counts the blocks.
pub(crate) fn fetch(
    from: &Store,
    to: &Store,
    root: &Cid,
    want: Want,
    window: usize,
) -> Result<usize, StoreError> {
    let mut blocks = 0;
    loop {
        let missing = to.missing(root, &want, window)?;
        if missing.is_empty() {
            return Ok(blocks);
        }
        assert!(missing.len() <= window, "{} blocks were named", missing.len());
        for cid in missing {
            let digest = content::digest(&cid).expect("one of ours");
            let bytes = from.block(&digest).expect("a read").expect("the source has all");
            to.put(root, &cid, &bytes).expect("the right bytes");
            blocks += 1;
        }
    }
}

/// Lays files out and reads them.
pub(crate) fn staged(store: &Store, root: &Cid, want: Want) -> BTreeMap<String, Vec<u8>> {
    let into = tempfile::tempdir().expect("a temporary directory");
    store.stage(root, &want, into.path()).expect("it is complete");
    read(into.path())
}
