//! The picture asked for, and how it is cut into tiles.
//!
//! # Bounds
//!
//! At most [`PIXELS_MAX`] pixels, so that `assemble` stays below 100 MiB; every side is at
//! least as long as the number of tiles along it, so no tile is empty.

use std::fmt;

/// Number of pixels of the largest picture: 4K (3840 x 2160) fits.
pub(crate) const PIXELS_MAX: u32 = 8 << 20;

/// Number of iterations of the most patient picture.
pub(crate) const ITERATIONS_MAX: u32 = 1_000_000;

/// Bytes of one pixel: red, green, blue.
pub(crate) const PIXEL_BYTES: usize = 3;

/// What decides every byte of the result. Tiles of two pictures never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    width: u32,
    height: u32,
    columns: u32,
    rows: u32,
    iterations: u32,
}

/// The place of a tile in the grid, counted from the top left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// From the left, starting at 0.
    pub(crate) column: u32,
    /// From the top, starting at 0.
    pub(crate) row: u32,
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rectangle {
    /// Left edge.
    pub(crate) x: u32,
    /// Top edge.
    pub(crate) y: u32,
    /// Pixels of a row.
    pub(crate) width: u32,
    /// Number of rows.
    pub(crate) height: u32,
}

/// Why numbers do not describe a picture.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PictureError {
    /// A side has fewer pixels than tiles, or there are no tiles.
    #[error("{length} pixels cannot be cut into {tiles} tiles; every tile needs at least one")]
    Grid { length: u32, tiles: u32 },
    /// More pixels than the program keeps in memory.
    #[error("{width} x {height} pixels are too many, at most {PIXELS_MAX} are allowed")]
    TooLarge { width: u32, height: u32 },
    /// No work, or more than anybody would wait for.
    #[error("{iterations} iterations are outside of 1 to {ITERATIONS_MAX}")]
    Iterations { iterations: u32 },
}

impl Picture {
    /// Checks the numbers.
    pub(crate) fn new(
        (width, height): (u32, u32),
        (columns, rows): (u32, u32),
        iterations: u32,
    ) -> Result<Self, PictureError> {
        for (length, tiles) in [(width, columns), (height, rows)] {
            if tiles == 0 || length < tiles {
                return Err(PictureError::Grid { length, tiles });
            }
        }
        if u64::from(width) * u64::from(height) > u64::from(PIXELS_MAX) {
            return Err(PictureError::TooLarge { width, height });
        }
        if iterations == 0 || iterations > ITERATIONS_MAX {
            return Err(PictureError::Iterations { iterations });
        }
        Ok(Self { width, height, columns, rows, iterations })
    }

    /// Pixels of a row.
    pub(crate) fn width(&self) -> u32 {
        self.width
    }

    /// Number of rows of pixels.
    pub(crate) fn height(&self) -> u32 {
        self.height
    }

    /// Iterations after which a point counts as a member of the set.
    pub(crate) fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Number of tiles.
    pub(crate) fn n_tiles(&self) -> usize {
        self.columns as usize * self.rows as usize
    }

    /// The whole picture as a rectangle.
    pub(crate) fn bounds(&self) -> Rectangle {
        Rectangle { x: 0, y: 0, width: self.width, height: self.height }
    }

    /// Whether the grid has this position.
    pub(crate) fn contains(&self, at: Position) -> bool {
        at.column < self.columns && at.row < self.rows
    }

    /// The number of a position, row by row: below [`Self::n_tiles`] for those of the grid.
    pub(crate) fn index(&self, at: Position) -> usize {
        at.row as usize * self.columns as usize + at.column as usize
    }

    /// The inverse of [`Self::index`].
    pub(crate) fn position(&self, index: usize) -> Position {
        let columns = self.columns as usize;
        Position { column: (index % columns) as u32, row: (index / columns) as u32 }
    }

    /// The pixels of a tile. Sizes differ by one where the grid does not divide the picture.
    pub(crate) fn tile(&self, at: Position) -> Rectangle {
        let (x, width) = part(self.width, self.columns, at.column);
        let (y, height) = part(self.height, self.rows, at.row);
        Rectangle { x, y, width, height }
    }
}

/// Start and length of part `index` when `length` is cut into `parts`.
fn part(length: u32, parts: u32, index: u32) -> (u32, u32) {
    let cut = |index: u32| (u64::from(length) * u64::from(index) / u64::from(parts)) as u32;
    (cut(index), cut(index + 1) - cut(index))
}

impl Rectangle {
    /// Bytes of its pixels.
    pub(crate) fn bytes(&self) -> usize {
        self.width as usize * self.height as usize * PIXEL_BYTES
    }
}

/// The form that tile files carry; [`crate::tile`] reads it back.
impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, height, columns, rows, iterations } = self;
        write!(f, "width={width} height={height} columns={columns} rows={rows} ")?;
        write!(f, "iterations={iterations}")
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column={} row={}", self.column, self.row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pixel belongs to exactly one tile, also where the grid does not divide the sides.
    #[test]
    fn tiles_cover_the_picture_once() {
        let picture = Picture::new((23, 17), (5, 4), 9).expect("a valid picture");
        let mut covered = vec![0u32; 23 * 17];
        for index in 0..picture.n_tiles() {
            let at = picture.position(index);
            assert!(picture.contains(at));
            assert_eq!(picture.index(at), index);
            let tile = picture.tile(at);
            for y in tile.y..tile.y + tile.height {
                for x in tile.x..tile.x + tile.width {
                    covered[(y * 23 + x) as usize] += 1;
                }
            }
        }
        assert_eq!(covered, vec![1; 23 * 17]);
        assert!(!picture.contains(Position { column: 5, row: 0 }));
        assert!(!picture.contains(Position { column: 0, row: 4 }));
    }

    #[test]
    fn impossible_pictures_are_refused() {
        let new = Picture::new;
        assert_eq!(new((8, 8), (9, 1), 1), Err(PictureError::Grid { length: 8, tiles: 9 }));
        assert_eq!(new((8, 8), (1, 0), 1), Err(PictureError::Grid { length: 8, tiles: 0 }));
        let side = u32::MAX;
        assert_eq!(
            new((side, side), (1, 1), 1),
            Err(PictureError::TooLarge { width: side, height: side })
        );
        for iterations in [0, ITERATIONS_MAX + 1] {
            let error = PictureError::Iterations { iterations };
            assert_eq!(new((8, 8), (1, 1), iterations), Err(error));
        }
        assert!(new((3840, 2160), (16, 16), ITERATIONS_MAX).is_ok());
    }
}
