//! The map of a receipt: what its bytes should be, well enough to find and undo damage.
//!
//! ```text
//! map = parity of the even blocks | of the odd | BLAKE3-128 of each 128-byte block of the body
//!     | BLAKE3-128 of all that
//! ```
//!
//! The hashes say which blocks are wrong; the parities (all blocks of a kind, combined with
//! exclusive or, the last one padded with zeros) give one wrong block of each kind back, and
//! with it the first wrong byte, however many of its bytes are wrong.
//!
//! Trust does not rest on the map: it is not signed, and whoever changes a receipt on purpose
//! can change it as well. It finds damage; that the receipt is wrong, the signatures tell.

/// Bytes of a block: two wrong stretches that lie further apart can both be found.
pub(super) const BLOCK_BYTES: usize = 128;
/// Bytes of a block's hash: enough to tell blocks apart, since nobody is to be kept from
/// forging one.
pub(super) const HASH_BYTES: usize = 16;

/// A block's hash.
pub(super) type Hash = [u8; HASH_BYTES];
/// The exclusive or of blocks.
pub(super) type Parity = [u8; BLOCK_BYTES];

/// A map, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Map {
    pub(super) hashes: Vec<Hash>,
    pub(super) parities: [Parity; 2],
    /// Whether the map is as it was written.
    pub(super) is_whole: bool,
}

/// Bytes of the map of a body.
pub(super) const fn bytes(body: usize) -> usize {
    body.div_ceil(BLOCK_BYTES) * HASH_BYTES + 2 * BLOCK_BYTES + HASH_BYTES
}

/// The map of a body.
pub(super) fn of(body: &[u8]) -> Vec<u8> {
    let mut parities = [[0; BLOCK_BYTES]; 2];
    for (number, block) in body.chunks(BLOCK_BYTES).enumerate() {
        combine(&mut parities[number % 2], block);
    }
    let mut map = Vec::with_capacity(bytes(body.len()));
    map.extend_from_slice(parities.as_flattened());
    for block in body.chunks(BLOCK_BYTES) {
        map.extend_from_slice(&hash(block));
    }
    map.extend_from_slice(&hash(&map));
    map
}

/// Reads a map of as many blocks as it has room for.
pub(super) fn read(bytes: &[u8]) -> Option<Map> {
    let (map, seal) = bytes.split_last_chunk::<HASH_BYTES>()?;
    let (even, rest) = map.split_first_chunk::<BLOCK_BYTES>()?;
    let (odd, hashes) = rest.split_first_chunk::<BLOCK_BYTES>()?;
    let (hashes, rest) = hashes.as_chunks::<HASH_BYTES>();
    let parities = [*even, *odd];
    let is_whole = hash(map) == *seal;
    rest.is_empty().then(|| Map { hashes: hashes.to_vec(), parities, is_whole })
}

/// The hash of a block.
pub(super) fn hash(block: &[u8]) -> Hash {
    *blake3::hash(block).as_bytes().first_chunk().expect("32 bytes")
}

/// Adds a block to a parity, or takes it away again.
pub(super) fn combine(parity: &mut Parity, block: &[u8]) {
    for (sum, byte) in parity.iter_mut().zip(block) {
        *sum ^= byte;
    }
}
