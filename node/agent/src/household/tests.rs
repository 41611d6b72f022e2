//! Stories about one node and several projects, and days at random.

use std::ops::Range;
use std::time::Duration;

use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::wire::work::Capacity;
use dockercomp_protocol::{ReplicaId, Timestamp};
use proptest::prelude::*;

use super::world::{Books, Project, World, id};
use super::{Connection, Household, Member};
use crate::usage::{CATCH_UP_MAX, Share};
use crate::{Action, Config, Event, Lease, Restored};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);
/// Longer than any test.
const EVER: Duration = Duration::from_secs(365 * 86_400);
const NEVER: Range<Duration> = EVER..EVER;

const fn cores(n: u32) -> Capacity {
    Capacity { cpu_millis: 1000 * n, memory_bytes: 100 * n as u64, disk_bytes: 0 }
}

/// A project that always has work: replicas of one core that run for so many seconds.
fn project(share: u32, seconds: u64) -> Project {
    Project {
        share,
        need: cores(1),
        run: Duration::from_secs(seconds),
        works: Duration::ZERO..EVER,
        silent: NEVER,
    }
}

fn day(offer: Capacity, projects: &[Project]) -> World {
    let mut world = World::new(offer, projects.to_vec(), 7);
    world.run_until(DAY);
    world
}

fn assert_near(part: f64, expected: f64, tolerance: f64) {
    assert!((part - expected).abs() < tolerance, "{part:.4} instead of {expected:.4}");
}

#[test]
fn shares_hold_over_a_day_however_long_replicas_run() {
    for (one, other) in [(60, 60), (20, 400), (400, 20)] {
        let world = day(cores(1), &[project(300, one), project(100, other)]);
        assert_near(world.part_used(&id(0)), 0.75, 0.02);
        assert_near(world.household.standings().next().expect("one").1.part_used, 0.75, 0.03);
        assert!(world.idle < 10.0, "idle for {:.0} s", world.idle);
    }
}

#[test]
fn many_projects_on_one_core_all_have_their_turn() {
    let shares = [10, 1, 1, 1, 1];
    let world = day(cores(1), &shares.map(|share| project(share, 300)));
    for (number, share) in shares.into_iter().enumerate() {
        assert_near(world.part_used(&id(number)), f64::from(share) / 14.0, 0.02);
    }
}

/// One that is without work, or cannot be reached, leaves its part to the others at once, and
/// gets no more than an hour for it when it comes back.
#[test]
fn who_had_no_work_does_not_starve_the_others_later() {
    let late = Project { works: 12 * HOUR..EVER, ..project(900, 300) };
    let lost = Project { silent: HOUR..12 * HOUR, ..project(900, 300) };
    for absent in [late, lost] {
        let mut world = World::new(cores(2), vec![absent, project(100, 300)], 7);
        world.run_until(2 * HOUR);
        let before = world.books[&id(1)].used;
        world.run_until(12 * HOUR);
        let alone = (world.books[&id(1)].used - before) / (10.0 * 3600.0);
        assert!(alone > 0.99, "the other had {alone:.3} of the machine");
        world.run_until(24 * HOUR);
        let starved = world.books[&id(1)].starved;
        assert!(starved < CATCH_UP_MAX + HOUR / 2, "starved for {starved:?}");
        assert_near(world.part_used(&id(0)), 0.45, 0.05);
    }
}

/// However many come at one time, each has an hour at most before those who were there.
#[test]
fn two_that_come_at_once_do_not_starve_the_third_together() {
    let late = |share| Project { works: 3 * HOUR..EVER, ..project(share, 120) };
    let mut world = World::new(cores(8), vec![late(100), late(700), project(500, 120)], 7);
    world.run_until(8 * HOUR);
    let starved = world.books[&id(2)].starved;
    assert!(starved < 2 * CATCH_UP_MAX, "starved for {starved:?}");
}

/// It was alone for long, and the other was alone when it came.
#[test]
fn who_had_more_than_its_share_does_not_wait_for_long_either() {
    let small = Project { silent: 12 * HOUR..14 * HOUR, ..project(100, 120) };
    let large = Project { works: 13 * HOUR..EVER, ..project(700, 120) };
    let mut world = World::new(cores(8), vec![small, large], 7);
    world.run_until(DAY);
    let starved = world.books[&id(0)].starved;
    assert!(starved < CATCH_UP_MAX + HOUR / 2, "starved for {starved:?}");
}

/// Replicas that take the whole machine are not kept out by small ones.
#[test]
fn large_replicas_have_their_turn() {
    let large = Project { need: cores(8), ..project(100, 300) };
    let small = project(100, 200);
    let world = day(cores(8), &[small, large]);
    assert_near(world.part_used(&id(0)), 0.5, 0.02);
    let starved = world.books[&id(1)].starved;
    assert!(starved < HOUR, "the large one starved for {starved:?}");
}

/// What a replica leaves free of which only one fits is others', whatever their shares.
#[test]
fn what_is_free_beside_a_large_replica_is_used() {
    let large = Project { need: cores(5), ..project(900, 300) };
    let world = day(cores(8), &[project(100, 200), large]);
    assert_near(world.books[&id(1)].used / DAY.as_secs_f64(), 5.0 / 8.0, 0.01);
    assert!(world.idle < 600.0, "idle for {:.0} s", world.idle);
}

/// The first two take turns. What the others got beside them must not cost them their own.
#[test]
fn who_fitted_beside_others_does_not_starve_later() {
    let sized = |share, eighths: u32, percent: u64, seconds| {
        let need =
            Capacity { cpu_millis: 1000 * eighths, memory_bytes: 8 * percent, disk_bytes: 0 };
        Project { need, ..project(share, seconds) }
    };
    let world = day(
        cores(8),
        &[sized(2, 1, 51, 132), sized(7, 1, 51, 104), sized(1, 3, 28, 60), sized(1, 2, 11, 66)],
    );
    for (project, books) in &world.books {
        let others = books.passed_over;
        assert!(others < 4.0 * HOUR.as_secs_f64(), "{project}: others used {others} s meanwhile");
    }
}

/// A share that is changed holds from then on, and the past is not made good for days.
#[test]
fn another_share_holds_from_then_on() {
    let mut world = World::new(cores(1), vec![project(100, 60), project(100, 60)], 7);
    world.run_until(DAY);
    let before: Vec<f64> = [0, 1].map(|n| world.books[&id(n)].used).to_vec();
    world.household.set_share(Timestamp(0) + DAY, &id(0), Share::new(900).expect("a share"));
    world.run_until(2 * DAY);
    let since = |n: usize| world.books[&id(n)].used - before[n];
    assert_near(since(0) / (since(0) + since(1)), 0.9, 0.06);
}

/// What a household wants, for one project.
fn actions(household: &mut Household) -> Vec<(ProjectId, Action)> {
    std::iter::from_fn(|| household.poll_action()).collect()
}

#[test]
fn a_project_asks_for_its_portion_and_for_all_when_it_is_alone() {
    let now = Timestamp(1);
    let mut household = Household::new(Config::new(cores(4), 7));
    let share = |share| Share::new(share).expect("a share");
    for (number, part) in [(0, 300), (1, 100)] {
        household.attach(now, id(number), Member { share: share(part), ..Member::default() });
    }
    assert_eq!(actions(&mut household), []);
    let heartbeat = Duration::from_secs(10);
    let hello = Action::Heartbeat { running: vec![], kept: vec![] };
    let ask = |free, leases_max| Action::AskForWork { free, leases_max };

    // Nobody else is there yet.
    household.handle(now, &id(0), Event::Welcomed { heartbeat });
    let expected = [(id(0), hello.clone()), (id(0), ask(cores(8), 64))];
    assert_eq!(actions(&mut household), expected);
    // A quarter of the reservoir is less than the machine, so it may ask for one of any size.
    household.handle(now, &id(1), Event::Welcomed { heartbeat });
    assert_eq!(actions(&mut household), [(id(1), hello), (id(1), ask(cores(4), 1))]);

    let lease = |replica| Lease {
        replica: ReplicaId(replica),
        need: cores(1),
        expires_at: now + Duration::from_secs(1000),
        begun: false,
    };
    let retry = Duration::from_secs(60);
    // Replica numbers are each coordinator's own.
    household.handle(now, &id(1), Event::Assigned { leases: vec![lease(1)], retry });
    let fetch = Action::FetchInputs { replica: ReplicaId(1) };
    assert_eq!(actions(&mut household), [(id(1), fetch.clone()), (id(1), ask(cores(1), 63))]);
    household.handle(now, &id(0), Event::Assigned { leases: vec![], retry });
    household.handle(now, &id(1), Event::Assigned { leases: vec![lease(2)], retry });
    // The first has nothing: all of the reservoir is the second's.
    let fetch = Action::FetchInputs { replica: ReplicaId(2) };
    assert_eq!(actions(&mut household), [(id(1), fetch), (id(1), ask(cores(6), 62))]);
    let connections: Vec<Connection> =
        household.standings().map(|(_, standing)| standing.connection).collect();
    assert_eq!(connections, [Connection::WithoutWork, Connection::Gives]);
}

/// When a large replica ends, those that start in its place are divided by shares at once.
#[test]
fn what_starts_at_one_moment_is_divided_as_well() {
    let now = Timestamp(1);
    let mut household = Household::new(Config::new(cores(4), 7));
    let expires_at = now + HOUR;
    let lease = |number, need| Lease { replica: ReplicaId(number), need, expires_at, begun: false };
    for (number, share) in [(0, 100), (1, 300), (2, 100)] {
        let share = Share::new(share).expect("a share");
        let leases = match number {
            0 => vec![lease(1, cores(4))],
            _ => (1..=4).map(|number| lease(number, cores(1))).collect(),
        };
        let restored = Restored { leases, ..Restored::default() };
        household.attach(now, id(number), Member { share, restored, ..Member::default() });
        for replica in (1..=4).map(ReplicaId) {
            household.handle(now, &id(number), Event::InputsReady { replica });
        }
    }
    let started = |household: &mut Household| -> Vec<ProjectId> {
        let all = actions(household).into_iter();
        all.filter(|(_, action)| matches!(action, Action::Start { .. })).map(|(id, _)| id).collect()
    };
    assert_eq!(started(&mut household), [id(0)]);
    let then = now + Duration::from_secs(60);
    household.handle(then, &id(0), Event::Finished { replica: ReplicaId(1) });
    assert_eq!(started(&mut household), [id(1), id(1), id(1), id(2)]);
}

#[test]
fn events_of_a_project_that_has_gone_change_nothing() {
    let now = Timestamp(1);
    let mut household = Household::new(Config::new(cores(1), 7));
    household.attach(now, id(0), Member::default());
    household.handle(now, &id(0), Event::Leave { now: true });
    assert_eq!(actions(&mut household), [(id(0), Action::TakeLeave)]);
    household.remove(now, &id(0));
    household.handle(now, &id(0), Event::Welcomed { heartbeat: HOUR });
    assert_eq!(actions(&mut household), []);
    assert_eq!((household.standings().count(), household.next_wake()), (0, None));
}

prop_compose! {
    fn any_project()(
        share in 1..10u32,
        eighths in 1..=8u32,
        memory_percent in 1..=100u64,
        seconds in 60..300u64,
    ) -> Project {
        let need = Capacity {
            cpu_millis: 1000 * eighths,
            memory_bytes: 8 * memory_percent,
            disk_bytes: 0,
        };
        Project { need, ..project(share, seconds) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Over a day, whatever the projects' replicas take, each that could have used more has its
    /// share of what was divided, which is all but what was left when those whose turn it was
    /// could start nothing. And others never use more than four hours of the whole machine while
    /// one waits. (How long that is depends on how well their replicas fit beside each other.)
    /// That never more runs than is offered, the world checks.
    #[test]
    fn shares_hold_over_any_day(
        projects in prop::collection::vec(any_project(), 1..5),
        seed in 1..u64::MAX,
    ) {
        let mut world = World::new(cores(8), projects.clone(), seed);
        world.run_until(DAY);
        let is_full = |number: &usize| world.books[&id(*number)].full > 0.97 * DAY.as_secs_f64();
        let sum = |of: fn(&Books) -> f64| -> f64 { world.books.values().map(of).sum() };
        let divided = 1.0 - sum(|books| books.used_out_of_turn) / sum(|books| books.used);
        let shares: u32 = projects.iter().map(|project| project.share).sum();
        for number in (0..projects.len()).filter(|number| !is_full(number)) {
            let part = world.part_used(&id(number));
            let due = divided * f64::from(projects[number].share) / f64::from(shares);
            prop_assert!(part > due - 0.04, "{part:.3} instead of {due:.3}");
        }
        for number in 0..projects.len() {
            let others = world.books[&id(number)].passed_over;
            prop_assert!(others < 4.0 * HOUR.as_secs_f64(), "others used {others} s meanwhile");
        }
    }

    /// Work and coordinators come and go: whoever is there has the machine, and nobody who has
    /// work waits for long.
    #[test]
    fn nobody_idles_or_starves_while_projects_come_and_go(
        projects in prop::collection::vec(any_project(), 2..5),
        hours in prop::collection::vec((0..12u32, 1..12u32, 0..24u32, 1..6u32), 5),
        seed in 1..u64::MAX,
    ) {
        let mut projects = projects;
        for (project, (from, works, at, silent)) in projects.iter_mut().zip(hours) {
            project.works = HOUR * from..HOUR * (from + works);
            project.silent = HOUR * at..HOUR * (at + silent);
            // Of one size, so that whatever is free could be used.
            project.need = cores(1);
        }
        let mut world = World::new(cores(8), projects.clone(), seed);
        world.run_until(DAY);
        for number in 0..projects.len() {
            let starved = world.books[&id(number)].starved;
            prop_assert!(starved < 4 * HOUR, "starved for {starved:?}");
        }
        // Noticing takes a while: a heartbeat, an announcement, a pause.
        prop_assert!(world.idle < 600.0, "idle for {:.0} s", world.idle);
    }
}
