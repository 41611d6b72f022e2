//! A receipt in a file: fixed header, parts, and a map of the bytes by which damage is found.
//!
//! ```text
//! header    "dcrcpt" 0x02 "\n" | leaf u64 | bytes of each part, 5 × u32
//!           | the first 8 bytes of BLAKE3 of that                           (44 bytes)
//! parts     charter | job | entry | path | head
//! map       see `map`: what all of the above should be
//! header    once more, so that a damaged one can be told
//! ```
//!
//! Integers are big-endian. Nothing here is signed as a whole, since every part proves
//! itself; and nothing is free: the map and the second header must be what they would be if
//! written anew, so a receipt has exactly one encoding.

use std::ops::Range;

use super::map;
use crate::limits::{ENVELOPE_BYTES_MAX, RECEIPT_BYTES_MAX};
use crate::log::{Path, PathError};

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 44;
/// Bytes at its end by which a damaged one is told.
const CHECK_BYTES: usize = 8;
/// The beginning of every receipt; the seventh byte is the version.
pub(super) const MAGIC: &[u8; 8] = b"dcrcpt\x02\n";
/// Where the version stands.
const VERSION_AT: usize = 6;

/// A receipt, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The entry's number in the log.
    pub leaf: u64,
    /// The project's sealed [`Charter`](crate::statement::Charter).
    pub charter: Vec<u8>,
    /// The owner's sealed [`JobSpec`](crate::job::JobSpec).
    pub job: Vec<u8>,
    /// The encoded [`Entry`](super::Entry).
    pub entry: Vec<u8>,
    /// The way from the entry's leaf to the root in the head.
    pub path: Path,
    /// The sealed [`Head`](crate::log::Head).
    pub head: Vec<u8>,
}

/// A stretch of a receipt's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The header: format, place in the log, lengths.
    Header,
    /// The project's charter.
    Charter,
    /// The owner's job.
    Job,
    /// The decision and the signed results.
    Entry,
    /// The inclusion path.
    Path,
    /// The signed head of the log.
    Head,
    /// The map by which damage is found, and the second header.
    Map,
}

/// Why a file is not a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Longer than any receipt.
    #[error("{bytes} bytes are more than the {RECEIPT_BYTES_MAX} that a receipt may have")]
    TooLong {
        /// How many there are.
        bytes: usize,
    },
    /// It does not begin as a receipt does.
    #[error("it does not begin as a receipt does")]
    Magic,
    /// A format that this version does not know.
    #[error("the receipt has version {found}, this program reads version 2")]
    Version {
        /// What it says.
        found: u8,
    },
    /// The header is damaged.
    #[error("the header of the receipt is damaged")]
    Header,
    /// It is longer or shorter than its header says.
    #[error("the file has {found} bytes, but its header speaks of {expected}")]
    Length {
        /// How many it should have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// The path is not a list of hashes.
    #[error("the path in the receipt cannot be read")]
    Path(#[from] PathError),
    /// The parts are not those that the file was written with, or its map is not.
    #[error("the bytes do not fit the map at the end of the receipt")]
    Map,
}

/// Where everything lies, by the lengths in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) leaf: u64,
    parts: [usize; 5],
}

const PARTS: [Part; 5] = [Part::Charter, Part::Job, Part::Entry, Part::Path, Part::Head];

impl Layout {
    /// Reads a header; `bytes` are at least [`HEADER_BYTES`].
    pub(super) fn read(bytes: &[u8]) -> Result<Self, FileError> {
        let short = FileError::Length { expected: HEADER_BYTES, found: bytes.len() };
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(short)?;
        let (magic, rest) = header.split_first_chunk::<8>().expect("it is longer");
        let (leaf, lengths) = rest.split_first_chunk::<8>().expect("it is longer");
        if magic != MAGIC {
            let mut other = *magic;
            other[VERSION_AT] = MAGIC[VERSION_AT];
            let found = magic[VERSION_AT];
            let version = FileError::Version { found };
            return Err(if other == *MAGIC { version } else { FileError::Magic });
        }
        let (said, check) = header.split_last_chunk::<CHECK_BYTES>().expect("it is longer");
        if check_of(said) != *check {
            return Err(FileError::Header);
        }
        let mut parts = [0; 5];
        for (part, length) in parts.iter_mut().zip(lengths.as_chunks::<4>().0) {
            *part = u32::from_be_bytes(*length) as usize;
        }
        let leaf = u64::from_be_bytes(*leaf);
        if parts.iter().any(|length| *length > ENVELOPE_BYTES_MAX) {
            return Err(FileError::TooLong { bytes: parts.iter().sum() });
        }
        Ok(Self { leaf, parts })
    }

    /// Where the map begins: the end of the parts.
    pub(super) fn body(&self) -> usize {
        HEADER_BYTES + self.parts.iter().sum::<usize>()
    }

    /// How many bytes the file has.
    pub(super) fn total(&self) -> usize {
        self.body() + map::bytes(self.body()) + HEADER_BYTES
    }

    /// Where a part lies.
    pub(super) fn range(&self, part: Part) -> Range<usize> {
        let place = PARTS.iter().position(|candidate| *candidate == part);
        match (place, part) {
            (Some(place), _) => {
                let begin = HEADER_BYTES + self.parts[..place].iter().sum::<usize>();
                begin..begin + self.parts[place]
            }
            (None, Part::Header) => 0..HEADER_BYTES,
            (None, _) => self.body()..self.total(),
        }
    }

    /// Which part a byte belongs to.
    pub(super) fn part(&self, offset: usize) -> Part {
        let here = |part: &Part| self.range(*part).contains(&offset);
        if offset < HEADER_BYTES {
            return Part::Header;
        }
        PARTS.into_iter().find(here).unwrap_or(Part::Map)
    }
}

fn check_of(header: &[u8]) -> [u8; CHECK_BYTES] {
    *blake3::hash(header).as_bytes().first_chunk().expect("32 bytes")
}

impl Receipt {
    /// Writes the file.
    ///
    /// # Panics
    /// If a part is longer than 4 GiB, which no envelope is.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let path = self.path.to_bytes();
        let parts = [&self.charter, &self.job, &self.entry, &path, &self.head];
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&self.leaf.to_be_bytes());
        for part in parts {
            let length = u32::try_from(part.len()).expect("envelopes have at most 4 MiB");
            file.extend_from_slice(&length.to_be_bytes());
        }
        let check = check_of(&file);
        file.extend_from_slice(&check);
        let header = file.clone();
        for part in parts {
            file.extend_from_slice(part);
        }
        let map = map::of(&file);
        file.extend_from_slice(&map);
        file.extend_from_slice(&header);
        file
    }

    /// Reads a file, strictly.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FileError> {
        if bytes.len() > RECEIPT_BYTES_MAX {
            return Err(FileError::TooLong { bytes: bytes.len() });
        }
        let layout = Layout::read(bytes)?;
        let (expected, found) = (layout.total(), bytes.len());
        if expected != found {
            return Err(FileError::Length { expected, found });
        }
        let (body, rest) = bytes.split_at(layout.body());
        let (map, header) = rest.split_at(rest.len() - HEADER_BYTES);
        if header != &body[..HEADER_BYTES] || map != map::of(body) {
            return Err(FileError::Map);
        }
        Self::take_apart(bytes, &layout)
    }

    /// Takes apart whatever lies where the layout says; `bytes` reach to the end of the body.
    pub(super) fn take_apart(bytes: &[u8], layout: &Layout) -> Result<Self, FileError> {
        let part = |part| &bytes[layout.range(part)];
        Ok(Self {
            leaf: layout.leaf,
            charter: part(Part::Charter).to_vec(),
            job: part(Part::Job).to_vec(),
            entry: part(Part::Entry).to_vec(),
            path: Path::from_bytes(part(Part::Path))?,
            head: part(Part::Head).to_vec(),
        })
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "the header",
            Self::Charter => "the charter",
            Self::Job => "the job",
            Self::Entry => "the entry with its signed results",
            Self::Path => "the path to the root of the log",
            Self::Head => "the signed head of the log",
            Self::Map => "the map of the receipt",
        })
    }
}
