//! How often words occur, and the table that says so.
//!
//! A table has one line a word: the count, a tab, the word. It is sorted by word between map
//! and reduce, and by falling count in the end.
//!
//! # Bounds
//!
//! Memory grows with the number of different words, not with the size of the files.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use crate::words::{WORD_BYTES_MAX, is_word};

/// Bytes of the longest line: the digits of the largest count, a tab, a word, a line feed.
const LINE_BYTES_MAX: usize = 20 + 1 + WORD_BYTES_MAX + 1;

/// The number of times that each word occurs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<Box<[u8]>, u64>);

/// Why a table could not be added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// The line is not a count, a tab, and a word.
    #[error("line {line} is not a count and a word")]
    Malformed { line: u64 },
    /// The words do not rise from line to line: one is doubled, or the order is wrong.
    #[error("line {line} is not in the order of words")]
    Order { line: u64 },
    /// The count does not fit.
    #[error("line {line} makes the count of its word too large")]
    Overflow { line: u64 },
    /// The table could not be read.
    #[error("line {line} cannot be read")]
    Read { line: u64, source: io::Error },
}

impl Counts {
    /// Counts one more of a word.
    pub(crate) fn add_one(&mut self, word: &[u8]) {
        match self.0.get_mut(word) {
            // No input has 2^64 bytes.
            Some(count) => *count += 1,
            None => {
                self.0.insert(word.into(), 1);
            }
        }
    }

    /// Adds all counts of a table that is sorted by word. Nobody may rely on the counts after
    /// an error.
    pub(crate) fn add_table(&mut self, mut table: impl BufRead) -> Result<(), TableError> {
        let mut last_word = Vec::new();
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            let mut limited = table.by_ref().take(LINE_BYTES_MAX as u64);
            limited
                .read_until(b'\n', &mut text)
                .map_err(|source| TableError::Read { line, source })?;
            if text.is_empty() {
                break;
            }
            let (count, word) = parse_line(&text).ok_or(TableError::Malformed { line })?;
            if word <= last_word.as_slice() {
                return Err(TableError::Order { line });
            }
            self.add(word, count).ok_or(TableError::Overflow { line })?;
            last_word.clear();
            last_word.extend_from_slice(word);
        }
        Ok(())
    }

    fn add(&mut self, word: &[u8], count: u64) -> Option<()> {
        if let Some(sum) = self.0.get_mut(word) {
            *sum = sum.checked_add(count)?;
        } else {
            self.0.insert(word.into(), count);
        }
        Some(())
    }

    /// The table, sorted by word.
    pub(crate) fn table_by_word(&self) -> Vec<u8> {
        table(self.0.iter())
    }

    /// The table, sorted by falling count; words of one count by word.
    pub(crate) fn table_by_count(&self) -> Vec<u8> {
        let mut lines: Vec<_> = self.0.iter().collect();
        // The sort is stable, and the words come sorted.
        lines.sort_by_key(|(_, count)| Reverse(**count));
        table(lines.into_iter())
    }
}

fn table<'a>(lines: impl Iterator<Item = (&'a Box<[u8]>, &'a u64)>) -> Vec<u8> {
    let mut table = Vec::new();
    for (word, count) in lines {
        table.extend_from_slice(count.to_string().as_bytes());
        table.push(b'\t');
        table.extend_from_slice(word);
        table.push(b'\n');
    }
    table
}

/// The count and the word of a line. Accepts what [`table`] writes, and nothing else.
fn parse_line(line: &[u8]) -> Option<(u64, &[u8])> {
    let line = line.strip_suffix(b"\n")?;
    let tab = line.iter().position(|&byte| byte == b'\t')?;
    let (digits, word) = (&line[..tab], &line[tab + 1..]);
    let plain = digits.iter().all(u8::is_ascii_digit) && !digits.starts_with(b"0");
    let count = str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()?;
    is_word(word).then_some((count, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str) -> Counts {
        let mut counts = Counts::default();
        text.split_whitespace().for_each(|word| counts.add_one(word.as_bytes()));
        counts
    }

    fn refusal(table: &[u8]) -> TableError {
        Counts::default().add_table(table).expect_err("a wrong table")
    }

    #[test]
    fn tables_are_sorted_as_promised() {
        let counts = counts("b a c b 10 9 c d b");
        assert_eq!(counts.table_by_word(), b"1\t10\n1\t9\n1\ta\n3\tb\n2\tc\n1\td\n");
        assert_eq!(counts.table_by_count(), b"3\tb\n2\tc\n1\t10\n1\t9\n1\ta\n1\td\n");
        assert!(Counts::default().table_by_count().is_empty());
    }

    #[test]
    fn tables_add_up() {
        let mut sum = counts("x y z");
        sum.add_table(counts("y z z").table_by_word().as_slice()).expect("a table");
        sum.add_table(&b""[..]).expect("an empty table");
        assert_eq!(sum, counts("x y y z z z"));
    }

    #[test]
    fn other_lines_are_refused_and_numbered() {
        let long = format!("1\t{}\n", "a".repeat(65));
        for line in [
            "\n",
            "1 b\n",
            "1\tb",
            "1\t\n",
            "\tb\n",
            "0\tb\n",
            "01\tb\n",
            "+1\tb\n",
            "-1\tb\n",
            "1\tB\n",
            "1\tb \n",
            "1\tb\r\n",
            "1\t\u{e4}\n",
            "18446744073709551616\tb\n",
            &long,
        ] {
            let error = refusal(format!("1\ta\n{line}").as_bytes());
            assert!(matches!(error, TableError::Malformed { line: 2 }), "{line:?}: {error:?}");
        }
    }

    #[test]
    fn doubled_and_unsorted_words_are_refused() {
        for table in ["1\ta\n1\tb\n1\tb\n", "1\ta\n1\tc\n1\tb\n"] {
            assert!(matches!(refusal(table.as_bytes()), TableError::Order { line: 3 }));
        }
    }

    #[test]
    fn counts_do_not_wrap_around() {
        let largest = format!("{}\ta\n", u64::MAX);
        let mut sum = Counts::default();
        sum.add_table(largest.as_bytes()).expect("the largest count");
        let error = sum.add_table(&b"1\ta\n"[..]).expect_err("one too many");
        assert!(matches!(error, TableError::Overflow { line: 1 }));
    }

    #[test]
    fn the_longest_line_is_read() {
        let table = format!("{}\t{}\n", u64::MAX, "a".repeat(WORD_BYTES_MAX));
        let mut sum = Counts::default();
        sum.add_table(table.as_bytes()).expect("the longest line");
        assert_eq!(sum.table_by_word(), table.as_bytes());
    }
}
