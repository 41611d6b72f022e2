//! Just enough of the ELF format to tell a static program from one that needs a dynamic linker.
//!
//! A `FROM scratch` image holds nothing but the program, so a dynamic one would fail on every
//! volunteer's machine with a misleading "no such file"; it is better refused at the owner's.

use std::io::{self, Read, Seek, SeekFrom};

/// Why a file cannot be the only file of an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// The file does not begin with the ELF magic.
    #[error("it is not an ELF program")]
    NotElf,
    /// Only 64-bit little-endian programs run here.
    #[error("it is not a 64-bit little-endian program")]
    Class,
    /// The processor has no name in image configurations.
    #[error("its processor (ELF machine {machine}) is not supported")]
    Machine {
        /// The value of `e_machine`.
        machine: u16,
    },
    /// It is an object file, a library or a core dump.
    #[error("it is not an executable program")]
    NotExecutable,
    /// It asks for a dynamic linker.
    #[error(
        "it is linked dynamically; build it statically, in Rust with `--target \
         x86_64-unknown-linux-musl` or `-C target-feature=+crt-static`"
    )]
    Dynamic,
    /// Its program headers are missing or too many.
    #[error("its program headers are malformed")]
    Headers,
    /// The file could not be read.
    #[error("it could not be read")]
    Read(#[from] io::Error),
}

/// Whether a file that begins with these bytes claims to be an ELF file.
pub(crate) fn has_magic(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

/// Checks that `file` is a static program, and returns its processor as image configurations
/// name it (`amd64`, `arm64`, `riscv64`).
pub(crate) fn check_static(file: &mut (impl Read + Seek)) -> Result<&'static str, ElfError> {
    let mut header = [0; HEADER_BYTES];
    read_at(file, 0, &mut header).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ElfError::NotElf,
        _ => ElfError::Read(error),
    })?;
    if !has_magic(&header) {
        return Err(ElfError::NotElf);
    }
    if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN {
        return Err(ElfError::Class);
    }
    let architecture = match u16_at(&header, 18) {
        62 => "amd64",
        183 => "arm64",
        243 => "riscv64",
        machine => return Err(ElfError::Machine { machine }),
    };
    if !matches!(u16_at(&header, 16), TYPE_EXECUTABLE | TYPE_POSITION_INDEPENDENT) {
        return Err(ElfError::NotExecutable);
    }
    let table = u64::from_le_bytes(header[32..40].try_into().expect("eight bytes"));
    let (entry_bytes, count) = (u16_at(&header, 54), u16_at(&header, 56));
    if count == 0 || count > PROGRAM_HEADERS_MAX || usize::from(entry_bytes) < 4 {
        return Err(ElfError::Headers);
    }
    for index in 0..u64::from(count) {
        let mut kind = [0; 4];
        let at = table.checked_add(index * u64::from(entry_bytes)).ok_or(ElfError::Headers)?;
        read_at(file, at, &mut kind).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => ElfError::Headers,
            _ => ElfError::Read(error),
        })?;
        if u32::from_le_bytes(kind) == SEGMENT_INTERPRETER {
            return Err(ElfError::Dynamic);
        }
    }
    Ok(architecture)
}

fn read_at(file: &mut (impl Read + Seek), at: u64, into: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(into)
}

fn u16_at(header: &[u8; HEADER_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([header[at], header[at + 1]])
}

const MAGIC: &[u8] = b"\x7fELF";
const HEADER_BYTES: usize = 64;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const TYPE_EXECUTABLE: u16 = 2;
const TYPE_POSITION_INDEPENDENT: u16 = 3;
const SEGMENT_INTERPRETER: u32 = 3;
/// Real programs have about ten.
const PROGRAM_HEADERS_MAX: u16 = 256;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Cursor;

    use super::*;

    /// The test program itself needs a dynamic linker, as every program built for glibc does.
    #[test]
    fn a_dynamic_program_is_refused() {
        if cfg!(target_feature = "crt-static") {
            eprintln!("skipped: this test binary is static");
            return;
        }
        let mut file = File::open("/proc/self/exe").expect("this program");
        assert!(matches!(check_static(&mut file), Err(ElfError::Dynamic)));
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(check_static(&mut Cursor::new(b"#!/bin/sh\n")), Err(ElfError::NotElf)));
        let mut elf = vec![0; 128];
        elf[..4].copy_from_slice(MAGIC);
        assert!(matches!(check_static(&mut Cursor::new(&elf)), Err(ElfError::Class)));
        elf[4] = CLASS_64;
        elf[5] = LITTLE_ENDIAN;
        assert!(matches!(
            check_static(&mut Cursor::new(&elf)),
            Err(ElfError::Machine { machine: 0 })
        ));
        elf[18] = 62;
        assert!(matches!(check_static(&mut Cursor::new(&elf)), Err(ElfError::NotExecutable)));
        elf[16] = 3;
        assert!(matches!(check_static(&mut Cursor::new(&elf)), Err(ElfError::Headers)));
        elf[54] = 56;
        elf[56] = 1;
        elf[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(check_static(&mut Cursor::new(&elf)), Err(ElfError::Headers)));
    }
}
