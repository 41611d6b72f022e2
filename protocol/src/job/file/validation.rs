//! `[validation]` of a job file.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::duration;
use crate::job::validation::{
    Adaptive, Audited, Comparison, Credibility, Decimal, Homogeneity, Policy, Share, Tolerance,
    Validation,
};
use crate::time::millis;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ValidationSection {
    policy: PolicyName,
    min_quorum: u32,
    target_nresults: Option<u32>,
    max_error_results: u32,
    max_total_results: u32,
    max_success_results: u32,
    #[serde(deserialize_with = "duration")]
    delay_bound: Duration,

    trusted_after: Option<u32>,
    replication_factor: Option<u32>,
    #[serde(deserialize_with = "share")]
    accepted_error: Option<Share>,
    #[serde(deserialize_with = "share")]
    saboteurs: Option<Share>,
    #[serde(deserialize_with = "share")]
    spot_checks: Option<Share>,
    #[serde(deserialize_with = "share")]
    audit_floor: Option<Share>,
    lot_max: Option<u32>,
    #[serde(deserialize_with = "some_duration")]
    hold: Option<Duration>,

    comparison: ComparisonName,
    #[serde(deserialize_with = "decimal")]
    absolute_tolerance: Option<Decimal>,
    #[serde(deserialize_with = "decimal")]
    relative_tolerance: Option<Decimal>,
    checker_args: Option<Vec<String>>,

    homogeneous: Vec<Trait>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PolicyName {
    Fixed,
    Adaptive,
    Credibility,
    Audited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ComparisonName {
    Identical,
    Numeric,
    Checker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Trait {
    Os,
    Cpu,
    Executor,
}

impl Default for ValidationSection {
    /// Audited lots, quorum 2 where a lot is small, and room for a handful of errors and
    /// disagreements. `docs/trust.md` compares the policies.
    fn default() -> Self {
        Self {
            policy: PolicyName::Audited,
            min_quorum: 2,
            target_nresults: None,
            max_error_results: 3,
            max_total_results: 8,
            max_success_results: 6,
            delay_bound: Duration::from_secs(3600),
            trusted_after: None,
            replication_factor: None,
            accepted_error: None,
            saboteurs: None,
            spot_checks: None,
            audit_floor: None,
            lot_max: None,
            hold: None,
            comparison: ComparisonName::Identical,
            absolute_tolerance: None,
            relative_tolerance: None,
            checker_args: None,
            homogeneous: Vec::new(),
        }
    }
}

impl ValidationSection {
    /// The first key that says something about a policy or comparison that was not chosen.
    pub(super) fn misplaced(&self) -> Option<&'static str> {
        use PolicyName::{Adaptive, Audited, Credibility};
        let of_policy = [
            (self.trusted_after.is_some(), &[Adaptive][..], "trusted_after"),
            (self.replication_factor.is_some(), &[Adaptive], "replication_factor"),
            (self.accepted_error.is_some(), &[Credibility, Audited], "accepted_error"),
            (self.saboteurs.is_some(), &[Credibility, Audited], "saboteurs"),
            (self.spot_checks.is_some(), &[Credibility], "spot_checks"),
            (self.audit_floor.is_some(), &[Audited], "audit_floor"),
            (self.lot_max.is_some(), &[Audited], "lot_max"),
            (self.hold.is_some(), &[Audited], "hold"),
        ];
        let of_comparison = [
            (self.absolute_tolerance.is_some(), ComparisonName::Numeric, "absolute_tolerance"),
            (self.relative_tolerance.is_some(), ComparisonName::Numeric, "relative_tolerance"),
            (self.checker_args.is_some(), ComparisonName::Checker, "checker_args"),
        ];
        let foreign = |&(is_there, policies, _): &(bool, &[PolicyName], _)| {
            is_there && !policies.contains(&self.policy)
        };
        let key = of_policy.iter().find(|key| foreign(key)).map(|&(.., name)| name);
        key.or_else(|| {
            let is_foreign =
                |&&(is_there, of, _): &&(bool, _, _)| is_there && of != self.comparison;
            of_comparison.iter().find(is_foreign).map(|&(.., name)| name)
        })
    }

    pub(super) fn into_rules(self) -> Validation {
        let min_quorum = self.min_quorum;
        Validation {
            policy: self.policy(),
            min_quorum,
            target_nresults: self.target_nresults.unwrap_or(min_quorum),
            max_error_results: self.max_error_results,
            max_total_results: self.max_total_results,
            max_success_results: self.max_success_results,
            delay_bound_ms: millis(self.delay_bound),
            homogeneous: Homogeneity {
                os: self.homogeneous.contains(&Trait::Os),
                cpu: self.homogeneous.contains(&Trait::Cpu),
                executor: self.homogeneous.contains(&Trait::Executor),
            },
            comparison: self.into_comparison(),
        }
    }

    fn policy(&self) -> Policy {
        match self.policy {
            PolicyName::Fixed => Policy::Fixed,
            PolicyName::Adaptive => {
                let usual = Adaptive::default();
                Policy::Adaptive(Adaptive {
                    trusted_after: self.trusted_after.unwrap_or(usual.trusted_after),
                    replication_factor: self.replication_factor.unwrap_or(usual.replication_factor),
                })
            }
            PolicyName::Credibility => {
                let usual = Credibility::default();
                Policy::Credibility(Credibility {
                    accepted_error: self.accepted_error.unwrap_or(usual.accepted_error),
                    saboteurs: self.saboteurs.unwrap_or(usual.saboteurs),
                    spot_checks: self.spot_checks.unwrap_or(usual.spot_checks),
                })
            }
            PolicyName::Audited => {
                let usual = Audited::default();
                Policy::Audited(Audited {
                    accepted_error: self.accepted_error.unwrap_or(usual.accepted_error),
                    saboteurs: self.saboteurs.unwrap_or(usual.saboteurs),
                    audit_floor: self.audit_floor.unwrap_or(usual.audit_floor),
                    lot_max: self.lot_max.unwrap_or(usual.lot_max),
                    hold_ms: self.hold.map_or(millis(self.delay_bound), millis),
                })
            }
        }
    }

    fn into_comparison(self) -> Comparison {
        match self.comparison {
            ComparisonName::Identical => Comparison::Identical,
            ComparisonName::Numeric => Comparison::Numeric(Tolerance {
                absolute: self.absolute_tolerance.unwrap_or_default(),
                relative: self.relative_tolerance.unwrap_or_default(),
            }),
            ComparisonName::Checker => {
                Comparison::Checker { args: self.checker_args.unwrap_or_default() }
            }
        }
    }
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Share>, D::Error> {
    let number = f64::deserialize(deserializer)?;
    let share = Share::nearest(number).ok_or_else(|| {
        serde::de::Error::custom(format!("{number} is not a share: a number from 0 to 1"))
    })?;
    Ok(Some(share))
}

fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Decimal>, D::Error> {
    let number = f64::deserialize(deserializer)?;
    let decimal = Decimal::shortest(number).ok_or_else(|| {
        serde::de::Error::custom(format!("{number} is not a tolerance: it must be 0 or more"))
    })?;
    Ok(Some(decimal))
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}
