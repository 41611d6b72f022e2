//! Datasets whose bytes stay at their origin: a bucket, or a file on a web server.
//!
//! ```text
//! add:   chunks named by the caller ──► manifest, and where each chunk lies ──► origin set
//! serve: digest ──► leads ──► (the caller reads that range there, and verifies it)
//! ```
//!
//! Such a dataset is whole for others and not complete for this node: what is needed here is
//! fetched like any other dataset, with the origin as its first provider, and takes room then.
//! The row of the dataset gets its origin last, so a crash on the way leaves an incomplete
//! dataset that is announced to nobody.
//!
//! # What is not here
//!
//! No network: an [`Origin`] is remembered and handed back, and only the caller knows what to
//! do with it.
//!
//! # Bounds
//!
//! An index row a chunk, of about 80 bytes and as many again by dataset.

use std::io::{self, Read};

use cid::Cid;
use dockercomp_protocol::codec;
use dockercomp_protocol::content::{self, Digest};
use dockercomp_protocol::manifest::{self, Built, ChunkedFile, Chunker};
use serde::{Deserialize, Serialize};

use crate::cut::{Cut, cut};
use crate::error::{AddError, StoreError};
use crate::keys::{self, Family, Place};
use crate::manifests::{Item, Position, dataset_cid};
use crate::{AddOptions, Added, Inner, Store, locked};

/// Bytes of rows that are written together.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Where the bytes of a dataset stay, without any secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// `https://host/path/file`, `s3://bucket` or `s3://bucket/prefix`.
    pub url: String,
    /// The URL of an S3 server that is not Amazon's.
    pub endpoint: Option<String>,
    /// The region of an S3 bucket.
    pub region: Option<String>,
    /// Whether it may be reached without encryption.
    pub allow_http: bool,
    /// Whether requests to an S3 server are not signed, for buckets that everybody may read.
    pub anonymous: bool,
}

/// One file at an origin, and what it must look like to be the one that was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Its key in the bucket, or its path on the server.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// The version that the origin gave it, if it gives one.
    pub e_tag: Option<String>,
    /// When it was last changed, in milliseconds since 1970; counts where there is no tag.
    pub modified_ms: i64,
}

/// Where a chunk that is not here can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The dataset that it is part of.
    pub root: Cid,
    /// Where that dataset stays.
    pub origin: Origin,
    /// The object that it is part of.
    pub object: Object,
    /// Its number in the dataset.
    pub file: u64,
    /// What its bytes must hash to.
    pub digest: Digest,
    /// Where it begins in the object.
    pub offset: u64,
    /// How many bytes it has.
    pub len: u64,
}

/// Names the chunks of a file that is not to be stored, and all its bytes together. `done` is
/// told the bytes gone through. More than one thread helps with large files only.
///
/// # Errors
/// What reading says.
pub fn chunked(
    path: String,
    from: impl Read + Send,
    chunker: Chunker,
    threads: usize,
    done: impl Fn(u64),
) -> io::Result<ChunkedFile> {
    let Cut { chunks, b3, size } = cut(from, chunker, threads, done)?;
    Ok(ChunkedFile { path, size, exec: false, b3, chunks })
}

impl Store {
    /// Adds a dataset whose bytes stay where they are: its manifest, and where each chunk lies.
    /// Adding it again replaces what was known of its objects.
    ///
    /// # Errors
    /// See [`AddError`]; then nothing is left in the store that was not there before.
    pub fn add_at(
        &self,
        origin: &Origin,
        files: Vec<(ChunkedFile, Object)>,
        options: &AddOptions,
    ) -> Result<Added, AddError> {
        let (mut files, mut objects): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        // Files are numbered in the order of their paths, as the manifest does it.
        let mut order: Vec<usize> = (0..files.len()).collect();
        order.sort_unstable_by(|a, b| files[*a].path.cmp(&files[*b].path));
        objects = order.into_iter().map(|at| objects[at].clone()).collect();
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let shared_bytes = self.inner.shared_bytes(&files)?;
        let built = manifest::build(options.chunker, files)?;
        let root = content::digest(&built.cid).map_err(StoreError::from)?;
        let known = locked(&self.inner.catalogue).get(&root).cloned();
        let was_here = known.as_ref().is_some_and(|row| row.complete || row.origin.is_some());
        let placed = self.inner.place_at(&root, &built, &objects, options);
        if placed.is_err() && known.is_none() {
            self.discard(&built.cid);
        }
        placed?;
        self.change(&built.cid, |row| row.origin = Some(origin.clone()))?;
        self.describe(&built.cid, options)?;
        let Built { cid, root, .. } = built;
        Ok(Added { root: cid, files: root.files, bytes: root.bytes, was_here, shared_bytes })
    }

    /// Where a chunk that is not here can be read: once for each dataset and place.
    ///
    /// # Errors
    /// If the store failed.
    pub fn leads(&self, digest: &Digest) -> Result<Vec<Lead>, StoreError> {
        let inner = &self.inner;
        let mut leads = Vec::new();
        let rows: Vec<_> = inner.db.scan(Family::Chunks, digest, &[]).collect::<Result<_, _>>()?;
        for (key, _) in rows {
            let row = keys::parse_block_key(&key).ok_or(StoreError::Row { family: "chunks" })?;
            let (_, root, Place::Origin { file, index }) = row else { continue };
            let Some(manifest) = inner.manifest(&root)? else { continue };
            let mut at = Position { file, index };
            let item = match inner.item(&root, &manifest, &mut at, file + 1) {
                Ok(item) => item.filter(|item| item.digest == *digest),
                Err(StoreError::Incomplete { .. }) => continue,
                Err(error) => return Err(error),
            };
            if let Some(item) = item {
                leads.extend(inner.lead(&item)?);
            }
        }
        Ok(leads)
    }

    /// The next chunks of a dataset that are not here but at its origin, from a position on,
    /// which is moved behind the last of them. Empty: there are no more.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the dataset is not here, [`StoreError::Incomplete`] if a block
    /// of its manifest is not.
    pub fn elsewhere(
        &self,
        root: &Cid,
        from: &mut Position,
        max: usize,
    ) -> Result<Vec<Lead>, StoreError> {
        let (digest, inner) = (content::digest(root)?, &self.inner);
        let manifest = inner.manifest(&digest)?.ok_or(StoreError::Unknown { root: *root })?;
        let mut leads = Vec::new();
        while leads.len() < max {
            let Some(item) = inner.item(&digest, &manifest, from, manifest.files)? else { break };
            if !inner.holds(&item)? {
                leads.extend(inner.lead(&item)?);
            }
            from.index += 1;
        }
        Ok(leads)
    }
}

impl Inner {
    /// Stores the manifest, and where each chunk lies.
    fn place_at(
        &self,
        root: &Digest,
        built: &Built,
        objects: &[Object],
        options: &AddOptions,
    ) -> Result<(), AddError> {
        let manifest_bytes: usize = built.blocks.iter().map(|(_, block)| block.len()).sum();
        locked(&self.catalogue).admit(manifest_bytes as u64)?;
        self.store_manifest(root, built, options.kind)?;
        let mut batch = self.db.batch();
        for (file, object) in (0..).zip(objects) {
            batch.put(Family::Origins, &keys::object(root, file), &codec::encode(object));
            let mut at = Position { file, index: 0 };
            while let Some(item) = self.item(root, &built.root, &mut at, file + 1)? {
                let place = Place::Origin { file, index: at.index };
                batch.put(Family::Chunks, &keys::chunk(&item.digest, root, place), &[]);
                batch.put(Family::Refs, &keys::reference(root, &item.digest, place), &[]);
                if batch.bytes() >= BATCH_BYTES_MAX {
                    std::mem::replace(&mut batch, self.db.batch()).write()?;
                }
                at.index += 1;
            }
        }
        Ok(batch.write()?)
    }

    /// Where a chunk of a dataset lies, if that has an origin.
    fn lead(&self, item: &Item) -> Result<Option<Lead>, StoreError> {
        let root = &item.spot.root;
        let row = locked(&self.catalogue).get(root).filter(|row| !row.removing).cloned();
        let Some(origin) = row.and_then(|row| row.origin) else { return Ok(None) };
        let object = self.db.get(Family::Origins, &keys::object(root, item.spot.file))?;
        let Some(object) = object else { return Ok(None) };
        let object = codec::decode(&object).map_err(|_| StoreError::Row { family: "origins" })?;
        Ok(Some(Lead {
            root: dataset_cid(root),
            origin,
            object,
            file: item.spot.file,
            digest: item.digest,
            offset: item.offset,
            len: item.len as u64,
        }))
    }
}
