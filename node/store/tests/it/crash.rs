//! The process ends at any moment; another one opens what it left.
//!
//! A child process (this test binary, told by an environment variable which part to play)
//! writes and aborts, so nothing of it is closed, dropped or flushed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use dockercomp_protocol::content;
use dockercomp_protocol::manifest::{Chunk, Chunks};
use dockercomp_store::{Kind, OpenError, Options, Row, Store, Table, Want};

use crate::support::{TestStore, add, fetch, sample, staged};

const SOURCE: &str = "DOCKERCOMP_STORE_TEST_SOURCE";
const TARGET: &str = "DOCKERCOMP_STORE_TEST_TARGET";
const AFTER: &str = "DOCKERCOMP_STORE_TEST_AFTER";

fn open(dir: &Path) -> Store {
    Store::open(dir, Options::default()).expect("a store")
}

/// Runs one test of this binary in a process of its own and waits for its violent end.
fn run_until_it_dies(test: &str, variables: &[(&str, &str)]) {
    let mut child = Command::new(env::current_exe().expect("this binary"));
    child.args([test, "--exact", "--nocapture"]).envs(variables.iter().copied());
    let output = child.output().expect("a child process");
    assert!(!output.status.success(), "the child did not die: {output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("dying as planned"), "the child failed: {output:?}");
}

fn die() -> ! {
    println!("dying as planned");
    std::process::abort();
}

fn directory(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from)
}

/// The child: fetches some blocks, with a checkpoint half-way, and dies.
#[test]
fn child_fetches_and_dies() {
    let (Some(source), Some(target)) = (directory(SOURCE), directory(TARGET)) else { return };
    let after: usize = env::var(AFTER).expect("a number").parse().expect("a number");
    let (from, to) = (open(&source), open(&target));
    let root = from.datasets().expect("a list")[0].root;
    for block in 0..after {
        let Some(cid) = to.missing(&root, &Want::All, 1).expect("a walk").pop() else { break };
        let digest = content::digest(&cid).expect("one of ours");
        let bytes = from.block(&digest).expect("a read").expect("the source has all");
        to.put(&root, &cid, &bytes).expect("the right bytes");
        if block == after / 2 {
            to.checkpoint().expect("a checkpoint");
        }
    }
    die()
}

#[test]
fn what_the_index_names_after_a_crash_is_there() {
    let from = TestStore::new();
    let files = sample();
    let root = add(&from, &files);
    let source = from.dir.path().to_owned();
    let TestStore { store, dir: _keep } = from;
    drop(store);
    for after in [1, 2, 5, 20, 45, 1000] {
        let to = tempfile::tempdir().expect("a temporary directory");
        let number = after.to_string();
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        run_until_it_dies(
            "crash::child_fetches_and_dies",
            &[(SOURCE, &path(&source)), (TARGET, &path(to.path())), (AFTER, &number)],
        );
        let from = open(&source);
        let to = open(to.path());
        let held = to.dataset(&root).expect("a read").expect("the root came first").held_bytes;
        let readable = readable_bytes(&to, &root);
        assert!(held <= readable, "after {after}: {held} bytes claimed, {readable} there");
        if after >= 20 {
            assert!(held > 0, "after {after}: the checkpoint was lost");
        }
        fetch(&from, &to, &root, Want::All, 8).expect("the rest");
        assert!(staged(&to, &root, Want::All) == files, "after {after}: the folder differs");
    }
}

/// Bytes of all files whose chunks can be read, chunk by chunk.
fn readable_bytes(store: &Store, root: &cid::Cid) -> u64 {
    let mut bytes = 0;
    for entry in store.files(root, 0, u64::MAX).unwrap_or_default() {
        let links = match entry.chunks {
            Chunks::Inline(links) => links,
            Chunks::Paged(pages) => pages
                .iter()
                .filter_map(|page| store.block(&content::digest(&page.0).ok()?).ok()?)
                .flat_map(|page| {
                    let page: dockercomp_protocol::manifest::ChunkPage =
                        dockercomp_protocol::codec::decode(&page).expect("it was checked");
                    page.chunks
                })
                .collect(),
        };
        for Chunk(cid, _) in links {
            let digest = content::digest(&cid).expect("one of ours");
            bytes += store.block(&digest).expect("a read").map_or(0, |block| block.len() as u64);
        }
    }
    bytes
}

/// The child: appends to the journal and dies without closing.
#[test]
fn child_appends_and_dies() {
    let Some(target) = directory(TARGET) else { return };
    if env::var_os(AFTER).is_some() {
        return;
    }
    let store = open(&target);
    for number in 0..10u8 {
        let row = Row::Put { table: Table::Meta, key: b"last".to_vec(), value: vec![number] };
        store.append(&[vec![number], vec![number, number]], &[row]).expect("an append");
    }
    die()
}

#[test]
fn the_journal_survives_a_crash() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().to_str().expect("UTF-8");
    run_until_it_dies("crash::child_appends_and_dies", &[(TARGET, path)]);
    let store = open(dir.path());
    let records: Vec<_> = store.replay(0).collect::<Result<_, _>>().expect("records");
    let expected: Vec<Vec<u8>> = (0..10u8).flat_map(|n| [vec![n], vec![n, n]]).collect();
    assert_eq!(records, expected);
    assert_eq!(store.get(Table::Meta, b"last").expect("a read"), Some(vec![9]));
}

#[test]
fn a_second_opening_is_refused_and_names_the_holder() {
    let store = TestStore::new();
    let refused = Store::open(store.dir.path(), Options::default()).expect_err("it is held");
    let pid = std::process::id();
    assert!(matches!(&refused, OpenError::Held { pid: Some(found), .. } if *found == pid));
    assert!(refused.to_string().ends_with(&format!("is in use by process {pid}")), "{refused}");
    let again = store.reopen();
    assert_eq!(again.datasets().expect("a list"), []);
}

#[test]
fn a_directory_of_another_version_is_refused() {
    let store = TestStore::new();
    let TestStore { store, dir } = store;
    drop(store);
    std::fs::write(dir.path().join("version"), "5\n").expect("a file");
    let refused = Store::open(dir.path(), Options::default()).expect_err("it is newer");
    assert!(matches!(refused, OpenError::Newer { found: 5, known: 4, .. }));
    std::fs::write(dir.path().join("version"), "2\n").expect("a file");
    let refused = Store::open(dir.path(), Options::default()).expect_err("it is older");
    assert!(matches!(refused, OpenError::Older { found: 2, .. }));
    std::fs::write(dir.path().join("version"), "what\n").expect("a file");
    let refused = Store::open(dir.path(), Options::default()).expect_err("it is not ours");
    assert!(matches!(refused, OpenError::Version { .. }));
}

/// A closed store has everything, also what no checkpoint had published.
#[test]
fn closing_publishes() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let root = add(&from, &sample());
    for _ in 0..30 {
        let cid = to.missing(&root, &Want::All, 1).expect("a walk")[0];
        let block = from.block(&content::digest(&cid).expect("ours")).expect("a read");
        to.put(&root, &cid, &block.expect("the source has all")).expect("the right bytes");
    }
    let before = to.dataset(&root).expect("a read").expect("it is here");
    assert!(before.held_bytes > 0);
    let to = to.reopen();
    assert_eq!(to.dataset(&root).expect("a read").expect("it is here"), before);
    assert_eq!(before.kind, Kind::Fetched);
}
