//! Which result counts.

use std::time::Duration;

use dockercomp_protocol::execution::Exit;
use dockercomp_protocol::receipt::Basis;
use dockercomp_protocol::wire::work::Verdict;

use super::env::{DELAY_BOUND, TestEnv, cid, node, request, result, sealed};
use crate::{Action, UnitError, UnitView};

#[test]
fn two_equal_results_are_accepted_and_the_job_completes() {
    let mut env = TestEnv::new();
    let (ada, bob) = (node("ada"), node("bob"));
    let job = env.job("job", 1, |_| {});
    let added_at = env.now;
    env.advance(Duration::from_secs(1));
    let (first, second) = (env.lease(ada), env.lease(bob));
    assert_eq!((first.index, second.index), (0, 0));

    assert_eq!(env.report(ada, &first, "right"), Verdict::Stored);
    env.expect_nothing_else();
    assert_eq!(env.report(bob, &second, "right"), Verdict::Stored);
    env.expect_accepted(&second, "right", &[ada, bob]);

    env.store(job, 0);
    env.expect_job_completed(job);
    let view = env.core.job(job).expect("the job");
    assert_eq!(view.added_at, added_at);
    assert_eq!((view.done, view.stored, view.failed, view.in_flight), (1, 1, 0, 0));
    assert_eq!((view.replicas.valid, view.replicas.total()), (2, 2));
    assert_eq!(env.core.explain_unit(job, 0), Some(UnitView::Over));
}

#[test]
fn a_saboteur_is_outvoted_and_listed() {
    let mut env = TestEnv::new();
    let (ada, eve, bob) = (node("ada"), node("eve"), node("bob"));
    let job = env.job("job", 1, |_| {});
    let (first, second) = (env.lease(ada), env.lease(eve));
    env.report(ada, &first, "right");
    env.expect_no_work_for(bob);

    env.report(eve, &second, "wrong");
    env.expect(Action::AnnounceWork);
    let third = env.lease(bob);
    env.report(bob, &third, "right");

    let results = [
        sealed(&result(ada, &first, Ok("right"))),
        sealed(&result(eve, &second, Ok("wrong"))),
        sealed(&result(bob, &third, Ok("right"))),
    ];
    let (index, output, at, basis) = (0, cid("right"), env.now, Basis::Quorum);
    let (inputs, results) = (vec![], results.to_vec());
    env.expect(Action::Accept { job, index, inputs, output, at, basis, results });
    env.expect(Action::FetchOutput { job, index, output, holders: vec![ada, bob] });
    let caught: Vec<_> = env.core.disagreements().cloned().collect();
    assert_eq!(caught.len(), 1);
    assert_eq!((caught[0].node, caught[0].replica), (eve, second.replica));
    assert_eq!((caught[0].said, caught[0].canonical), (cid("wrong"), cid("right")));
    let nodes = env.core.nodes();
    let invalid = |of| nodes.iter().find(|view| view.node == of).map(|view| view.replicas.invalid);
    assert_eq!((invalid(ada), invalid(eve), invalid(bob)), (Some(0), Some(1), Some(0)));
}

#[test]
fn outputs_of_an_undecided_unit_are_only_counted() {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |_| {});
    let lease = env.lease(node("ada"));
    env.report(node("ada"), &lease, "secret");
    let seen = format!(
        "{:?}{:?}{:?}{:?}",
        env.core.job(job),
        env.core.nodes(),
        env.core.explain_unit(job, 0),
        env.core.disagreements().collect::<Vec<_>>(),
    );
    assert!(!seen.contains(&format!("{:?}", cid("secret"))));
    assert!(matches!(
        env.core.explain_unit(job, 0),
        Some(UnitView::Open { successes: 1, lacking: 1, is_inconclusive: false, .. })
    ));
}

#[test]
fn too_many_errors_fail_the_unit() {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |_| {});
    for name in ["a", "b"] {
        let lease = env.lease(node(name));
        assert_eq!(env.report_error(node(name), &lease), Verdict::Stored);
        env.expect_nothing_else();
    }
    let lease = env.lease(node("c"));
    env.report_error(node("c"), &lease);
    env.expect_job_completed(job);
    let view = env.core.job(job).expect("the job");
    assert_eq!((view.failed, view.replicas.client_error), (1, 3));
    assert_eq!(view.failures[0].errors, [UnitError::TooManyErrorResults]);
    assert_eq!(view.failures[0].exits, vec![Exit::Code { code: 3 }; 3]);
}

#[test]
fn a_program_that_never_gives_the_same_output_fails() {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |_| {});
    for name in ["a", "b", "c", "d"] {
        let lease = env.lease(node(name));
        env.report(node(name), &lease, name);
        env.expect_nothing_else();
    }
    let view = env.core.explain_unit(job, 0);
    assert!(matches!(view, Some(UnitView::Open { target: 5, is_inconclusive: true, .. })));
    let lease = env.lease(node("e"));
    env.report(node("e"), &lease, "e");
    env.expect_job_completed(job);
    let view = env.core.job(job).expect("the job");
    assert_eq!(view.failures[0].errors, [UnitError::TooManySuccessResults]);
    assert_eq!(view.replicas.no_check, 5);
    assert_eq!(env.core.disagreements().count(), 0);
}

#[test]
fn replicas_run_out() {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |spec| spec.validation.max_total_results = 3);
    for name in ["a", "b", "c"] {
        env.lease(node(name));
        env.advance(DELAY_BOUND);
    }
    env.expect_job_completed(job);
    let view = env.core.job(job).expect("the job");
    assert_eq!(view.failures[0].errors, [UnitError::TooManyTotalResults]);
    assert_eq!(view.replicas.no_reply, 3);
}

/// BOINC gives up here, although the result that completes the quorum is under way.
#[test]
fn the_last_replica_may_still_complete_the_quorum() {
    let mut env = TestEnv::new();
    env.job("job", 1, |spec| {
        spec.validation.target_nresults = 3;
        spec.validation.max_total_results = 3;
    });
    let leases = ["a", "b", "c"].map(|name| env.lease(node(name)));
    env.report(node("a"), &leases[0], "right");
    env.report_error(node("b"), &leases[1]);
    env.expect_nothing_else();
    env.report(node("c"), &leases[2], "right");
    env.expect_accepted(&leases[2], "right", &[node("a"), node("c")]);
}

#[test]
fn all_units_of_a_job_are_decided_one_by_one() {
    let mut env = TestEnv::new();
    let job = env.job("job", 3, |_| {});
    let (ada, bob) = (node("ada"), node("bob"));
    let [first, second] = [ada, bob].map(|node| env.request(node, request(10)));
    assert_eq!((first.len(), second.len()), (3, 3));
    for (first, second) in first.iter().zip(&second) {
        env.report(ada, first, "right");
        env.report(bob, second, "right");
        env.expect_accepted(second, "right", &[ada, bob]);
    }
    env.store(job, 2);
    env.store(job, 0);
    env.expect_nothing_else();
    env.store(job, 1);
    env.expect_job_completed(job);
    env.store(job, 1);
}
