//! Checking receipts, fetched jobs and heads of a log, offline.
//!
//! Nothing here opens a socket, and what it reads are files that the reader names; the trust
//! is in `dockercomp_protocol::receipt`.

mod folder;
mod heads;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use dockercomp_peer::reply::chain;
use dockercomp_protocol::NodeId;
use dockercomp_protocol::receipt::damage::{Damage, locate};
use dockercomp_protocol::receipt::{Basis, Checker, Proof, Receipt};
use dockercomp_protocol::statement::ResultStatement;
use serde::Serialize;

pub(crate) use self::folder::{fetched, loose};
pub(crate) use self::heads::{Agreement, Head, entries_of, head, heads};

use crate::failure::{Code, Failure};

/// What a verified receipt proves.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verified {
    pub(crate) receipt: PathBuf,
    pub(crate) project: String,
    pub(crate) job: String,
    pub(crate) unit: u64,
    pub(crate) image: Option<String>,
    pub(crate) module: Option<String>,
    pub(crate) output: String,
    pub(crate) outputs_checked: bool,
    pub(crate) accepted_at: String,
    /// The rule that accepted it.
    pub(crate) rule: String,
    /// Whether the signed results alone show that the rule is fulfilled; else it rests on what
    /// the coordinator says of the nodes' records.
    pub(crate) proven_by_results: bool,
    pub(crate) agreeing: Vec<String>,
    pub(crate) dissenting: Vec<String>,
    pub(crate) executors: Vec<String>,
    /// Its place in the log.
    pub(crate) leaf: u64,
    /// Entries in the log under whose head it is proven.
    pub(crate) log_entries: u64,
}

impl Verified {
    fn new(receipt: &Path, proof: &Proof, outputs_checked: bool) -> Self {
        let nodes = |results: &[ResultStatement]| {
            results.iter().map(|result| result.node.to_string()).collect()
        };
        let mut executors: Vec<String> =
            proof.agreeing.iter().map(|result| result.executor.to_string()).collect();
        executors.sort();
        executors.dedup();
        Self {
            receipt: receipt.to_owned(),
            project: proof.project.to_string(),
            job: proof.job.to_string(),
            unit: proof.index,
            image: proof.image.map(|image| image.to_string()),
            module: proof.module.map(|module| module.to_string()),
            output: proof.output.to_string(),
            outputs_checked,
            accepted_at: proof.accepted_at.to_string(),
            rule: match proof.basis {
                Basis::Quorum => format!("{} of {}", proof.basis, proof.min_quorum),
                other => other.to_string(),
            },
            proven_by_results: proof.basis.is_proven_by_results(),
            agreeing: nodes(&proof.agreeing),
            dissenting: nodes(&proof.dissenting),
            executors,
            leaf: proof.leaf,
            log_entries: proof.head.size,
        }
    }
}

/// Verifies one receipt in a file.
pub(crate) fn receipt(path: &Path, project: Option<NodeId>) -> anyhow::Result<Verified> {
    let proof = prove(&mut Checker::new(project), path)?;
    Ok(Verified::new(path, &proof, false))
}

/// Checks a receipt; of one that is not right, says where it is wrong.
fn prove(checker: &mut Checker, path: &Path) -> anyhow::Result<Proof> {
    let file = read(path)?;
    checker.check(&file).map_err(|error| {
        let mut message = chain(&error);
        let check = |receipt: &Receipt| match checker.check_parts(receipt) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.part()),
        };
        if let Some(damage) = locate(&file, check) {
            message = format!("{}: {message}", describe(&damage, file.len()));
        }
        refuse(path, message)
    })
}

/// The first wrong byte, in words.
fn describe(damage: &Damage, length: usize) -> String {
    let Damage { offset, within, part, surplus } = *damage;
    let count = surplus.unsigned_abs();
    let surplus = match surplus {
        0 => String::new(),
        1.. => format!(" ({count} bytes too many)"),
        ..0 => format!(" ({count} bytes are missing)"),
    };
    match within {
        _ if offset == length => format!("the file ends at byte {offset}, in {part}{surplus}"),
        1 => format!("byte {offset}, in {part}, is the first wrong one{surplus}"),
        _ => format!(
            "the first wrong byte is among the {within} from byte {offset} on, in {part}{surplus}"
        ),
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn refuse(path: &Path, reason: impl std::fmt::Display) -> anyhow::Error {
    Failure::new(Code::Verification, format!("{}: {reason}", path.display())).into()
}

/// Items that a thread takes at a time: neighbours share signatures.
const SHARE: usize = 32;

/// Does something with every item, on all cores, each thread with a state of its own. The
/// first error in the order of the items wins.
fn on_all_cores<T: Sync, S, R: Send>(
    items: &[T],
    state: impl Fn() -> S + Sync,
    act: impl Fn(&mut S, &T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        let mut state = state();
        loop {
            let first = next.fetch_add(SHARE, Ordering::Relaxed);
            let Some(share) = items.get(first..items.len().min(first + SHARE)) else { return };
            let mut results = Vec::with_capacity(share.len());
            for (number, item) in (first..).zip(share) {
                let result = act(&mut state, item);
                let is_over = result.is_err();
                results.push((number, result));
                if is_over {
                    next.store(items.len(), Ordering::Relaxed);
                    break;
                }
            }
            done.lock().expect("no holder of this lock panics").extend(results);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len().div_ceil(SHARE)) {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().expect("no holder of this lock panics");
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}
