//! `dockercomp verify`: offline.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use dockercomp_protocol::NodeId;
use serde::Serialize;

use crate::failure::{Code, Failure};
use crate::output::{self, Format};
use crate::results;

/// Check receipts, or everything that `job fetch` wrote, offline.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// Receipts, or folders that `job fetch` wrote (their outputs are checked too).
    #[arg(required = true)]
    paths: Vec<PathBuf>,

    /// The project that is trusted; without it a receipt is checked against the project it
    /// names.
    #[arg(long, value_parser = NodeId::from_str, value_name = "ID")]
    project: Option<NodeId>,
}

/// What a verified receipt proves.
#[derive(Debug, Serialize)]
pub(crate) struct Verified {
    receipt: PathBuf,
    project: String,
    job: String,
    unit: u64,
    output: String,
    outputs_checked: bool,
    accepted_at: String,
    agreeing: Vec<String>,
    dissenting: Vec<String>,
    executors: Vec<String>,
}

impl Verify {
    pub(crate) fn run(self, format: Format) -> anyhow::Result<()> {
        let mut verified = Vec::new();
        for path in &self.paths {
            verified.extend(verify(path, self.project)?);
        }
        output::print(format, &verified, |verified| {
            let units = verified.len();
            let first = verified.first();
            let project = first.map_or("none", |receipt| receipt.project.as_str());
            format!(
                "{units} receipts are right: every signature holds, and the required quorum \
                 agrees on every output\nproject {project}"
            )
        });
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
        return Ok(vec![check(path, project, None)?]);
    }
    let receipts = path.join("receipts");
    let files = if receipts.is_dir() { results::walk(&receipts)? } else { Vec::new() };
    if files.is_empty() {
        let message = format!("{} is neither a receipt nor a folder of results", path.display());
        return Err(Failure::new(Code::NotFound, message).into());
    }
    let verified: Vec<Verified> = files
        .iter()
        .map(|file| {
            let unit = path.join("units").join(file.file_stem().unwrap_or_default());
            check(file, project, Some(&unit))
        })
        .collect::<anyhow::Result<_>>()?;
    let refuse = |reason: String| {
        Err(Failure::new(Code::Verification, format!("{}: {reason}", path.display())).into())
    };
    for (file, receipt) in files.iter().zip(&verified) {
        if receipt.job != verified[0].job {
            return refuse("the receipts are of more than one job".into());
        }
        let name = format!("{:08}", receipt.unit);
        if file.file_stem().is_none_or(|stem| *stem != *name) {
            let file = file.display();
            return refuse(format!("{file} is the receipt of work unit {}", receipt.unit));
        }
    }
    let units = std::fs::read_dir(path.join("units")).map_or(0, Iterator::count);
    if units != verified.len() {
        return refuse(format!("{} receipts for {units} outputs", verified.len()));
    }
    Ok(verified)
}

fn check(
    path: &Path,
    project: Option<NodeId>,
    outputs: Option<&PathBuf>,
) -> anyhow::Result<Verified> {
    let proof = results::check_receipt(path, project, outputs.map(PathBuf::as_path))?;
    let nodes = |results: &[dockercomp_protocol::statement::ResultStatement]| {
        results.iter().map(|result| result.node.to_string()).collect()
    };
    let mut executors: Vec<String> =
        proof.agreeing.iter().map(|result| result.executor.to_string()).collect();
    executors.sort();
    executors.dedup();
    Ok(Verified {
        receipt: path.to_owned(),
        project: proof.project.to_string(),
        job: proof.job.to_string(),
        unit: proof.index,
        output: proof.output.to_string(),
        outputs_checked: outputs.is_some(),
        accepted_at: proof.accepted_at.to_string(),
        agreeing: nodes(&proof.agreeing),
        dissenting: nodes(&proof.dissenting),
        executors,
    })
}
