//! What a program writes, its output and its checkpoint: measured while it runs, judged when it
//! has ended.
//!
//! While it runs, only sizes count, for a program may make and remove what it likes; both
//! directories count together. When it has ended, every entry of the output must be a plain file
//! or a directory with a UTF-8 name, and permissions are set to plain ones so that the node can
//! read and remove what the program left.
//! A checkpoint may hold anything that fits: it is no part of the result, nobody but the program
//! opens what is in it, and links are neither followed nor changed.
//!
//! # Bounds
//!
//! A walk ends at the first violation, so it visits at most `output_files` entries.
//! Space held by files that were removed but are still open is not seen; it is given back when
//! the program ends, and the wall-clock limit bounds how long that takes.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dockercomp_protocol::execution::{Exit, Limits};

use crate::work::Run;

/// The directories that a program may write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) output: PathBuf,
    pub(crate) checkpoint: PathBuf,
}

impl Written {
    pub(crate) fn by(run: &Run) -> Self {
        Self { output: run.output.clone(), checkpoint: run.checkpoint.clone() }
    }
}

/// How a program's output or checkpoint breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Too many bytes or too many entries.
    TooLarge,
    /// An entry that cannot be part of a result.
    Refused,
}

impl From<Violation> for Exit {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::TooLarge => Self::OutputTooLarge,
            Violation::Refused => Self::OutputRefused,
        }
    }
}

/// Measures the directories again and again; ends when they break the rules.
pub(crate) async fn watch(written: Written, limits: Limits) -> Violation {
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let (written, limits) = (written.clone(), limits.clone());
        let measured =
            tokio::task::spawn_blocking(move || walk(&written, &limits, Phase::Running)).await;
        match measured {
            Ok(Ok(Err(violation))) => return violation,
            Ok(Ok(Ok(()))) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "what the program writes could not be measured")
            }
            // The runtime is stopping, and this task with it.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Judges the directories of a program that has ended, and makes them readable.
///
/// Nobody else may write to them any more: paths are trusted between two system calls.
pub(crate) async fn seal(written: Written, limits: Limits) -> io::Result<Result<(), Violation>> {
    tokio::task::spawn_blocking(move || walk(&written, &limits, Phase::Ended))
        .await
        .map_err(io::Error::other)?
}

/// Whether the program may still change the directories.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Ended,
}

/// Whether every entry of a directory must be one that a result can have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Plain,
    Any,
}

fn walk(written: &Written, limits: &Limits, phase: Phase) -> io::Result<Result<(), Violation>> {
    let mut total = Total::default();
    for (root, content) in [(&written.output, Content::Plain), (&written.checkpoint, Content::Any)]
    {
        if let Err(violation) = add_up(root, content, limits, phase, &mut total)? {
            return Ok(Err(violation));
        }
    }
    Ok(Ok(()))
}

fn add_up(
    root: &Path,
    content: Content,
    limits: &Limits,
    phase: Phase,
    total: &mut Total,
) -> io::Result<Result<(), Violation>> {
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        if phase == Phase::Ended {
            set_mode(&directory, DIRECTORY_MODE)?;
        }
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // It belongs to the program, which may have closed it to everybody.
            Err(error) if directory == root && error.kind() != io::ErrorKind::PermissionDenied => {
                return Err(error);
            }
            Err(error) => match judge_unreadable(&error, phase) {
                Some(violation) => return Ok(Err(violation)),
                None => continue,
            },
        };
        for entry in entries {
            let (path, metadata) = match entry.and_then(|e| Ok((e.path(), e.metadata()?))) {
                Ok(entry) => entry,
                Err(error) => match judge_unreadable(&error, phase) {
                    Some(violation) => return Ok(Err(violation)),
                    None => continue,
                },
            };
            total.add(&metadata);
            if total.exceeds(limits) {
                return Ok(Err(Violation::TooLarge));
            }
            let is_judged = phase == Phase::Ended && content == Content::Plain;
            if is_judged && !is_plain(&path, &metadata) {
                return Ok(Err(Violation::Refused));
            }
            if metadata.is_dir() {
                directories.push(path);
            } else if is_judged {
                set_mode(&path, FILE_MODE)?;
            }
        }
    }
    Ok(Ok(()))
}

/// What an unreadable entry means: nothing when the program has just removed it; otherwise it
/// could hide any amount of data.
fn judge_unreadable(error: &io::Error, phase: Phase) -> Option<Violation> {
    let vanished = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    if vanished && phase == Phase::Running { None } else { Some(Violation::Refused) }
}

fn is_plain(path: &Path, metadata: &Metadata) -> bool {
    let has_plain_name = path.file_name().is_some_and(|name| name.to_str().is_some());
    has_plain_name && (metadata.is_file() || metadata.is_dir())
}

/// Sets plain permissions; set-user-id bits go with it.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[derive(Default)]
struct Total {
    bytes: u64,
    /// Space on disk. It differs from `bytes` by rounding, or because a program reserved more.
    allocated_bytes: u64,
    entries: u32,
}

impl Total {
    fn add(&mut self, metadata: &Metadata) {
        self.entries = self.entries.saturating_add(1);
        if metadata.is_file() {
            self.bytes = self.bytes.saturating_add(metadata.len());
            self.allocated_bytes =
                self.allocated_bytes.saturating_add(metadata.blocks().saturating_mul(BLOCK_BYTES));
        }
    }

    fn exceeds(&self, limits: &Limits) -> bool {
        let rounding = u64::from(self.entries).saturating_mul(ROUNDING_BYTES);
        self.entries > limits.output_files
            || self.bytes > limits.output_bytes
            || self.allocated_bytes > limits.output_bytes.saturating_add(rounding)
    }
}

/// Time between two measurements.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// Permissions of files in a finished output.
const FILE_MODE: u32 = 0o644;
/// Permissions of directories in a finished output.
const DIRECTORY_MODE: u32 = 0o755;
/// Unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;
/// What file systems may round the size of one file up by; generous, because exceeding it must
/// mean intent and not an unusual file system.
const ROUNDING_BYTES: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn limits(bytes: u64, files: u32) -> Limits {
        Limits {
            cpu_millis: 1000,
            memory_bytes: 1,
            tmp_bytes: 1,
            output_bytes: bytes,
            output_files: files,
            pids: 1,
            wall_ms: 1,
        }
    }

    /// Judges an output beside an empty checkpoint.
    fn judge(root: &Path, bytes: u64, files: u32, phase: Phase) -> Result<(), Violation> {
        let checkpoint = tempfile::tempdir().expect("temporary directory");
        judge_both(root, checkpoint.path(), bytes, files, phase)
    }

    fn judge_both(
        output: &Path,
        checkpoint: &Path,
        bytes: u64,
        files: u32,
        phase: Phase,
    ) -> Result<(), Violation> {
        let written = Written { output: output.into(), checkpoint: checkpoint.into() };
        walk(&written, &limits(bytes, files), phase).expect("the directories are readable")
    }

    #[test]
    fn limits_are_inclusive() {
        let root = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(root.path().join("d")).expect("directory");
        fs::write(root.path().join("d/f"), [0; 100]).expect("file");
        for phase in [Phase::Running, Phase::Ended] {
            assert_eq!(judge(root.path(), 100, 2, phase), Ok(()));
            assert_eq!(judge(root.path(), 99, 2, phase), Err(Violation::TooLarge));
            assert_eq!(judge(root.path(), 100, 1, phase), Err(Violation::TooLarge));
        }
    }

    #[test]
    fn a_sparse_file_counts_with_its_length() {
        let root = tempfile::tempdir().expect("temporary directory");
        let file = fs::File::create(root.path().join("f")).expect("file");
        file.set_len(1 << 40).expect("sparse file");
        assert_eq!(judge(root.path(), 1 << 30, 9, Phase::Running), Err(Violation::TooLarge));
    }

    #[test]
    fn links_and_foreign_names_are_refused_at_the_end_only() {
        let root = tempfile::tempdir().expect("temporary directory");
        symlink("/etc/passwd", root.path().join("link")).expect("link");
        assert_eq!(judge(root.path(), 9, 9, Phase::Running), Ok(()));
        assert_eq!(judge(root.path(), 9, 9, Phase::Ended), Err(Violation::Refused));

        let root = tempfile::tempdir().expect("temporary directory");
        fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"\xff")), []).expect("file");
        assert_eq!(judge(root.path(), 9, 9, Phase::Ended), Err(Violation::Refused));
    }

    /// A link that leads out of the directory must not be followed while sizes are added up.
    #[test]
    fn links_are_not_followed() {
        let outside = tempfile::tempdir().expect("temporary directory");
        fs::write(outside.path().join("big"), [0; 5000]).expect("file");
        let root = tempfile::tempdir().expect("temporary directory");
        symlink(outside.path(), root.path().join("link")).expect("link");
        assert_eq!(judge(root.path(), 100, 9, Phase::Running), Ok(()));
    }

    #[test]
    fn output_and_checkpoint_count_together() {
        let [output, checkpoint] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        fs::write(output.path().join("f"), [0; 60]).expect("file");
        fs::write(checkpoint.path().join("f"), [0; 40]).expect("file");
        let (output, checkpoint) = (output.path(), checkpoint.path());
        for phase in [Phase::Running, Phase::Ended] {
            let judge = |bytes, files| judge_both(output, checkpoint, bytes, files, phase);
            assert_eq!(judge(100, 2), Ok(()));
            assert_eq!(judge(99, 2), Err(Violation::TooLarge));
            assert_eq!(judge(100, 1), Err(Violation::TooLarge));
        }
    }

    /// They are counted, and neither followed nor refused: no result has them.
    #[test]
    fn links_in_a_checkpoint_lead_nowhere() {
        let [output, checkpoint, outside] =
            [(); 3].map(|()| tempfile::tempdir().expect("a directory"));
        let secret = outside.path().join("secret");
        fs::write(&secret, [0; 5000]).expect("file");
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("mode");
        fs::set_permissions(outside.path(), Permissions::from_mode(0o700)).expect("mode");
        symlink(&secret, checkpoint.path().join("file")).expect("link");
        symlink(outside.path(), checkpoint.path().join("directory")).expect("link");
        let (output, checkpoint) = (output.path(), checkpoint.path());
        for phase in [Phase::Running, Phase::Ended] {
            assert_eq!(judge_both(output, checkpoint, 9, 2, phase), Ok(()));
            assert_eq!(judge_both(output, checkpoint, 9, 1, phase), Err(Violation::TooLarge));
        }
        assert_eq!(fs::metadata(&secret).expect("metadata").mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(outside.path()).expect("metadata").mode() & 0o7777, 0o700);
    }

    #[test]
    fn the_end_makes_everything_plain() {
        let root = tempfile::tempdir().expect("temporary directory");
        let (dir, file) = (root.path().join("d"), root.path().join("d/f"));
        fs::create_dir(&dir).expect("directory");
        fs::write(&file, "x").expect("file");
        fs::set_permissions(&file, Permissions::from_mode(0o4000)).expect("mode");
        fs::set_permissions(&dir, Permissions::from_mode(0o000)).expect("mode");
        assert_eq!(judge(root.path(), 100, 9, Phase::Ended), Ok(()));
        assert_eq!(fs::metadata(&dir).expect("metadata").mode() & 0o7777, DIRECTORY_MODE);
        assert_eq!(fs::metadata(&file).expect("metadata").mode() & 0o7777, FILE_MODE);
    }
}
