//! Fuzzes [`outport_fuzz::media`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outport_fuzz::media(data));
