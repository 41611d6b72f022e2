//! Lots: results of one node that are held until a sample of them is confirmed by others.
//!
//! ```text
//!            full, old, or nothing more to come       its audits agree
//! open ───────────────────────────────────────► closed ───────────────► all of it accepted
//!   │  some results are audited at once             │ a result is refuted
//!   └───────────────────────────────────────────────┴──► the node is caught, the lot is void
//! ```
//!
//! A unit under policy `audited` is filed in the lot of the node that gave its first result
//! that counts. Which results are audited is drawn after they are reported, and who audits is
//! drawn as well, so that neither can be arranged. A void lot is not lost time for the job
//! alone: its units go to other nodes first.
//!
//! # How many audits
//!
//! With a share `f` of saboteurs in collusion, a lot of `n` results of which a share `s` is
//! wrong passes `m` audits with probability `(1 - s (1 - f))^m`, so at most
//! `f / ((1 - f) e (m + 1))` of what is accepted is wrong, whatever `s` (acceptance sampling's
//! average outgoing quality limit). `m = r = f / ((1 - f) e accepted_error)` keeps to the
//! owner's rate with each lot by itself. A node with `c` accepted results behind it has to show
//! less, `r n / (n + c / 2)`: a saboteur that waits until it is trusted can then do harm in
//! proportion to what it gave before, and is caught by the next audits.
//!
//! A lot too small to show that much is audited whole, and then what gets through is what
//! auditors confirm who are saboteurs themselves: with `q` of them for each result at most
//! `f^(q + 1) (1 - 1/n)^(n - 1) / (n + c)` of what the node gave. So the smaller the lot and
//! the shorter the record, the more results must agree.
//!
//! # Bounds
//!
//! A lot holds at most `lot_max` results and is closed at the latest `hold` after its first;
//! all lots together hold `Config::held_max`.

use std::collections::{BTreeMap, BTreeSet};

use dockercomp_protocol::job::{Audited, Policy};
use dockercomp_protocol::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::chance::{Purpose, draw, falls_into};
use crate::job::{Job, JobNumber};
use crate::record::Seed;
use crate::state::State;
use crate::unit::UnitKey;

/// Results that must agree in the smallest lots, at most.
const AGREEING_MAX: u32 = 8;

/// Which lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LotKey {
    pub(crate) job: JobNumber,
    pub(crate) node: NodeId,
    pub(crate) number: u32,
}

/// Why a result waits in a lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Held {
    /// For the lot.
    Plain,
    /// For an audit.
    Sampled,
    /// It was confirmed, and waits for the lot.
    Confirmed,
    /// It was contradicted, and who is right is open.
    Disputed,
}

/// What a lot must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Demand {
    /// Audits that it must pass.
    pub(crate) audits: u32,
    /// Results that must agree for one of them to be passed.
    pub(crate) agreeing: u32,
}

/// A lot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lot {
    #[serde(with = "crate::snapshot::pairs")]
    pub(crate) held: BTreeMap<u64, Held>,
    pub(crate) opened_at: Timestamp,
    /// What it must show, once it is closed.
    pub(crate) demand: Option<Demand>,
}

/// What one node does in one job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Account {
    /// Its leases that are not over.
    pub(crate) in_hand: u32,
    /// The number of the lot that its results join.
    pub(crate) open: u32,
}

/// All lots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lots {
    #[serde(with = "crate::snapshot::pairs")]
    pub(crate) lots: BTreeMap<LotKey, Lot>,
    #[serde(with = "crate::snapshot::pairs")]
    pub(crate) accounts: BTreeMap<(JobNumber, NodeId), Account>,
    /// When open lots are to be closed.
    pub(crate) deadlines: BTreeSet<(Timestamp, LotKey)>,
    /// Results in all of them.
    pub(crate) n_held: usize,
}

impl Lots {
    /// The lots of one node in one job.
    pub(crate) fn of(&self, job: JobNumber, node: NodeId) -> Vec<LotKey> {
        let key = |number| LotKey { job, node, number };
        self.lots.range(key(0)..=key(u32::MAX)).map(|(&key, _)| key).collect()
    }

    /// The open lots of one job.
    pub(crate) fn open_of(&self, job: JobNumber) -> Vec<LotKey> {
        let open = self.accounts.iter().filter(|((of, _), _)| *of == job);
        open.map(|(&(job, node), account)| LotKey { job, node, number: account.open })
            .filter(|key| self.lots.contains_key(key))
            .collect()
    }

    /// The units that a lot holds.
    pub(crate) fn indices(&self, key: LotKey) -> Vec<u64> {
        self.lots.get(&key).map_or_else(Vec::new, |lot| lot.held.keys().copied().collect())
    }

    pub(crate) fn in_hand(&self, key: LotKey) -> u32 {
        self.accounts.get(&(key.job, key.node)).map_or(0, |account| account.in_hand)
    }

    /// The number of the lot that one more result of a node joins. Several may come at once,
    /// when a node is caught whose units this one has confirmed: a full lot takes none of them,
    /// though it is not closed yet.
    fn joinable(&mut self, job: JobNumber, node: NodeId, rules: &Audited) -> u32 {
        let account = self.accounts.entry((job, node)).or_default();
        let open = LotKey { job, node, number: account.open };
        if self.lots.get(&open).is_some_and(|lot| lot.held.len() >= rules.lot_max as usize) {
            account.open += 1;
        }
        account.open
    }

    fn put(&mut self, key: LotKey, index: u64, held: Held, at: Timestamp, rules: &Audited) {
        let lot = self.lots.entry(key).or_insert_with(|| {
            let closes_at = Timestamp(at.0.saturating_add(rules.hold_ms));
            self.deadlines.insert((closes_at, key));
            Lot { held: BTreeMap::new(), opened_at: at, demand: None }
        });
        if lot.held.insert(index, held).is_none() {
            self.n_held += 1;
        }
    }

    fn take(&mut self, key: LotKey, index: u64, rules: &Audited) {
        let Some(lot) = self.lots.get_mut(&key) else { return };
        if lot.held.remove(&index).is_some() {
            self.n_held -= 1;
        }
        if lot.held.is_empty() {
            let closes_at = Timestamp(lot.opened_at.0.saturating_add(rules.hold_ms));
            self.deadlines.remove(&(closes_at, key));
            self.lots.remove(&key);
        }
    }

    /// Closes a lot, if it is there and open.
    pub(crate) fn close(&mut self, key: LotKey, demand: Demand, rules: &Audited) -> bool {
        let Some(lot) = self.lots.get_mut(&key).filter(|lot| lot.demand.is_none()) else {
            return false;
        };
        lot.demand = Some(demand);
        let closes_at = Timestamp(lot.opened_at.0.saturating_add(rules.hold_ms));
        self.deadlines.remove(&(closes_at, key));
        let account = self.accounts.entry((key.job, key.node)).or_default();
        account.open = account.open.max(key.number + 1);
        true
    }
}

impl Lot {
    pub(crate) fn count(&self, held: Held) -> u32 {
        let n = self.held.values().filter(|&&other| other == held).count();
        u32::try_from(n).unwrap_or(u32::MAX)
    }

    /// Whether results may not join it any more.
    pub(crate) fn is_due(&self, rules: &Audited, now: Timestamp) -> bool {
        self.held.len() >= rules.lot_max as usize
            || now.0 >= self.opened_at.0.saturating_add(rules.hold_ms)
    }

    /// Which of its results to audit so that `wanted` are, the same whenever it is asked.
    pub(crate) fn sample(&self, wanted: u32, seed: &Seed, node: NodeId) -> Vec<u64> {
        let plain: Vec<u64> = self
            .held
            .iter()
            .filter(|&(_, &held)| held == Held::Plain)
            .map(|(&index, _)| index)
            .collect();
        let audited = self.held.len() - plain.len();
        let missing = (wanted as usize).saturating_sub(audited);
        let mut drawn: Vec<(u64, u64)> = plain
            .into_iter()
            .map(|index| (draw(seed, Purpose::Audit, index, &node.to_bytes()), index))
            .collect();
        drawn.sort_unstable();
        drawn.into_iter().take(missing).map(|(_, index)| index).collect()
    }
}

/// Thousandths of audits that a lot of `n` results must pass, if its node has `clean` accepted
/// results behind it.
pub(crate) fn audits_millis(rules: &Audited, n: u64, clean: u32) -> u64 {
    const BILLION: u128 = 1_000_000_000;
    const E: u128 = 2_718_281_828;
    let (f, error) = (u128::from(rules.saboteurs.0), u128::from(rules.accepted_error.0));
    // r, in thousandths.
    let alone = f * BILLION * BILLION * 1000 / ((BILLION - f) * E * error).max(1);
    let n = u128::from(n);
    let of_record = alone.saturating_mul(2 * n) / (2 * n + u128::from(clean)).max(1);
    let at_least = u128::from(rules.audit_floor.0) * n * 1000 / BILLION;
    let audits = of_record.max(at_least).min(n * 1000);
    u64::try_from(audits).unwrap_or(u64::MAX)
}

/// Results that must agree, its own among them, for one of a lot of `n` results to pass its
/// audit, if all of them are audited: a quorum that grows until the auditors' own share of
/// saboteurs is small enough.
pub(crate) fn agreeing(rules: &Audited, n: u64, clean: u32) -> u32 {
    const BILLION: u128 = 1_000_000_000;
    let f = u128::from(rules.saboteurs.0);
    let others = u128::from(n) + u128::from(clean);
    // A lot of one is at best a lie always, a larger one with probability 1 / n.
    let best_permille = if n == 1 { 1000 } else { 368 };
    let is_enough =
        |wrong: u128| wrong * best_permille <= u128::from(rules.accepted_error.0) * others * 1000;
    let (mut wrong, mut agreeing) = (f * f / BILLION, 2);
    while !is_enough(wrong) && agreeing < AGREEING_MAX {
        wrong = wrong * f / BILLION;
        agreeing += 1;
    }
    agreeing
}

/// Whole audits: what is over is rounded up as often as it says.
pub(crate) fn whole_audits(millis: u64, seed: &Seed, key: LotKey) -> u32 {
    let rounding = draw(seed, Purpose::Rounding, u64::from(key.number), &key.node.to_bytes());
    let up = falls_into(rounding, millis % 1000, 1000);
    u32::try_from(millis / 1000).unwrap_or(u32::MAX).saturating_add(u32::from(up))
}

impl Job {
    /// The rules of policy `audited`, if it is the job's.
    pub(crate) const fn audited(&self) -> Option<&Audited> {
        match &self.terms.validation.policy {
            Policy::Audited(rules) => Some(rules),
            Policy::Fixed | Policy::Adaptive(_) | Policy::Credibility(_) => None,
        }
    }

    /// What a lot must show: of so many results, of a node with so many accepted ones.
    pub(crate) fn demand(&self, rules: &Audited, n: u64, clean: u32, key: LotKey) -> Demand {
        let millis = audits_millis(rules, n, clean);
        let audits = whole_audits(millis, &self.seed, key);
        let quorum = self.audit_quorum();
        if u64::from(audits) < n {
            return Demand { audits, agreeing: quorum };
        }
        // A unit that has no replica left for its audit fails.
        let most = self.terms.validation.max_success_results.min(AGREEING_MAX);
        Demand { audits, agreeing: agreeing(rules, n, clean).min(most).max(quorum) }
    }
}

impl State {
    /// Files a unit where it belongs after it, or what its nodes are worth, changed.
    pub(crate) fn refile(&mut self, at: Timestamp, key: UnitKey) {
        let Some(rules) = self.job(key.job).audited().copied() else { return };
        let Some(unit) = self.unit(key) else { return };
        let filing = self.filing(key, unit);
        let old = unit.filed.as_deref().copied();
        let new = filing.map(|(node, held)| {
            let number = match old {
                Some(lot) if lot.node == node => lot.number,
                Some(_) | None => self.lots.joinable(key.job, node, &rules),
            };
            (LotKey { job: key.job, node, number }, held)
        });
        if let Some(lot) = old
            && new.is_none_or(|(other, _)| other != lot)
        {
            self.lots.take(lot, key.index, &rules);
            self.dirty.lots.insert(lot);
        }
        if let Some((lot, held)) = new {
            self.lots.put(lot, key.index, held, at, &rules);
            self.dirty.lots.insert(lot);
        }
        self.unit_mut(key).filed = new.map(|(lot, _)| Box::new(lot));
    }

    /// Takes a unit out of its lot before it is forgotten.
    pub(crate) fn unfile(&mut self, key: UnitKey) {
        let Some(rules) = self.job(key.job).audited().copied() else { return };
        if let Some(lot) = self.unit_mut(key).filed.take() {
            self.lots.take(*lot, key.index, &rules);
            self.dirty.lots.insert(*lot);
        }
    }
}

#[cfg(test)]
mod tests {
    use dockercomp_protocol::job::Share;

    use super::*;

    fn rules(saboteurs: u32) -> Audited {
        Audited { saboteurs: Share::from_millionths(saboteurs), ..Audited::default() }
    }

    /// `f / ((1 - f) e error)` for a first lot of any size, less with a record.
    #[test]
    fn a_record_is_worth_audits() {
        let rules = rules(200_000);
        assert_eq!(audits_millis(&rules, 500, 0), 91_969);
        assert_eq!(audits_millis(&rules, 500, 1000), 45_984);
        assert_eq!(audits_millis(&rules, 500, 1_000_000), 2500, "the floor");
        assert_eq!(audits_millis(&rules, 20, 0), 20_000, "no more than there are");
    }

    /// `f^(q + 1) / (n + c)` for one result, a share 1 / e of that for many.
    #[test]
    fn small_lots_of_strangers_need_more_who_agree() {
        let of = |saboteurs, n, clean| agreeing(&rules(saboteurs), n, clean);
        assert_eq!([of(50_000, 1, 0), of(50_000, 1, 2), of(50_000, 3, 0)], [3, 2, 2]);
        assert_eq!([of(350_000, 1, 0), of(350_000, 1, 20), of(350_000, 1, 130)], [7, 4, 2]);
        assert_eq!([of(350_000, 10, 0), of(350_000, 30, 20)], [4, 2]);
        assert_eq!(of(900_000, 1, 0), AGREEING_MAX);
    }
}
