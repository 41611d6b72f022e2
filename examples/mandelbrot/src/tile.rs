//! The file that a work unit leaves: a tile that knows where it belongs.
//!
//! It is a binary PPM picture, which most viewers open, and its comment names the picture and
//! the place of the tile in it. So tiles need no order and no file names to be put together:
//!
//! ```text
//! P6
//! # mandelbrot tile 1
//! # width=1024 height=768 columns=8 rows=8 iterations=20000
//! # column=3 row=4
//! 128 96
//! 255
//! (128 x 96 x 3 bytes: red, green, blue, row by row from the top left corner)
//! ```
//!
//! # Bounds
//!
//! A reader that knows the picture accepts these very bytes and nothing else as the header, so
//! one tile has one form; [`bytes_max`] says how long a file can be that is worth reading.

use crate::picture::{Picture, Position};
use crate::render::render;

/// The name of the file in the output of a work unit.
pub(crate) const FILE_NAME: &str = "tile.ppm";

/// Says what the file is, and in which version of this format.
const TITLE: &str = "P6\n# mandelbrot tile 1\n";

/// Bytes of the longest header: six numbers of ten digits and their names.
const HEADER_BYTES_MAX: usize = 256;

/// Why a file is not a tile of the picture.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TileError {
    /// It does not begin with a tile's title and its two lines of names.
    #[error("not a mandelbrot tile of format 1")]
    NotATile,
    /// A tile, but of another picture.
    #[error("a tile of another picture: it says \"{found}\", wanted is \"{wanted}\"")]
    Foreign { found: String, wanted: String },
    /// The position is written wrong or outside of the grid.
    #[error("the grid has no position \"{found}\"")]
    NoSuchPosition { found: String },
    /// The lines after the comment do not fit the tile at this position.
    #[error("the header does not fit the tile at {at}")]
    Header { at: Position },
    /// Pixels are missing, or something follows them.
    #[error("the tile at {at} has {found} bytes of pixels, {wanted} are right")]
    Length { at: Position, found: usize, wanted: usize },
}

/// Computes a tile and gives the file that holds it.
pub(crate) fn encode(picture: &Picture, at: Position) -> Vec<u8> {
    let mut bytes = header(picture, at).into_bytes();
    bytes.extend_from_slice(&render(picture, picture.tile(at)));
    bytes
}

/// Takes a tile file apart: the position and the pixels.
pub(crate) fn decode<'a>(
    picture: &Picture,
    bytes: &'a [u8],
) -> Result<(Position, &'a [u8]), TileError> {
    let rest = bytes.strip_prefix(TITLE.as_bytes()).ok_or(TileError::NotATile)?;
    let (found, rest) = comment(rest).ok_or(TileError::NotATile)?;
    let wanted = picture.to_string();
    if found != wanted {
        return Err(TileError::Foreign { found: found.to_owned(), wanted });
    }
    let (found, _) = comment(rest).ok_or(TileError::NotATile)?;
    let at = position(found)
        .filter(|&at| picture.contains(at))
        .ok_or_else(|| TileError::NoSuchPosition { found: found.to_owned() })?;
    // One comparison checks all the rest of the header, and that numbers have one form.
    let pixels =
        bytes.strip_prefix(header(picture, at).as_bytes()).ok_or(TileError::Header { at })?;
    let wanted = picture.tile(at).bytes();
    if pixels.len() != wanted {
        return Err(TileError::Length { at, found: pixels.len(), wanted });
    }
    Ok((at, pixels))
}

/// Bytes of the longest file that can be a tile of the picture.
pub(crate) fn bytes_max(picture: &Picture) -> usize {
    HEADER_BYTES_MAX + picture.bounds().bytes()
}

fn header(picture: &Picture, at: Position) -> String {
    let tile = picture.tile(at);
    format!("{TITLE}# {picture}\n# {at}\n{} {}\n255\n", tile.width, tile.height)
}

/// The text of a comment line, and what follows the line. A line that is longer than a header
/// is none of ours.
fn comment(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().take(HEADER_BYTES_MAX).position(|&byte| byte == b'\n')?;
    let line = str::from_utf8(&bytes[..end]).ok()?;
    Some((line.strip_prefix("# ")?, &bytes[end + 1..]))
}

/// Reads what [`Position`] displays.
fn position(text: &str) -> Option<Position> {
    let (column, row) = text.strip_prefix("column=")?.split_once(" row=")?;
    Some(Position { column: column.parse().ok()?, row: row.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        Picture::new((10, 7), (3, 2), 6000).expect("a valid picture")
    }

    fn encoded() -> Vec<u8> {
        encode(&picture(), Position { column: 2, row: 1 })
    }

    /// The encoded tile after a change of its header.
    fn changed(from: &str, to: &str) -> Vec<u8> {
        let bytes = encoded();
        let at = bytes.windows(from.len()).position(|part| part == from.as_bytes());
        let at = at.expect("the text is in the header");
        [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = encoded();
        let header = "P6\n# mandelbrot tile 1\n# width=10 height=7 columns=3 rows=2 \
                      iterations=6000\n# column=2 row=1\n4 4\n255\n";
        assert!(bytes.starts_with(header.as_bytes()));
        let at = Position { column: 2, row: 1 };
        let pixels = render(&picture(), picture().tile(at));
        assert_eq!(decode(&picture(), &bytes), Ok((at, pixels.as_slice())));
    }

    fn refusal(bytes: &[u8]) -> TileError {
        decode(&picture(), bytes).expect_err("not a tile of the picture")
    }

    #[test]
    fn every_cut_and_every_tail_is_refused() {
        let bytes = encoded();
        for end in 0..bytes.len() {
            refusal(&bytes[..end]);
        }
        let at = Position { column: 2, row: 1 };
        let error = refusal(&[&bytes[..], b"x"].concat());
        assert_eq!(error, TileError::Length { at, found: 49, wanted: 48 });
    }

    #[test]
    fn tiles_of_other_pictures_are_refused() {
        let error = refusal(&changed("iterations=6000", "iterations=6001"));
        assert!(matches!(error, TileError::Foreign { .. }), "{error:?}");
    }

    #[test]
    fn positions_have_one_form_and_lie_in_the_grid() {
        for position in ["column=3 row=1", "column=2 row=2", "column=x row=1", "row=1 column=2"] {
            let error = refusal(&changed("column=2 row=1", position));
            assert_eq!(error, TileError::NoSuchPosition { found: position.to_owned() });
        }
        let at = Position { column: 2, row: 1 };
        for position in ["column=02 row=1", "column=2 row=+1"] {
            let error = refusal(&changed("column=2 row=1", position));
            assert_eq!(error, TileError::Header { at });
        }
        let error = refusal(&changed("4 4\n255", "4 4\n254"));
        assert_eq!(error, TileError::Header { at });
    }

    #[test]
    fn other_files_are_refused() {
        for bytes in [&b""[..], b"P6\n10 7\n255\n", &[0xff; 600], "# ".repeat(300).as_bytes()] {
            assert_eq!(refusal(bytes), TileError::NotATile);
        }
        let endless = [TITLE.as_bytes(), b"# ", &[b'x'; 600]].concat();
        assert_eq!(refusal(&endless), TileError::NotATile);
    }
}
