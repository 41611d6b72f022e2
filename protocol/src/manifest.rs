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
//! - The chunks of a file add up to its size. With a fixed chunker each but the last has exactly
//!   its size; with a content-defined one none is larger than its largest.
//! - Every file names the BLAKE3 of all its bytes, which is what `b3sum` prints.

use std::collections::BTreeSet;

use cid::Cid;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::content::{self, Digest};
use crate::limits::{
    CHUNK_BYTES_DEFAULT, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, FILE_PAGES_MAX, INLINE_CHUNKS_MAX,
    PAGE_CHUNKS_MAX, PAGE_FILES_MAX, PATH_BYTES_MAX, ROOT_PAGES_MAX,
};

/// The version of manifests that this code writes and reads.
const VERSION: u8 = 1;

/// The root block of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Version of the format, 1.
    pub v: u8,
    /// How files were cut into chunks.
    pub chunker: Chunker,
    /// Number of files.
    pub files: u64,
    /// Sum of the sizes of all files, in bytes.
    pub bytes: u64,
    /// The pages, in order; all but the last hold [`PAGE_FILES_MAX`] files.
    pub pages: Vec<Cid>,
}

/// How a file is cut into chunks. All numbers are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Chunker {
    /// Into pieces of one size. Quickest; one byte put in moves all that follows.
    Fixed {
        /// Size of every chunk but the last of a file.
        size: u32,
    },
    /// Where the content says, by `FastCDC` as its authors gave it in 2020, with normalisation
    /// level 1 and no seed: an insertion changes only the chunks around it.
    #[serde(rename = "fastcdc-v2020")]
    FastCdc {
        /// Smallest chunk, but for the last of a file.
        min: u32,
        /// What chunks have on average, about.
        avg: u32,
        /// Largest chunk.
        max: u32,
    },
}

impl Default for Chunker {
    fn default() -> Self {
        Self::Fixed { size: CHUNK_BYTES_DEFAULT }
    }
}

impl Chunker {
    /// The content-defined profile for datasets that grow and change.
    pub const FAST_CDC: Self = Self::FastCdc { min: 256 << 10, avg: 1 << 20, max: 2 << 20 };

    /// The largest chunk that it makes.
    #[must_use]
    pub const fn max(self) -> u32 {
        match self {
            Self::Fixed { size } => size,
            Self::FastCdc { max, .. } => max,
        }
    }

    /// The fewest and the most chunks that a file of this size can have.
    fn counts(self, size: u64) -> (u64, u64) {
        match self {
            Self::Fixed { size: chunk } => {
                let count = size.div_ceil(u64::from(chunk));
                (count, count)
            }
            Self::FastCdc { min, max, .. } => {
                (size.div_ceil(u64::from(max)), size.div_ceil(u64::from(min)))
            }
        }
    }

    fn check(self) -> Result<(), ManifestError> {
        match self {
            Self::Fixed { size } => check_chunk_bytes(size),
            // One profile, so that equal files have equal chunks everywhere.
            profile if profile == Self::FAST_CDC => Ok(()),
            Self::FastCdc { .. } => Err(ManifestError::Inconsistent { what: "chunker" }),
        }
    }

    /// Whether a chunk of this length may stand there.
    const fn allows(self, len: u32, is_last: bool) -> bool {
        let min = match self {
            Self::Fixed { size } => size,
            Self::FastCdc { min, .. } => min,
        };
        len > 0 && len <= self.max() && (is_last || len >= min)
    }
}

/// A chunk of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk(
    /// Its name.
    pub Cid,
    /// Its length in bytes.
    pub u32,
);

/// A page of the chunks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageLink(
    /// The name of the [`ChunkPage`].
    pub Cid,
    /// The length of all its chunks together, in bytes.
    pub u64,
);

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
    /// BLAKE3 of all its bytes.
    #[serde(with = "serde_bytes")]
    pub b3: Digest,
    /// Where its chunks are listed.
    pub chunks: Chunks,
}

/// The list of a file's chunks, or of the pages of that list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Chunks {
    /// All chunks, in order.
    Inline(Vec<Chunk>),
    /// [`ChunkPage`]s, in order; all but the last hold [`PAGE_CHUNKS_MAX`] links.
    Paged(Vec<PageLink>),
}

/// Consecutive chunks of one large file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkPage {
    /// Version of the format, 1.
    pub v: u8,
    /// The chunks, in order.
    pub chunks: Vec<Chunk>,
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
        root.chunker.check()?;
        let pages = root.files.div_ceil(PAGE_FILES_MAX as u64);
        if root.pages.len() > ROOT_PAGES_MAX || root.pages.len() as u64 != pages {
            return Err(ManifestError::Inconsistent { what: "number of pages" });
        }
        // Each has other files, for a path is there once.
        if root.pages.iter().collect::<BTreeSet<_>>().len() < root.pages.len() {
            return Err(ManifestError::Inconsistent { what: "a page that is there twice" });
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
            entry.check(root.chunker)?;
        }
        check_order(page.files.iter().map(|entry| entry.path.as_str()))?;
        Ok(page)
    }
}

impl FileEntry {
    fn check(&self, chunker: Chunker) -> Result<(), ManifestError> {
        let refuse = |what| Err(ManifestError::Inconsistent { what });
        let (fewest, most) = chunker.counts(self.size);
        match &self.chunks {
            Chunks::Inline(list) => {
                let count = list.len() as u64;
                if list.len() > INLINE_CHUNKS_MAX || count < fewest || count > most {
                    return refuse("number of chunks of a file");
                }
                check_lengths(list, chunker, self.size, true)?;
                // One chunk is the whole file, and of an empty one nothing else can be said.
                let known = match &list[..] {
                    [] => Some(content::digest_of(&[])),
                    [Chunk(cid, _)] => content::digest(cid).ok(),
                    _ => None,
                };
                if known.is_some_and(|digest| digest != self.b3) {
                    return refuse("BLAKE3 of a file of at most one chunk");
                }
            }
            Chunks::Paged(pages) => {
                let of_pages = |chunks: u64| chunks.div_ceil(PAGE_CHUNKS_MAX as u64);
                let count = pages.len() as u64;
                let is_needed = most > INLINE_CHUNKS_MAX as u64;
                if pages.len() > FILE_PAGES_MAX
                    || count < of_pages(fewest)
                    || count > of_pages(most)
                    || !is_needed
                {
                    return refuse("number of chunks of a file");
                }
                let sum = pages.iter().try_fold(0_u64, |sum, page| sum.checked_add(page.1));
                if sum != Some(self.size) {
                    return refuse("sizes of the chunk pages of a file");
                }
            }
        }
        Ok(())
    }
}

/// Whether the lengths of chunks are what the chunker makes and add up.
fn check_lengths(
    chunks: &[Chunk],
    chunker: Chunker,
    size: u64,
    ends_the_file: bool,
) -> Result<(), ManifestError> {
    let sum: u64 = chunks.iter().map(|chunk| u64::from(chunk.1)).sum();
    let mut places = (1..=chunks.len()).zip(chunks);
    let allowed =
        places.all(|(at, chunk)| chunker.allows(chunk.1, ends_the_file && at == chunks.len()));
    if sum == size && allowed {
        Ok(())
    } else {
        Err(ManifestError::Inconsistent { what: "lengths of the chunks of a file" })
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
        chunker: Chunker,
        index: usize,
    ) -> Result<Self, ManifestError> {
        let page: Self = codec::decode(bytes)?;
        check_version(page.v)?;
        let refuse = |what| Err(ManifestError::Inconsistent { what });
        let Chunks::Paged(links) = &entry.chunks else {
            return refuse("chunk page of a file without any");
        };
        let Some(PageLink(_, size)) = links.get(index) else {
            return refuse("number of a chunk page");
        };
        let is_last = index + 1 == links.len();
        let count = page.chunks.len();
        if count == 0 || count > PAGE_CHUNKS_MAX || (!is_last && count < PAGE_CHUNKS_MAX) {
            return refuse("number of chunks in a page");
        }
        if is_last && links.len() == 1 && count <= INLINE_CHUNKS_MAX {
            return refuse("a chunk page without need");
        }
        check_lengths(&page.chunks, chunker, *size, is_last)?;
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
    /// BLAKE3 of all its bytes.
    pub b3: Digest,
    /// All its chunks, in order.
    pub chunks: Vec<Chunk>,
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
/// If a path is refused or appears twice, or the chunker is not allowed or not the one.
pub fn build(chunker: Chunker, mut files: Vec<ChunkedFile>) -> Result<Built, ManifestError> {
    chunker.check()?;
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
            entry.check(chunker)?;
        }
        let (cid, page) = codec::block(&Page { v: VERSION, files });
        pages.push(cid);
        blocks.push((cid, page));
    }
    let root = Root { v: VERSION, chunker, files: count, bytes, pages };
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
            PageLink(cid, chunks.iter().map(|chunk| u64::from(chunk.1)).sum())
        });
        Chunks::Paged(pages.collect())
    };
    FileEntry { path: file.path, size: file.size, exec: file.exec, b3: file.b3, chunks }
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
    let mut files = BTreeSet::new();
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

    const FIXED: Chunker = Chunker::Fixed { size: CHUNK_BYTES_DEFAULT };

    fn file(path: &str, size: u64) -> ChunkedFile {
        let chunk_bytes = u64::from(CHUNK_BYTES_DEFAULT);
        let chunks: Vec<Chunk> = (0..size.div_ceil(chunk_bytes))
            .map(|chunk| {
                let len = (size - chunk * chunk_bytes).min(chunk_bytes);
                Chunk(chunk_cid(&chunk.to_le_bytes()), u32::try_from(len).expect("a MiB"))
            })
            .collect();
        let b3 = match &chunks[..] {
            [] => content::digest_of(&[]),
            [Chunk(cid, _)] => content::digest(cid).expect("ours"),
            _ => [0; 32],
        };
        ChunkedFile { path: path.to_owned(), size, exec: false, b3, chunks }
    }

    #[test]
    fn manifest_is_golden() {
        let built =
            build(FIXED, vec![file("b/c.txt", 5), file("a.txt", 0)]).expect("a plain folder");
        insta::assert_snapshot!(built.cid, @"bafyr4ibahabcit3w3eajdx4732xj3kb4bc4vlg4nrjlcyptzi5fdrztvqi");
        let hex: Vec<String> = built.blocks.iter().map(|(_, block)| hex::encode(block)).collect();
        insta::assert_snapshot!(hex.join("\n"), @r"
a26176016566696c657382a56262335820af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f32626465786563f4647061746865612e7478746473697a6500666368756e6b73a166696e6c696e6580a5626233582071e0a99173564931c0b8acc52d2685a8e39c64dc52e3d02390fdac2a12b155cb6465786563f4647061746867622f632e7478746473697a6505666368756e6b73a166696e6c696e658182d82a58250001551e2071e0a99173564931c0b8acc52d2685a8e39c64dc52e3d02390fdac2a12b155cb05
a5617601656279746573056566696c65730265706167657381d82a58250001711e20ed47df1023681f379203c1ccc6469ede580cd4aafcc74f9d0c8aa1b24de6b93d676368756e6b6572a1656669786564a16473697a651a00100000
");
    }

    #[test]
    fn order_of_files_does_not_matter() {
        let one = build(FIXED, vec![file("a", 1), file("b", 2)]).expect("plain");
        let two = build(FIXED, vec![file("b", 2), file("a", 1)]).expect("plain");
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
        assert!(build(FIXED, vec![file("a", 1), file("a/b", 1)]).is_err());
        assert!(build(FIXED, vec![file("a", 1), file("a", 1)]).is_err());
    }

    #[test]
    fn large_lists_are_paged() {
        let chunk = u64::from(CHUNK_BYTES_DEFAULT);
        let big = file("big", chunk * (PAGE_CHUNKS_MAX as u64 + 3) + 1);
        let built = build(FIXED, vec![big]).expect("plain");
        let root = Root::decode(&built.blocks.last().expect("a root").1).expect("a root");
        let block =
            |cid: &Cid| &built.blocks.iter().find(|(found, _)| found == cid).expect("its block").1;
        let page = Page::decode(block(&root.pages[0]), &root, 0).expect("a page");
        let Chunks::Paged(pages) = &page.files[0].chunks else { panic!("not paged") };
        let last = ChunkPage::decode(block(&pages[1].0), &page.files[0], root.chunker, 1)
            .expect("a chunk page");
        assert_eq!(last.chunks.len(), 4);
    }

    /// Pages that no honest program builds, which peers may send nevertheless.
    #[test]
    fn pages_with_paths_that_must_not_be_are_refused() {
        let page_of = |paths: &[&str]| {
            let mut blocks = Vec::new();
            let files = paths.iter().map(|path| entry_of(file(path, 1), &mut blocks)).collect();
            let root = Root { v: VERSION, chunker: FIXED, files: 2, bytes: 2, pages: vec![] };
            Page::decode(&codec::encode(&Page { v: VERSION, files }), &root, 0)
        };
        assert!(page_of(&["NAME", "name"]).is_ok(), "they differ");
        for paths in [
            ["same", "same"],
            ["b", "a"],
            ["a", "a/b"],
            ["../up", "z"],
            ["a", "a/../../up"],
            ["/etc/passwd", "z"],
            ["a", "c:\\windows"],
            ["a", ""],
        ] {
            assert!(page_of(&paths).is_err(), "{paths:?} was accepted");
        }
        assert!(page_of(&["a", "b", "c"]).is_err(), "more files than the root says");
    }

    /// What a root says costs nothing before its pages are here, and they must be as many.
    #[test]
    fn a_root_of_millions_of_files_needs_their_pages() {
        let root = |files: u64, pages: usize| {
            let pages = (0..pages).map(|page| content::block_cid(&page.to_le_bytes())).collect();
            let root = Root { v: VERSION, chunker: FIXED, files, bytes: u64::MAX, pages };
            Root::decode(&codec::encode(&root))
        };
        let most = ROOT_PAGES_MAX * PAGE_FILES_MAX;
        assert_eq!(root(10_000_000, 19_532).expect("so many are allowed").page_files(19_531), 128);
        assert!(root(10_000_000, 1).is_err());
        assert!(root(most as u64, ROOT_PAGES_MAX).is_ok());
        assert!(root(most as u64 + 1, ROOT_PAGES_MAX + 1).is_err());
        assert!(root(u64::MAX, ROOT_PAGES_MAX).is_err());
        assert!(root(0, 1).is_err());
        let page = content::block_cid(b"page");
        let twice = Root { v: VERSION, chunker: FIXED, files: 513, bytes: 0, pages: vec![page; 2] };
        assert!(Root::decode(&codec::encode(&twice)).is_err(), "the same files twice");
    }

    /// A page of ten million entries is not even looked at.
    #[test]
    fn a_block_that_is_too_long_is_refused_before_it_is_decoded() {
        let entry = entry_of(file("a", 1), &mut Vec::new());
        let page = codec::encode(&Page { v: VERSION, files: vec![entry; 10_000] });
        let root = Root { v: VERSION, chunker: FIXED, files: 512, bytes: 1, pages: vec![] };
        let refused = Page::decode(&page, &root, 0);
        assert!(
            matches!(refused, Err(ManifestError::Decode(DecodeError::TooLong { .. }))),
            "{refused:?}"
        );
        // A list that says it has ten million entries and ends there.
        let mut short = vec![0xa2, 0x61, b'v', 0x01, 0x65];
        short.extend(b"files\x9a\x00\x98\x96\x80");
        assert!(Page::decode(&short, &root, 0).is_err());
    }

    /// A manifest must not say more chunks, longer ones, or others than the chunker makes.
    #[test]
    fn lengths_of_chunks_are_checked() {
        let chunk = |len| Chunk(chunk_cid(b"any"), len);
        let built = |chunker, size, chunks| {
            let file = ChunkedFile { path: "a".into(), size, exec: false, b3: [0; 32], chunks };
            build(chunker, vec![file])
        };
        let (mib, half) = (1 << 20, 512 << 10);
        let size = u64::from(mib + half);
        assert!(built(FIXED, size, vec![chunk(mib), chunk(half)]).is_ok());
        assert!(built(FIXED, size, vec![chunk(half), chunk(mib)]).is_err());
        assert!(built(FIXED, size, vec![chunk(mib), chunk(half - 1)]).is_err());
        let cdc = Chunker::FAST_CDC;
        assert!(built(cdc, size, vec![chunk(half), chunk(mib)]).is_ok());
        assert!(built(cdc, size, vec![chunk(half), chunk(mib - 1), chunk(1)]).is_ok());
        assert!(built(cdc, size, vec![chunk(half), chunk(1), chunk(mib - 1)]).is_err());
        assert!(built(cdc, 3 << 20, vec![chunk(3 << 20)]).is_err());
        let other = Chunker::FastCdc { min: 1 << 10, avg: 1 << 20, max: 2 << 20 };
        assert!(built(other, 0, vec![]).is_err());
    }

    #[test]
    fn a_page_that_lies_about_its_size_is_refused() {
        let built = build(FIXED, vec![file("a", 1), file("b", 1)]).expect("plain");
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
            let built = build(FIXED, vec![file("a", 1)]).expect("plain");
            let _ = Page::decode(&bytes, &built.root, 0);
        }

        #[test]
        fn roots_survive_the_round_trip(sizes in proptest::collection::vec(0u64..5_000_000, 0..40)) {
            let files = sizes.iter().enumerate()
                .map(|(index, size)| file(&format!("f{index}"), *size)).collect();
            let built = build(FIXED, files).expect("plain");
            let root = Root::decode(&built.blocks.last().expect("a root").1).expect("a root");
            prop_assert_eq!(root, built.root);
        }
    }
}
