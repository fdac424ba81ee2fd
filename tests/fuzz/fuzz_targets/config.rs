//! Fuzzes [`outport_fuzz::config`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outport_fuzz::config(data));
