//! The command line: strict, and small enough to do without a parser library.

use std::ffi::OsString;
use std::path::PathBuf;

/// What `--help` prints, and what follows an error.
pub(crate) const USAGE: &str = "\
usage: wordcount map    [--input DIR] [--output DIR]
       wordcount reduce [--input DIR] [--output DIR]

  map      counts the words of all files below the input directory, writes counts.tsv
  reduce   adds up the tables <any>/counts.tsv of the input directory, writes counts.tsv
           (to be reduced again) and words.tsv (sorted by falling count)

  --input DIR    /input unless given
  --output DIR   /output unless given; it must exist";

/// A command line that makes sense.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print [`USAGE`].
    Help,
    /// Count the words of files.
    Map { input: PathBuf, output: PathBuf },
    /// Add up tables.
    Reduce { input: PathBuf, output: PathBuf },
}

/// Why a command line makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    /// Nothing was asked for.
    #[error("a command is missing")]
    NoCommand,
    /// Asked for something else.
    #[error("there is no command {}", .command.display())]
    UnknownCommand { command: OsString },
    /// There is no option of this name.
    #[error("{} is not an option", .option.display())]
    UnknownOption { option: OsString },
    /// The last option has no value.
    #[error("{option} needs a directory")]
    NoValue { option: &'static str },
    /// The option was given twice.
    #[error("{option} is given twice")]
    Repeated { option: &'static str },
}

/// Reads the arguments that follow the name of the program.
pub(crate) fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, UsageError> {
    let command = arguments.next().ok_or(UsageError::NoCommand)?;
    if command == "--help" || command == "-h" {
        return Ok(Command::Help);
    }
    let (mut input, mut output) = (None, None);
    while let Some(argument) = arguments.next() {
        let (option, directory) = match argument.to_str() {
            Some("--input") => ("--input", &mut input),
            Some("--output") => ("--output", &mut output),
            Some("--help" | "-h") => return Ok(Command::Help),
            _ => return Err(UsageError::UnknownOption { option: argument }),
        };
        let value = arguments.next().ok_or(UsageError::NoValue { option })?;
        if directory.replace(PathBuf::from(value)).is_some() {
            return Err(UsageError::Repeated { option });
        }
    }
    let input = input.unwrap_or_else(|| "/input".into());
    let output = output.unwrap_or_else(|| "/output".into());
    match command.to_str() {
        Some("map") => Ok(Command::Map { input, output }),
        Some("reduce") => Ok(Command::Reduce { input, output }),
        _ => Err(UsageError::UnknownCommand { command }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, UsageError> {
        super::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn commands_and_directories_are_read() {
        let (input, output) = (PathBuf::from("/input"), PathBuf::from("/output"));
        assert_eq!(parse("map"), Ok(Command::Map { input, output: output.clone() }));
        assert_eq!(parse("reduce --input in"), Ok(Command::Reduce { input: "in".into(), output }));
        let (input, output) = (PathBuf::from("in"), PathBuf::from("out"));
        assert_eq!(parse("map --output out --input in"), Ok(Command::Map { input, output }));
        for line in ["--help", "-h", "map --help", "reduce --input x -h"] {
            assert_eq!(parse(line), Ok(Command::Help));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, message) in [
            ("", "a command is missing"),
            ("count", "there is no command count"),
            ("map x", "x is not an option"),
            ("map --inputs x", "--inputs is not an option"),
            ("map --input=x", "--input=x is not an option"),
            ("reduce --output", "--output needs a directory"),
            ("map --input a --input a", "--input is given twice"),
        ] {
            let error = parse(line).expect_err("a wrong command line");
            assert_eq!(error.to_string(), message);
        }
    }
}
