//! How fast the simulator is: thirty simulated days of a workload like BOINC's, at several
//! numbers of hosts, by the full engine, on one core.
//!
//! ```sh
//! make bench-sim HOSTS='1000 10000 100000'
//! ```
//!
//! Hosts come and go as those of SETI@home did and have their speeds, one core each; units run
//! for 6 to 18 hours on the median host and come from a job that does not end; two equal
//! results make one. A host with nothing to say is in touch every six hours.
//!
//! Each size runs in a process of its own, so that the most memory it had is its own.

use std::process::Command;
use std::time::{Duration, Instant};

use dockercomp_simulations::{Churn, Distribution, Scenario, Spread, run};
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);
/// More than a host can do in thirty days.
const UNITS_PER_HOST: u64 = 300;
/// Events per second that Shadow reports for Tor, on 28 workers: packets and system calls, not
/// decisions of a scheduler.
const SHADOW: f64 = 0.9e6;
/// What one core is to do.
const EVENTS_GOAL: f64 = 1e6;
const IDLE_BYTES_GOAL: f64 = 2048.0;
/// Of 100,000 hosts for thirty days.
const WALL_GOAL_S: f64 = 300.0;

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
        let mut number = || args.next().and_then(|arg| arg.parse().ok()).expect("a number");
        match arg.as_str() {
            "--json" => json = args.next(),
            "--one" => return one(&boinc(number())),
            "--idle" => return one(&idle(number())),
            _ => sizes.push(arg.parse::<u32>().expect("a number of hosts")),
        }
    }
    if sizes.is_empty() {
        sizes.push(1000);
    }
    let rows = table(&sizes);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&rows).expect("plain values can be written");
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

fn table(sizes: &[u32]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name, value, unit, against, base: Option<f64>| {
        let ratio = base.map(|base| value / base);
        let shown = ratio.map_or(String::new(), |ratio| format!("{ratio:.2} of {against}"));
        println!("{name:<34} {value:>14.1} {unit:<10} {shown}");
        rows.push(Row { name, value, unit, against, ratio });
    };
    let hosts = 200_000;
    if let Some(idle) = child("--idle", hosts) {
        let bytes = idle.bytes as f64 / f64::from(hosts);
        add("idle host".into(), bytes, "B", "goal 2 KiB", Some(IDLE_BYTES_GOAL));
    }
    let mut fastest: f64 = 0.0;
    for &hosts in sizes {
        let Some(measured) = child("--one", hosts) else {
            println!("{hosts} hosts, 30 days: did not end (memory?)");
            break;
        };
        let Measured { events, replicas, wall_s, bytes, trace } = measured;
        let name = |what: &str| format!("{hosts} hosts, 30 days: {what}");
        let goal = (hosts == 100_000).then_some(WALL_GOAL_S);
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
fn child(what: &str, hosts: u32) -> Option<Measured> {
    let program = std::env::current_exe().expect("a running program has a path");
    let output = Command::new(program).args([what, &hosts.to_string()]).output().ok()?;
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

/// Thirty days. What is still under way then is left there.
fn boinc(hosts: u32) -> Scenario {
    let mut scenario = Scenario::calm(hosts, u64::from(hosts) * UNITS_PER_HOST);
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
    scenario.faults_end = 30 * DAY;
    scenario.patience = Duration::ZERO;
    scenario
}

/// A day in which there is nothing to do but to be in touch.
fn idle(hosts: u32) -> Scenario {
    let mut scenario = boinc(hosts);
    scenario.crowds[0].churn = None;
    scenario.jobs[0].submit = 2 * DAY;
    scenario.faults_end = DAY;
    scenario
}
