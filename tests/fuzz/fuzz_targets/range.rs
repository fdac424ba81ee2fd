//! Fuzzes [`outport_fuzz::range`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outport_fuzz::range(data));
