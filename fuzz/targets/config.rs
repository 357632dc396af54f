#![no_main]
// The configuration is part of a binary, which can't be linked.
#![allow(dead_code, reason = "only what a file can say is needed here")]

#[path = "../../node/src/config/mod.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    config::fuzz::config(data);
});
