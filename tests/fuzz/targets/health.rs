//! Fuzzes [`failsoft_fuzz::health`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| failsoft_fuzz::health::run(data));
