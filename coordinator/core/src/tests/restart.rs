//! Restart is replay.

use std::time::Duration;

use super::env::{DELAY_BOUND, SEED, TestEnv, cid, node};
use crate::{Action, ApplyError, Config, Core, Event, Record, UnitView};

#[test]
fn a_restart_in_the_middle_changes_nothing() {
    let mut env = TestEnv::new();
    let job = env.job("job", 2, |_| {});
    let (ada, bob) = (node("ada"), node("bob"));
    let (first, second) = (env.lease(ada), env.lease(bob));
    env.report(ada, &first, "right");

    env.restart();
    env.expect(Action::AnnounceWork);
    env.report(bob, &second, "right");
    env.expect_accepted(&second, "right", &[ada, bob]);

    // The output was not brought here yet, so it is asked for again.
    env.restart();
    let (index, output, holders) = (0, cid("right"), vec![ada, bob]);
    env.expect(Action::FetchOutput { job, index, output, holders });
    env.expect(Action::AnnounceWork);
    env.store(job, 0);
    env.restart();
    env.expect(Action::AnnounceWork);
    assert_eq!(env.lease(ada).index, 1);
}

/// A day's outage, or a clock that was set a day forward: leases keep the time they had left,
/// and do not run out all at once.
#[test]
fn a_day_of_absence_ends_no_lease() {
    let mut env = TestEnv::new();
    env.job("job", 2, |_| {});
    let (ada, bob) = (node("ada"), node("bob"));
    env.lease(ada);
    env.now = env.now + DELAY_BOUND / 2;
    let lease = env.lease(bob);
    env.snapshot();
    env.now = env.now + Duration::from_secs(24 * 3600);
    env.restart();
    env.expect(Action::AnnounceWork);
    // Half of the first lease was used up, nothing of the second.
    assert_eq!(env.core.next_deadline(), Some(env.now + DELAY_BOUND / 2));
    env.advance(DELAY_BOUND / 2);
    assert_eq!(env.core.next_deadline(), Some(env.now + DELAY_BOUND / 2));
    env.report(bob, &lease, "right");
    env.restart();
    env.expect(Action::AnnounceWork);
}

/// A lease that is made after a start without leases runs out when it says.
#[test]
fn a_start_without_leases_puts_no_deadline_off() {
    let mut env = TestEnv::new();
    let job = env.job("job", 1, |spec| spec.validation.delay_bound_ms = 20_000);
    env.restart();
    env.expect(Action::AnnounceWork);
    let lease = env.lease(node("ada"));
    assert_eq!(env.core.next_deadline(), Some(lease.deadline));
    env.advance(Duration::from_secs(20));
    assert_eq!(env.core.job(job).map(|view| view.replicas.no_reply), Some(1));
}

/// While the coordinator was away nobody could report: the first minutes belong to them.
#[test]
fn leases_that_ran_out_during_an_outage_get_a_grace() {
    let mut env = TestEnv::new();
    env.job("job", 1, |_| {});
    let lease = env.lease(node("ada"));
    env.now = lease.deadline - Config::default().resume_grace;
    let other = env.job("other", 1, |_| {});
    env.step(Event::JobCancelled { job: other });
    env.take();
    env.now = lease.deadline;
    env.restart();
    env.expect(Action::AnnounceWork);
    let grace = Config::default().resume_grace;
    assert_eq!(env.core.next_deadline(), Some(env.now + grace));
    let records = env.journal.len();
    env.step(Event::DeadlineReached);
    assert_eq!(env.journal.len(), records);
    env.report(node("ada"), &lease, "right");
    assert_eq!(env.journal.len(), records + 1);
    assert_eq!(env.core.next_deadline(), None);
}

#[test]
fn many_leases_run_out_in_steps() {
    let mut env = TestEnv::with(Config { expiries_per_step_max: 2, ..Config::default() });
    env.job("job", 1, |spec| {
        spec.validation.min_quorum = 3;
        spec.validation.target_nresults = 3;
    });
    for name in ["a", "b", "c"] {
        env.lease(node(name));
    }
    env.advance(DELAY_BOUND);
    assert_eq!(env.core.next_deadline(), Some(env.now));
    env.advance(DELAY_BOUND);
    assert_eq!(env.core.next_deadline(), None);
}

#[test]
fn a_record_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut env = TestEnv::new();
    // A third replica that nobody hears of keeps the unit in memory, a second unit the job.
    let job = env.job("job", 2, |spec| spec.validation.target_nresults = 3);
    let leases = ["a", "b", "c"].map(|name| env.lease(node(name)));
    env.report(node("a"), &leases[0], "right");
    env.report(node("b"), &leases[1], "right");
    env.expect_accepted(&leases[1], "right", &[node("a"), node("b")]);
    env.store(job, 0);
    assert!(matches!(env.core.explain_unit(job, 0), Some(UnitView::Accepted { stored: true, .. })));

    // Every record twice, and every record without its predecessor.
    for (place, record) in env.journal.iter().enumerate() {
        let mut core = Core::new(Config::default());
        for earlier in &env.journal[..=place] {
            core.apply(earlier).expect("in order");
        }
        let before = core.state().clone();
        assert!(core.apply(record).is_err(), "{record:?} was applied twice");
        assert_eq!(*core.state(), before);
        if place > 0 {
            let mut core = Core::new(Config::default());
            assert!(core.apply(record).is_err(), "{record:?} was applied to nothing");
        }
    }
    let mut core = Core::new(Config::default());
    core.apply(&env.journal[0]).expect("in order");
    assert_eq!(core.apply(&env.journal[0]), Err(ApplyError::KnownJob { job }));
    core.apply(&env.journal[1]).expect("in order");
    let (at, index, output) = (env.now, 0, cid("right"));
    let unfounded = Record::Accepted { at, job, index, output };
    assert_eq!(core.apply(&unfounded), Err(ApplyError::WrongOutput { job, index }));
}

#[test]
#[should_panic(expected = "were not drained")]
fn two_events_without_draining_are_a_bug() {
    let mut core = Core::new(Config::default());
    let spec = Box::new(super::env::spec());
    core.handle(env_now(), Event::JobAdded { job: cid("job"), spec, units: 1, seed: SEED });
    core.handle(env_now(), Event::DeadlineReached);
}

const fn env_now() -> dockercomp_protocol::Timestamp {
    dockercomp_protocol::Timestamp(1)
}
