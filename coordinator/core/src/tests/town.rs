//! A town of nodes that work in turn: what a policy costs and what it lets through.
//!
//! No network, no time to speak of: every node asks for one replica, computes it at once, and
//! reports. All wrong results of a unit are equal, the worst case (full collusion).

use std::collections::BTreeMap;
use std::time::Duration;

use dockercomp_protocol::job::{JobSpec, Policy};
use dockercomp_protocol::{Cid, NodeId, Timestamp};

use super::env::{SEED, cid, node, request, result, sealed, spec};
use crate::{Action, Config, Core, Event, JobState, Profile};

/// What a node does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Nature {
    /// Wrong by chance, in so many of a million results, and never like anybody else.
    Honest { errors: u64 },
    /// Wrong on purpose, in so many of a million results.
    Saboteur { rate: u64 },
    /// The same, but only after so many honest results.
    Sleeper { rate: u64, after: u64 },
}

/// What came of a job.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Balance {
    pub(super) units: u64,
    pub(super) wrong: u64,
    pub(super) replicas: u64,
    pub(super) failed: u64,
}

impl Balance {
    pub(super) fn cost(&self) -> f64 {
        self.replicas as f64 / self.units as f64
    }

    pub(super) fn error(&self) -> f64 {
        self.wrong as f64 / self.units as f64
    }
}

struct Citizen {
    node: NodeId,
    nature: Nature,
    results: u64,
}

struct Town {
    core: Core,
    now: Timestamp,
    state: u64,
    citizens: Vec<Citizen>,
    names: BTreeMap<Cid, bool>,
    accepted: BTreeMap<u64, bool>,
    stored: Vec<(Cid, u64)>,
}

/// Runs a job of `units` units among nodes until it ends.
pub(super) fn settle(policy: Policy, units: u64, natures: &[Nature], chance: u64) -> Balance {
    let mut town = Town::found(chance);
    for &nature in natures {
        town.settle_down(nature);
    }
    let job = town.submit(policy, units);
    for _ in 0..units * 20 {
        town.round();
        if town.core.job_state(job) != Some(JobState::Running) {
            return town.balance(job);
        }
    }
    panic!("the job does not end: {:#?}", town.core.job(job));
}

/// Runs a job of which one node gets every unit first, and is wrong in so many of a million
/// results; whoever else a unit needs is new, and right. Also gives the
/// number of units that were not accepted on the one node's word.
pub(super) fn accompany(policy: Policy, units: u64, errors: u64, chance: u64) -> (u64, Balance) {
    let mut town = Town::found(chance);
    let host = town.settle_down(Nature::Honest { errors });
    let job = town.submit(policy, units);
    let mut replicated = 0;
    for unit in 0..units {
        // However few units a day it may still have.
        town.now = town.now + Duration::from_secs(86_400);
        town.work(host);
        replicated += u64::from(!town.accepted.contains_key(&unit));
        while !town.accepted.contains_key(&unit) {
            let other = town.settle_down(Nature::Honest { errors: 0 });
            town.work(other);
        }
    }
    (replicated, town.balance(job))
}

/// Limits that are never in the way.
fn rules(policy: Policy) -> dockercomp_protocol::job::Validation {
    dockercomp_protocol::job::Validation {
        policy,
        max_error_results: 50,
        max_total_results: 100,
        max_success_results: 60,
        ..spec().validation
    }
}

impl Town {
    fn found(chance: u64) -> Self {
        Self {
            core: Core::new(Config::default()),
            now: Timestamp(1_000_000),
            state: chance,
            citizens: Vec::new(),
            names: BTreeMap::new(),
            accepted: BTreeMap::new(),
            stored: Vec::new(),
        }
    }

    /// A new citizen's number.
    fn settle_down(&mut self, nature: Nature) -> usize {
        let number = self.citizens.len();
        let node = node(&format!("citizen {number}"));
        self.citizens.push(Citizen { node, nature, results: 0 });
        let profile = Profile::plain(request(1).executors, request(1).free);
        self.tell(Event::NodeRegistered { node, profile });
        number
    }

    fn submit(&mut self, policy: Policy, units: u64) -> Cid {
        let job = cid("job");
        let spec = JobSpec { validation: rules(policy), ..spec() };
        let mut seed = SEED;
        seed[..8].copy_from_slice(&self.state.to_le_bytes());
        self.tell(Event::JobAdded { job, spec: Box::new(spec), units, seed });
        job
    }

    fn chance(&mut self) -> u64 {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn round(&mut self) {
        self.now = self.now + Duration::from_secs(1);
        // In another order each time: who meets whom is chance.
        for place in (1..self.citizens.len()).rev() {
            let other = self.chance() as usize % (place + 1);
            self.citizens.swap(place, other);
        }
        for number in 0..self.citizens.len() {
            self.work(number);
        }
        if self.core.next_deadline().is_some_and(|at| at <= self.now) {
            self.tell(Event::DeadlineReached);
        }
    }

    fn work(&mut self, number: usize) {
        let node = self.citizens[number].node;
        self.core.handle(self.now, Event::WorkRequested { node, request: request(1) });
        let mut leases = Vec::new();
        while let Some(action) = self.core.poll_action() {
            if let Action::Lease(granted) = action {
                leases = granted;
            }
        }
        let Some(lease) = leases.pop() else { return };
        let chance = self.chance() % 1_000_000;
        let citizen = &mut self.citizens[number];
        citizen.results += 1;
        let wrong = format!("wrong {}", lease.index);
        let slip = format!("slip {} {}", lease.index, number);
        let output = match citizen.nature {
            Nature::Honest { errors } if chance < errors => slip,
            Nature::Saboteur { rate } if chance < rate => wrong,
            Nature::Sleeper { rate, after } if citizen.results > after && chance < rate => wrong,
            Nature::Honest { .. } | Nature::Saboteur { .. } | Nature::Sleeper { .. } => {
                format!("right {}", lease.index)
            }
        };
        self.names.insert(cid(&output), output.starts_with("right"));
        let result = result(node, &lease, Ok(&output));
        let sealed = sealed(&result);
        self.tell(Event::ResultReported { result: Box::new(result), sealed });
        for (job, index) in std::mem::take(&mut self.stored) {
            self.tell(Event::OutputStored { job, index });
        }
    }

    fn tell(&mut self, event: Event) {
        self.core.handle(self.now, event);
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Accept { index, output, .. } => {
                    let is_first = self.accepted.insert(index, self.names[&output]).is_none();
                    assert!(is_first, "unit {index} was accepted twice");
                }
                Action::FetchOutput { job, index, .. } => self.stored.push((job, index)),
                Action::Persist(_)
                | Action::Lease(_)
                | Action::Verdict(_)
                | Action::HeartbeatAnswer { .. }
                | Action::Compare { .. }
                | Action::AnnounceWork
                | Action::JobEnded { .. } => {}
            }
        }
    }

    fn balance(&self, job: Cid) -> Balance {
        let view = self.core.job(job).expect("the job");
        Balance {
            units: view.done,
            wrong: self.accepted.values().filter(|&&is_right| !is_right).count() as u64,
            replicas: view.replicas.total(),
            failed: view.failed,
        }
    }
}

/// So many nodes, a share of them of another nature.
pub(super) fn crowd(nodes: usize, bad: usize, nature: Nature) -> Vec<Nature> {
    let honest = Nature::Honest { errors: 0 };
    (0..nodes).map(|number| if number < bad { nature } else { honest }).collect()
}
