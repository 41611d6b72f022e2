//! How far adding a folder is, for whoever waits for it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::AddOptions;
use crate::source::SourceFile;

/// How far adding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Bytes done in this step.
    pub bytes: u64,
    /// Bytes of the whole source.
    pub bytes_total: u64,
    /// Files of the whole source.
    pub files_total: u64,
}

/// What is being done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The chunks are named.
    Hash,
    /// The chunks are stored.
    Store,
}

/// Tells the caller how far a step is.
pub(crate) struct Report<'a> {
    options: &'a AddOptions,
    step: Step,
    bytes: AtomicU64,
    bytes_total: u64,
    files_total: u64,
}

impl<'a> Report<'a> {
    pub(crate) fn new(step: Step, sources: &[SourceFile], options: &'a AddOptions) -> Self {
        let bytes_total = sources.iter().map(|source| source.size).sum();
        let files_total = sources.len() as u64;
        Self { options, step, bytes: AtomicU64::new(0), bytes_total, files_total }
    }

    /// So many bytes more are done.
    pub(crate) fn done(&self, bytes: u64) {
        let Self { step, bytes_total, files_total, .. } = *self;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(progress) = &self.options.progress {
            progress(Progress { step, bytes, bytes_total, files_total });
        }
    }
}
