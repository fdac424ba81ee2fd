//! The OCI vocabulary: what is said on the wire, parsed into values that cannot be wrong.
//!
//! Invariant: nothing below touches a socket, a file or a clock.

pub mod digest;
pub mod error;
pub mod reference;
