//! Small canonical outputs that came with their results: one row each instead of a dataset.
//!
//! A row is written in the batch that accepts the output, so such a work unit is done at once
//! and nothing has to be fetched. It is keyed by the output: equal outputs are stored once.

use std::io;

use dockercomp_protocol::inline::{self, InlineFile};
use dockercomp_protocol::{Cid, codec};
use dockercomp_store::{Row, Store, Table};
use serde_bytes::ByteBuf;

/// The row that keeps the blocks of an output, which were checked.
pub(crate) fn row(output: &Cid, blocks: &[ByteBuf]) -> Row {
    Row::Put { table: Table::Outputs, key: output.to_bytes(), value: codec::encode(&blocks) }
}

/// The files of an output, if it came with its result. Blocking.
pub(crate) fn files(store: &Store, output: &Cid) -> io::Result<Option<Vec<InlineFile>>> {
    let row = store.get(Table::Outputs, &output.to_bytes()).map_err(io::Error::other)?;
    let Some(bytes) = row else { return Ok(None) };
    let blocks: Vec<ByteBuf> = codec::decode(&bytes).map_err(io::Error::other)?;
    inline::check(output, &blocks).map_err(io::Error::other)?;
    inline::files(&blocks).map(Some).map_err(io::Error::other)
}
