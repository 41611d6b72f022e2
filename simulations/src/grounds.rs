//! What an acceptance rests on besides its votes: what its nodes gave before.
//!
//! A receipt names the rule that accepted it. Somebody who has the receipt alone can check the
//! votes, and has to take the coordinator's word for the records of the nodes; here those
//! records are kept a second time, from what became durable.
//!
//! The core keeps them for each executor, and a node that is caught begins anew. Here all of it
//! is counted, so every bound below is the most lenient one: what breaks it is wrong for sure.

use std::collections::BTreeSet;

use dockercomp_protocol::job::{Audited, Policy, Share, Validation};
use dockercomp_protocol::receipt::Basis;

/// How far two computations of an error rate may be apart: the core's is in fixed point.
const ROUNDING: f64 = 0.98;
/// The least error rate that a receipt can state.
const LEAST: f64 = 1e-9;

/// What each host gave so far, by its number.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Results that are equal to what was accepted.
    agreed: Vec<u32>,
    /// Those of them that were spot-checks.
    passed: Vec<u32>,
}

/// A unit that was accepted with its lot.
#[derive(Debug)]
pub(crate) struct OfLot {
    pub(crate) job: u32,
    pub(crate) results: u32,
    pub(crate) audited: u32,
    /// Who gave what was accepted.
    pub(crate) agreeing: BTreeSet<u32>,
}

impl Records {
    pub(crate) fn new(hosts: usize) -> Self {
        Self { agreed: vec![0; hosts], passed: vec![0; hosts] }
    }

    /// A result of a host is equal to what was accepted.
    pub(crate) fn agree(&mut self, host: u32, is_check: bool) {
        let counts = [Some(&mut self.agreed), is_check.then_some(&mut self.passed)];
        for count in counts.into_iter().flatten() {
            if let Some(count) = count.get_mut(host as usize) {
                *count += 1;
            }
        }
    }

    fn of(counts: &[u32], host: u32) -> u32 {
        counts.get(host as usize).copied().unwrap_or(0)
    }

    /// Whether the records bear out what a receipt says of its nodes.
    pub(crate) fn bear_out(
        &self,
        basis: Basis,
        rules: &Validation,
        agreeing: &BTreeSet<u32>,
        against: &BTreeSet<u32>,
    ) -> bool {
        match (basis, &rules.policy) {
            (Basis::Trusted { consecutive_valid }, _) => {
                let mut hosts = agreeing.iter().chain(against);
                hosts.any(|&host| Self::of(&self.agreed, host) >= consecutive_valid)
            }
            (Basis::Credible { error }, Policy::Credibility(policy)) => {
                let odds = agreeing.iter().map(|&host| {
                    let wrong = wrong_after(Self::of(&self.passed, host), policy.saboteurs);
                    (1.0 - wrong) / wrong
                });
                let at_best = 1.0 / (1.0 + odds.product::<f64>());
                let is_enough = agreeing.len() + against.len() >= rules.min_quorum as usize;
                is_enough && share(error) + LEAST >= at_best * ROUNDING
            }
            // Lots are looked at as a whole.
            (
                Basis::Quorum | Basis::Credible { .. } | Basis::Lot { .. } | Basis::Majority { .. },
                _,
            ) => true,
        }
    }

    /// Whether the units that one batch accepted in lots came as whole lots, each of one node,
    /// with as many of them confirmed as the lot says, and as many as its owner demands. If
    /// not, gives the first that is wrong.
    pub(crate) fn first_bad_lot<'a>(
        &self,
        accepted: &'a [OfLot],
        rules: impl Fn(u32) -> &'a Validation,
    ) -> Option<&'a OfLot> {
        let mut rest = accepted;
        while let Some(first) = rest.first() {
            let lot = rest.get(..first.results as usize).filter(|lot| !lot.is_empty());
            if !lot.is_some_and(|lot| self.has_passed(lot, rules(first.job))) {
                return Some(first);
            }
            rest = &rest[first.results as usize..];
        }
        None
    }

    fn has_passed(&self, lot: &[OfLot], rules: &Validation) -> bool {
        let (first, Policy::Audited(policy)) = (&lot[0], &rules.policy) else { return false };
        let alike = |unit: &OfLot| {
            (unit.job, unit.results, unit.audited) == (first.job, first.results, first.audited)
        };
        let quorum = rules.min_quorum.max(2) as usize;
        let confirmed = lot.iter().filter(|unit| unit.agreeing.len() >= quorum).count();
        let is_enough_for = |host: &u32| {
            lot.iter().all(|unit| unit.agreeing.contains(host))
                && first.audited >= audits(policy, first.results, Self::of(&self.agreed, *host))
        };
        lot.iter().all(alike)
            && first.audited as usize <= confirmed
            && first.agreeing.iter().any(is_enough_for)
    }
}

fn share(share: Share) -> f64 {
    f64::from(share.0) / f64::from(Share::WHOLE.0)
}

/// Sarmenta's estimate that a result is wrong, of a node that passed so many spot-checks.
fn wrong_after(checks: u32, saboteurs: Share) -> f64 {
    let f = share(saboteurs);
    let bound = f / ((1.0 - f) * f64::from(checks) * std::f64::consts::E);
    if bound < f { bound } else { f }
}

/// Audits that a lot of so many results must pass at least, if its node has so many accepted
/// results behind it: `r n / (n + c / 2)`, a fraction of an audit left to chance.
fn audits(policy: &Audited, results: u32, clean: u32) -> u32 {
    let (f, error) = (share(policy.saboteurs), share(policy.accepted_error));
    let (n, clean) = (f64::from(results), f64::from(clean));
    let alone = f / ((1.0 - f) * std::f64::consts::E * error);
    let wanted = (alone * n / (n + clean / 2.0)).max(share(policy.audit_floor) * n).min(n);
    // The core cuts a thousandth of an audit.
    (wanted - 0.002).max(0.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::JobPlan;

    fn rules(policy: Policy) -> Validation {
        Validation { policy, ..JobPlan::new(1).validation }
    }

    /// Units of a lot of three, of host 1, the first so many confirmed by host 2.
    fn lot(audited: u32, confirmed: usize) -> Vec<OfLot> {
        let unit = |number| {
            let agreeing = if number < confirmed { [1, 2].into() } else { [1].into() };
            OfLot { job: 0, results: 3, audited, agreeing }
        };
        (0..3).map(unit).collect()
    }

    #[test]
    fn a_lot_is_whole_and_confirmed_as_often_as_its_owner_demands() {
        let policy = Audited {
            accepted_error: Share::from_millionths(50_000),
            saboteurs: Share::from_millionths(200_000),
            ..Audited::default()
        };
        // r = 0.25 / (e * 0.05) = 1.84
        assert_eq!([audits(&policy, 3, 0), audits(&policy, 3, 6)], [1, 0]);
        let rules = rules(Policy::Audited(policy));
        let records = Records::new(3);
        let is_bad = |lot: &[OfLot]| records.first_bad_lot(lot, |_| &rules).is_some();
        assert!(!is_bad(&lot(1, 1)));
        assert!(is_bad(&lot(0, 3)), "fewer audits than demanded");
        assert!(is_bad(&lot(2, 1)), "fewer confirmed than it says");
        assert!(is_bad(&lot(1, 1)[..2]), "a part of it is missing");
        let mut of_two = lot(1, 1);
        of_two[2].agreeing = [2].into();
        assert!(is_bad(&of_two), "of two nodes");
    }

    #[test]
    fn a_receipt_cannot_say_more_than_a_record_holds() {
        let mut records = Records::new(2);
        let (agreeing, against) = (BTreeSet::from([1]), BTreeSet::new());
        let trusted = |records: &Records| {
            let basis = Basis::Trusted { consecutive_valid: 2 };
            let rules = rules(Policy::Adaptive(Default::default()));
            records.bear_out(basis, &rules, &agreeing, &against)
        };
        records.agree(1, false);
        assert!(!trusted(&records));
        records.agree(1, true);
        assert!(trusted(&records));

        let mut rules = rules(Policy::Credibility(Default::default()));
        rules.min_quorum = 1;
        let credible = |error| {
            let basis = Basis::Credible { error: Share::from_millionths(error) };
            records.bear_out(basis, &rules, &agreeing, &against)
        };
        // 0.2 / (0.8 e), after one check
        assert!(credible(92_000) && !credible(80_000));
    }
}
