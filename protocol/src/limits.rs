//! Every bound, with its unit and its reason.
//!
//! Whatever a peer or a file can say is checked against one of these before memory is
//! given to it.

/// Default size of a chunk in bytes: large enough that hashing and bookkeeping cost little,
/// small enough that a lie wastes little.
pub const CHUNK_BYTES_DEFAULT: u32 = 1 << 20;
/// Smallest chunk size that can be chosen, in bytes.
pub const CHUNK_BYTES_MIN: u32 = 256 << 10;
/// Largest chunk size that can be chosen, in bytes.
pub const CHUNK_BYTES_MAX: u32 = 4 << 20;
/// Largest block of DAG-CBOR (manifest node, job, work unit), in bytes.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;
/// File entries in one manifest page: a page of the longest paths stays under
/// [`BLOCK_BYTES_MAX`].
pub const PAGE_FILES_MAX: usize = 512;
/// Chunk links in one file entry before they move to pages of their own.
pub const INLINE_CHUNKS_MAX: usize = 16;
/// Chunk links in one chunk page: 41 bytes each, so a page stays under half a MiB.
pub const PAGE_CHUNKS_MAX: usize = 8192;
/// Pages in a dataset root: 41 bytes each, so the root stays under [`BLOCK_BYTES_MAX`];
/// 20,000 pages hold ten million files.
pub const ROOT_PAGES_MAX: usize = 20_000;
/// Chunk pages of one file: at 1 MiB chunks this is 32 TiB.
pub const FILE_PAGES_MAX: usize = 4096;
/// Longest relative path of a file, in bytes.
pub const PATH_BYTES_MAX: usize = 1024;
/// Files up to this size are kept in the database instead of a file of their own, in bytes.
pub const INLINE_FILE_BYTES_MAX: u64 = 64 << 10;

/// Longest job file, in bytes.
pub const JOB_FILE_BYTES_MAX: usize = 256 << 10;
/// Longest name of a job, in bytes.
pub const NAME_BYTES_MAX: usize = 100;
/// Arguments of a program.
pub const ARGS_MAX: usize = 256;
/// Longest argument after substitution, in bytes.
pub const ARG_BYTES_MAX: usize = 4096;
/// All arguments of one work unit after substitution, in bytes: a full message of leases
/// stays under [`WORK_MESSAGE_BYTES_MAX`].
pub const UNIT_ARGS_BYTES_MAX: usize = 12 << 10;
/// Parameters of a sweep.
pub const SWEEP_PARAMETERS_MAX: usize = 16;
/// Listed values of one sweep parameter.
pub const SWEEP_VALUES_MAX: usize = 10_000;
/// Work units of one job.
pub const JOB_UNITS_MAX: u64 = 100_000_000;
/// Stages of one job after the first.
pub const STAGES_MAX: usize = 16;
/// Outputs that a work unit of a later stage takes.
pub const FAN_IN_MAX: u32 = 64;
/// Longest permission to have the outputs of others, in bytes: [`FAN_IN_MAX`] links in a signed
/// envelope.
pub const PERMISSION_BYTES_MAX: usize = 4 << 10;
/// A link to a block in DAG-CBOR, in bytes.
pub const LINK_BYTES: usize = 41;
/// Replicas of one work unit in all (BOINC: `MAX_WU_RESULTS`).
pub const UNIT_REPLICAS_MAX: u32 = 100;

/// Results that policy `audited` holds in one lot: one step of the coordinator accepts them
/// all.
pub const LOT_RESULTS_MAX: u32 = 4096;
/// Longest name of an operator, an operating system or a CPU vendor, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;

/// Longest message between a node and a coordinator, in bytes.
pub const WORK_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Leases asked for or given in one message.
pub const LEASES_MAX: usize = 256;
/// Results reported in one message, and so under one signature.
pub const REPORTS_MAX: usize = 256;
/// Results under one signature in a receipt: room for longer reports.
pub const BATCH_RESULTS_MAX: usize = 1024;
/// Longest statement of a result, in bytes; three identifiers and a handful of numbers.
pub const RESULT_BYTES_MAX: usize = 1 << 10;
/// Longest result together with what proves it, in bytes: the statement, ten hashes and a
/// signed root.
pub const SEALED_RESULT_BYTES_MAX: usize = 2 << 10;
/// Blocks about which a node is asked at once whether it holds them: a list of 32 KiB, answered
/// with 128 bytes.
pub const SWARM_LIST_MAX: usize = 1024;
/// Members of a swarm that are told in one message.
pub const SWARM_MEMBERS_MAX: usize = 16;
/// Longest message in a swarm, in bytes: a full list, or all members with the longest addresses.
pub const SWARM_MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Replicas named in one heartbeat.
pub const HEARTBEAT_REPLICAS_MAX: usize = 4096;
/// Dataset roots a node names as cached.
pub const CACHED_ROOTS_MAX: usize = 1024;
/// Providers hinted for one dataset.
pub const HINT_PEERS_MAX: usize = 8;
/// Addresses hinted for one provider.
pub const HINT_ADDRESSES_MAX: usize = 8;
/// Longest address of a provider, in bytes.
pub const HINT_ADDRESS_BYTES_MAX: usize = 256;
/// Running jobs of which a node is told why it gets nothing of them: more than anybody reads.
pub const EXPLAINED_JOBS_MAX: usize = 32;
/// Reasons that are told at once: there are no more kinds.
pub const EXPLAINED_REASONS_MAX: usize = 16;
/// Longest tail of a program's output that travels with a result, in bytes.
pub const LOG_TAIL_BYTES_MAX: usize = 4096;
/// All blocks of an output that travels with its result, in bytes: a manifest takes some 250,
/// and a full report stays well under [`WORK_MESSAGE_BYTES_MAX`].
pub const INLINE_OUTPUT_BYTES_MAX: usize = 1 << 10;
/// Blocks of an output that travels with its result: a root, a page, and a few files.
pub const INLINE_OUTPUT_BLOCKS_MAX: usize = 8;
/// Longest description of a node's software, in bytes.
pub const AGENT_BYTES_MAX: usize = 128;
/// Longest signed announcement on gossipsub, in bytes.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 4096;
/// Largest signed envelope, in bytes: the longest job stays well under it.
pub const ENVELOPE_BYTES_MAX: usize = 4 << 20;

/// Hashes in a proof about the log: a log of 2^62 entries needs no more.
pub const LOG_PATH_MAX: usize = 64;
/// Longest notice of a signed head on gossipsub or in a file, in bytes: a charter, a head,
/// and a proof of [`LOG_PATH_MAX`] hashes.
pub const HEAD_NOTICE_BYTES_MAX: usize = 4096;
/// Heads about which a node asks at once: the newest that it knows, and one that it heard of.
pub const HEADS_ASKED_MAX: usize = 2;
/// Largest file of a receipt, in bytes: the longest job, the results of all replicas that a
/// work unit can have, and an eighth of that for the map.
pub const RECEIPT_BYTES_MAX: usize = 12 << 20;
