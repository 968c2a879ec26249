//! Fuzzes the adapter `Gemini`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    windlass_agents_fuzz::converse(windlass_agents::Protocol::Gemini, data);
});
