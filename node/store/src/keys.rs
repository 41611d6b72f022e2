//! Every kind of key in the database, and how it is written.
//!
//! ```text
//! family     key                                        value
//! datasets   root                                       Row (DAG-CBOR)
//! chunks     digest | root | place                      -          where a block lies
//! refs       root | digest | place                      -          the same, by dataset;
//!                                                       manifest u8 | length u32 if in `small`
//! small      digest                                     the block's bytes
//! have       root | file u64 | segment u64              bitmap of written chunks
//! origins    root | file u64                            Object (DAG-CBOR): a file that stays
//!                                                       at the dataset's origin
//! journal    number u64                                 record
//! snapshots  0x01 | number u64                          Head (DAG-CBOR)
//!            0x02 | number u64 | part u32               the snapshot's bytes
//! jobs …     the caller's                               the caller's
//!
//! place = 0x01                                          in family `small`
//!       | 0x02 | file u64 | index u64                   in the dataset's own file
//!       | 0x03 | file u64 | index u64                   at the dataset's origin, not here
//! ```
//!
//! `root` and `digest` are 32 bytes, integers are big-endian, so keys sort as numbers do.
//! One row for each dataset that has a block, instead of one row with a counter, makes
//! removal exact: the rows of one dataset go, those of the others stay.
//!
//! Families are never renamed and their names never used again for something else: a retired
//! one stays in [`Family`] as reserved.

use dockercomp_protocol::content::{DIGEST_BYTES, Digest};

/// The version of everything below the data directory. See [`crate::open`].
///
/// 2 added the families `snapshots` and `log`; 3 has manifests with hashes of whole files; 4
/// added the family `origins`.
pub(crate) const SCHEMA_VERSION: u32 = 4;

/// The oldest version that can be read.
pub(crate) const SCHEMA_VERSION_OLDEST: u32 = 3;

/// A table of the database that belongs to the caller: the store gives it no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Jobs that this coordinator took on.
    Jobs,
    /// Receipts of canonical results.
    Receipts,
    /// The Merkle log over them.
    Log,
    /// Small outputs that came with their results.
    Outputs,
    /// Results that the coordinator has not confirmed yet.
    Outbox,
    /// Peers and what is known of them.
    Peers,
    /// Settings and marks of the program itself.
    Meta,
    /// Bytes by peer.
    Traffic,
}

/// A kind of key. Each has a column family of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    Datasets,
    Chunks,
    Refs,
    Small,
    Have,
    Origins,
    Journal,
    Snapshots,
    Table(Table),
}

impl Family {
    /// All of them: RocksDB wants every existing family named when it opens.
    pub(crate) const ALL: [Self; 16] = [
        Self::Datasets,
        Self::Chunks,
        Self::Refs,
        Self::Small,
        Self::Have,
        Self::Origins,
        Self::Journal,
        Self::Snapshots,
        Self::Table(Table::Jobs),
        Self::Table(Table::Receipts),
        Self::Table(Table::Log),
        Self::Table(Table::Outputs),
        Self::Table(Table::Outbox),
        Self::Table(Table::Peers),
        Self::Table(Table::Meta),
        Self::Table(Table::Traffic),
    ];

    /// The column family's name on disk.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Datasets => "datasets",
            Self::Chunks => "chunks",
            Self::Refs => "refs",
            Self::Small => "small",
            Self::Have => "have",
            Self::Origins => "origins",
            Self::Journal => "journal",
            Self::Snapshots => "snapshots",
            Self::Table(Table::Jobs) => "jobs",
            Self::Table(Table::Receipts) => "receipts",
            Self::Table(Table::Log) => "log",
            Self::Table(Table::Outputs) => "outputs",
            Self::Table(Table::Outbox) => "outbox",
            Self::Table(Table::Peers) => "peers",
            Self::Table(Table::Meta) => "meta",
            Self::Table(Table::Traffic) => "traffic",
        }
    }
}

/// One chunk of one file of one dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Spot {
    pub(crate) root: Digest,
    pub(crate) file: u64,
    pub(crate) index: u64,
}

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In family `small`, once for all datasets.
    Small,
    /// In the file that the dataset keeps under `data/`.
    Body { file: u64, index: u64 },
    /// Not here, but at the dataset's origin.
    Origin { file: u64, index: u64 },
}

/// Chunks whose bits share one bitmap: as many as one manifest page of chunks lists.
pub(crate) const SEGMENT_CHUNKS: u64 = dockercomp_protocol::limits::PAGE_CHUNKS_MAX as u64;

const SMALL: u8 = 1;
const BODY: u8 = 2;
const ORIGIN: u8 = 3;

/// Key in family `chunks`.
pub(crate) fn chunk(digest: &Digest, root: &Digest, place: Place) -> Vec<u8> {
    block_key(digest, root, place)
}

/// Key in family `refs`.
pub(crate) fn reference(root: &Digest, digest: &Digest, place: Place) -> Vec<u8> {
    block_key(root, digest, place)
}

fn block_key(first: &Digest, second: &Digest, place: Place) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 * DIGEST_BYTES + 17);
    key.extend_from_slice(first);
    key.extend_from_slice(second);
    let (tag, at) = match place {
        Place::Small => (SMALL, None),
        Place::Body { file, index } => (BODY, Some((file, index))),
        Place::Origin { file, index } => (ORIGIN, Some((file, index))),
    };
    key.push(tag);
    if let Some((file, index)) = at {
        key.extend_from_slice(&file.to_be_bytes());
        key.extend_from_slice(&index.to_be_bytes());
    }
    key
}

/// Reads a key of family `chunks` or `refs`: its two digests in the order they stand there.
/// `None` means that the row is not ours, which only a damaged database can bring about.
pub(crate) fn parse_block_key(key: &[u8]) -> Option<(Digest, Digest, Place)> {
    let (first, rest) = key.split_first_chunk::<DIGEST_BYTES>()?;
    let (second, rest) = rest.split_first_chunk::<DIGEST_BYTES>()?;
    let place = match rest.split_first()? {
        (&SMALL, []) => Place::Small,
        (&tag @ (BODY | ORIGIN), rest) => {
            let (file, rest) = rest.split_first_chunk::<8>()?;
            let index = u64::from_be_bytes(<[u8; 8]>::try_from(rest).ok()?);
            let file = u64::from_be_bytes(*file);
            if tag == BODY { Place::Body { file, index } } else { Place::Origin { file, index } }
        }
        _ => return None,
    };
    Some((*first, *second, place))
}

/// Value in family `refs` of a block in family `small`.
pub(crate) fn small_value(is_manifest: bool, len: usize) -> [u8; 5] {
    let len = u32::try_from(len).expect("blocks have at most 4 MiB");
    let [a, b, c, d] = len.to_be_bytes();
    [u8::from(is_manifest), a, b, c, d]
}

/// Reads what [`small_value`] wrote: whether it is a manifest block, and its length.
pub(crate) fn parse_small_value(value: &[u8]) -> Option<(bool, u64)> {
    let [is_manifest, len @ ..] = <[u8; 5]>::try_from(value).ok()?;
    Some((is_manifest != 0, u64::from(u32::from_be_bytes(len))))
}

/// Key in family `have` of the bitmap that holds the bit of this chunk.
pub(crate) fn segment(spot: &Spot) -> Vec<u8> {
    let mut key = Vec::with_capacity(DIGEST_BYTES + 16);
    key.extend_from_slice(&spot.root);
    key.extend_from_slice(&spot.file.to_be_bytes());
    key.extend_from_slice(&(spot.index / SEGMENT_CHUNKS).to_be_bytes());
    key
}

/// Key in family `origins`.
pub(crate) fn object(root: &Digest, file: u64) -> Vec<u8> {
    [&root[..], &file.to_be_bytes()].concat()
}

/// Byte in the bitmap, and the mask of the bit in it.
pub(crate) fn bit(spot: &Spot) -> (usize, u8) {
    let bit = spot.index % SEGMENT_CHUNKS;
    let byte = usize::try_from(bit / 8).expect("a segment has about a thousand bytes");
    (byte, 1 << (bit % 8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_golden() {
        let place = Place::Body { file: 1, index: 0x0203 };
        let mut expected = [[0xaa; 32], [0xbb; 32]].concat();
        expected.extend([2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 3]);
        assert_eq!(chunk(&[0xaa; 32], &[0xbb; 32], place), expected);
        let spot = Spot { root: [0xbb; 32], file: 1, index: SEGMENT_CHUNKS + 9 };
        let mut expected = [0xbb; 32].to_vec();
        expected.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(segment(&spot), expected);
        assert_eq!(bit(&spot), (1, 2));
    }

    #[test]
    fn no_two_families_share_a_name() {
        let names: std::collections::BTreeSet<_> = Family::ALL.iter().map(|f| f.name()).collect();
        assert_eq!(names.len(), Family::ALL.len());
    }

    proptest! {
        #[test]
        fn block_keys_survive_the_round_trip(
            digest: [u8; 32], root: [u8; 32], file: u64, index: u64, kind in 0..3,
        ) {
            let place = match kind {
                0 => Place::Small,
                1 => Place::Body { file, index },
                _ => Place::Origin { file, index },
            };
            let key = chunk(&digest, &root, place);
            prop_assert_eq!(parse_block_key(&key), Some((digest, root, place)));
            prop_assert_eq!(parse_block_key(&key[..key.len() - 1]), None);
        }
    }
}
