//! A location in a bucket, over the network, with signatures that are checked.

mod away;
mod conformance;
mod moves;
mod secrets;
mod silent;
