//! Snapshots, what they let go, and violent ends in the middle of one.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dockercomp_store::{Options, Row, Store, StoreError, Table};

use crate::support::TestStore;

const TARGET: &str = "DOCKERCOMP_STORE_TEST_SNAPSHOTS";

fn open(dir: &Path) -> Store {
    Store::open(dir, Options::default()).expect("a store")
}

/// Appends records that say their own number.
fn append(store: &Store, count: u64) {
    let first = store.next_record();
    let records: Vec<_> = (first..first + count).map(|n| n.to_be_bytes().to_vec()).collect();
    store.append(&records, &[]).expect("an append");
}

fn records(store: &Store, first: u64) -> Vec<u64> {
    let number = |record: Vec<u8>| u64::from_be_bytes(record.try_into().expect("a number"));
    store.replay(first).map(|record| number(record.expect("a record"))).collect()
}

#[test]
fn the_two_newest_snapshots_and_the_records_after_them_are_kept() {
    let mut store = TestStore::new();
    assert_eq!(store.snapshots().expect("a list"), []);
    append(&store, 10);
    store.put_snapshot(10, b"ten").expect("a snapshot");
    append(&store, 5);
    // Nothing to fall back on: history stays.
    assert_eq!(records(&store, 0), (0..15).collect::<Vec<_>>());
    let large = vec![7; (2 << 20) + 1];
    store.put_snapshot(15, &large).expect("a snapshot");
    append(&store, 5);
    for _ in 0..2 {
        assert_eq!(store.snapshots().expect("a list"), [15, 10]);
        assert_eq!(store.snapshot(15).expect("a read"), Some(large.clone()));
        assert_eq!(store.snapshot(10).expect("a read"), Some(b"ten".to_vec()));
        assert_eq!(records(&store, 10), (10..20).collect::<Vec<_>>());
        let gone = store.replay(0).next().expect("a record").expect_err("it was deleted");
        assert!(matches!(gone, StoreError::Gap { number: 0 }), "{gone}");
        store = store.reopen();
    }
    store.put_snapshot(20, b"twenty").expect("a snapshot");
    assert_eq!(store.snapshots().expect("a list"), [20, 15]);
    assert_eq!(store.snapshot(10).expect("a read"), None);
    // A journal without records goes on where it was.
    store.put_snapshot(20, b"again").expect("a snapshot");
    let store = store.reopen();
    assert_eq!(store.next_record(), 20);
    append(&store, 1);
    assert_eq!(records(&store, 20), [20]);
}

/// The disk does not fill with what was deleted.
#[test]
fn a_journal_with_snapshots_takes_bounded_room() {
    let store = TestStore::new();
    let mut sizes = Vec::new();
    for _ in 0..12 {
        for _ in 0..24 {
            store.append(&[vec![1; 1 << 20]], &[]).expect("an append");
        }
        store.put_snapshot(store.next_record(), b"state").expect("a snapshot");
        sizes.push(size(&store.dir.path().join("db")));
    }
    // Two intervals of the journal, the write-ahead log, and a buffer: far below the 288 MiB
    // that were written.
    let last = sizes[sizes.len() - 1];
    assert!(last < 200 << 20, "{sizes:?}");
}

fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("a directory");
    entries.map(|entry| entry.and_then(|e| e.metadata()).map_or(0, |m| m.len())).sum()
}

/// The child: appends and writes snapshots without end. A snapshot says how many records it
/// stands for, and is large enough to have several parts.
#[test]
fn child_snapshots_until_it_is_killed() {
    let Some(target) = env::var_os(TARGET).map(PathBuf::from) else { return };
    let store = open(&target);
    loop {
        append(&store, 3);
        let next = store.next_record();
        let last = Row::Put {
            table: Table::Meta,
            key: b"next".to_vec(),
            value: next.to_be_bytes().to_vec(),
        };
        store.append(&[], &[last]).expect("an append");
        println!("durable {next}");
        let state = next.to_be_bytes().repeat(300_000);
        store.put_snapshot(next, &state).expect("a snapshot");
        println!("snapshot {next}");
    }
}

/// Whenever the process is killed, the newest snapshot and the records after it are all that
/// was ever durable.
#[test]
fn a_kill_in_the_middle_of_a_snapshot_loses_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for kill in 0u32..16 {
        let mut child = Command::new(env::current_exe().expect("this binary"))
            .args(["snapshots::child_snapshots_until_it_is_killed", "--exact", "--nocapture"])
            .env(TARGET, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (mut durable, mut lines) = (0, stdout.lines().map_while(Result::ok));
        // Killed after a line, and some of a snapshot's work.
        let mut left = 2 + kill % 4;
        for line in lines.by_ref() {
            if let Some(next) = line.strip_prefix("durable ") {
                durable = next.parse::<u64>().expect("a number");
            }
            if line.starts_with("durable ") || line.starts_with("snapshot ") {
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        let work = (0..kill * 20_000).fold(0u32, |sum, n| std::hint::black_box(sum ^ n));
        child.kill().unwrap_or_else(|error| panic!("it can be killed ({work}): {error}"));
        child.wait().expect("it ends");

        let store = open(dir.path());
        let newest = store.snapshots().expect("a list").first().copied().unwrap_or(0);
        if newest > 0 {
            let state = store.snapshot(newest).expect("a read").expect("it is whole");
            assert_eq!(state, newest.to_be_bytes().repeat(300_000), "kill {kill}");
        }
        let tail = records(&store, newest);
        assert_eq!(tail, (newest..store.next_record()).collect::<Vec<_>>(), "kill {kill}");
        assert!(store.next_record() >= durable, "kill {kill}: {durable} were durable");
    }
}
