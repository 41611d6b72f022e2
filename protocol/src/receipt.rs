//! Receipts: the proof, checkable offline, of why a result is canonical.
//!
//! A receipt carries everything it speaks of: the charter (the project's key names the
//! coordinator), the job (signed by the project), the work unit, and the signed result of
//! every replica that was compared. [`check`] trusts nothing but the arithmetic; the one
//! thing the reader must bring is the project's id.

use std::collections::{BTreeMap, BTreeSet};

use cid::Cid;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::codec::{self, DecodeError};
use crate::envelope::{self, OpenError, Statement};
use crate::ids::{NodeId, ProjectId};
use crate::job::{JobError, JobSpec};
use crate::limits::UNIT_REPLICAS_MAX;
use crate::statement::{Charter, CharterError, ResultError, ResultStatement};
use crate::time::Timestamp;
use crate::unit::{Plan, WorkUnit};

/// The coordinator's statement that an output is canonical.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Version of the format, 1.
    pub v: u8,
    /// The project's signed charter.
    #[serde(with = "serde_bytes")]
    pub charter: Vec<u8>,
    /// The owner's signed job.
    #[serde(with = "serde_bytes")]
    pub job: Vec<u8>,
    /// The work unit's description.
    #[serde(with = "serde_bytes")]
    pub unit: Vec<u8>,
    /// The signed result of every replica that ended with success.
    pub results: Vec<ByteBuf>,
    /// The output that the quorum agreed on.
    pub output: Cid,
    /// When the coordinator accepted it.
    pub accepted_at: Timestamp,
}

impl Statement for Receipt {
    const DOMAIN: &'static str = "dockercomp/receipt/1";
}

/// What a receipt proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The project, by its key.
    pub project: ProjectId,
    /// The coordinator that accepted the result.
    pub coordinator: NodeId,
    /// The job's id.
    pub job: Cid,
    /// The job's name.
    pub job_name: String,
    /// The work unit's id.
    pub unit: Cid,
    /// The work unit's number in the job.
    pub index: u64,
    /// The canonical output.
    pub output: Cid,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The results that agree with it.
    pub agreeing: Vec<ResultStatement>,
    /// The results that do not.
    pub dissenting: Vec<ResultStatement>,
}

/// Why a receipt proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The coordinator's signature is not right.
    #[error("the receipt cannot be opened")]
    Open(#[source] OpenError),
    /// A format that this version does not know.
    #[error("the receipt has version {found}, this program reads version 1")]
    Version {
        /// What it says.
        found: u8,
    },
    /// The signer is not the project's coordinator.
    #[error("the signer is not the project's coordinator")]
    Charter(#[from] CharterError),
    /// The charter's own envelope is not right.
    #[error("the charter in the receipt cannot be opened")]
    CharterEnvelope(#[source] OpenError),
    /// The receipt is of another project than the reader expects.
    #[error("the receipt is of project {found}, not {expected}")]
    Project {
        /// The reader's project.
        expected: ProjectId,
        /// The receipt's.
        found: ProjectId,
    },
    /// The job is not right, or not the project's.
    #[error("the job in the receipt is not right")]
    Job(#[source] JobError),
    /// The work unit cannot be read.
    #[error("the work unit in the receipt cannot be read")]
    Unit(#[source] DecodeError),
    /// The work unit does not follow from the job.
    #[error("the work unit in the receipt is not one of its job")]
    ForeignUnit,
    /// More results than a work unit can have.
    #[error("the receipt has {found} results, more than a work unit can have")]
    TooManyResults {
        /// How many it has.
        found: usize,
    },
    /// A result is not right.
    #[error("result {index} in the receipt is not right")]
    Result {
        /// Its place in the receipt, from 0.
        index: usize,
        /// What is wrong with it.
        source: ResultError,
    },
    /// A result is of another work unit, or did not succeed.
    #[error("result {index} in the receipt is not a success of its work unit")]
    ForeignResult {
        /// Its place in the receipt, from 0.
        index: usize,
    },
    /// One node or one replica is counted twice.
    #[error("node {node} is counted twice in the receipt")]
    Doubled {
        /// The node.
        node: NodeId,
    },
    /// The rule of the job is not met.
    #[error(
        "{agreeing} of {successes} results agree, but the job needs {needed} of at least {quorum}"
    )]
    NoQuorum {
        /// Results that agree with the output.
        agreeing: usize,
        /// Results in all.
        successes: usize,
        /// Results that must agree.
        needed: u32,
        /// Results that must be there.
        quorum: u32,
    },
}

/// Checks a sealed receipt, offline. `expected` is the project the reader trusts; without
/// it the proof holds for whichever project the receipt names.
///
/// # Errors
/// The first thing that is not right.
pub fn check(sealed: &[u8], expected: Option<ProjectId>) -> Result<Proof, ReceiptError> {
    let opened = envelope::open::<Receipt>(sealed).map_err(ReceiptError::Open)?;
    let (receipt, coordinator) = (opened.statement, opened.signer);
    if receipt.v != 1 {
        return Err(ReceiptError::Version { found: receipt.v });
    }
    let charter =
        envelope::open::<Charter>(&receipt.charter).map_err(ReceiptError::CharterEnvelope)?;
    let project = expected.unwrap_or(charter.signer);
    if charter.signer != project {
        return Err(ReceiptError::Project { expected: project, found: charter.signer });
    }
    Charter::open_for(&receipt.charter, project, coordinator)?;

    let (job_cid, job) = JobSpec::open_for(&receipt.job, project).map_err(ReceiptError::Job)?;
    let unit: WorkUnit = codec::decode(&receipt.unit).map_err(ReceiptError::Unit)?;
    if Plan::new(job_cid, &job).unit(unit.index).as_ref() != Some(&unit) {
        return Err(ReceiptError::ForeignUnit);
    }
    let unit_cid = crate::content::block_cid(&receipt.unit);
    let results = open_results(&receipt.results, job_cid, unit_cid)?;
    let successes = results.len();
    let (agreeing, dissenting): (Vec<_>, Vec<_>) =
        results.into_iter().partition(|result| result.output == Some(receipt.output));

    let (needed, quorum) = (job.validation.agreement(), job.validation.min_quorum);
    let rival = strongest(&dissenting);
    if agreeing.len() < needed as usize || successes < quorum as usize || rival >= agreeing.len() {
        return Err(ReceiptError::NoQuorum { agreeing: agreeing.len(), successes, needed, quorum });
    }
    Ok(Proof {
        project,
        coordinator,
        job: job_cid,
        job_name: job.name,
        unit: unit_cid,
        index: unit.index,
        output: receipt.output,
        accepted_at: receipt.accepted_at,
        agreeing,
        dissenting,
    })
}

/// How many of these results agree on one output, at most.
fn strongest(results: &[ResultStatement]) -> usize {
    let mut groups = BTreeMap::new();
    for result in results {
        *groups.entry(result.output).or_insert(0) += 1;
    }
    groups.into_values().max().unwrap_or(0)
}

/// Opens every result, and refuses a node or replica that appears twice.
fn open_results(
    sealed: &[ByteBuf],
    job: Cid,
    unit: Cid,
) -> Result<Vec<ResultStatement>, ReceiptError> {
    if sealed.len() > UNIT_REPLICAS_MAX as usize {
        return Err(ReceiptError::TooManyResults { found: sealed.len() });
    }
    let mut nodes = BTreeSet::new();
    let mut replicas = BTreeSet::new();
    let mut results = Vec::new();
    for (index, bytes) in sealed.iter().enumerate() {
        let result = ResultStatement::open(bytes)
            .map_err(|source| ReceiptError::Result { index, source })?;
        if result.job != job || result.unit != unit || !result.exit.is_success() {
            return Err(ReceiptError::ForeignResult { index });
        }
        if !nodes.insert(result.node) || !replicas.insert(result.replica) {
            return Err(ReceiptError::Doubled { node: result.node });
        }
        results.push(result);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;
    use crate::content::{block_cid, chunk_cid};
    use crate::execution::{ExecutorKind, Exit, Usage};
    use crate::ids::ReplicaId;
    use crate::job::{JobFile, Validation};

    struct World {
        owner: Keypair,
        coordinator: Keypair,
        receipt: Receipt,
    }

    fn key(seed: u8) -> Keypair {
        Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are an ed25519 seed")
    }

    /// A receipt at quorum 2 with these outputs, one by each of nodes 10, 11, ….
    fn world(outputs: &[&[u8]]) -> World {
        let (owner, coordinator) = (key(1), key(2));
        let project = owner.public().to_peer_id();
        let charter = Charter {
            v: 1,
            project,
            name: "p".into(),
            coordinator: coordinator.public().to_peer_id(),
        };
        let text = "version = 1\nname = \"j\"\n[program]\nmodule = \"file:m\"\n[sweep]\nx = [1]\n";
        let module = Some(chunk_cid(b"module"));
        let job = JobFile::parse(text)
            .expect("a job file")
            .resolve(project, Timestamp(5), None, module, None)
            .expect("a job");
        assert!(matches!(job.validation, Validation { min_quorum: 2, .. }));
        let (job_cid, _) = codec::block(&job);
        let unit = Plan::new(job_cid, &job).unit(0).expect("a unit");
        let (unit_cid, unit_bytes) = codec::block(&unit);
        let results = outputs.iter().enumerate().map(|(index, output)| {
            let node = key(10 + u8::try_from(index).expect("few"));
            let result = ResultStatement {
                v: 1,
                job: job_cid,
                unit: unit_cid,
                replica: ReplicaId(index as u64),
                node: node.public().to_peer_id(),
                executor: ExecutorKind::Wasm,
                exit: Exit::Code { code: 0 },
                output: Some(block_cid(output)),
                usage: Usage::default(),
            };
            ByteBuf::from(envelope::seal(&node, &result))
        });
        let receipt = Receipt {
            v: 1,
            charter: envelope::seal(&owner, &charter),
            job: envelope::seal(&owner, &job),
            unit: unit_bytes,
            results: results.collect(),
            output: block_cid(outputs[0]),
            accepted_at: Timestamp(9),
        };
        World { owner, coordinator, receipt }
    }

    #[test]
    fn receipt_is_golden() {
        let world = world(&[b"right", b"right"]);
        let sealed = envelope::seal(&world.coordinator, &world.receipt);
        insta::assert_snapshot!(block_cid(&sealed), @"bafyr4iasfzelxdy75hkyrbu3phkbuwcuxwwboqxdfkp3lj6qbljzamg2fa");
    }

    #[test]
    fn a_quorum_is_proven_and_a_dissenter_named() {
        let world = world(&[b"right", b"wrong", b"right"]);
        let sealed = envelope::seal(&world.coordinator, &world.receipt);
        let proof = check(&sealed, Some(world.owner.public().to_peer_id())).expect("a proof");
        assert_eq!(proof.agreeing.len(), 2);
        assert_eq!(proof.dissenting[0].node, key(11).public().to_peer_id());
    }

    #[test]
    fn disagreement_is_no_quorum() {
        let world = world(&[b"right", b"wrong"]);
        let sealed = envelope::seal(&world.coordinator, &world.receipt);
        assert!(matches!(check(&sealed, None), Err(ReceiptError::NoQuorum { .. })));
    }

    #[test]
    fn a_tie_is_no_quorum() {
        let world = world(&[b"right", b"right", b"wrong", b"wrong"]);
        let sealed = envelope::seal(&world.coordinator, &world.receipt);
        assert!(matches!(check(&sealed, None), Err(ReceiptError::NoQuorum { .. })));
    }

    #[test]
    fn a_work_unit_must_follow_from_the_job() {
        let mut world = world(&[b"right", b"right"]);
        let mut unit: WorkUnit = codec::decode(&world.receipt.unit).expect("a unit");
        unit.args.push("--and-more".into());
        world.receipt.unit = codec::encode(&unit);
        let sealed = envelope::seal(&world.coordinator, &world.receipt);
        assert!(matches!(check(&sealed, None), Err(ReceiptError::ForeignUnit)));
    }

    #[test]
    fn a_node_counts_once() {
        let mut world = world(&[b"right", b"right"]);
        world.receipt.results[1] = world.receipt.results[0].clone();
        let sealed = envelope::seal(&world.coordinator, &world.receipt);
        assert!(matches!(check(&sealed, None), Err(ReceiptError::Doubled { .. })));
    }

    #[test]
    fn a_stranger_cannot_issue_receipts() {
        let world = world(&[b"right", b"right"]);
        let sealed = envelope::seal(&key(99), &world.receipt);
        assert!(matches!(check(&sealed, None), Err(ReceiptError::Charter(_))));
        let sealed = envelope::seal(&world.coordinator, &world.receipt);
        let other = key(50).public().to_peer_id();
        assert!(matches!(check(&sealed, Some(other)), Err(ReceiptError::Project { .. })));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let world = world(&[b"right", b"right"]);
        let sealed = envelope::seal(&world.coordinator, &world.receipt);
        let project = Some(world.owner.public().to_peer_id());
        assert!(check(&sealed, project).is_ok());
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(check(&changed, project).is_err(), "byte {position} may change");
        }
    }
}
