//! A dataset comes block by block.

use std::collections::BTreeMap;

use bytes::Bytes;
use cid::Cid;
use dockercomp_protocol::limits::PAGE_FILES_MAX;
use dockercomp_protocol::manifest::{self, ChunkedFile, Chunker, Root};
use dockercomp_protocol::wire::chunk::Held;
use dockercomp_protocol::{codec, content};
use dockercomp_store::{Kind, PutError, StageError, StoreError, Want};
use proptest::prelude::*;

use crate::support::{CHUNK, TestStore, add, fetch, noise, sample, staged};

#[test]
fn a_whole_dataset_comes_over() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let files = sample();
    let root = add(&from, &files);
    let digest = content::digest(&root).expect("one of ours");

    assert_eq!(to.held(&digest).expect("a read"), Held::None);
    assert_eq!(to.missing(&root, &Want::All, 8).expect("a walk"), [root]);
    assert!(!to.is_complete(&root, &Want::All).expect("a check"));
    let refused = to.stage(&root, &Want::All, to.dir.path());
    assert!(matches!(refused, Err(StageError::NotEmpty { .. })));

    let blocks = fetch(&from, &to, &root, Want::All, 8).expect("all of it");
    // Forty chunks of zeros are one block.
    assert!((50..70).contains(&blocks), "{blocks} blocks came");
    assert!(to.is_complete(&root, &Want::All).expect("a check"));
    assert_eq!(to.held(&digest).expect("a read"), Held::All);
    assert!(staged(&to, &root, Want::All) == files, "the folder differs");

    let to = to.reopen();
    assert!(to.is_complete(&root, &Want::All).expect("a check"));
    assert!(staged(&to, &root, Want::All) == files, "the folder differs");
    let listed = to.datasets().expect("a list");
    assert_eq!((listed[0].kind, listed[0].complete), (Kind::Fetched, true));
    assert_eq!(listed[0].held_bytes, listed[0].bytes);
}

#[test]
fn a_range_of_files_comes_over() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let files = sample();
    let root = add(&from, &files);
    let want = Want::Files { first: 2, count: 4 };
    fetch(&from, &to, &root, want, 3).expect("a part of it");
    let expected: BTreeMap<_, _> = files.clone().into_iter().skip(2).take(4).collect();
    assert!(staged(&to, &root, want) == expected, "the files differ");

    let digest = content::digest(&root).expect("one of ours");
    assert_eq!(to.held(&digest).expect("a read"), Held::Part);
    assert!(!to.is_complete(&root, &Want::All).expect("a check"));
    let into = tempfile::tempdir().expect("a temporary directory");
    let refused = to.stage(&root, &Want::All, into.path());
    assert!(matches!(refused, Err(StageError::Incomplete { .. })));

    fetch(&from, &to, &root, Want::All, 5).expect("the rest");
    assert!(staged(&to, &root, Want::All) == files, "the folder differs");
}

#[test]
fn a_range_beyond_the_end_is_cut() {
    let store = TestStore::new();
    let root = add(&store, &sample());
    let want = Want::Files { first: sample().len() as u64 - 1, count: u64::MAX };
    assert_eq!(staged(&store, &root, want).len(), 1);
    let beyond = Want::Files { first: u64::MAX, count: u64::MAX };
    assert!(staged(&store, &root, beyond).is_empty());
}

#[test]
fn wrong_bytes_are_refused_and_not_stored() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let root = add(&from, &sample());
    let wrong = Bytes::from_static(b"wrong");
    let refused = to.put(&root, &root, &wrong).expect_err("it is wrong");
    assert!(matches!(refused, PutError::Mismatch(_)) && refused.is_senders_fault());
    assert_eq!(to.datasets().expect("a list"), []);

    while let Some(cid) = to.missing(&root, &Want::All, 1).expect("a walk").pop() {
        let digest = content::digest(&cid).expect("one of ours");
        let right = from.block(&digest).expect("a read").expect("the source has all");
        let mut wrong = right.to_vec();
        wrong[0] ^= 1;
        let used = to.used_bytes();
        assert!(matches!(to.put(&root, &cid, &wrong.into()), Err(PutError::Mismatch(_))));
        assert_eq!(to.block(&digest).expect("a read"), None);
        assert_eq!(to.used_bytes(), used);
        to.put(&root, &cid, &right).expect("the right bytes");
        // It can be served at once, before any checkpoint.
        assert_eq!(to.block(&digest).expect("a read"), Some(right));
    }
}

#[test]
fn a_foreign_block_is_refused() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let root = add(&from, &sample());
    let block = from.block(&content::digest(&root).expect("ours")).expect("a read");
    to.put(&root, &root, &block.expect("it has it")).expect("the root");
    let foreign = Bytes::from_static(b"something else");
    let refused = to.put(&root, &content::chunk_cid(&foreign), &foreign);
    assert!(matches!(refused, Err(PutError::NotWanted { .. })));
}

#[test]
fn a_broken_manifest_is_refused_but_its_sender_is_not_blamed() {
    let to = TestStore::new();
    let block = Bytes::from_static(b"\xa0");
    let root = content::block_cid(&block);
    assert_eq!(to.missing(&root, &Want::All, 1).expect("a walk"), [root]);
    let refused = to.put(&root, &root, &block).expect_err("not a root");
    assert!(matches!(refused, PutError::Manifest { .. }) && !refused.is_senders_fault());
    assert_eq!(to.datasets().expect("a list"), []);
}

/// A block is named by its bytes, so none can lead back to itself. What comes nearest to a cycle
/// is refused: a root with a page twice or with a root for a page, and pages that overlap.
#[test]
fn pages_that_go_in_circles_are_refused() {
    let to = TestStore::new();
    let file = |path: String| {
        let b3 = content::digest_of(&[]);
        ChunkedFile { path, size: 0, exec: false, b3, chunks: vec![] }
    };
    let page_from = |first: usize| {
        let files = (first..first + PAGE_FILES_MAX).map(|number| file(format!("{number:04}")));
        manifest::build(Chunker::default(), files.collect()).expect("a manifest")
    };
    let (one, other) = (page_from(0), page_from(1));
    let root_of = |files: usize, pages: Vec<Cid>| {
        let bytes = codec::encode(&Root { files: files as u64, pages, ..one.root.clone() });
        (content::block_cid(&bytes), Bytes::from(bytes))
    };
    let refused = |root: &Cid, cid: &Cid, block: &[u8]| {
        let refused = to.put(root, cid, &Bytes::copy_from_slice(block)).expect_err("it is wrong");
        assert!(matches!(refused, PutError::Manifest { .. }) && !refused.is_senders_fault());
    };
    let [(page, block), (inner, inner_block)] = &one.blocks[..] else { panic!("a page, a root") };

    let (twice, twice_block) = root_of(2 * PAGE_FILES_MAX, vec![*page; 2]);
    refused(&twice, &twice, &twice_block);

    let (nested, nested_block) = root_of(1, vec![*inner]);
    to.put(&nested, &nested, &nested_block).expect("nothing of its pages is known");
    refused(&nested, inner, inner_block);

    let (overlap, overlap_block) = root_of(2 * PAGE_FILES_MAX, vec![*page, other.blocks[0].0]);
    to.put(&overlap, &overlap, &overlap_block).expect("nothing of its pages is known");
    to.put(&overlap, page, &Bytes::copy_from_slice(block)).expect("alone it is right");
    refused(&overlap, &other.blocks[0].0, &other.blocks[0].1);
}

/// A root of ten million files costs what its own block does, until pages come.
#[test]
fn a_root_of_ten_million_files_is_cheap() {
    const FILES: u64 = 10_000_000;
    let to = TestStore::with_quota(Some(2 << 20));
    let n_pages = FILES.div_ceil(PAGE_FILES_MAX as u64);
    let pages = (0..n_pages).map(|page| content::block_cid(&page.to_le_bytes())).collect();
    let root = Root { v: 1, chunker: Chunker::default(), files: FILES, bytes: 0, pages };
    let bytes = Bytes::from(codec::encode(&root));
    let cid = content::block_cid(&bytes);
    to.put(&cid, &cid, &bytes).expect("a root");
    assert_eq!(to.missing(&cid, &Want::All, 64).expect("a walk"), root.pages[..64]);
    assert!(to.used_bytes() <= bytes.len() as u64, "{} bytes are used", to.used_bytes());
    to.remove(&cid).expect("it is here");
    assert_eq!(to.used_bytes(), 0);

    // And what it says of its size must fit before a page of it is asked for.
    let huge = Root { bytes: u64::MAX, ..root };
    let bytes = Bytes::from(codec::encode(&huge));
    let cid = content::block_cid(&bytes);
    to.put(&cid, &cid, &bytes).expect("a root");
    let refused = to.missing(&cid, &Want::All, 64);
    assert!(matches!(refused, Err(StoreError::Quota { .. })), "{refused:?}");
}

#[test]
fn blocks_may_come_twice_and_unasked() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let files = BTreeMap::from([("f".to_owned(), noise(1, 3 * CHUNK as usize))]);
    let root = add(&from, &files);
    let entry = from.files(&root, 0, 1).expect("the page").remove(0);
    let dockercomp_protocol::manifest::Chunks::Inline(chunks) = entry.chunks else {
        panic!("three chunks need no page")
    };
    let chunks: Vec<_> = chunks.iter().map(|chunk| chunk.0).collect();
    let pages = from.root(&root).expect("a read").expect("it is here").pages;
    for cid in [root].iter().chain(&pages).chain(&chunks).chain(&chunks) {
        let digest = content::digest(cid).expect("one of ours");
        let bytes = from.block(&digest).expect("a read").expect("the source has all");
        to.put(&root, cid, &bytes).expect("it is part of it");
    }
    assert_eq!(to.missing(&root, &Want::All, 1).expect("a walk"), []);
    assert_eq!(to.dataset(&root).expect("a read").expect("it is here").held_bytes, 786_432);
}

#[test]
fn what_another_dataset_has_is_not_fetched() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let old = sample();
    let mut new = old.clone();
    new.insert("one more".into(), noise(77, 2 * CHUNK as usize));
    new.insert("and a small one".into(), b"tiny".to_vec());
    let (old_root, new_root) = (add(&from, &old), add(&from, &new));
    fetch(&from, &to, &old_root, Want::All, 16).expect("all of it");
    let blocks = fetch(&from, &to, &new_root, Want::All, 16).expect("the difference");
    // Root, page, and three chunks.
    assert_eq!(blocks, 5);
    assert!(staged(&to, &new_root, Want::All) == new, "the folder differs");
}

#[test]
fn only_a_dataset_is_a_dataset() {
    let store = TestStore::new();
    let absent = content::block_cid(b"absent");
    assert!(matches!(store.name(&absent, "x"), Err(StoreError::Unknown { .. })));
    assert!(matches!(store.files(&absent, 0, 1), Err(StoreError::Unknown { .. })));
    assert_eq!(store.root(&absent).expect("a read"), None);
    assert!(!store.is_complete(&absent, &Want::All).expect("a check"));
}

#[test]
fn every_one_of_many_small_files_is_named_once() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let files = (0..3000u64).map(|n| (format!("{n:05}"), noise(n, 40))).collect();
    let root = add(&from, &files);
    let blocks = fetch(&from, &to, &root, Want::All, 16).expect("all of it");
    // The files, their six pages, the root.
    assert_eq!(blocks, 3000 + 6 + 1);
    assert!(staged(&to, &root, Want::All) == files, "the folder differs");
}

/// Work units of one dataset are fetched at once, in overlapping ranges, while others read.
#[test]
fn many_fetches_of_one_dataset_do_not_disturb_each_other() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let files = sample();
    let root = add(&from, &files);
    let wants = [(0, 4), (2, 9), (8, 30), (0, 30), (0, 4)];
    std::thread::scope(|scope| {
        for (first, count) in wants {
            let (from, to) = (from.store.clone(), to.store.clone());
            scope.spawn(move || {
                let want = Want::Files { first, count };
                fetch(&from, &to, &root, want, 3).expect("a part of it");
                assert!(to.is_complete(&root, &want).expect("a check"));
                assert!(!staged(&to, &root, want).is_empty());
                to.checkpoint().expect("a checkpoint");
            });
        }
    });
    assert!(staged(&to, &root, Want::All) == files, "the folder differs");
    assert_eq!(to.missing(&root, &Want::All, 1).expect("a walk"), []);
    let used = to.used_bytes();
    let to = to.reopen();
    assert_eq!(to.used_bytes(), used);
    assert!(staged(&to, &root, Want::All) == files, "the folder differs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn any_range_can_be_fetched(first in 0u64..40, count in 0u64..40, window in 1usize..20) {
        let (from, to) = (TestStore::new(), TestStore::new());
        let files = sample();
        let root = add(&from, &files);
        let want = Want::Files { first, count };
        fetch(&from, &to, &root, want, window).expect("a part of it");
        let (first, count) = (first as usize, count as usize);
        let expected: BTreeMap<_, _> = files.into_iter().skip(first).take(count).collect();
        prop_assert!(staged(&to, &root, want) == expected);
    }
}
