//! From sections to a scenario: units, defaults, and everything that cannot be.
//!
//! Defaults are those of [`Scenario::calm`]; a speed is relative to the reference host.

use dockercomp_protocol::job::Validation;
use toml::Table;

use super::error::FileError;
use super::quantity::{Dimension, Time, Written};
use super::section::{AnswerKind, Churn, Hosts, Job, Kind, Volunteers};
use super::{policy, read, section, spells};
use crate::behaviour::{Answer, Behaviour, Deceit, Wakes};
use crate::random::Spread;
use crate::scenario::{self, Crowd, Cut, Day, Engine, JobPlan, Scenario};

/// The median host of SETI@home in 2016, in MFLOPS: what a speed of 100 percent is.
pub(super) const REFERENCE_MFLOPS: f64 = 3360.0;

/// Reads the table of `kind = "volunteers"`.
pub(crate) fn volunteers(body: Table) -> Result<Scenario, FileError> {
    let written: Volunteers = read(body)?;
    let mut scenario = Scenario::calm(0, 1);
    scenario.engine = written.engine;
    scenario.defect = written.defect;
    scenario.crowds = crowds(&written)?;
    if written.jobs.is_empty() {
        return Err(FileError::invalid("jobs", "there is none: write a [jobs.NAME]"));
    }
    scenario.jobs = Vec::new();
    for (name, job) in &written.jobs {
        scenario.jobs.push(plan(&format!("jobs.{name}"), job, written.population)?);
    }
    if let Some(network) = &written.network {
        self::network(&mut scenario.network, network)?;
    }
    if let Some(coordinator) = &written.coordinator {
        self::coordinator(&mut scenario.coordinator, coordinator)?;
    }
    if let Some(faults) = &written.faults {
        scenario.faults_end = faults.end.0;
        scenario.reinforcements = faults.reinforcements;
        scenario.departed_outputs = faults.departed_outputs;
    }
    if let Some(Time(patience)) = written.patience {
        scenario.patience = patience;
    }
    check_engine(&written)?;
    scenario.check().map_err(|reason| FileError::invalid("jobs", reason))?;
    Ok(scenario)
}

/// The direct engine has no network, journal or crashes; asking for them is a mistake.
fn check_engine(written: &Volunteers) -> Result<(), FileError> {
    let refuse = |place: &str| {
        let reason = "means nothing with engine = \"direct\"; write engine = \"full\"";
        Err(FileError::invalid(place, reason))
    };
    if written.engine == Engine::Full {
        return Ok(());
    }
    if written.network.is_some() {
        return refuse("network");
    }
    if written.faults.is_some() {
        return refuse("faults");
    }
    for (name, hosts) in &written.hosts {
        let foreign = [
            (hosts.churn.is_some(), "churn"),
            (!hosts.cuts.is_empty(), "cuts"),
            (hosts.trace.is_some(), "trace"),
            (hosts.startup.is_some(), "startup"),
            (hosts.prepare.is_some(), "prepare"),
            (hosts.staging.is_some(), "staging"),
        ];
        if let Some((_, key)) = foreign.into_iter().find(|(is_there, _)| *is_there) {
            return refuse(&format!("hosts.{name}.{key}"));
        }
        if hosts.behaviour == Kind::Thief {
            return refuse(&format!("hosts.{name}.behaviour"));
        }
    }
    Ok(())
}

/// The groups of hosts, in the order of their names.
fn crowds(written: &Volunteers) -> Result<Vec<Crowd>, FileError> {
    let population = written.population;
    if population == 0 {
        return Err(FileError::invalid("population", "is 0: an empty network computes nothing"));
    }
    let mut counts = Vec::new();
    for (name, hosts) in &written.hosts {
        let place = format!("hosts.{name}");
        counts.push(match (hosts.count, hosts.share) {
            (Some(_), Some(_)) => {
                return Err(FileError::invalid(place, "states both count and share"));
            }
            (Some(count), None) => Some(count),
            (None, Some(share)) => {
                probability(&format!("{place}.share"), share)?;
                Some((share * f64::from(population)).round() as u32)
            }
            (None, None) => None,
        });
    }
    let stated: u64 = counts.iter().flatten().map(|&count| u64::from(count)).sum();
    let open = counts.iter().filter(|count| count.is_none()).count();
    let rest = u64::from(population).checked_sub(stated).filter(|&rest| open > 0 || rest == 0);
    let Some(rest) = rest else {
        let reason = format!("the groups have {stated} hosts, population is {population}");
        return Err(FileError::invalid("hosts", reason));
    };
    if open > 1 {
        return Err(FileError::invalid("hosts", "only one group may leave out count and share"));
    }
    let rest = u32::try_from(rest).unwrap_or(u32::MAX);
    let groups = written.hosts.iter().zip(counts);
    let groups = groups.map(|((name, hosts), count)| {
        crowd(&format!("hosts.{name}"), hosts, count.unwrap_or(rest))
    });
    groups.collect()
}

fn crowd(place: &str, hosts: &Hosts, count: u32) -> Result<Crowd, FileError> {
    let mut crowd = Crowd { behaviour: behaviour(place, hosts)?, ..Crowd::honest(count) };
    if let Some(speed) = &hosts.speed {
        let speed = spread(place, "speed", speed, Dimension::Speed)?;
        crowd.speed = scaled(speed, 100.0 / REFERENCE_MFLOPS);
    }
    if let Some(cores) = &hosts.cores {
        crowd.cores = spread(place, "cores", cores, Dimension::Count)?;
    }
    if let Some(executors) = &hosts.executors {
        crowd.executors.clone_from(executors);
    }
    crowd.operators = hosts.operators.unwrap_or(0);
    if let Some(ahead) = &hosts.clock_ahead {
        crowd.clock_ahead = spread(place, "clock_ahead", ahead, Dimension::Time)?;
    }
    if let Some(joins) = &hosts.joins {
        crowd.joins = spread(place, "joins", joins, Dimension::Time)?;
    }
    if let Some(startup) = &hosts.startup {
        crowd.startup = spread(place, "startup", startup, Dimension::Time)?;
    }
    if let Some(prepare) = &hosts.prepare {
        crowd.prepare = spread(place, "prepare", prepare, Dimension::Time)?;
    }
    if let Some(staging) = &hosts.staging {
        crowd.staging = spread(place, "staging", staging, Dimension::Time)?;
    }
    if let Some(trace) = &hosts.trace {
        let foreign = [(hosts.churn.is_some(), "churn"), (hosts.joins.is_some(), "joins")];
        if let Some((_, key)) = foreign.into_iter().find(|(is_there, _)| *is_there) {
            let reason = "means nothing beside a trace, which says when hosts are there";
            return Err(FileError::invalid(format!("{place}.{key}"), reason));
        }
        crowd.trace = spells::compile(&format!("{place}.trace"), trace)?;
    }
    let cuts = hosts.cuts.iter().map(|cut| Cut { at: cut.at.0, lasts: cut.lasts.0 });
    crowd.cuts = cuts.collect();
    crowd.churn = hosts.churn.as_ref().map(|churn| self::churn(place, churn)).transpose()?;
    Ok(crowd)
}

fn behaviour(place: &str, hosts: &Hosts) -> Result<Behaviour, FileError> {
    let rate = hosts.rate.unwrap_or(1.0);
    probability(&format!("{place}.rate"), rate)?;
    let detects = hosts.detects.unwrap_or(0.0);
    probability(&format!("{place}.detects"), detects)?;
    let kind = hosts.behaviour;
    let answer = match hosts.answer {
        Some(AnswerKind::Own) => Answer::Own,
        Some(AnswerKind::Shared) => Answer::Shared,
        None if kind == Kind::Saboteur => Answer::Own,
        None => Answer::Shared,
    };
    let wakes = hosts.wakes_after.map_or(Wakes::AtOnce, Wakes::AfterAccepted);
    let together = hosts.together.unwrap_or(false);
    let deceit = Deceit { rate, answer, wakes, detects, together };
    let needs = |key: &str| {
        let reason = format!("behaviour {kind:?} needs {key}").to_lowercase();
        Err(FileError::invalid(place, reason))
    };
    let is_deceiver =
        matches!(kind, Kind::Saboteur | Kind::Colluder | Kind::Sleeper | Kind::Detector);
    if !is_deceiver {
        let foreign = [
            (hosts.answer.is_some(), "answer"),
            (hosts.together.is_some(), "together"),
            (hosts.wakes_after.is_some(), "wakes_after"),
            (hosts.detects.is_some(), "detects"),
        ];
        if let Some((_, key)) = foreign.into_iter().find(|(is_there, _)| *is_there) {
            let reason = format!("{key} means nothing to behaviour {kind:?}").to_lowercase();
            return Err(FileError::invalid(place, reason));
        }
    }
    Ok(match kind {
        Kind::Honest => Behaviour::Honest,
        Kind::Sleeper if hosts.wakes_after.is_none() => return needs("wakes_after"),
        Kind::Detector if hosts.detects.is_none() => return needs("detects"),
        Kind::Saboteur | Kind::Colluder | Kind::Sleeper | Kind::Detector => {
            Behaviour::Deceiver(deceit)
        }
        Kind::Copier => Behaviour::Copier { rate: hosts.rate.unwrap_or(0.0) },
        Kind::Lazy => Behaviour::Lazy,
        Kind::Thief => Behaviour::Thief,
        Kind::Flaky => Behaviour::Flaky { failure: rate },
    })
}

fn churn(place: &str, churn: &Churn) -> Result<scenario::Churn, FileError> {
    probability(&format!("{place}.churn.departs"), churn.departs)?;
    let day = churn.day.map(|day| Day { swing: day.swing, peak: day.peak.0 });
    if let Some(Day { swing, .. }) = day.filter(|day| !(0.0..1.0).contains(&day.swing)) {
        let reason = format!("is {swing}; it is from 0, and less than 1");
        return Err(FileError::invalid(format!("{place}.churn.day.swing"), reason));
    }
    Ok(scenario::Churn {
        up: spread(place, "churn.up", &churn.up, Dimension::Time)?,
        down: spread(place, "churn.down", &churn.down, Dimension::Time)?,
        departs: churn.departs,
        day,
    })
}

fn plan(place: &str, job: &Job, population: u32) -> Result<JobPlan, FileError> {
    let mut plan = JobPlan::new(job.units);
    match (&job.run, &job.work) {
        (Some(_), Some(_)) => return Err(FileError::invalid(place, "states both run and work")),
        (Some(run), None) => plan.run = spread(place, "run", run, Dimension::Time)?,
        (None, Some(work)) => {
            let work = spread(place, "work", work, Dimension::Work)?;
            plan.run = scaled(work, 1e6 / REFERENCE_MFLOPS);
        }
        (None, None) => {}
    }
    plan.run_per = job.run_per.unwrap_or(plan.run_per);
    if let Some(fetch) = &job.fetch {
        plan.fetch = spread(place, "fetch", fetch, Dimension::Time)?;
    }
    if let Some(executors) = &job.executors {
        plan.executors.clone_from(executors);
    }
    plan.submit = job.submit.map_or(plan.submit, |time| time.0);
    plan.cancel = job.cancel.map(|time| time.0);
    let place_of_rules = format!("{place}.validation");
    plan.validation = validation(&plan.validation, &job.validation);
    plan.validation.policy = policy::read(&place_of_rules, &job.validation)?;
    let quorum = plan.validation.min_quorum;
    if quorum > population {
        let reason = format!("is {quorum}, larger than the network of {population} hosts");
        return Err(FileError::invalid(format!("{place}.validation.min_quorum"), reason));
    }
    Ok(plan)
}

/// Limits that are not stated stay far from what the quorum needs, as in [`JobPlan::new`].
fn validation(usual: &Validation, written: &section::Validation) -> Validation {
    let mut rules = usual.clone();
    rules.min_quorum = written.min_quorum;
    rules.target_nresults = written.target_nresults.unwrap_or(rules.min_quorum);
    let most = rules.target_nresults.max(rules.min_quorum);
    let or = |stated: Option<u32>, usual: u32| stated.unwrap_or_else(|| usual.max(most + 10));
    rules.max_error_results = or(written.max_error_results, rules.max_error_results);
    rules.max_success_results = or(written.max_success_results, rules.max_success_results);
    rules.max_total_results = or(written.max_total_results, rules.max_total_results);
    if let Some(Time(bound)) = written.delay_bound {
        rules.delay_bound_ms = dockercomp_protocol::time::millis(bound);
    }
    rules
}

fn network(network: &mut scenario::Network, written: &section::Network) -> Result<(), FileError> {
    if let Some(latency) = &written.latency {
        network.latency = spread("network", "latency", latency, Dimension::Time)?;
    }
    if let Some(loss) = written.loss {
        network.loss = probability("network.loss", loss)?;
    }
    if let Some(duplication) = written.duplication {
        network.duplication = probability("network.duplication", duplication)?;
    }
    network.timeout = written.timeout.map_or(network.timeout, |time| time.0);
    Ok(())
}

fn coordinator(
    plan: &mut scenario::CoordinatorPlan,
    written: &section::Coordinator,
) -> Result<(), FileError> {
    const PLACE: &str = "coordinator";
    if let Some(sync) = &written.sync {
        plan.sync = spread(PLACE, "sync", sync, Dimension::Time)?;
    }
    if let Some(pull) = &written.pull {
        plan.pull = spread(PLACE, "pull", pull, Dimension::Time)?;
    }
    plan.heartbeat = written.heartbeat.map_or(plan.heartbeat, |time| time.0);
    plan.retry = written.retry.map_or(plan.retry, |time| time.0);
    let lost_after = &mut plan.outputs_lost_after;
    *lost_after = written.outputs_lost_after.map_or(*lost_after, |time| time.0);
    plan.core.resume_grace = written.resume_grace.map_or(plan.core.resume_grace, |time| time.0);
    if let Some(leases) = written.leases_per_node_max {
        plan.core.leases_per_node_max = leases;
    }
    if let Some(expiries) = written.expiries_per_step_max {
        plan.core.expiries_per_step_max = expiries;
    }
    if let Some(nodes) = written.nodes_present_max {
        plan.core.nodes_present_max = nodes;
    }
    if written.churn.as_ref().is_some_and(|churn| churn.day.is_some()) {
        return Err(FileError::invalid("coordinator.churn.day", "is for volunteers"));
    }
    plan.churn = written.churn.as_ref().map(|churn| self::churn(PLACE, churn)).transpose()?;
    plan.compare_every = written.compare_every.unwrap_or(plan.compare_every);
    Ok(())
}

pub(crate) fn spread(
    place: &str,
    key: &str,
    written: &Written,
    dimension: Dimension,
) -> Result<Spread, FileError> {
    let place = format!("{place}.{key}");
    written.spread(dimension).map_err(|error| FileError::invalid(place, error))
}

pub(crate) fn probability(place: &str, value: f64) -> Result<f64, FileError> {
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err(FileError::invalid(place, format!("is {value}; a probability is from 0 to 1")))
    }
}

fn scaled(spread: Spread, factor: f64) -> Spread {
    let one = |value: u64| (value as f64 * factor).round() as u64;
    match spread {
        Spread::Fixed(value) => Spread::Fixed(one(value)),
        Spread::Uniform(low, high) => Spread::Uniform(one(low), one(high)),
        Spread::Quantiles(values) => Spread::Quantiles(values.into_iter().map(one).collect()),
        Spread::Law(law) => Spread::Law(law.scaled(factor)),
    }
}
