//! Opening a report: one signature, many results, and the small outputs among them.
//!
//! Everything is checked here, off the threads that answer nodes; what leaves is right, signed
//! by the node that sent it, and in the form in which it is kept.

use dockercomp_peer::reply::chain;
use dockercomp_protocol::batch::{Batch, BatchError};
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::Report;
use dockercomp_protocol::{NodeId, inline};
use serde_bytes::ByteBuf;

/// A result of a report that is rightly signed.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Its place in the report, from 0.
    pub(crate) place: usize,
    /// What it says.
    pub(crate) result: ResultStatement,
    /// The same as it is kept.
    pub(crate) sealed: Vec<u8>,
    /// What its program printed last.
    pub(crate) log_tail: String,
    /// The blocks of its output, if they came with it.
    pub(crate) output: Vec<ByteBuf>,
}

/// Why a whole report is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// Its signature is not right.
    #[error("the report is not signed")]
    Batch(#[from] BatchError),
    /// Somebody else's report is passed on.
    #[error("the report is signed by {signer}, who did not send it")]
    Foreign {
        /// Who signed it.
        signer: NodeId,
    },
}

/// Checks the one signature of a report and reads its results; those that are not right are
/// left out. Takes a while: off the async threads.
pub(crate) fn open(
    node: NodeId,
    root: Vec<u8>,
    reports: Vec<Report>,
) -> Result<Vec<Opened>, ReportError> {
    let mut statements = Vec::with_capacity(reports.len());
    let mut rest = Vec::with_capacity(reports.len());
    for Report { statement, log_tail, output } in reports {
        statements.push(statement);
        rest.push((log_tail, output));
    }
    let batch = Batch::open(root, statements)?;
    if batch.signer() != node {
        return Err(ReportError::Foreign { signer: batch.signer() });
    }
    let mut opened = Vec::with_capacity(rest.len());
    for ((place, result), (log_tail, output)) in batch.results().enumerate().zip(rest) {
        match result {
            Ok((result, sealed)) => {
                let output = right_output(node, &result, output);
                opened.push(Opened { place, result, sealed, log_tail, output });
            }
            Err(error) => tracing::warn!(%node, error = chain(&error), "result refused"),
        }
    }
    Ok(opened)
}

/// The blocks that came with a result, if they are its output. The result is signed and counts
/// either way; an output that did not come with it is asked for.
fn right_output(node: NodeId, result: &ResultStatement, blocks: Vec<ByteBuf>) -> Vec<ByteBuf> {
    let Some(root) = &result.output else { return Vec::new() };
    if blocks.is_empty() {
        return blocks;
    }
    match inline::check(root, &blocks) {
        Ok(()) => blocks,
        Err(error) => {
            tracing::warn!(%node, error = chain(&error), "output in a report refused");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use dockercomp_protocol::content::{self, block_cid, chunk_cid};
    use dockercomp_protocol::execution::{ExecutorKind, Exit, Usage};
    use dockercomp_protocol::manifest::{self, Chunk, ChunkedFile, Chunker};
    use dockercomp_protocol::{Cid, ReplicaId, batch, codec};
    use libp2p_identity::Keypair;

    use super::*;

    fn key(seed: u8) -> Keypair {
        Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are an ed25519 seed")
    }

    /// The root and the blocks of a folder with one small file.
    fn output(bytes: &[u8]) -> (Cid, Vec<ByteBuf>) {
        let cid = chunk_cid(bytes);
        let b3 = content::digest(&cid).expect("ours");
        let len = u32::try_from(bytes.len()).expect("a small file");
        let chunks = vec![Chunk(cid, len)];
        let file = ChunkedFile { path: "out".into(), size: len.into(), exec: false, b3, chunks };
        let built = manifest::build(Chunker::default(), vec![file]).expect("a folder");
        let manifest = built.blocks.iter().rev().map(|(_, block)| block.clone());
        let blocks = manifest.chain([bytes.to_vec()]).map(ByteBuf::from);
        (built.cid, blocks.collect())
    }

    fn report(node: &Keypair, replica: u64, root: Cid, output: Vec<ByteBuf>) -> Report {
        let result = ResultStatement {
            v: 1,
            job: block_cid(b"job"),
            unit: block_cid(b"unit"),
            replica: ReplicaId(replica),
            node: node.public().to_peer_id(),
            executor: ExecutorKind::Wasm,
            exit: Exit::Code { code: 0 },
            output: Some(root),
            usage: Usage::default(),
        };
        Report { statement: codec::encode(&result), log_tail: String::new(), output }
    }

    fn sign(key: &Keypair, reports: &[Report]) -> Vec<u8> {
        let statements: Vec<&[u8]> = reports.iter().map(|report| &*report.statement).collect();
        batch::sign(key, &statements)
    }

    #[test]
    fn what_is_opened_proves_itself() {
        let (root, blocks) = output(b"result");
        let reports: Vec<Report> =
            (0..3).map(|replica| report(&key(1), replica, root, blocks.clone())).collect();
        let signed = sign(&key(1), &reports);
        let opened = open(key(1).public().to_peer_id(), signed, reports).expect("a right report");
        assert_eq!(opened.len(), 3);
        for opened in opened {
            let kept = ResultStatement::open(&opened.sealed).expect("it proves itself");
            assert_eq!(kept, opened.result);
            assert_eq!(opened.output, blocks);
        }
    }

    #[test]
    fn a_wrong_output_is_dropped_and_the_result_counts() {
        let (root, blocks) = output(b"result");
        let (_, others) = output(b"another");
        let reports = vec![report(&key(1), 0, root, others), report(&key(1), 1, root, blocks)];
        let signed = sign(&key(1), &reports);
        let opened = open(key(1).public().to_peer_id(), signed, reports).expect("a right report");
        let kept: Vec<usize> = opened.iter().map(|opened| opened.output.len()).collect();
        assert_eq!(kept, [0, 3]);
    }

    #[test]
    fn a_forged_report_is_refused() {
        let (root, blocks) = output(b"result");
        let signed = sign(&key(1), &[report(&key(1), 0, root, blocks.clone())]);
        let node = key(1).public().to_peer_id();
        let forged = vec![report(&key(1), 1, root, blocks.clone())];
        let refused = open(node, signed.clone(), forged);
        assert!(matches!(refused, Err(ReportError::Batch(_))), "another replica's result");
        for place in 0..signed.len() {
            let mut flipped = signed.clone();
            flipped[place] ^= 1;
            let right = vec![report(&key(1), 0, root, blocks.clone())];
            assert!(open(node, flipped, right).is_err(), "byte {place} of the signed root");
        }
    }

    #[test]
    fn a_report_of_another_node_is_refused() {
        let (root, blocks) = output(b"result");
        let reports = vec![report(&key(1), 0, root, blocks)];
        let signed = sign(&key(1), &reports);
        let thief = key(2).public().to_peer_id();
        assert!(matches!(open(thief, signed, reports), Err(ReportError::Foreign { .. })));
    }

    #[test]
    fn one_wrong_result_does_not_spoil_the_others() {
        let (root, blocks) = output(b"result");
        let stolen = report(&key(2), 0, root, blocks.clone());
        let reports = vec![stolen, report(&key(1), 1, root, blocks)];
        let signed = sign(&key(1), &reports);
        let opened = open(key(1).public().to_peer_id(), signed, reports).expect("a right report");
        let places: Vec<usize> = opened.iter().map(|opened| opened.place).collect();
        assert_eq!(places, [1]);
    }
}
