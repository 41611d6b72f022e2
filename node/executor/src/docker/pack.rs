//! An image from nothing but a static program.
//!
//! A project owner who builds a static binary needs no Dockerfile, no engine and no registry:
//! the binary becomes a `FROM scratch` image whose only file and entry point it is. The same
//! binary becomes the same archive everywhere, so it can be packed by the owner before it is
//! shared, or by each node when it is loaded.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use serde::Serialize;

use super::archive::parts::Parts;
use super::hashing::{Hashing, digest};
use super::tarball;
use crate::elf::{self, ElfError};

/// Why a binary could not be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The name cannot be the name of a file at the root of an image.
    #[error(
        "{name:?} cannot name a program: up to {NAME_BYTES_MAX} letters, digits, `.`, `_` and \
         `-`, and no directory of the system"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The file is not a static program.
    #[error("the binary is not a static program")]
    NotStatic(#[source] ElfError),
    /// The binary is too large.
    #[error("the binary has more than {BINARY_BYTES_MAX} bytes")]
    TooLarge,
    /// The binary could not be read.
    #[error("the binary could not be read")]
    Read(#[source] io::Error),
    /// The binary was changed while it was packed.
    #[error("the binary changed while it was packed")]
    Changed,
    /// The archive could not be written.
    #[error("the archive could not be written")]
    Write(#[source] io::Error),
}

impl PackError {
    /// Whether the binary is to blame and not the disk it is read from.
    #[must_use]
    pub fn is_binarys_fault(&self) -> bool {
        match self {
            Self::Name { .. } | Self::TooLarge => true,
            Self::NotStatic(error) => !matches!(error, ElfError::Read(_)),
            Self::Read(_) | Self::Changed | Self::Write(_) => false,
        }
    }
}

/// Writes a docker-save archive with the program as `/<name>` and only file of the image, and
/// returns the image id. Blocks; call it from a thread that may.
///
/// # Errors
///
/// When the binary is not static, cannot be read, or the archive cannot be written.
pub fn pack_static_binary(
    binary: &Path,
    name: &str,
    into: &mut impl Write,
) -> Result<String, PackError> {
    let Binary { mut file, bytes, architecture } = open(binary, name)?;
    // The hash of the layer stands before the layer, so the binary is read twice.
    let diff_id = write_layer(&mut file, bytes, name, &mut io::sink())?;
    let config = configuration(architecture, name, &diff_id);
    let id = digest(&config);

    let config_name = tarball::config_name(&id);
    let manifest = tarball::manifest(&config_name, None, &[LAYER.to_owned()]);
    let layer_bytes = LAYER_EXTRA_BYTES + bytes.next_multiple_of(512);
    tarball::file(into, "manifest.json", &manifest).map_err(PackError::Write)?;
    tarball::file(into, &config_name, &config).map_err(PackError::Write)?;
    tarball::header(into, LAYER, layer_bytes, 0o644).map_err(PackError::Write)?;
    if write_layer(&mut file, bytes, name, into)? != diff_id {
        return Err(PackError::Changed);
    }
    tarball::end(into).map_err(PackError::Write)?;
    Ok(id)
}

/// Writes the same image as a folder of parts.
pub(super) fn split_static_binary(
    binary: &Path,
    name: &str,
    parts: Parts,
) -> Result<(), PackError> {
    let Binary { mut file, bytes, architecture } = open(binary, name)?;
    let diff_id = parts.blob(|into| write_layer(&mut file, bytes, name, into), PackError::Write)?;
    let config = configuration(architecture, name, &diff_id);
    parts.finish(&config, &[diff_id]).map_err(PackError::Write)
}

/// A static program that can be packed.
struct Binary {
    file: File,
    bytes: u64,
    architecture: &'static str,
}

fn open(binary: &Path, name: &str) -> Result<Binary, PackError> {
    if !is_program_name(name) {
        return Err(PackError::Name { name: name.to_owned() });
    }
    let mut file = File::open(binary).map_err(PackError::Read)?;
    let architecture = elf::check_static(&mut file).map_err(PackError::NotStatic)?;
    let bytes = file.metadata().map_err(PackError::Read)?.len();
    if bytes > BINARY_BYTES_MAX {
        return Err(PackError::TooLarge);
    }
    Ok(Binary { file, bytes, architecture })
}

/// Writes the layer, one executable file, and returns its digest. Its size is a multiple of a
/// block.
fn write_layer(
    file: &mut File,
    bytes: u64,
    name: &str,
    into: &mut impl Write,
) -> Result<String, PackError> {
    let mut into = Hashing::new(into);
    file.rewind().map_err(PackError::Read)?;
    tarball::header(&mut into, name, bytes, 0o755).map_err(PackError::Write)?;
    let mut left = bytes;
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = file.read(&mut buffer[..want]).map_err(PackError::Read)?;
        if n == 0 {
            return Err(PackError::Changed);
        }
        into.write_all(&buffer[..n]).map_err(PackError::Write)?;
        left -= n as u64;
    }
    tarball::pad(&mut into, bytes).map_err(PackError::Write)?;
    tarball::end(&mut into).map_err(PackError::Write)?;
    Ok(into.finish())
}

fn configuration(architecture: &str, name: &str, diff_id: &str) -> Vec<u8> {
    // Fields in the order of the OCI specification; the image id is the hash of these bytes.
    #[derive(Serialize)]
    struct ImageConfig<'a> {
        created: &'a str,
        architecture: &'a str,
        os: &'a str,
        config: RunConfig,
        rootfs: RootFs<'a>,
        history: [History<'a>; 1],
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct RunConfig {
        user: &'static str,
        entrypoint: [String; 1],
        working_dir: &'static str,
    }
    #[derive(Serialize)]
    struct RootFs<'a> {
        r#type: &'a str,
        diff_ids: [&'a str; 1],
    }
    #[derive(Serialize)]
    struct History<'a> {
        created: &'a str,
        created_by: &'a str,
    }
    let config = ImageConfig {
        created: CREATED,
        architecture,
        os: "linux",
        config: RunConfig {
            user: "65534:65534",
            entrypoint: [format!("/{name}")],
            working_dir: "/output",
        },
        rootfs: RootFs { r#type: "layers", diff_ids: [diff_id] },
        history: [History { created: CREATED, created_by: "dockercomp" }],
    };
    serde_json::to_vec(&config).expect("strings always serialise")
}

fn is_program_name(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_plain)
        && !name.starts_with('.')
        && !RESERVED_NAMES.contains(&name)
}

/// Name of a bare binary inside its image. It is the same everywhere, because the id of the
/// image depends on it.
pub(super) const BINARY_NAME: &str = "program";
/// Longest name of a program.
const NAME_BYTES_MAX: usize = 64;
/// Largest program, so that a mistake does not fill a disk.
const BINARY_BYTES_MAX: u64 = 1 << 30;
/// Directories that a container has or gets.
const RESERVED_NAMES: [&str; 8] =
    ["input", "output", "checkpoint", "tmp", "dev", "proc", "sys", "etc"];
/// Name of the only layer.
const LAYER: &str = "0/layer.tar";
/// Header and end of the layer's archive.
const LAYER_EXTRA_BYTES: u64 = 3 * 512;
/// A fixed date, so that the id depends on nothing but the program.
const CREATED: &str = "1970-01-01T00:00:00Z";
