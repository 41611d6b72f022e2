//! CAR files: what is written can be read, and what is wrong is refused.

use dockercomp_store::{CarError, Want};

use crate::support::{TestStore, add, fetch, noise, sample, staged};

fn exported(store: &TestStore, root: &cid::Cid) -> Vec<u8> {
    let mut car = Vec::new();
    store.export_car(root, &mut car, |_| {}).expect("a whole dataset");
    car
}

#[test]
fn a_dataset_survives_the_round_trip() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let files = sample();
    let root = add(&from, &files);
    let car = exported(&from, &root);
    let mut seen = 0;
    assert_eq!(to.import_car(&car[..], |bytes| seen = bytes).expect("our own file"), root);
    assert!(seen > 0 && seen < car.len() as u64);
    assert!(staged(&to, &root, Want::All) == files, "the folder differs");
    assert!(exported(&to, &root) == car, "equal datasets give equal files");
    assert_eq!(to.import_car(&car[..], |_| {}).expect("again"), root);
}

#[test]
fn a_file_that_is_wrong_is_refused() {
    let from = TestStore::new();
    let root = add(&from, &sample());
    let car = exported(&from, &root);
    let import = |bytes: &[u8]| TestStore::new().import_car(bytes, |_| {});
    assert!(matches!(import(b""), Err(CarError::Header)));
    assert!(import(&noise(1, 100)).is_err());
    assert!(matches!(import(&car[..car.len() - 1]), Err(CarError::Io(_))));
    let mut flipped = car.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    assert!(matches!(import(&flipped), Err(CarError::Put { .. })));
    // A section that claims 4 GiB.
    let header = 1 + usize::from(car[0]);
    let mut huge = car[..header].to_vec();
    huge.extend([0x80, 0x80, 0x80, 0x80, 0x10]);
    assert!(matches!(import(&huge), Err(CarError::Length { .. })));
    // The file ends before the root.
    assert!(matches!(import(&car[..header]), Err(CarError::Incomplete { .. })));
    // A dataset that does not fit.
    let small = TestStore::with_quota(Some(100_000));
    assert!(small.import_car(&car[..], |_| {}).is_err());
    assert!(small.used_bytes() <= 100_000);
}

#[test]
fn an_incomplete_dataset_is_not_exported() {
    let (from, to) = (TestStore::new(), TestStore::new());
    let root = add(&from, &sample());
    fetch(&from, &to, &root, Want::Manifest, 8).expect("the manifest");
    assert!(to.export_car(&root, Vec::new(), |_| {}).is_err());
}
