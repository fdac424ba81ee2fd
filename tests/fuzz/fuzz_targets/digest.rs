//! Fuzzes [`outport_fuzz::digest`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outport_fuzz::digest(data));
