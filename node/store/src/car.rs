//! Datasets as CAR files (version 1), which other IPLD tools read.
//!
//! ```text
//! varint length | DAG-CBOR {roots: [root], version: 1}
//! varint length | CID | bytes        root, pages, chunk pages, chunks, each in manifest order
//! ```
//!
//! Blocks come in the order in which a fetch asks for them, so that importing looks nothing up,
//! and each is there once, so that equal datasets give equal files. Everything is verified on the way in, as if a stranger had sent it.

use std::collections::HashSet;
use std::io::{self, Read, Write};

use bytes::Bytes;
use cid::Cid;
use dockercomp_protocol::codec;
use dockercomp_protocol::content::{self, Digest};
use dockercomp_protocol::limits::{BLOCK_BYTES_MAX, CHUNK_BYTES_MAX, PAGE_FILES_MAX};
use dockercomp_protocol::manifest::{ChunkPage, Chunks, FileEntry, PageLink, Root};
use serde::{Deserialize, Serialize};

use crate::error::{CarError, StoreError};
use crate::{Store, Want};

/// The header of a file: it has one root.
const HEADER_BYTES_MAX: u64 = 1 << 10;
/// Blocks that are named at once.
const NAMED_MAX: usize = 1024;
/// Version, codec, hash and digest of our identifiers.
const CID_BYTES_MAX: u64 = 64;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    roots: Vec<Cid>,
    version: u64,
}

impl Store {
    /// Writes a whole dataset. `progress` is told the bytes of blocks written so far.
    ///
    /// # Errors
    /// [`CarError::Store`] if it is not all here, [`CarError::Io`] if it cannot be written.
    pub fn export_car(
        &self,
        root: &Cid,
        out: impl Write,
        progress: impl FnMut(u64),
    ) -> Result<(), CarError> {
        if !self.is_complete(root, &Want::All)? {
            return Err(StoreError::Incomplete { root: *root }.into());
        }
        let manifest = self.root(root)?.ok_or(StoreError::Unknown { root: *root })?;
        let mut car = Writer { store: self, out, seen: HashSet::new(), written: 0, progress };
        let header = codec::encode(&Header { roots: vec![*root], version: 1 });
        car.section(&[&header])?;
        car.block(root)?;
        manifest.pages.iter().try_for_each(|page| car.block(page).map(drop))?;
        self.each_file(root, &manifest, |entry| {
            let Chunks::Paged(pages) = &entry.chunks else { return Ok(()) };
            pages.iter().try_for_each(|page| car.block(&page.0).map(drop))
        })?;
        self.each_file(root, &manifest, |entry| match &entry.chunks {
            Chunks::Inline(chunks) => {
                chunks.iter().try_for_each(|chunk| car.block(&chunk.0).map(drop))
            }
            Chunks::Paged(pages) => {
                for (index, PageLink(link, _)) in pages.iter().enumerate() {
                    let bytes = car.block(link)?;
                    let page = ChunkPage::decode(&bytes, entry, manifest.chunker, index);
                    let page = page.map_err(CarError::Manifest)?;
                    page.chunks.iter().try_for_each(|chunk| car.block(&chunk.0).map(drop))?;
                }
                Ok(())
            }
        })?;
        Ok(car.out.flush()?)
    }

    fn each_file(
        &self,
        root: &Cid,
        manifest: &Root,
        mut what: impl FnMut(&FileEntry) -> Result<(), CarError>,
    ) -> Result<(), CarError> {
        for first in (0..manifest.files).step_by(PAGE_FILES_MAX) {
            self.files(root, first, PAGE_FILES_MAX as u64)?.iter().try_for_each(&mut what)?;
        }
        Ok(())
    }

    /// Stores the dataset that a file holds, and returns its root. `progress` is told the bytes
    /// of blocks read so far.
    ///
    /// # Errors
    /// See [`CarError`]. What was stored before an error stays, as after a fetch that was cut
    /// off.
    pub fn import_car(
        &self,
        mut input: impl Read,
        mut progress: impl FnMut(u64),
    ) -> Result<Cid, CarError> {
        let header = section(&mut input, HEADER_BYTES_MAX)?.ok_or(CarError::Header)?;
        let header: Header = codec::decode(&header).map_err(|_| CarError::Header)?;
        let (1, [root]) = (header.version, &header.roots[..]) else { return Err(CarError::Header) };
        content::digest(root).map_err(StoreError::from)?;
        let mut named = HashSet::new();
        let mut done = 0;
        let block_max = u64::from(CHUNK_BYTES_MAX).max(BLOCK_BYTES_MAX as u64);
        while let Some(bytes) = section(&mut input, block_max + CID_BYTES_MAX)? {
            let mut block = &bytes[..];
            let cid = Cid::read_bytes(&mut block).map_err(|_| CarError::Block)?;
            let bytes = bytes.slice_ref(block);
            done += bytes.len() as u64;
            if !named.remove(&cid) {
                // Promises room, as for a fetch, and says where the next blocks belong.
                named = self.missing(root, &Want::All, NAMED_MAX)?.into_iter().collect();
                named.remove(&cid);
            }
            self.put(root, &cid, &bytes).map_err(|source| CarError::Put { cid, source })?;
            progress(done);
        }
        match self.missing(root, &Want::All, 1)?.first() {
            None => Ok(*root),
            Some(missing) => {
                self.release(root)?;
                Err(CarError::Incomplete { missing: *missing })
            }
        }
    }
}

struct Writer<'a, W, P> {
    store: &'a Store,
    out: W,
    seen: HashSet<Digest>,
    written: u64,
    progress: P,
}

impl<W: Write, P: FnMut(u64)> Writer<'_, W, P> {
    /// Writes a block, unless it was written before.
    fn block(&mut self, cid: &Cid) -> Result<Bytes, CarError> {
        let digest = content::digest(cid).map_err(StoreError::from)?;
        let gone = || CarError::Gone { cid: *cid };
        let bytes = self.store.block(&digest)?.ok_or_else(gone)?;
        if self.seen.insert(digest) {
            self.section(&[&cid.to_bytes(), &bytes])?;
            self.written += bytes.len() as u64;
            (self.progress)(self.written);
        }
        Ok(bytes)
    }

    fn section(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut buffer = unsigned_varint::encode::u64_buffer();
        self.out.write_all(unsigned_varint::encode::u64(len as u64, &mut buffer))?;
        parts.iter().try_for_each(|part| self.out.write_all(part))
    }
}

/// The next section, whose length is checked before it is read. `None`: the file ends here.
fn section(input: &mut impl Read, max: u64) -> Result<Option<Bytes>, CarError> {
    let mut first = [0];
    if input.read(&mut first)? == 0 {
        return Ok(None);
    }
    let len =
        unsigned_varint::io::read_u64(first.chain(&mut *input)).map_err(|_| CarError::Block)?;
    if len == 0 || len > max {
        return Err(CarError::Length { len, max });
    }
    let mut bytes = Vec::new();
    input.take(len).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < len {
        return Err(CarError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Some(bytes.into()))
}
