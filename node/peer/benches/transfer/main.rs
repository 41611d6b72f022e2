//! How fast a dataset travels from one process to another, beside other tools on the same data.
//!
//! `make bench-transfer` runs it: `scripts/bench-transfer.sh` lays a virtual cable between two
//! network namespaces without any other way out, and tells us their names. Every contender is a
//! pair of processes, one in each; this process starts them, watches them, and checks that what
//! arrived is what was sent. The roles of our own contenders are this program again.
//!
//! ```text
//! main ──► load ──► contender ──► watched sender, watched receiver ──► run ──► report
//! ```
//!
//! What is compared: start of the receiving process to its end, with the files in place. Ours is
//! durable then (it syncs); the others do not sync.

mod load;
mod ours;
mod raw;
mod report;
mod rivals;
mod run;
mod swarm;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::load::{Load, Source};
use crate::report::Report;
use crate::run::{Contender, Ground};

/// What the script tells us.
struct Args {
    ground: Ground,
    /// Where data is put while this runs.
    dir: PathBuf,
    /// Where the results go.
    out: PathBuf,
    /// Loads to run; all if empty.
    only: Vec<String>,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    // cargo says --bench to every benchmark.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = match args[..] {
        ["seed", plane, path, dir] => ours::seed(path.into(), dir.into(), plane == "sealed"),
        ["get", ticket, dir, into] => ours::get(ticket, dir.into(), into.into()),
        ["swarm-seed", path, dir] => swarm::seed(path.into(), dir.into()),
        ["swarm-get", ticket, dir] => swarm::get(ticket, dir.into()),
        ["raw-send", path, address] => raw::send(path.as_ref(), address),
        ["raw-receive", address, into] => raw::receive(address, into.as_ref()),
        [left, right, dir, out, ref only @ ..] => compare(&Args {
            ground: Ground { left: left.to_owned(), right: right.to_owned() },
            dir: dir.into(),
            out: out.into(),
            only: only.iter().map(|name| (*name).to_owned()).collect(),
        }),
        _ => {
            println!("this benchmark needs two network namespaces: run `make bench-transfer`");
            Ok(())
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-transfer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A run that does not count. A virtual machine's memory costs several times more the first time
/// that it is used, which whoever comes first would pay for all.
fn warm_up(args: &Args, source: &Source, work: &Path) -> Result<(), Error> {
    eprintln!("bench-transfer: warming up");
    std::fs::create_dir_all(work)?;
    let ran = Contender::Ours.run(&args.ground, source, work);
    std::fs::remove_dir_all(work)?;
    ran.map(drop)
}

fn compare(args: &Args) -> Result<(), Error> {
    let mut report = Report::default();
    let contenders = Contender::present();
    let is_wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    for load in Load::ALL.into_iter().filter(|load| is_wanted(load.name)) {
        eprintln!("bench-transfer: making {}", load.name);
        let data = args.dir.join("data");
        let source = load.make(&data)?;
        report.ingest(load, rivals::b3sum(&source)?);
        let work = args.dir.join("work");
        warm_up(args, &source, &work)?;
        for contender in &contenders {
            std::fs::create_dir_all(&work)?;
            eprintln!("bench-transfer: {} with {}", load.name, contender.name());
            let ran = contender.run(&args.ground, &source, &work);
            let ended = ran.and_then(|ran| {
                source.check(&ran.arrived)?;
                report.add(load, (*contender, source.bytes), &ran);
                Ok(())
            });
            std::fs::remove_dir_all(&work)?;
            ended.map_err(|error| format!("{} with {}: {error}", load.name, contender.name()))?;
        }
        std::fs::remove_dir_all(&data)?;
    }
    if is_wanted(swarm::NAME) {
        let (data, work) = (args.dir.join("data"), args.dir.join("work"));
        let source = Load::SWARM.make(&data)?;
        eprintln!("bench-transfer: {} of {}", swarm::NAME, source.bytes);
        std::fs::create_dir_all(&work)?;
        let ran = swarm::run(&args.ground, &source, &work);
        std::fs::remove_dir_all(&work)?;
        std::fs::remove_dir_all(&data)?;
        report.add_rows(ran?);
    }
    report.print();
    report.write(&args.out)?;
    eprintln!("bench-transfer: results are in {}", args.out.display());
    Ok(())
}
