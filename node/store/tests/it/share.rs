//! Files that are not copied, and chunks that follow the content.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use dockercomp_protocol::content;
use dockercomp_protocol::manifest::{self, Chunk, ChunkedFile, Chunker, Chunks};
use dockercomp_store::{AddOptions, Want};

use crate::support::{CHUNK, TestStore, add, fetch, noise, options, sample, staged, write};

#[test]
fn a_changed_folder_shares_what_did_not_change() {
    let store = TestStore::new();
    let mut files = sample();
    let one = add(&store, &files);
    files.insert("a/b/broken".into(), noise(77, 2 * CHUNK as usize));
    files.insert("new".into(), noise(78, 1000));
    let folder = tempfile::tempdir().expect("a temporary directory");
    write(folder.path(), &files);
    let two = store.add(folder.path(), &options()).expect("a plain folder");

    let all: usize = files.values().map(Vec::len).sum();
    assert_eq!(two.shared_bytes, (all - 2 * CHUNK as usize - 1000) as u64);
    let inode = |root: &cid::Cid, path: &str| {
        let path = store.dir.path().join("data").join(root.to_string()).join(path);
        fs::metadata(path).expect("a body").ino()
    };
    assert_eq!(inode(&one, "paged"), inode(&two.root, "paged"), "an equal file was copied");
    assert_ne!(inode(&one, "a/b/broken"), inode(&two.root, "a/b/broken"));
    assert!(staged(&store, &two.root, Want::All) == files, "the folder differs");

    // Either may go, and the other stays whole.
    store.remove(&one).expect("it is here");
    let store = store.reopen();
    assert_eq!(store.check(&two.root, |_| {}).expect("it is here").rotten, 0);
    assert!(staged(&store, &two.root, Want::All) == files, "the folder differs");
}

#[test]
fn a_fetch_links_a_file_that_another_dataset_has() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let mut files = sample();
    let one = add(&from, &files);
    fetch(&from, &to, &one, Want::All, 8).expect("all of it");
    files.insert("another".into(), noise(79, CHUNK as usize));
    let two = add(&from, &files);
    assert_eq!(fetch(&from, &to, &two, Want::All, 8).expect("the rest"), 3, "root, page, chunk");
    assert!(staged(&to, &two, Want::All) == files, "the folder differs");
}

/// Whoever makes a manifest says what the hash of a whole file is, and may lie: then the file of
/// another dataset must not take the place of the one that has that hash.
#[test]
fn a_lie_about_the_hash_of_a_file_spoils_no_other_dataset() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let bytes = noise(80, 2 * CHUNK as usize);
    let root = add(&from, &BTreeMap::from([("file".to_owned(), bytes.clone())]));
    let told = from.files(&root, 0, 1).expect("the page").remove(0);
    let Chunks::Inline(chunks) = &told.chunks else { panic!("two chunks need no page") };

    let other = noise(81, CHUNK as usize);
    let chunks = vec![chunks[0], Chunk(content::chunk_cid(&other), CHUNK)];
    let (path, size) = (told.path.clone(), told.size);
    let lie = ChunkedFile { path, size, exec: told.exec, b3: told.b3, chunks };
    let lie = manifest::build(Chunker::Fixed { size: CHUNK }, vec![lie]).expect("a manifest");
    let mut blocks = lie.blocks;
    blocks.reverse();
    blocks.push((content::chunk_cid(&bytes[..CHUNK as usize]), bytes[..CHUNK as usize].to_vec()));
    blocks.push((content::chunk_cid(&other), other));
    for (cid, block) in blocks {
        to.put(&lie.cid, &cid, &block.into()).expect("it hashes to its name");
    }
    assert_eq!(to.missing(&lie.cid, &Want::All, 1).expect("a walk"), []);
    to.checkpoint().expect("it is published");

    fetch(&from, &to, &root, Want::All, 8).expect("all of it");
    assert!(staged(&to, &root, Want::All)["file"] == bytes, "another file took its place");
}

#[test]
fn a_folder_is_seeded_in_place() {
    let store = TestStore::with_quota(Some(1 << 20));
    let folder = tempfile::tempdir().expect("a temporary directory");
    let files = sample();
    write(folder.path(), &files);
    let in_place = AddOptions { in_place: true, ..options() };
    let root = store.add(folder.path(), &in_place).expect("it takes no room").root;
    assert!(store.used_bytes() < 1 << 20, "{} bytes are used", store.used_bytes());
    assert_eq!(root, add(&TestStore::new(), &files), "the place makes no difference");

    let to = TestStore::new();
    fetch(&store, &to, &root, Want::All, 8).expect("all of it");
    assert!(staged(&to, &root, Want::All) == files, "the folder differs");
    assert!(staged(&store, &root, Want::All) == files, "the folder differs");
    let own = folder.path().join("paged");
    assert!(fs::metadata(&own).expect("a file").permissions().mode() & 0o200 != 0);

    // The owner changes a file: the changed chunk is not served, and their file is left alone.
    let mut changed = files["paged"].clone();
    changed[3 * CHUNK as usize + 9] ^= 1;
    fs::write(&own, &changed).expect("their own file");
    let store = store.reopen();
    let checked = store.check(&root, |_| {}).expect("it is here");
    assert_eq!((checked.rotten, checked.missing), (1, 0));
    fetch(&to, &store, &root, Want::All, 8).expect("the chunk");
    assert!(staged(&store, &root, Want::All) == files, "the folder differs");
    assert!(fs::read(&own).expect("a file") == changed, "the owner's file was written to");
    store.remove(&root).expect("it is here");
    assert!(fs::read(&own).expect("a file") == changed, "the owner's file is gone");
}

#[test]
fn content_defined_chunks_share_across_an_insertion() {
    let store = TestStore::new();
    let cdc = AddOptions { chunker: Chunker::FAST_CDC, ..options() };
    let before = noise(5, 12 << 20);
    let after = [b"inserted", &before[..]].concat();
    let mut shared = Vec::new();
    for bytes in [before, after] {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let files = BTreeMap::from([("f".to_owned(), bytes)]);
        write(folder.path(), &files);
        let added = store.add(folder.path(), &cdc).expect("a plain folder");
        assert!(staged(&store, &added.root, Want::All) == files, "the folder differs");
        assert_eq!(store.check(&added.root, |_| {}).expect("it is here").rotten, 0);
        shared.push(added.shared_bytes);
    }
    assert_eq!(shared[0], 0);
    assert!(shared[1] > 8 << 20, "only {} bytes are shared", shared[1]);
    let store = store.reopen();
    for dataset in store.datasets().expect("a list") {
        assert_eq!(store.check(&dataset.root, |_| {}).expect("it is here").rotten, 0);
    }
}

/// What the manifest says of a file is what `b3sum` prints.
#[test]
fn the_manifest_has_the_hash_of_every_file() {
    let store = TestStore::new();
    let files = sample();
    let root = add(&store, &files);
    for entry in store.files(&root, 0, u64::MAX).expect("the pages are here") {
        assert_eq!(entry.b3, content::digest_of(&files[&entry.path]), "{}", entry.path);
    }
}

/// Only the manifest is wanted: no chunk is.
#[test]
fn a_manifest_can_be_fetched_alone() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let files = sample();
    let root = add(&from, &files);
    let n_blocks = fetch(&from, &to, &root, Want::Manifest, 8).expect("the manifest");
    assert_eq!(n_blocks, 4, "root, page, and the chunks of two large files");
    assert_eq!(to.files(&root, 0, u64::MAX).expect("the pages").len(), files.len());
    assert_eq!(to.dataset(&root).expect("a read").expect("it is here").held_bytes, 0);
}
