//! Deliberate defects: a checker that cannot fail proves nothing.
//!
//! Each breaks one promise of the shell around the core, in the way in which a real mistake
//! would. The tests demand that every one of them is found, and by the checker it concerns;
//! `dockercomp-sim --defect NAME` shows it to anybody.

use serde::{Deserialize, Serialize};

/// One broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Defect {
    /// The disk says that a batch is safe and loses it when the coordinator crashes.
    LyingDisk,
    /// Answers leave before what they rest on is durable.
    EarlyAnswers,
    /// Nobody checks whether the sender of a result is the node that it names.
    StolenNames,
    /// The shell tells the core that one result is enough, whatever the owner signed.
    QuorumOfOne,
    /// Nodes get a new identity with every start, so none is known again.
    NewNames,
    /// The shell never tells the core that a deadline has come.
    LostDeadlines,
    /// After a crash the shell does not resume the core, so nobody asks for what is owed.
    NoResume,
}
