//! Named scenarios: what once went wrong, and limits that are known.

use std::time::Duration;

use dockercomp_protocol::job::Policy;

use crate::{
    Behaviour, Churn, Counters, Crowd, DepartedOutputs, Judgement, Scenario, Spread, Violation, run,
};

/// Hosts that report in the first minutes and soon leave for ever.
fn deserted(outputs: DepartedOutputs) -> Scenario {
    let seconds = Duration::from_secs;
    let mut scenario = Scenario::calm(0, 40);
    let leaves = Churn {
        up: Spread::times(seconds(60), seconds(240)),
        down: Spread::Fixed(0),
        departs: 1.0,
        day: None,
    };
    scenario.crowds = vec![Crowd { churn: Some(leaves), ..Crowd::honest(30) }];
    scenario.coordinator.pull = Spread::times(seconds(30), seconds(90));
    scenario.faults_end = seconds(900);
    scenario.patience = seconds(2 * 3600);
    scenario.reinforcements = 20;
    scenario.departed_outputs = outputs;
    scenario
}

#[test]
fn a_project_survives_the_loss_of_every_host() {
    let counters = super::run_held(&deserted(DepartedOutputs::Reachable), 1).counters;
    assert_eq!((counters.accepted, counters.host_crashes), (40, 30));
}

/// An output that was accepted, but whose holders all left before it was pulled, is computed
/// again by those who come; if nobody noticed that it is lost, the job would never end.
#[test]
fn an_accepted_output_that_is_lost_is_computed_again() {
    let mut scenario = deserted(DepartedOutputs::Lost);
    let counters = super::run_held(&scenario, 1).counters;
    let kept = super::run_held(&deserted(DepartedOutputs::Reachable), 1).counters;
    assert_eq!((counters.accepted, kept.accepted), (40, 40));
    assert!(counters.replicas > kept.replicas, "{counters:?} {kept:?}");

    scenario.coordinator.outputs_lost_after = Duration::MAX;
    let outcome = run(&scenario, 1);
    assert_eq!(outcome.judgement(), Judgement::LivenessViolated, "{outcome:#?}");
    let is_it = |violation: &Violation| matches!(violation, Violation::Stalled { done: 40, stored, .. } if *stored < 40);
    assert!(outcome.violations.iter().all(is_it), "{:#?}", outcome.violations);
}

/// Inputs that arrived while their fetch was being stopped once left the replica with the
/// agent for ever, and with it the room that it takes; these seeds showed it.
#[test]
fn inputs_that_arrive_after_an_abort_strand_nothing() {
    for seed in [13, 14, 16, 31, 56, 106, 198, 228] {
        let mut scenario = Scenario::fuzz(seed);
        scenario.jobs.iter_mut().for_each(|job| job.validation.policy = Policy::Fixed);
        scenario.crowds.iter_mut().for_each(|crowd| crowd.operators = 0);
        super::run_held(&scenario, seed);
    }
}

/// A unit that two trusted nodes had was once accepted on the record of the one that did not
/// give the result.
#[test]
fn a_receipt_says_nothing_of_a_node_that_its_record_does_not_hold() {
    super::run_held(&Scenario::fuzz(3245), 3245);
}

/// A known limit of policy `credibility`: colluders that got a wrong output accepted bar the
/// honest nodes that contradict it, those that join late among them, and nobody may finish the
/// job. The job does not end, and that is not held against the core.
#[test]
fn a_job_whose_honest_nodes_were_barred_may_stay_open() {
    let counters = super::run_held(&Scenario::fuzz(5591), 5591).counters;
    assert!(counters.wrong_accepted > 0, "{counters:?}");
    assert!(counters.accepted + counters.failed < counters.units, "{counters:?}");
}

/// Outputs were accepted and lost, some of them wrong, and other hosts compute something else:
/// their units are given up, and the job ends.
#[test]
fn what_was_accepted_and_lost_does_not_keep_its_job_open() {
    let scenario = Scenario::fuzz(1881);
    assert_eq!(scenario.departed_outputs, DepartedOutputs::Lost);
    let counters = super::run_held(&scenario, 1881).counters;
    assert_eq!((counters.withdrawn, counters.accepted + counters.failed), (4, counters.units));
}

/// One colluder less than must agree gets nothing accepted, whatever the quorum.
#[test]
fn too_few_colluders_are_harmless() {
    for (min_quorum, colluders) in [(2, 1), (3, 1), (4, 2), (5, 2)] {
        let counters = colluding(min_quorum, colluders);
        assert_eq!(counters.wrong_accepted, 0, "quorum {min_quorum}");
        assert!(counters.invalid > 0, "quorum {min_quorum}: nobody tried");
    }
    // As many as must agree do: the checker above can fail.
    assert!(colluding(2, 2).wrong_accepted > 0);
}

fn colluding(min_quorum: u32, colluders: u32) -> Counters {
    let mut scenario = Scenario::calm(0, 60);
    let bad = Crowd { behaviour: Behaviour::COLLUDER, ..Crowd::honest(colluders) };
    scenario.crowds = vec![Crowd::honest(10), bad];
    let rules = &mut scenario.jobs[0].validation;
    (rules.min_quorum, rules.target_nresults) = (min_quorum, min_quorum);
    super::run_held(&scenario, 3).counters
}
