//! Folders of receipts: what `job fetch` wrote, whole, or receipts alone.

use std::path::{Path, PathBuf};

use dockercomp_protocol::NodeId;
use dockercomp_protocol::codec;
use dockercomp_protocol::log::{HeadNotice, Path as LogPath};
use dockercomp_protocol::receipt::{Checker, Proof, Receipt, check_whole};

use super::{Verified, on_all_cores, prove, read, refuse};
use crate::failure::{Code, Failure};
use crate::results::walk;

/// Verifies everything that `job fetch` wrote: every receipt, that they are all that the job
/// has, the outputs that they speak of, and the copies of job and head beside them.
pub(crate) fn fetched(folder: &Path, project: Option<NodeId>) -> anyhow::Result<Vec<Verified>> {
    let files = receipts_in(folder)?;
    let units = folder.join("units");
    let output_of = |file: &Path| units.join(file.file_stem().unwrap_or_default());
    let proofs = on_all_cores(
        &files,
        || Checker::new(project),
        |checker, file| {
            let proof = prove(checker, file)?;
            let named = format!("{:08}.receipt", proof.index);
            if file.file_name().is_none_or(|name| *name != *named) {
                return Err(refuse(file, format!("it is of work unit {}", proof.index)));
            }
            // Outputs that a later stage took are not part of the result.
            if proof.is_result {
                check_output(file, &output_of(file), &proof)?;
            }
            Ok(proof)
        },
    )?;
    check_whole(&proofs).map_err(|error| refuse(folder, error))?;
    let outputs = std::fs::read_dir(&units).map_or(0, Iterator::count);
    let results = proofs.iter().filter(|proof| proof.is_result).count();
    if outputs != results {
        return Err(refuse(folder, format!("{results} receipts for {outputs} outputs")));
    }
    check_copies(folder, &files[0])?;
    Ok(files
        .iter()
        .zip(&proofs)
        .map(|(file, proof)| Verified::new(file, proof, proof.is_result))
        .collect())
}

/// Verifies the receipts in a folder, each by itself.
pub(crate) fn loose(folder: &Path, project: Option<NodeId>) -> anyhow::Result<Vec<Verified>> {
    let files = receipts_in(folder)?;
    on_all_cores(
        &files,
        || Checker::new(project),
        |checker, file| Ok(Verified::new(file, &prove(checker, file)?, false)),
    )
}

fn receipts_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let receipts = folder.join("receipts");
    let files = if receipts.is_dir() { walk(&receipts)? } else { Vec::new() };
    if files.is_empty() {
        let message = format!("{} is neither a receipt nor a folder of results", folder.display());
        return Err(Failure::new(Code::NotFound, message).into());
    }
    Ok(files)
}

fn check_output(file: &Path, folder: &Path, proof: &Proof) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Err(refuse(file, format!("its outputs are not in {}", folder.display())));
    }
    let found = dockercomp_store::root_of(folder).map_err(|error| refuse(folder, error))?;
    if found == proof.output {
        return Ok(());
    }
    let message =
        format!("the files in {} are {found}, but it says {}", folder.display(), proof.output);
    Err(refuse(file, message))
}

/// The job and the head beside the receipts must be those in the receipts, which are right.
fn check_copies(folder: &Path, receipt: &Path) -> anyhow::Result<()> {
    let Receipt { charter, job, head, .. } =
        Receipt::decode(&read(receipt)?).map_err(|error| refuse(receipt, error))?;
    let since = 0;
    let notice = HeadNotice { v: 1, charter, head, since, proof: LogPath::default() };
    for (name, right) in [("job", job), ("head", codec::encode(&notice))] {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(refuse(&path, "it is missing"));
        }
        let found = read(&path)?;
        let same = found.iter().zip(&right).take_while(|(one, other)| one == other).count();
        if same < found.len().max(right.len()) {
            let reason = format!("byte {same} is the first that differs from the receipts");
            return Err(refuse(&path, reason));
        }
    }
    Ok(())
}
