//! The bytes of the journal: a change here is a change of format.

use dockercomp_protocol::execution::Exit;
use dockercomp_protocol::{ReplicaId, Timestamp, codec};

use super::env::{cid, node, spec};
use crate::{Finding, Record, Silence, Terms, UnitError};

#[test]
fn records_are_golden() {
    let (at, job, index, replica) = (Timestamp(7), cid("job"), 3, ReplicaId(9));
    let finding = Finding::Success { output: cid("output"), sealed: vec![1, 2, 3] };
    let failed = Finding::ClientError { exit: Exit::Code { code: 3 } };
    let errors = vec![UnitError::TooManyErrorResults, UnitError::TooManyTotalResults];
    let records = [
        Record::JobAdded { at, job, terms: Terms::of(&spec()), units: 5 },
        Record::JobCancelled { at, job },
        Record::Leased { at, replica, job, index, node: node("ada"), deadline: Timestamp(8) },
        Record::Reported { at, replica, finding },
        Record::Reported { at, replica, finding: failed },
        Record::Reported { at, replica, finding: Finding::ValidateError },
        Record::Ended { at, replica, silence: Silence::NoReply },
        Record::Inconclusive { at, job, index, target: 3 },
        Record::Accepted { at, job, index, output: cid("output") },
        Record::Failed { at, job, index, errors },
        Record::OutputStored { at, job, index },
    ];
    let bytes: Vec<String> =
        records.iter().map(|record| hex::encode(codec::encode(record))).collect();
    assert_eq!(bytes.join("\n"), include_str!("records.golden").trim_end());
}
