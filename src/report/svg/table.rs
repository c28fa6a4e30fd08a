//! Charts that are tables: bars with intervals, and shares as colours.

use super::canvas::{
    Area, CELL_WIDTH, CHARACTER, FAINT, FONT_SIZE, FRAME, GAP, INK, Svg, n, shortened, shortened_name, width_of,
};
use super::{Bars, Chart, Images, Matrix, png_size, png_uri};

/// The height of a row of bars.
const ROW: f64 = 19.0;
/// Names of rows get at most so much room.
const MOST_NAME: f64 = 190.0;
/// Room below bars for ticks and the axis's label.
const BELOW: f64 = 44.0;
const TITLE: f64 = 26.0;
/// A panel is at least so wide.
const LEAST_PANEL: f64 = 180.0;

/// A cell of a matrix is between these sizes.
const LEAST_CELL: f64 = 4.0;
const MOST_CELL: f64 = 46.0;
/// Cells from this size on have texts.
const CELL_WITH_TEXT: f64 = 17.0;
const MOST_MATRIX: f64 = 850.0;
/// Names beside and below it get at most so much room.
const LONGEST: f64 = 170.0;
const SMALL: f64 = 11.0;

/// How wide a chart wants to be, if it does not go by the columns.
pub(super) fn width(chart: &Chart) -> Option<f64> {
    match chart {
        Chart::Plot(_) => None,
        Chart::Parallel(chart) => {
            // Room for each name, and the same on both sides.
            let widest = chart.axes.iter().map(|axis| width_of(&axis.label, FONT_SIZE)).fold(0.0, f64::max);
            let steps = chart.axes.len().saturating_sub(1) as f64;
            Some((steps * (0.55 * widest + 12.0).max(90.0) + 240.0).clamp(2.0 * CELL_WIDTH + GAP, 2_000.0))
        }
        Chart::Bars(chart) => {
            let panels = chart.panels.len() as f64;
            let wide = panels * (LEAST_PANEL + numbers_width(chart) + GAP);
            Some((names_width(&chart.names) + wide).max(CELL_WIDTH + 200.0))
        }
        Chart::Matrix(chart) => Some(sizes(chart).0),
        Chart::Images(chart) => {
            let sizes = chart.images.iter().filter_map(|(_, png)| png_size(png));
            let total = sizes.map(|(width, _)| f64::from(width) + GAP).fold(0.0, |sum, width| sum + width);
            Some(total.clamp(CELL_WIDTH, 2.0 * CELL_WIDTH + GAP))
        }
    }
}

/// Draws them and says how high they are.
pub(super) fn images(svg: &mut Svg, chart: &Images, cell: Area) -> f64 {
    let (mut left, mut top, mut below) = (cell.left, cell.top, cell.top);
    for (title, png) in &chart.images {
        let Some((width, height)) = png_size(png).map(|(width, height)| (f64::from(width), f64::from(height))) else {
            continue;
        };
        let scale = (cell.width / width).min(1.0);
        let (width, height) = (width * scale, height * scale);
        if left > cell.left && left + width > cell.left + cell.width + 0.5 {
            (left, top) = (cell.left, below + GAP);
        }
        let most = ((width / (14.0 * CHARACTER)) as usize).max(4);
        let title_height = if title.is_empty() { 2.0 } else { TITLE };
        svg.text(left, top + 14.0, "font-size=\"14\" font-weight=\"bold\"", &shortened(title, most));
        let place = format!(
            "x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" style=\"image-rendering:pixelated\" href=\"{}\"",
            n(left),
            n(top + title_height),
            n(width),
            n(height),
            png_uri(png)
        );
        svg.shape("image", &place, title);
        left += width + GAP;
        below = below.max(top + title_height + height);
    }
    below - cell.top
}

fn names_width(names: &[String]) -> f64 {
    names.iter().map(|name| width_of(name, FONT_SIZE)).fold(0.0, f64::max).min(MOST_NAME) + 12.0
}

/// Room for the numbers beside bars.
fn numbers_width(chart: &Bars) -> f64 {
    let texts = chart.panels.iter().flat_map(|panel| panel.values.iter().flatten());
    texts.map(|bar| width_of(&bar.text, SMALL)).fold(0.0, f64::max) + 16.0
}

/// Draws it and says how high it is.
pub(super) fn bars(svg: &mut Svg, chart: &Bars, cell: Area) -> f64 {
    let above = if chart.title.is_empty() { 4.0 } else { TITLE };
    if !chart.title.is_empty() {
        svg.text(cell.left, cell.top + 14.0, "font-size=\"14\" font-weight=\"bold\"", &chart.title);
    }
    let (names, numbers) = (names_width(&chart.names), numbers_width(chart));
    let most = (MOST_NAME / (FONT_SIZE * CHARACTER)) as usize;
    let top = cell.top + above;
    let height = chart.names.len() as f64 * ROW;
    for (i, name) in chart.names.iter().enumerate() {
        let y = top + (i as f64 + 0.5) * ROW + 4.0;
        svg.text(cell.left + names - 8.0, y, "text-anchor=\"end\"", &shortened_name(name, most));
    }
    let each = (cell.width - names) / chart.panels.len().max(1) as f64;
    for (k, panel) in chart.panels.iter().enumerate() {
        let frame = Area { left: cell.left + names + k as f64 * each, top, width: each - numbers - GAP, height };
        let shown = panel.values.iter().flatten();
        let ends = shown.flat_map(|bar| [Some(bar.value), bar.interval.map(|i| i.0), bar.interval.map(|i| i.1)]);
        let axis = panel.axis.fit(ends.flatten());
        for tick in axis.ticks((frame.width / 52.0) as usize) {
            let x = frame.left + tick.at * frame.width;
            svg.line((x, frame.top), (x, frame.bottom()), FAINT);
            svg.text(x, frame.bottom() + 15.0, "text-anchor=\"middle\" font-size=\"11\"", &tick.text);
        }
        svg.line((frame.left, frame.top), (frame.left, frame.bottom()), FRAME);
        let middle = frame.left + frame.width / 2.0;
        svg.text(middle, frame.bottom() + 33.0, "text-anchor=\"middle\"", &panel.axis.label);
        let place = |x: f64| axis.at(x).map(|at| frame.left + at.clamp(0.0, 1.0) * frame.width);
        for (i, bar) in panel.values.iter().enumerate() {
            let (Some(bar), middle) = (bar, frame.top + (i as f64 + 0.5) * ROW) else { continue };
            let Some(end) = place(bar.value) else { continue };
            let area = Area { left: frame.left, top: middle - 5.5, width: (end - frame.left).max(0.5), height: 11.0 };
            let class = panel.colour.class();
            svg.rectangle(area, &format!("class=\"{class}\" fill=\"currentColor\" fill-opacity=\"0.75\""));
            if let Some((low, high)) = bar.interval.and_then(|(low, high)| Some((place(low)?, place(high)?))) {
                svg.line((low, middle), (high, middle), &format!("{INK} stroke-width=\"1.2\""));
                for x in [low, high] {
                    svg.line((x, middle - 3.5), (x, middle + 3.5), &format!("{INK} stroke-width=\"1.2\""));
                }
            }
            let right = frame.right() + numbers - 2.0;
            svg.text(right, middle + 4.0, "text-anchor=\"end\" font-size=\"11\"", &bar.text);
        }
    }
    above + height + BELOW
}

/// Width of the whole, room for the names of rows and of columns, and the size of a cell.
fn sizes(chart: &Matrix) -> (f64, f64, f64, f64) {
    let columns = chart.columns.len().max(1) as f64;
    // Few cells have room.
    let most = if columns <= 4.0 { 2.0 * MOST_CELL } else { MOST_CELL };
    let size = (MOST_MATRIX / columns).clamp(LEAST_CELL, most);
    let widest = |names: &[String]| names.iter().map(|name| width_of(name, SMALL)).fold(0.0, f64::max).min(LONGEST);
    let (rows, tall) = (widest(&chart.rows) + 36.0, widest(&chart.columns));
    // Turned names reach down, and to the left of the first column.
    let below = if tall > size - 4.0 { tall * 0.72 + 14.0 } else { 16.0 } + 26.0;
    ((rows + columns * size + 90.0).max(CELL_WIDTH), rows, below, size)
}

/// Draws it and says how high it is.
pub(super) fn matrix(svg: &mut Svg, chart: &Matrix, cell: Area) -> f64 {
    let (_, left, below, size) = sizes(chart);
    let n_columns = chart.columns.len();
    let frame = Area {
        left: cell.left + left,
        top: cell.top + 4.0,
        width: n_columns as f64 * size,
        height: chart.rows.len() as f64 * size,
    };
    let has_text = size >= CELL_WITH_TEXT;
    let font = (size * 0.36).clamp(7.5, 12.0);
    for (i, (share, text)) in chart.cells.iter().enumerate() {
        let (row, column) = (i / n_columns.max(1), i % n_columns.max(1));
        let area = Area {
            left: frame.left + column as f64 * size,
            top: frame.top + row as f64 * size,
            width: size,
            height: size,
        };
        if *share > 0.0 {
            // The least share that there is can still be seen.
            let opacity = n(0.06 + 0.94 * share.clamp(0.0, 1.0));
            svg.rectangle(area, &format!("class=\"c0\" fill=\"currentColor\" fill-opacity=\"{opacity}\""));
        }
        if has_text && !text.is_empty() {
            let ink = if *share > 0.75 { "class=\"p\" fill=\"currentColor\" " } else { "" };
            let (x, y) = (area.left + size / 2.0, area.top + size / 2.0 + font * 0.36);
            svg.text(x, y, &format!("{ink}text-anchor=\"middle\" font-size=\"{}\"", n(font)), text);
        }
    }
    svg.rectangle(frame, &format!("fill=\"none\" {FRAME}"));
    // Where cells are smaller than letters, only some names are written.
    let every = (SMALL * 1.15 / size).ceil().max(1.0) as usize;
    let most = (LONGEST / (SMALL * CHARACTER)) as usize;
    for (i, name) in chart.rows.iter().enumerate().step_by(every) {
        let y = frame.top + (i as f64 + 0.5) * size + 4.0;
        svg.text(frame.left - 7.0, y, "text-anchor=\"end\" font-size=\"11\"", &shortened_name(name, most));
    }
    let is_turned = chart.columns.iter().any(|name| width_of(name, SMALL) > size - 4.0);
    for (i, name) in chart.columns.iter().enumerate().step_by(every) {
        let (x, y) = (frame.left + (i as f64 + 0.5) * size, frame.bottom() + 13.0);
        let more = match is_turned {
            true => format!("text-anchor=\"end\" font-size=\"11\" transform=\"rotate(-45 {} {})\"", n(x), n(y)),
            false => "text-anchor=\"middle\" font-size=\"11\"".to_owned(),
        };
        svg.text(x, y, &more, &shortened_name(name, most));
    }
    let bottom = frame.bottom() + below - 8.0;
    svg.text(frame.left + frame.width / 2.0, bottom, "text-anchor=\"middle\"", &chart.column_label);
    let (x, y) = (cell.left + 12.0, frame.top + frame.height / 2.0);
    let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 {} {})\"", n(x), n(y));
    svg.text(x, y, &turned, &chart.row_label);
    // What the colours mean.
    let (bar, steps) =
        (Area { left: frame.right() + 22.0, top: frame.top, width: 12.0, height: frame.height.min(160.0) }, 20);
    for i in 0..steps {
        let share = (i as f64 + 0.5) / steps as f64;
        let step = bar.height / steps as f64;
        let area = Area { top: bar.bottom() - (i + 1) as f64 * step, height: step, ..bar };
        let opacity = n(0.06 + 0.94 * share);
        svg.rectangle(area, &format!("class=\"c0\" fill=\"currentColor\" fill-opacity=\"{opacity}\""));
    }
    svg.rectangle(bar, &format!("fill=\"none\" {FRAME}"));
    for (at, text) in [(0.0, "0 %"), (1.0, "100 %")] {
        svg.text(bar.right() + 5.0, bar.bottom() - at * bar.height + 4.0, "font-size=\"11\"", text);
    }
    frame.height + 4.0 + below
}
