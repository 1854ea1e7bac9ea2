//! Fuzzes [`failsoft_fuzz::budgets`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| failsoft_fuzz::budgets::run(data));
