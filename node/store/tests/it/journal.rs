//! Records in order, rows with them.

use dockercomp_store::{Row, Store, Table};
use proptest::prelude::*;

use crate::support::TestStore;

fn records(store: &Store) -> Vec<Vec<u8>> {
    store.replay(0).collect::<Result<_, _>>().expect("records")
}

fn put(key: &[u8], value: &[u8]) -> Row {
    Row::Put { table: Table::Jobs, key: key.to_vec(), value: value.to_vec() }
}

#[test]
fn records_are_replayed_in_order_across_openings() {
    let mut store = TestStore::new();
    let mut expected = Vec::new();
    // More than 256 records: numbers that sort wrongly as text or little-endian would show.
    for round in 0..3u16 {
        for number in 0..150u16 {
            let record = [round.to_be_bytes(), number.to_be_bytes()].concat();
            store.append(&[record.clone(), vec![]], &[]).expect("an append");
            expected.extend([record, vec![]]);
        }
        store = store.reopen();
    }
    assert_eq!(records(&store), expected);
}

#[test]
fn rows_are_written_with_their_records() {
    let store = TestStore::new();
    store.append(&[b"one".to_vec()], &[put(b"a", b"1"), put(b"b", b"2")]).expect("an append");
    let delete = Row::Delete { table: Table::Jobs, key: b"a".to_vec() };
    store.append(&[], &[delete, put(b"b", b"3")]).expect("an append");
    let store = store.reopen();
    assert_eq!(store.get(Table::Jobs, b"a").expect("a read"), None);
    assert_eq!(store.get(Table::Jobs, b"b").expect("a read"), Some(b"3".to_vec()));
    // Tables are apart from each other.
    assert_eq!(store.get(Table::Outbox, b"b").expect("a read"), None);
    assert_eq!(records(&store), [b"one"]);
}

#[test]
fn a_scan_goes_on_after_a_key() {
    let store = TestStore::new();
    let keys = [&b"a/1"[..], b"a/2", b"a/20", b"a/3", b"b/1"];
    let rows: Vec<Row> = keys.iter().map(|key| put(key, key)).collect();
    store.append(&[], &rows).expect("an append");
    let page = |after: Option<&[u8]>, max| -> Vec<Vec<u8>> {
        let pairs = store.scan(Table::Jobs, b"a/", after, max).expect("a scan");
        pairs.into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(page(None, 2), [b"a/1".to_vec(), b"a/2".to_vec()]);
    assert_eq!(page(Some(b"a/2"), 9), [b"a/20".to_vec(), b"a/3".to_vec()]);
    assert_eq!(page(Some(b"a/3"), 9), Vec::<Vec<u8>>::new());
    assert_eq!(store.scan(Table::Jobs, b"", None, 9).expect("a scan").len(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn any_batches_are_replayed(
        batches in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..5), 0..20,
        )
    ) {
        let store = TestStore::new();
        for batch in &batches {
            store.append(batch, &[]).expect("an append");
        }
        prop_assert_eq!(records(&store.reopen()), batches.concat());
    }
}
