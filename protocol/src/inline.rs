//! Small outputs that travel inside a report, so that nobody has to fetch them.
//!
//! An output is a dataset like any other and is named by its root; what travels is all of its
//! blocks in one order: the root, its pages, then the chunks of all files. Whoever receives
//! them checks each block against the identifier by which another one, or the statement,
//! names it.
//!
//! # Bounds
//!
//! [`INLINE_OUTPUT_BYTES_MAX`] bytes and [`INLINE_OUTPUT_BLOCKS_MAX`] blocks, so files of
//! several chunk pages cannot be among them.

use cid::Cid;
use serde_bytes::ByteBuf;

use crate::content::{self, CidError};
use crate::limits::{INLINE_OUTPUT_BLOCKS_MAX, INLINE_OUTPUT_BYTES_MAX};
use crate::manifest::{Chunk, Chunks, ManifestError, Page, Root};

/// Why blocks are not the output that they are said to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InlineError {
    /// Too many blocks, or too many bytes.
    #[error("the output is larger than what may travel in a report")]
    TooLarge,
    /// A block is not what its identifier names.
    #[error("block {index} of the output is not the one that is named")]
    Block {
        /// Its place, from 0.
        index: usize,
        /// What is wrong.
        source: CidError,
    },
    /// A chunk is not as long as its file says.
    #[error("block {index} of the output is not as long as its file says")]
    Length {
        /// Its place, from 0.
        index: usize,
    },
    /// A block of the manifest is not right.
    #[error("the manifest of the output is not right")]
    Manifest(#[from] ManifestError),
    /// Blocks are missing, or there are more than the output has.
    #[error("the output has {expected} blocks, not {found}")]
    Count {
        /// How many it has.
        expected: usize,
        /// How many came.
        found: usize,
    },
    /// A file is too long to travel in a report.
    #[error("a file of the output has pages of chunks")]
    Paged,
}

/// A file of a small output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// Relative path with `/` between its parts.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Whether blocks of these sizes may travel in a report.
#[must_use]
pub fn fits(blocks: &[ByteBuf]) -> bool {
    let bytes: usize = blocks.iter().map(|block| block.len()).sum();
    blocks.len() <= INLINE_OUTPUT_BLOCKS_MAX && bytes <= INLINE_OUTPUT_BYTES_MAX
}

/// A block of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What names it.
    pub cid: Cid,
    /// How long it must be, if it is a chunk, in bytes.
    pub len: Option<u64>,
}

/// All blocks of an output, in the order in which they travel. `block` gives the bytes of those
/// of the manifest, by place and identifier.
///
/// # Errors
/// Those of `block`, or if the manifest is not right or too large.
pub fn list<E: From<InlineError>>(
    root: &Cid,
    mut block: impl FnMut(usize, &Cid) -> Result<Vec<u8>, E>,
) -> Result<Vec<Listed>, E> {
    let manifest = Root::decode(&block(0, root)?).map_err(InlineError::from)?;
    if manifest.pages.len() >= INLINE_OUTPUT_BLOCKS_MAX {
        return Err(InlineError::TooLarge.into());
    }
    let inner = std::iter::once(root).chain(&manifest.pages);
    let mut all: Vec<Listed> = inner.map(|cid| Listed { cid: *cid, len: None }).collect();
    for (number, cid) in manifest.pages.iter().enumerate() {
        let page = block(number + 1, cid)?;
        let page = Page::decode(&page, &manifest, number).map_err(InlineError::from)?;
        for file in page.files {
            let Chunks::Inline(chunks) = &file.chunks else {
                return Err(InlineError::Paged.into());
            };
            let listed = |Chunk(cid, len): &Chunk| Listed { cid: *cid, len: Some((*len).into()) };
            all.extend(chunks.iter().map(listed));
        }
    }
    Ok(all)
}

/// Checks that `blocks` are all blocks of the output that `root` names, in order.
///
/// # Errors
/// See [`InlineError`].
pub fn check(root: &Cid, blocks: &[ByteBuf]) -> Result<(), InlineError> {
    if !fits(blocks) {
        return Err(InlineError::TooLarge);
    }
    let found = blocks.len();
    let listed = list(root, |index, _| match blocks.get(index) {
        Some(block) => Ok(block.to_vec()),
        None => Err(InlineError::Count { expected: index + 1, found }),
    })?;
    if listed.len() != found {
        return Err(InlineError::Count { expected: listed.len(), found });
    }
    for (index, (Listed { cid, len }, block)) in listed.iter().zip(blocks).enumerate() {
        content::verify(cid, block).map_err(|source| InlineError::Block { index, source })?;
        if len.is_some_and(|len| len != block.len() as u64) {
            return Err(InlineError::Length { index });
        }
    }
    Ok(())
}

/// The files of an output whose blocks were checked.
///
/// # Errors
/// See [`InlineError`].
pub fn files(blocks: &[ByteBuf]) -> Result<Vec<InlineFile>, InlineError> {
    let count = |expected| InlineError::Count { expected, found: blocks.len() };
    let block = |index: usize| blocks.get(index).ok_or(count(index + 1));
    let root = Root::decode(block(0)?)?;
    let mut next = 1 + root.pages.len();
    let mut files = Vec::new();
    for number in 0..root.pages.len() {
        let page = Page::decode(block(number + 1)?, &root, number)?;
        for file in page.files {
            let Chunks::Inline(chunks) = &file.chunks else { return Err(InlineError::Paged) };
            let mut bytes = Vec::new();
            for _ in chunks {
                bytes.extend_from_slice(block(next)?);
                next += 1;
            }
            files.push(InlineFile { path: file.path, bytes });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::chunk_cid;
    use crate::manifest::{self, ChunkedFile, Chunker};

    /// A file that is said to be one chunk of these bytes, and to be of this size.
    fn file(path: &str, size: usize, bytes: &[u8]) -> ChunkedFile {
        let size = u32::try_from(size).expect("a small file");
        let cid = chunk_cid(bytes);
        let b3 = content::digest(&cid).expect("ours");
        let chunks = if bytes.is_empty() { vec![] } else { vec![Chunk(cid, size)] };
        ChunkedFile { path: path.to_owned(), size: size.into(), exec: false, b3, chunks }
    }

    /// The blocks of a folder with these files, and its root.
    fn folder(files: &[(&str, &[u8])]) -> (Cid, Vec<ByteBuf>) {
        let chunked = files.iter().map(|(path, bytes)| file(path, bytes.len(), bytes));
        let built = manifest::build(Chunker::default(), chunked.collect()).expect("a folder");
        let find = |cid: &Cid| {
            let known = built.blocks.iter().find(|(known, _)| known == cid);
            let manifest = known.map(|(_, block)| block.clone());
            let chunk = files.iter().find(|(_, bytes)| chunk_cid(bytes) == *cid);
            manifest.or(chunk.map(|(_, bytes)| bytes.to_vec())).expect("a block of the folder")
        };
        let listed = list::<InlineError>(&built.cid, |_, cid| Ok(find(cid)));
        let blocks = listed.expect("a small folder").into_iter().map(|block| find(&block.cid));
        (built.cid, blocks.map(ByteBuf::from).collect())
    }

    #[test]
    fn files_survive_the_way() {
        let (root, blocks) = folder(&[("a", b"one"), ("b/c", b""), ("d", b"two")]);
        check(&root, &blocks).expect("all blocks in order");
        let files = files(&blocks).expect("they were checked");
        let got: Vec<(&str, &[u8])> =
            files.iter().map(|file| (file.path.as_str(), file.bytes.as_slice())).collect();
        assert_eq!(got, [("a", b"one".as_slice()), ("b/c", b""), ("d", b"two")]);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let (root, blocks) = folder(&[("a", b"one"), ("d", b"two")]);
        for index in 0..blocks.len() {
            for position in 0..blocks[index].len() {
                let mut changed = blocks.clone();
                changed[index][position] ^= 1;
                assert!(check(&root, &changed).is_err(), "byte {position} of block {index}");
            }
        }
    }

    #[test]
    fn missing_foreign_and_swapped_blocks_are_refused() {
        let (root, blocks) = folder(&[("a", b"one"), ("d", b"two")]);
        for index in 0..blocks.len() {
            let mut fewer = blocks.clone();
            fewer.remove(index);
            assert!(check(&root, &fewer).is_err(), "without block {index}");
        }
        let mut more = blocks.clone();
        more.push(ByteBuf::from(b"more".to_vec()));
        assert!(matches!(check(&root, &more), Err(InlineError::Count { expected: 4, found: 5 })));
        let mut swapped = blocks.clone();
        swapped.swap(2, 3);
        assert!(check(&root, &swapped).is_err());
        assert!(check(&chunk_cid(b"other"), &blocks).is_err());
        assert!(check(&root, &[]).is_err());
    }

    #[test]
    fn a_file_is_as_long_as_it_says() {
        let chunk = b"four".to_vec();
        let file = file("a", 5, &chunk);
        let built = manifest::build(Chunker::default(), vec![file]).expect("it cannot know");
        let [(_, page), (root, block)] = &built.blocks[..] else { panic!("a root and a page") };
        let blocks = [block, page, &chunk].map(|block| ByteBuf::from(block.clone()));
        assert!(matches!(check(root, &blocks), Err(InlineError::Length { index: 2 })));
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_read() {
        let blocks = vec![ByteBuf::from(vec![0; INLINE_OUTPUT_BYTES_MAX + 1])];
        assert!(matches!(check(&chunk_cid(b""), &blocks), Err(InlineError::TooLarge)));
        let blocks = vec![ByteBuf::new(); INLINE_OUTPUT_BLOCKS_MAX + 1];
        assert!(matches!(check(&chunk_cid(b""), &blocks), Err(InlineError::TooLarge)));
    }
}
