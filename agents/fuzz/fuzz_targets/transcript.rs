//! Fuzzes the reading of transcripts, and what is shown of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    windlass_agents_fuzz::show(data);
});
