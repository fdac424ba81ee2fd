//! Fuzzes [`outport_fuzz::route`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outport_fuzz::route(data));
