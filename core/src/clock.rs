//! The wall clock, read in one place.
//!
//! Everything below the request handlers takes the time as an argument.

use std::time::SystemTime;

/// Returns the time of day.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads it"
)]
pub fn now() -> SystemTime {
    SystemTime::now()
}
