//! What is sent: files of several sizes, and a folder of many small ones.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use crate::Error;

/// A kind of data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    files: u32,
    /// Bytes of a file. Small files have between a sixth and eleven sixths of it, as the pages
    /// of a documentation do: 12 KiB is the mean of the Rust toolchain's.
    bytes: u64,
}

/// The data of a load on disk.
#[derive(Debug)]
pub(crate) struct Source {
    /// The file or folder.
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// Over the names and contents of all files.
    digest: blake3::Hash,
}

impl Load {
    pub(crate) const ALL: [Self; 4] = [
        Self { name: "1MiB", files: 1, bytes: 1 << 20 },
        Self { name: "256MiB", files: 1, bytes: 256 << 20 },
        Self { name: "4GiB", files: 1, bytes: 4 << 30 },
        Self { name: "50000-files", files: 50_000, bytes: 12 << 10 },
    ];

    /// What a swarm shares.
    pub(crate) const SWARM: Self = Self { name: "64MiB", files: 1, bytes: 64 << 20 };

    /// Writes the data, which no tool can compress and which is the same in every run.
    pub(crate) fn make(self, dir: &Path) -> Result<Source, Error> {
        fs::create_dir_all(dir)?;
        let path = dir.join("source");
        let mut bytes = blake3::Hasher::new().update(self.name.as_bytes()).finalize_xof();
        if self.files == 1 {
            copy(&mut bytes, self.bytes, &path)?;
        } else {
            for file in 0..self.files {
                let folder = path.join(format!("{:03}", file / 250));
                if file % 250 == 0 {
                    fs::create_dir_all(&folder)?;
                }
                let sixths = u64::from(file % 11) + 1;
                copy(&mut bytes, self.bytes * sixths / 6, &folder.join(format!("{file:05}.html")))?;
            }
        }
        let (digest, bytes) = digest(&path)?;
        Ok(Source { path, bytes, digest })
    }
}

fn copy(from: &mut blake3::OutputReader, bytes: u64, path: &Path) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    io::copy(&mut io::Read::take(from, bytes), &mut file)?;
    file.flush()
}

impl Source {
    /// Whether what arrived, in a folder or as a file, is what was sent.
    pub(crate) fn check(&self, arrived: &Path) -> Result<(), Error> {
        let (digest, bytes) = digest(arrived)?;
        if digest == self.digest && bytes == self.bytes {
            return Ok(());
        }
        Err(format!("what arrived differs: {bytes} bytes instead of {}", self.bytes).into())
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.path.is_dir()
    }
}

/// The names of files relative to `path`, of their own for a single file, and their contents.
fn digest(path: &Path) -> Result<(blake3::Hash, u64), Error> {
    let mut hasher = blake3::Hasher::new();
    let mut total = 0;
    for entry in walkdir::WalkDir::new(path).sort_by_file_name() {
        let entry = entry?;
        if !entry.file_type().is_file() {
            continue;
        }
        let name = entry.path().strip_prefix(path)?.as_os_str().as_encoded_bytes();
        hasher.update(name).update(&[0]);
        let mut content = blake3::Hasher::new();
        let mut file = File::open(entry.path())?;
        total += io::copy(&mut file, &mut content)?;
        hasher.update(content.finalize().as_bytes());
    }
    Ok((hasher.finalize(), total))
}
