//! Where data lies when the command line does not say.

use std::path::PathBuf;

use anyhow::Context;
use etcetera::{BaseStrategy, choose_base_strategy};

/// The process that a data directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Bootstrap,
    Coordinator,
    Node,
}

impl Role {
    const fn folder(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Coordinator => "coordinator",
            Self::Node => "node",
        }
    }
}

/// The data directory of a role: what was asked for, or `$XDG_DATA_HOME/dockercomp/<role>`.
pub(crate) fn data_dir(asked: Option<&PathBuf>, role: Role) -> anyhow::Result<PathBuf> {
    if let Some(dir) = asked {
        return std::path::absolute(dir).with_context(|| format!("cannot find {}", dir.display()));
    }
    let base = choose_base_strategy().context("cannot find the home directory")?;
    Ok(base.data_dir().join("dockercomp").join(role.folder()))
}
