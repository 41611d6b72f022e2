//! Two folders: the same files, and each pair compared by its kind.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::{CompareError, Tolerance, csv, json, numpy};

/// Why two outputs do not match: the first difference, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// One of them lacks a file.
    #[error("only one of them has {}", path.display())]
    Files {
        /// Its path in the output.
        path: PathBuf,
    },
    /// A file differs.
    #[error("{} differs at {place}", path.display())]
    Content {
        /// Its path in the output.
        path: PathBuf,
        /// Where, in the terms of its kind.
        place: String,
    },
}

/// Compares two outputs. The outer result says whether they could be read, the inner one
/// whether they match.
///
/// # Errors
/// [`CompareError`] if a folder or file cannot be read.
pub fn compare(
    a: &Path,
    b: &Path,
    tolerance: &Tolerance,
) -> Result<Result<(), Mismatch>, CompareError> {
    let (of_a, of_b) = (list(a)?, list(b)?);
    if let Some(path) = of_a.symmetric_difference(&of_b).next() {
        return Ok(Err(Mismatch::Files { path: path.clone() }));
    }
    for path in of_a {
        if let Some(place) = difference(&a.join(&path), &b.join(&path), tolerance)? {
            return Ok(Err(Mismatch::Content { path, place }));
        }
    }
    Ok(Ok(()))
}

/// All files below a folder, by their relative paths.
fn list(folder: &Path) -> Result<BTreeSet<PathBuf>, CompareError> {
    let mut files = BTreeSet::new();
    for entry in WalkDir::new(folder).min_depth(1) {
        let entry = entry.map_err(|error| CompareError {
            path: error.path().unwrap_or(folder).to_owned(),
            source: error.into(),
        })?;
        if !entry.file_type().is_dir() {
            let path = entry.path().strip_prefix(folder).expect("entries are below the folder");
            files.insert(path.to_owned());
        }
    }
    Ok(files)
}

/// Where two files first differ. A file that is not what its name says matches only a file of
/// equal bytes.
fn difference(a: &Path, b: &Path, tolerance: &Tolerance) -> Result<Option<String>, CompareError> {
    let Some(place) = bytes(a, b)? else { return Ok(None) };
    let extension = a.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let compare: fn(&Path, &Path, &Tolerance) -> Verdict = match extension {
        "csv" => |a, b, tolerance| csv::compare(a, b, b',', tolerance),
        "tsv" => |a, b, tolerance| csv::compare(a, b, b'\t', tolerance),
        "json" => json::compare_document,
        "jsonl" | "ndjson" => json::compare_lines,
        "npy" => numpy::compare,
        _ => return Ok(Some(place)),
    };
    match compare(a, b, tolerance) {
        Verdict::Match => Ok(None),
        Verdict::Differ(place) => Ok(Some(place)),
        Verdict::NotThatKind => Ok(Some(place)),
    }
}

/// What the comparison by kind says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Within the tolerance.
    Match,
    /// Not; the first difference is here.
    Differ(String),
    /// At least one of them is not what its name says.
    NotThatKind,
}

/// The first byte at which two files differ.
fn bytes(a: &Path, b: &Path) -> Result<Option<String>, CompareError> {
    let open = |path: &Path| {
        let file = File::open(path);
        file.map(BufReader::new).map_err(|source| CompareError { path: path.to_owned(), source })
    };
    let (mut from_a, mut from_b) = (open(a)?, open(b)?);
    let (mut block_a, mut block_b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut position = 0;
    loop {
        let fill = |reader: &mut BufReader<File>, block: &mut [u8], path: &Path| {
            fill(reader, block).map_err(|source| CompareError { path: path.to_owned(), source })
        };
        let n_a = fill(&mut from_a, &mut block_a, a)?;
        let n_b = fill(&mut from_b, &mut block_b, b)?;
        let pairs = block_a[..n_a].iter().zip(&block_b[..n_b]);
        let same = pairs.take_while(|(a, b)| a == b).count();
        if same < n_a || same < n_b {
            return Ok(Some(format!("byte {}", position + same)));
        }
        if n_a == 0 {
            return Ok(None);
        }
        position += n_a;
    }
}

/// Reads until the block is full or the file ends.
fn fill(reader: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match reader.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference_of(name: &str, a: &[u8], b: &[u8]) -> Option<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let [a, b] = [("a", a), ("b", b)].map(|(side, content)| {
            let path = folder.path().join(format!("{side}-{name}"));
            std::fs::write(&path, content).expect("a file");
            path
        });
        let tolerance = Tolerance::new(1e-6, 0.0).expect("a tolerance");
        difference(&a, &b, &tolerance).expect("readable files")
    }

    #[test]
    fn other_files_must_be_equal() {
        assert_eq!(difference_of("x.txt", b"1.0", b"1.0"), None);
        assert_eq!(difference_of("x.txt", b"1.00", b"1.0"), Some("byte 3".into()));
        let long = vec![7; 100_000];
        let mut changed = long.clone();
        changed[70_000] = 8;
        assert_eq!(difference_of("x.bin", &long, &changed), Some("byte 70000".into()));
    }

    #[test]
    fn what_is_not_its_kind_must_be_equal() {
        assert_eq!(difference_of("x.json", b"{", b"{"), None);
        assert_eq!(difference_of("x.json", b"{", b"{ "), Some("byte 1".into()));
        assert_eq!(difference_of("x.npy", b"no", b"nope"), Some("byte 2".into()));
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("missing");
        assert!(compare(folder.path(), &missing, &Tolerance::default()).is_err());
    }
}
