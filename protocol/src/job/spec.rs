//! The signed specification of a job.

use cid::Cid;
use serde::{Deserialize, Serialize};

use super::validation::Validation;
use crate::codec;
use crate::envelope::{self, OpenError, Statement};
use crate::execution::{ExecutorKind, Limits};
use crate::ids::ProjectId;
use crate::layout::Layout;
use crate::limits::{
    ARG_BYTES_MAX, ARGS_MAX, JOB_UNITS_MAX, NAME_BYTES_MAX, SWEEP_PARAMETERS_MAX, SWEEP_VALUES_MAX,
    UNIT_ARGS_BYTES_MAX,
};
use crate::time::Timestamp;

use super::stage::{self, Gather, Stage};

/// Everything about a job that its owner signs. Its id is the CID of its encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Version of the format, 1.
    pub v: u8,
    /// The project it belongs to.
    pub project: ProjectId,
    /// What people call it.
    pub name: String,
    /// When the owner signed it; makes two submissions of one file two jobs.
    pub submitted_at: Timestamp,
    /// What to run.
    pub program: Program,
    /// How it is split into work units.
    pub work: Work,
    /// What one replica may use.
    pub limits: Limits,
    /// When a result counts.
    pub validation: Validation,
    /// How fetched outputs are reduced to the final result, if they are.
    pub collect: Option<Collect>,
    /// What work units do with the outputs of others, stage after stage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
}

/// What to run. At least one of `image` and `module` is there; a node uses the one that its
/// executor can run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The image's parts, or, as before, a dataset of one file: a docker-save or OCI archive, or
    /// a static binary.
    pub image: Option<Cid>,
    /// A dataset of one file: a WASI module.
    pub module: Option<Cid>,
    /// Arguments; `{name}` stands for a sweep parameter.
    pub args: Vec<String>,
}

impl Program {
    /// The dataset that this executor runs, if there is one.
    #[must_use]
    pub const fn of(&self, executor: ExecutorKind) -> Option<Cid> {
        match executor {
            ExecutorKind::Docker => self.image,
            ExecutorKind::Wasm => self.module,
        }
    }
}

/// How a job is split into work units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// The cartesian product of parameters, the last one varying fastest.
    Sweep(Vec<SweepParameter>),
    /// Groups of consecutive files of a dataset.
    Files {
        /// The dataset's root.
        dataset: Cid,
        /// How many files it has, so that the plan follows from the job alone.
        files: u64,
        /// Files in each group but the last.
        files_per_unit: u32,
    },
}

/// One parameter of a sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepParameter {
    /// Its name, as in `{name}`.
    pub name: String,
    /// Its values, in order.
    pub values: SweepValues,
}

/// The values of a sweep parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SweepValues {
    /// `from`, `from + step`, …, not beyond `to`.
    Range {
        /// The first value.
        from: i64,
        /// The bound, included.
        to: i64,
        /// The distance, at least 1.
        step: i64,
    },
    /// These texts.
    List(Vec<String>),
}

/// The reduction of all outputs, run where they are fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collect {
    /// Arguments of the same program; `/input` then holds one folder for each work unit.
    pub args: Vec<String>,
}

/// Why a specification was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A format that this version does not know.
    #[error("the job has version {found}, this program reads version 1")]
    Version {
        /// What it says.
        found: u8,
    },
    /// The name is empty or too long.
    #[error("the name must have 1 to {NAME_BYTES_MAX} bytes and no control characters")]
    Name,
    /// There is nothing to run.
    #[error("[program] needs image, module, or both")]
    NoProgram,
    /// Too many or too long arguments.
    #[error(
        "at most {ARGS_MAX} arguments of at most {ARG_BYTES_MAX} bytes each and \
         {UNIT_ARGS_BYTES_MAX} bytes in all are allowed, with the longest values filled in"
    )]
    Args,
    /// An argument names a parameter that does not exist.
    #[error("argument {arg:?} uses {{{name}}}, which is not a parameter of [sweep]")]
    UnknownParameter {
        /// The argument.
        arg: String,
        /// The name in braces.
        name: String,
    },
    /// The sweep is empty, too large, or not well formed.
    #[error("[sweep] {reason}")]
    Sweep {
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// No files in a group.
    #[error("files_per_unit must be at least 1")]
    FilesPerUnit,
    /// A stage after the first breaks a rule.
    #[error("[[stage]] number {} {reason}", .number + 1)]
    Stage {
        /// Which, from 0.
        number: usize,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// More or fewer work units than a job can have.
    #[error("the job would have {units} work units; 1 to {JOB_UNITS_MAX} are allowed")]
    Units {
        /// How many it would have.
        units: u64,
    },
    /// A resource limit that no node could honour.
    #[error("[resources] {field} {reason}")]
    Limits {
        /// The key in the job file.
        field: &'static str,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// Replication parameters that contradict each other.
    #[error("[validation] {reason}")]
    Validation {
        /// Which rule they break.
        reason: &'static str,
    },
}

impl Statement for JobSpec {
    const DOMAIN: &'static str = "dockercomp/job/1";
}

impl JobSpec {
    /// The version that this code writes and reads.
    pub const VERSION: u8 = 1;

    /// Checks every rule that does not need the dataset.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.v != Self::VERSION {
            return Err(SpecError::Version { found: self.v });
        }
        let name = &self.name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(SpecError::Name);
        }
        if self.program.image.is_none() && self.program.module.is_none() {
            return Err(SpecError::NoProgram);
        }
        check_limits(&self.limits)?;
        self.validation.check(&self.limits)?;
        stage::check(&self.stages)?;
        self.check_work()?;
        match &self.work {
            Work::Sweep(parameters) => self.check_args(parameters)?,
            Work::Files { .. } => self.check_args(&[])?,
        }
        match &self.collect {
            Some(collect)
                if collect.args.iter().map(String::len).sum::<usize>() > UNIT_ARGS_BYTES_MAX =>
            {
                Err(SpecError::Args)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_work(&self) -> Result<(), SpecError> {
        let refuse = |reason| Err(SpecError::Sweep { reason });
        let parameters = match &self.work {
            Work::Sweep(parameters) => parameters,
            Work::Files { files_per_unit: 0, .. } => return Err(SpecError::FilesPerUnit),
            Work::Files { .. } => return check_units(self.units()),
        };
        if parameters.is_empty() || parameters.len() > SWEEP_PARAMETERS_MAX {
            return refuse("needs 1 to 16 parameters");
        }
        for parameter in parameters {
            let well_named = !parameter.name.is_empty()
                && parameter.name.len() <= NAME_BYTES_MAX
                && parameter.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !well_named {
                return refuse("names may hold letters, digits and underscores");
            }
            match &parameter.values {
                SweepValues::Range { step, .. } if *step < 1 => {
                    return refuse("steps must be at least 1");
                }
                SweepValues::List(list) if list.len() > SWEEP_VALUES_MAX => {
                    return refuse("lists at most 10,000 values for a parameter");
                }
                SweepValues::Range { .. } | SweepValues::List(_) => {}
            }
        }
        let sorted = parameters.windows(2).all(|pair| pair[0].name < pair[1].name);
        if !sorted {
            return refuse("parameters must be sorted by name and differ");
        }
        check_units(self.units())
    }

    /// How many work units the job has, in all stages.
    #[must_use]
    pub fn units(&self) -> u64 {
        self.layout().units()
    }

    /// Which work units belong to which stage, and which take the outputs of which.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let gathers: Vec<Gather> = self.stages.iter().map(|stage| stage.gather).collect();
        Layout::new(self.first_units(), &gathers)
    }

    /// How many work units the first stage has.
    #[must_use]
    pub fn first_units(&self) -> u64 {
        match &self.work {
            Work::Sweep(parameters) => {
                parameters.iter().fold(1, |units, p| units.saturating_mul(p.values.count()))
            }
            Work::Files { files, files_per_unit, .. } => {
                files.div_ceil(u64::from((*files_per_unit).max(1)))
            }
        }
    }

    /// Opens a job that `project` must have signed, checks it, and gives its id.
    ///
    /// # Errors
    /// See [`JobError`].
    pub fn open_for(sealed: &[u8], project: ProjectId) -> Result<(Cid, Self), JobError> {
        let opened = envelope::open::<Self>(sealed)?;
        let spec = opened.statement;
        if opened.signer != project || spec.project != project {
            return Err(JobError::Foreign { project });
        }
        spec.check()?;
        let (cid, _) = codec::block(&spec);
        Ok((cid, spec))
    }

    /// Checks that no work unit's arguments are too long, whichever values are filled in.
    fn check_args(&self, parameters: &[SweepParameter]) -> Result<(), SpecError> {
        let args = &self.program.args;
        let mut total = 0;
        for arg in args {
            let mut longest = arg.len();
            for name in placeholders(arg) {
                let parameter = parameters.iter().find(|parameter| parameter.name == name);
                let parameter = parameter.ok_or_else(|| SpecError::UnknownParameter {
                    arg: arg.clone(),
                    name: name.to_owned(),
                })?;
                longest += parameter.values.longest();
            }
            if longest > ARG_BYTES_MAX {
                return Err(SpecError::Args);
            }
            total += longest;
        }
        if args.len() > ARGS_MAX || total > UNIT_ARGS_BYTES_MAX {
            return Err(SpecError::Args);
        }
        Ok(())
    }
}

/// Why a job was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The signature is not right.
    #[error("the job cannot be opened")]
    Open(#[from] OpenError),
    /// It is signed by somebody else.
    #[error("the job is not signed by the key of project {project}")]
    Foreign {
        /// The project that was expected.
        project: ProjectId,
    },
    /// It breaks a rule.
    #[error("the job breaks a rule")]
    Spec(#[from] SpecError),
}

impl SweepValues {
    /// The length of the longest value, in bytes.
    fn longest(&self) -> usize {
        match self {
            // The longest 64-bit integer has 20 characters.
            Self::Range { .. } => 20,
            Self::List(list) => list.iter().map(String::len).max().unwrap_or(0),
        }
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Range { from, to, step } if from <= to && *step >= 1 => {
                (to.abs_diff(*from) / step.unsigned_abs()).saturating_add(1)
            }
            Self::Range { .. } => 0,
            Self::List(list) => list.len() as u64,
        }
    }

    /// Value number `index`, as it is put into an argument.
    #[must_use]
    pub fn value(&self, index: u64) -> Option<String> {
        if index >= self.count() {
            return None;
        }
        match self {
            Self::Range { from, step, .. } => {
                let value = i128::from(*from) + i128::from(*step) * i128::from(index);
                Some(value.to_string())
            }
            Self::List(list) => list.get(usize::try_from(index).ok()?).cloned(),
        }
    }
}

/// Checks the number of work units of a job.
///
/// # Errors
/// [`SpecError::Units`] if it is none or too many.
const fn check_units(units: u64) -> Result<(), SpecError> {
    if units >= 1 && units <= JOB_UNITS_MAX { Ok(()) } else { Err(SpecError::Units { units }) }
}

/// The names in braces in an argument. A brace that encloses no name stands for itself.
pub(super) fn placeholders(arg: &str) -> impl Iterator<Item = &str> {
    arg.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        let is_name =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        is_name.then_some(name)
    })
}

fn check_limits(limits: &Limits) -> Result<(), SpecError> {
    const MIB: u64 = 1 << 20;
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let rules = [
        (limits.cpu_millis >= 10, "cpus", "must be at least 0.01"),
        (limits.cpu_millis <= 1_024_000, "cpus", "must be at most 1024"),
        (limits.memory_bytes >= 8 * MIB, "memory", "must be at least 8 MiB"),
        (limits.memory_bytes <= 16 << 40, "memory", "must be at most 16 TiB"),
        (limits.tmp_bytes <= limits.memory_bytes, "tmp", "must be at most memory"),
        (limits.output_bytes >= 1, "output", "must be at least 1 byte"),
        (limits.output_bytes <= 1 << 40, "output", "must be at most 1 TiB"),
        (limits.output_files >= 1, "output_files", "must be at least 1"),
        (limits.output_files <= 1_000_000, "output_files", "must be at most 1,000,000"),
        (limits.pids >= 1, "pids", "must be at least 1"),
        (limits.pids <= 32_768, "pids", "must be at most 32768"),
        (limits.wall_ms >= 1000, "wall_time", "must be at least 1s"),
        (limits.wall_ms <= 30 * DAY_MS, "wall_time", "must be at most 30 days"),
    ];
    match rules.into_iter().find(|(holds, ..)| !holds) {
        Some((_, field, reason)) => Err(SpecError::Limits { field, reason }),
        None => Ok(()),
    }
}
