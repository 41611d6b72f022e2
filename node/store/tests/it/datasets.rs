//! Names, pins, removal.

use std::fs;

use dockercomp_protocol::content;
use dockercomp_protocol::wire::chunk::Held;
use dockercomp_store::{StoreError, Want};

use crate::support::{CHUNK, TestStore, add, fetch, noise, sample, staged};

fn bodies(store: &TestStore) -> usize {
    fs::read_dir(store.dir.path().join("data")).expect("a directory").count()
}

#[test]
fn a_removed_dataset_leaves_nothing() {
    let store = TestStore::new();
    let root = add(&store, &sample());
    let digest = content::digest(&root).expect("one of ours");
    assert_eq!(bodies(&store), 1);
    store.remove(&root).expect("it is here");
    assert_eq!(store.datasets().expect("a list"), []);
    assert_eq!(store.held(&digest).expect("a read"), Held::None);
    assert_eq!(store.block(&digest).expect("a read"), None);
    assert_eq!(store.used_bytes(), 0);
    assert_eq!(bodies(&store), 0);
    assert!(matches!(store.remove(&root), Err(StoreError::Unknown { .. })));
    let store = store.reopen();
    assert_eq!(store.datasets().expect("a list"), []);
    assert_eq!(add(&store, &sample()), root);
    assert!(staged(&store, &root, Want::All) == sample(), "the folder differs");
}

#[test]
fn chunks_of_other_datasets_survive() {
    let store = TestStore::new();
    let mut other = sample();
    other.insert("one more".into(), noise(50, CHUNK as usize));
    let (one, two) = (add(&store, &sample()), add(&store, &other));
    store.remove(&one).expect("it is here");
    assert!(staged(&store, &two, Want::All) == other, "the folder differs");
    let into = tempfile::tempdir().expect("a temporary directory");
    assert!(store.stage(&one, &Want::All, into.path()).is_err());
    let store = store.reopen();
    for entry in store.files(&two, 0, u64::MAX).expect("the pages are here") {
        if let dockercomp_protocol::manifest::Chunks::Inline(links) = entry.chunks {
            for chunk in links {
                let digest = content::digest(&chunk.0).expect("one of ours");
                assert!(store.block(&digest).expect("a read").is_some(), "{}", entry.path);
            }
        }
    }
}

#[test]
fn staged_files_survive_removal() {
    let store = TestStore::new();
    let root = add(&store, &sample());
    let into = tempfile::tempdir().expect("a temporary directory");
    store.stage(&root, &Want::All, into.path()).expect("it is complete");
    store.remove(&root).expect("it is here");
    assert!(crate::support::read(into.path()) == sample(), "the folder differs");
}

#[test]
fn a_partial_dataset_can_be_removed_and_fetched_again() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let root = add(&from, &sample());
    for _ in 0..10 {
        let cid = to.missing(&root, &Want::All, 1).expect("a walk")[0];
        let block = from.block(&content::digest(&cid).expect("ours")).expect("a read");
        to.put(&root, &cid, &block.expect("the source has all")).expect("the right bytes");
    }
    to.remove(&root).expect("it is here");
    assert_eq!(to.used_bytes(), 0);
    assert_eq!(to.missing(&root, &Want::All, 1).expect("a walk"), [root]);
    fetch(&from, &to, &root, Want::All, 8).expect("all of it");
    assert!(staged(&to, &root, Want::All) == sample(), "the folder differs");
}

#[test]
fn pins_and_names_survive_opening_again() {
    let store = TestStore::new();
    let root = add(&store, &sample());
    store.pin(&root).expect("it is here");
    store.name(&root, "corpus").expect("it is here");
    let store = store.reopen();
    let listed = store.datasets().expect("a list");
    assert_eq!(listed[0].name.as_deref(), Some("corpus"));
    assert!(listed[0].pinned && listed[0].complete);
    assert!(matches!(store.remove(&root), Err(StoreError::Pinned { .. })));
    store.unpin(&root).expect("it is here");
    store.remove(&root).expect("it is not pinned");
}

#[test]
fn files_that_no_dataset_owns_are_deleted_when_opening() {
    let store = TestStore::new();
    let root = add(&store, &sample());
    let stray = content::block_cid(b"stray").to_string();
    fs::create_dir(store.dir.path().join("data").join(&stray)).expect("a directory");
    fs::write(store.dir.path().join("tmp").join("x"), b"x").expect("a file");
    let store = store.reopen();
    assert_eq!(bodies(&store), 1);
    assert_eq!(fs::read_dir(store.dir.path().join("tmp")).expect("a directory").count(), 0);
    assert!(staged(&store, &root, Want::All) == sample(), "the folder differs");
}
