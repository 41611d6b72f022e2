//! How fast the simulator is: thirty simulated days of a workload like BOINC's, or as many as
//! are named, at several numbers of hosts, by the full engine, on one core.
//!
//! ```sh
//! make bench-sim HOSTS='1000 10000 100000 1000000:1'    # a million for one day
//! ```
//!
//! Hosts come and go as those of SETI@home did and have their speeds, one core each; units run
//! for 6 to 18 hours on the median host and come from a job that does not end; two equal
//! results make one. A host with nothing to say is in touch every six hours.
//!
//! Each size runs in a process of its own, so that the most memory it had is its own.

use std::fmt;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use dockercomp_simulations::{Churn, Distribution, Scenario, Spread, run};
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long hosts are simulated for unless it is said.
const DAYS: u32 = 30;
const HOUR: Duration = Duration::from_secs(3600);
/// More than a host can do.
const UNITS_PER_HOST_AND_DAY: u64 = 10;
/// Events per second that Shadow reports for Tor, on 28 workers: packets and system calls, not
/// decisions of a scheduler.
const SHADOW: f64 = 0.9e6;
/// What one core is to do.
const EVENTS_GOAL: f64 = 1e6;
const IDLE_BYTES_GOAL: f64 = 2048.0;
/// Of 100,000 hosts for thirty days.
const WALL_GOAL_S: f64 = 300.0;

/// What is simulated: so many hosts for so many days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    hosts: u32,
    days: u32,
}

impl FromStr for Size {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (hosts, days) = text.split_once(':').unwrap_or((text, ""));
        let days = if days.is_empty() { DAYS } else { days.parse()? };
        Ok(Self { hosts: hosts.parse()?, days })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hosts, days } = self;
        write!(f, "{hosts} hosts, {days} days")
    }
}

/// What one process measured.
#[derive(Serialize, Deserialize)]
struct Measured {
    events: u64,
    replicas: u64,
    wall_s: f64,
    /// The most memory it had beyond what it began with.
    bytes: u64,
    trace: String,
}

/// One line of the table.
#[derive(Serialize)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    against: &'static str,
    /// Value by what it is held against.
    ratio: Option<f64>,
}

fn main() {
    // What cargo adds when it runs all benches.
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (mut json, mut sizes) = (None, Vec::new());
    while let Some(arg) = args.next() {
        let mut size = || args.next().and_then(|arg| arg.parse().ok()).expect("a size");
        match arg.as_str() {
            "--json" => json = args.next(),
            "--one" => return one(&boinc(size())),
            "--idle" => return one(&idle(size())),
            _ => sizes.push(arg.parse().expect("a number of hosts, or one and days after a colon")),
        }
    }
    if sizes.is_empty() {
        sizes.push(Size { hosts: 1000, days: DAYS });
    }
    let rows = table(&sizes);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&rows).expect("plain values can be written");
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

fn table(sizes: &[Size]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name, value, unit, against, base: Option<f64>| {
        let ratio = base.map(|base| value / base);
        let shown = ratio.map_or(String::new(), |ratio| format!("{ratio:.2} of {against}"));
        println!("{name:<34} {value:>14.1} {unit:<10} {shown}");
        rows.push(Row { name, value, unit, against, ratio });
    };
    let hosts = 200_000;
    if let Some(idle) = child("--idle", Size { hosts, days: 1 }) {
        let bytes = idle.bytes as f64 / f64::from(hosts);
        add("idle host".into(), bytes, "B", "goal 2 KiB", Some(IDLE_BYTES_GOAL));
    }
    let mut fastest: f64 = 0.0;
    for &size in sizes {
        let Some(measured) = child("--one", size) else {
            println!("{size}: did not end");
            break;
        };
        let Measured { events, replicas, wall_s, bytes, trace } = measured;
        let name = |what: &str| format!("{size}: {what}");
        let goal = (size == Size { hosts: 100_000, days: DAYS }).then_some(WALL_GOAL_S);
        add(name("time"), wall_s, "s", "goal 300 s for 100,000", goal);
        add(name("events"), events as f64, "events", "", None);
        add(name("replicas"), replicas as f64, "replicas", "", None);
        let rate = events as f64 / wall_s;
        add(name("rate"), rate, "events/s", "goal 1 M/s", Some(EVENTS_GOAL));
        add(name("memory"), bytes as f64 / 1e6, "MB", "", None);
        println!("{:<34} trace {trace:.16}", "");
        fastest = fastest.max(rate);
    }
    let against = "Shadow's 0.9 M/s on 28 workers, of another kind of event";
    add("fastest, one core".into(), fastest, "events/s", against, Some(SHADOW));
    rows
}

/// Measures in a process of its own; nothing if it did not end well.
fn child(what: &str, Size { hosts, days }: Size) -> Option<Measured> {
    let program = std::env::current_exe().expect("a running program has a path");
    let mut command = Command::new(program);
    let command = command.args([what, &format!("{hosts}:{days}")]).stderr(Stdio::inherit());
    let output = command.output().ok()?;
    output.status.success().then(|| serde_json::from_slice(&output.stdout).ok())?
}

#[expect(clippy::disallowed_methods, reason = "how long the simulation itself took")]
fn one(scenario: &Scenario) {
    let before = peak();
    let began = Instant::now();
    let outcome = run(scenario, 1);
    let measured = Measured {
        events: outcome.counters.events,
        replicas: outcome.counters.replicas,
        wall_s: began.elapsed().as_secs_f64(),
        bytes: peak().saturating_sub(before),
        trace: outcome.trace_hash,
    };
    println!("{}", serde_json::to_string(&measured).expect("plain values can be written"));
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn hours(hours: f64) -> f64 {
    hours * HOUR.as_micros() as f64
}

/// What is still under way at the end is left there.
fn boinc(Size { hosts, days }: Size) -> Scenario {
    let units = u64::from(hosts) * u64::from(days) * UNITS_PER_HOST_AND_DAY;
    let mut scenario = Scenario::calm(hosts, units);
    // Up for 15.6 hours and down for 11.9 on average: see `availability-boinc.toml`.
    let churn = Churn {
        up: Spread::Law(Distribution::Gamma { shape: 0.357, scale: hours(43.652) }),
        down: Spread::Law(Distribution::HyperExponential {
            weights: vec![0.338, 0.390, 0.272],
            means: vec![hours(34.482_759), hours(0.0332), hours(0.935_454)],
        }),
        departs: 0.0,
        day: None,
    };
    let crowd = &mut scenario.crowds[0];
    (crowd.cores, crowd.churn) = (Spread::Fixed(1), Some(churn));
    crowd.joins = Spread::times(Duration::ZERO, DAY);
    let job = &mut scenario.jobs[0];
    job.run = Spread::times(6 * HOUR, 18 * HOUR);
    job.fetch = Spread::times(Duration::from_secs(10), Duration::from_secs(300));
    job.validation.delay_bound_ms = 7 * 24 * 3_600_000;
    let plan = &mut scenario.coordinator;
    (plan.heartbeat, plan.retry) = (6 * HOUR, 6 * HOUR);
    plan.core.nodes_present_max = hosts as usize;
    scenario.faults_end = days * DAY;
    scenario.patience = Duration::ZERO;
    scenario
}

/// A day in which there is nothing to do but to be in touch.
fn idle(size: Size) -> Scenario {
    let mut scenario = boinc(size);
    scenario.crowds[0].churn = None;
    scenario.jobs[0].submit = 2 * DAY;
    scenario
}
