//! Jobs with stages: when a later unit is begun, and what becomes of it when an input fails.

use dockercomp_protocol::job::{Gather, JobSpec, Stage};
use dockercomp_protocol::{Cid, NodeId};

use super::env::{DELAY_BOUND, TestEnv, cid, node};
use crate::{Action, Granted, Input, JobState, StageView, UnitError, UnitView};

/// Units 0 to 3, then 4 of (0 1) and 5 of (2 3), then 6 of (4 5).
fn tree(spec: &mut JobSpec) {
    stage(spec, Gather::Tree { fan_in: 2 });
}

fn stage(spec: &mut JobSpec, gather: Gather) {
    spec.stages.push(Stage { name: "stage".into(), args: vec![], gather });
}

fn ada_and_bob() -> (NodeId, NodeId) {
    (node("ada"), node("bob"))
}

fn named(index: u64) -> String {
    format!("output {index}")
}

/// Ada and Bob compute the next unit, and the coordinator accepts it.
fn accept(env: &mut TestEnv) -> (Granted, Granted) {
    let (ada, bob) = ada_and_bob();
    let (first, second) = (env.lease(ada), env.lease(bob));
    assert_eq!(first.index, second.index);
    env.report(ada, &first, &named(first.index));
    env.report(bob, &second, &named(first.index));
    env.expect_accepted(&first, &named(first.index), &[ada, bob]);
    (first, second)
}

/// The same, and its output is brought to the coordinator.
fn store(env: &mut TestEnv, job: Cid) -> (Granted, Granted) {
    let leases = accept(env);
    env.store(job, leases.0.index);
    leases
}

/// A unit begins as soon as its own inputs are safe, in whatever stage the others are.
#[test]
fn a_later_unit_is_begun_when_its_inputs_are_safe() {
    let mut env = TestEnv::new();
    let job = env.job("job", 4, tree);
    let (ada, bob) = ada_and_bob();
    assert_eq!(env.core.job(job).expect("a job").units, 7);
    store(&mut env, job);
    accept(&mut env);
    // Unit 1 is accepted, but its output is not safe: the next one is unit 2.
    assert_eq!(env.core.explain_unit(job, 4), Some(UnitView::WaitingForInputs { missing: 1 }),);
    assert_eq!(env.lease(node("eve")).index, 2);

    env.store(job, 1);
    assert_eq!(env.lease(ada).index, 2);
    let lease = env.lease(ada);
    assert_eq!(lease.index, 4);
    let holders = vec![ada, bob];
    let inputs = [0, 1].map(|index| Input { output: cid(&named(index)), holders: holders.clone() });
    assert_eq!(lease.inputs, inputs);
    assert_eq!(env.core.inputs_of(job, 4), [0, 1].map(|index| cid(&named(index))));

    // It is validated like any other.
    env.report(ada, &lease, "sum");
    env.expect_nothing_else();
    let second = env.lease(bob);
    env.report(bob, &second, "sum");
    match env.take() {
        Some(Action::Accept { index: 4, inputs, .. }) => {
            assert_eq!(inputs, [0, 1].map(|index| cid(&named(index))));
        }
        other => panic!("expected an acceptance, got {other:?}"),
    }
    let (index, output) = (4, cid("sum"));
    env.expect(Action::FetchOutput { job, index, output, holders });
    let view = env.core.job(job).expect("a job");
    let map = StageView { units: 4, done: 2, stored: 2, failed: 0 };
    let reduce = StageView { units: 3, done: 1, stored: 0, failed: 0 };
    assert_eq!((view.stages, view.in_flight, view.waiting), (vec![map, reduce], 1, 3));
}

/// Stage after stage to the end, with a restart after every step.
#[test]
fn a_job_with_stages_comes_to_its_end() {
    let mut env = TestEnv::new();
    let job = env.job("job", 4, |spec| {
        tree(spec);
        stage(spec, Gather::Each);
    });
    let mut order = vec![];
    for _ in 0..8 {
        let (lease, _) = store(&mut env, job);
        order.push(lease.index);
        if order.len() < 8 {
            env.restart();
            env.expect(Action::AnnounceWork);
        }
    }
    // Depth first: outputs are taken as soon as they can be.
    assert_eq!(order, [0, 1, 4, 2, 3, 5, 6, 7]);
    env.expect_job_completed(job);
    assert!(env.core.state().jobs.values().all(|job| job.units.is_empty()));
    assert_eq!(env.core.explain_unit(job, 6), Some(UnitView::Over));
}

/// Nodes that work on an output may want to fetch it from those who computed it.
#[test]
fn outputs_are_kept_until_they_have_been_taken() {
    let mut env = TestEnv::new();
    let job = env.job("job", 2, tree);
    let (ada, bob) = ada_and_bob();
    let (of_zero, _) = store(&mut env, job);
    let (of_one, _) = store(&mut env, job);
    assert_eq!(env.heartbeat(ada, &[], &[&of_zero, &of_one]), (vec![], vec![]));
    let (sum, _) = accept(&mut env);
    assert_eq!((sum.index, env.heartbeat(ada, &[], &[&of_zero])), (2, (vec![], vec![])));
    env.store(job, 2);
    env.expect_job_completed(job);
    let forget = vec![of_zero.replica, of_one.replica, sum.replica];
    assert_eq!(env.heartbeat(ada, &[], &[&of_zero, &of_one, &sum]), (vec![], forget));
    assert!(env.core.nodes().iter().any(|view| view.node == bob && view.replicas.valid == 3));
}

fn fail(env: &mut TestEnv, index: u64) {
    for name in ["a", "b", "c"] {
        let lease = env.lease(node(name));
        assert_eq!(lease.index, index);
        env.report_error(node(name), &lease);
    }
}

/// Without one input there is no sum, no total, and no reason to go on.
#[test]
fn a_tree_ends_with_the_first_unit_that_fails() {
    let mut env = TestEnv::new();
    let job = env.job("job", 4, tree);
    store(&mut env, job);
    let (ada, busy) = (node("ada"), node("busy"));
    let held = env.lease(busy);
    assert_eq!(held.index, 1);
    let after = [env.lease(ada), env.lease(node("bob"))];
    assert_eq!(after.each_ref().map(|lease| lease.index), [1, 2]);
    fail_unit(&mut env, 2, &after[1]);

    let state = JobState::Completed { at: env.now };
    env.expect(Action::JobEnded { job, state });
    let view = env.core.job(job).expect("a job");
    assert_eq!((view.done, view.stored, view.failed, view.units), (1, 1, 6, 7));
    let reasons: Vec<_> =
        view.failures.iter().map(|failure| (failure.index, failure.errors.clone())).collect();
    let input_failed = vec![UnitError::InputFailed];
    assert_eq!(
        reasons,
        [(2, vec![UnitError::TooManyErrorResults]), (5, input_failed.clone()), (6, input_failed),],
    );
    // Whoever still works on it may stop.
    assert_eq!(env.heartbeat(busy, &[&held], &[]).0, [held.replica]);
    env.expect_no_work_for(node("new"));
}

/// Three errors are one too many.
fn fail_unit(env: &mut TestEnv, index: u64, first: &Granted) {
    env.report_error(node("bob"), first);
    for name in ["c", "d"] {
        let lease = env.lease(node(name));
        assert_eq!(lease.index, index);
        env.report_error(node(name), &lease);
    }
}

/// Where nothing is added up, a failure is only of the one line.
#[test]
fn a_chain_fails_in_its_own_line_only() {
    let mut env = TestEnv::new();
    let job = env.job("job", 2, |spec| {
        stage(spec, Gather::Each);
        stage(spec, Gather::Each);
    });
    fail(&mut env, 0);
    let stands = [2, 4, 3].map(|index| env.core.explain_unit(job, index));
    let over = Some(UnitView::Over);
    assert_eq!(stands, [over.clone(), over, Some(UnitView::WaitingForInputs { missing: 1 })]);
    for index in [1, 3, 5] {
        assert_eq!(store(&mut env, job).0.index, index);
    }
    env.expect_job_completed(job);
    let view = env.core.job(job).expect("a job");
    assert_eq!((view.stored, view.failed), (3, 3));
}

/// What others were given could have been copied: it is no proof of work any more. A wrong
/// result is caught as before.
#[test]
fn a_late_result_counts_for_nothing_once_the_output_was_shown() {
    let mut env = TestEnv::new();
    let job = env.job("job", 2, |spec| {
        tree(spec);
        spec.validation.target_nresults = 4;
    });
    let (lazy, eve) = (node("lazy"), node("eve"));
    let late = [lazy, eve].map(|node| env.lease(node));
    store(&mut env, job);
    env.advance(DELAY_BOUND / 2);
    // Unit 1 goes to all who ask, and unit 2 is begun when it is safe.
    let (ada, bob) = ada_and_bob();
    let next = [ada, bob].map(|node| env.lease(node));
    assert_eq!(next.each_ref().map(|lease| lease.index), [1, 1]);
    for (node, lease) in [ada, bob].into_iter().zip(&next) {
        env.report(node, lease, &named(1));
    }
    env.expect_accepted(&next[0], &named(1), &[ada, bob]);
    env.store(job, 1);

    env.report(lazy, &late[0], &named(0));
    env.report(eve, &late[1], "wrong");
    let tally = |env: &TestEnv, of| {
        let view = env.core.nodes().into_iter().find(|view| view.node == of).expect("a node");
        (view.replicas.valid, view.replicas.too_late, view.replicas.invalid)
    };
    assert_eq!((tally(&env, lazy), tally(&env, eve)), ((0, 1, 0), (0, 0, 1)));
}

/// A job of ten million units and a tree above them costs what is in flight.
#[test]
fn ten_million_units_cost_what_is_in_flight() {
    let mut env = TestEnv::new();
    let job = env.job("job", 10_000_000, |spec| stage(spec, Gather::Tree { fan_in: 8 }));
    for _ in 0..100 {
        store(&mut env, job);
    }
    let state = env.core.state();
    assert!(
        state.jobs.values().next().expect("a job").units.len() < 30,
        "{}",
        state.jobs.values().next().expect("a job").units.len()
    );
    assert_eq!(env.core.job(job).expect("a job").units, 11_428_575);
}
