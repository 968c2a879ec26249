//! Fuzzes the adapter `CodexExec`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    windlass_agents_fuzz::converse(windlass_agents::Protocol::CodexExec, data);
});
