//! The hash of a run: two runs with the same hash took the same way.

use crate::moment::Moment;

/// Bytes gathered before they are hashed: hashing long pieces is cheap.
const GATHER_BYTES: usize = 64 << 10;

/// A hash over every event of a run, in order.
pub(crate) struct Digest {
    hasher: blake3::Hasher,
    gathered: Vec<u8>,
    pub(crate) events: u64,
}

impl Digest {
    pub(crate) fn new() -> Self {
        Self { hasher: blake3::Hasher::new(), gathered: Vec::new(), events: 0 }
    }

    /// Adds one event: when, what kind, and what it is about.
    pub(crate) fn note(&mut self, now: Moment, kind: u8, about: [u32; 3]) {
        self.events += 1;
        self.gathered.extend_from_slice(&now.0.to_le_bytes());
        self.gathered.push(kind);
        for number in about {
            self.gathered.extend_from_slice(&number.to_le_bytes());
        }
        if self.gathered.len() >= GATHER_BYTES {
            self.hasher.update(&self.gathered);
            self.gathered.clear();
        }
    }

    pub(crate) fn finish(mut self) -> String {
        self.hasher.update(&self.gathered);
        self.hasher.finalize().to_string()
    }
}
