//! A work unit that takes a stated time and no processor.
//!
//! ```text
//! wait UNIT:MILLISECONDS ──sleeps──► /output/unit.txt, which depends on UNIT alone
//! ```
//!
//! # Exit codes
//!
//! 0 for success, 1 if the output cannot be written, 2 if the command line is wrong.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "\
usage: wait UNIT:MILLISECONDS [--into DIR]

  sleeps for so many milliseconds, then writes unit.txt, which names the unit

  --into DIR     /output unless given; it must exist";

/// More than what travels inside of a result (1 KiB), so that outputs are fetched from nodes.
const OUTPUT_BYTES: usize = 8 << 10;

fn main() -> ExitCode {
    let Task { unit, time, into } = match parse(std::env::args_os().skip(1)) {
        Ok(task) => task,
        Err(error) => {
            eprintln!("wait: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    std::thread::sleep(time);
    let path = into.join("unit.txt");
    match std::fs::write(&path, text(unit)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wait: cannot write {}: {error}", path.display());
            ExitCode::from(1)
        }
    }
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
struct Task {
    unit: u64,
    time: Duration,
    into: PathBuf,
}

/// Why a command line makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum UsageError {
    #[error("the unit is missing")]
    NoUnit,
    #[error("{text:?} is not UNIT:MILLISECONDS")]
    Unit { text: String },
    #[error("--into needs a directory, and nothing may follow it")]
    Into,
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Task, UsageError> {
    let text = arguments.next().ok_or(UsageError::NoUnit)?.to_string_lossy().into_owned();
    let numbers = text.split_once(':').and_then(|(unit, millis)| {
        Some((unit.parse().ok()?, Duration::from_millis(millis.parse().ok()?)))
    });
    let Some((unit, time)) = numbers else { return Err(UsageError::Unit { text }) };
    let into = match (arguments.next(), arguments.next(), arguments.next()) {
        (None, ..) => PathBuf::from("/output"),
        (Some(option), Some(into), None) if option == "--into" => PathBuf::from(into),
        _ => return Err(UsageError::Into),
    };
    Ok(Task { unit, time, into })
}

/// The output of a unit: a line that names it, again and again.
fn text(unit: u64) -> String {
    let line = format!("this is work unit {unit}\n");
    line.repeat(OUTPUT_BYTES.div_ceil(line.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_command_line_is_read() {
        let task =
            |into: &str| Task { unit: 7, time: Duration::from_millis(1500), into: into.into() };
        assert_eq!(parsed("7:1500"), Ok(task("/output")));
        assert_eq!(parsed("7:1500 --into here"), Ok(task("here")));
        assert_eq!(parsed(""), Err(UsageError::NoUnit));
        for wrong in ["7", "7:", ":1", "x:1", "7:1s", "7:-1"] {
            assert_eq!(parsed(wrong), Err(UsageError::Unit { text: wrong.into() }));
        }
        for wrong in ["7:1 here", "7:1 --into", "7:1 --into here there"] {
            assert_eq!(parsed(wrong), Err(UsageError::Into));
        }
    }

    #[test]
    fn outputs_differ_between_units_and_do_not_fit_into_a_result() {
        assert_ne!(text(1), text(11));
        assert!(text(0).len() >= OUTPUT_BYTES);
    }
}
