//! Every deliberate defect is found, and by the checker that it concerns.

use std::time::Duration;

use crate::{Behaviour, Churn, Crowd, Defect, Judgement, Scenario, Spread, Violation, run};

/// A world in which every promise is put to the test: crashes of both sides, thieves, losses.
fn rough(defect: Option<Defect>) -> Scenario {
    let seconds = Duration::from_secs;
    let churn = |up, down, departs| Churn {
        up: Spread::times(seconds(up / 4), seconds(up)),
        down: Spread::times(seconds(1), seconds(down)),
        departs,
        day: None,
    };
    // Some go for good: only deadlines tell of them.
    let honest = Crowd { churn: Some(churn(600, 60, 0.1)), ..Crowd::honest(8) };
    let thieves = Crowd { behaviour: Behaviour::Thief, ..Crowd::honest(2) };
    let mut scenario = Scenario::calm(0, 60);
    scenario.crowds = vec![honest, thieves];
    scenario.jobs[0].validation.delay_bound_ms = 600_000;
    scenario.network.loss = 0.1;
    scenario.network.duplication = 0.1;
    scenario.coordinator.churn = Some(churn(120, 20, 0.0));
    scenario.coordinator.core.resume_grace = seconds(30);
    scenario.faults_end = seconds(3600);
    scenario.patience = seconds(2 * 3600);
    scenario.reinforcements = 20;
    scenario.defect = defect;
    scenario
}

/// Runs the rough world with a defect, with a few seeds: at least one must show a violation of
/// this kind, and all that fail must fail so badly.
fn assert_found(defect: Defect, judgement: Judgement, is_it: fn(&Violation) -> bool) {
    let outcomes: Vec<_> = (1..=5).map(|seed| run(&rough(Some(defect)), seed)).collect();
    let found = outcomes.iter().flat_map(|outcome| &outcome.violations).any(is_it);
    let worst = outcomes.iter().map(crate::Outcome::judgement).max();
    assert!(found, "{defect:?} was not found: {outcomes:#?}");
    assert_eq!(worst, Some(judgement), "{defect:?}: {outcomes:#?}");
}

/// The same world without a defect holds, so what is found below is the defect.
#[test]
fn the_rough_world_holds() {
    for seed in 1..=5 {
        super::run_held(&rough(None), seed);
    }
}

#[test]
fn a_disk_that_lies_about_its_sync_is_found() {
    assert_found(Defect::LyingDisk, Judgement::SafetyViolated, |violation| {
        matches!(violation, Violation::AcknowledgedLost { .. })
    });
}

#[test]
fn a_lying_disk_makes_one_number_two_leases() {
    assert_found(Defect::LyingDisk, Judgement::SafetyViolated, |violation| {
        matches!(violation, Violation::LeasedTwice { .. })
    });
}

#[test]
fn answers_before_the_commit_are_found() {
    assert_found(Defect::EarlyAnswers, Judgement::SafetyViolated, |violation| {
        matches!(violation, Violation::GrantedBeforeDurable { .. })
    });
}

#[test]
fn results_under_stolen_names_are_found() {
    assert_found(Defect::StolenNames, Judgement::SafetyViolated, |violation| {
        matches!(violation, Violation::ForgedVote { .. })
    });
}

/// Two thieves cannot agree on a wrong output; with stolen votes one of them can.
#[test]
fn stolen_names_make_a_wrong_output_canonical() {
    assert_found(Defect::StolenNames, Judgement::SafetyViolated, |violation| {
        matches!(violation, Violation::WrongAccepted { supporters: 1, .. })
    });
}

#[test]
fn a_quorum_that_the_owner_did_not_sign_is_found() {
    assert_found(Defect::QuorumOfOne, Judgement::SafetyViolated, |violation| {
        matches!(violation, Violation::TooFewVotes { agreeing: 1, .. })
    });
}

#[test]
fn a_host_that_votes_under_two_names_is_found() {
    assert_found(Defect::NewNames, Judgement::SafetyViolated, |violation| {
        matches!(violation, Violation::TwoReplicas { .. })
    });
}

#[test]
fn a_job_without_deadlines_stalls() {
    assert_found(Defect::LostDeadlines, Judgement::LivenessViolated, |violation| {
        matches!(violation, Violation::Stalled { in_flight: 1.., .. })
    });
}

#[test]
fn outputs_that_nobody_asks_for_again_stall_the_job() {
    assert_found(
        Defect::NoResume,
        Judgement::LivenessViolated,
        |violation| matches!(violation, Violation::Stalled { done, stored, .. } if stored < done),
    );
}
