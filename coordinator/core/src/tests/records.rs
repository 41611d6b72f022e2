//! The bytes of the journal: a change here is a change of format.

use dockercomp_protocol::execution::{ExecutorKind, Exit};
use dockercomp_protocol::wire::work::Platform;
use dockercomp_protocol::{ReplicaId, Timestamp, codec};

use super::env::{cid, node, spec};
use crate::{AddressRange, Finding, Identity, Record, Seed, Silence, Terms, UnitError};

#[test]
fn records_are_golden() {
    let (at, job, index, replica) = (Timestamp(7), cid("job"), 3, ReplicaId(9));
    let finding = Finding::Success { output: cid("output"), claim: 5, sealed: vec![1, 2, 3] };
    let failed = Finding::ClientError { exit: Exit::Code { code: 3 } };
    let errors = vec![UnitError::TooManyErrorResults, UnitError::TooManyTotalResults];
    let records = [
        Record::JobAdded { at, job, terms: Terms::of(&spec()), units: 5, seed: Seed([7; 32]) },
        Record::JobCancelled { at, job },
        Record::Leased {
            at,
            replica,
            job,
            index,
            node: node("ada"),
            executor: ExecutorKind::Docker,
            trusted: Some(12),
            deadline: Timestamp(8),
        },
        Record::SpotCheck {
            at,
            replica,
            job,
            index,
            node: node("ada"),
            executor: ExecutorKind::Wasm,
            deadline: Timestamp(8),
        },
        Record::NodeKnown {
            at,
            node: node("ada"),
            identity: Identity {
                operator: Some("ada & co".into()),
                range: Some(AddressRange::V4([203, 0, 113])),
                platform: Platform { os: "linux".into(), cpu: "GenuineIntel".into() },
            },
        },
        Record::Extended { at, replica, deadline: Timestamp(9) },
        Record::OutputLost { at, job, index },
        Record::Compared {
            at,
            job,
            index,
            classes: vec![vec![replica]],
            unreadable: vec![ReplicaId(10)],
        },
        Record::Sampled { at, job, index, target: 2 },
        Record::LotClosed { at, job, node: node("ada"), number: 1, audits: 4, agreeing: 2 },
        Record::Reported { at, replica, finding },
        Record::Reported { at, replica, finding: failed },
        Record::Reported { at, replica, finding: Finding::ValidateError },
        Record::Ended { at, replica, silence: Silence::NoReply },
        Record::Inconclusive { at, job, index, target: 3 },
        Record::Accepted { at, job, index, output: cid("output") },
        Record::Failed { at, job, index, errors },
        Record::OutputStored { at, job, index },
        Record::Away { at, ms: 5 },
    ];
    let bytes: Vec<String> =
        records.iter().map(|record| hex::encode(codec::encode(record))).collect();
    assert_eq!(bytes.join("\n"), include_str!("records.golden").trim_end());
}
