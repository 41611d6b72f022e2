//! Whether receipts are all that a job has: none missing, none doubled, and every input that
//! came from another work unit is what that one's receipt says.

use std::collections::BTreeMap;

use cid::Cid;

use super::Proof;

/// Why receipts are not the whole of one job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WholeError {
    /// There is none.
    #[error("there is no receipt")]
    Empty,
    /// They are of more than one job.
    #[error("the receipt of work unit {index} is of job {found}, others are of {expected}")]
    OtherJob {
        /// The work unit that the receipt speaks of.
        index: u64,
        /// The job of the first receipt.
        expected: Cid,
        /// Its job.
        found: Cid,
    },
    /// They are proven against different heads of the log.
    #[error(
        "the receipt of work unit {index} is under a log of {found} entries, others under one \
         of {expected}, or under another root"
    )]
    OtherHead {
        /// The work unit that the receipt speaks of.
        index: u64,
        /// Entries in the log of the first receipt.
        expected: u64,
        /// Entries in its log.
        found: u64,
    },
    /// Two receipts speak of one work unit.
    #[error("work unit {index} has two receipts")]
    Doubled {
        /// The work unit.
        index: u64,
    },
    /// Two receipts have one place in the log.
    #[error("work units {one} and {other} have one place in the log")]
    SamePlace {
        /// A work unit.
        one: u64,
        /// Another.
        other: u64,
    },
    /// Work units have no receipt.
    #[error("work unit {first} has no receipt; {missing} of the job's {units} have none")]
    Missing {
        /// The first of them.
        first: u64,
        /// How many there are.
        missing: u64,
        /// Work units of the job.
        units: u64,
    },
    /// A work unit took something else than the canonical output of an earlier one.
    #[error(
        "work unit {index} took {taken} as the output of work unit {input}, whose receipt says \
         otherwise"
    )]
    Input {
        /// The work unit.
        index: u64,
        /// The one whose output it is said to have taken.
        input: u64,
        /// What it took.
        taken: Cid,
    },
}

/// Checks that these proofs are the whole of one job, under one head of its log.
///
/// # Errors
/// The first thing that is not right.
pub fn check_whole(proofs: &[Proof]) -> Result<(), WholeError> {
    let first = proofs.first().ok_or(WholeError::Empty)?;
    let mut units: BTreeMap<u64, &Proof> = BTreeMap::new();
    let mut places: BTreeMap<u64, u64> = BTreeMap::new();
    for proof in proofs {
        let index = proof.index;
        if proof.job != first.job || proof.project != first.project {
            return Err(WholeError::OtherJob { index, expected: first.job, found: proof.job });
        }
        if (proof.head.size, proof.head.root) != (first.head.size, first.head.root) {
            let (expected, found) = (first.head.size, proof.head.size);
            return Err(WholeError::OtherHead { index, expected, found });
        }
        if units.insert(index, proof).is_some() {
            return Err(WholeError::Doubled { index });
        }
        if let Some(other) = places.insert(proof.leaf, index) {
            return Err(WholeError::SamePlace { one: other, other: index });
        }
    }
    // The plan has no work unit beyond its number, so the gaps are what is missing.
    let missing = first.units - units.len() as u64;
    if missing > 0 {
        let gap = (0..).zip(units.keys()).find(|(expected, index)| expected != *index);
        let first_gap = gap.map_or(units.len() as u64, |(expected, _)| expected);
        return Err(WholeError::Missing { first: first_gap, missing, units: first.units });
    }
    for proof in proofs {
        for (input, taken) in &proof.inputs {
            let made = units.get(input);
            // A work unit cannot have taken what was accepted after it.
            let agrees = made.is_some_and(|made| made.output == *taken && made.leaf < proof.leaf);
            if !agrees {
                let (input, taken) = (*input, *taken);
                return Err(WholeError::Input { index: proof.index, input, taken });
            }
        }
    }
    Ok(())
}
