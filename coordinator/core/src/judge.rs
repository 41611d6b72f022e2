//! What the results of a unit amount to, by the policy of its job.
//!
//! | Policy | A result counts when |
//! |---|---|
//! | `fixed` | a strict majority of the quorum agrees |
//! | `adaptive` | the same, with a quorum of one if the node was trusted when it got the unit |
//! | `credibility` | the odds of the group that agrees reach the accepted error rate |
//! | `audited` | its lot passes, see [`crate::lots`]; in a dispute, a majority with such odds |
//!
//! The limits on replicas are the same for all, and [`crate::validate`]'s.

use dockercomp_protocol::job::{Policy, Share};
use dockercomp_protocol::receipt::Basis;
use dockercomp_protocol::{Cid, NodeId, Timestamp};

use crate::Core;
use crate::action::Action;
use crate::chance::{Purpose, draw, falls_into};
use crate::dispatch::CROWD;
use crate::job::Job;
use crate::lots::{Demand, Held, LotKey, audits_millis};
use crate::odds::{self, Odds};
use crate::record::Record;
use crate::state::State;
use crate::trust::Vote;
use crate::unit::{Unit, UnitKey};
use crate::validate::{self, Decision};

/// Lead with which a group wins a dispute whatever its nodes are worth.
const CLEAR_LEAD: usize = 2;

/// The groups of results that agree, the best first.
struct Group {
    output: Cid,
    size: usize,
    odds: Odds,
}

impl State {
    /// What the successes of an undecided unit amount to. `nobody_else` is asked only when it
    /// matters: whether no other node could give a result.
    pub(crate) fn judge(
        &self,
        job: &Job,
        unit: &Unit,
        target: u32,
        nobody_else: impl FnOnce() -> bool,
    ) -> (Decision, Basis) {
        let rules = &job.terms.validation;
        let census = unit.census();
        match &rules.policy {
            Policy::Fixed => {
                (validate::decide(&census, target, rules, rules.min_quorum), Basis::Quorum)
            }
            Policy::Adaptive(_) => match unit.trusted {
                Some(consecutive_valid) => (
                    validate::decide(&census, target, rules, 1),
                    Basis::Trusted { consecutive_valid },
                ),
                None => (validate::decide(&census, target, rules, rules.min_quorum), Basis::Quorum),
            },
            Policy::Credibility(policy) => {
                let votes = self.votes(unit);
                let groups = self.groups(&votes, |state, vote| {
                    state.standing_of(vote.node, vote.executor).credibility(policy.saboteurs.0)
                });
                let error = error_of(&groups);
                let is_enough = votes.len() >= rules.min_quorum as usize
                    && error.is_some_and(|error| error <= policy.accepted_error.0);
                let verdict = groups.first().filter(|_| is_enough).map(|group| group.output);
                let basis = Basis::Credible { error: Share(error.unwrap_or(Share::WHOLE.0)) };
                let is_compared = census.successes() > 0 && census.successes() >= target;
                (validate::conclude(&census, target, rules, is_compared, verdict), basis)
            }
            Policy::Audited(policy) => {
                let votes = self.votes(unit);
                let groups = self.groups(&votes, |state, vote| {
                    state.standing_of(vote.node, vote.executor).reliability(policy.saboteurs.0)
                });
                let size = |group: &Group| group.size;
                let leader = groups.first().map_or(0, size);
                let rival = groups.iter().skip(1).map(size).max().unwrap_or(0);
                // A record breaks no tie: a receipt that says so would be refused.
                let is_sure = rival > 0
                    && leader >= job.audit_quorum() as usize
                    && leader > rival
                    && (error_of(&groups).is_some_and(|error| error <= policy.accepted_error.0)
                        || leader >= rival + CLEAR_LEAD
                        || (census.in_progress == 0 && nobody_else()));
                let verdict = groups.first().filter(|_| is_sure).map(|group| group.output);
                // One group that agrees waits for its lot, unless none of it counts.
                let is_compared = groups.len() != 1 && census.successes() > 0;
                let count = |size| u32::try_from(size).unwrap_or(u32::MAX);
                let basis = Basis::Majority { counted: count(leader), against: count(rival) };
                (validate::conclude(&census, target, rules, is_compared, verdict), basis)
            }
        }
    }

    fn groups(&self, votes: &[Vote], odds: impl Fn(&Self, &Vote) -> Odds) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for vote in votes {
            let odds = odds(self, vote);
            match groups.iter_mut().find(|group| group.output == vote.output) {
                Some(group) => {
                    group.size += 1;
                    group.odds = group.odds.and(odds);
                }
                None => groups.push(Group { output: vote.output, size: 1, odds }),
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse((group.odds, group.size)));
        groups
    }
}

/// The probability that the leading group is wrong, in billionths.
fn error_of(groups: &[Group]) -> Option<u32> {
    let (leader, others) = groups.split_first()?;
    let others: Vec<Odds> = others.iter().map(|group| group.odds).collect();
    Some(odds::error(leader.odds, &others))
}

/// Lots.
impl Core {
    /// Looks again at whatever changed with the event at hand, until nothing is left.
    pub(crate) fn settle_dirty(&mut self, now: Timestamp) {
        loop {
            if let Some(key) = self.state.dirty.units.pop_first() {
                self.transition(now, key);
            } else if let Some(lot) = self.state.dirty.lots.pop_first() {
                self.review(now, lot);
            } else {
                return;
            }
        }
    }

    /// Draws whether a result that has just been filed is audited at once. The first one of a
    /// node always is: a gross saboteur shows with it.
    pub(crate) fn audit_early(&mut self, now: Timestamp, key: UnitKey) {
        let state = &self.state;
        let job = state.job(key.job);
        let Some(rules) = job.audited() else { return };
        let Some(unit) = state.unit(key) else { return };
        let Some((node, Held::Plain)) = state.filing(key, unit) else { return };
        let Some(vote) = state.votes(unit).first().copied() else { return };
        let standing = state.standing_of(node, vote.executor);
        let lot = u64::from(rules.lot_max);
        let part = audits_millis(rules, lot, standing.clean);
        let drawn = draw(&job.seed, Purpose::EarlyAudit, key.index, &node.to_bytes());
        let is_first = standing.confirmed == 0 && state.n_sampled_of(key, node) == 0;
        if is_first || falls_into(drawn, part, lot * 1000) {
            self.sample(now, key, node);
        }
    }

    /// Has a result that is held for a node computed again by others.
    fn sample(&mut self, now: Timestamp, key: UnitKey, node: NodeId) {
        let job = self.state.job(key.job);
        let Some(unit) = self.state.unit(key) else { return };
        let counted = u32::try_from(self.state.votes(unit).len()).unwrap_or(u32::MAX);
        let missing = self.state.agreeing_wanted(key, unit, node).saturating_sub(counted);
        let target = unit.census().successes().saturating_add(missing);
        let (job, index) = (job.id, key.index);
        self.persist(Record::Sampled { at: now, job, index, target });
        // Its limits may leave no replica for the audit: then it fails.
        self.state.dirty.units.insert(key);
    }

    /// Closes a lot when it is time, has it audited, and accepts it when the audits agree.
    fn review(&mut self, now: Timestamp, key: LotKey) {
        let Some(lot) = self.state.lots.lots.get(&key) else { return };
        let job = self.state.job(key.job);
        let Some(rules) = job.audited().copied() else { return };
        let demand = match lot.demand {
            Some(demand) => demand,
            None => {
                let is_last = !job.has_new() && self.state.lots.in_hand(key) == 0;
                let is_crowded = self.state.lots.n_held > self.state.config.held_max;
                if !(is_last || is_crowded || lot.is_due(&rules, now)) {
                    return;
                }
                let clean = self.state.clean_of(key.node);
                let mut demand = job.demand(&rules, lot.held.len() as u64, clean, key);
                if self.presence.visits.len() <= CROWD {
                    // There may be nobody left to agree.
                    demand.agreeing = job.audit_quorum();
                }
                let (job, node, number) = (job.id, key.node, key.number);
                let Demand { audits, agreeing } = demand;
                self.persist(Record::LotClosed { at: now, job, node, number, audits, agreeing });
                demand
            }
        };
        self.audit(now, key, demand.audits);
    }

    fn audit(&mut self, now: Timestamp, key: LotKey, audits: u32) {
        let Some(lot) = self.state.lots.lots.get(&key) else { return };
        let job = self.state.job(key.job);
        let sample = lot.sample(audits, &job.seed, key.node);
        if !sample.is_empty() {
            for index in sample {
                self.sample(now, UnitKey { job: key.job, index }, key.node);
            }
            return;
        }
        let is_waiting = lot.count(Held::Sampled) > 0 || lot.count(Held::Disputed) > 0;
        if is_waiting || self.state.is_in_dispute(key.node, key.job) {
            return;
        }
        let basis = Basis::Lot {
            results: u32::try_from(lot.held.len()).unwrap_or(u32::MAX),
            audited: lot.count(Held::Confirmed),
        };
        let units: Vec<UnitKey> =
            lot.held.keys().map(|&index| UnitKey { job: key.job, index }).collect();
        // What counts for nothing is not judged by its bytes alone either.
        let n_uncompared = units.iter().filter(|&&unit| self.wants_comparison(unit)).count();
        if n_uncompared > 0 {
            return;
        }
        for unit in units {
            let output =
                self.state.unit(unit).and_then(|held| self.state.votes(held).first().copied());
            if let Some(vote) = output {
                self.accept(now, unit, vote.output, basis);
            }
        }
    }

    /// Makes an output canonical.
    pub(crate) fn accept(&mut self, now: Timestamp, key: UnitKey, output: Cid, basis: Basis) {
        let (job, index) = (self.state.job(key.job).id, key.index);
        let results = self.state.sealed(key);
        let inputs = self.inputs_of(job, index);
        self.persist(Record::Accepted { at: now, job, index, output });
        let at = now;
        self.actions.push_back(Action::Accept { job, index, inputs, output, at, basis, results });
        self.actions.extend(self.state.owed_fetch(key));
    }
}

impl State {
    /// Valid results of a node since it was last caught, by all executors.
    fn clean_of(&self, node: NodeId) -> u32 {
        let Some(trust) = self.trust.get(&node) else { return 0 };
        trust.standings.values().map(|standing| standing.clean).max().unwrap_or(0)
    }

    /// Results of a node's open lot that are audited, or were.
    fn n_sampled_of(&self, key: UnitKey, node: NodeId) -> u32 {
        let account = self.lots.accounts.get(&(key.job, node)).copied().unwrap_or_default();
        let lot = LotKey { job: key.job, node, number: account.open };
        self.lots.lots.get(&lot).map_or(0, |lot| {
            u32::try_from(lot.held.len()).unwrap_or(u32::MAX) - lot.count(Held::Plain)
        })
    }
}
