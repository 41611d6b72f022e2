//! Files of the database that were cut off or changed behind its back, and a disk that fills.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dockercomp_store::{OpenError, Options, Store, StoreError};

use crate::support::TestStore;

const RECORDS: u32 = 200;

/// A closed store whose records lie in the write-ahead log, or in a table.
fn filled(in_table: bool) -> tempfile::TempDir {
    let mut store = TestStore::new();
    for number in 0..RECORDS {
        store.append(&[number.to_be_bytes().repeat(50)], &[]).expect("an append");
    }
    if in_table {
        // Opening moves what the log holds into tables.
        store = store.reopen();
    }
    let TestStore { store, dir } = store;
    drop(store);
    dir
}

/// The largest file of a kind.
fn file(dir: &Path, extension: &str) -> PathBuf {
    let entries = fs::read_dir(dir.join("db")).expect("a directory").filter_map(Result::ok);
    let paths = entries.map(|entry| entry.path());
    let of_kind = paths.filter(|path| path.extension().is_some_and(|end| end == extension));
    of_kind.max_by_key(|path| path.metadata().map_or(0, |file| file.len())).expect("such a file")
}

fn flip_in_the_middle(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("a file");
}

fn records(store: &Store) -> Result<Vec<Vec<u8>>, StoreError> {
    store.replay(0).collect()
}

#[test]
fn a_record_that_was_cut_off_at_the_end_was_never_there() {
    let dir = filled(false);
    let log = file(dir.path(), "log");
    let len = log.metadata().expect("a file").len();
    fs::OpenOptions::new().write(true).open(&log).and_then(|f| f.set_len(len - 7)).expect("a cut");
    let store = Store::open(dir.path(), Options::default()).expect("a store");
    let expected: Vec<_> = (0..RECORDS - 1).map(|n| n.to_be_bytes().repeat(50)).collect();
    assert_eq!(records(&store).expect("records"), expected);
    assert_eq!(store.next_record(), u64::from(RECORDS - 1));
}

/// What came after a flipped bit may have been answered: it is not dropped in silence.
#[test]
fn a_flipped_bit_in_the_log_is_refused() {
    let dir = filled(false);
    flip_in_the_middle(&file(dir.path(), "log"));
    let refused = Store::open(dir.path(), Options::default()).expect_err("it is damaged");
    let OpenError::Store { source, .. } = refused else { panic!("{refused}") };
    let StoreError::Database(cause) = *source else { panic!("{source}") };
    assert!(cause.to_string().contains("Corruption"), "{cause}");
}

#[test]
fn a_flipped_bit_in_a_table_is_refused() {
    let dir = filled(true);
    flip_in_the_middle(&file(dir.path(), "sst"));
    let read = match Store::open(dir.path(), Options::default()) {
        Ok(store) => records(&store).map(|_| ()),
        Err(OpenError::Store { source, .. }) => Err(*source),
        Err(error) => panic!("{error}"),
    };
    let Err(StoreError::Database(cause)) = read else { panic!("{read:?}") };
    assert!(cause.to_string().contains("Corruption"), "{cause}");
}

/// A small file system, unmounted when it is dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    /// Nothing where this process may not mount; then the reason is printed.
    fn tmpfs(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Self(dir)),
            Ok(output) => {
                let reason = String::from_utf8_lossy(&output.stderr).into_owned();
                eprintln!("skipped: a full disk: no file system can be mounted ({reason})");
                None
            }
            Err(error) => {
                eprintln!("skipped: a full disk: mount: {error}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// The store stops before the disk is full, says so, and goes on when there is room.
#[test]
fn a_full_disk_stops_writes_and_loses_nothing() {
    let Some(mount) = Mount::tmpfs("320m") else { return };
    let dir = mount.0.path().join("home");
    let options = Options { reserve_bytes: 64 << 20, ..Options::default() };
    let store = Store::open(&dir, options).expect("a store");
    let filler = mount.0.path().join("filler");
    // More than what RocksDB may write on its own between the last append and the removal.
    fs::write(&filler, vec![1; 120 << 20]).expect("room");
    let mut appended = 0u64;
    let full = loop {
        store.check_room().ok();
        match store.append(&[vec![7; 256 << 10]], &[]) {
            Ok(()) => appended += 1,
            Err(full) => break full,
        }
        assert!(appended < 1000, "the disk does not fill");
    };
    assert!(matches!(full, StoreError::DiskFull { .. }), "{full}");
    assert!(full.to_string().contains("--disk-reserve"), "{full}");
    // A pause was due before that.
    assert!(matches!(store.check_room(), Err(StoreError::DiskFull { .. })));
    fs::remove_file(&filler).expect("it is there");
    store.check_room().expect("room again");
    store.append(&[vec![8]], &[]).expect("an append");
    drop(store);
    let store = Store::open(&dir, options).expect("the same store");
    let records = records(&store).expect("records");
    assert_eq!(records.len() as u64, appended + 1);
    assert!(records[..records.len() - 1].iter().all(|record| *record == vec![7; 256 << 10]));
}
