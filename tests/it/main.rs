//! The whole system, from outside: built binaries over real sockets, one file per behaviour.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "what does not work fails the test, and says why"
)]

mod clients;
mod postgres;
mod s3;
mod tidy;
