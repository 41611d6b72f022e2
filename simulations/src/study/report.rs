//! One page with everything: figure, cells, targets, and the command that made it.
//!
//! Self-contained: no script, no font and no picture from elsewhere.

use std::fmt::Write as _;
use std::path::Path;

use super::figure::lay_out;
use super::output::{WriteError, save};
use super::{CellResult, Verdict, estimate, plot, table};
use crate::file::Document;
use crate::file::sweep::shown;

const STYLE: &str = "\
body { font: 15px/1.5 'DejaVu Sans', Verdana, sans-serif; max-width: 1120px; margin: 2em auto; \
padding: 0 1em; color: #222 }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
figure { margin: 1em 0 } figure svg { width: 100%; height: auto }
figcaption { color: #555; font-size: .9em }
table { border-collapse: collapse; font-size: .85em; width: 100% }
th, td { text-align: left; padding: .25em .7em; border-bottom: 1px solid #ddd }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.out { color: #b00020; font-weight: bold }
pre { background: #f5f5f5; padding: .8em; overflow-x: auto; font-size: .85em }";

/// Writes the figures and the page.
///
/// # Errors
/// See [`WriteError`].
pub fn write(
    folder: &Path,
    document: &Document,
    results: &[CellResult],
    verdicts: &[Verdict],
    command: &str,
) -> Result<(), WriteError> {
    let mut drawn = None;
    if let Some(figure) = &document.figure {
        let drawing = lay_out(figure, results);
        let svg = plot::svg(&drawing)?;
        save(&folder.join("figure.svg"), &svg)?;
        plot::png(&drawing, &folder.join("figure.png"))?;
        drawn = Some(svg);
    }
    let page = page(document, results, verdicts, command, drawn.as_deref());
    save(&folder.join("report.html"), page)
}

fn page(
    document: &Document,
    results: &[CellResult],
    verdicts: &[Verdict],
    command: &str,
    figure: Option<&str>,
) -> String {
    let name = escape(&document.name);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{name}</title>\n\
         <style>\n{STYLE}\n</style></head>\n<body>\n<h1>{name}</h1>\n<p>{}</p>\n",
        escape(document.about.trim())
    );
    let seeds = results.iter().map(|result| result.runs.len()).max().unwrap_or(0);
    if let Some(svg) = figure {
        let _ = write!(
            page,
            "<figure>\n{svg}\n<figcaption>Means over {seeds} seeds; whiskers are 95 % confidence \
             intervals. Lines lie a little beside each other, so that none hides another. Hollow \
             marks on the floor of a logarithmic axis are means of zero.\
             </figcaption>\n</figure>\n"
        );
    }
    if !verdicts.is_empty() {
        page.push_str("<h2>Expected and measured</h2>\n");
        expectations(&mut page, verdicts);
    }
    page.push_str("<h2>Cells</h2>\n");
    cells(&mut page, document, results);
    problems(&mut page, results);
    let _ = write!(
        page,
        "<h2>How it was made</h2>\n<pre>{}</pre>\n<p>dockercomp {}, {seeds} seeds for each of {} \
         cells. Every run is in <code>runs.csv</code> and <code>runs.parquet</code> beside this \
         page.</p>\n<details><summary>The scenario, includes and settings resolved</summary>\n\
         <pre>{}</pre></details>\n</body>\n</html>\n",
        escape(command),
        env!("CARGO_PKG_VERSION"),
        results.len(),
        escape(&document.resolved.to_string()),
    );
    page
}

fn row(page: &mut String, tag: &str, values: impl IntoIterator<Item = String>) {
    page.push_str("<tr>");
    for value in values {
        let _ = write!(page, "<{tag}>{value}</{tag}>");
    }
    page.push_str("</tr>\n");
}

fn expectations(page: &mut String, verdicts: &[Verdict]) {
    page.push_str("<table>\n");
    let head = ["cell", "metric", "measured", "target", "allowed", "", "source"];
    row(page, "th", head.map(str::to_owned));
    for verdict in verdicts {
        let measured = verdict.measured.map_or("-".into(), |e| table::number(e.mean));
        let allowed = verdict.allowed.map_or("-".into(), |a| format!("±{}", table::number(a)));
        let is_within = if verdict.is_within() {
            "within".to_owned()
        } else {
            "<span class=\"out\">out</span>".to_owned()
        };
        let doubt = if verdict.verified { "" } else { " (formula not verified)" };
        let source = escape(&verdict.source) + doubt;
        let (cell, metric) = (escape(&verdict.cell), escape(&verdict.metric));
        let target = table::number(verdict.target);
        row(page, "td", [cell, metric, measured, target, allowed, is_within, source]);
    }
    page.push_str("</table>\n");
}

fn cells(page: &mut String, document: &Document, results: &[CellResult]) {
    let columns: Vec<String> = if document.columns.is_empty() {
        results.first().map(|r| r.metrics().into_iter().collect()).unwrap_or_default()
    } else {
        document.columns.clone()
    };
    page.push_str("<table>\n");
    let axes = document.axis_names().into_iter().map(escape);
    row(page, "th", axes.chain(columns.iter().map(|c| escape(c))));
    for result in results {
        let labels = result.cell.labels.iter().map(|(_, value)| escape(&shown(value)));
        let values = columns.iter().map(|metric| {
            estimate(&result.measures(metric)).map_or_else(
                || "-".to_owned(),
                |e| {
                    let [mean, low, high] = [e.mean, e.low, e.high].map(table::number);
                    format!("{mean} <small>[{low}, {high}]</small>")
                },
            )
        });
        row(page, "td", labels.chain(values));
    }
    page.push_str("</table>\n");
}

fn problems(page: &mut String, results: &[CellResult]) {
    let all: Vec<String> = results
        .iter()
        .flat_map(|result| {
            let cell = result.name();
            result.problems().map(move |(seed, _, text)| format!("{cell} seed {seed}: {text}"))
        })
        .collect();
    if all.is_empty() {
        return;
    }
    page.push_str("<h2>Runs with problems</h2>\n<ul>\n");
    for problem in all {
        let _ = writeln!(page, "<li>{}</li>", escape(&problem));
    }
    page.push_str("</ul>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn what_people_wrote_is_no_markup() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
