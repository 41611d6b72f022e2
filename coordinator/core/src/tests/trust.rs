//! Who is believed, who belongs together, and what is lost.

use std::time::Duration;

use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::job::{
    Adaptive, Audited, Comparison, Credibility, Policy, Share, Tolerance, Validation,
};
use dockercomp_protocol::wire::work::{Capacity, Verdict};
use dockercomp_protocol::{Cid, NodeId, receipt::Basis};

use super::env::{TestEnv, cid, node, request, result, spec};
use crate::{
    Action, Event, Granted, Hindrance, NoWork, Profile, ReplicaFate, ReplicaView, UnitError,
};

fn register(env: &mut TestEnv, node: NodeId, operator: Option<&str>) {
    let operator = operator.map(ToOwned::to_owned);
    let plain = Profile::plain(request(1).executors, request(1).free);
    env.step(Event::NodeRegistered { node, profile: Profile { operator, ..plain } });
}

#[test]
fn nodes_of_one_operator_never_share_a_unit() {
    let mut env = TestEnv::new();
    let [ada, bob, eve] = ["ada", "bob", "eve"].map(node);
    for (node, operator) in [(ada, Some("farm")), (bob, Some("farm")), (eve, None)] {
        register(&mut env, node, operator);
    }
    let job = env.job("job", 1, |_| {});
    env.lease(ada);
    env.expect_no_work_for(bob);
    let because = |hindrance| vec![NoWork::NoneForIt { index: 0, hindrance }];
    let may = env.core.who_may(env.now, job, 0);
    let why = |node| may.iter().find(|may| may.node == node).map(|may| may.reasons.clone());
    assert_eq!(why(bob), Some(because(Hindrance::OperatorHadIt)));
    assert_eq!(why(ada), Some(because(Hindrance::HadIt)));
    assert_eq!(why(eve), Some(vec![]));
    let why = env.core.explain_node(env.now, bob).jobs;
    assert_eq!(why, [(job, because(Hindrance::OperatorHadIt))]);
    env.lease(eve);
    assert_eq!(env.core.who_may(env.now, job, 0), [], "nothing of it waits any more");
}

#[test]
fn nodes_of_one_operator_are_not_checked_with_what_one_of_them_had() {
    let mut env = TestEnv::new();
    let [ada, bob, eve] = ["ada", "bob", "eve"].map(node);
    for (node, operator) in [(ada, Some("farm")), (bob, Some("farm")), (eve, None)] {
        register(&mut env, node, operator);
    }
    let job = env.job("job", 4, |spec| {
        let all = Share(Share::WHOLE.0);
        let rules = Credibility::default();
        spec.validation.policy =
            Policy::Credibility(Credibility { accepted_error: all, spot_checks: all, ..rules });
        (spec.validation.min_quorum, spec.validation.target_nresults) = (1, 1);
    });
    let lease = env.lease(ada);
    env.report(ada, &lease, "right");
    env.expect_accepted(&lease, "right", &[ada]);
    env.store(job, 0);
    // Every lease is to be a check, and only the unit that its operator had could be one.
    assert_eq!(env.lease(bob).index, 1);
    assert_eq!(env.lease(eve).index, 0);
}

#[test]
fn what_nodes_earned_is_their_operators_as_well() {
    let mut env = TestEnv::new();
    let [ada, bob, eve] = ["ada", "bob", "eve"].map(node);
    for (node, operator) in [(ada, Some("farm")), (bob, Some("farm")), (eve, None)] {
        register(&mut env, node, operator);
    }
    assert_eq!((env.core.leaderboard(9), env.core.operators(9)), (vec![], vec![]));
    env.job("job", 3, |spec| {
        (spec.validation.min_quorum, spec.validation.target_nresults) = (1, 1);
    });
    // 54 milliseconds are 125 millionths of a Cobblestone.
    for (node, times) in [(ada, 1), (bob, 2), (eve, 2)] {
        let lease = env.lease(node);
        let mut result = result(node, &lease, Ok("right"));
        result.usage.fuel = times * 54_000_000;
        env.send(result);
        while env.take().is_some() {}
    }
    let mut equal = [(bob, 250), (eve, 250)];
    equal.sort_unstable();
    assert_eq!(env.core.leaderboard(9), [equal[0], equal[1], (ada, 125)]);
    assert_eq!(env.core.leaderboard(2), equal);
    assert_eq!(env.core.operators(9), [("farm".to_owned(), 2, 375)]);
    assert_eq!(env.core.operators(0), []);
}

#[test]
fn why_nobody_begins_a_unit_is_told_of_every_node() {
    let mut env = TestEnv::new();
    let [ada, bob, eve] = ["ada", "bob", "eve"].map(node);
    let job = env.job("job", 1, |spec| spec.program.image = None);
    let offer = request(1).free;
    let small = Capacity { memory_bytes: 1 << 20, ..offer };
    for (node, kind, offer) in [
        (ada, ExecutorKind::Docker, offer),
        (bob, ExecutorKind::Wasm, small),
        (eve, ExecutorKind::Wasm, offer),
    ] {
        let profile = Profile::plain(vec![kind], offer);
        env.step(Event::NodeRegistered { node, profile });
    }
    let may = env.core.who_may(env.now, job, 0);
    let why = |node| may.iter().find(|may| may.node == node).map(|may| may.reasons.clone());
    assert_eq!(why(ada), Some(vec![NoWork::NoExecutor]));
    let need = Capacity { cpu_millis: 1000, memory_bytes: 1 << 30, disk_bytes: 1 << 20 };
    assert_eq!(why(bob), Some(vec![NoWork::TooLarge { need, offer: small }]));
    assert_eq!(why(eve), Some(vec![]));
    assert_eq!(env.core.replicas_of(job, 0), []);
    let lease = env.lease(eve);
    let fate = ReplicaFate::InProgress { deadline: lease.deadline };
    let executor = ExecutorKind::Wasm;
    let begun = ReplicaView { replica: lease.replica, node: eve, executor, fate };
    assert_eq!(env.core.replicas_of(job, 0), [begun]);
}

#[test]
fn a_node_that_fails_learns_that_its_quota_is_used() {
    let mut env = TestEnv::new();
    let ada = node("ada");
    register(&mut env, ada, None);
    let job = env.job("job", 200, |spec| spec.validation.max_error_results = 50);
    let mut leased = 0;
    loop {
        let granted = env.request(ada, request(1));
        let Some(lease) = granted.first() else { break };
        env.report_error(ada, lease);
        while env.take().is_some() {}
        leased += 1;
        assert!(leased < 200, "its quota does not fall");
    }
    let explanation = env.core.explain_node(env.now, ada);
    let per_day = env.core.nodes()[0].quota.per_day;
    assert!(per_day <= leased, "{per_day} of {leased}");
    assert_eq!(explanation.general, [NoWork::QuotaUsed { per_day }]);
    assert!(explanation.jobs.iter().any(|(of, _)| *of == job));
}

#[test]
fn a_node_learns_every_reason_why_it_gets_nothing() {
    let mut env = TestEnv::new();
    let ada = node("ada");
    let job = env.job("job", 1, |spec| spec.program.image = None);
    assert_eq!(env.core.explain_node(env.now, ada).general, [NoWork::NotRegistered]);
    let profile = Profile::plain(vec![ExecutorKind::Docker], request(1).free);
    env.step(Event::NodeRegistered { node: ada, profile });
    let explanation = env.core.explain_node(env.now, ada);
    assert_eq!(explanation.general, []);
    assert_eq!(explanation.jobs, [(job, vec![NoWork::NoExecutor])]);
}

#[test]
fn an_accepted_output_that_is_lost_is_computed_again() {
    let mut env = TestEnv::new();
    let [ada, bob] = ["ada", "bob"].map(node);
    let job = env.job("job", 1, |spec| {
        (spec.validation.min_quorum, spec.validation.target_nresults) = (1, 1);
    });
    let lease = env.lease(ada);
    env.report(ada, &lease, "right");
    env.expect_accepted(&lease, "right", &[ada]);
    env.expect_no_work_for(bob);
    // Nobody else is there, or somebody was; only then is there sense in giving it up.
    let soon = Duration::from_secs(60);
    let is_replaceable = |env: &TestEnv| env.core.is_replaceable(env.now, job, 0, soon);
    register(&mut env, ada, None);
    assert!(!is_replaceable(&env));
    register(&mut env, bob, None);
    assert!(is_replaceable(&env));
    env.advance(soon);
    assert!(!is_replaceable(&env));
    env.step(Event::OutputLost { job, index: 0 });
    env.expect(Action::AnnounceWork);
    env.restart();
    while env.take().is_some() {}
    env.expect_no_work_for(ada);

    let lease = env.lease(bob);
    assert_eq!(env.heartbeat(bob, &[&lease], &[]), (vec![], vec![]));
    assert_eq!(env.report(bob, &lease, "right"), Verdict::Stored);
    let (index, output) = (0, cid("right"));
    env.expect(Action::FetchOutput { job, index, output, holders: vec![bob] });
    env.store(job, 0);
    env.expect_job_completed(job);
    assert_eq!(env.core.job(job).map(|view| (view.done, view.replicas.valid)), Some((1, 2)));
}

/// A job of one unit that a single result decides, accepted on ada's "one" and lost.
fn with_one_lost(ada: NodeId, edit: impl Fn(&mut Validation)) -> (TestEnv, Granted) {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |spec| {
        let rules = &mut spec.validation;
        (rules.min_quorum, rules.target_nresults) = (1, 1);
        edit(rules);
    });
    let lease = env.lease(ada);
    env.report(ada, &lease, "one");
    env.expect_accepted(&lease, "one", &[ada]);
    env.step(Event::OutputLost { job, index: 0 });
    (env, lease)
}

/// Whoever computed it is gone, and the others say otherwise: there is no telling who is right,
/// and no output to give.
#[test]
fn a_lost_output_that_nobody_gets_again_fails_its_unit() {
    let [ada, bob, joe] = ["ada", "bob", "joe"].map(node);
    let (mut env, Granted { job, .. }) = with_one_lost(ada, |rules| rules.max_success_results = 1);
    for node in [bob, joe] {
        assert_eq!(env.core.job(job).map(|view| (view.done, view.failed)), Some((1, 0)));
        let lease = env.lease(node);
        assert_eq!(env.report(node, &lease, "other"), Verdict::Stored);
    }
    env.expect_job_completed(job);
    let view = env.core.job(job).expect("known");
    assert_eq!((view.done, view.stored, view.failed), (0, 0, 1));
    assert_eq!(view.failures[0].errors, [UnitError::OutputLost]);
    // It was accepted rightly, for all anybody knows, and nobody was caught.
    assert_eq!((view.replicas.valid, view.replicas.invalid), (1, 0));
    env.restart();
}

/// She was off over night, and others were at work on it again when she came back.
#[test]
fn a_node_that_comes_back_is_asked_for_what_was_given_up() {
    let [ada, bob] = ["ada", "bob"].map(node);
    let (mut env, hers) = with_one_lost(ada, |_| {});
    let his = env.lease(bob);
    assert_eq!(env.heartbeat(ada, &[], &[&hers]), (vec![], vec![]), "she keeps it");
    let (job, index, output) = (hers.job, 0, cid("one"));
    env.expect(Action::FetchOutput { job, index, output, holders: vec![ada] });
    // She may only say so: he goes on.
    assert_eq!(env.heartbeat(bob, &[&his], &[]), (vec![], vec![]));
    env.store(job, index);
    env.expect_job_completed(job);
    assert_eq!(env.heartbeat(ada, &[], &[&hers]), (vec![], vec![hers.replica]));
    assert_eq!(env.heartbeat(bob, &[&his], &[]), (vec![his.replica], vec![]));
}

/// A unit must not fail because of what it had cost before it was accepted, or while nobody has
/// tried to bring it back.
#[test]
fn what_was_before_the_loss_does_not_count_against_a_unit() {
    let [ada, bob, joe] = ["ada", "bob", "joe"].map(node);
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |spec| {
        let rules = &mut spec.validation;
        (rules.min_quorum, rules.target_nresults, rules.max_error_results) = (1, 2, 1);
    });
    let (his, hers) = (env.lease(joe), env.lease(ada));
    env.report_error(joe, &his);
    env.report(ada, &hers, "one");
    env.expect_accepted(&hers, "one", &[ada]);
    env.step(Event::OutputLost { job, index: 0 });
    let failed = |env: &TestEnv| env.core.job(job).map(|view| view.failed);
    for (node, fails) in [(bob, 0), (node("eve"), 1)] {
        assert_eq!(failed(&env), Some(0));
        let lease = env.lease(node);
        env.report_error(node, &lease);
        assert_eq!(failed(&env), Some(fails));
    }
    env.expect_job_completed(job);
}

/// They are as good, and they are not what the receipt and later stages name.
#[test]
fn results_that_only_compare_equal_do_not_keep_a_lost_unit_open() {
    let [ada, bob] = ["ada", "bob"].map(node);
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |spec| {
        spec.validation.comparison = Comparison::Checker { args: vec![] };
        spec.validation.max_success_results = 2;
    });
    let leases = [env.lease(ada), env.lease(bob)];
    env.report(ada, &leases[0], "1.0");
    env.report(bob, &leases[1], "1.00");
    while env.take().is_some() {}
    let asked: Vec<_> = leases.iter().map(|lease| lease.replica).collect();
    env.step(Event::Compared { job, index: 0, classes: vec![asked.clone()], asked });
    env.expect_accepted(&leases[0], "1.0", &[ada]);
    env.step(Event::OutputLost { job, index: 0 });
    for name in ["joe", "eve", "kim"] {
        assert_eq!(env.core.job(job).map(|view| view.failed), Some(0));
        let lease = env.lease(node(name));
        env.report(node(name), &lease, "1.00");
    }
    env.expect_job_completed(job);
    assert_eq!(env.core.job(job).map(|view| view.failed), Some(1));
}

/// It is not used to check nodes any more: it may have been wrong.
#[test]
fn what_was_lost_for_good_is_known_no_longer() {
    let mut env = TestEnv::new();
    let [ada, bob, joe] = ["ada", "bob", "joe"].map(node);
    let job = env.job("job", 2, |spec| {
        let (all, rules) = (Share::WHOLE, Credibility::default());
        spec.validation.policy =
            Policy::Credibility(Credibility { accepted_error: all, spot_checks: all, ..rules });
        let rules = &mut spec.validation;
        (rules.min_quorum, rules.target_nresults, rules.max_error_results) = (1, 1, 0);
    });
    let lease = env.lease(ada);
    env.report(ada, &lease, "one");
    env.expect_accepted(&lease, "one", &[ada]);
    env.step(Event::OutputLost { job, index: lease.index });
    let again = env.lease(bob);
    assert_eq!(again.index, lease.index);
    env.report_error(bob, &again);
    assert_eq!(env.core.job(job).map(|view| view.failed), Some(1));
    assert_ne!(env.lease(joe).index, lease.index);
}

/// The lease of one trusted node is lost and another has the unit as well: whoever is first
/// decides it, and the receipt says no more of it than it had shown.
#[test]
fn a_receipt_says_what_the_least_of_the_trusted_had_shown() {
    let mut env = TestEnv::new();
    let [ada, bob, joe] = ["ada", "bob", "joe"].map(node);
    let agree = |env: &mut TestEnv, one, other| {
        let (first, second) = (env.lease(one), env.lease(other));
        env.report(one, &first, "right");
        env.report(other, &second, "right");
        env.expect_accepted(&first, "right", &[one, other]);
        env.store(first.job, first.index);
    };
    let plain = env.job("plain", 1, |_| {});
    agree(&mut env, bob, joe);
    env.expect_job_completed(plain);
    env.job("job", 2, |spec| {
        let rules = Adaptive { trusted_after: 1, replication_factor: 0 };
        spec.validation.policy = Policy::Adaptive(rules);
    });
    agree(&mut env, ada, bob);

    let lease = env.lease(ada);
    env.step(Event::LeasesUndelivered { replicas: vec![lease.replica] });
    assert_eq!(env.lease(bob).index, lease.index);
    while env.take().is_some() {}
    env.report(ada, &lease, "right");
    let basis = Basis::Trusted { consecutive_valid: 1 };
    let Some(Action::Accept { basis: found, .. }) = env.take() else { panic!("not accepted") };
    assert_eq!(found, basis, "bob had two results confirmed, ada one");
    while env.take().is_some() {}
}

/// The unit was accepted because ada was trusted; that joe computes it again changes nothing.
#[test]
fn who_computes_a_lost_output_again_need_not_be_trusted() {
    let mut env = TestEnv::new();
    let [ada, bob] = ["ada", "bob"].map(node);
    let job = env.job("job", 2, |spec| {
        let rules = Adaptive { trusted_after: 1, replication_factor: 0 };
        spec.validation.policy = Policy::Adaptive(rules);
    });
    let (first, second) = (env.lease(ada), env.lease(bob));
    env.report(ada, &first, "right");
    env.report(bob, &second, "right");
    env.expect_accepted(&first, "right", &[ada, bob]);
    env.store(job, 0);

    let lease = env.lease(ada);
    env.report(ada, &lease, "right");
    env.expect_accepted(&lease, "right", &[ada]);
    env.step(Event::OutputLost { job, index: 1 });
    let lease = env.lease(node("joe"));
    assert_eq!(lease.index, 1);
}

/// A job in which every lease that can be a spot-check is one, and whose first unit was accepted
/// of a node.
fn with_one_accepted(node: NodeId) -> (TestEnv, Cid) {
    let mut env = TestEnv::new();
    let job = env.job("job", 4, |spec| {
        (spec.validation.min_quorum, spec.validation.target_nresults) = (1, 1);
        spec.validation.policy = Policy::Credibility(Credibility {
            accepted_error: Share::from_millionths(300_000),
            saboteurs: Share::from_millionths(200_000),
            spot_checks: Share::WHOLE,
        });
    });
    let lease = env.lease(node);
    env.report(node, &lease, "right");
    env.expect_accepted(&lease, "right", &[node]);
    (env, job)
}

/// An accepted unit whose output can be lost may have to be computed again: who had it as a
/// spot-check could not have it then, and who computed it again is not checked with it.
#[test]
fn a_spot_check_is_of_a_unit_that_the_node_never_has_otherwise() {
    let [ada, bob] = ["ada", "bob"].map(node);
    let (mut env, job) = with_one_accepted(ada);
    assert_eq!(env.lease(bob).index, 1);
    env.step(Event::OutputLost { job, index: 0 });
    let lease = env.lease(bob);
    assert_eq!(lease.index, 0);
    env.report(bob, &lease, "right");
    while env.take().is_some() {}
    env.store(job, 0);
    assert_eq!(env.lease(bob).index, 2);
    assert_eq!(env.lease(node("joe")).index, 0, "the check is for others");
}

/// Who saves its progress gets more time, for a spot-check as for any other work.
#[test]
fn a_spot_check_is_put_off_like_other_work() {
    let [ada, bob] = ["ada", "bob"].map(node);
    let (mut env, job) = with_one_accepted(ada);
    env.store(job, 0);
    let check = env.lease(bob);
    assert_eq!(check.index, 0);
    let hour = Duration::from_secs(3600);
    env.advance(hour * 9 / 10);
    let running = vec![check.replica];
    let checkpointed = running.clone();
    env.step(Event::Heartbeat { node: bob, running, kept: vec![], checkpointed });
    while env.take().is_some() {}
    env.advance(hour / 2);
    assert_eq!(env.report(bob, &check, "right"), Verdict::Stored);
    let no_reply = |node| env.core.node(node).expect("it is known").replicas.no_reply;
    assert_eq!(no_reply(bob), 0);
    env.check_replay();
}

#[test]
fn outputs_that_differ_in_bytes_are_compared_before_they_are_judged() {
    let mut env = TestEnv::new();
    let [ada, bob] = ["ada", "bob"].map(node);
    let job = env.job("job", 1, |spec| {
        let nothing = dockercomp_protocol::job::Decimal::default();
        let tolerance = Tolerance { absolute: nothing, relative: nothing };
        spec.validation.comparison = Comparison::Numeric(tolerance);
    });
    let (first, second) = (env.lease(ada), env.lease(bob));
    env.report(ada, &first, "1.0");
    env.expect_nothing_else();
    env.report(bob, &second, "1.00");
    let outputs = vec![(first.replica, ada, cid("1.0")), (second.replica, bob, cid("1.00"))];
    env.expect(Action::Compare { job, index: 0, outputs: outputs.clone() });
    env.expect_nothing_else();
    // What the shell was asked is asked again after a restart.
    env.restart();
    assert_eq!(env.take(), Some(Action::Compare { job, index: 0, outputs }));

    let asked = vec![first.replica, second.replica];
    env.step(Event::Compared { job, index: 0, classes: vec![asked.clone()], asked });
    env.expect_accepted(&second, "1.0", &[ada]);
    assert_eq!(env.core.job(job).map(|view| view.replicas.valid), Some(2));
}

/// A third result comes in while the first two are being compared.
#[test]
fn an_answer_to_an_earlier_comparison_says_nothing_of_later_results() {
    let mut env = TestEnv::new();
    let names = ["ada", "bob", "eve"];
    let job = env.job("job", 1, |spec| {
        let nothing = dockercomp_protocol::job::Decimal::default();
        let tolerance = Tolerance { absolute: nothing, relative: nothing };
        spec.validation.comparison = Comparison::Numeric(tolerance);
        spec.validation.target_nresults = 3;
    });
    let leases = names.map(|name| env.lease(node(name)));
    let mut questions = Vec::new();
    for ((name, lease), output) in names.iter().zip(&leases).zip(["1.0", "2.0", "2.00"]) {
        env.report(node(name), lease, output);
        while let Some(action) = env.take() {
            let Action::Compare { outputs, .. } = action else { panic!("{action:?}") };
            questions.push(outputs.iter().map(|&(id, ..)| id).collect::<Vec<_>>());
        }
    }
    let [first, second, third] = leases.map(|lease| lease.replica);
    assert_eq!(questions, [vec![first, second], vec![first, second, third]]);
    let mut answer = |asked: usize, classes: &[&[_]]| {
        let classes = classes.iter().map(|class| class.to_vec()).collect();
        env.step(Event::Compared { job, index: 0, asked: questions[asked].clone(), classes });
        env.take()
    };
    assert_eq!(answer(0, &[&[first], &[second]]), None);
    let accepted = answer(1, &[&[first], &[second, third]]);
    assert!(matches!(accepted, Some(Action::Accept { output, .. }) if output == cid("2.0")));
    while env.take().is_some() {}
    let view = env.core.job(job).expect("the job");
    assert_eq!((view.replicas.valid, view.replicas.validate_error), (2, 0));
}

/// Ada and bob have a record, eve and joe have none, and it is two to two.
#[test]
fn no_record_breaks_a_tie() {
    let mut env = TestEnv::new();
    let [ada, bob, eve, joe, kim] = ["ada", "bob", "eve", "joe", "kim"].map(node);
    let past = env.job("past", 100, |_| {});
    for node in [ada, bob] {
        for lease in env.request(node, request(100)) {
            env.report(node, &lease, "right");
            while env.take().is_some() {}
        }
    }
    (0..100).for_each(|index| env.store(past, index));
    while env.take().is_some() {}

    let mut rules = spec().validation;
    rules.policy = Policy::Audited(Audited::default());
    env.job("job", 1, |spec| spec.validation = rules.clone());
    for (node, output) in [(eve, "wrong"), (ada, "right"), (joe, "wrong"), (bob, "right")] {
        let lease = env.lease(node);
        env.report(node, &lease, output);
        env.expect_nothing_else();
    }
    let lease = env.lease(kim);
    env.report(kim, &lease, "right");
    let Some(Action::Accept { output, basis, .. }) = env.take() else { panic!("not accepted") };
    assert_eq!((output, basis), (cid("right"), Basis::Majority { counted: 3, against: 2 }));
    assert!(basis.is_allowed_by(&rules));
    while env.take().is_some() {}
}

/// Eve was caught elsewhere, so that her result counts for nothing; but it may be the same.
#[test]
fn a_lot_waits_until_all_its_results_are_compared() {
    let mut env = TestEnv::new();
    let [eve, ada, bob, joe] = ["eve", "ada", "bob", "joe"].map(node);
    let job = env.job("job", 1, |spec| {
        spec.validation.policy = Policy::Audited(Audited::default());
        spec.validation.comparison = Comparison::Checker { args: vec![] };
    });
    let trap = env.job("trap", 1, |_| {});
    let of_eve = env.request(eve, request(2));
    env.report(eve, &of_eve[0], "1.0");
    let of_ada = env.lease(ada);
    env.report(ada, &of_ada, "1.00");
    assert!(matches!(env.take(), Some(Action::Compare { .. })));

    env.report(eve, &of_eve[1], "wrong");
    for node in [bob, joe] {
        let lease = env.lease(node);
        assert_eq!(lease.job, trap);
        env.report(node, &lease, "right");
        while env.take().is_some() {}
    }
    let of_bob = env.lease(bob);
    assert_eq!(of_bob.job, job);
    env.report(bob, &of_bob, "1.00");
    let Some(Action::Compare { outputs, .. }) = env.take() else { panic!("not compared") };
    env.expect_nothing_else();
    let asked: Vec<_> = outputs.iter().map(|&(replica, ..)| replica).collect();
    assert_eq!(asked, [of_eve[0].replica, of_ada.replica, of_bob.replica]);
    env.step(Event::Compared { job, index: 0, classes: vec![asked.clone()], asked });
    while env.take().is_some() {}
    assert_eq!(env.core.job(job).map(|view| (view.done, view.replicas.valid)), Some((1, 3)));
}

#[test]
fn a_program_that_never_gives_the_same_is_said_so_and_nobody_is_blamed() {
    let mut env = TestEnv::new();
    let job = env.job("job", 4, |spec| spec.validation.max_total_results = 9);
    for index in 0..3 {
        for name in ["ada", "bob", "eve"] {
            let lease = env.lease(node(name));
            assert_eq!(lease.index, index);
            env.report(node(name), &lease, &format!("{name} {index}"));
            while env.take().is_some() {}
        }
    }
    assert_eq!(env.core.job(job).map(|view| view.is_nondeterministic), Some(true));
    let lease = env.lease(node("abe"));
    assert_eq!(lease.index, 0);
    env.report(node("abe"), &lease, "ada 0");
    while env.take().is_some() {}
    let bob = env.core.nodes().into_iter().find(|view| view.node == node("bob")).expect("bob");
    assert_eq!(bob.replicas.invalid, 1);
    assert!(bob.standings.values().all(|standing| standing.caught == 0), "{bob:#?}");
}

/// The life of a lot, step by step: the first result is audited at once, the rest waits; when
/// the audit refutes it, everything that the node gave goes to others.
#[test]
fn a_lot_whose_audit_fails_is_void() {
    let mut env = TestEnv::new();
    let [eve, ada, bob] = ["eve", "ada", "bob"].map(node);
    for node in [eve, ada, bob] {
        register(&mut env, node, None);
    }
    let job = env.job("job", 3, |spec| {
        spec.validation.policy = Policy::Audited(Audited::default());
    });
    let leases = env.request(eve, request(3));
    for lease in &leases {
        env.report(eve, lease, "wrong");
        while env.take().is_some() {}
    }
    let view = env.core.job(job).expect("the job");
    assert_eq!((view.done, view.replicas.pending()), (0, 3), "nothing is accepted yet");

    let mut accepted = Vec::new();
    for round in 0..6 {
        for node in [ada, bob] {
            for lease in env.request(node, request(3)) {
                env.report(node, &lease, "right");
                while let Some(action) = env.take() {
                    if let Action::Accept { index, output, basis, .. } = action {
                        assert_eq!(output, cid("right"), "round {round}");
                        accepted.push((index, basis));
                    }
                }
            }
        }
    }
    accepted.sort_by_key(|&(index, _)| index);
    let indices: Vec<u64> = accepted.iter().map(|&(index, _)| index).collect();
    assert_eq!(indices, [0, 1, 2]);
    let by_majority = accepted.iter().any(|(_, basis)| matches!(basis, Basis::Majority { .. }));
    assert!(by_majority, "{accepted:?}");
    let eve = env.core.nodes().into_iter().find(|view| view.node == eve).expect("eve");
    assert_eq!(eve.replicas.invalid, 3);
    assert!(eve.standings.values().all(|standing| standing.is_barred && standing.caught == 1));
}

/// Ada has confirmed two results of eve when eve is caught elsewhere. Both are ada's then, at
/// once, and one lot cannot hold them: a receipt of a larger one would be refused.
#[test]
fn what_a_caught_node_leaves_does_not_overfill_the_lot_of_another() {
    let mut env = TestEnv::new();
    let [eve, ada, bob, joe] = ["eve", "ada", "bob", "joe"].map(node);
    let mut rules = spec().validation;
    rules.policy = Policy::Audited(Audited { lot_max: 1, ..Audited::default() });
    (rules.min_quorum, rules.target_nresults) = (3, 3);
    let job = env.job("job", 2, |spec| spec.validation = rules.clone());
    for node in [eve, ada] {
        for lease in env.request(node, request(2)) {
            env.report(node, &lease, &format!("right {}", lease.index));
            while env.take().is_some() {}
        }
    }
    let trap = env.job("trap", 1, |_| {});
    let lease = env.lease(eve);
    assert_eq!(lease.job, trap);
    env.report(eve, &lease, "wrong");

    let mut of_bob = env.request(bob, request(3));
    let of_trap = of_bob.iter().position(|lease| lease.job == trap).expect("one of the trap");
    env.report(bob, &of_bob.remove(of_trap), "right");
    let lease = env.lease(joe);
    assert_eq!(lease.job, trap);
    env.report(joe, &lease, "right");
    env.expect_accepted(&lease, "right", &[bob, joe]);
    let caught = env.core.nodes().into_iter().find(|view| view.node == eve).expect("eve");
    assert_eq!(caught.replicas.invalid, 1);

    for lease in of_bob {
        env.report(bob, &lease, &format!("right {}", lease.index));
        while env.take().is_some() {}
    }
    let mut accepted = Vec::new();
    for lease in env.request(joe, request(2)) {
        env.report(joe, &lease, &format!("right {}", lease.index));
        while let Some(action) = env.take() {
            if let Action::Accept { index, basis, .. } = action {
                assert!(basis.is_allowed_by(&rules), "unit {index}: {basis}");
                accepted.push((index, basis));
            }
        }
    }
    let lot = Basis::Lot { results: 1, audited: 1 };
    assert_eq!(accepted, [(0, lot), (1, lot)]);
    assert_eq!(env.core.job(job).map(|view| view.done), Some(2));
}
