//! The whole system, from outside: built binaries over real sockets, one file per behaviour.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what does not work fails the test"
)]

mod postgres;
mod s3;
mod tidy;
