//! The quota is kept before bytes are written.

use dockercomp_store::{AddError, StoreError, Want};

use crate::support::{CHUNK, TestStore, add, fetch, noise, options, write};

const MIB: u64 = 1 << 20;

#[test]
fn a_folder_that_does_not_fit_is_not_added() {
    let store = TestStore::with_quota(Some(MIB));
    let folder = tempfile::tempdir().expect("a temporary directory");
    write(folder.path(), &[("big".to_owned(), noise(1, 2 << 20))].into());
    let refused = store.add(folder.path(), &options()).expect_err("it is too big");
    let AddError::Store(StoreError::Quota { needed, used, quota }) = refused else {
        panic!("{refused}")
    };
    assert!((2 * MIB..3 * MIB).contains(&needed));
    assert_eq!((used, quota), (0, MIB));
    assert_eq!(store.used_bytes(), 0);
    assert_eq!(store.datasets().expect("a list"), []);
}

#[test]
fn a_dataset_that_does_not_fit_is_not_fetched() {
    let (from, to) = (TestStore::new(), TestStore::with_quota(Some(MIB)));
    let files = (0..8u64).map(|n| (format!("{n}"), noise(n, CHUNK as usize))).collect();
    let root = add(&from, &files);
    let refused = fetch(&from, &to, &root, Want::All, 4).expect_err("it is too big");
    assert!(matches!(refused, StoreError::Quota { .. }), "{refused}");
    assert!(to.used_bytes() < 10_000, "{} bytes were stored", to.used_bytes());

    // A part of it fits, and then no more.
    fetch(&from, &to, &root, Want::Files { first: 0, count: 2 }, 4).expect("it fits");
    let used = to.used_bytes();
    assert!((MIB / 2..MIB / 2 + 10_000).contains(&used), "{used} bytes are stored");
    let refused = fetch(&from, &to, &root, Want::Files { first: 2, count: 4 }, 4);
    assert!(matches!(refused, Err(StoreError::Quota { .. })));
    assert_eq!(to.used_bytes(), used);
    fetch(&from, &to, &root, Want::Files { first: 1, count: 2 }, 4).expect("it fits");
}

#[test]
fn a_promise_counts_until_it_is_given_back() {
    let (from, to) = (TestStore::new(), TestStore::with_quota(Some(2 * MIB)));
    let one = add(&from, &[("x".to_owned(), noise(1, 5 * CHUNK as usize))].into());
    let two = add(&from, &[("x".to_owned(), noise(2, 5 * CHUNK as usize))].into());
    let root = |root: &cid::Cid| {
        let digest = dockercomp_protocol::content::digest(root).expect("one of ours");
        from.block(&digest).expect("a read").expect("the source has all")
    };
    to.put(&one, &one, &root(&one)).expect("the root");
    assert_eq!(to.missing(&one, &Want::All, 1).expect("it fits").len(), 1);
    assert!(to.used_bytes() >= 5 * u64::from(CHUNK), "nothing was promised");
    to.put(&two, &two, &root(&two)).expect("the root");
    assert!(matches!(to.missing(&two, &Want::All, 1), Err(StoreError::Quota { .. })));
    to.release(&one).expect("it is one of ours");
    fetch(&from, &to, &two, Want::All, 4).expect("there is room");
}

#[test]
fn a_finished_fetch_promises_nothing_more() {
    let (from, to) = (TestStore::new(), TestStore::with_quota(Some(10 * MIB)));
    let root = add(&from, &crate::support::sample());
    // Forty chunks of zeros do not fit, although they are one block.
    assert!(matches!(fetch(&from, &to, &root, Want::All, 4), Err(StoreError::Quota { .. })));
    let want = Want::Files { first: 0, count: 5 };
    fetch(&from, &to, &root, want, 4).expect("it fits");
    let used = to.used_bytes();
    assert_eq!(to.reopen().used_bytes(), used);
}
