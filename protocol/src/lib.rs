//! The words of dockerComp: everything that two processes, or two people, must agree on.
//!
//! | Module | What it says |
//! |---|---|
//! | [`content`], [`codec`] | content identifiers and canonical DAG-CBOR |
//! | [`manifest`] | datasets: files, chunks, pages |
//! | [`inline`] | small outputs that travel inside a report |
//! | [`job`] | the job file people write, and the specification owners sign |
//! | [`mod@unit`], [`layout`] | how a job becomes work units, lazily, and which take the outputs of which |
//! | [`execution`] | limits, exits, usage |
//! | [`envelope`], [`statement`] | signed statements: charters, results, receipts |
//! | [`batch`], [`merkle`] | many results under one signature |
//! | [`receipt`] | receipts, their form in a file, and their offline check |
//! | [`log`] | the Merkle log of accepted work units, its signed heads and proofs |
//! | [`wire`] | messages between nodes and coordinators |
//! | [`link`] | the join link |
//! | [`limits`] | every bound, with unit and reason |
//!
//! # What is not here
//!
//! - No socket, disk, clock or randomness: bytes in, values out.
//! - No decisions: who gets work and which result counts is the coordinator core's.
//!
//! # Invariants
//!
//! - Whatever is hashed or signed has exactly one encoding; [`codec::decode`] refuses all others.
//! - Whatever a peer can send is bounded before it is allocated.

pub mod batch;
pub mod codec;
pub mod content;
pub mod envelope;
pub mod execution;
pub mod ids;
pub mod inline;
pub mod job;
pub mod layout;
pub mod limits;
pub mod link;
pub mod log;
pub mod manifest;
pub mod merkle;
pub mod receipt;
pub mod statement;
pub mod time;
pub mod unit;
pub mod wire;

pub use cid::Cid;
pub use ids::{NodeId, ReplicaId};
pub use time::Timestamp;
