//! Fuzzes [`outport_fuzz::reference`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outport_fuzz::reference(data));
