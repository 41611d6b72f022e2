//! What a scenario means with real processes: the one place where the two are mapped.
//!
//! | Key | In the lab |
//! |---|---|
//! | `population`, `hosts.*.count`, `share` | one process each, at most [`HOSTS_MAX`] |
//! | `hosts.*.behaviour` | `honest`, or `saboteur` at rate 1 with an answer of its own: `--fault wrong-results` |
//! | `hosts.*.cores`, `operators`, `joins` | `--cpus`, `--operator`, when the process is started |
//! | `hosts.*.churn`, `trace`, `faults.end` | `kill -9` and a start on the same directory, at the moments that the model draws; who departs is not started again |
//! | `hosts.*.startup`, `prepare`, `staging`, `jobs.*.fetch`, `network.latency`, `network.timeout`, `coordinator.sync`, `coordinator.pull` | as this machine has them: the model is told, the lab finds out |
//! | `hosts.*.cuts` | a network namespace for each group, whose link goes down and up; needs root |
//! | `jobs.*.units`, `submit`, `validation` | a job file |
//! | `jobs.*.run` | how long a unit waits: for all alike, or drawn for each unit (`run_per = "unit"`) |
//! | `coordinator.resume_grace`, `outputs_lost_after` | `--restart-grace`, `--outputs-lost-after` |
//! | `coordinator.heartbeat`, `retry` | must say what a real coordinator says |
//!
//! Time is real: a second of the scenario is a second here, since the rhythms of a real
//! coordinator cannot be scaled. What else a scenario says is refused, and the key named.
//!
//! Units wait instead of computing: a few processors cannot be those of twenty hosts at once,
//! and would make a makespan of their own.

use std::fmt;
use std::time::Duration;

use dockercomp_coordinator_core::Config as CoreConfig;
use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::limits::SWEEP_VALUES_MAX;

use crate::behaviour::Behaviour;
use crate::file::compile::volunteers;
use crate::file::section::{Coordinator, Faults, Hosts, Job, Kind, Network, Volunteers};
use crate::file::{Document, FileError, read};
use crate::random::Spread;
use crate::scenario::{Crowd, DepartedOutputs, Engine, RunPer, Scenario};
use crate::weather::{Nature, Spells};

/// Processes that one machine is trusted with.
pub(crate) const HOSTS_MAX: u32 = 60;
/// The longest that a run may take.
pub(crate) const LENGTH_MAX: Duration = Duration::from_secs(30 * 60);
/// The rhythms of a real coordinator of few nodes: `HEARTBEAT` and `RETRY` of its `work`.
const HEARTBEAT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(60);

/// A scenario that the lab can carry out.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// As the model runs it: with the executor of the lab alone.
    pub(crate) scenario: Scenario,
    pub(crate) executor: ExecutorKind,
}

/// What is done to the network, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// A host is switched on.
    Start { host: u32 },
    /// A job is submitted.
    Submit { job: u32 },
    /// A host crashes.
    Kill { host: u32 },
    /// A group of hosts is cut off.
    Cut { group: usize },
    /// Its link is mended.
    Mend { group: usize },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { host } => write!(f, "host {host} is switched on"),
            Self::Submit { job } => write!(f, "job {job} is submitted"),
            Self::Kill { host } => write!(f, "host {host} crashes"),
            Self::Cut { group } => write!(f, "group {group} is cut off"),
            Self::Mend { group } => write!(f, "group {group} is back"),
        }
    }
}

impl Plan {
    /// # Errors
    /// If the scenario asks for something that the lab cannot do, with its key.
    pub(crate) fn new(document: &Document, executor: ExecutorKind) -> Result<Self, FileError> {
        if document.kind != "volunteers" {
            let reason = format!("is {:?}: the lab runs volunteers only", document.kind);
            return Err(FileError::invalid("kind", reason));
        }
        let cells = document.cells()?;
        let [cell] = &cells[..] else {
            let reason = format!("makes {} cells: the lab runs one", cells.len());
            return Err(FileError::invalid("sweep", reason));
        };
        let body = document.body(cell)?;
        let written: Volunteers = read(body.clone())?;
        let mut scenario = volunteers(body)?;
        check(&written, &scenario, executor)?;
        scenario.crowds.iter_mut().for_each(|crowd| crowd.executors = vec![executor]);
        scenario.jobs.iter_mut().for_each(|job| job.executors = vec![executor]);
        Ok(Self { scenario, executor })
    }

    /// Whether groups of hosts are cut off.
    pub(crate) fn has_cuts(&self) -> bool {
        self.scenario.crowds.iter().any(|crowd| !crowd.cuts.is_empty())
    }

    /// When patience ends.
    pub(crate) fn limit(&self) -> Duration {
        self.scenario.faults_end.saturating_add(self.scenario.patience).min(LENGTH_MAX)
    }

    /// Everything that will be done, in order, if the run takes as long.
    pub(crate) fn steps(&self, seed: u64) -> Vec<(Duration, Step)> {
        let mut steps = Vec::new();
        for (job, plan) in (0..).zip(&self.scenario.jobs) {
            steps.push((plan.submit, Step::Submit { job }));
        }
        let end = self.scenario.faults_end;
        for (group, crowd) in self.scenario.crowds.iter().enumerate() {
            for cut in crowd.cuts.iter().filter(|cut| cut.at < end) {
                steps.push((cut.at, Step::Cut { group }));
                steps.push((cut.end().min(end), Step::Mend { group }));
            }
        }
        for host in 0..self.scenario.hosts() {
            let Some(crowd) = self.scenario.crowd_of(host) else { continue };
            let mut at = Nature::of(seed, host, crowd).joins;
            steps.push((at, Step::Start { host }));
            let Some(mut spells) = Spells::of(seed, host, crowd) else { continue };
            loop {
                at += spells.up(at);
                if at >= end {
                    break;
                }
                steps.push((at, Step::Kill { host }));
                let Some(down) = spells.down(at) else { break };
                at += down;
                steps.push((at, Step::Start { host }));
            }
        }
        steps.sort();
        steps
    }
}

fn check(
    written: &Volunteers,
    scenario: &Scenario,
    executor: ExecutorKind,
) -> Result<(), FileError> {
    // Named one by one: a new key must not compile until it is considered here.
    let Volunteers {
        engine,
        population,
        hosts,
        jobs,
        network,
        coordinator,
        faults,
        patience: _,
        defect,
    } = written;
    demand(
        *engine == Engine::Full,
        "engine",
        "is direct; the lab is held against the full engine",
    )?;
    let n_hosts = scenario.hosts().max(*population);
    let reason = format!("is {n_hosts}; the lab runs at most {HOSTS_MAX} hosts on one machine");
    demand(n_hosts <= HOSTS_MAX, "population", reason)?;
    demand(defect.is_none(), "defect", "is for the model: real processes have no switch for it")?;
    for (name, group) in hosts {
        check_hosts(&format!("hosts.{name}"), group, executor)?;
    }
    for (crowd, name) in scenario.crowds.iter().zip(hosts.keys()) {
        let place = |key: &str| format!("hosts.{name}.{key}");
        let reason = "must be \"3.36 GFLOPS\": a unit waits as long on every host";
        demand(crowd.speed == Spread::Fixed(100), place("speed"), reason)?;
        let reason = "must be 0: all processes read one clock";
        demand(crowd.clock_ahead == Spread::Fixed(0), place("clock_ahead"), reason)?;
        demand(
            matches!(crowd.behaviour, Behaviour::Honest | Behaviour::SABOTEUR),
            place("behaviour"),
            "must be honest, or saboteur at rate 1 with an answer of its own",
        )?;
    }
    for ((name, job), plan) in jobs.iter().zip(&scenario.jobs) {
        check_job(&format!("jobs.{name}"), job, plan.run.mean(), executor)?;
        let reason = "must be the same for all replicas: state one time, or run_per = \"unit\"";
        let is_the_units = plan.run_per == RunPer::Unit || matches!(plan.run, Spread::Fixed(_));
        demand(is_the_units, format!("jobs.{name}.run"), reason)?;
    }
    if let Some(Network { latency: _, loss, duplication, timeout: _ }) = network {
        let reason = "must be 0: loopback loses and doubles nothing";
        demand(loss.unwrap_or(0.0) == 0.0, "network.loss", reason)?;
        demand(duplication.unwrap_or(0.0) == 0.0, "network.duplication", reason)?;
    }
    check_coordinator(coordinator.as_ref(), scenario)?;
    if let Some(Faults { end, reinforcements, departed_outputs: _ }) = faults {
        demand(*reinforcements == 0, "faults.reinforcements", "must be 0: the lab has none")?;
        let reason = format!("is {:?}; the lab runs in real time, {LENGTH_MAX:?} at most", end.0);
        demand(end.0 <= LENGTH_MAX, "faults.end", reason)?;
    }
    let departs = |crowd: &Crowd| {
        !crowd.trace.is_empty() || crowd.churn.as_ref().is_some_and(|churn| churn.departs > 0.0)
    };
    let some_depart = scenario.crowds.iter().any(departs);
    let are_lost = scenario.departed_outputs == DepartedOutputs::Lost;
    let reason = "must be \"lost\": nobody serves what departed with a process";
    demand(!some_depart || are_lost, "faults.departed_outputs", reason)
}

/// What cannot be seen any more once it is compiled.
fn check_hosts(place: &str, group: &Hosts, executor: ExecutorKind) -> Result<(), FileError> {
    let Hosts {
        count: _,
        share: _,
        behaviour,
        rate: _,
        answer: _,
        together: _,
        wakes_after: _,
        detects: _,
        speed: _,
        cores: _,
        executors,
        operators: _,
        clock_ahead: _,
        joins: _,
        startup: _,
        prepare: _,
        staging: _,
        churn: _,
        trace: _,
        cuts: _,
    } = group;
    let reason = "is not what the binary can do; honest or saboteur";
    let is_known = matches!(behaviour, Kind::Honest | Kind::Saboteur);
    demand(is_known, format!("{place}.behaviour"), reason)?;
    demand_executor(place, executors.as_deref(), executor)
}

fn check_job(
    place: &str,
    job: &Job,
    run_mean_micros: f64,
    executor: ExecutorKind,
) -> Result<(), FileError> {
    let Job {
        units,
        run: _,
        work: _,
        run_per: _,
        fetch: _,
        submit,
        cancel,
        executors,
        validation: _,
    } = job;
    let units_max = SWEEP_VALUES_MAX as u64;
    let reason = format!("is {units}; the lab names each, and can name {units_max}");
    demand(*units <= units_max, format!("{place}.units"), reason)?;
    let is_short = run_mean_micros <= LENGTH_MAX.as_micros() as f64;
    let reason = format!("the lab runs in real time, {LENGTH_MAX:?} at most");
    demand(is_short, format!("{place}.run"), &reason)?;
    let is_soon = submit.is_none_or(|submit| submit.0 <= LENGTH_MAX);
    demand(is_soon, format!("{place}.submit"), &reason)?;
    demand(cancel.is_none(), format!("{place}.cancel"), "cannot be done in the lab yet")?;
    demand_executor(place, executors.as_deref(), executor)
}

fn check_coordinator(written: Option<&Coordinator>, scenario: &Scenario) -> Result<(), FileError> {
    let plan = &scenario.coordinator;
    let says = |said: Duration, real: Duration| format!("is {said:?}; a real one says {real:?}");
    let reason = says(plan.heartbeat, HEARTBEAT);
    demand(plan.heartbeat == HEARTBEAT, "coordinator.heartbeat", reason)?;
    demand(plan.retry == RETRY, "coordinator.retry", says(plan.retry, RETRY))?;
    let Some(Coordinator {
        sync: _,
        pull: _,
        heartbeat: _,
        retry: _,
        outputs_lost_after: _,
        resume_grace: _,
        leases_per_node_max: _,
        expiries_per_step_max: _,
        nodes_present_max: _,
        churn,
        compare_every: _,
    }) = written
    else {
        return Ok(());
    };
    demand(churn.is_none(), "coordinator.churn", "cannot be done in the lab yet")?;
    let usual = CoreConfig { resume_grace: plan.core.resume_grace, ..CoreConfig::default() };
    let reason = "its limits must be the usual ones: a real coordinator has no option for them";
    demand(plan.core == usual, "coordinator", reason)
}

fn demand_executor(
    place: &str,
    stated: Option<&[ExecutorKind]>,
    executor: ExecutorKind,
) -> Result<(), FileError> {
    let reason = format!("has not the one that the lab runs now ({executor})");
    let has_it = stated.is_none_or(|stated| stated.contains(&executor));
    demand(has_it, format!("{place}.executors"), reason)
}

fn demand(
    condition: bool,
    place: impl Into<String>,
    reason: impl ToString,
) -> Result<(), FileError> {
    if condition { Ok(()) } else { Err(FileError::invalid(place, reason)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::merge;
    use crate::run;

    const SMALL: &str = r#"
        schema = 1
        kind = "volunteers"
        population = 6
        patience = "10m"
        [hosts.honest]
        speed = "3.36 GFLOPS"
        cores = 1
        joins = "0s"
        churn = { up = "20s..40s", down = "5s..10s", departs = 0.2 }
        [hosts.saboteurs]
        count = 1
        behaviour = "saboteur"
        speed = "3.36 GFLOPS"
        joins = "1s..3s"
        [jobs.j]
        units = 4
        run = "1s..2s"
        run_per = "unit"
        submit = "180s"
        validation = { policy = "fixed", min_quorum = 2 }
        [coordinator]
        retry = "60s"
        [faults]
        end = "150s"
        departed_outputs = "lost"
    "#;

    fn plan(settings: &[(&str, &str)]) -> Result<Plan, FileError> {
        let mut table: toml::Table = toml::from_str(SMALL).expect("TOML");
        for (path, value) in settings {
            let (path, value) =
                merge::parse_setting(&format!("{path}={value}")).expect("a setting");
            merge::set(&mut table, &path, value).expect("a path");
        }
        Plan::new(&Document::new("small".into(), table)?, ExecutorKind::Wasm)
    }

    #[test]
    fn what_the_lab_cannot_do_is_refused_by_its_key() {
        plan(&[]).expect("it can be done");
        for (path, value) in [
            ("engine", "\"direct\""),
            ("population", "100"),
            ("defect", "\"lying-disk\""),
            ("hosts.honest.speed", "\"10 GFLOPS\""),
            ("hosts.honest.clock_ahead", "\"1s\""),
            ("hosts.honest.executors", "[\"docker\"]"),
            ("hosts.saboteurs.behaviour", "\"lazy\""),
            ("jobs.j.cancel", "\"10s\""),
            ("jobs.j.run", "\"5h\""),
            ("network.loss", "0.1"),
            ("network.duplication", "0.1"),
            ("coordinator.retry", "\"15s\""),
            ("coordinator.heartbeat", "\"1s\""),
            ("faults.end", "\"2d\""),
            ("faults.reinforcements", "3"),
            ("faults.departed_outputs", "\"reachable\""),
        ] {
            let error = plan(&[(path, value)]).expect_err(path).to_string();
            // The direct engine refuses by itself what it has not.
            let place = if path == "engine" { "faults" } else { path };
            assert!(error.starts_with(&format!("{place}: ")), "{path}: {error}");
        }
        let error = plan(&[("hosts.saboteurs.rate", "0.5")]).expect_err("a rate").to_string();
        assert!(error.starts_with("hosts.saboteurs.behaviour: "), "{error}");
        let error = plan(&[("jobs.j.run_per", "\"replica\"")]).expect_err("a law").to_string();
        assert!(error.starts_with("jobs.j.run: "), "{error}");
    }

    /// The lab kills whom the model kills, as often.
    #[test]
    fn model_and_lab_have_the_same_weather() {
        let plan = plan(&[]).expect("a plan");
        for seed in 1..=20 {
            let steps = plan.steps(seed);
            let count = |is_it: fn(&Step) -> bool| {
                steps.iter().filter(|(_, step)| is_it(step)).count() as u64
            };
            let kills = count(|step| matches!(step, Step::Kill { .. }));
            assert!(kills > 5, "{kills}");
            assert_eq!(run(&plan.scenario, seed).counters.host_crashes, kills, "seed {seed}");
            assert!(steps.is_sorted());
            let starts = count(|step| matches!(step, Step::Start { .. }));
            assert!((6..=6 + kills).contains(&starts), "{starts} starts");
        }
    }
}
