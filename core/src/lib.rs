//! What origin and edge share: the OCI vocabulary, the contract between them, and the mechanisms both run.

pub mod oci;

pub mod body;
pub mod clock;
pub mod cluster;
pub mod store;

pub mod location;

pub mod access;
pub mod net;
pub mod upstream;

pub mod tasks;

pub mod admin;
pub mod telemetry;

pub mod backoff;
pub mod breaker;
pub mod config;
pub mod heap;
pub mod process;
pub mod reread;
pub mod short_memory;
