//! `dockercomp verify`: offline.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use dockercomp_protocol::NodeId;

use crate::output::{self, Format};
use crate::verify::{self, Agreement, Verified};

/// Check receipts, everything that `job fetch` wrote, or two heads of a log, offline.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// Receipts, or folders that `job fetch` wrote: then also that no work unit is missing or
    /// doubled, and that the outputs are those that the receipts speak of.
    #[arg(required_unless_present = "heads")]
    paths: Vec<PathBuf>,

    /// Check that one of two heads carries the other on; heads are files that `node` or
    /// `coordinator head` wrote, receipts, or folders that `job fetch` wrote.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with = "paths")]
    heads: Vec<PathBuf>,

    /// The project that is trusted; without it a receipt is checked against the project it
    /// names.
    #[arg(long, value_parser = NodeId::from_str, value_name = "ID")]
    project: Option<NodeId>,
}

impl Verify {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<()> {
        if let [old, new] = &self.heads[..] {
            let agreement = verify::heads([old, new], self.project)?;
            output::print(format, &agreement, agreed);
        } else {
            let mut verified = Vec::new();
            for path in &self.paths {
                verified.extend(verify(path, self.project)?);
            }
            output::print(format, &verified, |verified| human(verified));
        }
        if self.project.is_none() {
            eprintln!(
                "note: name the project that you trust with --project to be sure it is the one"
            );
        }
        Ok(())
    }
}

/// Verifies a receipt, or all receipts and outputs below a folder.
pub(crate) fn verify(path: &Path, project: Option<NodeId>) -> anyhow::Result<Vec<Verified>> {
    if path.is_file() {
        return Ok(vec![verify::receipt(path, project)?]);
    }
    verify::fetched(path, project)
}

fn human(verified: &[Verified]) -> String {
    let units = verified.len();
    let whole = verified.iter().filter(|receipt| receipt.outputs_checked).count();
    let Some(first) = verified.first() else { return String::new() };
    let mut text = format!(
        "{units} receipts are right: every signature holds, the rule of the job accepts every \
         output, and the log contains it\n"
    );
    if whole > 0 {
        text += &format!(
            "{whole} outputs are those that the receipts speak of; no work unit is missing\n"
        );
    }
    let by_record = verified.iter().filter(|receipt| !receipt.proven_by_results).count();
    if by_record > 0 {
        text += &format!(
            "{by_record} were accepted by the records of their nodes, for which the coordinator \
             answers: the signed results alone do not show it\n"
        );
    }
    text + &format!("project {}", first.project)
}

fn agreed(agreement: &Agreement) -> String {
    format!(
        "the log of {} entries begins with the one of {}\nsigned     {}\ncoordinator {}\nproject    \
         {}",
        agreement.entries,
        agreement.entries_before,
        agreement.signed_at,
        agreement.coordinator,
        agreement.project
    )
}
