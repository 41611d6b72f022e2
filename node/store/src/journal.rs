//! The journal, and tables that the callers give their own meaning.
//!
//! Records are numbered on for ever and replayed in that order. A batch of records and rows
//! is written together and synced before [`Store::append`] returns: durable first, visible
//! second. Records are never changed; [`crate::snapshots`] deletes those that a snapshot
//! stands for.

use crate::error::StoreError;
use crate::keys::{Family, Table};
use crate::{Store, locked};

/// A change of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Sets a key.
    Put {
        /// Where.
        table: Table,
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Deletes a key, if it is there.
    Delete {
        /// Where.
        table: Table,
        /// The key.
        key: Vec<u8>,
    },
}

impl Store {
    /// Appends records and changes rows, all or nothing, and makes them durable.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] if there is no room: nothing changed then, try again.
    /// After [`StoreError::Database`] it is not known whether they are on disk, and every
    /// later write is refused: stop, open again and replay.
    pub fn append(&self, records: &[Vec<u8>], rows: &[Row]) -> Result<(), StoreError> {
        let mut next = locked(&self.inner.journal_next);
        let mut number = *next;
        let mut batch = self.inner.db.batch();
        for record in records {
            batch.put(Family::Journal, &key(number), record);
            number += 1;
        }
        for row in rows {
            match row {
                Row::Put { table, key, value } => batch.put(Family::Table(*table), key, value),
                Row::Delete { table, key } => batch.delete(Family::Table(*table), key),
            }
        }
        self.inner.space.admit_records(batch.bytes() as u64)?;
        batch.write_synced()?;
        *next = number;
        Ok(())
    }

    /// The number that the next record will have.
    #[must_use]
    pub fn next_record(&self) -> u64 {
        *locked(&self.inner.journal_next)
    }

    /// The records from number `first` on, in the order in which they were appended.
    ///
    /// Each is [`StoreError::Gap`] instead if it is not the one that must come next.
    pub fn replay(&self, first: u64) -> impl Iterator<Item = Result<Vec<u8>, StoreError>> + '_ {
        let records = self.inner.db.scan(Family::Journal, &[], &key(first));
        records.zip(first..).map(|(pair, number)| {
            let (found, record) = pair?;
            if found[..] != key(number) {
                return Err(StoreError::Gap { number });
            }
            Ok(record.into_vec())
        })
    }

    /// The value of a key in a table.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.db.get(Family::Table(table), key)
    }

    /// At most `max` pairs whose key starts with `prefix` and comes after `after`, by key.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    #[expect(clippy::type_complexity, reason = "a list of key and value")]
    pub fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        // The first key that is greater than `after` is `after` with a zero byte behind it.
        let from = after.map_or_else(Vec::new, |after| [after, &[0]].concat());
        let pairs = self.inner.db.scan(Family::Table(table), prefix, &from).take(max);
        pairs.map(|pair| pair.map(|(key, value)| (key.into_vec(), value.into_vec()))).collect()
    }
}

/// The number that the next record gets: after the last one, or, if a snapshot stands for
/// all of them, that snapshot's.
pub(crate) fn next_number(db: &crate::db::Db) -> Result<u64, StoreError> {
    let unreadable = |_| StoreError::Row { family: Family::Journal.name() };
    let last = db.last_key(Family::Journal)?;
    let after_last = match last {
        Some(key) => u64::from_be_bytes(<[u8; 8]>::try_from(&key[..]).map_err(unreadable)?) + 1,
        None => 0,
    };
    Ok(after_last.max(crate::snapshots::newest(db)?.unwrap_or(0)))
}

/// Key in family `journal`.
pub(crate) const fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}
