//! Any text, read in every style.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rlaif_fuzz::verdict(bytes));
