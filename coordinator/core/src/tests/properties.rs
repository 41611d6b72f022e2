//! Random events: whatever comes in any order, the rules hold.
//!
//! The core checks its own invariants after every event; [`World`] watches what leaves it with
//! books of its own. Replay, or a snapshot from any moment with the records after it, ends in
//! the same state. Afterwards honest nodes must be able to bring every job to its end.
//!
//! That these tests can fail is tested as well: `make mutants` plants bugs.

use std::ops::Range;

use dockercomp_protocol::receipt::Basis;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::world::{DISCORD, JOBS, NODES, OUTPUTS, Op, POLICIES, SHAPES, World};
use crate::{JobState, Record, Silence, UnitError};

fn add_job() -> impl Strategy<Value = Op> {
    let (policy, compares) = (0..POLICIES.len() as u8, prop::bool::weighted(0.3));
    (0..JOBS, 0u64..9, 1u32..5, 0u32..3, 0..SHAPES.len(), policy, compares).prop_map(
        |(job, units, quorum, slack, shape, policy, compares)| Op::AddJob {
            job,
            units,
            quorum,
            slack,
            shape,
            policy,
            compares,
        },
    )
}

/// Reports leave one of the `outputs`.
fn op(outputs: Range<usize>) -> impl Strategy<Value = Op> {
    let (job, node, lease) = (0..JOBS, 0..NODES, 0usize..24);
    prop_oneof![
        2 => add_job(),
        4 => (node.clone(), prop::option::of(0u8..2))
            .prop_map(|(node, operator)| Op::Register { node, operator }),
        4 => lease.clone().prop_map(|lease| Op::Lose { lease }),
        10 => (node.clone(), 1u32..5).prop_map(|(node, leases)| Op::Request { node, leases }),
        10 => (node.clone(), 1u32..5).prop_map(|(node, leases)| Op::Work { node, leases }),
        14 => (lease.clone(), prop::option::weighted(0.1, node.clone()), outputs)
            .prop_map(|(lease, thief, output)| Op::Report { lease, thief, output }),
        5 => lease.clone().prop_map(|lease| Op::Fail { lease }),
        6 => (node.clone(), 0usize..8, 0usize..6)
            .prop_map(|(node, of, saved)| Op::Heartbeat { node, of, saved }),
        4 => (0usize..4).prop_map(|question| Op::Compare { question }),
        4 => lease.clone().prop_map(|lease| Op::Store { lease }),
        2 => (1u64..50).prop_map(|minutes| Op::Wait { minutes }),
        1 => lease.prop_map(|lease| Op::Undelivered { lease }),
        1 => node.prop_map(|node| Op::Detach { node }),
        1 => job.prop_map(|job| Op::Cancel { job }),
        2 => Just(Op::Restart),
        2 => Just(Op::Snapshot),
    ]
}

/// Nothing happens before there is a job. Nodes agree mostly, or hardly at all.
fn sequence() -> impl Strategy<Value = Vec<Op>> {
    let jobs = prop::collection::vec(add_job(), 1..4);
    let others = prop_oneof![
        prop::collection::vec(op(0..OUTPUTS.len()), 10..160),
        prop::collection::vec(op(DISCORD), 10..160),
    ];
    (jobs, others).prop_map(|(mut ops, others)| {
        ops.extend(others);
        ops
    })
}

type IsIt<T> = fn(&T) -> bool;

/// What sequences must come to now and then, or the rules for it are not tested.
const REACHED: [(&str, IsIt<Record>); 18] = [
    ("a spot-check", |record| matches!(record, Record::SpotCheck { .. })),
    ("a trusted node", |record| matches!(record, Record::Leased { trusted: Some(_), .. })),
    ("a comparison", |record| matches!(record, Record::Compared { .. })),
    (
        "an unreadable output",
        |record| matches!(record, Record::Compared { unreadable, .. } if !unreadable.is_empty()),
    ),
    ("a disagreement", |record| matches!(record, Record::Inconclusive { .. })),
    ("an audit", |record| matches!(record, Record::Sampled { .. })),
    ("a closed lot", |record| matches!(record, Record::LotClosed { .. })),
    ("a lost output", |record| matches!(record, Record::OutputLost { .. })),
    (
        "an output that is lost for good",
        |record| matches!(record, Record::Failed { errors, .. } if *errors == [UnitError::OutputLost]),
    ),
    ("an extension", |record| matches!(record, Record::Extended { .. })),
    ("an absence", |record| matches!(record, Record::Away { .. })),
    ("an identity", |record| matches!(record, Record::NodeKnown { .. })),
    ("a cancelled job", |record| matches!(record, Record::JobCancelled { .. })),
    ("a failed unit", |record| matches!(record, Record::Failed { .. })),
    ("a missed deadline", |record| ended(record, Silence::NoReply)),
    ("a node that left", |record| ended(record, Silence::ClientDetached)),
    ("a lease in vain", |record| ended(record, Silence::DidntNeed)),
    ("an undelivered lease", |record| ended(record, Silence::CouldntSend)),
];

fn ended(record: &Record, why: Silence) -> bool {
    matches!(record, Record::Ended { silence, .. } if *silence == why)
}

#[test]
fn the_sequences_come_everywhere() {
    let mut runner = TestRunner::deterministic();
    let sequence = sequence();
    let (mut records, mut bases) = (Vec::new(), Vec::new());
    for _ in 0..256 {
        let mut world = World::new();
        for op in sequence.new_tree(&mut runner).expect("any sequence will do").current() {
            world.run(op);
        }
        world.finish();
        records.extend_from_slice(&world.env.journal);
        bases.extend(world.bases());
    }
    for (what, is_it) in REACHED {
        assert!(records.iter().any(is_it), "no sequence came to {what}");
    }
    let is_policy: [IsIt<Basis>; 5] = [
        |basis| matches!(basis, Basis::Quorum),
        |basis| matches!(basis, Basis::Trusted { .. }),
        |basis| matches!(basis, Basis::Credible { .. }),
        |basis| matches!(basis, Basis::Lot { .. }),
        |basis| matches!(basis, Basis::Majority { .. }),
    ];
    for (place, is_it) in is_policy.into_iter().enumerate() {
        assert!(bases.iter().any(is_it), "nothing was accepted by rule {place}");
    }
}

proptest! {
    // 256 sequences, or as many as PROPTEST_CASES says.
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn the_rules_hold_whatever_happens(ops in sequence()) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
        }
        world.finish();
        // Nothing of an ended job stays in memory.
        let state = world.env.core.state();
        prop_assert!(state.replicas.is_empty() && state.with_work.is_empty());
        prop_assert!(state.jobs.values().all(|job| job.units.is_empty()));
        for view in world.env.core.jobs() {
            if matches!(view.state, JobState::Completed { .. }) {
                prop_assert_eq!((view.done, view.done + view.failed), (view.stored, view.units));
            }
        }
    }
}
