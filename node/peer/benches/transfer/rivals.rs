//! Other people's tools on the same data.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;
use crate::load::Source;
use crate::run::{Ground, LEFT, Run, start};
use crate::watch::Watched;

/// How long `b3sum` takes to hash the data with all cores; it is in the page cache. `None`: it
/// is not installed.
pub(crate) fn b3sum(source: &Source) -> Result<Option<Duration>, Error> {
    let began = Instant::now();
    let mut sum = if source.is_folder() {
        let mut find = Command::new("find");
        find.arg(&source.path).args(["-type", "f", "-exec", "b3sum", "{}", "+"]);
        find
    } else {
        let mut sum = Command::new("b3sum");
        sum.arg(&source.path);
        sum
    };
    let status = sum.stdout(Stdio::null()).stderr(Stdio::null()).status();
    Ok(status.is_ok_and(|status| status.success()).then(|| began.elapsed()))
}

/// sendme without relays or lookups: the ticket carries the address.
pub(crate) fn sendme(ground: &Ground, source: &Source, work: &Path) -> Result<Run, Error> {
    let home = work.join("home");
    fs::create_dir_all(&home)?;
    let began = Instant::now();
    let mut sender = ground.left("sendme");
    sender.args(["send", "--no-progress", "--relay", "disabled", "--ticket-type", "addresses"]);
    sender.args(["--magic-ipv4-addr", &format!("{LEFT}:7777")]);
    sender.arg(&source.path).current_dir(&home).stderr(Stdio::null());
    let (sender, ticket) = start(sender, |line| {
        let words = &mut line.split_whitespace();
        words.find(|word| word.starts_with("blob")).map(str::to_owned)
    })?;
    let ingest = began.elapsed();
    let into = work.join("into");
    fs::create_dir_all(&into)?;
    let mut receiver = ground.right("sendme");
    receiver.args(["receive", "-v", "--no-progress", "--relay", "disabled"]).arg(ticket);
    receiver.current_dir(&into).stderr(Stdio::null());
    let arrived = into.join("source");
    let (mut run, transfer) =
        ground.transfer(sender, receiver, arrived, |said| took(&said, source.bytes))?;
    run.transfer = transfer;
    run.ingest = Some(ingest);
    Ok(run)
}

/// The transfer's duration by the rate in "downloaded N files, X. took T (Y/s)": T itself is
/// rounded to seconds.
fn took(said: &str, bytes: u64) -> Option<Duration> {
    let (_, rest) = said.split_once("took ")?;
    let (rate, _) = rest.split_once('(')?.1.split_once("/s")?;
    let rate: bytesize::ByteSize = rate.parse().ok()?;
    (rate.as_u64() > 0).then(|| Duration::from_secs_f64(bytes as f64 / rate.as_u64() as f64))
}

/// rsync from a daemon, so that no shell and no cipher is in the way.
pub(crate) fn rsync(ground: &Ground, source: &Source, work: &Path) -> Result<Run, Error> {
    const PORT: &str = "8730";
    let config = work.join("rsyncd.conf");
    let folder = source.path.parent().ok_or("the source is in no folder")?;
    let text = format!("use chroot = no\n[bench]\npath = {}\nread only = yes\n", folder.display());
    fs::write(&config, text)?;
    let mut daemon = ground.left("rsync");
    daemon.args(["--daemon", "--no-detach", "--port", PORT, "--address", LEFT]);
    daemon.arg("--config").arg(&config);
    let sender = Watched::new(daemon.spawn()?, Instant::now());
    wait_for_daemon(ground, PORT)?;
    let into = work.join("into");
    fs::create_dir_all(&into)?;
    let mut receiver = ground.right("rsync");
    receiver.args(["--archive", "--whole-file", "--quiet"]);
    receiver.arg(format!("rsync://{LEFT}:{PORT}/bench/source")).arg(&into);
    let (run, ()) = ground.transfer(sender, receiver, into.join("source"), drop)?;
    Ok(run)
}

fn wait_for_daemon(ground: &Ground, port: &str) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let mut list = ground.right("rsync");
        list.arg(format!("rsync://{LEFT}:{port}/")).stdout(Stdio::null()).stderr(Stdio::null());
        if list.status()?.success() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err("the rsync daemon does not answer".into())
}
