//! What goes into an executor and what comes out of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use dockercomp_protocol::execution::{ExecutorKind, Exit, Limits, Usage};
use walkdir::WalkDir;

/// A program on this node's disk.
///
/// The id names the content: two programs with the same id are the same program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A container image: a folder of [parts](crate::docker::archive::parts), a docker-save
    /// archive, an OCI layout archive, or a static ELF binary, which is packed into an image of
    /// its own.
    Image {
        /// Content id of the folder or file.
        id: String,
        /// The folder, archive or binary.
        archive: PathBuf,
    },
    /// A WebAssembly module that imports only WASI preview 1 and exports `_start`.
    Module {
        /// Content id of the file.
        id: String,
        /// The module in its binary format.
        file: PathBuf,
    },
}

impl Program {
    /// The program of a dataset that is laid out in `folder`: its only file, or the folder, if
    /// it is an image in parts. `None` if the dataset is empty.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn laid_out(kind: ExecutorKind, id: String, folder: &Path) -> io::Result<Option<Self>> {
        let mut files = Vec::new();
        for entry in WalkDir::new(folder).sort_by_file_name() {
            let entry = entry?;
            if entry.file_type().is_file() {
                files.push(entry.into_path());
            }
            if files.len() > 1 {
                break;
            }
        }
        let is_folder = files.len() > 1;
        Ok(files.into_iter().next().map(|file| match kind {
            ExecutorKind::Docker if is_folder => Self::Image { id, archive: folder.to_owned() },
            ExecutorKind::Docker => Self::Image { id, archive: file },
            ExecutorKind::Wasm => Self::Module { id, file },
        }))
    }

    /// The content id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Image { id, .. } | Self::Module { id, .. } => id,
        }
    }

    /// The file or folder that holds the program.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Image { archive, .. } => archive,
            Self::Module { file, .. } => file,
        }
    }
}

/// Whose work a run is; containers carry this as labels, next to the node's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// The job.
    pub job: String,
    /// The work unit. Random numbers of WebAssembly programs are seeded with it, so that all
    /// replicas of a unit see the same.
    pub unit: String,
    /// The replica. Unique on this node.
    pub replica: String,
}

/// One run of a program.
#[derive(Clone, Debug)]
pub struct Run {
    /// What to run.
    pub program: Program,
    /// Its arguments, without the program's name.
    pub args: Vec<String>,
    /// Its environment. Nothing of the node's own environment is added.
    pub env: BTreeMap<String, String>,
    /// Directory that the program sees as `/input`. Its files must be readable by everybody, for
    /// a container runs as another user; the directories above it may be private. Absolute.
    pub input: PathBuf,
    /// Empty directory that the program sees as `/output`. Absolute.
    pub output: PathBuf,
    /// Directory that the program sees as `/checkpoint`: empty, or with what an earlier attempt
    /// at the same replica on the same executor left there. It counts against the limits of the
    /// output, and is otherwise nobody's business but the program's. Absolute.
    pub checkpoint: PathBuf,
    /// What the program may use.
    pub limits: Limits,
    /// Whose work it is.
    pub labels: Labels,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// What the program did.
    pub exit: Exit,
    /// What it used.
    pub usage: Usage,
    /// The end of its standard output and error, at most 4 KiB, with control characters escaped;
    /// for `Exit::NotStarted` the reason.
    pub log_tail: String,
}

/// What a cleanup removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Containers.
    pub containers: usize,
    /// Image tags.
    pub images: usize,
}
