//! Datasets whose bytes stay at their origin: named and placed here, and not stored.

use std::collections::BTreeMap;

use cid::Cid;
use dockercomp_protocol::content;
use dockercomp_protocol::wire::chunk::Held;
use dockercomp_store::{Object, Origin, Position, Store, StoreError, Want, chunked};

use crate::support::{TestStore, add, fetch, noise, options, sample, staged, write};

fn origin() -> Origin {
    Origin {
        url: "s3://bucket/prefix".to_owned(),
        endpoint: None,
        region: None,
        allow_http: false,
        anonymous: false,
    }
}

/// Adds these files as if they lay in a bucket.
fn add_at(store: &Store, files: &BTreeMap<String, Vec<u8>>) -> Cid {
    let chunker = options().chunker;
    let placed = files.iter().rev().map(|(path, bytes)| {
        let file = chunked(path.clone(), &bytes[..], chunker, 1, |_| {}).expect("memory");
        let (key, size) = (format!("prefix/{path}"), bytes.len() as u64);
        (file, Object { key, size, e_tag: Some("\"1\"".to_owned()), modified_ms: 0 })
    });
    store.add_at(&origin(), placed.collect(), &options()).expect("a plain list").root
}

/// Reads the bytes of every lead from `files`, as their origin would give them.
fn read_all(
    store: &Store,
    root: &Cid,
    files: &BTreeMap<String, Vec<u8>>,
) -> BTreeMap<[u8; 32], Vec<u8>> {
    let (mut at, mut blocks) = (Position::default(), BTreeMap::new());
    loop {
        let leads = store.elsewhere(root, &mut at, 7).expect("the manifest is here");
        if leads.is_empty() {
            return blocks;
        }
        for lead in leads {
            let path = lead.object.key.strip_prefix("prefix/").expect("its key");
            let range = lead.offset as usize..(lead.offset + lead.len) as usize;
            let bytes = files[path][range].to_vec();
            assert_eq!(content::digest_of(&bytes), lead.digest, "{path} at {}", lead.offset);
            assert!(store.leads(&lead.digest).expect("an index").contains(&lead));
            blocks.insert(lead.digest, bytes);
        }
    }
}

#[test]
fn a_dataset_stays_at_its_origin() {
    let files = sample();
    let store = TestStore::new();
    let root = add_at(&store, &files);
    assert_eq!(root, add(&TestStore::new(), &files), "the place makes no difference");

    let store = store.reopen();
    let dataset = store.dataset(&root).expect("a row").expect("it was added");
    assert_eq!((dataset.complete, dataset.is_whole(), dataset.held_bytes), (false, true, 0));
    assert_eq!(dataset.origin, Some(origin()));
    assert!(store.used_bytes() < 64 << 10, "{} bytes are used", store.used_bytes());
    let digest = content::digest(&root).expect("our kind");
    assert_eq!(store.held(&digest).expect("a row"), Held::All);
    let large = BTreeMap::from([("again".to_owned(), files["paged"].clone())]);
    let folder = tempfile::tempdir().expect("a temporary directory");
    write(folder.path(), &large);
    let added = store.add(folder.path(), &options()).expect("a plain folder");
    assert_eq!(added.shared_bytes, 0, "what is elsewhere is not here");
    store.remove(&added.root).expect("it is here");

    // Every chunk is led to, and what is fetched from there makes the dataset complete.
    let blocks = read_all(&store, &root, &files);
    assert!(blocks.len() > 50, "{} chunks", blocks.len());
    loop {
        let missing = store.missing(&root, &Want::All, 8).expect("there is room");
        if missing.is_empty() {
            break;
        }
        for cid in missing {
            let digest = content::digest(&cid).expect("our kind");
            assert_eq!(store.block(&digest).expect("a store"), None, "it was not stored");
            let bytes = blocks.get(&digest).expect("it is at the origin").clone();
            store.put(&root, &cid, &bytes.into()).expect("the right bytes");
        }
    }
    assert!(staged(&store, &root, Want::All) == files, "the files differ");
    let to = TestStore::new();
    fetch(&store, &to, &root, Want::All, 8).expect("all of it");
    assert_eq!(store.elsewhere(&root, &mut Position::default(), 1).expect("a list"), []);
}

#[test]
fn nothing_is_left_of_an_origin_that_was_removed() {
    let files = BTreeMap::from([("large".to_owned(), noise(7, 1 << 20))]);
    let store = TestStore::new();
    let root = add_at(&store, &files);
    let digest = *read_all(&store, &root, &files).keys().next().expect("a chunk");
    assert_eq!(store.leads(&digest).expect("an index").len(), 1);
    store.remove(&root).expect("it is here");
    assert_eq!(store.leads(&digest).expect("an index"), []);
    assert_eq!(store.used_bytes(), 0);
    let refused = store.elsewhere(&root, &mut Position::default(), 1);
    assert!(matches!(refused, Err(StoreError::Unknown { .. })), "{refused:?}");
}
