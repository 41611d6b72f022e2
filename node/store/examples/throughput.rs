//! How fast a folder is added, fetched and laid out: one line each.
//!
//! ```text
//! cargo run --release -p dockercomp-store --example throughput -- FOLDER [DIRECTORY]
//! ```
//!
//! The fetch goes from one store to another in this process, so it measures the stores and no
//! network. DIRECTORY is where the stores are put while it runs; it should be on a disk.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use dockercomp_protocol::content;
use dockercomp_store::{AddOptions, Options, Store, Want};

/// Blocks asked for at once, as a fetch over the network would.
const WINDOW: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let folder = PathBuf::from(args.next().ok_or("name a folder")?);
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(base)?;
    let from = Store::open(&dir.path().join("from"), Options::default())?;
    let to = Store::open(&dir.path().join("to"), Options::default())?;

    let mut clock = Instant::now();
    let mut report = |what: &str, bytes: u64, files: u64| {
        let seconds = clock.elapsed().as_secs_f64();
        let mib = bytes as f64 / f64::from(1 << 20);
        println!(
            "{what:8} {files} files, {mib:.1} MiB, {seconds:.2} s, {:.1} MiB/s",
            mib / seconds
        );
        clock = Instant::now();
    };
    let added = from.add(&folder, &AddOptions::default())?;
    report("add", added.bytes, added.files);
    from.add(&folder, &AddOptions::default())?;
    report("again", added.bytes, added.files);
    loop {
        let missing = to.missing(&added.root, &Want::All, WINDOW)?;
        if missing.is_empty() {
            break;
        }
        for cid in missing {
            let block = from.block(&content::digest(&cid)?)?.ok_or("a block is gone")?;
            to.put(&added.root, &cid, &block)?;
        }
    }
    report("fetch", added.bytes, added.files);
    let into = dir.path().join("into");
    std::fs::create_dir(&into)?;
    to.stage(&added.root, &Want::All, &into)?;
    report("stage", added.bytes, added.files);
    to.remove(&added.root)?;
    report("remove", added.bytes, added.files);
    Ok(())
}
