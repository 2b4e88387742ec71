//! Any bytes as the input of `rlaif parse`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rlaif_fuzz::jsonl(bytes));
