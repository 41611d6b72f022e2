//! The journal, and tables that the callers give their own meaning.
//!
//! Records are numbered on for ever and replayed in that order. A batch of records and rows
//! is written together and synced before [`Store::append`] returns: durable first, visible
//! second. Records are never changed; nothing shortens the journal yet.

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
    /// After [`StoreError::Database`] it is not known whether they are on disk, and every
    /// later write is refused: stop, open again and replay.
    pub fn append(&self, records: &[Vec<u8>], rows: &[Row]) -> Result<(), StoreError> {
        let mut next = locked(&self.inner.journal_next);
        let mut number = *next;
        let mut batch = self.inner.db.batch();
        for record in records {
            batch.put(Family::Journal, &number.to_be_bytes(), record);
            number += 1;
        }
        for row in rows {
            match row {
                Row::Put { table, key, value } => batch.put(Family::Table(*table), key, value),
                Row::Delete { table, key } => batch.delete(Family::Table(*table), key),
            }
        }
        batch.write_synced()?;
        *next = number;
        Ok(())
    }

    /// All records in the order in which they were appended.
    ///
    /// # Errors
    /// None yet; the records themselves may fail to be read.
    pub fn replay(
        &self,
    ) -> Result<impl Iterator<Item = Result<Vec<u8>, StoreError>> + '_, StoreError> {
        let records = self.inner.db.scan(Family::Journal, &[], &[]);
        Ok(records.map(|pair| pair.map(|(_, record)| record.into_vec())))
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

/// The number after the last record's.
pub(crate) fn next_number(db: &crate::db::Db) -> Result<u64, StoreError> {
    let Some(key) = db.last_key(Family::Journal)? else { return Ok(0) };
    let number = <[u8; 8]>::try_from(&key[..])
        .map_err(|_| StoreError::Row { family: Family::Journal.name() })?;
    Ok(u64::from_be_bytes(number) + 1)
}
