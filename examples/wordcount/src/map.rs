//! Map: from files to the counts of their words.
//!
//! Counts every regular file below a directory. Links are not followed, for a link could lead
//! to the same words twice.
//!
//! # Bounds
//!
//! Files are read in pieces of [`PIECE_BYTES`]; their size does not matter.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::counts::Counts;
use crate::words::Words;

/// How much of a file is in memory at one time.
const PIECE_BYTES: usize = 64 << 10;

/// Why files could not be counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MapError {
    /// A directory could not be listed.
    #[error("cannot list {}", path.display())]
    List { path: PathBuf, source: io::Error },
    /// A file could not be read to its end.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

/// Counts the words of all files below `input`.
pub(crate) fn map(input: &Path) -> Result<Counts, MapError> {
    let mut counts = Counts::default();
    let mut piece = vec![0; PIECE_BYTES];
    // A list instead of recursion: deep directories need no stack.
    let mut directories = vec![input.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = sorted_entries(&directory)
            .map_err(|source| MapError::List { path: directory, source })?;
        for (path, kind) in entries {
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                count_file(&path, &mut piece, &mut counts)
                    .map_err(|source| MapError::Read { path, source })?;
            }
        }
    }
    Ok(counts)
}

/// The entries of a directory, sorted: if there are several errors, all replicas find the same.
fn sorted_entries(directory: &Path) -> io::Result<Vec<(PathBuf, fs::FileType)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        entries.push((entry.path(), entry.file_type()?));
    }
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(entries)
}

fn count_file(path: &Path, piece: &mut [u8], counts: &mut Counts) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut words = Words::new();
    loop {
        let n_bytes = match file.read(piece) {
            Ok(0) => break,
            Ok(n_bytes) => n_bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        words.feed(&piece[..n_bytes], |word| counts.add_one(word));
    }
    words.finish(|word| counts.add_one(word));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(input: &Path) -> String {
        String::from_utf8(map(input).expect("counted").table_by_word()).expect("ASCII")
    }

    #[test]
    fn all_files_below_count_and_their_ends_separate() {
        let input = tempfile::tempdir().expect("a temporary directory");
        let deep = input.path().join("b/c/d");
        fs::create_dir_all(&deep).expect("created");
        fs::create_dir(input.path().join("empty directory")).expect("created");
        fs::write(input.path().join("a"), "one two").expect("written");
        fs::write(input.path().join("b/a"), "three").expect("written");
        fs::write(deep.join(".hidden"), "two ends").expect("written");
        fs::write(deep.join("empty"), "").expect("written");
        assert_eq!(table(input.path()), "1\tends\n1\tone\n1\tthree\n2\ttwo\n");
    }

    /// A word that lies across the border of two pieces is one word.
    #[test]
    fn pieces_do_not_cut_words() {
        let input = tempfile::tempdir().expect("a temporary directory");
        for shift in 0..3 {
            let text = [&vec![b' '; PIECE_BYTES - shift][..], b"xy", &[b' '; PIECE_BYTES]].concat();
            fs::write(input.path().join(shift.to_string()), text).expect("written");
        }
        assert_eq!(table(input.path()), "3\txy\n");
    }

    #[test]
    fn an_empty_input_has_an_empty_table() {
        let input = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(table(input.path()), "");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        let input = tempfile::tempdir().expect("a temporary directory");
        fs::write(input.path().join("file"), "once").expect("written");
        for (link, to) in [("twice", "file"), ("loop", "."), ("nowhere", "missing")] {
            std::os::unix::fs::symlink(to, input.path().join(link)).expect("linked");
        }
        assert_eq!(table(input.path()), "1\tonce\n");
    }

    #[test]
    fn what_cannot_be_listed_is_named() {
        let error = map(Path::new("/does/not/exist")).expect_err("no directory");
        assert_eq!(error.to_string(), "cannot list /does/not/exist");
    }
}
