//! Whether outputs say the same, although their bytes differ: number by number, within a
//! tolerance.
//!
//! Programs whose floating-point results differ in the last digits between processors or
//! libraries would never reach a quorum of equal bytes. Their owner states how far apart two
//! numbers may be, and outputs are compared as what they are:
//!
//! | Files | Are compared |
//! |---|---|
//! | `.csv`, `.tsv` | row by row and field by field; fields that are numbers within the tolerance |
//! | `.json`, `.jsonl`, `.ndjson` | value by value; keys, lengths and texts exactly |
//! | `.npy` | arrays of 32 or 64 bit floating-point or complex numbers element by element, all others exactly |
//! | anything else | byte by byte |
//!
//! Two outputs match if they have the same files and every pair of files matches.
//!
//! # Classes
//!
//! Closeness is not transitive: a may match b and b match c without a matching c. A quorum
//! needs classes, so [`classes`] takes the output that matches most others as the centre of a
//! class, with everything that matches it, and goes on with the rest (BOINC's `check_set`
//! accepts in the same way: the canonical result is one that enough others match).
//!
//! # What is not here
//!
//! - No judgement: which class wins is the coordinator core's.
//! - No program of the owner's: checkers run in the sandbox, not in this process.
//!
//! # Bounds
//!
//! CSV and NumPy files are read as streams. JSON is read whole; a document over
//! [`JSON_BYTES_MAX`] is compared byte by byte. What outputs may weigh in all is the job's
//! limit, checked before they get here.

mod csv;
mod files;
mod json;
mod numpy;
mod tolerance;

use std::path::{Path, PathBuf};

pub use crate::files::{Mismatch, compare};
pub use crate::json::JSON_BYTES_MAX;
pub use crate::tolerance::{Tolerance, ToleranceError};

/// Why outputs could not be compared at all: our side's fault, not theirs.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct CompareError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: std::io::Error,
}

/// Outputs that count as equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The output that all of them match, by its place in the list that was compared.
    pub centre: usize,
    /// All of them, the centre included, in ascending order.
    pub members: Vec<usize>,
}

/// Groups outputs that count as equal, the largest class first. Each folder is in exactly one
/// class.
///
/// # Errors
/// [`CompareError`] if a folder cannot be read.
pub fn classes(folders: &[&Path], tolerance: &Tolerance) -> Result<Vec<Class>, CompareError> {
    let mut matches = vec![vec![false; folders.len()]; folders.len()];
    for (first, a) in folders.iter().enumerate() {
        matches[first][first] = true;
        for (second, b) in folders.iter().enumerate().skip(first + 1) {
            let equal = compare(a, b, tolerance)?.is_ok();
            matches[first][second] = equal;
            matches[second][first] = equal;
        }
    }
    Ok(group(&matches))
}

/// Groups the indices of a symmetric, reflexive relation as [`classes`] does. Of several
/// possible centres the first is taken.
#[must_use]
pub fn group(matches: &[Vec<bool>]) -> Vec<Class> {
    let mut left: Vec<usize> = (0..matches.len()).collect();
    let mut classes = Vec::new();
    while let Some(class) = largest(&left, matches) {
        left.retain(|index| !class.members.contains(index));
        classes.push(class);
    }
    classes
}

/// The class around the index that matches most of those that are left.
fn largest(left: &[usize], matches: &[Vec<bool>]) -> Option<Class> {
    let around = |&centre: &usize| Class {
        centre,
        members: left.iter().copied().filter(|&other| matches[centre][other]).collect(),
    };
    // `max_by_key` would take the last of several.
    left.iter()
        .map(around)
        .reduce(|best, class| if class.members.len() > best.members.len() { class } else { best })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        folder
    }

    #[test]
    fn close_numbers_are_one_class_and_far_ones_another() {
        let texts = ["x,y\n1.0,2.0\n", "x,y\n1.0000001,2.0\n", "x,y\n1.5,2.0\n", "x,y\n1,2e0\n"];
        let folders: Vec<_> = texts.iter().map(|text| folder(&[("table.csv", text)])).collect();
        let paths: Vec<&Path> = folders.iter().map(tempfile::TempDir::path).collect();
        let tolerance = Tolerance::new(1e-6, 0.0).expect("a tolerance");
        let found = classes(&paths, &tolerance).expect("readable folders");
        let members: Vec<_> = found.iter().map(|class| class.members.clone()).collect();
        assert_eq!(members, [vec![0, 1, 3], vec![2]]);
        let exact = classes(&paths, &Tolerance::default()).expect("readable folders");
        assert_eq!(exact.len(), 3, "2e0 is 2, but 1.0000001 is not 1");
    }

    #[test]
    fn a_missing_file_is_another_class() {
        let one = folder(&[("a.txt", "same"), ("b/c.csv", "1\n")]);
        let other = folder(&[("a.txt", "same")]);
        let tolerance = Tolerance::new(0.5, 1.0).expect("a tolerance");
        let found = classes(&[one.path(), other.path()], &tolerance).expect("readable folders");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn the_centre_is_who_matches_most() {
        // 0 ~ 1 ~ 2, but 0 and 2 are too far apart.
        let matches =
            [vec![true, true, false], vec![true, true, true], vec![false, true, true]].to_vec();
        assert_eq!(group(&matches), [Class { centre: 1, members: vec![0, 1, 2] }]);
    }

    proptest! {
        #[test]
        fn every_output_is_in_one_class(bits in prop::collection::vec(any::<bool>(), 36)) {
            let related = |a: usize, b: usize| a == b || bits[a.min(b) * 6 + a.max(b)];
            let matches: Vec<Vec<bool>> =
                (0..6).map(|a| (0..6).map(|b| related(a, b)).collect()).collect();
            let classes = group(&matches);
            let mut all: Vec<usize> =
                classes.iter().flat_map(|class| class.members.clone()).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..6).collect::<Vec<_>>());
            for class in &classes {
                prop_assert!(class.members.iter().all(|&m| related(class.centre, m)));
            }
            let sizes: Vec<_> = classes.iter().map(|class| class.members.len()).collect();
            prop_assert!(sizes.is_sorted_by(|a, b| a >= b));
        }
    }
}
