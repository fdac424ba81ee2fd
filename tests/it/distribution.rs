//! The distribution API, at the origin and through an edge.

mod ping;
mod routes;

mod blob_get;
mod blob_ranges;

mod expect_continue;
mod push_chunked;
mod push_digest;
mod push_order;
mod push_resume;
mod push_session;
mod push_whole;

mod mount;
mod sha512;

mod manifest_get;
mod manifest_kinds;
mod manifest_limits;
mod manifest_missing;
mod manifest_refused;
mod manifest_tags;

mod catalog;
mod referrers;
mod referrers_imported;
mod tags;

mod delete;
mod pair;
