#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    rossby_api::fuzz::placement(data);
});
