//! The program as a work unit meets it: a process with arguments, directories and an exit code.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// A small picture, patient enough that hardly a pixel is black.
const PICTURE: [&str; 10] =
    ["--width", "14", "--height", "10", "--columns", "3", "--rows", "2", "--iterations", "8000"];

fn mandelbrot(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mandelbrot"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("the program starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Runs every work unit as the network would, each with a directory of its own.
fn run_all_units(fetched: &Path) {
    for unit in 0..6 {
        let output = fetched.join(format!("{unit:08}"));
        fs::create_dir(&output).expect("created");
        let (column, row) = ((unit % 3).to_string(), (unit / 3).to_string());
        let unit = ["tile", "--column", &column, "--row", &row, "--output", text(&output)];
        let ran = mandelbrot(&[&unit, &PICTURE[..]].concat());
        assert!(ran.status.success() && ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran:?}");
        let left: Vec<_> = fs::read_dir(&output).expect("listed").collect();
        assert_eq!(left.len(), 1, "a unit leaves one file");
    }
}

fn assemble(fetched: &Path, result: &Path) -> Output {
    let command = ["assemble", "--input", text(fetched), "--output", text(result)];
    mandelbrot(&[&command, &PICTURE[..]].concat())
}

/// The promise of the example: many volunteers compute exactly what one machine computes.
#[test]
fn assembled_picture_equals_the_whole() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (fetched, result) = (directory.path().join("fetched"), directory.path().join("result"));
    fs::create_dir(&fetched).expect("created");
    fs::create_dir(&result).expect("created");
    run_all_units(&fetched);
    let ran = assemble(&fetched, &result);
    assert!(ran.status.success(), "{ran:?}");

    let whole = directory.path().join("whole.png");
    let ran = mandelbrot(&[&["whole", "--into", text(&whole)], &PICTURE[..]].concat());
    assert!(ran.status.success(), "{ran:?}");

    let picture = fs::read(result.join("mandelbrot.png")).expect("the picture");
    assert!(picture == fs::read(&whole).expect("the whole"), "the pictures differ");

    let decoder = png::Decoder::new(std::io::Cursor::new(&picture));
    let mut reader = decoder.read_info().expect("a PNG file");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a small picture")];
    let info = reader.next_frame(&mut pixels).expect("pixels");
    assert_eq!((info.width, info.height, info.color_type), (14, 10, png::ColorType::Rgb));
    let n_black = pixels.chunks(3).filter(|pixel| *pixel == [0, 0, 0]).count();
    assert!(n_black < 14, "{n_black} of 140 pixels are black");
}

#[test]
fn incomplete_pictures_end_with_1_and_leave_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (fetched, result) = (directory.path().join("fetched"), directory.path().join("result"));
    fs::create_dir(&fetched).expect("created");
    fs::create_dir(&result).expect("created");
    run_all_units(&fetched);

    fs::remove_dir_all(fetched.join("00000004")).expect("removed");
    let ran = assemble(&fetched, &result);
    assert_eq!(ran.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&ran.stderr),
        "mandelbrot: failed to assemble the picture: \
         1 of 6 tiles are missing, the first is the one at column=1 row=1\n"
    );
    assert_eq!(fs::read_dir(&result).expect("listed").count(), 0);

    fs::create_dir(fetched.join("00000004")).expect("created");
    fs::copy(fetched.join("00000003/tile.ppm"), fetched.join("00000004/tile.ppm")).expect("copied");
    let ran = assemble(&fetched, &result);
    assert_eq!(ran.status.code(), Some(1));
    let message = String::from_utf8_lossy(&ran.stderr);
    assert!(message.contains("the tile at column=0 row=1 is doubled"), "{message}");
}

#[test]
fn wrong_command_lines_end_with_2_and_the_usage() {
    for arguments in [&["tile", "--colum", "1"][..], &[], &["tile", "--column", "8", "--row", "0"]]
    {
        let ran = mandelbrot(arguments);
        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
        assert!(String::from_utf8_lossy(&ran.stderr).contains("usage: mandelbrot tile"));
        assert!(ran.stdout.is_empty());
    }
    let ran = mandelbrot(&["--help"]);
    assert!(ran.status.success() && ran.stdout.starts_with(b"usage: mandelbrot tile"));
}

#[test]
fn an_output_that_cannot_be_written_ends_with_1() {
    let ran = mandelbrot(&[
        "tile",
        "--column",
        "0",
        "--row",
        "0",
        "--width",
        "8",
        "--height",
        "8",
        "--iterations",
        "10",
        "--output",
        "/does/not/exist",
    ]);
    assert_eq!(ran.status.code(), Some(1));
    let message = String::from_utf8_lossy(&ran.stderr);
    assert!(message.starts_with("mandelbrot: failed to write /does/not/exist/tile.ppm: "));
}
