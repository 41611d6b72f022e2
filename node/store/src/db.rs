//! RocksDB, behind the few verbs that the store needs. No other file names the crate's types.
//!
//! All writes go through a [`Batch`], so that what belongs together is written together.
//! After a failed write or sync nothing is written any more: what the disk holds is then
//! unknown, and only opening it again (which replays the write-ahead log) says.
//!
//! Nothing is compressed: keys are hashes, bodies are usually compressed already, and a
//! database written with a compressor cannot be opened by a build without it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, Direction, ErrorKind, IteratorMode, Options, ReadOptions, WriteBatch,
    WriteOptions, checkpoint::Checkpoint,
};

use crate::error::StoreError;
use crate::keys::Family;

/// Memory for blocks of the database, in bytes: volunteers lend theirs for work, not for us.
const BLOCK_CACHE_BYTES: usize = 32 << 20;
/// Write buffers of all families together, in bytes: one that would take more is written out.
const BUFFERS_BYTES: usize = 48 << 20;
/// Write buffer of the families that hold only keys, in bytes.
const BUFFER_BYTES: usize = 16 << 20;
/// Write buffer of `small`, in bytes; one buffer becomes about one blob file.
const SMALL_BUFFER_BYTES: usize = 32 << 20;
/// Values from this size lie in blob files, in bytes.
const BLOB_BYTES_MIN: u64 = 4 << 10;

/// The open database.
pub(crate) struct Db {
    db: DB,
    failed: AtomicBool,
}

/// Changes that are written together or not at all.
pub(crate) struct Batch<'a> {
    db: &'a Db,
    batch: WriteBatch,
}

/// Key and value.
pub(crate) type Pair = (Box<[u8]>, Box<[u8]>);

impl Db {
    /// Opens or makes the database in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, rocksdb::Error> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES)?;
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        // A record that was cut off at the end was never promised to anybody. Damage in the
        // middle must be told: the default drops all that came after it and says nothing.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_max_background_jobs(2);
        options.set_db_write_buffer_size(BUFFERS_BYTES);
        options.set_max_open_files(256);
        options.set_max_total_wal_size(128 << 20);
        options.set_bytes_per_sync(1 << 20);
        options.set_keep_log_file_num(5);
        options.set_max_log_file_size(8 << 20);
        options.set_stats_dump_period_sec(0);
        let families = Family::ALL.iter().map(|family| {
            ColumnFamilyDescriptor::new(family.name(), family_options(*family, &cache))
        });
        let db = DB::open_cf_descriptors(&options, dir, families)?;
        Ok(Self { db, failed: AtomicBool::new(false) })
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("every family is opened with the database")
    }

    /// The value of a key.
    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get_cf(self.family(family), key)?)
    }

    /// Like [`Self::get`], but a value that fails RocksDB's own checksum is `Err(Damaged)`
    /// inside, so that the caller can forget it instead of failing.
    pub(crate) fn get_or_damaged(
        &self,
        family: Family,
        key: &[u8],
    ) -> Result<Result<Option<Vec<u8>>, Damaged>, StoreError> {
        match self.db.get_cf(self.family(family), key) {
            Ok(value) => Ok(Ok(value)),
            Err(error) if error.kind() == ErrorKind::Corruption => Ok(Err(Damaged)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the key is there.
    pub(crate) fn contains(&self, family: Family, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.db.get_pinned_cf(self.family(family), key)?.is_some())
    }

    /// All pairs whose key starts with `prefix` and is at least `from`, in order.
    pub(crate) fn scan<'a>(
        &'a self,
        family: Family,
        prefix: &[u8],
        from: &[u8],
    ) -> impl Iterator<Item = Result<Pair, StoreError>> + use<'a> {
        let mut options = ReadOptions::default();
        if let Some(end) = after_prefix(prefix) {
            options.set_iterate_upper_bound(end);
        }
        let start = IteratorMode::From(from.max(prefix), Direction::Forward);
        let pairs = self.db.iterator_cf_opt(self.family(family), options, start);
        pairs.map(|pair| pair.map_err(StoreError::from))
    }

    /// The last key of a family.
    pub(crate) fn last_key(&self, family: Family) -> Result<Option<Box<[u8]>>, StoreError> {
        let last = self.db.iterator_cf(self.family(family), IteratorMode::End).next();
        Ok(last.transpose()?.map(|(key, _)| key))
    }

    /// Gives the room of keys that were deleted back to the disk, as far as whole files hold
    /// nothing else; what is left goes with later compactions.
    pub(crate) fn reclaim(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        Ok(self.db.delete_file_in_range_cf(self.family(family), from, to)?)
    }

    /// Makes another database in `dir` that holds what this one holds at one instant. Files
    /// are linked where the file system can, and copied where it cannot.
    pub(crate) fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        Ok(Checkpoint::new(&self.db)?.create_checkpoint(dir)?)
    }

    /// An empty batch.
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { db: self, batch: WriteBatch::default() }
    }

    /// Rewrites the family of small blocks without what was deleted. It keeps that room else.
    pub(crate) fn compact_small(&self) {
        let family = self.family(Family::Small);
        // What is still in memory is not rewritten, and holds the write-ahead log of all.
        for family in Family::ALL {
            if let Err(error) = self.db.flush_cf(self.family(family)) {
                tracing::warn!(%error, "room of removed blocks is given back later");
            }
        }
        self.db.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
    }

    /// Stops all further writes, after data could not be made durable.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    /// Refuses if an earlier write failed.
    pub(crate) fn check_writable(&self) -> Result<(), StoreError> {
        if self.failed.load(Ordering::SeqCst) { Err(StoreError::Failed) } else { Ok(()) }
    }
}

/// A value that fails the database's own checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Damaged;

impl Batch<'_> {
    pub(crate) fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.batch.put_cf(self.db.family(family), key, value);
    }

    pub(crate) fn delete(&mut self, family: Family, key: &[u8]) {
        self.batch.delete_cf(self.db.family(family), key);
    }

    /// Deletes the keys from `from` on and before `to`.
    pub(crate) fn delete_range(&mut self, family: Family, from: &[u8], to: &[u8]) {
        self.batch.delete_range_cf(self.db.family(family), from, to);
    }

    /// Bytes gathered so far.
    pub(crate) fn bytes(&self) -> usize {
        self.batch.size_in_bytes()
    }

    /// Writes the batch. It survives the end of this process at once, and a power cut after
    /// the next synced write.
    pub(crate) fn write(self) -> Result<(), StoreError> {
        self.commit(false)
    }

    /// Writes the batch and makes it durable, with all that was written before it.
    pub(crate) fn write_synced(self) -> Result<(), StoreError> {
        self.commit(true)
    }

    fn commit(self, sync: bool) -> Result<(), StoreError> {
        self.db.check_writable()?;
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.db.write_opt(self.batch, &options).inspect_err(|_| self.db.fail())?;
        Ok(())
    }
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(16 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(BUFFER_BYTES);
    options.set_max_write_buffer_number(3);
    if family == Family::Small {
        options.set_write_buffer_size(SMALL_BUFFER_BYTES);
        options.set_enable_blob_files(true);
        options.set_min_blob_size(BLOB_BYTES_MIN);
        options.set_blob_file_size(64 << 20);
        options.set_blob_compression_type(DBCompressionType::None);
        // The default cutoff keeps the space of removed blobs for ever.
        options.set_enable_blob_gc(true);
        options.set_blob_gc_age_cutoff(1.0);
        options.set_blob_gc_force_threshold(0.5);
        options.set_blob_compaction_readahead_size(2 << 20);
    }
    options
}

/// The first key after all keys with this prefix; `None` if there is no such key.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_exact() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(&[1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(after_prefix(&[0xff]), None);
        assert_eq!(after_prefix(&[]), None);
    }
}
