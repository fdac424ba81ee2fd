//! The whole system, from outside: built binaries over real sockets, one file per behaviour.

#![allow(
    clippy::expect_used,
    clippy::similar_names,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "what does not work fails the test, and says why"
)]

mod clients;
mod database_away;
mod distribution;
mod edge_disk;
mod edge_load;
mod edge_offline;
mod far_client;
mod long_link;
mod memory;
mod postgres;
mod push_cut;
mod refused_early;
mod restart;
mod s3;
mod silent_upstream;
mod spoiled_link;
mod tidy;
mod tls;
mod upload_expiry;
