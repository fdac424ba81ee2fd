//! HTTP, as server and as client.

pub mod client;
pub mod content;
pub mod respond;
pub mod serve;
pub mod tls;
