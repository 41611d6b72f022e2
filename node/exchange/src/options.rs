//! What can be chosen about fetching, and what comes out of it.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use dockercomp_protocol::NodeId;
use tokio::sync::watch;

use crate::dial::Discover;
use crate::rate::Rates;
use crate::scheduler;
use crate::volume::Volume;

/// What holds for all fetches of one [`crate::Exchange`].
#[derive(Clone)]
pub struct Options {
    /// Most requests that one peer has open at once, for each dataset.
    pub blocks_per_peer: usize,
    /// Most blocks of one dataset that are asked for or in memory.
    pub blocks_in_flight: usize,
    /// How long opening a stream may take.
    pub dial_timeout: Duration,
    /// A peer that owes answers and gives no whole one for this long is taken for gone.
    pub silence_max: Duration,
    /// For how long a peer that says it is busy is left alone.
    pub busy_pause: Duration,
    /// The pause before peers that failed are tried again; it doubles from time to time.
    pub retry_first: Duration,
    /// The longest such pause.
    pub retry_max: Duration,
    /// Whether blocks of near peers are fetched over plain TCP where they offer it.
    pub plain: bool,
    /// Limits of bandwidth.
    pub rates: Rates,
    /// A limit for a month.
    pub volume: Option<Arc<Volume>>,
    /// A stream that nobody needs is closed after this time.
    pub link_idle: Duration,
    /// Breaks ties between peers. By default it differs from process to process.
    pub seed: u64,
    /// Where more providers are learned of.
    pub discover: Option<Arc<dyn Discover>>,
}

impl Default for Options {
    fn default() -> Self {
        let scheduler::Options { per_peer, total, silence_max, busy_pause, .. } =
            scheduler::Options::default();
        Self {
            blocks_per_peer: per_peer,
            blocks_in_flight: total,
            dial_timeout: Duration::from_secs(20),
            silence_max,
            busy_pause,
            retry_first: Duration::from_secs(1),
            retry_max: Duration::from_secs(15),
            plain: true,
            rates: Rates::default(),
            volume: None,
            link_idle: Duration::from_secs(30),
            seed: RandomState::new().hash_one(0),
            discover: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("blocks_per_peer", &self.blocks_per_peer)
            .field("blocks_in_flight", &self.blocks_in_flight)
            .field("silence_max", &self.silence_max)
            .finish_non_exhaustive()
    }
}

impl Options {
    pub(crate) fn scheduler(&self) -> scheduler::Options {
        scheduler::Options {
            per_peer: self.blocks_per_peer.max(1),
            total: self.blocks_in_flight.max(1),
            silence_max: self.silence_max,
            busy_pause: self.busy_pause,
            seed: self.seed,
        }
    }
}

/// What one caller of [`crate::Exchange::fetch`] chooses.
#[derive(Debug)]
pub struct FetchOptions {
    /// How long the fetch goes on without storing anything before it gives up.
    pub patience: Duration,
    /// Where to say how far it is.
    pub progress: Option<watch::Sender<Progress>>,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self { patience: Duration::from_secs(120), progress: None }
    }
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of files that have come since the fetch began. At the end it jumps to the total:
    /// what was here before, or occurs more than once, is not fetched.
    pub done_bytes: u64,
    /// Bytes of the wanted files, once the manifest says so.
    pub total_bytes: Option<u64>,
}

/// What a fetch brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Blocks that came and were stored, those of the manifest included.
    pub n_blocks: u64,
    /// Their bytes, by the peer that sent them.
    pub bytes_by_peer: BTreeMap<NodeId, u64>,
    /// Peers that sent wrong bytes or broke the protocol meanwhile. Callers that share a session
    /// are all told.
    pub liars: Vec<NodeId>,
}
