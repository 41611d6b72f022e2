//! What is read from files: receipts, journals, outputs.

use std::fs;

use dockercomp_compare::{Tolerance, classes};
use dockercomp_coordinator_core::{RECORD_VERSION, Record};
use dockercomp_protocol::codec;
use dockercomp_protocol::receipt::{Part, Receipt, damage};

/// A receipt, or one that is damaged: the search for its first wrong byte ends, and names a
/// place in it.
pub(crate) fn receipt(bytes: &[u8]) -> bool {
    if let Ok(receipt) = Receipt::decode(bytes) {
        assert_eq!(receipt.encode(), bytes);
        return true;
    }
    if let Some(damage) = damage::locate(bytes, |_| Err(Part::Entry)) {
        assert!(damage.offset <= bytes.len());
    }
    false
}

/// A record of a coordinator's journal.
pub(crate) fn record(bytes: &[u8]) -> bool {
    let Ok(record) = Record::read(RECORD_VERSION, bytes) else { return false };
    assert_eq!(codec::encode(&record), bytes);
    true
}

/// Two outputs, cut at the place that the second byte says, of the kind that the first says:
/// comparing them ends, and each is like itself.
pub(crate) fn comparison(bytes: &[u8]) -> bool {
    let [kind, cut, rest @ ..] = bytes else { return false };
    let name = ["output.csv", "output.json", "output.npy"][usize::from(*kind % 3)];
    let (one, other) = rest.split_at(rest.len() * usize::from(*cut) / 255);
    let folders = tempfile::tempdir().expect("a temporary directory");
    let made = ["a", "b", "c"].map(|folder| folders.path().join(folder));
    for (folder, output) in made.iter().zip([one, other, one]) {
        fs::create_dir(folder).expect("a folder");
        fs::write(folder.join(name), output).expect("a file");
    }
    let tolerance = Tolerance::new(1e-3, 1e-6).expect("a tolerance");
    let found = classes(&[&made[0], &made[1], &made[2]], &tolerance).expect("folders are read");
    let members: Vec<_> = found
        .iter()
        .find(|class| class.members.contains(&0))
        .into_iter()
        .flat_map(|class| class.members.clone())
        .collect();
    assert!(members.contains(&2), "equal bytes match whatever they are");
    members.contains(&1) && one != other
}
