//! Blocks in and out: fetched from many peers at once, verified, and served to others.
//!
//! # Shape
//!
//! ```text
//! Exchange::fetch ──► session (one a dataset) ──► Scheduler: which block of whom   (pure)
//!                        │   │    │
//!                        │   │    └─► link (one a peer): a pipelined stream ──► peer's Server
//!                        │   └─► members: who has what, and who else wants it ──► peer's Swarms
//!                        └─► Store::put: verified with BLAKE3, then written
//!
//! peer's link ──► Server::serve ──► Authorise ──► Slots ──► Store::block ──► answer
//! peer's members ──► Exchange::tell ──► Swarms: maps and members ──► answer
//! ```
//!
//! | Module | What it does |
//! |---|---|
//! | [`dockercomp_exchange_core`] | decides; no clock, no socket, no disk |
//! | [`Exchange`] | the entry: fetches datasets, several callers share one session |
//! | [`Server`] | answers peers |
//! | [`Door`] | where it answers near peers without encryption |
//! | [`Traffic`] | who sent how much |
//! | [`Volume`] | how much may pass in a month |
//! | [`Dial`], [`Discover`], [`Authorise`], [`Elsewhere`] | what it needs from its surroundings |
//!
//! # Invariants
//!
//! - A byte is verified before it is stored, and nothing unverified is shown to anybody.
//! - A block comes from one peer, so a wrong one has exactly one author, who is named to the
//!   caller and not asked again in that session.
//! - A length is checked before memory is given to it.
//! - What was stored stays: a fetch that failed or was cut off goes on where it ended.
//!
//! # What is not here
//!
//! Single flight is by dataset: two datasets that share a chunk and are fetched at the same
//! moment may both ask for it.

// An error here ends a fetch or a stream: its size costs nothing that matters.
#![allow(clippy::result_large_err)]

mod client;
mod dial;
mod error;
mod link;
mod network;
mod options;
mod plain;
mod rate;
mod server;
mod session;
mod swarms;
mod traffic;
mod volume;

pub use client::Exchange;
pub use dial::{Dial, DialError, Discover, Protocol};
pub use dockercomp_exchange_core::scheduler;
pub use error::{FetchError, LinkError, ServeError};
pub use network::provider_key;
pub use options::{FetchOptions, Fetched, Options, Progress};
pub use plain::Door;
pub use rate::Rates;
pub use server::{Authorise, Elsewhere, Patience, Server};
pub use traffic::{PeerTraffic, Snapshot, Traffic};
pub use volume::{Used, Volume};

/// Requests that are open on one stream at once. A client keeps to it, and a server answers
/// more with `Busy`.
pub const OPEN_MAX: usize = 64;
