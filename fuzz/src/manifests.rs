//! Datasets and outputs: roots, pages, chunk pages, and outputs that travel in reports.

use dockercomp_protocol::manifest::{
    ChunkPage, Chunker, Chunks, FileEntry, Page, PageLink, Root, check_path,
};
use dockercomp_protocol::{codec, content, inline};

/// A dataset's root.
pub(crate) fn root(bytes: &[u8]) -> bool {
    let Ok(root) = Root::decode(bytes) else { return false };
    assert_eq!(codec::encode(&root), bytes);
    let files: u64 = (0..root.pages.len()).map(|page| root.page_files(page) as u64).sum();
    assert_eq!(files, root.files);
    true
}

/// A page of files, of a dataset of as many files as the page says that it has.
pub(crate) fn page(bytes: &[u8]) -> bool {
    let Ok(claimed) = codec::decode::<Page>(bytes) else { return false };
    let files = claimed.files.len() as u64;
    let cid = content::block_cid(bytes);
    [Chunker::default(), Chunker::FAST_CDC].into_iter().any(|chunker| {
        let root = Root { v: 1, chunker, files, bytes: 0, pages: vec![cid] };
        let Ok(page) = Page::decode(bytes, &root, 0) else { return false };
        for entry in &page.files {
            check_path(&entry.path).expect("a page with another path is refused");
        }
        true
    })
}

/// The chunks of a large file. The first eight bytes are the file's size, the next says how
/// many pages it has before this one, the rest is the page.
pub(crate) fn chunk_page(bytes: &[u8]) -> bool {
    let Some((size, rest)) = bytes.split_first_chunk() else { return false };
    let Some((before, bytes)) = rest.split_first() else { return false };
    let size = u64::from_be_bytes(*size);
    let link = PageLink(content::block_cid(bytes), size);
    let entry = FileEntry {
        path: "file".into(),
        size,
        exec: false,
        b3: content::digest_of(bytes),
        chunks: Chunks::Paged(vec![link; usize::from(*before) + 1]),
    };
    [Chunker::default(), Chunker::FAST_CDC].into_iter().any(|chunker| {
        let page = ChunkPage::decode(bytes, &entry, chunker, usize::from(*before));
        page.is_ok_and(|page| {
            let sum: u64 = page.chunks.iter().map(|chunk| u64::from(chunk.1)).sum();
            assert_eq!(sum, size);
            true
        })
    })
}

/// An output that travels in a report, as its list of blocks.
pub(crate) fn inline_output(bytes: &[u8]) -> bool {
    let Ok(blocks) = codec::decode::<Vec<serde_bytes::ByteBuf>>(bytes) else { return false };
    let Some(first) = blocks.first() else { return false };
    if inline::check(&content::block_cid(first), &blocks).is_err() {
        return false;
    }
    for file in inline::files(&blocks).expect("what was checked can be taken apart") {
        check_path(&file.path).expect("an output with another path is refused");
    }
    true
}
