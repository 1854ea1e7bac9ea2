//! Fuzzes [`failsoft_fuzz::pipeline`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| failsoft_fuzz::pipeline::run(data));
