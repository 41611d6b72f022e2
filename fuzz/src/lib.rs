//! Fuzz targets: every decoder of bytes that a stranger can send, or that lie on a disk.
//!
//! A target takes any bytes and says whether they were a valid value. What must hold of
//! whatever comes is asserted in it: nothing panics, what was decoded is encoded to the very
//! bytes that it came from, and what was signed opens again.
//!
//! `fuzz_targets/` has a program for each, made for `cargo fuzz`; `corpus/` has what these
//! found worth keeping, one folder a target, and `tests/replay.rs` gives it to the targets in
//! every run of the tests.
//!
//! # Bounds
//!
//! Bytes longer than a decoder's own bound are refused by it; nothing else is bounded here.

mod files;
mod frames;
mod manifests;
mod statements;
mod texts;

pub use texts::specification;

/// A decoder and what must hold of it. Says whether the bytes were a valid value.
pub type Target = fn(&[u8]) -> bool;

/// Every target, by the name of its program and of the folder of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("chunk_page", manifests::chunk_page),
    ("chunk_stream", frames::chunk_stream),
    ("comparison", files::comparison),
    ("dataset_page", manifests::page),
    ("dataset_root", manifests::root),
    ("framed", frames::framed),
    ("head_notice", statements::head_notice),
    ("inline_output", manifests::inline_output),
    ("job_file", texts::job_file),
    ("join_link", texts::join_link),
    ("receipt", files::receipt),
    ("record", files::record),
    ("report", statements::report),
    ("result", statements::result),
    ("statement", statements::statement),
    ("swarm_message", frames::swarm_message),
    ("work_request", frames::work_request),
    ("work_response", frames::work_response),
];

/// Gives bytes to the target of that name.
///
/// # Panics
/// If there is no such target, or if what must hold does not.
pub fn run(name: &str, bytes: &[u8]) -> bool {
    let known = TARGETS.iter().find(|(target, _)| *target == name);
    let (_, target) = known.expect("a target of that name");
    target(bytes)
}
