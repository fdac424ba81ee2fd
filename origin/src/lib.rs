//! The origin: a full registry that owns the database master.

pub mod metadata;
