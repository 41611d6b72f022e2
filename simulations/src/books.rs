//! The safety checkers: a second set of books, kept from what becomes durable and visible.
//!
//! The books never ask the core what it thinks. They see each batch that becomes durable, each
//! answer that leaves, and, being of this world, what every host really computed; they compare
//! that with what the owner signed.
//!
//! # What is checked, and when
//!
//! | When | What |
//! |---|---|
//! | a lease becomes durable | its number is new; its host has no other replica of the unit, and no other host of its operator has one |
//! | a lease is granted | it is durable, as this host's |
//! | a report is acknowledged | it is durable |
//! | a unit is accepted | once; with its receipt; by a rule that its owner's policy allows, which votes and records of the nodes meet; by different nodes, each result really computed; not wrong unless as many hosts collude as the rule rests on |
//! | lots are accepted | whole, each of one node, and audited as often as their owner demands |
//! | an output is said to be safe | it is there |
//! | the coordinator restarts | whatever was acknowledged is known |
//!
//! # Bounds
//!
//! Everything is remembered for the whole run, some 300 bytes a replica: a run of ten million
//! replicas needs 3 GB for its books.

use std::collections::{BTreeMap, BTreeSet};

use dockercomp_coordinator_core::{Finding, Record};
use dockercomp_protocol::receipt::{Basis, Votes};
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::{Cid, ReplicaId, codec};

use crate::behaviour::{Behaviour, Product, Sight, honest_output};
use crate::coordinator::Receipt;
use crate::grounds::{OfLot, Records};
use crate::jobs::{Jobs, UnitId};
use crate::names;
use crate::violation::Violation;

/// Violations after which a run stops: the rest follows from the first.
pub(crate) const VIOLATIONS_MAX: usize = 16;

/// What is known of a replica.
#[derive(Clone, Debug)]
struct Entry {
    host: u32,
    unit: UnitId,
    /// What its host really computed.
    product: Option<Product>,
    /// Whether the unit was decided before it was leased.
    is_check: bool,
    is_reported: bool,
    is_acknowledged: bool,
}

/// The books. See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Books {
    behaviours: Vec<Behaviour>,
    /// The operator of each host, if it has one.
    operators: Vec<Option<u32>>,
    records: Records,
    replicas: BTreeMap<ReplicaId, Entry>,
    units: BTreeMap<UnitId, Vec<ReplicaId>>,
    accepted: BTreeMap<UnitId, Cid>,
    /// Units whose accepted outputs were once given up as lost.
    lost: BTreeSet<UnitId>,
    /// Those of them that were given up.
    withdrawn: BTreeSet<UnitId>,
    cancelled: BTreeSet<u32>,
    /// Results of each host that were accepted.
    accepted_of: Vec<u64>,
    /// What the ring of copiers has.
    ring: BTreeMap<UnitId, Cid>,
    violations: Vec<Violation>,
    /// Units whose accepted output is wrong, because enough hosts colluded.
    wrong: BTreeSet<UnitId>,
}

impl Books {
    /// Books about hosts that behave so, and are run by these operators.
    pub(crate) fn new(behaviours: Vec<Behaviour>, operators: Vec<Option<u32>>) -> Self {
        let accepted_of = vec![0; behaviours.len()];
        let records = Records::new(behaviours.len());
        Self { behaviours, operators, records, accepted_of, ..Self::default() }
    }

    pub(crate) fn report(&mut self, violation: Violation) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation);
        }
    }

    pub(crate) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub(crate) fn into_violations(self) -> Vec<Violation> {
        self.violations
    }

    /// What an adversary may know when it gives an output for a unit.
    pub(crate) fn sight(&self, host: u32, unit: UnitId) -> Sight {
        Sight {
            accepted: self.accepted_of.get(host as usize).copied().unwrap_or(0),
            is_decided: self.accepted.contains_key(&unit),
            copied: self.ring.get(&unit).copied(),
        }
    }

    /// A host computed something for a replica.
    pub(crate) fn computed(&mut self, replica: ReplicaId, product: Product) {
        if let Some(entry) = self.replicas.get_mut(&replica) {
            let is_shared = self
                .behaviours
                .get(entry.host as usize)
                .is_some_and(|behaviour| behaviour.shares());
            if let (true, Some(output)) = (is_shared, product.output) {
                self.ring.entry(entry.unit).or_insert(output);
            }
            entry.product = Some(product);
        }
    }

    /// Other replicas of the unit that a replica is of, with their hosts: what a thief with
    /// perfect knowledge would know.
    pub(crate) fn siblings(&self, replica: ReplicaId) -> Vec<(ReplicaId, u32)> {
        let Some(entry) = self.replicas.get(&replica) else { return Vec::new() };
        let of_unit = self.units.get(&entry.unit).into_iter().flatten();
        let others = of_unit.filter(|&&other| other != replica);
        others.map(|other| (*other, self.replicas[other].host)).collect()
    }

    /// A batch became durable.
    pub(crate) fn durable(
        &mut self,
        jobs: &Jobs,
        vault: &BTreeSet<Cid>,
        records: &[Record],
        receipts: &[Receipt],
    ) {
        let mut n_accepted = 0;
        let mut of_lots = Vec::new();
        for record in records {
            match record {
                Record::Leased { replica, job, index, node, .. } => {
                    self.leased(*replica, names::host(node), jobs.unit(job, *index), false);
                }
                Record::SpotCheck { replica, job, index, node, .. } => {
                    self.leased(*replica, names::host(node), jobs.unit(job, *index), true);
                }
                Record::Reported { replica, finding, .. } => self.reported(*replica, finding),
                Record::Accepted { job, index, output, .. } => {
                    n_accepted += 1;
                    let unit = jobs.unit(job, *index);
                    self.accepted_once(unit, *output);
                    match receipts.iter().find(|receipt| receipt.unit == unit) {
                        Some(receipt) if receipt.output == *output => {
                            of_lots.extend(self.examine(jobs, receipt));
                        }
                        Some(_) | None => self.no_receipt(unit),
                    }
                }
                Record::JobCancelled { job, .. } => {
                    self.cancelled.insert(jobs.unit(job, 0).job);
                }
                Record::OutputStored { job, index, .. } => {
                    let unit = jobs.unit(job, *index);
                    if !self.accepted.get(&unit).is_some_and(|output| vault.contains(output)) {
                        let UnitId { job, index } = unit;
                        self.report(Violation::OutputNotThere { job, index });
                    }
                }
                Record::Failed { job, index, .. } => self.given_up(jobs.unit(job, *index)),
                Record::OutputLost { job, index, .. } => {
                    self.lost.insert(jobs.unit(job, *index));
                }
                Record::JobAdded { .. }
                | Record::Away { .. }
                | Record::Ended { .. }
                | Record::Compared { .. }
                | Record::Extended { .. }
                | Record::Inconclusive { .. }
                | Record::LotClosed { .. }
                | Record::NodeKnown { .. }
                | Record::Sampled { .. } => {}
            }
        }
        if n_accepted < receipts.len() {
            self.no_receipt(receipts[0].unit);
        }
        let rules = |job| &jobs.job(job).spec.validation;
        if let Some(&OfLot { job, results, audited, .. }) =
            self.records.first_bad_lot(&of_lots, rules)
        {
            self.report(Violation::LotNotAudited { job, results, audited });
        }
    }

    fn no_receipt(&mut self, UnitId { job, index }: UnitId) {
        self.report(Violation::NoReceipt { job, index });
    }

    fn leased(&mut self, replica: ReplicaId, host: u32, unit: UnitId, is_check: bool) {
        if self.replicas.contains_key(&replica) {
            return self.report(Violation::LeasedTwice { replica });
        }
        let of_unit = self.units.entry(unit).or_default();
        if of_unit.iter().any(|other| self.replicas[other].host == host) {
            let UnitId { job, index } = unit;
            let violation = Violation::TwoReplicas { host, job, index, replica };
            self.violations.push(violation);
        }
        let operator = |host: u32| self.operators.get(host as usize).copied().flatten();
        // A spot-check decides nothing, whoever passes it.
        if let Some(operator) = operator(host).filter(|_| !is_check)
            && of_unit.iter().any(|other| {
                let other = &self.replicas[other];
                other.host != host
                    && !other.is_check
                    && self.operators[other.host as usize] == Some(operator)
            })
        {
            let UnitId { job, index } = unit;
            self.violations.push(Violation::OneOperator { operator, job, index, replica });
        }
        of_unit.push(replica);
        let entry = Entry {
            host,
            unit,
            product: None,
            is_check,
            is_reported: false,
            is_acknowledged: false,
        };
        self.replicas.insert(replica, entry);
    }

    fn reported(&mut self, replica: ReplicaId, finding: &Finding) {
        let Some(entry) = self.replicas.get_mut(&replica) else { return };
        entry.is_reported = true;
        if let Finding::Success { output, .. } = finding
            && self.accepted.get(&entry.unit) == Some(output)
        {
            self.records.agree(entry.host, entry.is_check);
        }
    }

    fn accepted_once(&mut self, unit: UnitId, output: Cid) {
        let UnitId { job, index } = unit;
        if self.cancelled.contains(&job) {
            self.report(Violation::AcceptedAfterCancel { job, index });
        }
        if let Some(first) = self.accepted.insert(unit, output) {
            self.report(Violation::AcceptedTwice { job, index, first, second: output });
        }
    }

    /// What was accepted is given up only if it was lost.
    fn given_up(&mut self, unit: UnitId) {
        if self.accepted.contains_key(&unit) {
            self.withdrawn.insert(unit);
            if !self.lost.contains(&unit) {
                let UnitId { job, index } = unit;
                self.report(Violation::Withdrawn { job, index });
            }
        }
    }

    /// Asks of a receipt what somebody who trusts nobody would, and more. Gives what is to be
    /// asked of its lot as a whole, if it has one.
    fn examine(&mut self, jobs: &Jobs, receipt: &Receipt) -> Option<OfLot> {
        let UnitId { job, index } = receipt.unit;
        let rules = &jobs.job(job).spec.validation;
        let mut nodes = BTreeSet::new();
        let (mut agreeing, mut against) = (BTreeSet::new(), BTreeSet::new());
        let mut rivals: BTreeMap<Option<Cid>, usize> = BTreeMap::new();
        for bytes in &receipt.results {
            let Ok(result) = codec::decode::<ResultStatement>(bytes) else {
                self.no_receipt(receipt.unit);
                return None;
            };
            let host = names::host(&result.node);
            if !nodes.insert(result.node) {
                self.report(Violation::VotedTwice { job, index });
            }
            let is_real = self.replicas.get(&result.replica).is_some_and(|entry| {
                entry.host == host
                    && entry.unit == receipt.unit
                    && entry.product.as_ref().is_some_and(|product| product.output == result.output)
            });
            if !is_real {
                let replica = result.replica;
                self.report(Violation::ForgedVote { job, index, replica });
            }
            if result.output == Some(receipt.output) {
                agreeing.insert(host);
            } else {
                against.insert(host);
                *rivals.entry(result.output).or_default() += 1;
            }
        }
        let (basis, rival) = (receipt.basis, rivals.into_values().max().unwrap_or(0));
        let votes = Votes { agreeing: agreeing.len(), successes: receipt.results.len(), rival };
        if !basis.is_allowed_by(rules) {
            self.report(Violation::ForeignRule { job, index, basis });
        } else if !basis.is_met_by(&votes, rules) {
            let Votes { agreeing, successes, rival } = votes;
            let min_quorum = rules.min_quorum;
            self.report(Violation::TooFewVotes {
                job,
                index,
                basis,
                agreeing,
                successes,
                rival,
                min_quorum,
            });
        } else if !self.records.bear_out(basis, rules, &agreeing, &against) {
            self.report(Violation::NotBorneOut { job, index, basis });
        }
        for &host in &agreeing {
            self.records.agree(host, false);
            if let Some(n) = self.accepted_of.get_mut(host as usize) {
                *n += 1;
            }
        }
        if receipt.output != honest_output(receipt.unit) {
            self.accepted_wrong(receipt, rules.agreement());
        }
        match basis {
            Basis::Lot { results, audited } => Some(OfLot { job, results, audited, agreeing }),
            Basis::Quorum
            | Basis::Trusted { .. }
            | Basis::Credible { .. }
            | Basis::Majority { .. } => None,
        }
    }

    /// A wrong output needs as many hosts that would give it as the rule that accepted it
    /// rests on: no policy but a quorum promises more than an error rate.
    fn accepted_wrong(&mut self, receipt: &Receipt, agreement: u32) {
        let UnitId { job, index } = receipt.unit;
        let copied = self.ring.get(&receipt.unit).copied();
        let supports = |&(host, behaviour): &(u32, &Behaviour)| {
            behaviour.supports(receipt.unit, host, receipt.output, copied)
        };
        let supporters = (0..).zip(&self.behaviours).filter(supports).count();
        let supporters = u32::try_from(supporters).unwrap_or(u32::MAX);
        let needed = match receipt.basis {
            Basis::Quorum => agreement,
            Basis::Majority { counted, .. } => counted,
            Basis::Trusted { .. } | Basis::Credible { .. } | Basis::Lot { .. } => 1,
        };
        if supporters < needed {
            self.report(Violation::WrongAccepted { job, index, supporters });
        } else {
            self.wrong.insert(receipt.unit);
        }
    }

    /// Units whose accepted output is wrong, but for those that were given up later.
    pub(crate) fn wrong_accepted(&self) -> u64 {
        self.wrong.difference(&self.withdrawn).count() as u64
    }

    /// Units that were accepted, and whose output was lost for good.
    pub(crate) fn withdrawn(&self) -> u64 {
        self.withdrawn.len() as u64
    }

    /// A host was granted a lease.
    pub(crate) fn granted(&mut self, host: u32, replica: ReplicaId, unit: UnitId) {
        let entry = self.replicas.get(&replica);
        if !entry.is_some_and(|entry| entry.host == host && entry.unit == unit) {
            self.report(Violation::GrantedBeforeDurable { host, replica });
        }
    }

    /// A host was told that its result is stored.
    pub(crate) fn acknowledged(&mut self, replica: ReplicaId) {
        match self.replicas.get_mut(&replica) {
            Some(entry) if entry.is_reported => entry.is_acknowledged = true,
            Some(_) | None => self.report(Violation::AcknowledgedBeforeDurable { replica }),
        }
    }

    /// Every result that a host was told is stored.
    pub(crate) fn promises(&self) -> impl Iterator<Item = (ReplicaId, u32, UnitId, &Product)> {
        self.replicas
            .iter()
            .filter(|(_, entry)| entry.is_acknowledged)
            .filter_map(|(id, entry)| Some((*id, entry.host, entry.unit, entry.product.as_ref()?)))
    }

    /// Compares a job's figure with what was seen.
    pub(crate) fn count(&mut self, job: u32, said: u64) {
        let stands = |unit: &&UnitId| unit.job == job && !self.withdrawn.contains(unit);
        let seen = self.accepted.keys().filter(stands).count() as u64;
        if said != seen {
            self.report(Violation::Miscounted { job, said, seen });
        }
    }
}
