//! Odds in fixed point: how much more likely a result is right than wrong.
//!
//! Sarmenta, *Sabotage-Tolerance Mechanisms for Volunteer Computing Systems*, 2002, in the form
//! of odds: a node that is wrong with probability `b` has the odds `w = (1 - b) / b`; results
//! that agree multiply the odds of their nodes; and of several groups of results that differ,
//! group `g` is right with probability `W(g) / (1 + sum of all W)`.
//!
//! Integers only, so that every platform decides the same.

/// Odds, in units of 2^-16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Odds(u128);

/// Billionths in one.
const BILLION: u128 = 1_000_000_000;
/// `e`, in billionths.
const E: u128 = 2_718_281_828;
/// Beyond this more odds make no difference to any error rate that can be asked for.
const MOST: u128 = 1 << 80;

impl Odds {
    const FRACTION_BITS: u32 = 16;
    /// As likely right as wrong: what nobody vouches for.
    pub(crate) const EVEN: Self = Self(1 << Self::FRACTION_BITS);

    /// The odds of a node after it has passed `checks`, if a share of `saboteurs` billionths of
    /// the nodes are saboteurs who cheat at the rate that serves them best and are barred when
    /// they are caught: wrong with probability `f / ((1 - f) * checks * e)`, and with `f` before
    /// the first check.
    pub(crate) const fn after(checks: u32, saboteurs: u32) -> Self {
        let f = saboteurs as u128;
        // wrong = part / whole
        let (mut part, mut whole) = (f, BILLION);
        if checks > 0 {
            let checked_whole = (BILLION - f) * checks as u128 * E / BILLION;
            // The bound says nothing while it is worse than knowing nothing.
            if checked_whole > BILLION {
                (part, whole) = (f, checked_whole);
            }
        }
        let odds = ((whole - part) << Self::FRACTION_BITS) / part;
        Self(if odds < MOST { odds } else { MOST })
    }

    /// The odds of two that agree.
    pub(crate) const fn and(self, other: Self) -> Self {
        let product = self.0.saturating_mul(other.0) >> Self::FRACTION_BITS;
        Self(if product < MOST { product } else { MOST })
    }
}

/// The probability, in billionths and rounded up, that the group with odds `leader` is wrong,
/// if the groups that differ from it have the odds `others`.
pub(crate) fn error(leader: Odds, others: &[Odds]) -> u32 {
    let against = others.iter().fold(Odds::EVEN.0, |sum, odds| sum.saturating_add(odds.0));
    let all = against.saturating_add(leader.0);
    // Both sides shrink alike until the product fits.
    let shift = 128u32.saturating_sub(all.leading_zeros()).saturating_sub(90);
    let (against, all) = (against >> shift, (all >> shift).max(1));
    let error = (against * BILLION).div_ceil(all).min(BILLION);
    u32::try_from(error).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIFTH: u32 = 200_000_000;

    fn agreeing(n: u32, odds: Odds) -> Odds {
        (1..n).fold(odds, |sum, _| sum.and(odds))
    }

    fn is_near(found: u32, expected: f64) {
        let found = f64::from(found) / 1e9;
        assert!((found / expected - 1.0).abs() < 0.02, "{found} is not {expected}");
    }

    /// The reference values of the formula: strangers who agree, a fifth of them saboteurs.
    #[test]
    fn agreement_of_strangers() {
        let stranger = Odds::after(0, FIFTH);
        for (n, expected) in
            [(1, 0.2), (2, 0.058_82), (3, 0.015_38), (4, 3.891e-3), (5, 9.756e-4), (6, 2.441e-4)]
        {
            is_near(error(agreeing(n, stranger), &[]), expected);
        }
    }

    /// Spot-checks that a single result needs, with blacklisting.
    #[test]
    fn checks_until_one_result_is_enough() {
        for (saboteurs, accepted, checks) in [
            (FIFTH, 10_000_000, 10),
            (FIFTH, 1_000_000, 92),
            (FIFTH, 100_000, 920),
            (350_000_000, 10_000_000, 20),
            (350_000_000, 1_000_000, 199),
            (350_000_000, 100_000, 1981),
        ] {
            let is_enough = |checks| error(Odds::after(checks, saboteurs), &[]) <= accepted;
            assert!(is_enough(checks), "{checks} at {saboteurs}");
            assert!(!is_enough(checks - 1), "{checks} at {saboteurs}");
        }
    }

    #[test]
    fn who_disagrees_counts_against() {
        let stranger = Odds::after(0, FIFTH);
        let pair = agreeing(2, stranger);
        assert!(error(pair, &[stranger]) > error(pair, &[]));
        is_near(error(pair, &[pair]), 17.0 / 33.0);
    }

    #[test]
    fn nothing_overflows() {
        let sure = Odds::after(u32::MAX, 1);
        assert_eq!(error(agreeing(100, sure), &[]), 1);
        assert!(error(agreeing(100, sure), &[agreeing(100, sure)]) >= 500_000_000);
        assert!(error(Odds::after(0, 900_000_000), &[]) >= 900_000_000);
    }
}
