//! Fuzzes [`failsoft_fuzz::adaptive`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| failsoft_fuzz::adaptive::run(data));
