//! From the tiles of all work units to the pixels of the picture.
//!
//! The input has one directory for each work unit, and each holds one tile. Neither the names
//! nor the order of the directories matter, because a tile says itself where it belongs. The
//! picture is complete or there is none: a tile that is missing, doubled or foreign is an error.
//!
//! # Bounds
//!
//! Memory holds the picture and one tile, whatever the input contains.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::picture::{PIXEL_BYTES, Picture, Position};
use crate::tile::{self, TileError};

/// Why the tiles do not make the picture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssembleError {
    /// A directory could not be listed.
    #[error("cannot list {}", path.display())]
    List { path: PathBuf, source: io::Error },
    /// Something lies where only the tiles of work units should.
    #[error("{} does not belong here: only <unit>/{} does", path.display(), tile::FILE_NAME)]
    Unexpected { path: PathBuf },
    /// A work unit left no tile, or it cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is not a tile of this picture.
    #[error("{} cannot be used", path.display())]
    Tile { path: PathBuf, source: TileError },
    /// Two tiles are for the same place.
    #[error("the tile at {at} is doubled: {} and {}", first.display(), second.display())]
    Doubled { at: Position, first: PathBuf, second: PathBuf },
    /// Places are left without a tile.
    #[error("{n_missing} of {n_tiles} tiles are missing, the first is the one at {first}")]
    Missing { n_missing: usize, n_tiles: usize, first: Position },
}

/// Reads all tiles below `input` and returns the pixels of the picture.
pub(crate) fn assemble(picture: &Picture, input: &Path) -> Result<Vec<u8>, AssembleError> {
    let mut canvas = Canvas::new(picture);
    for unit in sorted_entries(input)? {
        let files = match sorted_entries(&unit) {
            Err(AssembleError::List { path, source })
                if source.kind() == io::ErrorKind::NotADirectory =>
            {
                return Err(AssembleError::Unexpected { path });
            }
            files => files?,
        };
        let path = unit.join(tile::FILE_NAME);
        if let Some(other) = files.into_iter().find(|file| *file != path) {
            return Err(AssembleError::Unexpected { path: other });
        }
        let bytes = read(picture, &path)?;
        canvas.add(path, &bytes)?;
    }
    canvas.finish()
}

/// A picture that is not complete yet.
struct Canvas<'a> {
    picture: &'a Picture,
    pixels: Vec<u8>,
    /// Where each tile came from, by its index in the grid.
    sources: Vec<Option<PathBuf>>,
}

impl<'a> Canvas<'a> {
    fn new(picture: &'a Picture) -> Self {
        let pixels = vec![0; picture.bounds().bytes()];
        Self { picture, pixels, sources: vec![None; picture.n_tiles()] }
    }

    /// Puts the tile of a file into its place.
    fn add(&mut self, path: PathBuf, bytes: &[u8]) -> Result<(), AssembleError> {
        let (at, pixels) = match tile::decode(self.picture, bytes) {
            Ok(decoded) => decoded,
            Err(source) => return Err(AssembleError::Tile { path, source }),
        };
        let source = &mut self.sources[self.picture.index(at)];
        if let Some(first) = source.take() {
            return Err(AssembleError::Doubled { at, first, second: path });
        }
        *source = Some(path);

        let place = self.picture.tile(at);
        let row_bytes = place.width as usize * PIXEL_BYTES;
        for (y, row) in (place.y..).zip(pixels.chunks_exact(row_bytes)) {
            let pixel = y as usize * self.picture.width() as usize + place.x as usize;
            let start = pixel * PIXEL_BYTES;
            self.pixels[start..start + row_bytes].copy_from_slice(row);
        }
        Ok(())
    }

    /// The pixels, if no tile is missing.
    fn finish(self) -> Result<Vec<u8>, AssembleError> {
        let mut missing = self.sources.iter().enumerate().filter(|(_, source)| source.is_none());
        let Some((first, _)) = missing.next() else { return Ok(self.pixels) };
        let first = self.picture.position(first);
        let n_missing = missing.count() + 1;
        Err(AssembleError::Missing { n_missing, n_tiles: self.sources.len(), first })
    }
}

/// The entries of a directory, sorted by name.
fn sorted_entries(path: &Path) -> Result<Vec<PathBuf>, AssembleError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut entries =
            fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        Ok(entries)
    };
    list().map_err(|source| AssembleError::List { path: path.to_owned(), source })
}

/// Reads a file that may be a tile, and no more of it than a tile can have.
fn read(picture: &Picture, path: &Path) -> Result<Vec<u8>, AssembleError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = tile::bytes_max(picture) as u64 + 1;
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| AssembleError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::render::render;

    fn picture() -> Picture {
        Picture::new((13, 11), (4, 3), 8000).expect("a valid picture")
    }

    /// The output of a network: all tiles, in a directory for each unit.
    fn all_tiles() -> TempDir {
        let input = tempfile::tempdir().expect("a temporary directory");
        for index in 0..picture().n_tiles() {
            add_unit(&input, index, index);
        }
        input
    }

    fn add_unit(input: &TempDir, unit: usize, index: usize) {
        let directory = input.path().join(format!("{unit:08}"));
        fs::create_dir(&directory).expect("a directory for the unit");
        let bytes = tile::encode(&picture(), picture().position(index));
        fs::write(directory.join(tile::FILE_NAME), bytes).expect("the tile is written");
    }

    fn error_of(input: &TempDir) -> AssembleError {
        assemble(&picture(), input.path()).expect_err("the input is wrong")
    }

    #[test]
    fn tiles_make_the_whole() {
        let assembled = assemble(&picture(), all_tiles().path()).expect("complete");
        assert!(assembled == render(&picture(), picture().bounds()));
    }

    #[test]
    fn the_order_of_units_does_not_matter() {
        let input = tempfile::tempdir().expect("a temporary directory");
        for unit in 0..picture().n_tiles() {
            add_unit(&input, unit, (unit * 7 + 5) % picture().n_tiles());
        }
        let assembled = assemble(&picture(), input.path()).expect("complete");
        assert!(assembled == render(&picture(), picture().bounds()));
    }

    #[test]
    fn missing_tiles_are_counted_and_named() {
        let input = all_tiles();
        for unit in ["00000005", "00000009"] {
            fs::remove_dir_all(input.path().join(unit)).expect("removed");
        }
        let error = error_of(&input);
        assert_eq!(
            error.to_string(),
            "2 of 12 tiles are missing, the first is the one at column=1 row=1"
        );
        let empty = tempfile::tempdir().expect("a temporary directory");
        assert!(matches!(error_of(&empty), AssembleError::Missing { n_missing: 12, .. }));
    }

    #[test]
    fn a_unit_without_its_tile_is_refused() {
        let input = all_tiles();
        let path = input.path().join("00000003").join(tile::FILE_NAME);
        fs::remove_file(&path).expect("removed");
        assert!(
            matches!(error_of(&input), AssembleError::Read { path: found, .. } if found == path)
        );
    }

    #[test]
    fn doubled_tiles_are_refused_and_both_named() {
        let input = all_tiles();
        add_unit(&input, 77, 6);
        let AssembleError::Doubled { at, first, second } = error_of(&input) else {
            panic!("another error");
        };
        assert_eq!(at, Position { column: 2, row: 1 });
        assert!(first.ends_with("00000006/tile.ppm") && second.ends_with("00000077/tile.ppm"));
    }

    #[test]
    fn foreign_tiles_are_refused() {
        let input = all_tiles();
        let other = Picture::new((13, 11), (4, 3), 8001).expect("a valid picture");
        let path = input.path().join("00000000").join(tile::FILE_NAME);
        fs::write(&path, tile::encode(&other, other.position(0))).expect("written");
        let AssembleError::Tile { source: TileError::Foreign { found, wanted }, .. } =
            error_of(&input)
        else {
            panic!("another error");
        };
        assert_eq!((found, wanted), (other.to_string(), picture().to_string()));
    }

    #[test]
    fn files_that_do_not_belong_there_are_refused() {
        for stray in ["notes.txt", "00000002/notes.txt"] {
            let input = all_tiles();
            let path = input.path().join(stray);
            fs::write(&path, "hello").expect("written");
            let error = error_of(&input);
            assert!(
                matches!(&error, AssembleError::Unexpected { path: found } if *found == path),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_missing_input_directory_is_named() {
        let error = assemble(&picture(), Path::new("/does/not/exist")).expect_err("no input");
        assert_eq!(error.to_string(), "cannot list /does/not/exist");
    }
}
