//! Stages: what is done with the outputs of a job's work units, by work units again.
//!
//! A stage runs the job's program, with arguments of its own, on outputs of the stage before:
//! on each of them, or on groups of them, again and again until one is left.

use serde::{Deserialize, Serialize};

use crate::limits::{
    ARG_BYTES_MAX, ARGS_MAX, FAN_IN_MAX, LINK_BYTES, NAME_BYTES_MAX, STAGES_MAX,
    UNIT_ARGS_BYTES_MAX,
};

use super::spec::{SpecError, placeholders};

/// A stage after the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// What people call it.
    pub name: String,
    /// Arguments of the job's program; `/input` then holds one folder for each output that
    /// the work unit takes, in order.
    pub args: Vec<String>,
    /// How its work units share the outputs of the stage before.
    pub gather: Gather,
}

/// How the work units of a stage share the outputs of the stage before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Gather {
    /// One work unit for each output.
    Each,
    /// One work unit for every `fan_in` consecutive outputs, then one for every `fan_in` of
    /// theirs, until one output is left.
    Tree {
        /// Outputs that a work unit takes, at least 2.
        fan_in: u32,
    },
}

impl Gather {
    /// Outputs that a work unit takes at most. At least 1, whatever was said.
    #[must_use]
    pub const fn fan_in(&self) -> u32 {
        match self {
            Self::Each => 1,
            // A tree that does not become narrower has no end.
            Self::Tree { fan_in: 0 | 1 } => 2,
            Self::Tree { fan_in } => *fan_in,
        }
    }
}

/// A stage as its owner wrote it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StageSection {
    name: String,
    args: Vec<String>,
    reduce: Option<ReduceSection>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReduceSection {
    fan_in: u32,
}

impl From<StageSection> for Stage {
    fn from(section: StageSection) -> Self {
        let gather =
            section.reduce.map_or(Gather::Each, |reduce| Gather::Tree { fan_in: reduce.fan_in });
        Self { name: section.name, args: section.args, gather }
    }
}

/// Checks every rule about stages.
///
/// # Errors
/// [`SpecError::Stage`], with the first rule that is broken.
pub(super) fn check(stages: &[Stage]) -> Result<(), SpecError> {
    for (number, stage) in stages.iter().enumerate() {
        let refuse = |reason| Err(SpecError::Stage { number, reason });
        if number >= STAGES_MAX {
            return refuse("is one too many: a job has at most 16 stages after the first");
        }
        let name = &stage.name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return refuse("name must have 1 to 100 bytes and no control characters");
        }
        if let Gather::Tree { fan_in } = stage.gather
            && !(2..=FAN_IN_MAX).contains(&fan_in)
        {
            return refuse(
                "fan_in must be 2 to 64; leave reduce out for one work unit for each output",
            );
        }
        // A message of leases is bounded by its arguments: links to outputs count as such.
        let links = 2 * LINK_BYTES * stage.gather.fan_in() as usize;
        let bytes = stage.args.iter().map(String::len).sum::<usize>() + links;
        let is_long = stage.args.iter().any(|arg| arg.len() > ARG_BYTES_MAX);
        if stage.args.len() > ARGS_MAX || is_long || bytes > UNIT_ARGS_BYTES_MAX {
            return refuse("args are too many or too long");
        }
        if stage.args.iter().any(|arg| placeholders(arg).next().is_some()) {
            return refuse("args cannot use {parameters}: they are of the first stage only");
        }
    }
    Ok(())
}
