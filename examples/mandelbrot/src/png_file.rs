//! The result: a PNG file.
//!
//! The compressor is fixed by the lock file, runs the same code on every platform and writes no
//! time stamp, so equal pixels give equal files.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::picture::Picture;

/// Why there is no PNG file, or only a part of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PngError {
    /// The file could not be made or finished.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    /// The encoder refused.
    #[error("cannot encode {}", path.display())]
    Encode { path: PathBuf, source: png::EncodingError },
}

/// Writes the pixels of the whole picture to a file.
pub(crate) fn write(picture: &Picture, pixels: &[u8], path: &Path) -> Result<(), PngError> {
    let write_error = |source| PngError::Write { path: path.to_owned(), source };
    let encode_error = |source| PngError::Encode { path: path.to_owned(), source };

    let mut file = BufWriter::new(File::create(path).map_err(write_error)?);
    let mut encoder = png::Encoder::new(&mut file, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    let mut writer = encoder.write_header().map_err(encode_error)?;
    writer.write_image_data(pixels).map_err(encode_error)?;
    writer.finish().map_err(encode_error)?;
    file.flush().map_err(write_error)
}
