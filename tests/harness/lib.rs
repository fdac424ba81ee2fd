//! What the tests are made of: built binaries as child processes, clients that see every byte, content without end.
//!
//! A test here starts what a user starts and talks to it over sockets. What does not work panics, with what the process
//! said; nothing is skipped.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::needless_pass_by_value,
    clippy::print_stderr,
    clippy::return_self_not_must_use,
    clippy::unwrap_used,
    reason = "a harness fails by panicking and says why, and is to be pleasant to use"
)]

pub mod ceph;
pub mod door;
pub mod node;
pub mod postgres;
pub mod process;
pub mod registry;
pub mod s3;
pub mod sqlite;
pub mod strace;
pub mod tmpfs;
pub mod tokens;

pub mod attack;
pub mod client;
pub mod raw;
pub mod reply;
pub mod tls;
pub mod wire;

pub mod content;
pub mod document;
pub mod images;
pub mod layout;
pub mod repository;

pub mod containerd;
pub mod containers;
pub mod docker;
pub mod sandbox;

pub mod eventually;
