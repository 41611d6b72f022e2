//! Where replicas run: a folder each, below `work` in the node's data directory.
//!
//! ```text
//! work/<project>-<replica>/input, output                  made afresh for every attempt
//! work/<project>-<replica>/checkpoint-<executor>-<unit>   kept while the lease is on the desk
//! ```
//!
//! A checkpoint belongs to one work unit and one executor: another image or module of the same
//! job may write another format, or go on to other bytes.
//!
//! # Crash behaviour
//!
//! Whatever a crash leaves is in this folder, and [`clear`] removes all of it at the next start
//! but the checkpoints of replicas that will be started again. A checkpoint is removed after it
//! is durable that its replica will not be.
//!
//! # What programs leave
//!
//! Files of a stranger's program: nothing here opens one or follows a link. Only folders'
//! permissions are changed, since files of an input are the store's own. All calls block.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::ids::ProjectId;
use dockercomp_protocol::{Cid, ReplicaId};

/// Where one replica runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workplace {
    folder: PathBuf,
    checkpoint: String,
}

impl Workplace {
    /// The place of a replica of this unit in a node's data directory.
    pub(crate) fn new(
        dir: &Path,
        project: &ProjectId,
        replica: ReplicaId,
        executor: ExecutorKind,
        unit: &Cid,
    ) -> Self {
        let checkpoint = format!("checkpoint-{executor}-{unit}");
        Self { folder: folder(dir, project, replica), checkpoint }
    }

    pub(crate) fn input(&self) -> PathBuf {
        self.folder.join("input")
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.folder.join("output")
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.folder.join(&self.checkpoint)
    }

    /// Whether an earlier attempt left something to go on from.
    pub(crate) fn has_checkpoint(&self) -> bool {
        fs::read_dir(self.checkpoint()).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Makes an empty input and an empty output, and a checkpoint if there is none.
    pub(crate) fn make(&self) -> io::Result<()> {
        self.tidy()?;
        fs::create_dir_all(self.checkpoint())?;
        fs::create_dir(self.input())?;
        fs::create_dir(self.output())
    }

    /// Removes all but the checkpoint.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        for entry in entries(&self.folder)? {
            let entry = entry?;
            if entry.file_name() != OsStr::new(&self.checkpoint) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// The folder of a replica. Coordinators number their replicas alike, so the project is part of
/// its name.
pub(crate) fn folder(dir: &Path, project: &ProjectId, replica: ReplicaId) -> PathBuf {
    dir.join("work").join(name(project, replica))
}

/// What a replica is called on this node. A part of the project's id would not do: whoever tries
/// enough keys has one that ends alike.
pub(crate) fn name(project: &ProjectId, replica: ReplicaId) -> String {
    format!("{project}-{replica}")
}

/// Removes what runs of an earlier life left, but for the checkpoints of these places; and
/// programs, which are laid out again when they are needed.
///
/// What cannot be removed does not keep the rest there; the last error is given.
pub(crate) fn clear(dir: &Path, kept: &[Workplace]) -> io::Result<()> {
    let mut result = Ok(());
    for entry in entries(&dir.join("work"))? {
        let path = entry?.path();
        let place = kept.iter().find(|place| place.folder == path && place.has_checkpoint());
        let removed = place.map_or_else(|| remove(&path), Workplace::tidy);
        result = removed.and(result);
    }
    match fs::remove_dir_all(dir.join("programs")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => result,
    }
}

/// Removes programs that are laid out and not needed, and names them.
pub(crate) fn forget_programs(dir: &Path, is_needed: impl Fn(&Cid) -> bool) -> Vec<String> {
    let dir = dir.join("programs");
    let Ok(programs) = entries(&dir) else { return Vec::new() };
    let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut gone: Vec<String> = programs.filter_map(name).collect();
    // What is just being laid out has another name.
    gone.retain(|name| name.parse().is_ok_and(|program| !is_needed(&program)));
    gone.retain(|name| match fs::remove_dir_all(dir.join(name)) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, program = name, "a program was not removed");
            false
        }
    });
    gone
}

/// The entries of a folder that may not be there.
fn entries(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        Err(error) => Err(error),
    }
}

/// Removes a folder, or whatever else is there, with all in it; it may not be there at all.
///
/// A program may have closed its folders to everybody, or put more of them into each other than
/// a path can name, a process can have open, or a stack can hold. So each is taken out of the
/// one that it is in, into one of our own, before it is looked into: there nobody can put a link
/// in its place any more.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let heap = make_heap(path)?;
    let mut waiting = Vec::new();
    let mut n_taken = 0u64;
    let mut take = |folder: &Path, waiting: &mut Vec<PathBuf>| {
        let taken = heap.join(n_taken.to_string());
        n_taken += 1;
        if let Err(error) = fs::rename(folder, &taken) {
            if error.kind() != io::ErrorKind::PermissionDenied {
                return Err(error);
            }
            // Only an owner who may write to a folder may move it; root always may.
            fs::set_permissions(folder, open())?;
            fs::rename(folder, &taken)?;
        }
        waiting.push(taken);
        Ok(())
    };
    take(path, &mut waiting)?;
    while let Some(folder) = waiting.pop() {
        if !fs::symlink_metadata(&folder)?.is_dir() {
            fs::remove_file(&folder)?;
            continue;
        }
        fs::set_permissions(&folder, open())?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                take(&entry.path(), &mut waiting)?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        fs::remove_dir(&folder)?;
    }
    fs::remove_dir(&heap)
}

/// Makes a folder beside this one. An earlier life may have left some of the same number.
fn make_heap(path: &Path) -> io::Result<PathBuf> {
    loop {
        let heap = path.with_file_name(format!(".removed-{:016x}", unique()));
        match fs::create_dir(&heap) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| heap),
        }
    }
}

/// Permissions of a folder that its owner can empty.
fn open() -> Permissions {
    Permissions::from_mode(0o700)
}

/// A number that no other call in this process gets.
pub(crate) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    u64::from(std::process::id()) << 32 | NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use dockercomp_protocol::content::block_cid;

    use super::*;

    fn project() -> ProjectId {
        // An identity hash is a peer id.
        ProjectId::from_bytes(b"\x00\x07project").expect("an identity hash")
    }

    fn place(dir: &Path, replica: u64, executor: ExecutorKind, unit: &[u8]) -> Workplace {
        Workplace::new(dir, &project(), ReplicaId(replica), executor, &block_cid(unit))
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> =
            entries.map(|entry| name(entry).into_string().expect("a plain name")).collect();
        names.sort();
        names
    }

    #[test]
    fn only_the_checkpoint_is_there_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = place(dir.path(), 1, ExecutorKind::Wasm, b"unit");
        place.make().expect("folders");
        assert!(!place.has_checkpoint());
        for folder in [place.input(), place.output(), place.checkpoint()] {
            fs::write(folder.join("file"), "left").expect("a file");
        }
        place.make().expect("folders");
        assert!(place.has_checkpoint());
        assert!(names(&place.input()).is_empty());
        assert!(names(&place.output()).is_empty());
        assert_eq!(names(&place.checkpoint()), ["file"]);
        place.tidy().expect("it is removed");
        assert_eq!(names(&place.folder), [place.checkpoint.as_str()]);
    }

    /// Another unit that came to be numbered alike, or another executor, begins from nothing.
    #[test]
    fn a_checkpoint_is_of_one_unit_and_one_executor() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = place(dir.path(), 1, ExecutorKind::Wasm, b"unit");
        first.make().expect("folders");
        fs::write(first.checkpoint().join("file"), "left").expect("a file");
        for other in [
            place(dir.path(), 1, ExecutorKind::Docker, b"unit"),
            place(dir.path(), 1, ExecutorKind::Docker, b"another"),
        ] {
            assert!(!other.has_checkpoint());
            other.make().expect("folders");
            assert_eq!(names(&other.folder), [&other.checkpoint, "input", "output"]);
        }
    }

    #[test]
    fn programs_that_are_not_needed_give_their_room_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let [old, new] = ["old", "new"].map(|name| block_cid(name.as_bytes()));
        let programs = dir.path().join("programs");
        let half_way = format!("{new}.0000000000000001");
        for name in [old.to_string(), new.to_string(), half_way.clone()] {
            fs::create_dir_all(programs.join(&name)).expect("a folder");
            fs::write(programs.join(name).join("file"), "program").expect("a file");
        }
        assert_eq!(forget_programs(dir.path(), |program| *program == new), [old.to_string()]);
        assert_eq!(names(&programs), [new.to_string(), half_way]);
        assert!(forget_programs(&dir.path().join("nowhere"), |_| false).is_empty());
    }

    #[test]
    fn a_start_keeps_checkpoints_of_known_leases_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let [saved, unsaved, unknown] =
            [1, 2, 3].map(|replica| place(dir.path(), replica, ExecutorKind::Docker, b"unit"));
        for place in [&saved, &unsaved, &unknown] {
            place.make().expect("folders");
            fs::write(place.output().join("file"), "left").expect("a file");
        }
        for place in [&saved, &unknown] {
            fs::write(place.checkpoint().join("file"), "left").expect("a file");
        }
        let work = dir.path().join("work");
        fs::write(work.join("stray"), "").expect("a file");
        symlink("/etc", work.join("link")).expect("a link");
        fs::create_dir(dir.path().join("programs")).expect("a folder");

        clear(dir.path(), &[saved.clone(), unsaved]).expect("it is removed");
        assert_eq!(names(dir.path()), ["work"]);
        assert_eq!(names(&work), [name(&project(), ReplicaId(1))]);
        assert_eq!(names(&saved.folder), [saved.checkpoint.as_str()]);
        assert_eq!(names(&saved.checkpoint()), ["file"]);
        assert!(Path::new("/etc").is_dir());

        clear(dir.path(), &[]).expect("it is removed");
        assert!(names(&work).is_empty());
        let empty = tempfile::tempdir().expect("a directory");
        clear(empty.path(), &[]).expect("there was nothing");
    }

    /// What a program may leave to be a nuisance: folders without end, closed ones, links out.
    #[test]
    fn everything_can_be_removed() {
        /// More than a path can name, and more than a process may usually have open.
        const DEPTH: usize = 5000;
        let dir = tempfile::tempdir().expect("a directory");
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).expect("a folder");
        fs::write(outside.join("file"), "mine").expect("a file");
        fs::set_permissions(&outside, Permissions::from_mode(0o755)).expect("permissions");

        let (top, next) = (dir.path().join("top"), dir.path().join("next"));
        fs::create_dir(&top).expect("a folder");
        symlink(&outside, top.join("link")).expect("a link");
        symlink(outside.join("file"), top.join("link to a file")).expect("a link");
        fs::create_dir(top.join("closed")).expect("a folder");
        fs::create_dir(top.join("closed/d")).expect("a folder");
        fs::set_permissions(top.join("closed"), Permissions::from_mode(0o0)).expect("permissions");
        for _ in 0..DEPTH {
            // From the inside out: no path is ever long.
            fs::create_dir(&next).expect("a folder");
            fs::rename(&top, next.join("d")).expect("it is moved");
            fs::rename(&next, &top).expect("it is moved");
        }
        remove(&top).expect("it is removed");
        remove(&top).expect("it is not there");
        assert_eq!(names(dir.path()), ["outside"]);
        assert_eq!(names(&outside), ["file"]);
        let mode = fs::metadata(&outside).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }
}
