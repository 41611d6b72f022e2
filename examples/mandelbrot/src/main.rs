//! A picture of the Mandelbrot set, computed tile by tile by volunteers.
//!
//! ```text
//! tile      one work unit: computes one tile             ──► /output/tile.ppm
//! assemble  the collect step: /input/<unit>/tile.ppm ... ──► /output/mandelbrot.png
//! whole     the same picture without tiles, to compare   ──► the file of your choice
//! ```
//!
//! Replicas of a work unit are compared byte for byte, so every byte written here is the same
//! on every platform: `f64` with `+ - * /` and `sqrt` only (IEEE 754 defines their results to
//! the last bit), no clock, no randomness, no threads, and directories are read sorted.
//!
//! # What is not here
//!
//! - No network and no knowledge of one: the program sees its directories and its arguments.
//! - No options for the place in the plane: it is a constant of [`fractal`].
//!
//! # Exit codes
//!
//! 0 for success, 1 if the work failed, 2 if the command line is wrong.

mod assemble;
mod fractal;
mod logarithm;
mod options;
mod palette;
mod picture;
mod png_file;
mod render;
mod tile;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::assemble::AssembleError;
use crate::options::Command;
use crate::picture::Picture;
use crate::png_file::PngError;

fn main() -> ExitCode {
    let command = match options::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("mandelbrot: {error}\n\n{}", options::USAGE);
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
    /// The tile was computed and could not be written.
    #[error("failed to write {}", path.display())]
    WriteTile { path: PathBuf, source: std::io::Error },
    /// The tiles do not make the picture.
    #[error("failed to assemble the picture")]
    Assemble(#[from] AssembleError),
    /// The picture was made and could not be written.
    #[error("failed to write the picture")]
    WritePicture(#[from] PngError),
}

fn run(command: Command) -> Result<(), RunError> {
    match command {
        Command::Help => {
            println!("{}", options::USAGE);
            Ok(())
        }
        Command::Tile { picture, at, output } => {
            let path = output.join(tile::FILE_NAME);
            std::fs::write(&path, tile::encode(&picture, at))
                .map_err(|source| RunError::WriteTile { path, source })
        }
        Command::Assemble { picture, input, output } => {
            let pixels = assemble::assemble(&picture, &input)?;
            write_picture(&picture, &pixels, &output.join("mandelbrot.png"))
        }
        Command::Whole { picture, into } => {
            let pixels = render::render(&picture, picture.bounds());
            write_picture(&picture, &pixels, &into)
        }
    }
}

fn write_picture(picture: &Picture, pixels: &[u8], path: &Path) -> Result<(), RunError> {
    Ok(png_file::write(picture, pixels, path)?)
}

/// Prints an error and its causes on one line of stderr.
fn report(error: &dyn std::error::Error) {
    let mut line = format!("mandelbrot: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    eprintln!("{line}");
}
