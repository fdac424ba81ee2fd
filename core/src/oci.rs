//! The OCI vocabulary: what is said on the wire, parsed into values that cannot be wrong.
//!
//! Invariant: nothing below touches a socket, a file or a clock.

pub mod route;

pub mod digest;
pub mod reference;

pub mod manifest;
pub mod media;

pub mod multipart;
pub mod range;

pub mod error;
