//! Garbage goes, and what is needed stays.

use std::collections::BTreeMap;

use dockercomp_protocol::content;
use dockercomp_store::{Kind, Want};

use crate::support::{TestStore, add, fetch, noise, staged};

const MIB: usize = 1 << 20;

fn one_file(seed: u64, len: usize) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([(format!("file {seed}"), noise(seed, len))])
}

#[test]
fn only_what_nobody_needs_goes_the_least_recently_used_first() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let sets: Vec<_> = (0..7).map(|seed| one_file(seed, MIB)).collect();
    let roots: Vec<_> = sets.iter().map(|files| add(&from, files)).collect();
    for root in &roots {
        fetch(&from, &to, root, Want::All, 8).expect("all of it");
    }
    let [old, used, pinned, leased, output, begun, new] = roots[..] else { panic!("seven") };
    assert!(staged(&to, &used, Want::All) == sets[1]);
    to.pin(&pinned).expect("it is here");
    let lease = to.lease(&leased).expect("ours");
    to.mark(&output, Kind::Output).expect("it is here");
    to.remove(&begun).expect("it is here");
    let root_block = from.block(&content::digest(&begun).expect("ours")).expect("a read");
    to.missing(&begun, &Want::All, 8).expect("a walk");
    to.put(&begun, &begun, &root_block.expect("it is there")).expect("the root");
    to.missing(&begun, &Want::All, 8).expect("room is promised");
    let own = add(&to, &one_file(99, MIB));

    let all = to.used_bytes();
    let first = to.collect(all - 1).expect("a collection");
    assert_eq!(first.roots, [old], "the least recently used goes first, and only that");
    assert!(first.bytes > MIB as u64);
    let rest = to.collect(0).expect("a collection");
    assert_eq!(rest.roots, [new, used]);
    drop(lease);
    assert_eq!(to.collect(0).expect("a collection").roots, [leased]);
    for (root, files) in [(&pinned, &sets[2]), (&output, &sets[4])] {
        assert!(staged(&to, root, Want::All) == *files, "something needed was damaged");
    }
    assert!(to.dataset(&own).expect("a read").is_some_and(|own| own.complete));
    fetch(&from, &to, &begun, Want::All, 8).expect("the fetch goes on");
    assert!(staged(&to, &begun, Want::All) == sets[5]);
}
