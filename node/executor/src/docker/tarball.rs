//! Tar archives written byte by byte the same: no times, no owners, no host.
//!
//! The archives that travel in the network are addressed by their content, so the same image
//! must always become the same bytes.

use std::io::{self, Write};

use serde::Serialize;
use tar::{EntryType, Header};

/// Writes the header of a plain file; its bytes and [`pad`] must follow.
pub(super) fn header(into: &mut impl Write, name: &str, bytes: u64, mode: u32) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header.set_cksum();
    into.write_all(header.as_bytes())
}

/// Fills the last block of a file of this size.
pub(super) fn pad(into: &mut impl Write, bytes: u64) -> io::Result<()> {
    into.write_all(&BLOCK[..padding(bytes)])
}

/// Writes a whole file.
pub(super) fn file(into: &mut impl Write, name: &str, content: &[u8]) -> io::Result<()> {
    header(into, name, content.len() as u64, 0o644)?;
    into.write_all(content)?;
    pad(into, content.len() as u64)
}

/// Ends an archive.
pub(super) fn end(into: &mut impl Write) -> io::Result<()> {
    into.write_all(&BLOCK)?;
    into.write_all(&BLOCK)
}

/// Docker-save's `manifest.json` for one image.
pub(super) fn manifest(config: &str, tag: Option<&str>, layers: &[String]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct SavedImage<'a> {
        config: &'a str,
        repo_tags: Option<[&'a str; 1]>,
        layers: &'a [String],
    }
    let image = SavedImage { config, repo_tags: tag.map(|tag| [tag]), layers };
    serde_json::to_vec(&[image]).expect("strings always serialise")
}

/// The name of the configuration file of an image.
pub(super) fn config_name(image_id: &str) -> String {
    format!("{}.json", image_id.trim_start_matches("sha256:"))
}

fn padding(bytes: u64) -> usize {
    let used = usize::try_from(bytes % BLOCK_BYTES as u64).expect("less than a block");
    (BLOCK_BYTES - used) % BLOCK_BYTES
}

const BLOCK_BYTES: usize = 512;
static BLOCK: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
