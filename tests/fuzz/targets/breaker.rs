//! Fuzzes [`failsoft_fuzz::breaker`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| failsoft_fuzz::breaker::run(data));
