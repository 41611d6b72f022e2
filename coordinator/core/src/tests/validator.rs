//! The validator's rules, against their definition.

use dockercomp_protocol::Cid;
use dockercomp_protocol::job::Validation;
use proptest::prelude::*;

use super::env::{cid, spec};
use crate::record::UnitError;
use crate::validate::{Census, Decision, check_set, decide};

fn rules(min_quorum: u32) -> Validation {
    Validation { min_quorum, target_nresults: min_quorum, ..spec().validation }
}

fn outputs(names: &str) -> Vec<Cid> {
    names.chars().map(|name| cid(&name.to_string())).collect()
}

#[test]
fn check_set_wants_a_strict_majority_of_the_quorum() {
    let cases = [
        (1, "", None),
        (1, "a", Some("a")),
        (2, "a", None),
        (2, "ab", None),
        (2, "aa", Some("a")),
        (2, "aba", Some("a")),
        (3, "aa", None),
        (3, "aab", Some("a")),
        (3, "abc", None),
        (3, "abcb", Some("b")),
        (4, "aabb", None),
        (4, "aaab", Some("a")),
        (5, "aabbc", None),
        (2, "aabb", None),
    ];
    for (quorum, names, expected) in cases {
        let found = check_set(&outputs(names), quorum);
        assert_eq!(found, expected.map(cid), "{names} at quorum {quorum}");
    }
}

#[test]
fn every_reason_that_holds_is_named() {
    let mut rules = rules(2);
    (rules.max_error_results, rules.max_success_results, rules.max_total_results) = (0, 2, 4);
    let census = Census { outputs: outputs("abc"), in_progress: 0, errors: 1, total: 4 };
    let errors = vec![
        UnitError::TooManyErrorResults,
        UnitError::TooManySuccessResults,
        UnitError::TooManyTotalResults,
    ];
    assert_eq!(decide(&census, 2, &rules, 2), Decision::Fail { errors });
}

proptest! {
    #[test]
    fn whatever_is_accepted_was_agreed_on(names in "[abc]{0,8}", quorum in 1u32..6) {
        let (outputs, rules) = (outputs(&names), rules(quorum));
        let census = Census { total: 9, outputs: outputs.clone(), ..Census::default() };
        if let Decision::Accept { output } = decide(&census, quorum, &rules, quorum) {
            let votes = outputs.iter().filter(|&&other| other == output).count();
            prop_assert!(votes > quorum as usize / 2);
            prop_assert!(outputs.len() >= quorum as usize);
        }
    }

    /// The transitioner never asks for more than the limit, and never for nothing while
    /// nobody works and nothing is decided.
    #[test]
    fn a_unit_never_waits_for_nothing(
        names in "[abc]{0,6}", quorum in 1u32..4, errors in 0u32..5, silent in 0u32..5,
        in_progress in 0u32..3,
    ) {
        let rules = rules(quorum);
        let outputs = outputs(&names);
        let total = u32::try_from(outputs.len()).unwrap() + errors + silent + in_progress;
        let census = Census { outputs, in_progress, errors, total };
        let target = match decide(&census, quorum, &rules, quorum) {
            Decision::Accept { .. } | Decision::Fail { .. } => return Ok(()),
            Decision::Inconclusive { target } => target,
            Decision::Wait => quorum,
        };
        let wanted = census.wanted(target, &rules);
        prop_assert!(total + wanted <= rules.max_total_results.max(total));
        prop_assert!(wanted + in_progress > 0, "{census:?} waits for ever");
    }
}
