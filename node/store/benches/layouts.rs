//! What it costs to keep chunks in files at their final place, in a file each, or in RocksDB:
//! the measurement behind `docs/decisions/0009-bodies-in-files.md`.
//!
//! ```sh
//! cargo bench -p dockercomp-store --bench layouts -- DIRECTORY [MIB]
//! ```
//!
//! The same chunks are written in the same random order, and made durable every 64 MiB as the
//! store does; then all are read in another random order from the warm page cache, and removed
//! so that the disk has its room back. Nothing is hashed or compressed. RocksDB has buffers, jobs
//! and blob files as the store's own database has them; its write buffers are written out and its
//! compactions have ended before the clock of a step stops. Written bytes are what the kernel was
//! to write to the disk for this process. What comes first pays for memory that was never touched:
//! it runs once before, and is not counted.

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rocksdb::{DB, DBCompressionType, Options, WriteBatch, WriteOptions};

type Done = Result<(), Box<dyn Error>>;

const MIB: usize = 1 << 20;
/// Written between two syncs, in bytes.
const DURABLE_EVERY: usize = 64 * MIB;
const CHUNK_BYTES: [usize; 3] = [64 << 10, 256 << 10, MIB];
/// Directories that files of one chunk each are spread over.
const FOLDERS: usize = 256;
/// Files that wait for their sync at most: few may be open at once.
const OPEN_MAX: usize = 256;
/// The unit of a process's CPU time in `/proc`, on every Linux of today.
const TICKS_PER_S: f64 = 100.0;

/// A way of keeping chunks, in a directory of its own.
trait Layout {
    fn write(&mut self, chunk: usize, bytes: &[u8]) -> Done;

    /// Makes durable what was written since the last time.
    fn sync(&mut self) -> Done;

    /// All is written: nothing may be left for later.
    fn settle(&mut self) -> Done {
        Ok(())
    }

    fn read(&self, chunk: usize, into: &mut [u8]) -> Done;

    /// Removes all chunks and gives the room back.
    fn remove(&mut self, n_chunks: usize) -> Done;
}

/// One file, sparse until it is whole.
struct Final {
    path: PathBuf,
    file: File,
}

impl Final {
    fn new(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let path = dir.join("file");
        let file = File::options().create_new(true).read(true).write(true).open(&path)?;
        Ok(Self { path, file })
    }
}

impl Layout for Final {
    fn write(&mut self, chunk: usize, bytes: &[u8]) -> Done {
        Ok(self.file.write_all_at(bytes, (chunk * bytes.len()) as u64)?)
    }

    fn sync(&mut self) -> Done {
        Ok(self.file.sync_data()?)
    }

    fn read(&self, chunk: usize, into: &mut [u8]) -> Done {
        Ok(self.file.read_exact_at(into, (chunk * into.len()) as u64)?)
    }

    fn remove(&mut self, _: usize) -> Done {
        self.file = File::open("/dev/null")?;
        Ok(fs::remove_file(&self.path)?)
    }
}

/// A file for each chunk, renamed to its place when it is whole.
struct Each {
    dir: PathBuf,
    unsynced: Vec<File>,
}

impl Each {
    fn new(dir: &Path) -> Result<Self, Box<dyn Error>> {
        for folder in 0..FOLDERS {
            fs::create_dir(dir.join(folder.to_string()))?;
        }
        Ok(Self { dir: dir.into(), unsynced: Vec::new() })
    }

    fn sync_files(&mut self) -> Done {
        for file in self.unsynced.drain(..) {
            file.sync_data()?;
        }
        Ok(())
    }

    fn path(&self, chunk: usize) -> PathBuf {
        self.dir.join((chunk % FOLDERS).to_string()).join(chunk.to_string())
    }
}

impl Layout for Each {
    fn write(&mut self, chunk: usize, bytes: &[u8]) -> Done {
        let unnamed = self.dir.join("unnamed");
        let file = File::create(&unnamed)?;
        file.write_all_at(bytes, 0)?;
        fs::rename(&unnamed, self.path(chunk))?;
        self.unsynced.push(file);
        if self.unsynced.len() < OPEN_MAX { Ok(()) } else { self.sync_files() }
    }

    /// A name is durable when its directory is.
    fn sync(&mut self) -> Done {
        self.sync_files()?;
        for folder in 0..FOLDERS {
            File::open(self.dir.join(folder.to_string()))?.sync_all()?;
        }
        Ok(())
    }

    fn read(&self, chunk: usize, into: &mut [u8]) -> Done {
        Ok(File::open(self.path(chunk))?.read_exact_at(into, 0)?)
    }

    fn remove(&mut self, _: usize) -> Done {
        Ok(fs::remove_dir_all(&self.dir)?)
    }
}

/// Values of RocksDB, in its sorted files or in blob files.
struct Values {
    db: DB,
}

impl Values {
    fn new(dir: &Path, in_blobs: bool) -> Result<Self, Box<dyn Error>> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::None);
        options.set_write_buffer_size(32 * MIB);
        options.set_db_write_buffer_size(48 * MIB);
        options.set_max_open_files(256);
        options.set_max_write_buffer_number(3);
        options.set_max_background_jobs(2);
        options.set_max_total_wal_size(128 << 20);
        options.set_bytes_per_sync(MIB as u64);
        options.set_enable_blob_files(in_blobs);
        options.set_min_blob_size(4 << 10);
        options.set_blob_file_size(64 << 20);
        options.set_blob_compression_type(DBCompressionType::None);
        options.set_enable_blob_gc(true);
        options.set_blob_gc_age_cutoff(1.0);
        Ok(Self { db: DB::open(&options, dir)? })
    }
}

/// As chunks are named: by a hash, so that neighbours in a file are none in a database.
fn key(chunk: usize) -> [u8; 32] {
    blake3::hash(&chunk.to_le_bytes()).into()
}

impl Layout for Values {
    fn write(&mut self, chunk: usize, bytes: &[u8]) -> Done {
        Ok(self.db.put(key(chunk), bytes)?)
    }

    fn sync(&mut self) -> Done {
        // A batch of nothing would not reach the log.
        let mut mark = WriteBatch::default();
        mark.put(b"mark", b"");
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.db.write_opt(mark, &options)?)
    }

    fn settle(&mut self) -> Done {
        const BUSY: [&str; 2] = ["rocksdb.compaction-pending", "rocksdb.num-running-compactions"];
        self.db.flush()?;
        let is_busy = || -> Result<bool, rocksdb::Error> {
            let counts = BUSY.map(|name| self.db.property_int_value(name));
            counts.into_iter().try_fold(false, |busy, n| Ok(busy || n?.unwrap_or(0) > 0))
        };
        while is_busy()? {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn read(&self, chunk: usize, into: &mut [u8]) -> Done {
        let value = self.db.get_pinned(key(chunk))?.ok_or("a value is gone")?;
        into.copy_from_slice(&value);
        Ok(())
    }

    fn remove(&mut self, n_chunks: usize) -> Done {
        for chunk in 0..n_chunks {
            self.db.delete(key(chunk))?;
        }
        self.db.flush()?;
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }
}

/// What one step took.
struct Took {
    wall_s: f64,
    cpu_s: f64,
    written: u64,
}

fn measure(step: impl FnOnce() -> Done) -> Result<Took, Box<dyn Error>> {
    let (cpu_before, written_before) = (cpu_s()?, written()?);
    let clock = Instant::now();
    step()?;
    let wall_s = clock.elapsed().as_secs_f64();
    Ok(Took { wall_s, cpu_s: cpu_s()? - cpu_before, written: written()? - written_before })
}

/// CPU time of all threads of this process so far, in seconds.
fn cpu_s() -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The program's name, in brackets, may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / TICKS_PER_S)
}

/// Bytes that the disk was to be sent for this process so far.
fn written() -> Result<u64, Box<dyn Error>> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("/proc/self/io has no write_bytes")?.parse()?)
}

/// All chunks once, in an order that depends on the salt.
fn shuffled(n_chunks: usize, salt: u8) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n_chunks).collect();
    order.sort_by_cached_key(|chunk| {
        *blake3::Hasher::new().update(&[salt]).update(&chunk.to_le_bytes()).finalize().as_bytes()
    });
    order
}

/// Measures a layout; without a name nothing is said of it.
fn one(name: Option<&str>, layout: &mut dyn Layout, chunk_bytes: usize, total: usize) -> Done {
    let n_chunks = total / chunk_bytes;
    let mut bytes = vec![0; chunk_bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let write = measure(|| {
        let mut unsynced = 0;
        for chunk in shuffled(n_chunks, 0) {
            bytes[..8].copy_from_slice(&chunk.to_le_bytes());
            layout.write(chunk, &bytes)?;
            unsynced += chunk_bytes;
            if unsynced >= DURABLE_EVERY {
                layout.sync()?;
                unsynced = 0;
            }
        }
        layout.sync()?;
        layout.settle()
    })?;
    let read = measure(|| {
        for chunk in shuffled(n_chunks, 1) {
            layout.read(chunk, &mut bytes)?;
            assert_eq!(bytes[..8], chunk.to_le_bytes(), "chunk {chunk}");
        }
        Ok(())
    })?;
    let remove = measure(|| layout.remove(n_chunks))?;
    let Some(name) = name else { return Ok(()) };
    let mib = total as f64 / MIB as f64;
    let gib = mib / 1024.0;
    println!(
        "{name:<20} {:>5} KiB {:>8.0} {:>8.2} {:>8.2} {:>8.0} {:>8.2} {:>8.2}",
        chunk_bytes >> 10,
        mib / write.wall_s,
        write.cpu_s / gib,
        write.written as f64 / total as f64,
        mib / read.wall_s,
        read.cpu_s / gib,
        remove.wall_s,
    );
    Ok(())
}

fn main() -> Done {
    // What cargo adds when it runs all benches.
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let total = args.next().map_or(Ok(1024), |mib| mib.parse::<usize>())? * MIB;
    println!(
        "{:<30} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "write", "CPU s", "written", "read", "CPU s", "remove"
    );
    println!(
        "{:<20} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "layout", "chunk", "MiB/s", "per GiB", "per byte", "MiB/s", "per GiB", "s"
    );
    for chunk_bytes in CHUNK_BYTES {
        let all = tempfile::tempdir_in(&base)?;
        let dir = |name: &str| {
            let dir = all.path().join(name);
            fs::create_dir(&dir).map(|()| dir)
        };
        let mut layouts: [(Option<&str>, Box<dyn Layout>); 5] = [
            (None, Box::new(Final::new(&dir("first")?)?)),
            (Some("one file"), Box::new(Final::new(&dir("final")?)?)),
            (Some("a file for each"), Box::new(Each::new(&dir("each")?)?)),
            (Some("RocksDB"), Box::new(Values::new(&dir("values")?, false)?)),
            (Some("RocksDB, blob files"), Box::new(Values::new(&dir("blobs")?, true)?)),
        ];
        for (name, layout) in &mut layouts {
            one(*name, layout.as_mut(), chunk_bytes, total)?;
        }
    }
    Ok(())
}
