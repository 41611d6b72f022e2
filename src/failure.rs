//! Errors as people and scripts see them: a message, a remedy, and a stable exit code.
//!
//! The table of codes is in `docs/errors.md`; a test keeps the two equal.

use std::process::ExitCode;

use dockercomp_peer::api::{Problem, ProblemKind};
use dockercomp_peer::reply::chain;

use crate::output::Format;

/// Stable exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Anything without a code of its own.
    Other = 1,
    /// The command line, a configuration or a job file is wrong.
    Usage = 2,
    /// Something was not ready in time.
    TimedOut = 4,
    /// Not possible in the present state, for example a data directory in use.
    Conflict = 5,
    /// No process answers.
    Unreachable = 10,
    /// The Docker engine cannot be used.
    Docker = 11,
    /// What was named is not there, or nobody provides it.
    NotFound = 12,
    /// A hash, signature or receipt is not right.
    Verification = 13,
    /// No room.
    Quota = 14,
    /// A job or work unit failed or was cancelled.
    JobFailed = 20,
    /// Interrupted from the keyboard.
    Interrupted = 130,
}

/// An expected error.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) fix: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fix: None }
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// Whether an error says that no process answers.
pub(crate) fn is_unreachable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.code == Code::Unreachable)
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let code = match problem.kind {
            ProblemKind::BadRequest => Code::Usage,
            ProblemKind::NotFound => Code::NotFound,
            ProblemKind::Conflict => Code::Conflict,
            ProblemKind::Verification => Code::Verification,
            ProblemKind::Quota => Code::Quota,
            ProblemKind::Internal => Code::Other,
        };
        Self { code, message: problem.message, fix: problem.fix }
    }
}

/// Prints an error to standard error and gives the exit code.
pub(crate) fn report(error: &anyhow::Error, format: Format) -> ExitCode {
    let failure = error.downcast_ref::<Failure>();
    let code = failure.map_or(Code::Other, |failure| failure.code);
    let fix = failure.and_then(|failure| failure.fix.as_deref());
    let message = chain(error.as_ref());
    match format {
        Format::Human => {
            eprintln!("error: {message}");
            if let Some(fix) = fix {
                eprintln!("  fix: {fix}");
            }
        }
        Format::Json => {
            let value = serde_json::json!({
                "error": { "message": message, "fix": fix, "exit_code": code as u8 }
            });
            eprintln!("{value}");
        }
    }
    ExitCode::from(code as u8)
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn every_exit_code_is_documented() {
        let table = include_str!("../docs/errors.md");
        let codes = [
            Code::Other,
            Code::Usage,
            Code::TimedOut,
            Code::Conflict,
            Code::Unreachable,
            Code::Docker,
            Code::NotFound,
            Code::Verification,
            Code::Quota,
            Code::JobFailed,
            Code::Interrupted,
        ];
        for code in codes {
            assert!(table.contains(&format!("| {} |", code as u8)), "{code:?} is not documented");
        }
        let rows = table
            .lines()
            .filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit());
        assert_eq!(rows.count(), codes.len() + 1, "a row for each code, and one for 0");
    }
}
