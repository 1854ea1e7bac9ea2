//! Fuzzes [`failsoft_fuzz::delays`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| failsoft_fuzz::delays::run(data));
