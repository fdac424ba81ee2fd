//! What an object store's errors mean to a caller of the seam.
//!
//! `object_store` keeps the status of a failed request in a type that cannot be named, so it is read from the text; the test
//! below, against a server that answers with each status, notices when the text changes.

use std::error::Error as StdError;

use object_store::client::HttpError;
use object_store::{Error, Result};

use crate::store::{AppendError, CommitError, StoreError};

use super::is_missing;
use super::prompt::Unanswered;

/// Codes in the body of an answer that say there is no room.
const FULL: [&str; 5] = [
    "QuotaExceeded",
    "StorageFull",
    "InsufficientStorage",
    "EntityTooLargeForQuota",
    "TooManyBytes",
];

/// Codes in the body of an answer, also of a 200, that say to try again.
const UNAVAILABLE: [&str; 5] = [
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout",
    "OperationAborted",
];

/// Codes that only an operator can do something about, and what they mean.
const REFUSED: [(&str, &str); 7] = [
    (
        "SignatureDoesNotMatch",
        "the secret access key does not belong to the access key id",
    ),
    ("InvalidAccessKeyId", "there is no such access key id"),
    ("ExpiredToken", "the session token has expired"),
    ("InvalidToken", "the session token is not valid"),
    ("RequestTimeTooSkewed", "the clock of this machine is wrong"),
    ("NoSuchBucket", "there is no such bucket"),
    ("AccessDenied", "the bucket's rules do not allow this"),
];

/// What an operator has to know about a failure.
#[derive(Debug, thiserror::Error)]
#[error("{meaning}")]
struct Refused {
    meaning: &'static str,
    source: Error,
}

/// Tells apart what a caller tells apart.
pub(super) fn store_error(error: Error) -> StoreError {
    let text = chain(&error);
    let status = status(&text);
    let has = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
    if status == Some(507) || has(&FULL) {
        StoreError::Full(error.into())
    } else if matches!(status, Some(408 | 425 | 429 | 500..=599))
        || has(&UNAVAILABLE)
        || is_transport(&error)
    {
        StoreError::Unavailable(error.into())
    } else {
        let refused = REFUSED.iter().find(|(code, _)| text.contains(code));
        StoreError::Failed(match refused {
            Some((_, meaning)) => Refused {
                meaning,
                source: error,
            }
            .into(),
            None => error.into(),
        })
    }
}

/// Turns the absence of a thing into none.
pub(super) fn found<T>(result: Result<T>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(store_error(error)),
    }
}

/// An error about something that was staged, whose absence is the end of the session.
pub(super) fn append_error(error: Error) -> AppendError {
    if is_missing(&error) {
        AppendError::Gone
    } else {
        store_error(error).into()
    }
}

/// As [`append_error`], for a commit.
pub(super) fn commit_error(error: Error) -> CommitError {
    if is_missing(&error) {
        CommitError::Gone
    } else {
        store_error(error).into()
    }
}

/// Whether no answer came at all.
fn is_transport(error: &Error) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if error.is::<HttpError>() || error.is::<Unanswered>() {
            return true;
        }
        next = error.source();
    }
    false
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push('\n');
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}
