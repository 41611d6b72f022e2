//! `kill -9` of the coordinator, again and again, at random instants, under load.
//!
//! ```text
//! work goes on ──random pause──► kill -9 ──► start again ──► nothing is lost ──► …
//! ```
//!
//! Nodes compute small tiles of a picture all the while. The pause before a kill is anything
//! from ten microseconds to a third of a second after progress was seen, small ones as likely as
//! large ones, so that kills fall between a decision, its sync and its answers as well.
//! In between the owner's side is asked what was accepted: counts, signed heads of the log, and
//! receipts. All of it must hold at the end.
//!
//! # What is not here
//!
//! Answers that come before they are written: between the two are microseconds, and what the
//! kernel was handed survives a `kill -9`, so that twenty kills passed with that bug planted. The
//! decider's own tests hold the write up and look.
//!
//! # Running it longer
//!
//! `make crash` kills two hundred times; the seed is printed, and `DOCKERCOMP_CRASH_SEED`
//! gives another run the same pauses (not the same instants: threads and sockets have their
//! own will).

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::network::{Network, dockercomp, example, free_port, json, run_on};

/// Kills in `make test`.
const KILLS: u32 = 10;
/// Tiles of one picture.
const UNITS: u64 = 16 * 16;

#[test]
fn a_coordinator_that_is_killed_again_and_again_loses_nothing() {
    let kills = number("DOCKERCOMP_CRASH_KILLS").map_or(KILLS, |n| u32::try_from(n).expect("few"));
    let seed = number("DOCKERCOMP_CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("{kills} kills, DOCKERCOMP_CRASH_SEED={seed}");
    let started = Instant::now();
    let mut world = World::start(seed);
    for kill in 1..=kills {
        world.wait_for_progress();
        world.ask();
        world.pause();
        world.kill();
        println!("kill {kill}, {:.0?}, {} accepted", started.elapsed(), world.accepted());
    }
    world.finish();
    println!(
        "{kills} kills, {} jobs, {:.0?}: {:?}",
        world.jobs.len(),
        started.elapsed(),
        world.seen
    );
}

/// The network, and the books of somebody who believes nothing.
struct World {
    network: Network,
    random: u64,
    jobs: Vec<Job>,
    seen: Seen,
}

struct Job {
    id: String,
    iterations: u32,
    /// The most that was ever said to be accepted.
    accepted: u64,
    /// What receipts said, by work unit.
    outputs: BTreeMap<u64, String>,
}

/// What was looked at on the way.
#[derive(Debug, Default)]
struct Seen {
    heads: Vec<PathBuf>,
    receipts: usize,
}

impl World {
    fn start(seed: u64) -> Self {
        // Snapshots come so often that kills hit them as well.
        let port = free_port().to_string();
        let options = ["--snapshot-every", "150", "--restart-grace", "2s", "--port", &port];
        let mut network = Network::start_as("/tcp/", &options);
        network.add_nodes(4, "wasm", &[]);
        let mut world = Self { network, random: seed | 1, jobs: vec![], seen: Seen::default() };
        world.submit();
        world
    }

    /// Submits one more picture, unlike the others.
    fn submit(&mut self) {
        let iterations = 200 + u32::try_from(self.jobs.len()).expect("few jobs");
        let folder = self.network.folder.path().join(format!("job-{iterations}"));
        fs::create_dir(&folder).expect("a folder");
        fs::copy(example("mandelbrot/build/mandelbrot.wasm"), folder.join("program.wasm"))
            .expect("a module");
        fs::write(folder.join("job.toml"), job_file(iterations)).expect("a job file");
        let id = self.network.submit(&folder.join("job.toml"), &[]);
        self.jobs.push(Job { id, iterations, accepted: 0, outputs: BTreeMap::new() });
    }

    /// Waits until more is accepted than was ever said to be.
    fn wait_for_progress(&mut self) {
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            let job = self.jobs.last_mut().expect("a job");
            let accepted = accepted(&self.network.coordinator.dir, &job.id);
            if accepted.is_some_and(|accepted| accepted > job.accepted) {
                job.accepted = accepted.unwrap_or(0);
                if job.accepted < UNITS {
                    return;
                }
                // Nothing is left to be in the middle of.
                self.submit();
            }
            assert!(Instant::now() < until, "no progress\n{}", self.network.logs());
        }
    }

    /// What was accepted in all, as far as was told.
    fn accepted(&self) -> u64 {
        self.jobs.iter().map(|job| job.accepted).sum()
    }

    /// Asks for proofs of what was accepted, now and then.
    fn ask(&mut self) {
        if self.draw().is_multiple_of(4) {
            let path = self.network.folder.path().join(format!("head-{}", self.seen.heads.len()));
            let into = path.to_str().expect("a plain path");
            self.network.owner(&["coordinator", "head", "--into", into]);
            self.seen.heads.push(path);
        }
        if self.draw().is_multiple_of(4) {
            let job = self.jobs.last_mut().expect("a job");
            let receipts =
                json(run_on(&self.network.coordinator.dir, &["job", "receipts", &job.id]));
            for receipt in receipts.as_array().expect("a list") {
                let (unit, output) = unit_and_output(receipt);
                let known = job.outputs.insert(unit, output.clone());
                assert!(known.is_none_or(|known| known == output), "unit {unit} changed");
                self.seen.receipts += 1;
            }
        }
    }

    /// From ten microseconds to a third of a second.
    fn pause(&mut self) {
        let exponent = f64::from(u32::try_from(self.draw() % 1000).expect("small")) / 1000.0;
        let pause = Duration::from_secs_f64(1e-5 * 33_000f64.powf(exponent));
        let until = Instant::now() + pause;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }

    fn kill(&mut self) {
        let before: Vec<u64> = self.jobs.iter().map(|job| job.accepted).collect();
        self.network.coordinator.kill();
        self.network.coordinator.restart();
        for (job, before) in self.jobs.iter().zip(before) {
            let accepted = accepted(&self.network.coordinator.dir, &job.id);
            assert!(
                accepted.is_some_and(|accepted| accepted >= before),
                "{before} were accepted before a kill, {accepted:?} after it\n{}",
                self.network.logs()
            );
        }
    }

    /// Lets everything come to its end, and checks it all.
    fn finish(&mut self) {
        let mut leaves = BTreeSet::new();
        let mut entries = 0;
        for job in &self.jobs {
            let network = &self.network;
            let info = network.wait_for_done(&job.id);
            assert_eq!(info["accepted"], UNITS, "{info:#}");
            let into = network.folder.path().join(format!("results-{}", job.iterations));
            let into_text = into.to_str().expect("a plain path");
            network.owner(&["job", "fetch", &job.id, "--into", into_text, "--executor", "wasm"]);

            // Every work unit once, and as it was told before.
            let output = dockercomp().args(["verify", into_text, "--output", "json"]).output();
            let verified = json(output.expect("the binary starts"));
            let mut units = BTreeSet::new();
            for receipt in verified.as_array().expect("a list") {
                let (unit, output) = unit_and_output(receipt);
                assert!(units.insert(unit), "unit {unit} has two receipts");
                let leaf = receipt["leaf"].as_u64().expect("a number");
                assert!(leaves.insert(leaf), "two receipts are entry {leaf} of the log");
                entries = receipt["log_entries"].as_u64().expect("a number").max(entries);
                let known = job.outputs.get(&unit);
                assert!(known.is_none_or(|known| *known == output), "unit {unit} changed");
            }
            assert!(units.into_iter().eq(0..UNITS), "units are missing");
            assert!(
                fs::read(into.join("result/mandelbrot.png")).expect("a picture")
                    == self.serial(job.iterations),
                "the picture is not the one that a serial run makes"
            );
        }
        assert_eq!(entries, UNITS * self.jobs.len() as u64, "the log has other entries");
        // Whatever head was ever shown, the last one carries it on.
        for head in &self.seen.heads {
            let last = head.with_extension("last");
            let [old, new] = [head, &last].map(|path| path.to_str().expect("a plain path"));
            self.network.owner(&["coordinator", "head", "--since", old, "--into", new]);
            let output = dockercomp().args(["verify", "--heads", old, new]).output();
            let output = output.expect("the binary starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// The picture as one process makes it, without any network.
    fn serial(&self, iterations: u32) -> Vec<u8> {
        let into = self.network.folder.path().join(format!("serial-{iterations}.png"));
        let ended = Command::new(example("mandelbrot/build/mandelbrot"))
            .args(["whole", "--columns", "16", "--rows", "16", "--width", "256"])
            .args(["--height", "160", "--iterations", &iterations.to_string(), "--into"])
            .arg(&into)
            .status();
        assert!(ended.expect("it starts").success());
        fs::read(into).expect("a picture")
    }

    /// xorshift64*
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn accepted(coordinator: &Path, job: &str) -> Option<u64> {
    let output = run_on(coordinator, &["job", "status", job]);
    serde_json::from_slice::<Value>(&output.stdout).ok()?["accepted"].as_u64()
}

fn unit_and_output(receipt: &Value) -> (u64, String) {
    let unit = receipt["unit"].as_u64().expect("a number");
    (unit, receipt["output"].as_str().expect("an id").to_owned())
}

fn job_file(iterations: u32) -> String {
    format!(
        r#"version = 1
name = "crash"
[program]
module = "file:program.wasm"
args = [
    "tile", "--column", "{{column}}", "--row", "{{row}}",
    "--columns", "16", "--rows", "16", "--width", "256", "--height", "160",
    "--iterations", "{iterations}",
]
[sweep]
column = {{ from = 0, to = 15 }}
row = {{ from = 0, to = 15 }}
[resources]
cpus = 0.25
memory = "32 MiB"
wall_time = "20s"
[validation]
policy = "fixed"
min_quorum = 2
target_nresults = 2
max_error_results = 8
max_total_results = 40
max_success_results = 8
delay_bound = "20s"
[collect]
args = [
    "assemble", "--columns", "16", "--rows", "16", "--width", "256", "--height", "160",
    "--iterations", "{iterations}",
]
"#
    )
}
