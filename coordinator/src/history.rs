//! A coordinator's past, for whoever wants to learn from it: its journal, record by record, as
//! far back as it reaches.
//!
//! A journal forgets what its older snapshot holds; of what was under way
//! then, the jobs are told as if they had been taken on there, with the work units that they
//! still had.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dockercomp_coordinator_core::{Config, Finding, JobState, Record, Seed, Terms};
use dockercomp_protocol::batch::Roots;
use dockercomp_protocol::job::JobSpec;
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::{Timestamp, envelope};
use dockercomp_store::{OpenError, Store, StoreError, Table};

use crate::journal::{self, ReplayError};

/// Why a journal could not be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// There is no coordinator in the data directory.
    #[error("there is no coordinator's data in {}", dir.display())]
    Nothing {
        /// The directory.
        dir: PathBuf,
    },
    /// The store cannot be opened.
    #[error("the data directory cannot be read")]
    Open(#[from] OpenError),
    /// The store failed.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// The journal is not right.
    #[error("the journal cannot be read")]
    Replay(#[from] ReplayError),
    /// A job is not as its owner signed it.
    #[error("a job cannot be read")]
    Job(#[from] envelope::OpenError),
}

/// Tells all records that the journal in a coordinator's data directory, or in a back-up of
/// one, still has, in order, and what the program of a reported result took. Gives how many
/// there were. Blocking; the coordinator must not run on the directory meanwhile.
///
/// # Errors
/// See [`HistoryError`].
pub fn read(
    dir: &Path,
    tell: &mut dyn FnMut(&Record, Option<Duration>),
) -> Result<u64, HistoryError> {
    if !dir.join("db").exists() {
        return Err(HistoryError::Nothing { dir: dir.to_owned() });
    }
    let store = Store::open(dir, dockercomp_store::Options::default())?;
    let (core, first) = journal::oldest(&store, Config::default())?;
    let mut roots = Roots::default();
    let mut n_records = 0;
    for record in journal::records(&store, first)? {
        let record = record?;
        if n_records == 0 {
            for job in core.jobs().filter(|job| job.state == JobState::Running) {
                let left = job.units - job.done - job.failed;
                tell(&under_way(&store, job.job, left, record.at())?, None);
            }
        }
        n_records += 1;
        tell(&record, wall(&record, &mut roots));
    }
    Ok(n_records)
}

/// A job that was there before the first record, as if it came then.
fn under_way(
    store: &Store,
    job: dockercomp_protocol::Cid,
    units: u64,
    at: Timestamp,
) -> Result<Record, HistoryError> {
    let key = job.to_bytes();
    let sealed = store.get(Table::Jobs, &key)?.unwrap_or_default();
    let spec = envelope::open::<JobSpec>(&sealed)?.statement;
    Ok(Record::JobAdded { at, job, terms: Terms::of(&spec), units, seed: Seed([0; 32]) })
}

/// What the program of a reported replica took, as its holder signed it.
fn wall(record: &Record, roots: &mut Roots) -> Option<Duration> {
    let Record::Reported { finding: Finding::Success { sealed, .. }, .. } = record else {
        return None;
    };
    let result = ResultStatement::open_with(sealed, roots).ok()?;
    Some(Duration::from_millis(result.usage.wall_ms))
}
