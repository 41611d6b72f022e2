//! How often each word occurs in a corpus, counted by volunteers.
//!
//! ```text
//! map      counts the words of the files below /input ──► /output/counts.tsv
//! reduce   adds up /input/<any>/counts.tsv             ──► /output/counts.tsv, words.tsv
//! ```
//!
//! What `reduce` leaves can be reduced again, so that many work units add up the tables in
//! groups, and then those of the groups, until one table is left.
//!
//! Replicas of a work unit are compared byte for byte, so every byte written here depends on
//! the bytes of the input files only: tables are sorted, directories are read sorted, and
//! nothing is random. What counts as a word is defined in [`words`]; the script `check.sh`
//! beside this program says the same with coreutils.
//!
//! # What is not here
//!
//! - No network and no knowledge of one: the program sees its directories and its arguments.
//! - No languages: only ASCII letters and digits make words.
//!
//! # Exit codes
//!
//! 0 for success, 1 if the work failed, 2 if the command line is wrong.

mod counts;
mod map;
mod options;
mod reduce;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::map::MapError;
use crate::options::Command;
use crate::reduce::ReduceError;

fn main() -> ExitCode {
    let command = match options::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("wordcount: {error}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(1)
        }
    }
}

/// Why a well-formed command failed.
#[derive(Debug, thiserror::Error)]
enum RunError {
    /// The files could not be counted.
    #[error("failed to count the words")]
    Map(#[from] MapError),
    /// The tables could not be added up.
    #[error("failed to add up the tables")]
    Reduce(#[from] ReduceError),
    /// The table was made and could not be written.
    #[error("failed to write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

fn run(command: Command) -> Result<(), RunError> {
    match command {
        Command::Help => println!("{}", options::USAGE),
        Command::Map { input, output } => {
            write(output.join(reduce::COUNTS_FILE), &map::map(&input)?.table_by_word())?;
        }
        Command::Reduce { input, output } => {
            let counts = reduce::reduce(&input)?;
            write(output.join(reduce::COUNTS_FILE), &counts.table_by_word())?;
            write(output.join("words.tsv"), &counts.table_by_count())?;
        }
    }
    Ok(())
}

fn write(path: PathBuf, table: &[u8]) -> Result<(), RunError> {
    std::fs::write(&path, table).map_err(|source| RunError::Write { path, source })
}

/// Prints an error and its causes on one line of stderr.
fn report(error: &dyn std::error::Error) {
    let mut line = format!("wordcount: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    eprintln!("{line}");
}
