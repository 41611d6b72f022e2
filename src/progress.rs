//! Progress bars on standard error, only on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of bytes with rate and remaining time.
pub(crate) fn bytes(message: &'static str) -> ProgressBar {
    styled("{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}", message)
}

/// A bar of things that are counted.
pub(crate) fn count(message: &'static str) -> ProgressBar {
    styled("{msg} [{wide_bar}] {pos}/{len} {eta}", message)
}

fn styled(template: &str, message: &'static str) -> ProgressBar {
    // Indicatif draws to standard error and hides itself where that is not a terminal.
    let style = ProgressStyle::with_template(template).expect("the templates are constants");
    let bar = ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_message(message);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
