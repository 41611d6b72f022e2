//! When a result counts: the rules that the owner of a job chooses.
//!
//! Shares and tolerances are decimal integers here, not floats: a specification has one
//! encoding, and the coordinator decides by integer arithmetic alone.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::spec::SpecError;
use crate::execution::Limits;
use crate::limits::{ARG_BYTES_MAX, ARGS_MAX, LOT_RESULTS_MAX, UNIT_REPLICAS_MAX};

/// When results count: BOINC's replication parameters, under their names, and the policy that
/// uses them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// How agreement is judged.
    pub policy: Policy,
    /// Successful results that must be there before they are compared.
    pub min_quorum: u32,
    /// Replicas made at first; at least `min_quorum`.
    pub target_nresults: u32,
    /// The work unit fails when more replicas than this end in an error.
    pub max_error_results: u32,
    /// The work unit fails when it would need more replicas than this in all.
    pub max_total_results: u32,
    /// The work unit fails when more successful results than this do not agree.
    pub max_success_results: u32,
    /// Time from a lease to its deadline, in milliseconds.
    pub delay_bound_ms: u64,
    /// When two outputs are the same.
    #[serde(default, skip_serializing_if = "is_default")]
    pub comparison: Comparison,
    /// What the nodes of one work unit must have in common.
    #[serde(default, skip_serializing_if = "is_default")]
    pub homogeneous: Homogeneity,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Validation {
    /// Time from a lease to its deadline.
    #[must_use]
    pub const fn delay_bound(&self) -> Duration {
        Duration::from_millis(self.delay_bound_ms)
    }

    /// Results that must agree: a strict majority of the quorum (BOINC's `check_set`).
    #[must_use]
    pub const fn agreement(&self) -> u32 {
        self.min_quorum / 2 + 1
    }

    pub(super) fn check(&self, limits: &Limits) -> Result<(), SpecError> {
        let refuse = |reason| Err(SpecError::Validation { reason });
        if self.min_quorum < 1 {
            return refuse("min_quorum must be at least 1");
        }
        if self.target_nresults < self.min_quorum {
            return refuse("target_nresults must be at least min_quorum");
        }
        if self.max_success_results < self.min_quorum {
            return refuse("max_success_results must be at least min_quorum");
        }
        if self.max_total_results < self.target_nresults {
            return refuse("max_total_results must be at least target_nresults");
        }
        if self.max_total_results > UNIT_REPLICAS_MAX {
            return refuse("max_total_results must be at most 100");
        }
        if self.delay_bound_ms < limits.wall_ms {
            return refuse("delay_bound must be at least wall_time of [resources]");
        }
        self.policy.check()?;
        self.comparison.check()
    }
}

/// How agreement is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// A fixed quorum of equal outputs.
    Fixed,
    /// One result of a node with a record is enough, most of the time (BOINC).
    Adaptive(Adaptive),
    /// As many results as reach the error rate that the owner accepts (Sarmenta).
    Credibility(Credibility),
    /// Results of one node are held, a random sample of them is computed again by others,
    /// and what is held is accepted as one lot (acceptance sampling).
    Audited(Audited),
}

/// BOINC's adaptive replication.
///
/// A node is trusted with `consecutive_valid >= trusted_after`, and then only with
/// probability `1 - replication_factor / consecutive_valid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adaptive {
    /// Replicated valid results in a row before a node is trusted (BOINC: 10).
    pub trusted_after: u32,
    /// How often a trusted node is checked still (BOINC: 1).
    pub replication_factor: u32,
}

/// Sarmenta's credibility-based fault tolerance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credibility {
    /// Share of accepted results that may be wrong.
    pub accepted_error: Share,
    /// Share of nodes that are assumed to be saboteurs.
    pub saboteurs: Share,
    /// Share of leases that are spot-checks: work whose result is known.
    pub spot_checks: Share,
}

/// Acceptance sampling by lots.
///
/// A lot of `n` results of a node with `c` accepted results behind it is accepted when
/// `r * n / (n + c / 2)` of them, drawn at random after they were reported, are confirmed by
/// other nodes, with `r = f / ((1 - f) * e * accepted_error)` for a share `f` of saboteurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audited {
    /// Share of accepted results that may be wrong.
    pub accepted_error: Share,
    /// Share of nodes that are assumed to be saboteurs, all of them in collusion.
    pub saboteurs: Share,
    /// Share of results that is audited at least, however long the record of a node.
    pub audit_floor: Share,
    /// Results in one lot at most.
    pub lot_max: u32,
    /// A lot is closed this long after its first result, in milliseconds.
    pub hold_ms: u64,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self { trusted_after: 10, replication_factor: 1 }
    }
}

impl Default for Credibility {
    fn default() -> Self {
        Self {
            accepted_error: Share::from_millionths(1000),
            saboteurs: Share::from_millionths(200_000),
            spot_checks: Share::from_millionths(100_000),
        }
    }
}

impl Default for Audited {
    fn default() -> Self {
        Self {
            accepted_error: Share::from_millionths(1000),
            saboteurs: Share::from_millionths(50_000),
            audit_floor: Share::from_millionths(5000),
            lot_max: 512,
            hold_ms: 3_600_000,
        }
    }
}

impl Policy {
    fn check(&self) -> Result<(), SpecError> {
        let refuse = |reason| Err(SpecError::Validation { reason });
        let (accepted_error, saboteurs) = match self {
            Self::Fixed => return Ok(()),
            Self::Adaptive(Adaptive { trusted_after: 0, .. }) => {
                return refuse("trusted_after must be at least 1");
            }
            Self::Adaptive(_) => return Ok(()),
            Self::Credibility(rules) if rules.spot_checks >= Share::WHOLE => {
                return refuse("spot_checks must be less than 1");
            }
            Self::Audited(rules) if rules.lot_max < 1 || rules.lot_max > LOT_RESULTS_MAX => {
                return refuse("lot_max must be 1 to 4096");
            }
            Self::Credibility(rules) => (rules.accepted_error, rules.saboteurs),
            Self::Audited(rules) => (rules.accepted_error, rules.saboteurs),
        };
        if accepted_error < Share(1) || accepted_error >= Share::WHOLE {
            return refuse("accepted_error must be at least 0.000000001 and less than 1");
        }
        if saboteurs < Share(1) || saboteurs > Share::from_millionths(900_000) {
            return refuse("saboteurs must be more than 0 and at most 0.9");
        }
        Ok(())
    }
}

/// A share of a whole, in billionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(pub u32);

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self(1_000_000_000);

    /// So many millionths.
    #[must_use]
    pub const fn from_millionths(millionths: u32) -> Self {
        Self(millionths * 1000)
    }

    /// The share nearest to a number from 0 to 1.
    #[must_use]
    pub fn nearest(number: f64) -> Option<Self> {
        let is_share = (0.0..=1.0).contains(&number);
        is_share.then(|| Self((number * 1e9).round() as u32))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1e9)
    }
}

/// When two outputs are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Comparison {
    /// When they are equal in every byte.
    #[default]
    Identical,
    /// When they hold the same numbers, within a tolerance.
    Numeric(Tolerance),
    /// When the owner's program says so.
    Checker {
        /// Its arguments; the program is the job's own.
        args: Vec<String>,
    },
}

/// How far two numbers may be apart: `|a - b| <= absolute + relative * max(|a|, |b|)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// However large they are.
    pub absolute: Decimal,
    /// Compared with the larger of the two.
    pub relative: Decimal,
}

/// A number that is not negative, `digits * 10^exponent`: exact, unlike a float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decimal {
    /// Its digits.
    pub digits: u64,
    /// The power of ten.
    pub exponent: i16,
}

impl Decimal {
    /// The shortest decimal that stands for a float, if it is finite and not negative.
    #[must_use]
    pub fn shortest(number: f64) -> Option<Self> {
        if !number.is_finite() || number.is_sign_negative() {
            return None;
        }
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e')?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let places = i16::try_from(fraction.len()).ok()?;
        let exponent = exponent.parse::<i16>().ok()?.checked_sub(places)?;
        Some(Self { digits: format!("{whole}{fraction}").parse().ok()?, exponent })
    }

    /// The nearest float.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        format!("{}e{}", self.digits, self.exponent).parse().unwrap_or(f64::INFINITY)
    }
}

impl Comparison {
    fn check(&self) -> Result<(), SpecError> {
        match self {
            Self::Identical => Ok(()),
            Self::Numeric(tolerance) if tolerance.relative.to_f64() >= 1.0 => {
                Err(SpecError::Validation { reason: "relative_tolerance must be below 1" })
            }
            Self::Numeric(tolerance) if !tolerance.absolute.to_f64().is_finite() => {
                Err(SpecError::Validation { reason: "absolute_tolerance is too large" })
            }
            Self::Numeric(_) => Ok(()),
            Self::Checker { args }
                if args.len() > ARGS_MAX || args.iter().any(|arg| arg.len() > ARG_BYTES_MAX) =>
            {
                Err(SpecError::Args)
            }
            Self::Checker { .. } => Ok(()),
        }
    }
}

/// What all nodes of one work unit must have in common, where results differ by platform
/// (BOINC's homogeneous redundancy). The first lease of a work unit decides its class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Homogeneity {
    /// The operating system.
    pub os: bool,
    /// The vendor of the CPU.
    pub cpu: bool,
    /// The executor.
    pub executor: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        for (number, digits, exponent) in
            [(0.0, 0, 0), (1e-9, 1, -9), (0.0015, 15, -4), (250.0, 25, 1), (1.0, 1, 0)]
        {
            let decimal = Decimal::shortest(number).expect("finite");
            assert_eq!(decimal, Decimal { digits, exponent }, "{number}");
            assert!((decimal.to_f64() - number).abs() <= f64::EPSILON * number);
        }
        assert_eq!(Decimal::shortest(-1.0), None);
        assert_eq!(Decimal::shortest(f64::NAN), None);
        assert!(Decimal { digits: 1, exponent: i16::MAX }.to_f64().is_infinite());
    }

    #[test]
    fn shares_are_parts_of_one() {
        assert_eq!(Share::nearest(0.001), Some(Share::from_millionths(1000)));
        assert_eq!(Share::nearest(1.0), Some(Share::WHOLE));
        assert_eq!(Share::nearest(1.1), None);
        assert_eq!(Share::from_millionths(1500).to_string(), "0.0015");
    }
}
