//! The first wrong byte of a receipt that is not right any more.
//!
//! Damage is found by undoing it. From what is left (either header, the map's hashes and
//! parities) the receipt is put together as it was; if that one *is* right by every signature
//! and hash, the first byte in which the two differ is the first wrong one, beyond doubt.
//!
//! | What happened | What is told |
//! |---|---|
//! | any bytes of one block, or of two neighbours, changed | the byte |
//! | single bytes of several blocks changed | the byte |
//! | bytes inserted anywhere | the byte |
//! | bytes removed, as long as they were of one block or two neighbours | the byte |
//! | the end cut off | where the file ends |
//! | more than that | the 128-byte block, or the byte if the first wrong block could be restored |
//! | the same, and the map itself as well | from where on nothing is certain |
//! | parts that fit the map, but not each other: somebody made it so | the part |
//!
//! # Bounds
//!
//! Work is linear in the receipt, apart from the search for single bytes, which costs at most
//! `SEARCHED_BLOCKS_MAX` times 32,640 short hashes.

use super::file::{HEADER_BYTES, Layout, MAGIC};
use super::map::{self, BLOCK_BYTES, Map};
use super::{Part, Receipt};

/// Blocks in which single changed bytes are searched for.
const SEARCHED_BLOCKS_MAX: usize = 4;

/// Where a receipt is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The place in the file, from 0, of the first wrong byte; the file's length if it ends
    /// too early.
    pub offset: usize,
    /// The first wrong byte is among this many from `offset`; 1 if it is exactly there.
    pub within: usize,
    /// What lies there.
    pub part: Part,
    /// How many bytes the file has too many, or, below zero, too few. 0 where that is not
    /// known.
    pub surplus: i64,
}

/// Finds the first wrong byte of a file that did not pass its check. `check` says whether a
/// receipt is right, and if not, which part of it is wrong.
///
/// It says nothing of a receipt that is right.
pub fn locate(file: &[u8], mut check: impl FnMut(&Receipt) -> Result<(), Part>) -> Option<Damage> {
    let layouts = layouts(file);
    let mut nearest = None;
    for layout in &layouts {
        let mut proven = |receipt: Receipt| check(&receipt).is_ok().then(|| receipt.encode());
        let (mended, original) = match restore(file, layout, &mut proven) {
            Restored::Whole(original) => (None, Some(original)),
            Restored::Parts(mended) => (mended, None),
        };
        if let Some(original) = original {
            let same = file.iter().zip(&original).take_while(|(one, other)| one == other);
            let offset = same.count();
            let is_right = offset == file.len() && offset == original.len();
            return (!is_right).then(|| damage(file, layout, offset, 1));
        }
        nearest = nearest.or(mended);
    }
    let Some(layout) = layouts.first() else { return Some(without_header(file)) };
    if file.len() < layout.total() && !ends_with_header(file) {
        return Some(damage(file, layout, file.len(), 1));
    }
    if let Some((offset, within)) = nearest.and_then(|mended| mended.first_wrong(file)) {
        return Some(damage(file, layout, offset, within));
    }
    let receipt = file.get(..layout.body()).map(|body| Receipt::take_apart(body, layout));
    let wrong = match receipt {
        Some(Ok(receipt)) => check(&receipt).err().unwrap_or(Part::Map),
        Some(Err(_)) => Part::Path,
        None => Part::Header,
    };
    let range = layout.range(wrong);
    Some(damage(file, layout, range.start, range.len()))
}

fn damage(file: &[u8], layout: &Layout, offset: usize, within: usize) -> Damage {
    let length = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
    let surplus = length(file.len()) - length(layout.total());
    Damage { offset, within, part: layout.part(offset), surplus }
}

/// Neither header can be read.
fn without_header(file: &[u8]) -> Damage {
    let same = file.iter().zip(MAGIC).take_while(|(one, other)| one == other).count();
    let is_cut = file.len() < HEADER_BYTES && same == file.len().min(MAGIC.len());
    let (same, within) = match same == MAGIC.len() {
        _ if is_cut => (file.len(), 1),
        true => (same, HEADER_BYTES - same),
        false => (same, 1),
    };
    Damage { offset: same, within, part: Part::Header, surplus: 0 }
}

/// What the two headers say, those first that fit the file's length.
fn layouts(file: &[u8]) -> Vec<Layout> {
    let last = file.len().checked_sub(HEADER_BYTES).map(|at| &file[at..]);
    let mut layouts: Vec<Layout> =
        [Some(file), last].into_iter().flatten().filter_map(|at| Layout::read(at).ok()).collect();
    layouts.dedup();
    layouts.sort_by_key(|layout| layout.total() != file.len());
    layouts
}

/// Whether the second header is there, so that what is missing is missing before it.
fn ends_with_header(file: &[u8]) -> bool {
    let last = file.get(HEADER_BYTES..).and_then(|rest| rest.last_chunk::<HEADER_BYTES>());
    last.is_some_and(|last| last.starts_with(MAGIC))
}

/// What can be said of a file as it was.
enum Restored {
    /// All of it, and it proved to be right.
    Whole(Vec<u8>),
    /// Some blocks of its body, if its map can be read.
    Parts(Option<Mended>),
}

/// Puts the file together as it was. `proven` gives the file of a receipt that is right.
fn restore(
    file: &[u8],
    layout: &Layout,
    proven: &mut impl FnMut(Receipt) -> Option<Vec<u8>>,
) -> Restored {
    let split = split(file, layout);
    if !split.as_ref().is_some_and(|(_, map)| map.is_whole) {
        // The parts may be as they were, and only the map changed, or a header.
        let untouched = file.get(..layout.body());
        let untouched = untouched.and_then(|body| Receipt::take_apart(body, layout).ok());
        if let Some(original) = untouched.and_then(&mut *proven) {
            return Restored::Whole(original);
        }
    }
    let Some((given, map)) = split else { return Restored::Parts(None) };
    let mended = Mended::new(given, &map, layout.body());
    let mut restored = || {
        let body = mended.body()?;
        let layout = Layout::read(&body).ok().filter(|layout| layout.body() == body.len())?;
        proven(Receipt::take_apart(&body, &layout).ok()?)
    };
    match restored() {
        Some(original) => Restored::Whole(original),
        None => Restored::Parts(Some(mended)),
    }
}

/// What stands before the map, and the map, read from the end of the file, where nothing
/// before it can shift it.
fn split<'a>(file: &'a [u8], layout: &Layout) -> Option<(&'a [u8], Map)> {
    let map_at = file.len().checked_sub(layout.total() - layout.body())?;
    let (given, rest) = file.split_at(map_at);
    Some((given, map::read(&rest[..rest.len() - HEADER_BYTES])?))
}

/// The blocks of a body as the map says they were, as far as they are left or follow.
struct Mended {
    blocks: Vec<Option<Vec<u8>>>,
    map_is_whole: bool,
}

impl Mended {
    /// Puts blocks together from what is left of a body of `body` bytes.
    fn new(given: &[u8], map: &Map, body: usize) -> Self {
        let length = |number: usize| BLOCK_BYTES.min(body - number * BLOCK_BYTES);
        let mut blocks = Vec::with_capacity(map.hashes.len());
        for (number, hash) in map.hashes.iter().enumerate() {
            // Where it is if the damage is behind it, and where if before.
            let from_start = Some(number * BLOCK_BYTES);
            let from_end = given.len().checked_sub(body - number * BLOCK_BYTES);
            let places = [from_start, from_end].into_iter().flatten();
            let mut found = places.filter_map(|at| given.get(at..at + length(number)));
            blocks.push(found.find(|block| map::hash(block) == *hash).map(<[u8]>::to_vec));
        }
        let mut mended = Self { blocks, map_is_whole: map.is_whole };
        mended.by_parity(map, length);
        if given.len() == body {
            mended.by_search(map, given);
        }
        mended
    }

    /// The whole body, if every block is known.
    fn body(&self) -> Option<Vec<u8>> {
        let blocks: Option<Vec<&[u8]>> = self.blocks.iter().map(Option::as_deref).collect();
        blocks.map(|blocks| blocks.concat())
    }

    /// Works out the one unknown block of each kind.
    fn by_parity(&mut self, map: &Map, length: impl Fn(usize) -> usize) {
        for (kind, parity) in map.parities.iter().enumerate() {
            let numbers = || (kind..map.hashes.len()).step_by(2);
            let mut unknown = numbers().filter(|number| self.blocks[*number].is_none());
            let (Some(number), None) = (unknown.next(), unknown.next()) else { continue };
            let mut block = *parity;
            for known in numbers().filter_map(|number| self.blocks[number].as_ref()) {
                map::combine(&mut block, known);
            }
            let block = &block[..length(number)];
            if map::hash(block) == map.hashes[number] {
                self.blocks[number] = Some(block.to_vec());
            }
        }
    }

    /// Tries every other value of every byte of the blocks that are still unknown.
    fn by_search(&mut self, map: &Map, given: &[u8]) {
        let unknown = self.blocks.iter_mut().enumerate().filter(|(_, block)| block.is_none());
        for (number, block) in unknown.take(SEARCHED_BLOCKS_MAX) {
            let Some(damaged) = given.chunks(BLOCK_BYTES).nth(number) else { return };
            *block = one_byte_away(damaged, &map.hashes[number]);
        }
    }

    /// The first byte that differs from a block as it was, exactly where that block is known;
    /// nothing if all blocks are as they were. A map that is damaged itself may call a block
    /// wrong that is right: then the first wrong byte is somewhere behind.
    fn first_wrong(&self, file: &[u8]) -> Option<(usize, usize)> {
        for (number, block) in self.blocks.iter().enumerate() {
            let begin = number * BLOCK_BYTES;
            let Some(block) = block else {
                let within = if self.map_is_whole { BLOCK_BYTES } else { file.len() - begin };
                return Some((begin, within));
            };
            let given = file.get(begin..).unwrap_or_default();
            let same = block.iter().zip(given).take_while(|(one, other)| one == other).count();
            if same < block.len() {
                return Some((begin + same, 1));
            }
        }
        None
    }
}

fn one_byte_away(damaged: &[u8], hash: &map::Hash) -> Option<Vec<u8>> {
    let mut block = damaged.to_vec();
    for (place, given) in damaged.iter().enumerate() {
        for value in 0..=u8::MAX {
            block[place] = value;
            if map::hash(&block) == *hash {
                return Some(block);
            }
        }
        block[place] = *given;
    }
    None
}
