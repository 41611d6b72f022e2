//! Datasets: a folder as a tree of blocks, named by its root.
//!
//! # Shape
//!
//! ```text
//! Root ──► Page ──► FileEntry ──► chunk, chunk, …          (small files)
//!      ──► Page ──► FileEntry ──► ChunkPage ──► chunk, …   (files of many chunks)
//! ```
//!
//! The root holds no name and no time, so equal folders have equal roots: an output's root
//! is what replicas are compared by.
//!
//! # Invariants
//!
//! - Files are sorted by path, no path is a prefix directory of another file.
//! - Every chunk but the last of a file has exactly the chunk size.

use cid::Cid;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::limits::{
    CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, FILE_PAGES_MAX, INLINE_CHUNKS_MAX, PAGE_CHUNKS_MAX,
    PAGE_FILES_MAX, PATH_BYTES_MAX, ROOT_PAGES_MAX,
};

/// The version of manifests that this code writes and reads.
const VERSION: u8 = 1;

/// The root block of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Version of the format, 1.
    pub v: u8,
    /// Size of every chunk but the last of a file, in bytes.
    pub chunk_bytes: u32,
    /// Number of files.
    pub files: u64,
    /// Sum of the sizes of all files, in bytes.
    pub bytes: u64,
    /// The pages, in order; all but the last hold [`PAGE_FILES_MAX`] files.
    pub pages: Vec<Cid>,
}

/// Consecutive files of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Version of the format, 1.
    pub v: u8,
    /// The files, sorted by path.
    pub files: Vec<FileEntry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Relative path with `/` between its parts.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether the owner may execute it.
    pub exec: bool,
    /// Where its chunks are listed.
    pub chunks: Chunks,
}

/// The list of a file's chunks, or of the pages of that list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Chunks {
    /// All chunks, in order.
    Inline(Vec<Cid>),
    /// [`ChunkPage`]s, in order; all but the last hold [`PAGE_CHUNKS_MAX`] links.
    Paged(Vec<Cid>),
}

/// Consecutive chunks of one large file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkPage {
    /// Version of the format, 1.
    pub v: u8,
    /// The chunks, in order.
    pub chunks: Vec<Cid>,
}

/// Why a manifest block or a path was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not canonical DAG-CBOR of the right shape.
    #[error("the manifest block cannot be read")]
    Decode(#[from] DecodeError),
    /// A format that this version does not know.
    #[error("the manifest has version {found}, this program reads version {VERSION}")]
    Version {
        /// What it says.
        found: u8,
    },
    /// The chunk size is not one that can be chosen.
    #[error(
        "chunks of {bytes} bytes are not allowed; choose a power of two from \
         {CHUNK_BYTES_MIN} to {CHUNK_BYTES_MAX}"
    )]
    ChunkSize {
        /// What was given.
        bytes: u32,
    },
    /// Counts, sizes and lists do not fit together.
    #[error("the manifest contradicts itself: {what}")]
    Inconsistent {
        /// Which rule it breaks.
        what: &'static str,
    },
    /// A path that must not be written to a disk.
    #[error("path {path:?} is refused: {reason}")]
    Path {
        /// The path.
        path: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
}

impl Root {
    /// Reads and checks a root block.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let root: Self = codec::decode(bytes)?;
        check_version(root.v)?;
        check_chunk_bytes(root.chunk_bytes)?;
        let pages = root.files.div_ceil(PAGE_FILES_MAX as u64);
        if root.pages.len() > ROOT_PAGES_MAX || root.pages.len() as u64 != pages {
            return Err(ManifestError::Inconsistent { what: "number of pages" });
        }
        Ok(root)
    }

    /// How many files page `index` must hold.
    #[must_use]
    pub fn page_files(&self, index: usize) -> usize {
        let before = (index as u64).saturating_mul(PAGE_FILES_MAX as u64);
        let left = self.files.saturating_sub(before).min(PAGE_FILES_MAX as u64);
        usize::try_from(left).expect("at most a page")
    }
}

impl Page {
    /// Reads and checks page `index` of `root`.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn decode(bytes: &[u8], root: &Root, index: usize) -> Result<Self, ManifestError> {
        let page: Self = codec::decode(bytes)?;
        check_version(page.v)?;
        if page.files.len() != root.page_files(index) {
            return Err(ManifestError::Inconsistent { what: "number of files in a page" });
        }
        for entry in &page.files {
            check_path(&entry.path)?;
            entry.check(root.chunk_bytes)?;
        }
        check_order(page.files.iter().map(|entry| entry.path.as_str()))?;
        Ok(page)
    }
}

impl FileEntry {
    /// Number of chunks that a file of this size has.
    #[must_use]
    pub fn chunk_count(&self, chunk_bytes: u32) -> u64 {
        self.size.div_ceil(u64::from(chunk_bytes))
    }

    fn check(&self, chunk_bytes: u32) -> Result<(), ManifestError> {
        let chunks = self.chunk_count(chunk_bytes);
        let (listed, expected, max) = match &self.chunks {
            Chunks::Inline(list) => (list.len(), chunks, INLINE_CHUNKS_MAX),
            Chunks::Paged(pages) => {
                (pages.len(), chunks.div_ceil(PAGE_CHUNKS_MAX as u64), FILE_PAGES_MAX)
            }
        };
        let paged_without_need =
            matches!(self.chunks, Chunks::Paged(_)) && chunks <= INLINE_CHUNKS_MAX as u64;
        if listed > max || listed as u64 != expected || paged_without_need {
            return Err(ManifestError::Inconsistent { what: "number of chunks of a file" });
        }
        Ok(())
    }
}

impl ChunkPage {
    /// Reads and checks page `index` of the chunks of `entry`.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn decode(
        bytes: &[u8],
        entry: &FileEntry,
        chunk_bytes: u32,
        index: usize,
    ) -> Result<Self, ManifestError> {
        let page: Self = codec::decode(bytes)?;
        check_version(page.v)?;
        let before = (index as u64).saturating_mul(PAGE_CHUNKS_MAX as u64);
        let expected =
            entry.chunk_count(chunk_bytes).saturating_sub(before).min(PAGE_CHUNKS_MAX as u64);
        if page.chunks.len() as u64 != expected {
            return Err(ManifestError::Inconsistent { what: "number of chunks in a page" });
        }
        Ok(page)
    }
}

/// A file whose chunks are known, as [`build`] wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkedFile {
    /// Relative path.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether the owner may execute it.
    pub exec: bool,
    /// All its chunks, in order.
    pub chunks: Vec<Cid>,
}

/// A manifest and all its blocks.
#[derive(Clone, Debug)]
pub struct Built {
    /// The identifier of the root block, which names the dataset.
    pub cid: Cid,
    /// The root itself.
    pub root: Root,
    /// Every block, the root's last.
    pub blocks: Vec<(Cid, Vec<u8>)>,
}

/// Builds the manifest of files whose chunks are known. Any order will do.
///
/// # Errors
/// If a path is refused or appears twice, or the chunk size is not allowed.
pub fn build(chunk_bytes: u32, mut files: Vec<ChunkedFile>) -> Result<Built, ManifestError> {
    check_chunk_bytes(chunk_bytes)?;
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    for file in &files {
        check_path(&file.path)?;
    }
    check_order(files.iter().map(|file| file.path.as_str()))?;

    let mut blocks = Vec::new();
    let count = files.len() as u64;
    let bytes = files.iter().map(|file| file.size).sum();
    let mut pages = Vec::new();
    let mut entries = files.into_iter();
    loop {
        let files: Vec<FileEntry> =
            entries.by_ref().take(PAGE_FILES_MAX).map(|file| entry_of(file, &mut blocks)).collect();
        if files.is_empty() {
            break;
        }
        for entry in &files {
            entry.check(chunk_bytes)?;
        }
        let (cid, page) = codec::block(&Page { v: VERSION, files });
        pages.push(cid);
        blocks.push((cid, page));
    }
    let root = Root { v: VERSION, chunk_bytes, files: count, bytes, pages };
    if root.pages.len() > ROOT_PAGES_MAX {
        return Err(ManifestError::Inconsistent { what: "more files than a dataset can hold" });
    }
    let (cid, block) = codec::block(&root);
    blocks.push((cid, block));
    Ok(Built { cid, root, blocks })
}

fn entry_of(file: ChunkedFile, blocks: &mut Vec<(Cid, Vec<u8>)>) -> FileEntry {
    let chunks = if file.chunks.len() <= INLINE_CHUNKS_MAX {
        Chunks::Inline(file.chunks)
    } else {
        let pages = file.chunks.chunks(PAGE_CHUNKS_MAX).map(|chunks| {
            let (cid, page) = codec::block(&ChunkPage { v: VERSION, chunks: chunks.to_vec() });
            blocks.push((cid, page));
            cid
        });
        Chunks::Paged(pages.collect())
    };
    FileEntry { path: file.path, size: file.size, exec: file.exec, chunks }
}

/// Checks a path that will be written to somebody's disk.
///
/// # Errors
/// [`ManifestError::Path`] with the rule that it breaks.
pub fn check_path(path: &str) -> Result<(), ManifestError> {
    let refuse = |reason| Err(ManifestError::Path { path: path.to_owned(), reason });
    if path.is_empty() {
        return refuse("it is empty");
    }
    if path.len() > PATH_BYTES_MAX {
        return refuse("it is longer than 1024 bytes");
    }
    if path.contains(['\\', '\0']) || path.chars().any(char::is_control) {
        return refuse("it contains a backslash or a control character");
    }
    for part in path.split('/') {
        match part {
            "" => return refuse("it is absolute or has an empty part"),
            "." | ".." => return refuse("it has a part \".\" or \"..\""),
            _ if part.len() > 255 => return refuse("a part is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

fn check_order<'a>(paths: impl Iterator<Item = &'a str>) -> Result<(), ManifestError> {
    let mut previous: Option<&str> = None;
    // The directories that the last file lies in, and the files seen, cannot share a path.
    let mut files = std::collections::BTreeSet::new();
    for path in paths {
        if previous.is_some_and(|previous| previous >= path) {
            return Err(ManifestError::Inconsistent { what: "files are not sorted by path" });
        }
        let mut ends = path.match_indices('/').map(|(end, _)| &path[..end]);
        if ends.any(|directory| files.contains(directory)) {
            return Err(ManifestError::Inconsistent { what: "a file is also a directory" });
        }
        files.insert(path);
        previous = Some(path);
    }
    Ok(())
}

fn check_version(found: u8) -> Result<(), ManifestError> {
    if found == VERSION { Ok(()) } else { Err(ManifestError::Version { found }) }
}

fn check_chunk_bytes(bytes: u32) -> Result<(), ManifestError> {
    if bytes.is_power_of_two() && (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&bytes) {
        Ok(())
    } else {
        Err(ManifestError::ChunkSize { bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::content::chunk_cid;
    use crate::limits::CHUNK_BYTES_DEFAULT;

    fn file(path: &str, size: u64) -> ChunkedFile {
        let chunks = (0..size.div_ceil(u64::from(CHUNK_BYTES_DEFAULT)))
            .map(|chunk| chunk_cid(&chunk.to_le_bytes()))
            .collect();
        ChunkedFile { path: path.to_owned(), size, exec: false, chunks }
    }

    #[test]
    fn manifest_is_golden() {
        let built = build(CHUNK_BYTES_DEFAULT, vec![file("b/c.txt", 5), file("a.txt", 0)])
            .expect("a plain folder");
        insta::assert_snapshot!(built.cid, @"bafyr4ift4bjdnypenqua7gf2b7o5aw2p7abfesvkm35kwjppymrcjkicdq");
        let hex: Vec<String> = built.blocks.iter().map(|(_, block)| hex::encode(block)).collect();
        insta::assert_snapshot!(hex.join("\n"), @r"
a26176016566696c657382a46465786563f4647061746865612e7478746473697a6500666368756e6b73a166696e6c696e6580a46465786563f4647061746867622f632e7478746473697a6505666368756e6b73a166696e6c696e6581d82a58250001551e2071e0a99173564931c0b8acc52d2685a8e39c64dc52e3d02390fdac2a12b155cb
a5617601656279746573056566696c65730265706167657381d82a58250001711e200b8b8ed199f63e5c1847d80b54e948d794c1cc5ff26043e029c918e7e972ab706b6368756e6b5f62797465731a00100000
");
    }

    #[test]
    fn order_of_files_does_not_matter() {
        let one = build(CHUNK_BYTES_DEFAULT, vec![file("a", 1), file("b", 2)]).expect("plain");
        let two = build(CHUNK_BYTES_DEFAULT, vec![file("b", 2), file("a", 1)]).expect("plain");
        assert_eq!(one.cid, two.cid);
    }

    #[test]
    fn dangerous_paths_are_refused() {
        for path in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\\b", "a\nb"] {
            assert!(check_path(path).is_err(), "{path:?} was accepted");
        }
        for path in ["a", "a/b.txt", "ünï/çø∂é", "..a", "a b"] {
            assert!(check_path(path).is_ok(), "{path:?} was refused");
        }
    }

    #[test]
    fn a_file_cannot_be_a_directory_too() {
        assert!(build(CHUNK_BYTES_DEFAULT, vec![file("a", 1), file("a/b", 1)]).is_err());
        assert!(build(CHUNK_BYTES_DEFAULT, vec![file("a", 1), file("a", 1)]).is_err());
    }

    #[test]
    fn large_lists_are_paged() {
        let chunk = u64::from(CHUNK_BYTES_DEFAULT);
        let big = file("big", chunk * (PAGE_CHUNKS_MAX as u64 + 3) + 1);
        let built = build(CHUNK_BYTES_DEFAULT, vec![big]).expect("plain");
        let root = Root::decode(&built.blocks.last().expect("a root").1).expect("a root");
        let block =
            |cid: &Cid| &built.blocks.iter().find(|(found, _)| found == cid).expect("its block").1;
        let page = Page::decode(block(&root.pages[0]), &root, 0).expect("a page");
        let Chunks::Paged(pages) = &page.files[0].chunks else { panic!("not paged") };
        let last = ChunkPage::decode(block(&pages[1]), &page.files[0], root.chunk_bytes, 1)
            .expect("a chunk page");
        assert_eq!(last.chunks.len(), 4);
    }

    #[test]
    fn a_page_that_lies_about_its_size_is_refused() {
        let built = build(CHUNK_BYTES_DEFAULT, vec![file("a", 1), file("b", 1)]).expect("plain");
        let mut page: Page = codec::decode(&built.blocks[0].1).expect("a page");
        page.files[0].size = u64::MAX;
        assert!(Page::decode(&codec::encode(&page), &built.root, 0).is_err());
        page.files.pop();
        assert!(Page::decode(&codec::encode(&page), &built.root, 0).is_err());
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Root::decode(&bytes);
            let built = build(CHUNK_BYTES_DEFAULT, vec![file("a", 1)]).expect("plain");
            let _ = Page::decode(&bytes, &built.root, 0);
        }

        #[test]
        fn roots_survive_the_round_trip(sizes in proptest::collection::vec(0u64..5_000_000, 0..40)) {
            let files = sizes.iter().enumerate()
                .map(|(index, size)| file(&format!("f{index}"), *size)).collect();
            let built = build(CHUNK_BYTES_DEFAULT, files).expect("plain");
            let root = Root::decode(&built.blocks.last().expect("a root").1).expect("a root");
            prop_assert_eq!(root, built.root);
        }
    }
}
