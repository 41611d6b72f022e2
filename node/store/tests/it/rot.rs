//! Bytes on the disk change or go; the store notices and fetches them again.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cid::Cid;
use dockercomp_protocol::content;
use dockercomp_protocol::manifest::Chunks;
use dockercomp_protocol::wire::chunk::Held;
use dockercomp_store::{Options, StageError, Store, Want};

use crate::support::{CHUNK, TestStore, add, fetch, noise, sample, staged};

fn body(store: &TestStore, root: &Cid, path: &str) -> PathBuf {
    store.dir.path().join("data").join(root.to_string()).join(path)
}

fn flip_a_byte(path: &PathBuf, offset: u64) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("a mode");
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("a body");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x40], offset).expect("a byte");
}

fn chunk_of(store: &TestStore, root: &Cid, path: &str, index: usize) -> content::Digest {
    let entries = store.files(root, 0, u64::MAX).expect("the pages are here");
    let entry = entries.into_iter().find(|entry| entry.path == path).expect("it is listed");
    let Chunks::Inline(links) = entry.chunks else { panic!("{path} has many chunks") };
    content::digest(&links[index].0).expect("one of ours")
}

#[test]
fn a_rotten_chunk_is_noticed_and_fetched_again() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let files = sample();
    let root = add(&from, &files);
    fetch(&from, &to, &root, Want::All, 8).expect("all of it");
    // Staging makes the files read-only, which must not be in the way.
    assert!(staged(&to, &root, Want::All) == files, "the folder differs");
    let used = to.used_bytes();

    flip_a_byte(&body(&to, &root, "a/b/broken"), u64::from(CHUNK) + 5);
    let digest = chunk_of(&to, &root, "a/b/broken", 1);
    assert_eq!(to.block(&digest).expect("a read"), None);
    let root_digest = content::digest(&root).expect("one of ours");
    assert_eq!(to.held(&root_digest).expect("a read"), Held::Part);
    assert!(!to.is_complete(&root, &Want::All).expect("a check"));
    assert_eq!(to.used_bytes(), used - u64::from(CHUNK));

    let missing = to.missing(&root, &Want::All, 8).expect("a walk");
    assert_eq!(missing, [content::from_digest(content::RAW, digest)]);
    assert_eq!(fetch(&from, &to, &root, Want::All, 8).expect("the chunk"), 1);
    assert_eq!(to.used_bytes(), used);
    assert!(staged(&to, &root, Want::All) == files, "the folder differs");
    let to = to.reopen();
    assert!(staged(&to, &root, Want::All) == files, "the folder differs");
}

#[test]
fn a_deleted_file_is_noticed_when_it_is_staged() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let files = sample();
    let root = add(&from, &files);
    fetch(&from, &to, &root, Want::All, 8).expect("all of it");
    fs::remove_file(body(&to, &root, "a/b/whole")).expect("it was there");
    let into = tempfile::tempdir().expect("a temporary directory");
    let refused = to.stage(&root, &Want::All, into.path());
    assert!(matches!(refused, Err(StageError::Incomplete { .. })));
    assert_eq!(fetch(&from, &to, &root, Want::All, 8).expect("its chunks"), 3);
    assert!(staged(&to, &root, Want::All) == files, "the folder differs");
}

#[test]
fn a_rotten_chunk_is_read_from_another_dataset() {
    let store = TestStore::new();
    let big = noise(9, 2 * CHUNK as usize);
    let one = add(&store, &[("x".to_owned(), big.clone())].into());
    // Longer, or it would be the same file on disk.
    let longer = [&big[..], b"and more"].concat();
    let two = add(&store, &[("y".to_owned(), longer)].into());
    let digest = chunk_of(&store, &one, "x", 0);
    for (root, path) in [(&one, "x"), (&two, "y")] {
        assert!(store.block(&digest).expect("a read").is_some());
        flip_a_byte(&body(&store, root, path), 3);
    }
    assert_eq!(store.block(&digest).expect("a read"), None);
}

#[test]
fn a_chunk_that_rots_before_its_checkpoint_is_noticed() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let files = [("x".to_owned(), noise(9, 2 * CHUNK as usize))].into();
    let root = add(&from, &files);
    // Root, page, and the first chunk.
    for _ in 0..3 {
        let cid = to.missing(&root, &Want::All, 1).expect("a walk")[0];
        let block = from.block(&content::digest(&cid).expect("ours")).expect("a read");
        to.put(&root, &cid, &block.expect("the source has all")).expect("the right bytes");
    }
    flip_a_byte(&body(&to, &root, "x"), 3);
    assert_eq!(to.block(&chunk_of(&to, &root, "x", 0)).expect("a read"), None);
    assert_eq!(fetch(&from, &to, &root, Want::All, 4).expect("both chunks"), 2);
    let to = to.reopen();
    assert!(staged(&to, &root, Want::All) == files, "the file differs");
}

/// Flips a byte of a block wherever the closed database has it. Whether it was anywhere.
fn flip_in_database(db: &Path, block: &[u8]) -> bool {
    let mut found = false;
    for entry in fs::read_dir(db).expect("a directory") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("a file");
        if let Some(at) = bytes.windows(block.len()).position(|window| window == block) {
            flip_a_byte(&path, at as u64 + 100);
            found |= path.extension().is_some_and(|kind| kind == "blob");
        }
    }
    found
}

#[test]
fn a_block_that_rots_in_the_database_is_fetched_again() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let block = noise(6, 20_000);
    let files = [("x".to_owned(), block.clone()), ("y".to_owned(), noise(7, 10))].into();
    let root = add(&from, &files);
    fetch(&from, &to, &root, Want::All, 4).expect("all of it");
    let used = to.used_bytes();
    let digest = chunk_of(&to, &root, "x", 0);
    // Opening again moves what was in the log into the files that are damaged here.
    let TestStore { store, dir } = to.reopen();
    drop(store);
    assert!(flip_in_database(&dir.path().join("db"), &block), "it lies in no blob file");
    let store = Store::open(dir.path(), Options::default()).expect("an old store");

    let into = tempfile::tempdir().expect("a temporary directory");
    let refused = store.stage(&root, &Want::All, into.path());
    assert!(matches!(refused, Err(StageError::Incomplete { .. })));
    assert_eq!(store.block(&digest).expect("a read"), None);
    assert_eq!(store.used_bytes(), used - 20_000);
    assert_eq!(fetch(&from, &store, &root, Want::All, 4).expect("the block"), 1);
    assert!(staged(&store, &root, Want::All) == files, "the folder differs");
}
