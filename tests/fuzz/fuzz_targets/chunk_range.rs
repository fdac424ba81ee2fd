//! Fuzzes [`outport_fuzz::chunk_range`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outport_fuzz::chunk_range(data));
