//! The core, told as stories.
//!
//! Every story runs in a [`env::TestEnv`], which rejects effects that the story does not
//! expect, and which at the end replays the story's journal into a fresh core and compares.

pub(crate) mod env;
mod leases;
mod policies;
mod properties;
mod quorum;
mod records;
mod reports;
mod restart;
mod snapshots;
mod stages;
mod town;
mod trust;
mod validator;
mod witness;
mod world;
