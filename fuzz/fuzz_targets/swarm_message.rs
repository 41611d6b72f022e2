#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    dockercomp_fuzz::run("swarm_message", bytes);
});
