//! When does a result count? BOINC's validator and transitioner, as pure functions.
//!
//! `check_set`: with at least `min_quorum` successes, the output that at least
//! `min_quorum / 2 + 1` of them share is canonical. `check_pair`: a later success is valid
//! if it equals the canonical output. Otherwise one more result is asked for, within the
//! job's limits, or the work unit is given up with every reason that holds.
//!
//! # Where this differs from BOINC
//!
//! - `max_total_results` ends a work unit only when nobody is left at work on it; BOINC
//!   gives up although a result that would complete the quorum is under way.
//! - Two groups of equal size never win; BOINC takes the one it meets first.
//!
//! # What is not here
//!
//! Trust in nodes: [`crate::judge`] weighs results for the policies that do.

use std::collections::BTreeMap;

use dockercomp_protocol::Cid;
use dockercomp_protocol::job::Validation;

use crate::record::UnitError;
use crate::replica::ValidateState;

/// What is known about the replicas of an undecided work unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// The outputs of its successes.
    pub(crate) outputs: Vec<Cid>,
    /// Replicas that may still bring one.
    pub(crate) in_progress: u32,
    /// Replicas that ended in an error.
    pub(crate) errors: u32,
    /// Replicas in all, these and others.
    pub(crate) total: u32,
}

/// What is to be done with an undecided work unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing: results are under way, or replicas wait for nodes.
    Wait,
    /// The results do not agree; aim at `target` of them.
    Inconclusive { target: u32 },
    /// A quorum agrees on `output`.
    Accept { output: Cid },
    /// Give up.
    Fail { errors: Vec<UnitError> },
}

/// Decides what the replicas of a work unit that aims at `target` results amount to, by a
/// fixed quorum.
pub(crate) fn decide(census: &Census, target: u32, rules: &Validation, quorum: u32) -> Decision {
    let compared = census.successes() >= quorum;
    let verdict = if compared { check_set(&census.outputs, quorum) } else { None };
    conclude(census, target, rules, compared, verdict)
}

/// What follows from a comparison, if there was one, within the limits of the job.
pub(crate) fn conclude(
    census: &Census,
    target: u32,
    rules: &Validation,
    compared: bool,
    verdict: Option<Cid>,
) -> Decision {
    if let Some(output) = verdict {
        return Decision::Accept { output };
    }
    let successes = census.successes();
    let target = if compared { target.max(successes + 1) } else { target };
    let wanted = census.needed(target);
    let exhausted = census.total >= rules.max_total_results && census.in_progress == 0;

    let mut errors = Vec::new();
    if census.errors > rules.max_error_results {
        errors.push(UnitError::TooManyErrorResults);
    }
    if compared && successes > rules.max_success_results {
        errors.push(UnitError::TooManySuccessResults);
    }
    if wanted > 0 && exhausted {
        errors.push(UnitError::TooManyTotalResults);
    }
    match (errors.is_empty(), compared) {
        (false, _) => Decision::Fail { errors },
        (true, true) => Decision::Inconclusive { target },
        (true, false) => Decision::Wait,
    }
}

/// The canonical output of a set of successes, if a quorum agrees.
pub(crate) fn check_set(outputs: &[Cid], quorum: u32) -> Option<Cid> {
    if outputs.len() < quorum as usize {
        return None;
    }
    let mut votes: BTreeMap<&Cid, u32> = BTreeMap::new();
    for output in outputs {
        *votes.entry(output).or_default() += 1;
    }
    let most = votes.values().copied().max()?;
    let mut leaders = votes.into_iter().filter(|&(_, count)| count == most);
    let (output, count) = leaders.next()?;
    (count > quorum / 2 && leaders.next().is_none()).then_some(*output)
}

/// What a success is worth once the canonical output is known.
pub(crate) fn check_pair(output: Cid, canonical: Cid) -> ValidateState {
    if output == canonical { ValidateState::Valid } else { ValidateState::Invalid }
}

impl Census {
    pub(crate) fn successes(&self) -> u32 {
        u32::try_from(self.outputs.len()).unwrap_or(u32::MAX)
    }

    /// Replicas that are missing to reach `target` results, limits apart.
    fn needed(&self, target: u32) -> u32 {
        target.saturating_sub(self.in_progress).saturating_sub(self.successes())
    }

    /// Replicas to be given to nodes now: the transitioner's rule, capped by
    /// `max_total_results`.
    pub(crate) fn wanted(&self, target: u32, rules: &Validation) -> u32 {
        self.needed(target).min(rules.max_total_results.saturating_sub(self.total))
    }
}
