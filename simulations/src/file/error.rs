//! Why a scenario file is refused, in words that say what to write instead.

use std::path::PathBuf;

use super::spells::TraceError;

/// Why a scenario file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("{} is not TOML: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// Files include each other in a circle, or too deeply.
    #[error("{} is included more than {depth} files deep; do files include each other?", path.display())]
    Included {
        /// The file that went too far.
        path: PathBuf,
        /// How deep is allowed.
        depth: usize,
    },
    /// A file that it names is wrong.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A key is unknown, missing, or of the wrong type.
    #[error("{message}")]
    Key {
        /// What is wrong, and the nearest key.
        message: String,
    },
    /// A `--set` that is not `path=value`, or whose path leads nowhere.
    #[error("setting {setting:?}: {reason}")]
    Setting {
        /// What was given.
        setting: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// Values that cannot be simulated.
    #[error("{place}: {reason}")]
    Invalid {
        /// The key.
        place: String,
        /// Why it is refused.
        reason: String,
    },
}

impl FileError {
    pub(crate) fn invalid(place: impl Into<String>, reason: impl ToString) -> Self {
        Self::Invalid { place: place.into(), reason: reason.to_string() }
    }

    /// Wraps what the TOML reader says, and adds the nearest key there is.
    pub(crate) fn key(error: &toml::de::Error) -> Self {
        let message = error.to_string().trim().replace('\n', " ");
        let message = match nearest(&message) {
            Some(nearest) => format!("{message}; did you mean `{nearest}`?"),
            None => message,
        };
        Self::Key { message }
    }
}

/// The name nearest to the unknown one, of those that serde's message lists in backquotes:
/// "unknown field `a`, expected one of `b`, `c`".
fn nearest(message: &str) -> Option<&str> {
    let is_unknown = message.contains("unknown field") || message.contains("unknown variant");
    let mut names = message.split('`').skip(1).step_by(2);
    let wrong = names.next().filter(|_| is_unknown)?;
    let distance = |name: &str| strsim::damerau_levenshtein(wrong, name);
    let best = names.filter(|name| *name != wrong).min_by_key(|name| distance(name))?;
    let far = wrong.chars().count().max(best.chars().count()) / 2;
    (distance(best) <= far).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_key_is_named_if_it_is_near() {
        let of = |wrong| format!("unknown field `{wrong}`, expected one of `hosts`, `latency`");
        assert_eq!(nearest(&of("host")), Some("hosts"));
        assert_eq!(nearest(&of("latnecy")), Some("latency"));
        assert_eq!(nearest(&of("zzzzzzz")), None);
        assert_eq!(nearest("missing field `hosts`"), None);
    }
}
