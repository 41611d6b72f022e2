//! Placeholder while the library is written.
fn main() {}
