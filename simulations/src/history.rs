//! A coordinator's past as a scenario: "what if this policy had been used last month?"
//!
//! ```text
//! journal: records ──note──► History ──finish──► Past: hosts, jobs, and what came of them
//!                                                   │
//!                       scenario file with targets ◄┘──► sim run FILE --set jobs.j00.validation…
//! ```
//!
//! # What is read from a journal
//!
//! | of | what | from |
//! |---|---|---|
//! | a host | when it was there | from its first lease on; a lease that ran out without any word since says that it had gone after its last one |
//! | | cores | half of the most replicas that it held: nodes keep as much again ready |
//! | | speed | the median over its results of what the job's median result took by what this took |
//! | | staging | what a replica took beyond its program's time, in the mean |
//! | | behaviour | of its results that can be judged, how many differ from what was accepted, and whether others gave the same wrong one; else how often its programs failed |
//! | a job | units, rules, when it came and was cancelled | as it was taken on |
//! | | run time | its results' times, at the speeds above |
//!
//! The targets of the scenario are what the journal says happened, so running it unchanged says
//! how far the model is from what it was made of, and changing it what would have been.
//!
//! # What is lost
//!
//! Hosts that never had a lease; colluders whose output was accepted, who look honest; absences
//! during which no lease ran out; operators, platforms and inputs that hosts had already; stages,
//! whose units are taken for units of one; what a unit would have taken that nobody brought to an
//! end; the coordinator's own absences; loss and latency of the network, which are the usual ones.

mod past;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dockercomp_coordinator_core::{Finding, Record, Silence, Terms};
use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::job::{Comparison, Homogeneity, SpecError};
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp};

use self::past::Within;
pub use self::past::{Past, Target};
use crate::behaviour::{Answer, Behaviour, Deceit};
use crate::random::Spread;
use crate::scenario::{Crowd, JobPlan, Scenario};

/// With more hosts than this, those that are alike share a group, and draw their speeds from it.
const GROUPS_MAX: usize = 500;
/// Steps of the run times' quantiles.
const QUANTILES: usize = 20;
/// How long hosts stay that had not gone when the journal ended.
const STAYS: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a journal gives no scenario.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// There is nothing that could be simulated.
    #[error("the journal has no result of any job: there is nothing to learn from yet")]
    Nothing,
    /// The rules of a job are refused today.
    #[error("a job of the journal could not be submitted today")]
    Job(#[from] SpecError),
}

/// Gathers records. See the module documentation.
#[derive(Debug, Default)]
pub struct History {
    first: Option<Timestamp>,
    last: Timestamp,
    jobs: BTreeMap<Cid, Job>,
    nodes: BTreeMap<NodeId, Node>,
    leases: BTreeMap<ReplicaId, Lease>,
    /// Those that ran out without a word: a late report may still come.
    late: BTreeMap<ReplicaId, Lease>,
}

#[derive(Debug)]
struct Job {
    submitted: Timestamp,
    cancelled: Option<Timestamp>,
    terms: Terms,
    units: u64,
    begun: BTreeMap<u64, Unit>,
    /// What its results took, and who gave them, in milliseconds.
    runs: Vec<(NodeId, u64)>,
}

#[derive(Debug, Default)]
struct Unit {
    n_replicas: u64,
    results: Vec<(NodeId, ReplicaId, Cid)>,
    /// Replicas whose outputs are the same, class by class, if their bytes differ.
    classes: Vec<Vec<ReplicaId>>,
    fate: Option<Fate>,
    /// Its output was accepted and lost.
    is_lost: bool,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Accepted { output: Cid, at: Timestamp },
    Failed { at: Timestamp },
}

#[derive(Debug, Default)]
struct Node {
    /// When it was there, but for the last time.
    spells: Vec<(Timestamp, Timestamp)>,
    /// When it came, and was heard last.
    there: Option<(Timestamp, Timestamp)>,
    n_held: usize,
    n_held_max: usize,
    executors: BTreeSet<ExecutorKind>,
    /// Of all its results: when it could begin, when it reported, and what the program took.
    runs: Vec<Ran>,
    n_successes: u64,
    n_failures: u64,
}

#[derive(Clone, Copy, Debug)]
struct Ran {
    leased: Timestamp,
    reported: Timestamp,
    wall_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    node: NodeId,
    job: Cid,
    index: u64,
    at: Timestamp,
}

/// How the results of a node compare with what was accepted.
#[derive(Clone, Copy, Debug, Default)]
struct Judged {
    right: u64,
    wrong: u64,
    /// Of the wrong ones, those that another node gave as well.
    shared: u64,
}

impl History {
    /// Takes the next record. Records of units whose job or lease is not known, because they
    /// began before the journal does, are passed over.
    ///
    /// `wall` is what the program of a reported replica took, as its holder has signed it.
    pub fn note(&mut self, record: &Record, wall: Option<Duration>) {
        let at = record.at();
        self.first.get_or_insert(at);
        self.last = self.last.max(at);
        match record {
            Record::JobAdded { job, terms, units, .. } => {
                let job_terms = terms.clone();
                self.jobs.insert(*job, Job::new(at, job_terms, *units));
            }
            Record::JobCancelled { job, .. } => self.cancelled(at, *job),
            Record::Leased { replica, job, index, node, executor, .. } => {
                if let Some(job) = self.jobs.get_mut(job) {
                    job.begun.entry(*index).or_default();
                }
                let lease = Lease { node: *node, job: *job, index: *index, at };
                self.leased(*replica, lease, *executor);
            }
            // Of a unit that was decided, perhaps before the journal begins.
            Record::SpotCheck { replica, job, index, node, executor, .. } => {
                let lease = Lease { node: *node, job: *job, index: *index, at };
                self.leased(*replica, lease, *executor);
            }
            Record::Reported { replica, finding, .. } => self.reported(at, *replica, finding, wall),
            Record::Ended { replica, silence, .. } => self.ended(at, *replica, *silence),
            Record::Compared { job, index, classes, .. } => {
                if let Some(unit) = self.unit(*job, *index) {
                    unit.classes.clone_from(classes);
                }
            }
            Record::Accepted { job, index, output, .. } => {
                self.decided(*job, *index, Fate::Accepted { output: *output, at });
            }
            Record::OutputLost { job, index, .. } => {
                if let Some(unit) = self.unit(*job, *index) {
                    unit.is_lost = true;
                }
            }
            // Also of one that was accepted, if its output was lost for good.
            Record::Failed { job, index, .. } => {
                self.decided(*job, *index, Fate::Failed { at });
            }
            Record::Away { .. }
            | Record::Inconclusive { .. }
            | Record::Sampled { .. }
            | Record::LotClosed { .. }
            | Record::NodeKnown { .. }
            | Record::Extended { .. }
            | Record::OutputStored { .. } => {}
        }
    }

    fn unit(&mut self, job: Cid, index: u64) -> Option<&mut Unit> {
        self.jobs.get_mut(&job)?.begun.get_mut(&index)
    }

    /// Its replicas are over, and no record says so of each.
    fn cancelled(&mut self, at: Timestamp, id: Cid) {
        let of_job = self.leases.iter().filter(|(_, lease)| lease.job == id);
        let replicas: Vec<ReplicaId> = of_job.map(|(replica, _)| *replica).collect();
        for replica in replicas {
            self.over(replica);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.cancelled = Some(at);
        }
    }

    fn leased(&mut self, replica: ReplicaId, lease: Lease, executor: ExecutorKind) {
        let Some(job) = self.jobs.get_mut(&lease.job) else { return };
        if let Some(unit) = job.begun.get_mut(&lease.index) {
            unit.n_replicas += 1;
        }
        let node = self.nodes.entry(lease.node).or_default();
        node.heard(lease.at);
        node.executors.insert(executor);
        node.n_held += 1;
        node.n_held_max = node.n_held_max.max(node.n_held);
        self.leases.insert(replica, lease);
    }

    /// Takes a lease that is over, with its holder.
    fn over(&mut self, replica: ReplicaId) -> Option<(Lease, &mut Node)> {
        let lease = self.leases.remove(&replica)?;
        let node = self.nodes.get_mut(&lease.node)?;
        node.n_held -= 1;
        Some((lease, node))
    }

    fn reported(
        &mut self,
        at: Timestamp,
        replica: ReplicaId,
        finding: &Finding,
        wall: Option<Duration>,
    ) {
        let held = self.over(replica).map(|(lease, _)| lease);
        let Some(lease) = held.or_else(|| self.late.remove(&replica)) else { return };
        let Some(node) = self.nodes.get_mut(&lease.node) else { return };
        if held.is_none() {
            node.was_there(lease.at);
        }
        node.heard(at);
        let Finding::Success { output, .. } = finding else {
            node.n_failures += 1;
            return;
        };
        node.n_successes += 1;
        let took = Duration::from_millis(at.0.saturating_sub(lease.at.0));
        let wall = wall.unwrap_or(took).min(took).max(Duration::from_millis(1));
        let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        node.runs.push(Ran { leased: lease.at, reported: at, wall_ms });
        let Some(job) = self.jobs.get_mut(&lease.job) else { return };
        job.runs.push((lease.node, wall_ms));
        let unit = job.begun.get_mut(&lease.index);
        // Nobody can tell whether what came after the loss is right.
        if let Some(unit) = unit.filter(|unit| !unit.is_lost) {
            unit.results.push((lease.node, replica, *output));
        }
    }

    fn ended(&mut self, at: Timestamp, replica: ReplicaId, silence: Silence) {
        let Some((lease, node)) = self.over(replica) else { return };
        match silence {
            // It has gone if it was not heard since; else it lost this one lease.
            Silence::NoReply => {
                node.gone(|heard| (heard <= lease.at).then_some(heard));
                self.late.insert(replica, lease);
            }
            Silence::ClientDetached => node.gone(|_| Some(at)),
            Silence::DidntNeed | Silence::CouldntSend => {}
        }
    }

    fn decided(&mut self, job: Cid, index: u64, fate: Fate) {
        if let Some(unit) = self.unit(job, index) {
            unit.fate = Some(fate);
        }
    }

    /// What the records amount to.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub fn finish(mut self) -> Result<Past, HistoryError> {
        self.jobs.retain(|_, job| !job.runs.is_empty());
        self.nodes.retain(|_, node| node.n_successes + node.n_failures > 0);
        let first = self.first.filter(|_| !self.jobs.is_empty()).ok_or(HistoryError::Nothing)?;
        let speeds = self.speeds();
        let mut scenario = Scenario::calm(0, 1);
        scenario.crowds = self.crowds(first, &speeds);
        let mut jobs: Vec<&Job> = self.jobs.values().collect();
        jobs.sort_by_key(|job| job.submitted);
        scenario.jobs = jobs.iter().map(|job| job.plan(first, &speeds)).collect();
        let span = since(first, self.last);
        scenario.faults_end = span;
        scenario.patience = span * 10 + Duration::from_secs(24 * 3600);
        scenario.check()?;
        Ok(Past { scenario, span, targets: self.targets(first) })
    }

    /// How fast each node is, in percent of the speed that run times are given for.
    fn speeds(&self) -> BTreeMap<NodeId, f64> {
        let mut ratios: BTreeMap<NodeId, Vec<f64>> = BTreeMap::new();
        for job in self.jobs.values() {
            let mut times: Vec<f64> = job.runs.iter().map(|(_, ms)| *ms as f64).collect();
            let median = median(&mut times);
            for (node, ms) in &job.runs {
                ratios.entry(*node).or_default().push(100.0 * median / *ms as f64);
            }
        }
        ratios.into_iter().map(|(node, mut ratios)| (node, median(&mut ratios).max(1.0))).collect()
    }

    fn judged(&self) -> BTreeMap<NodeId, Judged> {
        let mut all: BTreeMap<NodeId, Judged> = BTreeMap::new();
        let units = self.jobs.values().flat_map(|job| {
            let compares = !matches!(job.terms.validation.comparison, Comparison::Identical);
            job.begun.values().map(move |unit| (unit, compares))
        });
        for (unit, compares) in units {
            let Some(Fate::Accepted { output, .. }) = unit.fate else { continue };
            for (node, replica, given) in &unit.results {
                let judged = all.entry(*node).or_default();
                if unit.is_right(output, *replica, *given) {
                    judged.right += 1;
                    continue;
                }
                // What was not compared may have been as good.
                if compares && !unit.classes.iter().flatten().any(|compared| compared == replica) {
                    continue;
                }
                judged.wrong += 1;
                let of_others =
                    |(other, _, theirs): &&(NodeId, _, Cid)| other != node && theirs == given;
                judged.shared += u64::from(unit.results.iter().any(|result| of_others(&result)));
            }
        }
        all
    }

    fn crowds(&self, first: Timestamp, speeds: &BTreeMap<NodeId, f64>) -> Vec<Crowd> {
        let judged = self.judged();
        let is_each = self.nodes.len() <= GROUPS_MAX;
        let mut groups: BTreeMap<_, Vec<(NodeId, &Node)>> = BTreeMap::new();
        for (id, node) in &self.nodes {
            let judged = judged.get(id).copied().unwrap_or_default();
            let kind = (judged.wrong > 0, judged.shared > 0, node.n_failures > 0);
            let alike = (kind, node.cores(), node.executors.clone());
            groups.entry((is_each.then_some(*id), alike)).or_default().push((*id, node));
        }
        let crowd = |nodes: Vec<(NodeId, &Node)>| {
            let mut sum = Judged::default();
            for (id, _) in &nodes {
                let judged = judged.get(id).copied().unwrap_or_default();
                sum.right += judged.right;
                sum.wrong += judged.wrong;
                sum.shared += judged.shared;
            }
            let speed = nodes.iter().map(|(id, _)| speeds.get(id).copied().unwrap_or(100.0));
            let (_, any) = nodes[0];
            Crowd {
                behaviour: behaviour(sum, nodes.iter().map(|(_, node)| *node)),
                speed: quantiles(speed.collect(), 1.0),
                cores: Spread::Fixed(any.cores()),
                executors: any.executors.iter().copied().collect(),
                trace: nodes.iter().map(|(_, node)| node.trace(first, self.last)).collect(),
                staging: Spread::time(staging(nodes.iter().map(|(_, node)| *node))),
                ..Crowd::honest(u32::try_from(nodes.len()).unwrap_or(u32::MAX))
            }
        };
        groups.into_values().map(crowd).collect()
    }

    /// In the terms in which a run counts.
    fn targets(&self, first: Timestamp) -> Vec<Target> {
        let n_units: u64 = self.jobs.values().map(Job::n_counted).sum();
        if n_units == 0 {
            return Vec::new();
        }
        let replicas: u64 =
            self.jobs.values().flat_map(Job::counted).map(|unit| unit.n_replicas).sum();
        let fates =
            || self.jobs.values().flat_map(|job| job.begun.values()).filter_map(|unit| unit.fate);
        let accepted = fates().filter(|fate| matches!(fate, Fate::Accepted { .. })).count();
        let share = |n: f64| n / n_units as f64;
        let mut targets = vec![
            Target::new("replicas_per_unit", share(replicas as f64), Within::Relative(0.1)),
            Target::new("completed", share(accepted as f64), Within::Absolute(0.02)),
        ];
        let is_open = |job: &Job| job.cancelled.is_none() && job.n_decided() < job.n_units();
        if !self.jobs.values().any(is_open) {
            let cancelled = self.jobs.values().filter_map(|job| job.cancelled);
            let last = fates().map(Fate::at).chain(cancelled).max().unwrap_or(first);
            let seconds = since(first, last).as_secs_f64();
            targets.push(Target::new("makespan_seconds", seconds, Within::Relative(0.25)));
        }
        targets
    }
}

impl Fate {
    const fn at(self) -> Timestamp {
        match self {
            Self::Accepted { at, .. } | Self::Failed { at } => at,
        }
    }
}

impl Unit {
    fn is_right(&self, canonical: Cid, replica: ReplicaId, given: Cid) -> bool {
        if given == canonical {
            return true;
        }
        let is_canonical = |other: &ReplicaId| {
            self.results.iter().any(|(_, id, output)| id == other && *output == canonical)
        };
        self.classes.iter().any(|class| class.contains(&replica) && class.iter().any(is_canonical))
    }
}

impl Job {
    const fn new(submitted: Timestamp, terms: Terms, units: u64) -> Self {
        Self { submitted, cancelled: None, terms, units, begun: BTreeMap::new(), runs: Vec::new() }
    }

    /// Units of all stages that are known of.
    fn n_units(&self) -> u64 {
        self.units.max(self.begun.len() as u64)
    }

    /// The units that targets are about: of a cancelled job all, of one whose end the journal
    /// does not see those that were decided.
    fn n_counted(&self) -> u64 {
        if self.cancelled.is_some() { self.n_units() } else { self.n_decided() }
    }

    /// Those of them that were begun.
    fn counted(&self) -> impl Iterator<Item = &Unit> {
        self.begun.values().filter(|unit| self.cancelled.is_some() || unit.fate.is_some())
    }

    fn n_decided(&self) -> u64 {
        self.begun.values().filter(|unit| unit.fate.is_some()).count() as u64
    }

    fn plan(&self, first: Timestamp, speeds: &BTreeMap<NodeId, f64>) -> JobPlan {
        let micros = |(node, ms): &(NodeId, u64)| *ms as f64 * speeds[node] / 100.0;
        let mut validation = self.terms.validation.clone();
        // What was found to be the same is the same output in the model.
        validation.comparison = Comparison::Identical;
        validation.homogeneous = Homogeneity::default();
        JobPlan {
            validation,
            executors: self.terms.executors.clone(),
            fetch: Spread::Fixed(0),
            run: quantiles(self.runs.iter().map(micros).collect(), 1000.0),
            submit: since(first, self.submitted),
            cancel: self.cancelled.map(|at| since(first, at)),
            ..JobPlan::new(self.n_units())
        }
    }
}

impl Node {
    fn heard(&mut self, at: Timestamp) {
        let (came, _) = self.there.unwrap_or((at, at));
        self.there = Some((came, at));
    }

    /// It has gone at the time that is given for when it was last heard, if any is.
    fn gone(&mut self, at: impl Fn(Timestamp) -> Option<Timestamp>) {
        let Some((came, heard)) = self.there else { return };
        if let Some(left) = at(heard) {
            self.spells.push((came, left));
            self.there = None;
        }
    }

    /// It had not gone, as was thought, since it was given a lease that it then reported late.
    fn was_there(&mut self, leased: Timestamp) {
        if self.there.is_none()
            && let Some((came, left)) = self.spells.pop_if(|&mut (_, left)| left >= leased)
        {
            self.there = Some((came, left));
        }
    }

    fn cores(&self) -> u64 {
        self.n_held_max.div_ceil(2).max(1) as u64
    }

    /// When it was there.
    fn trace(&self, first: Timestamp, last: Timestamp) -> Vec<(Duration, Duration)> {
        let past = self.spells.iter().map(|&(came, left)| (since(first, came), since(first, left)));
        let stays = since(first, last) + STAYS;
        let now = self.there.map(|(came, _)| (since(first, came), stays));
        let mut spells: Vec<(Duration, Duration)> = Vec::new();
        for (came, left) in past.chain(now) {
            // A spell in which it was heard once would be none.
            let left = left.max(came + Duration::from_secs(1));
            match spells.last_mut() {
                Some(before) if came <= before.1 => before.1 = left.max(before.1),
                _ => spells.push((came, left)),
            }
        }
        spells
    }
}

fn behaviour<'a>(judged: Judged, nodes: impl Iterator<Item = &'a Node>) -> Behaviour {
    if judged.wrong > 0 {
        let answer = if judged.shared > 0 { Answer::Shared } else { Answer::Own };
        let rate = judged.wrong as f64 / (judged.wrong + judged.right) as f64;
        return Behaviour::Deceiver(Deceit { rate, ..Deceit::always(answer) });
    }
    let (failures, all) = nodes.fold((0, 0), |(failures, all), node| {
        (failures + node.n_failures, all + node.n_failures + node.n_successes)
    });
    if failures == 0 {
        return Behaviour::Honest;
    }
    Behaviour::Flaky { failure: failures as f64 / all as f64 }
}

/// What a replica takes beyond its program: a core is free when as many replicas as there are
/// cores were reported since.
fn staging<'a>(nodes: impl Iterator<Item = &'a Node>) -> Duration {
    let (mut busy_ms, mut wall_ms, mut n) = (0, 0, 0);
    for node in nodes {
        let cores = usize::try_from(node.cores()).unwrap_or(usize::MAX);
        for (place, ran) in node.runs.iter().enumerate() {
            let freed = place.checked_sub(cores).map(|before| node.runs[before].reported);
            let began = freed.unwrap_or(ran.leased).max(ran.leased);
            busy_ms += ran.reported.0.saturating_sub(began.0);
            wall_ms += ran.wall_ms;
            n += 1;
        }
    }
    Duration::from_millis(busy_ms.saturating_sub(wall_ms).checked_div(n).unwrap_or(0))
}

/// These values as quantiles, each times `factor`.
fn quantiles(mut values: Vec<f64>, factor: f64) -> Spread {
    values.sort_by(f64::total_cmp);
    let scaled = |value: f64| (value * factor).round() as u64;
    match values.as_slice() {
        [] => Spread::Fixed(0),
        [value] => Spread::Fixed(scaled(*value)),
        values => {
            let at = |step| values[step * (values.len() - 1) / QUANTILES];
            Spread::Quantiles((0..=QUANTILES).map(|step| scaled(at(step))).collect())
        }
    }
}

/// The middle one; of an empty list 0.
fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(middle, f64::total_cmp).1 }
}

fn since(first: Timestamp, at: Timestamp) -> Duration {
    Duration::from_millis(at.0.saturating_sub(first.0))
}

#[cfg(test)]
mod tests;
