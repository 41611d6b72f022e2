//! Who gets what.

use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::job::Work;
use dockercomp_protocol::wire::work::{Capacity, WorkRequest};

use super::env::{DELAY_BOUND, SEED, TestEnv, cid, node, request, spec};
use crate::{Action, Config, Event, Profile};

#[test]
fn a_node_never_gets_a_unit_twice() {
    let mut env = TestEnv::new();
    env.job("job", 2, |_| {});
    let ada = node("ada");
    let leases = env.request(ada, request(10));
    assert_eq!(leases.iter().map(|lease| lease.index).collect::<Vec<_>>(), [0, 1]);
    env.expect_no_work_for(ada);
    env.report_error(ada, &leases[0]);
    env.expect(Action::AnnounceWork);
    env.expect_no_work_for(ada);
    env.advance(DELAY_BOUND);
    env.expect(Action::AnnounceWork);
    env.expect_no_work_for(ada);
}

#[test]
fn leases_fit_what_is_free() {
    let mut env = TestEnv::new();
    env.job("job", 10, |_| {});
    let room = |cpu_millis, memory_bytes, disk_bytes| {
        let free = Capacity { cpu_millis, memory_bytes, disk_bytes };
        WorkRequest { free, ..request(10) }
    };
    let much = 1 << 40;
    assert_eq!(env.request(node("a"), room(3999, much, much)).len(), 3);
    assert_eq!(env.request(node("b"), room(99_000, 2 << 30, much)).len(), 2);
    assert_eq!(env.request(node("c"), room(99_000, much, (1 << 20) - 1)).len(), 0);
    assert_eq!(env.request(node("d"), WorkRequest { leases_max: 0, ..request(0) }).len(), 0);
}

/// A node asks for more than it can run at once, to have work ahead; a unit that it could
/// never run must not wait there.
#[test]
fn a_unit_larger_than_the_whole_offer_goes_elsewhere() {
    let mut env = TestEnv::new();
    env.job("job", 1, |spec| spec.limits.cpu_millis = 1000);
    let (small, large) = (node("small"), node("large"));
    let executors = vec![ExecutorKind::Wasm];
    for (node, cpu_millis) in [(small, 500), (large, 1000)] {
        let offer = Capacity { cpu_millis, memory_bytes: u64::MAX, disk_bytes: u64::MAX };
        env.step(Event::NodeRegistered { node, profile: Profile::plain(executors.clone(), offer) });
    }
    env.expect_no_work_for(small);
    env.lease(large);
}

#[test]
fn a_node_holds_no_more_leases_than_allowed() {
    let mut env = TestEnv::with(Config { leases_per_node_max: 3, ..Config::default() });
    env.job("job", 10, |_| {});
    let ada = node("ada");
    assert_eq!(env.request(ada, request(2)).len(), 2);
    let last = env.request(ada, request(2));
    assert_eq!(last.len(), 1);
    env.expect_no_work_for(ada);
    env.report(ada, &last[0], "right");
    assert_eq!(env.request(ada, request(2)).len(), 1);
}

/// It claims more than any machine has: it still waits for its turn, and a job's owner never
/// depends on it alone.
#[test]
fn a_node_that_claims_a_million_cores_holds_no_more_than_others() {
    let max = Config::default().leases_per_node_max;
    let mut env = TestEnv::new();
    env.job("job", 1_000_000, |_| {});
    let eve = node("eve");
    let mut held = 0;
    while held <= max {
        let granted = env.request(eve, request(u32::MAX)).len();
        held += u32::try_from(granted).expect("few");
        if granted == 0 {
            break;
        }
    }
    assert_eq!(held, max);
    assert_eq!(env.request(node("ada"), request(1)).len(), 1);
}

#[test]
fn nodes_get_only_what_they_can_run() {
    let mut env = TestEnv::new();
    let image = env.job("image", 1, |spec| spec.program.module = None);
    let module = env.job("module", 1, |spec| spec.program.image = None);
    let mut jobs_for = |name: &str, executors: &[ExecutorKind]| -> Vec<_> {
        let request = WorkRequest { executors: executors.to_vec(), ..request(10) };
        env.request(node(name), request).into_iter().map(|lease| lease.job).collect()
    };
    assert_eq!(jobs_for("a", &[ExecutorKind::Docker]), [image]);
    assert_eq!(jobs_for("b", &[ExecutorKind::Wasm]), [module]);
    assert_eq!(jobs_for("c", &[]), []);
    assert_eq!(jobs_for("d", &[ExecutorKind::Docker, ExecutorKind::Wasm]), [image, module]);
}

#[test]
fn retries_come_first_then_begun_units_then_new_ones() {
    let mut env = TestEnv::new();
    let first = env.job("first", 2, |_| {});
    let second = env.job("second", 1, |_| {});
    let lost = env.request(node("a"), request(3));
    assert_eq!(lost.len(), 3);
    env.report_error(node("a"), &lost[2]);
    let third = env.job("third", 1, |_| {});

    let order: Vec<_> = env
        .request(node("b"), request(10))
        .into_iter()
        .map(|lease| (lease.job, lease.index))
        .collect();
    assert_eq!(order, [(second, 0), (first, 0), (first, 1), (third, 0)]);
}

#[test]
fn jobs_whose_data_is_there_come_first() {
    let mut env = TestEnv::new();
    let over = |name| Work::Files { dataset: cid(name), files: 1, files_per_unit: 1 };
    let far = env.job("far", 1, |spec| spec.work = over("far data"));
    let near = env.job("near", 1, |spec| spec.work = over("near data"));
    let request = WorkRequest { cached: vec![cid("near data")], ..request(10) };
    let order: Vec<_> =
        env.request(node("a"), request).into_iter().map(|lease| lease.job).collect();
    assert_eq!(order, [near, far]);
}

#[test]
fn a_job_of_ten_million_units_costs_what_is_in_flight() {
    let mut env = TestEnv::new();
    let job = env.job("job", 10_000_000, |_| {});
    assert_eq!(env.journal.len(), 1);
    let (ada, bob) = (node("ada"), node("bob"));
    for round in 0..20 {
        let [first, second] = [ada, bob].map(|node| env.request(node, request(5)));
        assert_eq!(first[0].index, round * 5);
        for (first, second) in first.iter().zip(&second) {
            env.report(ada, first, "right");
            env.report(bob, second, "right");
            env.expect_accepted(second, "right", &[ada, bob]);
            env.store(job, second.index);
        }
        let state = env.core.state();
        assert_eq!(
            (state.jobs.values().map(|job| job.units.len()).sum::<usize>(), state.replicas.len()),
            (0, 0)
        );
    }
    let view = env.core.job(job).expect("the job");
    assert_eq!((view.done, view.waiting), (100, 9_999_900));
}

/// What a node passed over once it need not look at again, so a lone fast node does not pay
/// for all that it has begun.
#[test]
fn a_lone_node_does_not_search_through_its_own_units() {
    let mut env = TestEnv::with(Config { leases_per_node_max: 100_000, ..Config::default() });
    env.job("job", 100_000, |_| {});
    let ada = node("ada");
    for round in 0..10 {
        let leases = env.request(ada, request(200));
        assert_eq!((leases.len(), leases[0].index), (200, round * 200));
    }
    // The cursor must not hide what others lost: their units come back under new tickets.
    let early = env.request(node("bob"), request(1));
    assert_eq!(early[0].index, 0);
    let other = env.request(node("eve"), request(1));
    assert_eq!(other[0].index, 1);
    env.report_error(node("eve"), &other[0]);
    assert_eq!(env.lease(node("bob")).index, 1);
}

#[test]
fn work_is_announced_once_to_idle_nodes() {
    let mut env = TestEnv::new();
    let add = |name: &str| Event::JobAdded {
        job: cid(name),
        spec: Box::new(spec()),
        units: 1,
        seed: SEED,
    };
    env.step(add("first"));
    env.expect(Action::AnnounceWork);
    // Nobody went away empty since.
    env.step(add("second"));
    env.expect_nothing_else();
    env.step(add("second"));
    env.expect_nothing_else();
    // Ada takes both and has room for more; new work is news again.
    assert_eq!(env.request(node("ada"), request(3)).len(), 2);
    env.step(add("third"));
    env.expect(Action::AnnounceWork);
    // Bob is full, not idle.
    let free = Capacity { cpu_millis: 1000, memory_bytes: 1 << 40, disk_bytes: 1 << 40 };
    assert_eq!(env.request(node("bob"), WorkRequest { free, ..request(9) }).len(), 1);
    env.step(add("fourth"));
    env.expect_nothing_else();
}
