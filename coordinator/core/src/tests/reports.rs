//! Late, repeated, foreign and unwelcome reports; heartbeats; cancelling; leaving.

use std::time::Duration;

use dockercomp_protocol::execution::{ExecutorKind, Exit};
use dockercomp_protocol::wire::work::Verdict;

use super::env::{DELAY_BOUND, TestEnv, cid, node, request, result};
use crate::{Action, Event, JobState, Profile, UnitView};

#[test]
fn the_same_report_again_changes_nothing() {
    let mut env = TestEnv::new();
    env.job("job", 1, |_| {});
    let lease = env.lease(node("ada"));
    assert_eq!(env.report(node("ada"), &lease, "right"), Verdict::Stored);
    let records = env.journal.len();
    assert_eq!(env.report(node("ada"), &lease, "right"), Verdict::Stored);
    assert_eq!(env.report(node("ada"), &lease, "other"), Verdict::NotRight);
    assert_eq!(env.report_error(node("ada"), &lease), Verdict::NotRight);
    assert_eq!(env.journal.len(), records);
}

#[test]
fn a_replica_is_reported_by_its_holder_only() {
    let mut env = TestEnv::new();
    env.job("job", 1, |_| {});
    let mut lease = env.lease(node("ada"));
    let records = env.journal.len();
    assert_eq!(env.report(node("eve"), &lease, "right"), Verdict::NotYours);
    lease.job = cid("another job");
    assert_eq!(env.report(node("ada"), &lease, "right"), Verdict::NotYours);
    lease.replica.0 += 1;
    assert_eq!(env.report(node("ada"), &lease, "right"), Verdict::NotYours);
    assert_eq!(env.journal.len(), records);
}

#[test]
fn a_missed_deadline_gives_the_unit_to_another_node() {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |_| {});
    let (slow, ada, bob) = (node("slow"), node("ada"), node("bob"));
    let lost = env.lease(slow);
    assert_eq!(env.core.next_deadline(), Some(lost.deadline));
    assert_eq!(lost.deadline, env.now + DELAY_BOUND);
    let first = env.lease(ada);
    env.report(ada, &first, "right");
    env.expect_no_work_for(bob);

    env.advance(DELAY_BOUND - Duration::from_millis(1));
    env.expect_nothing_else();
    env.advance(Duration::from_millis(1));
    env.expect(Action::AnnounceWork);
    env.expect_no_work_for(slow);
    let second = env.lease(bob);
    env.report(bob, &second, "right");
    env.expect_accepted(&second, "right", &[ada, bob]);
    assert_eq!(env.core.job(job).expect("the job").replicas.no_reply, 1);
}

#[test]
fn a_late_report_votes_while_the_unit_is_undecided() {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |_| {});
    let (slow, ada, bob) = (node("slow"), node("ada"), node("bob"));
    let late = env.lease(slow);
    env.advance(DELAY_BOUND);
    let (first, second) = (env.lease(ada), env.lease(bob));
    env.report(ada, &first, "right");
    assert_eq!(env.report(slow, &late, "right"), Verdict::Stored);
    env.expect_accepted(&late, "right", &[slow, ada]);

    // Bob was a replacement, and is told so.
    let (abandon, forget) = env.heartbeat(bob, &[&second], &[]);
    assert_eq!((abandon, forget), (vec![second.replica], vec![]));
    let replicas = env.core.job(job).expect("the job").replicas;
    assert_eq!((replicas.valid, replicas.no_reply, replicas.didnt_need), (2, 0, 1));
}

#[test]
fn a_report_after_the_decision_is_still_compared() {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |spec| spec.validation.target_nresults = 4);
    let names = ["a", "b", "good", "evil"].map(node);
    let leases = names.map(|node| env.lease(node));
    env.report(names[0], &leases[0], "right");
    env.report(names[1], &leases[1], "right");
    env.expect_accepted(&leases[1], "right", &names[..2]);

    assert_eq!(env.report(names[2], &leases[2], "right"), Verdict::Stored);
    let (index, output) = (0, cid("right"));
    env.expect(Action::FetchOutput { job, index, output, holders: names[..3].to_vec() });
    assert_eq!(env.report(names[3], &leases[3], "wrong"), Verdict::Stored);
    let caught: Vec<_> = env.core.disagreements().map(|caught| caught.node).collect();
    assert_eq!(caught, [names[3]]);

    env.store(job, 0);
    env.expect_job_completed(job);
    assert_eq!(env.report(names[3], &leases[3], "wrong"), Verdict::TooLate);
}

#[test]
fn a_report_after_a_failure_is_too_late() {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |spec| spec.validation.max_error_results = 0);
    let (first, second) = (env.lease(node("a")), env.lease(node("b")));
    env.report_error(node("a"), &first);
    env.expect_job_completed(job);
    assert_eq!(env.report(node("b"), &second, "right"), Verdict::TooLate);
    let replicas = env.core.job(job).expect("the job").replicas;
    assert_eq!((replicas.client_error, replicas.too_late), (1, 1));
}

#[test]
fn success_without_output_is_a_validate_error() {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |_| {});
    let lease = env.lease(node("a"));
    let mut empty = result(node("a"), &lease, Err(Exit::TimedOut));
    empty.exit = Exit::Code { code: 0 };
    assert_eq!(env.send(empty), Verdict::Stored);
    assert_eq!(env.core.job(job).expect("the job").replicas.validate_error, 1);
}

#[test]
fn outputs_are_kept_until_the_canonical_one_is_safe() {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |_| {});
    let (ada, eve, bob) = (node("ada"), node("eve"), node("bob"));
    let (first, second) = (env.lease(ada), env.lease(eve));
    let nothing = (vec![], vec![]);
    // Finished, but its report is still on its way.
    assert_eq!(env.heartbeat(ada, &[], &[&first]), nothing);
    env.report(ada, &first, "right");
    env.report(eve, &second, "wrong");
    assert_eq!(env.heartbeat(ada, &[], &[&first]), nothing);
    assert_eq!(env.heartbeat(eve, &[], &[&second]), nothing);

    let third = env.lease(bob);
    env.report(bob, &third, "right");
    env.expect_accepted(&third, "right", &[ada, bob]);
    assert_eq!(env.heartbeat(ada, &[], &[&first]), nothing);
    assert_eq!(env.heartbeat(eve, &[], &[&second]), (vec![], vec![second.replica]));

    env.store(job, 0);
    env.expect_job_completed(job);
    assert_eq!(env.heartbeat(ada, &[], &[&first]), (vec![], vec![first.replica]));
}

#[test]
fn nobody_ends_the_work_of_another() {
    let mut env = TestEnv::new();
    env.job("job", 1, |spec| spec.validation.max_error_results = 0);
    let lease = env.lease(node("ada"));
    let (abandon, forget) = env.heartbeat(node("eve"), &[&lease], &[&lease]);
    assert_eq!((abandon, forget), (vec![lease.replica], vec![lease.replica]));
    assert_eq!(env.report(node("ada"), &lease, "right"), Verdict::Stored);
}

#[test]
fn a_cancelled_job_is_abandoned_and_forgotten() {
    let mut env = TestEnv::new();
    let job = env.job("job", 5, |_| {});
    let (running, done) = (env.lease(node("a")), env.lease(node("b")));
    env.report(node("b"), &done, "right");
    env.step(Event::JobCancelled { job });
    env.expect(Action::JobEnded { job, state: JobState::Cancelled { at: env.now } });
    env.step(Event::JobCancelled { job });

    assert_eq!(env.core.next_deadline(), None);
    assert_eq!(env.heartbeat(node("a"), &[&running], &[]), (vec![running.replica], vec![]));
    assert_eq!(env.heartbeat(node("b"), &[], &[&done]), (vec![], vec![done.replica]));
    assert_eq!(env.report(node("a"), &running, "right"), Verdict::TooLate);
    env.expect_no_work_for(node("c"));
    let replicas = env.core.job(job).expect("the job").replicas;
    assert_eq!((replicas.didnt_need, replicas.no_check, replicas.in_progress), (1, 1, 0));
    assert_eq!(env.core.explain_unit(job, 4), Some(UnitView::Cancelled));
}

#[test]
fn a_node_that_leaves_gives_its_leases_back_at_once() {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |_| {});
    let offer = request(1).free;
    let executors = vec![ExecutorKind::Wasm];
    env.step(Event::NodeRegistered { node: node("a"), profile: Profile::plain(executors, offer) });
    let lost = env.lease(node("a"));
    let kept = env.lease(node("b"));
    env.step(Event::NodeDetached { node: node("a") });
    assert_eq!(env.core.job(job).expect("the job").replicas.client_detached, 1);
    env.expect_no_work_for(node("a"));
    let again = env.lease(node("c"));
    // It came back after all, with the result.
    env.report(node("a"), &lost, "right");
    env.report(node("b"), &kept, "right");
    env.expect_accepted(&kept, "right", &[node("a"), node("b")]);
    assert_eq!(env.heartbeat(node("c"), &[&again], &[]), (vec![again.replica], vec![]));
}

/// A node that was killed before it had stored a lease knows nothing of it afterwards.
#[test]
fn a_lease_that_its_node_knows_no_more_is_replaced_at_once() {
    let mut env = TestEnv::new();
    let ada = node("ada");
    let register = Event::NodeRegistered {
        node: ada,
        profile: Profile::plain(request(1).executors, request(1).free),
    };
    env.step(register.clone());
    let job = env.job("job", 3, |_| {});
    let (kept, lost) = (env.lease(ada), env.lease(ada));
    let couldnt_send = |env: &TestEnv| env.core.job(job).expect("the job").replicas.couldnt_send;
    // A lease on its way is not named yet.
    env.heartbeat(ada, &[&kept], &[]);
    assert_eq!(couldnt_send(&env), 0);

    env.step(register);
    let new = env.lease(ada);
    env.heartbeat(ada, &[&kept], &[]);
    assert_eq!(couldnt_send(&env), 1, "neither the one it has nor the one on its way");
    assert_eq!(env.report(ada, &new, "right"), Verdict::Stored);
    assert_eq!(env.report(ada, &kept, "right"), Verdict::Stored);
    // It had it after all: while the unit is undecided that counts.
    assert_eq!(env.report(ada, &lost, "right"), Verdict::Stored);
}

#[test]
fn an_undelivered_lease_is_replaced_at_once() {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |_| {});
    let lost = env.lease(node("a"));
    env.step(Event::LeasesUndelivered { replicas: vec![lost.replica, lost.replica] });
    assert_eq!(env.core.job(job).expect("the job").replicas.couldnt_send, 1);
    assert_eq!(env.lease(node("b")).index, 0);
    assert_eq!(env.lease(node("c")).index, 0);
}
