#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    dockercomp_fuzz::run("join_link", bytes);
});
