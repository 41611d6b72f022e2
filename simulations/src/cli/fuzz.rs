//! `fuzz`: small worlds drawn from seeds, and whether every promise was kept in them.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use clap::Args;
use rayon::prelude::*;
use serde::Serialize;

use super::Exit;
use crate::{Counters, Defect, Judgement, Outcome, Scenario, run, run_told};

/// Runs the real coordinator core and the real agent in simulated worlds.
///
/// Each world is drawn from its seed: hosts, jobs, rules, latencies, losses, crashes,
/// adversaries. The same seed gives the same world and the same run, bit for bit.
#[derive(Debug, Args)]
pub(super) struct Fuzz {
    /// Run the one world of this seed.
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "first_seed"])]
    seed: Option<u64>,

    /// Run this many worlds, with consecutive seeds.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seeds: u64,

    /// The first of these seeds.
    #[arg(long, value_name = "S", default_value_t = 1)]
    first_seed: u64,

    /// Run one calm world with this many hosts, and no faults, instead of drawn ones.
    #[arg(long, value_name = "HOSTS", requires = "units")]
    calm: Option<u32>,

    /// Work units of the calm world.
    #[arg(long, value_name = "UNITS", requires = "calm")]
    units: Option<u64>,

    /// Put a deliberate defect into the world, to see that it is found.
    #[arg(long, value_name = "NAME")]
    defect: Option<Defect>,

    /// Tell the story of the run on standard error: every event and decision.
    #[arg(long, requires = "seed")]
    trace: bool,

    /// Print only the summary.
    #[arg(long)]
    quiet: bool,

    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Seeds that are run before their lines are printed.
const SIDE_BY_SIDE: u64 = 64;

/// How one seed ended.
enum End {
    Ran(Box<Outcome>),
    Panicked { message: String },
}

/// A seed, for machines.
#[derive(Serialize)]
struct Line<'a> {
    seed: u64,
    judgement: &'static str,
    trace_hash: Option<&'a str>,
    #[serde(flatten)]
    counters: Option<&'a Counters>,
    violations: Vec<String>,
}

/// All seeds, for machines.
#[derive(Serialize)]
struct Summary {
    runs: u64,
    held: u64,
    liveness_violated: u64,
    safety_violated: u64,
    panicked: u64,
    first_failure: Option<u64>,
    #[serde(flatten)]
    counters: Counters,
    replicas_per_unit: f64,
    wall_seconds: f64,
    events_per_second: f64,
}

impl Fuzz {
    pub(super) fn run(self) -> Exit {
        let (first, runs) = self.seed.map_or((self.first_seed, self.seeds), |seed| (seed, 1));
        let started = wall_clock();
        let mut total = Total::default();
        let mut next = first;
        while next < first.saturating_add(runs) {
            // Side by side, and told in the order of their seeds.
            let until = first.saturating_add(runs).min(next + SIDE_BY_SIDE);
            let ends: Vec<(u64, End)> =
                (next..until).into_par_iter().map(|seed| (seed, one(&self, seed))).collect();
            for (seed, end) in &ends {
                if !self.quiet {
                    print_line(&self, *seed, end);
                }
                total.add(*seed, end);
            }
            next = until;
        }
        let wall = started.elapsed();
        if runs > 1 || self.quiet {
            print_summary(&self, &total, wall);
        } else if !self.json {
            let events = total.counters.events as f64;
            println!(
                "{events:.0} events in {wall:.2?}: {:.0} a second",
                events / wall.as_secs_f64()
            );
        }
        let Some((seed, exit)) = total.failure else { return Exit::Held };
        eprintln!("seed {seed} failed; replay it with: {}", replay(&self, seed));
        exit
    }
}

#[expect(clippy::disallowed_methods, reason = "how long the simulation itself took")]
fn wall_clock() -> std::time::Instant {
    std::time::Instant::now()
}

fn one(args: &Fuzz, seed: u64) -> End {
    let mut scenario = match (args.calm, args.units) {
        (Some(hosts), Some(units)) => Scenario::calm(hosts, units),
        _ => Scenario::fuzz(seed),
    };
    scenario.defect = args.defect;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        if args.trace {
            run_told(&scenario, seed, &mut |line| eprintln!("{line}"))
        } else {
            run(&scenario, seed)
        }
    }));
    match ran {
        Ok(outcome) => End::Ran(Box::new(outcome)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            End::Panicked { message: text.unwrap_or_else(|| "a panic without a message".into()) }
        }
    }
}

/// The command that runs one seed again, with its story.
fn replay(args: &Fuzz, seed: u64) -> String {
    let mut command = format!("dockercomp-sim fuzz --seed {seed} --trace");
    if let (Some(hosts), Some(units)) = (args.calm, args.units) {
        let _ = write!(command, " --calm {hosts} --units {units}");
    }
    if let Some(defect) = args.defect {
        let name = clap::ValueEnum::to_possible_value(&defect);
        let name = name.as_ref().map_or("", |name| name.get_name());
        let _ = write!(command, " --defect {name}");
    }
    command
}

/// The sum of all seeds.
#[derive(Default)]
struct Total {
    counters: Counters,
    held: u64,
    liveness: u64,
    safety: u64,
    panicked: u64,
    /// The seed that is named, and the worst exit.
    failure: Option<(u64, Exit)>,
}

impl Total {
    fn add(&mut self, seed: u64, end: &End) {
        if let End::Ran(outcome) = end {
            self.counters.add(&outcome.counters);
        }
        let (count, exit) = match end.judgement() {
            Some(Judgement::Held) => {
                self.held += 1;
                return;
            }
            None => (&mut self.panicked, Exit::Panicked),
            Some(Judgement::SafetyViolated) => (&mut self.safety, Exit::Safety),
            Some(Judgement::LivenessViolated) => (&mut self.liveness, Exit::Liveness),
        };
        *count += 1;
        if self.failure.is_none_or(|(_, worst)| exit > worst) {
            self.failure = Some((seed, exit));
        }
    }
}

impl End {
    fn judgement(&self) -> Option<Judgement> {
        match self {
            Self::Ran(outcome) => Some(outcome.judgement()),
            Self::Panicked { .. } => None,
        }
    }

    fn label(&self) -> &'static str {
        match self.judgement() {
            Some(Judgement::Held) => "held",
            Some(Judgement::LivenessViolated) => "liveness violated",
            Some(Judgement::SafetyViolated) => "safety violated",
            None => "panicked",
        }
    }

    fn problems(&self) -> Vec<String> {
        match self {
            Self::Ran(outcome) => outcome.violations.iter().map(ToString::to_string).collect(),
            Self::Panicked { message } => vec![message.clone()],
        }
    }
}

fn print_line(args: &Fuzz, seed: u64, end: &End) {
    let outcome = match end {
        End::Ran(outcome) => Some(outcome),
        End::Panicked { .. } => None,
    };
    if args.json {
        let line = Line {
            seed,
            judgement: end.label(),
            trace_hash: outcome.map(|outcome| outcome.trace_hash.as_str()),
            counters: outcome.map(|outcome| &outcome.counters),
            violations: end.problems(),
        };
        let text = serde_json::to_string(&line).expect("plain values can be written");
        println!("{text}");
        return;
    }
    let mut line = format!("seed {seed}: {}", end.label());
    if let Some(outcome) = outcome {
        let c = &outcome.counters;
        let _ = write!(
            line,
            "; units {} (accepted {}, failed {}, wrong {}), replicas {} (valid {}, invalid {}, \
             errors {}, no reply {}), crashes {}+{}, virtual {:.0} s, events {}, trace {:.16}",
            c.units,
            c.accepted,
            c.failed,
            c.wrong_accepted,
            c.replicas,
            c.valid,
            c.invalid,
            c.errors,
            c.no_reply,
            c.host_crashes,
            c.coordinator_crashes,
            c.virtual_seconds,
            c.events,
            outcome.trace_hash,
        );
    }
    println!("{line}");
    for problem in end.problems() {
        println!("  {problem}");
    }
}

fn print_summary(args: &Fuzz, total: &Total, wall: Duration) {
    let Total { counters, held, liveness, safety, panicked, failure } = total;
    let summary = Summary {
        runs: held + liveness + safety + panicked,
        held: *held,
        liveness_violated: *liveness,
        safety_violated: *safety,
        panicked: *panicked,
        first_failure: failure.map(|(seed, _)| seed),
        counters: *counters,
        replicas_per_unit: counters.replicas_per_unit(),
        wall_seconds: wall.as_secs_f64(),
        events_per_second: counters.events as f64 / wall.as_secs_f64(),
    };
    if args.json {
        println!("{}", serde_json::to_string(&summary).expect("plain values can be written"));
        return;
    }
    println!(
        "{} runs: {held} held, {safety} violated safety, {liveness} violated liveness, {panicked} \
         panicked; {} units, {:.3} replicas a unit, {} host and {} coordinator crashes, {} events \
         in {wall:.2?} ({:.0} a second)",
        summary.runs,
        counters.units,
        summary.replicas_per_unit,
        counters.host_crashes,
        counters.coordinator_crashes,
        counters.events,
        summary.events_per_second,
    );
}
