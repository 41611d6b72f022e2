//! The journal of decisions: taking it up at start-up, and keeping it short.
//!
//! ```text
//! start    newest good snapshot ──► the records after it, one by one ──► the core
//! running  records … ──due──► copy of the state ──other thread──► bytes ──► store
//! ```
//!
//! # Cost of a snapshot
//!
//! The decider waits for a copy of the state in memory, nothing else: it is written by a
//! thread of its own. One is due after [`Rhythm`]'s records or bytes, but never before twice
//! the bytes of the last snapshot were appended, so all snapshots together cost at most half
//! of what the journal itself costs, however large the state is. Until a snapshot is written
//! there are two copies of the state in memory, and its bytes.
//!
//! # Versions
//!
//! The table `meta` says from which record on the journal has which version, so records that
//! an older program wrote are read as what they are; a snapshot says its version itself.
//! A version that this program does not know is refused before anything is read.
//!
//! # Crash behaviour
//!
//! [`dockercomp_store`] makes a snapshot count and deletes what it makes needless in one
//! batch. A snapshot that cannot be read is passed over for the one before it.

use dockercomp_coordinator_core::{
    ApplyError, Config, Core, RECORD_VERSION, RECORD_VERSION_OLDEST, Record, SNAPSHOT_VERSION,
    SnapshotError, State,
};
use dockercomp_protocol::codec;
use dockercomp_store::{Row, Store, StoreError, Table};
use tokio::task::JoinHandle;

/// Where [`Table::Meta`] says which version the records have.
const VERSIONS_KEY: &[u8] = b"journal-version";

/// When a snapshot is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// After this many records.
    pub records: u64,
    /// Or after this many bytes of them.
    pub bytes: u64,
}

impl Default for Rhythm {
    /// A start-up replays at most about this much: seconds.
    fn default() -> Self {
        Self { records: 250_000, bytes: 64 << 20 }
    }
}

/// Why there is no core to decide.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The store failed.
    #[error("the journal cannot be read")]
    Store(#[from] StoreError),
    /// A record is not right.
    #[error("record {number} of the journal cannot be read")]
    Record {
        /// Its place, from 0.
        number: u64,
        /// What is wrong with it.
        source: codec::DecodeError,
    },
    /// A record does not follow from those before it.
    #[error("record {number} of the journal does not follow from those before it")]
    Order {
        /// Its place, from 0.
        number: u64,
        /// What is wrong with it.
        source: ApplyError,
    },
    /// No snapshot can be read, and the records before them are gone.
    #[error("none of the journal's {found} snapshots can be read")]
    Snapshots {
        /// How many there are.
        found: usize,
    },
    /// An older program wrote it, and nobody knows its records any more.
    #[error(
        "the journal's records have version {found}, this program reads {RECORD_VERSION_OLDEST} to \
         {RECORD_VERSION}; use the version of dockercomp that wrote it, or a new data directory"
    )]
    Older {
        /// What it says.
        found: u8,
    },
    /// A newer program wrote it.
    #[error("the journal's {what} have version {found}, this program reads up to {known}")]
    Newer {
        /// Records or snapshots.
        what: &'static str,
        /// What it says.
        found: u8,
        /// The newest that is known.
        known: u8,
    },
}

impl ReplayError {
    /// Whether another version of the program can read it; else it is damaged.
    #[must_use]
    pub const fn is_of_another_version(&self) -> bool {
        matches!(self, Self::Newer { .. } | Self::Older { .. })
    }
}

/// What is needed to keep the journal short. See the module documentation.
#[derive(Debug)]
pub(crate) struct Journal {
    store: Store,
    rhythm: Rhythm,
    /// The number of the next record.
    next: u64,
    /// Records and their bytes since the last snapshot was begun.
    since: Rhythm,
    /// Bytes of the last snapshot, once known.
    snapshot_bytes: u64,
    writing: Option<JoinHandle<Result<u64, StoreError>>>,
}

/// Rebuilds the core from the newest snapshot and the records after it. Blocking.
pub(crate) fn recover(
    store: &Store,
    rhythm: Rhythm,
    config: Config,
) -> Result<(Core, Journal), ReplayError> {
    let versions = Versions::of(store)?;
    let (mut core, first, snapshot_bytes) = restore(store, config, &store.snapshots()?)?;
    let mut since = Rhythm { records: 0, bytes: 0 };
    for (number, bytes) in (first..).zip(store.replay(first)) {
        let bytes = bytes?;
        let record = versions.read(number, &bytes)?;
        core.apply(&record).map_err(|source| ReplayError::Order { number, source })?;
        since.records += 1;
        since.bytes += bytes.len() as u64;
    }
    let next = first + since.records;
    tracing::info!(snapshot = first, records = since.records, "journal replayed");
    versions.continue_at(store, next)?;
    let store = store.clone();
    Ok((core, Journal { store, rhythm, next, since, snapshot_bytes, writing: None }))
}

/// The core as it was before the oldest record that is still there, and that record's number.
/// Blocking.
pub(crate) fn oldest(store: &Store, config: Config) -> Result<(Core, u64), ReplayError> {
    let mut snapshots = store.snapshots()?;
    snapshots.reverse();
    if snapshots.len() < 2 {
        // Nothing was deleted yet.
        return Ok((Core::new(config), 0));
    }
    let (core, first, _) = restore(store, config, &snapshots)?;
    Ok((core, first))
}

/// The records from number `first` on. Blocking.
pub(crate) fn records(
    store: &Store,
    first: u64,
) -> Result<impl Iterator<Item = Result<Record, ReplayError>> + '_, ReplayError> {
    let versions = Versions::of(store)?;
    let read =
        move |(number, bytes): (u64, Result<Vec<u8>, StoreError>)| versions.read(number, &bytes?);
    Ok((first..).zip(store.replay(first)).map(read))
}

/// The core of the first of these snapshots that can be read, the number of the record after
/// it, and its size in bytes.
fn restore(
    store: &Store,
    config: Config,
    snapshots: &[u64],
) -> Result<(Core, u64, u64), ReplayError> {
    for &number in snapshots {
        let Some(bytes) = store.snapshot(number)? else {
            tracing::error!(number, "snapshot is damaged, another one is used");
            continue;
        };
        match Core::restore(config.clone(), &bytes) {
            Ok(core) => return Ok((core, number, bytes.len() as u64)),
            Err(SnapshotError::Version { found }) if found > SNAPSHOT_VERSION => {
                return Err(ReplayError::Newer {
                    what: "snapshots",
                    found,
                    known: SNAPSHOT_VERSION,
                });
            }
            Err(error) => {
                tracing::error!(number, %error, "snapshot is refused, another one is used");
            }
        }
    }
    // With one snapshot or none nothing was deleted yet: all of history is there.
    match snapshots.len() {
        0 | 1 => Ok((Core::new(config), 0, 0)),
        found => Err(ReplayError::Snapshots { found }),
    }
}

impl Journal {
    /// Counts records that have become durable.
    pub(crate) fn appended(&mut self, records: u64, bytes: u64) {
        self.next += records;
        self.since.records += records;
        self.since.bytes += bytes;
    }

    /// Whether [`Self::snapshot`] should be called, at the next moment at which everything that
    /// the core has decided is durable.
    pub(crate) fn is_due(&self) -> bool {
        let is_much =
            self.since.records >= self.rhythm.records || self.since.bytes >= self.rhythm.bytes;
        is_much
            && self.since.bytes >= 2 * self.snapshot_bytes
            && self.writing.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Begins to write a snapshot of the state that all durable records have led to.
    pub(crate) async fn snapshot(&mut self, state: State) {
        if let Some(writing) = self.writing.take() {
            match writing.await.expect("writing a snapshot does not panic") {
                Ok(bytes) => self.snapshot_bytes = bytes,
                // The journal is longer than it need be, nothing else. If the database failed,
                // the next append says so.
                Err(error) => tracing::warn!(%error, "snapshot not written, trying again"),
            }
        }
        self.since = Rhythm { records: 0, bytes: 0 };
        let (store, number) = (self.store.clone(), self.next);
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let bytes = state.encode();
            drop(state);
            store.put_snapshot(number, &bytes)?;
            tracing::info!(number, bytes = bytes.len(), "snapshot written");
            Ok(bytes.len() as u64)
        }));
    }
}

/// From which record on the journal has which version, in order.
///
/// Written as DAG-CBOR; a single byte, which the first program wrote, is the version of all.
struct Versions(Vec<(u64, u8)>);

impl Versions {
    fn of(store: &Store) -> Result<Self, ReplayError> {
        let ranges = match store.get(Table::Meta, VERSIONS_KEY)?.as_deref() {
            None => vec![],
            Some(&[version]) => vec![(0, version)],
            Some(bytes) => codec::decode(bytes)
                .map_err(|source| ReplayError::Record { number: store.next_record(), source })?,
        };
        let is_known = |version| (RECORD_VERSION_OLDEST..=RECORD_VERSION).contains(&version);
        match ranges.iter().find(|&&(_, version)| !is_known(version)) {
            Some(&(_, found)) if found < RECORD_VERSION => Err(ReplayError::Older { found }),
            Some(&(_, found)) => {
                Err(ReplayError::Newer { what: "records", found, known: RECORD_VERSION })
            }
            None => Ok(Self(ranges)),
        }
    }

    fn read(&self, number: u64, bytes: &[u8]) -> Result<Record, ReplayError> {
        let range = self.0.iter().rev().find(|(from, _)| *from <= number);
        let version = range.map_or(RECORD_VERSION, |&(_, version)| version);
        Record::read(version, bytes).map_err(|source| ReplayError::Record { number, source })
    }

    /// Says that records from `next` on have this program's version.
    fn continue_at(mut self, store: &Store, next: u64) -> Result<(), StoreError> {
        if self.0.last().is_some_and(|&(_, version)| version == RECORD_VERSION) {
            return Ok(());
        }
        self.0.push((next, RECORD_VERSION));
        let value = codec::encode(&self.0);
        store.append(&[], &[Row::Put { table: Table::Meta, key: VERSIONS_KEY.to_vec(), value }])
    }
}

#[cfg(test)]
pub(crate) mod tests;
