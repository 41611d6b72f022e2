//! The command line: strict, and small enough to do without a parser library.
//!
//! An option is a name and a value in two arguments. Unknown and repeated options are refused,
//! because a typing error in a job file would otherwise cost a day of volunteers' time.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::picture::{Picture, PictureError, Position};

/// What `--help` prints, and what follows an error.
pub(crate) const USAGE: &str = "\
usage: mandelbrot tile --column C --row R [picture options] [--output DIR]
       mandelbrot assemble [picture options] [--input DIR] [--output DIR]
       mandelbrot whole --into FILE [picture options]

  tile       computes one tile and writes DIR/tile.ppm
  assemble   puts the tiles DIR/<unit>/tile.ppm together and writes DIR/mandelbrot.png
  whole      computes the same picture without tiles and writes FILE

picture options, which must be the same for all tiles of a picture:
  --width N        pixels of a row, 1024 unless given
  --height N       rows of pixels, 768 unless given
  --columns N      tiles beside each other, 8 unless given
  --rows N         tiles below each other, 8 unless given
  --iterations N   patience with points near the set, 20000 unless given

directories:
  --input DIR      /input unless given
  --output DIR     /output unless given; it must exist";

/// A command line that makes sense.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print [`USAGE`].
    Help,
    /// Compute one tile.
    Tile { picture: Picture, at: Position, output: PathBuf },
    /// Put tiles together.
    Assemble { picture: Picture, input: PathBuf, output: PathBuf },
    /// Compute the picture without tiles.
    Whole { picture: Picture, into: PathBuf },
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
    /// The command has no option of this name.
    #[error("{} is not an option of this command", .option.display())]
    UnknownOption { option: OsString },
    /// The last option has no value.
    #[error("{} needs a value", .option.display())]
    NoValue { option: OsString },
    /// The option was given twice.
    #[error("{} is given twice", .option.display())]
    Repeated { option: OsString },
    /// The command cannot do without the option.
    #[error("{option} is missing")]
    MissingOption { option: &'static str },
    /// The value is not a number that fits.
    #[error("{} is not a number for {option}", .value.display())]
    NotANumber { option: &'static str, value: OsString },
    /// The numbers do not fit together.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The tile lies outside of the grid.
    #[error("there is no tile at {at}: both are counted from 0")]
    NoSuchTile { at: Position },
}

/// Reads the arguments that follow the name of the program.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut arguments = arguments.peekable();
    let command = arguments.next().ok_or(UsageError::NoCommand)?;
    let asks_for_help = |argument: &OsString| argument == "--help" || argument == "-h";
    if asks_for_help(&command) || arguments.peek().is_some_and(asks_for_help) {
        return Ok(Command::Help);
    }
    let mut options = Options::read(arguments)?;
    let command = match command.to_str() {
        Some("tile") => {
            let picture = options.picture()?;
            let at = Position {
                column: options.required_number("--column")?,
                row: options.required_number("--row")?,
            };
            if !picture.contains(at) {
                return Err(UsageError::NoSuchTile { at });
            }
            Command::Tile { picture, at, output: options.path("--output", "/output") }
        }
        Some("assemble") => Command::Assemble {
            picture: options.picture()?,
            input: options.path("--input", "/input"),
            output: options.path("--output", "/output"),
        },
        Some("whole") => {
            Command::Whole { picture: options.picture()?, into: options.required("--into")?.into() }
        }
        _ => return Err(UsageError::UnknownCommand { command }),
    };
    options.finish()?;
    Ok(command)
}

/// Options that nobody has asked for yet.
struct Options(Vec<(OsString, OsString)>);

impl Options {
    fn read(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut pairs: Vec<(OsString, OsString)> = Vec::new();
        while let Some(option) = arguments.next() {
            if !option.as_encoded_bytes().starts_with(b"--") {
                return Err(UsageError::UnknownOption { option });
            }
            if pairs.iter().any(|(other, _)| *other == option) {
                return Err(UsageError::Repeated { option });
            }
            match arguments.next() {
                Some(value) => pairs.push((option, value)),
                None => return Err(UsageError::NoValue { option }),
            }
        }
        Ok(Self(pairs))
    }

    fn picture(&mut self) -> Result<Picture, UsageError> {
        let size = (self.number("--width", 1024)?, self.number("--height", 768)?);
        let grid = (self.number("--columns", 8)?, self.number("--rows", 8)?);
        Ok(Picture::new(size, grid, self.number("--iterations", 20_000)?)?)
    }

    fn take(&mut self, option: &str) -> Option<OsString> {
        let index = self.0.iter().position(|(name, _)| name == option)?;
        Some(self.0.remove(index).1)
    }

    fn required(&mut self, option: &'static str) -> Result<OsString, UsageError> {
        self.take(option).ok_or(UsageError::MissingOption { option })
    }

    fn required_number(&mut self, option: &'static str) -> Result<u32, UsageError> {
        let value = self.required(option)?;
        let number = value.to_str().and_then(|text| text.parse().ok());
        number.ok_or(UsageError::NotANumber { option, value })
    }

    fn number(&mut self, option: &'static str, default: u32) -> Result<u32, UsageError> {
        match self.required_number(option) {
            Err(UsageError::MissingOption { .. }) => Ok(default),
            number => number,
        }
    }

    fn path(&mut self, option: &str, default: &str) -> PathBuf {
        self.take(option).map_or_else(|| default.into(), PathBuf::from)
    }

    /// Refuses what is left over.
    fn finish(self) -> Result<(), UsageError> {
        match self.0.into_iter().next() {
            Some((option, _)) => Err(UsageError::UnknownOption { option }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, UsageError> {
        super::parse(line.split_whitespace().map(OsString::from))
    }

    fn error(line: &str) -> String {
        parse(line).expect_err("a wrong command line").to_string()
    }

    #[test]
    fn defaults_are_those_of_the_sandbox() {
        let picture = Picture::new((1024, 768), (8, 8), 20_000).expect("valid");
        let (input, output) = (PathBuf::from("/input"), PathBuf::from("/output"));
        let at = Position { column: 7, row: 0 };
        assert_eq!(
            parse("tile --column 7 --row 0"),
            Ok(Command::Tile { picture, at, output: output.clone() })
        );
        assert_eq!(parse("assemble"), Ok(Command::Assemble { picture, input, output }));
        assert_eq!(
            parse("whole --into a.png"),
            Ok(Command::Whole { picture, into: "a.png".into() })
        );
    }

    #[test]
    fn every_option_is_read() {
        let numbers = "--width 50 --height 40 --columns 5 --rows 4 --iterations 9";
        let picture = Picture::new((50, 40), (5, 4), 9).expect("valid");
        let (input, output) = (PathBuf::from("in"), PathBuf::from("out"));
        assert_eq!(
            parse(&format!("assemble --output out {numbers} --input in")),
            Ok(Command::Assemble { picture, input, output })
        );
    }

    #[test]
    fn help_is_no_error() {
        for line in ["--help", "-h", "tile --help", "whole -h"] {
            assert_eq!(parse(line), Ok(Command::Help));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(error(""), "a command is missing");
        assert_eq!(error("paint"), "there is no command paint");
        assert_eq!(error("assemble --colour red"), "--colour is not an option of this command");
        assert_eq!(error("assemble --into x"), "--into is not an option of this command");
        assert_eq!(error("assemble x"), "x is not an option of this command");
        assert_eq!(error("assemble --rows=4"), "--rows=4 needs a value");
        assert_eq!(error("assemble --rows"), "--rows needs a value");
        assert_eq!(error("assemble --rows 4 --rows 4"), "--rows is given twice");
        assert_eq!(error("assemble --rows four"), "four is not a number for --rows");
        assert_eq!(error("assemble --rows -1"), "-1 is not a number for --rows");
        assert_eq!(error("tile --column 1"), "--row is missing");
        assert_eq!(error("whole"), "--into is missing");
        assert_eq!(
            error("tile --column 8 --row 0"),
            "there is no tile at column=8 row=0: both are counted from 0"
        );
        assert_eq!(
            error("assemble --rows 800"),
            "768 pixels cannot be cut into 800 tiles; every tile needs at least one"
        );
    }
}
