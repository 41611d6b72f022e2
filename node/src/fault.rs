//! Misbehaviour on request, so that a network can be seen to withstand it.

use std::fs;
use std::io;
use std::path::Path;

use dockercomp_protocol::NodeId;

/// A way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Report plausible, wrong results: right in form and size, wrong in a few bytes.
    WrongResults,
    /// Serve chunks with wrong bytes.
    WrongChunks,
}

/// Changes a few bytes in the middle of every file, differently on every node, so that two
/// saboteurs do not agree by accident.
pub(crate) fn spoil(output: &Path, node: &NodeId) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(output) {
        let entry = entry?;
        if !entry.file_type().is_file() {
            continue;
        }
        let mut bytes = fs::read(entry.path())?;
        let noise = blake3::hash(&node.to_bytes());
        let start = bytes.len() / 2;
        for (byte, noise) in bytes[start..].iter_mut().zip(noise.as_bytes()) {
            *byte ^= noise;
        }
        fs::write(entry.path(), bytes)?;
    }
    Ok(())
}
