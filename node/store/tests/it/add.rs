//! Folders and files become datasets.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Arc, Mutex};

use dockercomp_protocol::content;
use dockercomp_protocol::manifest::{Chunk, Chunks};
use dockercomp_protocol::wire::chunk::Held;
use dockercomp_store::{AddError, AddOptions, Kind, Want};
use proptest::prelude::*;

use crate::support::{TestStore, add, options, sample, staged, write};

#[test]
fn every_chunk_can_be_read() {
    let store = TestStore::new();
    let files = sample();
    let root = add(&store, &files);

    let mut chunks = 0;
    let entries = store.files(&root, 0, u64::MAX).expect("the pages are here");
    assert_eq!(entries.len(), files.len());
    for entry in entries {
        let Chunks::Inline(links) = entry.chunks else { continue };
        let mut bytes = Vec::new();
        for Chunk(cid, _) in &links {
            let digest = content::digest(cid).expect("one of ours");
            bytes.extend_from_slice(&store.block(&digest).expect("a read").expect("it is here"));
        }
        if links.len() as u64 == entry.size.div_ceil(256 << 10) {
            assert!(files[&entry.path] == bytes, "{} differs", entry.path);
            chunks += links.len();
        }
    }
    assert!(chunks > 30, "only {chunks} chunks were compared");
    let digest = content::digest(&root).expect("one of ours");
    assert_eq!(store.held(&digest).expect("a read"), Held::All);
    assert_eq!(store.missing(&root, &Want::All, 10).expect("a walk"), []);
}

#[test]
fn staged_files_equal_the_source() {
    let store = TestStore::new();
    let files = sample();
    let root = add(&store, &files);
    assert!(staged(&store, &root, Want::All) == files, "the folder differs");
}

#[test]
fn equal_folders_have_equal_roots() {
    let (one, two) = (TestStore::new(), TestStore::new());
    let mut files = sample();
    let root = add(&one, &files);
    assert_eq!(add(&two, &files), root);
    files.insert("small.txt".into(), b"other".to_vec());
    assert_ne!(add(&two, &files), root);
}

#[test]
fn adding_again_stores_nothing() {
    let store = TestStore::new();
    let folder = tempfile::tempdir().expect("a temporary directory");
    write(folder.path(), &sample());
    let first = store.add(folder.path(), &options()).expect("a plain folder");
    let used = store.used_bytes();
    let again = store
        .add(folder.path(), &AddOptions { name: Some("again".into()), ..options() })
        .expect("the same folder");
    assert!(!first.was_here && again.was_here);
    assert_eq!(again.root, first.root);
    assert_eq!(store.used_bytes(), used);
    let listed = store.datasets().expect("a list");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].name.as_deref(), Some("again"));
}

#[test]
fn a_single_file_is_a_dataset() {
    let store = TestStore::new();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("image.tar");
    fs::write(&path, vec![7; 300_000]).expect("a file");
    let added = store.add(&path, &options()).expect("a plain file");
    assert_eq!((added.files, added.bytes), (1, 300_000));
    let files = staged(&store, &added.root, Want::All);
    assert_eq!(files["image.tar"], vec![7; 300_000]);
}

#[test]
fn an_empty_folder_is_a_dataset() {
    let store = TestStore::new();
    let root = add(&store, &Default::default());
    assert!(staged(&store, &root, Want::All).is_empty());
}

#[test]
fn executable_files_stay_so_unless_normalised() {
    let store = TestStore::new();
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (name, bytes) in [("run", vec![1; 10]), ("big", vec![1; 100_000])] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let plain = store.add(folder.path(), &options()).expect("a plain folder").root;
    let output = AddOptions { normalise: true, kind: Kind::Output, ..options() };
    let normalised = store.add(folder.path(), &output).expect("a plain folder").root;
    assert_ne!(plain, normalised);
    for (root, mode) in [(plain, 0o555), (normalised, 0o444)] {
        let into = tempfile::tempdir().expect("a temporary directory");
        store.stage(&root, &Want::All, into.path()).expect("it is complete");
        for name in ["run", "big"] {
            let metadata = fs::metadata(into.path().join(name)).expect("it is staged");
            assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
        }
    }
}

#[test]
fn links_and_strange_names_are_refused_with_their_path() {
    let store = TestStore::new();
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::write(folder.path().join("file"), b"x").expect("a file");
    for target in ["file", "/etc/passwd", "nowhere", "."] {
        let link = folder.path().join("link");
        symlink(target, &link).expect("a link");
        let refused = store.add(folder.path(), &options());
        assert!(matches!(refused, Err(AddError::Kind { path }) if path == link), "{target}");
        fs::remove_file(&link).expect("it was there");
    }
    let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
    fs::write(&odd, b"x").expect("a file");
    let refused = store.add(folder.path(), &options());
    assert!(matches!(refused, Err(AddError::Name { path }) if path == odd));
    fs::remove_file(&odd).expect("it was there");
    fs::write(folder.path().join("back\\slash"), b"x").expect("a file");
    assert!(matches!(store.add(folder.path(), &options()), Err(AddError::Manifest(_))));
    let absent = store.add(&folder.path().join("absent"), &options());
    assert!(matches!(absent, Err(AddError::Read { .. })));
    assert_eq!(store.datasets().expect("a list"), []);
    assert_eq!(store.used_bytes(), 0);
}

#[test]
fn a_file_that_changes_while_it_is_added_is_noticed() {
    let store = TestStore::new();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("log");
    fs::write(&path, vec![1; 100_000]).expect("a file");
    let victim = path.clone();
    // It is hashed first and changed before it is stored.
    let options = AddOptions {
        progress: Some(Arc::new(move |_| fs::write(&victim, vec![2; 100_000]).expect("a file"))),
        ..options()
    };
    let refused = store.add(folder.path(), &options);
    assert!(matches!(refused, Err(AddError::Changed { path: named }) if named == path));
    assert_eq!(store.datasets().expect("a list"), []);
    assert_eq!(store.used_bytes(), 0);
}

#[test]
fn progress_ends_with_everything() {
    let store = TestStore::new();
    let folder = tempfile::tempdir().expect("a temporary directory");
    write(folder.path(), &sample());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let options = AddOptions {
        progress: Some(Arc::new(move |at| sink.lock().expect("no panic").push(at))),
        ..options()
    };
    let added = store.add(folder.path(), &options).expect("a plain folder");
    let seen = seen.lock().expect("no panic");
    let last = seen.last().expect("it was told");
    assert_eq!((last.bytes, last.bytes_total), (added.bytes, added.bytes));
    assert_eq!(last.files_total, added.files);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_folder_survives(
        files in proptest::collection::btree_map(
            "[a-d]{1,3}(/[e-h]{1,3}){0,2}", 0usize..600_000, 0..12,
        )
    ) {
        // A name that is also a directory cannot be written in the first place.
        let names: Vec<String> = files.keys().cloned().collect();
        let is_directory = |name: &str| {
            names.iter().any(|other| other.strip_prefix(name).is_some_and(|r| r.starts_with('/')))
        };
        let files = files
            .into_iter()
            .filter(|(name, _)| !is_directory(name))
            .map(|(name, len)| (name, crate::support::noise(len as u64, len)))
            .collect();
        let store = TestStore::new();
        let root = add(&store, &files);
        let store = store.reopen();
        prop_assert!(staged(&store, &root, Want::All) == files);
    }
}
