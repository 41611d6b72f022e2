//! What happened: a hash of everything, and a story for those who ask.
//!
//! Every event and every decision is one [`Trace::note`]. Two runs with the same hash took the
//! same way; where two differ, their stories show the first line that does.

use std::fmt;

use crate::moment::Moment;

/// Bytes that are gathered before they are hashed: hashing long pieces is cheap.
const GATHER_BYTES: usize = 64 << 10;

/// What a note is about. The names are those of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum What {
    JobSubmitted,
    JobCancelled,
    JobEnded,
    HostCrashes,
    HostDeparts,
    HostReturns,
    HostWakes,
    CoordinatorCrashes,
    CoordinatorReturns,
    BatchKept,
    BatchLost,
    Committed,
    Asked,
    Answered,
    AnswerLost,
    TimedOut,
    Fetched,
    Started,
    Finished,
    Aborted,
    Granted,
    Verdict,
    Accepted,
    OutputPulled,
    OutputMissing,
    Announced,
    Forgotten,
    FaultsEnd,
    Violated,
    OutputLost,
}

/// The sink of notes.
pub(crate) struct Trace<'a> {
    hasher: blake3::Hasher,
    gathered: Vec<u8>,
    tell: Option<&'a mut dyn FnMut(&str)>,
}

impl<'a> Trace<'a> {
    pub(crate) fn new(tell: Option<&'a mut dyn FnMut(&str)>) -> Self {
        let hasher = blake3::Hasher::new();
        Self { hasher, gathered: Vec::with_capacity(GATHER_BYTES + 64), tell }
    }

    /// Notes that `what` happened. What the three numbers are, depends on `what`: mostly
    /// host, replica, and one more.
    pub(crate) fn note(&mut self, now: Moment, what: What, about: [u64; 3]) {
        self.gathered.extend_from_slice(&now.0.to_le_bytes());
        self.gathered.push(what as u8);
        for number in about {
            self.gathered.extend_from_slice(&number.to_le_bytes());
        }
        if self.gathered.len() >= GATHER_BYTES {
            self.hasher.update(&self.gathered);
            self.gathered.clear();
        }
        if let Some(tell) = &mut self.tell {
            let [first, second, third] = about;
            tell(&format!("{now} {what:?} {first} {second} {third}"));
        }
    }

    /// Adds a line to the story only.
    pub(crate) fn remark(&mut self, now: Moment, remark: &dyn fmt::Display) {
        if let Some(tell) = &mut self.tell {
            tell(&format!("{now} {remark}"));
        }
    }

    /// The hash of all notes.
    pub(crate) fn finish(mut self) -> blake3::Hash {
        self.hasher.update(&self.gathered);
        self.hasher.finalize()
    }
}
