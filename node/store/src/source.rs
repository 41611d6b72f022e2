//! The folder or file that is added: what is in it, and its bytes.
//!
//! Datasets hold files and nothing else. Links are refused rather than followed, since they
//! may lead out of the folder; only the path that the caller gives may itself be a link.
//! Directories without files leave no trace.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use cid::Cid;
use dockercomp_protocol::content;
use dockercomp_protocol::manifest::{self, ChunkedFile};
use walkdir::WalkDir;

use crate::AddOptions;
use crate::cut::{Cut, cut};
use crate::error::AddError;

/// One file to add.
#[derive(Debug)]
pub(crate) struct SourceFile {
    path: PathBuf,
    /// Its path in the dataset.
    pub(crate) name: String,
    pub(crate) size: u64,
    exec: bool,
    device: u64,
    inode: u64,
}

/// The files of a folder, or one file by itself, sorted as the manifest sorts them.
pub(crate) fn list(source: &Path) -> Result<Vec<SourceFile>, AddError> {
    let metadata = fs::metadata(source).map_err(unreadable(source))?;
    if metadata.is_file() {
        // Through a link, it is named after the link: that is what was asked for.
        let name = source.file_name().map_or(source, Path::new);
        return Ok(vec![SourceFile::new(source, name, &metadata)?]);
    }
    if !metadata.is_dir() {
        return Err(AddError::Kind { path: source.to_owned() });
    }
    let mut files = Vec::new();
    for entry in WalkDir::new(source).min_depth(1) {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(source).to_owned();
            AddError::Read { path, source: error.into() }
        })?;
        let kind = entry.file_type();
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            return Err(AddError::Kind { path: entry.into_path() });
        }
        let metadata = fs::symlink_metadata(entry.path()).map_err(unreadable(entry.path()))?;
        let name = entry.path().strip_prefix(source).expect("the walk started there");
        files.push(SourceFile::new(entry.path(), name, &metadata)?);
    }
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

impl SourceFile {
    fn new(path: &Path, name: &Path, metadata: &Metadata) -> Result<Self, AddError> {
        let name = name.to_str().ok_or_else(|| AddError::Name { path: path.to_owned() })?;
        manifest::check_path(name)?;
        Ok(Self {
            path: path.to_owned(),
            name: name.to_owned(),
            size: metadata.len(),
            exec: metadata.mode() & 0o100 != 0,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// Opens the file that was listed, and no other that was put in its place.
    pub(crate) fn open(&self) -> Result<File, AddError> {
        let file = File::open(&self.path).map_err(unreadable(&self.path))?;
        let metadata = file.metadata().map_err(unreadable(&self.path))?;
        let is_same = metadata.dev() == self.device && metadata.ino() == self.inode;
        if is_same { Ok(file) } else { Err(self.changed()) }
    }

    /// Names its chunks, and all its bytes together.
    pub(crate) fn hash(
        &self,
        options: &AddOptions,
        threads: usize,
        done: impl Fn(u64),
    ) -> Result<ChunkedFile, AddError> {
        // A byte more than it should have tells endless growth, or a file of the kernel's.
        let file = self.open()?.take(self.size.saturating_add(1));
        let Cut { chunks, b3, size } =
            cut(file, options.chunker, threads, done).map_err(unreadable(&self.path))?;
        if size != self.size {
            return Err(self.changed());
        }
        let exec = self.exec && !options.normalise;
        Ok(ChunkedFile { path: self.name.clone(), size, exec, b3, chunks })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a chunk again, if it is still the one that was named.
    pub(crate) fn read(
        &self,
        file: &File,
        cid: &Cid,
        (offset, len): (u64, usize),
    ) -> Result<Vec<u8>, AddError> {
        let mut bytes = vec![0; len];
        match file.read_exact_at(&mut bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.changed());
            }
            other => other.map_err(unreadable(&self.path))?,
        }
        content::verify(cid, &bytes).map_err(|_| self.changed())?;
        Ok(bytes)
    }

    fn changed(&self) -> AddError {
        AddError::Changed { path: self.path.clone() }
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> AddError + '_ {
    move |source| AddError::Read { path: path.to_owned(), source }
}
