//! Results go to standard output, as text for people or JSON for programs; everything else
//! goes to standard error.

use std::io::{ErrorKind, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Code;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Text for people.
    Human,
    /// One JSON value.
    Json,
}

/// Writes a result: `human` for people, `value` for programs.
pub(crate) fn print<T: Serialize>(format: Format, value: &T, human: impl FnOnce(&T) -> String) {
    let text = match format {
        Format::Human => human(value),
        Format::Json => serde_json::to_string_pretty(value).expect("our types are plain JSON"),
    };
    emit(text.trim_end());
}

/// A table without borders.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A size for people, in binary units.
pub(crate) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// Writes what a long-running command says once it is ready: as JSON on one line, so that a
/// reader knows where it ends.
pub(crate) fn print_line<T: Serialize>(
    format: Format,
    value: &T,
    human: impl FnOnce(&T) -> String,
) {
    match format {
        Format::Human => emit(human(value).trim_end()),
        Format::Json => {
            let text = serde_json::to_string(value).expect("our types are plain JSON");
            emit(&text);
        }
    }
}

/// Writes a line to standard output. A reader that went away is no error; a full disk is.
fn emit(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        eprintln!("error: cannot write to standard output: {error}");
        std::process::exit(Code::Other as i32);
    }
}
