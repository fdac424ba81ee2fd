//! HTTP, as server and as client.

pub mod client;
pub mod respond;
pub mod serve;
