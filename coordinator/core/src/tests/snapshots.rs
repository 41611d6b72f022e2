//! Snapshots: what they hold, what they refuse, and that they do not grow with history.

use dockercomp_protocol::execution::Exit;

use super::env::{TestEnv, node, request, result};
use crate::{Config, Core, SNAPSHOT_VERSION, SnapshotError};

/// A state with something in each of its fields.
fn eventful() -> TestEnv {
    let mut env = TestEnv::new();
    let job = env.job("job", 4, |spec| spec.validation.target_nresults = 3);
    let cancelled = env.job("cancelled", 2, |_| {});
    let [ada, bob, eve] = ["ada", "bob", "eve"].map(node);
    let leases = [ada, bob, eve].map(|node| env.request(node, request(3)));
    env.report(ada, &leases[0][0], "right");
    env.report(bob, &leases[1][0], "right");
    env.expect_accepted(&leases[1][0], "right", &[ada, bob]);
    env.report(eve, &leases[2][0], "wrong");
    env.send(result(ada, &leases[0][1], Err(Exit::Code { code: 3 })));
    env.report(bob, &leases[1][1], "right");
    env.store(job, 0);
    env.step(crate::Event::JobCancelled { job: cancelled });
    while env.take().is_some() {}
    env
}

#[test]
fn a_restart_from_a_snapshot_changes_nothing() {
    let mut env = eventful();
    env.snapshot();
    env.restart();
    while env.take().is_some() {}
    env.lease(node("dan"));
    env.restart();
    while env.take().is_some() {}
}

#[test]
fn snapshots_of_other_versions_and_damaged_ones_are_refused() {
    let env = eventful();
    let bytes = env.core.state().encode();
    let restore = |bytes: &[u8]| Core::restore(Config::default(), bytes);
    assert!(restore(&bytes).is_ok());
    assert!(matches!(restore(&[]), Err(SnapshotError::Empty)));
    let mut newer = bytes.clone();
    newer[0] = SNAPSHOT_VERSION + 1;
    let found = SNAPSHOT_VERSION + 1;
    assert!(matches!(restore(&newer), Err(SnapshotError::Version { found: f }) if f == found));
    for cut in [1, bytes.len() / 2, bytes.len() - 1] {
        assert!(matches!(restore(&bytes[..cut]), Err(SnapshotError::Decode(_))), "cut at {cut}");
    }
    // Whatever bit flips, nothing panics.
    for place in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1 << (place % 8);
        drop(restore(&flipped));
    }
}

/// A thousand work units that are over leave what ten leave.
#[test]
fn a_snapshot_does_not_grow_with_what_is_over() {
    let size_after = |units: u64| {
        let mut env = TestEnv::new();
        let job = env.job("job", units + 1, |_| {});
        let (ada, bob) = (node("ada"), node("bob"));
        for index in 0..units {
            let (first, second) = (env.lease(ada), env.lease(bob));
            env.report(ada, &first, "right");
            env.report(bob, &second, "right");
            env.expect_accepted(&second, "right", &[ada, bob]);
            env.store(job, index);
        }
        env.core.state().encode().len()
    };
    let (few, many) = (size_after(10), size_after(1000));
    // Counters take more digits, nothing else does.
    assert!(many < few + 64, "{few} bytes after 10 work units, {many} after 1000");
}
