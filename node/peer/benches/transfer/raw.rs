//! The floor: one TCP stream, read, hashed with BLAKE3 and written by a single thread.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use crate::Error;
use crate::load::Source;
use crate::run::{Ground, LEFT, Run, start};

const BUFFER_BYTES: usize = 1 << 20;

pub(crate) fn run(ground: &Ground, source: &Source, work: &Path) -> Result<Run, Error> {
    let this = std::env::current_exe()?;
    let mut sender = ground.left(&this);
    sender.arg("raw-send").arg(&source.path).arg(format!("{LEFT}:0"));
    let (sender, address) = start(sender, |line| Some(line.to_owned()))?;
    let into = work.join("arrived");
    let mut receiver = ground.right(&this);
    receiver.arg("raw-receive").arg(address).arg(&into);
    let (run, ()) = ground.transfer(sender, receiver, into, drop)?;
    Ok(run)
}

/// Sends each file as the length of its name, its name, its length and its bytes.
pub(crate) fn send(path: &Path, address: &str) -> Result<(), Error> {
    let listener = TcpListener::bind(address)?;
    println!("{}", listener.local_addr()?);
    let (stream, _) = listener.accept()?;
    let mut stream = BufWriter::with_capacity(BUFFER_BYTES, stream);
    let mut buffer = vec![0; BUFFER_BYTES];
    for entry in walkdir::WalkDir::new(path) {
        let entry = entry?;
        if !entry.file_type().is_file() {
            continue;
        }
        let name = entry.path().strip_prefix(path)?.as_os_str().as_encoded_bytes();
        let mut file = File::open(entry.path())?;
        stream.write_all(&u32::try_from(name.len())?.to_be_bytes())?;
        stream.write_all(name)?;
        stream.write_all(&file.metadata()?.len().to_be_bytes())?;
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            stream.write_all(&buffer[..n])?;
        }
    }
    Ok(stream.flush()?)
}

pub(crate) fn receive(address: &str, into: &Path) -> Result<(), Error> {
    let stream = TcpStream::connect(address)?;
    let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut length = [0; 4];
    loop {
        match stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut name = vec![0; usize::try_from(u32::from_be_bytes(length))?];
        stream.read_exact(&mut name)?;
        let mut size = [0; 8];
        stream.read_exact(&mut size)?;
        let name = String::from_utf8(name)?;
        let path = if name.is_empty() { into.to_owned() } else { into.join(name) };
        fs::create_dir_all(path.parent().unwrap_or(into))?;
        let mut file = File::create(path)?;
        let mut left = u64::from_be_bytes(size);
        while left > 0 {
            let part = usize::try_from(left.min(BUFFER_BYTES as u64))?;
            stream.read_exact(&mut buffer[..part])?;
            std::hint::black_box(blake3::hash(&buffer[..part]));
            file.write_all(&buffer[..part])?;
            left -= part as u64;
        }
    }
}
