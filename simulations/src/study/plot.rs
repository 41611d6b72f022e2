//! How a figure is drawn: the same code for SVG and PNG.
//!
//! Colours are those of Okabe and Ito, which people with any colour vision can tell apart.
//! Lines lie a few pixels beside each other, or one would hide another of the same values.
//! On a logarithmic axis a mean of zero lies on the floor as a hollow mark: what is drawn
//! above it is how high the interval reaches.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::figure::{Drawing, Panel};
use super::output::WriteError;

const PANEL: (u32, u32) = (520, 330);
const LEGEND: u32 = 44;
const FONT: &str = "sans-serif";
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

type Failed<DB> = DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>;
type Chart<'a, DB> = ChartContext<'a, DB, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The figure as SVG text.
pub(super) fn svg(drawing: &Drawing) -> Result<String, WriteError> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size(drawing)).into_drawing_area();
    draw(&area, drawing).map_err(|error| failed("svg", &error))?;
    area.present().map_err(|error| failed("svg", &error))?;
    drop(area);
    Ok(text)
}

/// The figure as a PNG file.
pub(super) fn png(drawing: &Drawing, path: &Path) -> Result<(), WriteError> {
    let area = BitMapBackend::new(path, size(drawing)).into_drawing_area();
    draw(&area, drawing).map_err(|error| failed("png", &error))?;
    area.present().map_err(|error| failed("png", &error))
}

fn failed(name: &str, error: &impl ToString) -> WriteError {
    WriteError::Figure { name: name.to_owned(), reason: error.to_string() }
}

fn size(drawing: &Drawing) -> (u32, u32) {
    let columns = u32::try_from(drawing.columns).unwrap_or(1).max(1);
    let rows = u32::try_from(drawing.panels.len()).unwrap_or(1).div_ceil(columns).max(1);
    (columns * PANEL.0, rows * PANEL.1 + LEGEND)
}

fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    drawing: &Drawing,
) -> Result<(), Failed<DB>> {
    // The font comes with the program; it is registered once, the next times change nothing.
    let _ = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    area.fill(&WHITE)?;
    let (top, rest) = area.split_vertically(LEGEND);
    legend(&top, &drawing.lines)?;
    let rows = drawing.panels.len().div_ceil(drawing.columns).max(1);
    let places = rest.split_evenly((rows, drawing.columns));
    for (place, panel) in places.iter().zip(&drawing.panels) {
        draw_panel(place, panel)?;
    }
    Ok(())
}

fn legend<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    lines: &[String],
) -> Result<(), Failed<DB>> {
    let style = (FONT, 15).into_text_style(area);
    let mut x = 70;
    for (number, name) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        area.draw(&PathElement::new([(x, 22), (x + 28, 22)], colour.stroke_width(2)))?;
        mark(area, (x + 14, 22), number, false)?;
        area.draw(&Text::new(name.clone(), (x + 36, 15), style.clone()))?;
        let (width, _) = area.estimate_text_size(name, &style)?;
        x += 64 + i32::try_from(width).unwrap_or(0);
    }
    Ok(())
}

/// A mark of one of four shapes, so that lines differ in print as well.
fn mark<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    at: (i32, i32),
    number: usize,
    is_hollow: bool,
) -> Result<(), Failed<DB>> {
    let colour = COLOURS[number % COLOURS.len()];
    let (fill, edge) = (if is_hollow { WHITE } else { colour }, colour.stroke_width(1));
    let (x, y) = at;
    let outline: &[(i32, i32)] = match number % 4 {
        0 => {
            area.draw(&Circle::new(at, 4, fill.filled()))?;
            return area.draw(&Circle::new(at, 4, edge));
        }
        1 => &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
        2 => &[(0, -5), (5, 4), (-5, 4)],
        _ => &[(0, -6), (5, 0), (0, 6), (-5, 0)],
    };
    let corners: Vec<(i32, i32)> =
        outline.iter().cycle().take(outline.len() + 1).map(|(dx, dy)| (x + dx, y + dy)).collect();
    area.draw(&Polygon::new(corners.clone(), fill.filled()))?;
    area.draw(&PathElement::new(corners, edge))
}

/// The ends of the axes; y in decades if it is logarithmic.
struct Window {
    x: (f64, f64),
    y: (f64, f64),
    is_log: bool,
}

impl Window {
    fn of(panel: &Panel) -> Self {
        let points = || panel.series.iter().flatten();
        let fold = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            })
        };
        let (x_low, x_high) = fold(&mut points().map(|(x, _)| *x));
        let margin = ((x_high - x_low) * 0.04).max(1e-9);
        let x = (x_low - margin, x_high + margin);
        let y = if panel.is_log {
            let all = points().flat_map(|(_, e)| [e.mean, e.low, e.high]);
            let (low, high) = fold(&mut all.filter(|value| *value > 0.0));
            let (low, high) = if low <= high { (low, high) } else { (0.1, 1.0) };
            // Intervals that nearly touch zero do not stretch the axis.
            let (means, _) = fold(&mut points().map(|(_, e)| e.mean).filter(|mean| *mean > 0.0));
            let floor = if means.is_finite() { low.max(means / 10.0) } else { low };
            (floor.log10().floor(), high.log10().ceil())
        } else {
            let (low, high) = fold(&mut points().flat_map(|(_, e)| [e.low, e.high]));
            let margin = ((high - low) * 0.06).max(0.02 * high.abs()).max(1e-9);
            ((low - margin).max(if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY }), high + margin)
        };
        Self { x, y, is_log: panel.is_log }
    }

    /// Where a value lies on the y axis.
    fn place(&self, value: f64) -> f64 {
        if !self.is_log {
            value
        } else if value > 0.0 {
            value.log10().max(self.y.0)
        } else {
            self.y.0
        }
    }
}

fn draw_panel<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    panel: &Panel,
) -> Result<(), Failed<DB>> {
    let window = Window::of(panel);
    let mut builder = ChartBuilder::on(area);
    builder.margin(8).margin_right(18).x_label_area_size(46).y_label_area_size(70);
    if !panel.title.is_empty() {
        builder.caption(&panel.title, (FONT, 16));
    }
    let mut chart = builder.build_cartesian_2d(window.x.0..window.x.1, window.y.0..window.y.1)?;
    axes(&mut chart, panel, &window)?;
    let places = (0..panel.series.len()).map(|number| beside(number, panel.series.len()));
    for ((number, points), shift) in panel.series.iter().enumerate().zip(places) {
        line(area, &chart, &window, (number, shift), points)?;
    }
    Ok(())
}

fn axes<DB: DrawingBackend>(
    chart: &mut Chart<'_, DB>,
    panel: &Panel,
    window: &Window,
) -> Result<(), Failed<DB>> {
    let decades = (window.y.1 - window.y.0).round().clamp(1.0, 20.0) as usize;
    let x_text = |x: &f64| match &panel.places {
        Some(places) if (x - x.round()).abs() < 1e-9 && *x >= 0.0 => {
            places.get(x.round() as usize).cloned().unwrap_or_default()
        }
        Some(_) => String::new(),
        None => plain(*x),
    };
    let y_text = |y: &f64| match window.is_log {
        true if (y - y.round()).abs() < 1e-9 => decade(y.round() as i32),
        true => String::new(),
        false => plain(*y),
    };
    chart
        .configure_mesh()
        .x_desc(&panel.x_label)
        .y_desc(&panel.y_label)
        .x_labels(panel.places.as_ref().map_or(8, Vec::len))
        .y_labels(if window.is_log { decades + 1 } else { 7 })
        .x_label_formatter(&x_text)
        .y_label_formatter(&y_text)
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .bold_line_style(RGBColor(224, 224, 224))
        .light_line_style(WHITE)
        .draw()
}

/// By how many pixels a line is moved, so that lines of the same values are seen beside each
/// other.
fn beside(number: usize, of: usize) -> i32 {
    let [number, of] = [number, of].map(|n| i32::try_from(n).unwrap_or(0));
    (2 * number + 1 - of) * if of > 5 { 1 } else { 2 }
}

fn line<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &Chart<'_, DB>,
    window: &Window,
    (number, shift): (usize, i32),
    points: &[(f64, super::Estimate)],
) -> Result<(), Failed<DB>> {
    let colour = COLOURS[number % COLOURS.len()];
    let origin = area.get_pixel_range();
    let (left, top) = (origin.0.start, origin.1.start);
    let place = |x: f64, value: f64| {
        let (column, row) = chart.backend_coord(&(x, window.place(value)));
        (column - left + shift, row - top)
    };
    let path: Vec<(i32, i32)> = points.iter().map(|(x, e)| place(*x, e.mean)).collect();
    area.draw(&PathElement::new(path, colour.stroke_width(2)))?;
    for (x, estimate) in points {
        let (low, high) = (place(*x, estimate.low), place(*x, estimate.high));
        area.draw(&PathElement::new([low, high], colour.stroke_width(1)))?;
        for (column, row) in [low, high] {
            let cap = [(column - 4, row), (column + 4, row)];
            area.draw(&PathElement::new(cap, colour.stroke_width(1)))?;
        }
        let is_hollow = window.is_log && estimate.mean <= 0.0;
        mark(area, place(*x, estimate.mean), number, is_hollow)?;
    }
    Ok(())
}

fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A power of ten as it is printed.
fn decade(power: i32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    match power {
        0 => "1".to_owned(),
        1 => "10".to_owned(),
        _ => {
            let sign = if power < 0 { "⁻" } else { "" };
            let digits = power.unsigned_abs().to_string();
            let digits: String =
                digits.bytes().map(|digit| DIGITS[usize::from(digit - b'0')]).collect();
            format!("10{sign}{digits}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_axes_are_short() {
        assert_eq!([0.0, 0.05, 2.5, 10.0].map(plain), ["0", "0.05", "2.5", "10"]);
        assert_eq!([-4, 0, 1, 12].map(decade), ["10⁻⁴", "1", "10", "10¹²"]);
    }
}
