//! Reduce: from the tables of several work units to one table.
//!
//! The input has one directory for each work unit, and each holds one table, of `map` or of
//! an earlier `reduce`. Sums do not
//! depend on the order or the names of the directories, nor on how files were grouped.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use crate::counts::{Counts, TableError};

/// The name of the table in the output of a work unit.
pub(crate) const COUNTS_FILE: &str = "counts.tsv";

/// Why tables could not be added up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReduceError {
    /// The directory of all units could not be listed.
    #[error("cannot list {}", path.display())]
    List { path: PathBuf, source: io::Error },
    /// A work unit left no table, or it cannot be opened.
    #[error("cannot open {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// The table is not one that map writes.
    #[error("{} cannot be used", path.display())]
    Table { path: PathBuf, source: TableError },
}

/// Adds up the tables `<unit>/counts.tsv` of all units below `input`.
pub(crate) fn reduce(input: &Path) -> Result<Counts, ReduceError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(input)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut units =
        list().map_err(|source| ReduceError::List { path: input.to_owned(), source })?;
    units.sort();

    let mut counts = Counts::default();
    for unit in units {
        let path = unit.join(COUNTS_FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) => return Err(ReduceError::Open { path, source }),
        };
        counts
            .add_table(BufReader::new(file))
            .map_err(|source| ReduceError::Table { path, source })?;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::map::map;

    const FILES: [&[u8]; 7] = [
        b"the end of a file ends a word: the",
        b"end\nThe END",
        b"",
        b"\r\nThe\r\nend\r\n",
        b"\0\x01binary\xff\xfe\0the\x80",
        "\u{e9}t\u{e9}, the \u{3b1}".as_bytes(),
        &[b'z'; 100],
    ];

    /// Maps `groups` of [`FILES`], each as a work unit of its own, and reduces the tables.
    fn map_and_reduce(groups: &[&[usize]]) -> Vec<u8> {
        let tables = tempfile::tempdir().expect("a temporary directory");
        for (unit, group) in groups.iter().enumerate() {
            let input = tempfile::tempdir().expect("a temporary directory");
            for &file in *group {
                fs::write(input.path().join(file.to_string()), FILES[file]).expect("written");
            }
            add_unit(&tables, unit, &map(input.path()).expect("counted").table_by_word());
        }
        reduce(tables.path()).expect("added up").table_by_count()
    }

    fn add_unit(tables: &TempDir, unit: usize, table: &[u8]) {
        let directory = tables.path().join(format!("{unit:08}"));
        fs::create_dir(&directory).expect("created");
        fs::write(directory.join(COUNTS_FILE), table).expect("written");
    }

    #[test]
    fn all_groupings_give_the_same_table() {
        let whole = map_and_reduce(&[&[0, 1, 2, 3, 4, 5, 6]]);
        assert!(whole.starts_with(b"6\tthe\n4\tend\n2\ta\n"), "{}", whole.escape_ascii());
        let groupings: [&[&[usize]]; 5] = [
            &[&[0], &[1], &[2], &[3], &[4], &[5], &[6]],
            &[&[6, 5, 4], &[3, 2], &[1, 0]],
            &[&[0, 2, 4, 6], &[1, 3, 5]],
            &[&[], &[0, 1, 2, 3, 4, 5, 6], &[]],
            &[&[2], &[6, 0], &[5, 1, 3, 4]],
        ];
        for groups in groupings {
            assert_eq!(map_and_reduce(groups), whole, "{groups:?}");
        }
    }

    /// Adding up in groups, and then the groups, is adding up.
    #[test]
    fn tables_can_be_reduced_again() {
        let whole = map_and_reduce(&[&[0], &[1], &[2], &[3], &[4], &[5], &[6]]);
        let groups = tempfile::tempdir().expect("a temporary directory");
        for (place, files) in FILES.chunks(3).enumerate() {
            let tables = tempfile::tempdir().expect("a temporary directory");
            for (unit, file) in files.iter().enumerate() {
                let input = tempfile::tempdir().expect("a temporary directory");
                fs::write(input.path().join("file"), file).expect("written");
                add_unit(&tables, unit, &map(input.path()).expect("counted").table_by_word());
            }
            add_unit(&groups, place, &reduce(tables.path()).expect("added up").table_by_word());
        }
        assert_eq!(reduce(groups.path()).expect("added up").table_by_count(), whole);
    }

    #[test]
    fn no_units_make_an_empty_table() {
        assert!(map_and_reduce(&[]).is_empty());
    }

    #[test]
    fn a_unit_without_a_table_is_named() {
        let tables = tempfile::tempdir().expect("a temporary directory");
        add_unit(&tables, 0, b"1\ta\n");
        fs::create_dir(tables.path().join("00000001")).expect("created");
        let error = reduce(tables.path()).expect_err("a table is missing");
        assert!(error.to_string().ends_with("00000001/counts.tsv"), "{error}");
        assert!(matches!(error, ReduceError::Open { .. }));
    }

    #[test]
    fn a_wrong_table_is_named() {
        let tables = tempfile::tempdir().expect("a temporary directory");
        add_unit(&tables, 0, b"1\ta\n");
        add_unit(&tables, 1, b"1\ta\nrubbish\n");
        let error = reduce(tables.path()).expect_err("a table is wrong");
        let ReduceError::Table { path, source: TableError::Malformed { line: 2 } } = error else {
            panic!("another error: {error:?}");
        };
        assert!(path.ends_with("00000001/counts.tsv"));
    }
}
