//! A location: a storage engine of a region, opened from its URL.

pub mod key;
