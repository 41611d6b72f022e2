//! Refusals of the control door, as JSON with the right status.

use std::error::Error;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::api::{Problem, ProblemKind};

/// A request that was not carried out.
#[derive(Debug)]
pub struct Refused(pub Problem);

impl Refused {
    /// An error with all its causes.
    pub fn new(kind: ProblemKind, error: impl Error) -> Self {
        Self::message(kind, chain(&error))
    }

    /// A message of its own.
    pub fn message(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self(Problem { kind, message: message.into(), fix: None })
    }

    /// Something failed that should not have.
    pub fn internal(error: impl Error) -> Self {
        Self::new(ProblemKind::Internal, error)
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.0.fix = Some(fix.into());
        self
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.kind {
            ProblemKind::BadRequest => StatusCode::BAD_REQUEST,
            ProblemKind::NotFound => StatusCode::NOT_FOUND,
            ProblemKind::Conflict => StatusCode::CONFLICT,
            ProblemKind::Verification => StatusCode::UNPROCESSABLE_ENTITY,
            ProblemKind::Quota => StatusCode::INSUFFICIENT_STORAGE,
            ProblemKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.0)).into_response()
    }
}

/// An error and its causes in one line. A cause that was told already is not told again.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // The system's messages carry their number only sometimes.
        let core = next.split(" (os error").next().unwrap_or(&next);
        if !text.contains(core) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read it: {source}")]
    struct Talkative {
        source: io::Error,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("no luck")]
    struct Terse(#[from] Talkative);

    #[test]
    fn every_cause_is_told_once() {
        let source = io::Error::from_raw_os_error(2);
        let error = Terse(Talkative { source });
        assert_eq!(
            chain(&error),
            "no luck: cannot read it: No such file or directory (os error 2)"
        );
    }
}
