//! From a figure to SVG text.

use std::fmt::Write as _;

use super::axis::Fitted;
use super::canvas::{
    Area, CELL_WIDTH, CHARACTER, FAINT, FONT_SIZE, FRAME, GAP, INK, Svg, escaped, n, shortened, width_of,
};
use super::table;
use super::{Chart, Colour, Figure, Mark, Parallel, ParallelLine, Plot, Scale, Series, sequential};

const MARGIN: f64 = 16.0;
const TITLE_SIZE: f64 = 17.0;
const TITLE_HEIGHT: f64 = 30.0;
const SUBTITLE_HEIGHT: f64 = 20.0;
const CELL_HEIGHT: f64 = 310.0;
/// Room around a plot's frame for its title, tick labels and axis labels.
const ABOVE: f64 = 30.0;
const BELOW: f64 = 46.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 16.0;
/// Room for marks that stand on the frame.
const OVERHANG: f64 = 5.0;
/// Most characters of a name in a legend.
const LONGEST_NAME: usize = 26;
const LEGEND_LINE: f64 = 17.0;

/// The whole file.
pub(super) fn figure(figure: &Figure) -> String {
    let columns = figure.columns.max(1).min(figure.charts.len().max(1));
    let narrow = columns as f64 * CELL_WIDTH + (columns - 1) as f64 * GAP;
    let charts = figure.charts.iter().map(|chart| table::width(chart).unwrap_or(0.0)).fold(narrow, f64::max);
    // Bold letters are wider.
    let titles = (1.15 * width_of(&figure.title, TITLE_SIZE)).max(width_of(&figure.subtitle, FONT_SIZE));
    let inner = charts.max(titles.min(2.0 * CELL_WIDTH + GAP));
    let width = inner + 2.0 * MARGIN;
    let mut top = MARGIN + TITLE_HEIGHT;
    if !figure.subtitle.is_empty() {
        top += SUBTITLE_HEIGHT;
    }
    // Frames of one column are equally wide.
    let mut legends = vec![0.0f64; columns];
    let mut column = 0;
    for chart in &figure.charts {
        match chart {
            Chart::Plot(chart) => {
                legends[column] = legends[column].max(legend_width(&legend(chart, LEGEND_ROOM)));
                column = (column + 1) % columns;
            }
            Chart::Parallel(_) | Chart::Bars(_) | Chart::Matrix(_) | Chart::Images(_) => column = 0,
        }
    }
    let mut body = Svg(String::new());
    let mut column = 0;
    for chart in &figure.charts {
        let is_wide = !matches!(chart, Chart::Plot(_));
        if column > 0 && (is_wide || column == columns) {
            top += CELL_HEIGHT + GAP;
            column = 0;
        }
        let left = MARGIN + column as f64 * (CELL_WIDTH + GAP);
        let cell = Area { left, top, width: CELL_WIDTH, height: CELL_HEIGHT };
        let wide = |height| Area { width: inner, height, ..cell };
        let height = match chart {
            Chart::Plot(chart) => {
                plot(&mut body, chart, cell, legends[column]);
                column += 1;
                continue;
            }
            Chart::Parallel(chart) => {
                let height = CELL_HEIGHT + 60.0;
                parallel(&mut body, chart, wide(height));
                height
            }
            Chart::Bars(chart) => table::bars(&mut body, chart, wide(0.0)),
            Chart::Matrix(chart) => table::matrix(&mut body, chart, wide(0.0)),
            Chart::Images(chart) => table::images(&mut body, chart, wide(0.0)),
        };
        top += height + GAP;
    }
    if column > 0 {
        top += CELL_HEIGHT + GAP;
    }
    let height = top - GAP + MARGIN;
    let mut svg = Svg(String::new());
    let _ = writeln!(
        svg.0,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"figure\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
         font-family=\"Helvetica Neue, Arial, Liberation Sans, DejaVu Sans, sans-serif\" \
         font-size=\"{FONT_SIZE}\" fill=\"currentColor\" role=\"img\">",
        w = n(width),
        h = n(height)
    );
    let _ = writeln!(svg.0, "<title>{}</title>", escaped(&figure.title));
    if !figure.description.is_empty() {
        let _ = writeln!(svg.0, "<desc>{}</desc>", escaped(&figure.description));
    }
    let _ = writeln!(svg.0, "<style>{}</style>", super::style());
    svg.rectangle(Area { left: 0.0, top: 0.0, width, height }, "class=\"p\" fill=\"currentColor\"");
    let most = |size: f64| ((inner / (size * CHARACTER)) as usize).max(12);
    svg.text(
        MARGIN,
        MARGIN + 14.0,
        "font-size=\"17\" font-weight=\"bold\"",
        &shortened(&figure.title, most(1.15 * TITLE_SIZE)),
    );
    if !figure.subtitle.is_empty() {
        let text = shortened(&figure.subtitle, most(FONT_SIZE));
        svg.text(MARGIN, MARGIN + 34.0, "class=\"m\" fill=\"currentColor\"", &text);
    }
    svg.0.push_str(&body.0);
    svg.0.push_str("</svg>\n");
    svg.0
}

/// Room for the lines of a legend.
const LEGEND_ROOM: f64 = CELL_HEIGHT - ABOVE - BELOW;

fn legend_width(keys: &[(Key<'_>, String)]) -> f64 {
    let widest = keys.iter().map(|(_, name)| width_of(name, FONT_SIZE)).fold(0.0, f64::max);
    if keys.is_empty() { 0.0 } else { widest + 30.0 }
}

/// A line of a legend: what to draw before the name.
enum Key<'a> {
    Mark(&'a Series),
    Band,
    Guide,
    /// Names that found no room.
    More,
}

fn legend(plot: &Plot, room: f64) -> Vec<(Key<'_>, String)> {
    let mut keys: Vec<(Key<'_>, String)> = plot
        .series
        .iter()
        .filter_map(|series| Some((Key::Mark(series), shortened(series.name.as_ref()?, LONGEST_NAME))))
        .collect();
    keys.extend(plot.guides.iter().map(|guide| (Key::Guide, shortened(&guide.name, LONGEST_NAME))));
    keys.extend(plot.bands.iter().map(|band| (Key::Band, shortened(&band.name, LONGEST_NAME))));
    let most = (room / LEGEND_LINE) as usize;
    if keys.len() > most {
        let hidden = keys.len() + 1 - most.max(1);
        keys.truncate(most.saturating_sub(1));
        keys.push((Key::More, format!("and {hidden} more")));
    }
    keys
}

fn plot(svg: &mut Svg, plot: &Plot, cell: Area, legend_width: f64) {
    let keys = legend(plot, LEGEND_ROOM);
    let x = plot.x.fit(plot.series.iter().flat_map(|series| series.points.iter().map(|(x, _)| *x)));
    let y = plot.y.fit(plot.series.iter().flat_map(|series| series.points.iter().map(|(_, y)| *y)));
    let frame = Area {
        left: cell.left + LEFT,
        top: cell.top + ABOVE,
        width: cell.width - LEFT - RIGHT - legend_width,
        height: cell.height - ABOVE - BELOW,
    };
    svg.text(frame.left, cell.top + 18.0, "font-size=\"14\" font-weight=\"bold\"", &plot.title);
    for band in &plot.bands {
        let end = |value: f64, otherwise: f64| y.at(value).unwrap_or(otherwise).clamp(0.0, 1.0);
        let (low, high) = (end(band.low, 0.0), end(band.high, 1.0));
        let area = Area { top: frame.bottom() - high * frame.height, height: (high - low) * frame.height, ..frame };
        svg.rectangle(area, "class=\"c2\" fill=\"currentColor\" fill-opacity=\"0.1\"");
    }
    vertical_ticks(svg, &y, frame);
    horizontal_ticks(svg, &x, &plot.x.scale, frame);
    svg.rectangle(frame, &format!("fill=\"none\" {FRAME}"));
    let place = |(px, py): (f64, f64)| -> Option<(f64, f64)> {
        Some((frame.left + x.at(px)? * frame.width, frame.bottom() - y.at(py)? * frame.height))
    };
    let inside = Area {
        left: frame.left - OVERHANG,
        top: frame.top - OVERHANG,
        width: frame.width + 2.0 * OVERHANG,
        height: frame.height + 2.0 * OVERHANG,
    };
    svg.clipped(inside, |svg| {
        for guide in &plot.guides {
            let Some(at) = x.at(guide.at) else { continue };
            let left = frame.left + at * frame.width;
            svg.line((left, frame.top), (left, frame.bottom()), &format!("{INK} stroke-dasharray=\"2 3\""));
        }
        for series in &plot.series {
            draw_series(svg, series, &place);
        }
    });
    svg.text(frame.left + frame.width / 2.0, frame.bottom() + 38.0, "text-anchor=\"middle\"", &plot.x.label);
    let (left, middle) = (cell.left + 14.0, frame.top + frame.height / 2.0);
    let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 {} {})\"", n(left), n(middle));
    svg.text(left, middle, &turned, &plot.y.label);
    for (i, (key, name)) in keys.iter().enumerate() {
        let at = (frame.right() + 12.0, frame.top + 9.0 + i as f64 * LEGEND_LINE);
        draw_key(svg, key, at);
        svg.text(at.0 + 20.0, at.1 + 4.0, "", name);
    }
}

fn vertical_ticks(svg: &mut Svg, y: &Fitted, frame: Area) {
    for tick in y.ticks((frame.height / 32.0) as usize) {
        let top = frame.bottom() - tick.at * frame.height;
        svg.line((frame.left, top), (frame.right(), top), FAINT);
        let text = shortened(&tick.text, 9);
        svg.text(frame.left - 7.0, top + 4.0, "text-anchor=\"end\"", &text);
    }
}

fn horizontal_ticks(svg: &mut Svg, x: &Fitted, scale: &Scale, frame: Area) {
    let ticks = x.ticks((frame.width / 56.0) as usize);
    let room = frame.width / ticks.len().max(1) as f64;
    let most = ((room / (FONT_SIZE * CHARACTER)) as usize).max(3);
    for tick in ticks {
        let left = frame.left + tick.at * frame.width;
        if !matches!(scale, Scale::Categories(_)) {
            svg.line((left, frame.top), (left, frame.bottom()), FAINT);
        }
        svg.text(left, frame.bottom() + 17.0, "text-anchor=\"middle\"", &shortened(&tick.text, most));
    }
}

fn draw_series(svg: &mut Svg, series: &Series, place: &dyn Fn((f64, f64)) -> Option<(f64, f64)>) {
    let colour = series.colour.class();
    match series.mark {
        Mark::Dots { radius } => {
            for (i, point) in series.points.iter().enumerate() {
                let Some((x, y)) = place(*point) else { continue };
                let attributes = format!(
                    "cx=\"{}\" cy=\"{}\" r=\"{}\" class=\"{colour}\" fill=\"currentColor\" fill-opacity=\"{}\"",
                    n(x),
                    n(y),
                    n(radius),
                    n(series.opacity)
                );
                svg.shape("circle", &attributes, series.notes.get(i).map_or("", |note| note));
            }
        }
        Mark::Line { width, is_dashed } => {
            let note = series.notes.first().map_or("", |note| note);
            let placed: Vec<Option<(f64, f64)>> = series.points.iter().map(|point| place(*point)).collect();
            for run in placed.split(Option::is_none) {
                let run: Vec<(f64, f64)> = run.iter().flatten().copied().collect();
                match run[..] {
                    [] => {}
                    // A line of one point would not be seen.
                    [(x, y)] => {
                        let attributes = format!(
                            "cx=\"{}\" cy=\"{}\" r=\"{}\" class=\"{colour}\" fill=\"currentColor\" fill-opacity=\"{}\"",
                            n(x),
                            n(y),
                            n(width + 1.0),
                            n(series.opacity)
                        );
                        svg.shape("circle", &attributes, note);
                    }
                    _ => {
                        let attributes = format!("{}{}", path(&run), stroke(series.colour, width, series.opacity));
                        let dashes = if is_dashed { " stroke-dasharray=\"5 3\"" } else { "" };
                        svg.shape("path", &format!("{attributes}{dashes}"), note);
                    }
                }
            }
        }
    }
}

fn path(points: &[(f64, f64)]) -> String {
    let mut d = String::from("d=\"");
    for (i, (x, y)) in points.iter().enumerate() {
        let _ = write!(d, "{}{} {}", if i == 0 { "M" } else { "L" }, n(*x), n(*y));
    }
    d.push_str("\" ");
    d
}

fn stroke(colour: Colour, width: f64, opacity: f64) -> String {
    format!(
        "class=\"{}\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"{}\" stroke-opacity=\"{}\" stroke-linejoin=\"round\"",
        colour.class(),
        n(width),
        n(opacity)
    )
}

fn draw_key(svg: &mut Svg, key: &Key<'_>, (x, y): (f64, f64)) {
    match key {
        Key::Mark(series) => match series.mark {
            Mark::Line { width, is_dashed } => {
                let dashes = if is_dashed { " stroke-dasharray=\"5 3\"" } else { "" };
                let more = format!(
                    "class=\"{}\" stroke=\"currentColor\" stroke-width=\"{}\"{dashes}",
                    series.colour.class(),
                    n(width)
                );
                svg.line((x, y), (x + 15.0, y), &more);
            }
            Mark::Dots { radius } => {
                let (x, y) = (n(x + 7.5), n(y));
                let attributes = format!(
                    "cx=\"{x}\" cy=\"{y}\" r=\"{}\" class=\"{}\" fill=\"currentColor\"",
                    n(radius),
                    series.colour.class()
                );
                svg.shape("circle", &attributes, "");
            }
        },
        Key::Band => {
            let area = Area { left: x, top: y - 5.0, width: 15.0, height: 10.0 };
            svg.rectangle(area, "class=\"c2\" fill=\"currentColor\" fill-opacity=\"0.2\"");
        }
        Key::Guide => {
            svg.line((x + 7.5, y - 7.0), (x + 7.5, y + 7.0), &format!("{INK} stroke-dasharray=\"2 3\""));
        }
        Key::More => {}
    }
}

/// Room below a parallel axis for its label.
const PARALLEL_BELOW: f64 = 34.0;
const BAR_WIDTH: f64 = 14.0;

fn parallel(svg: &mut Svg, chart: &Parallel, cell: Area) {
    svg.text(cell.left + 4.0, cell.top + 18.0, "font-size=\"14\" font-weight=\"bold\"", &chart.title);
    let bar_room = if chart.colour_bar.is_some() { 110.0 } else { 0.0 };
    let frame = Area {
        left: cell.left + LEFT,
        top: cell.top + ABOVE + 16.0,
        width: cell.width - LEFT - 60.0 - bar_room,
        height: cell.height - ABOVE - 16.0 - PARALLEL_BELOW,
    };
    let fitted: Vec<Fitted> = chart
        .axes
        .iter()
        .enumerate()
        .map(|(i, axis)| axis.fit(chart.lines.iter().filter_map(|line| line.values.get(i).copied().flatten())))
        .collect();
    let step = frame.width / fitted.len().saturating_sub(1).max(1) as f64;
    let left_of = |i: usize| frame.left + i as f64 * step;
    for line in &chart.lines {
        parallel_line(svg, line, &fitted, frame, &left_of);
    }
    let most = ((step / (FONT_SIZE * CHARACTER)) as usize).max(6);
    let has_levels = chart.axes.iter().any(|axis| width_of(&axis.label, FONT_SIZE) > step);
    for (i, (axis, fitted)) in chart.axes.iter().zip(&fitted).enumerate() {
        let left = left_of(i);
        svg.line((left, frame.top), (left, frame.bottom()), &format!("{INK} stroke-width=\"1.2\""));
        for tick in fitted.ticks((frame.height / 32.0) as usize) {
            let top = frame.bottom() - tick.at * frame.height;
            svg.line((left - 4.0, top), (left, top), INK);
            // A white edge keeps the text readable over lines.
            let edge = "text-anchor=\"end\" font-size=\"11\" class=\"e\" stroke-width=\"3\" paint-order=\"stroke\"";
            svg.text(left - 7.0, top + 4.0, edge, &shortened(&tick.text, (most / 2).max(7)));
        }
        // Neighbours with long labels stand on two levels, where each has twice the room.
        let label = shortened(&axis.label, if has_levels { 2 * most } else { most });
        let below = if has_levels && i % 2 == 1 { 32.0 } else { 18.0 };
        let anchor = if i > 0 && i + 1 == chart.axes.len() && has_levels { "end" } else { "middle" };
        svg.text(left, frame.bottom() + below, &format!("text-anchor=\"{anchor}\""), &label);
    }
    if let Some(bar) = &chart.colour_bar {
        let left = cell.left + cell.width - bar_room + 30.0;
        const SLICES: usize = 32;
        let slice = frame.height / SLICES as f64;
        for i in 0..SLICES {
            let t = (i as f64 + 0.5) / SLICES as f64;
            let top = frame.bottom() - (i + 1) as f64 * slice;
            // Half a pixel over the next one, so that no gap shows between them.
            let area = Area { left, top, width: BAR_WIDTH, height: slice + if i > 0 { 0.5 } else { 0.0 } };
            svg.rectangle(area, &format!("class=\"{}\" fill=\"currentColor\"", sequential(t).class()));
        }
        let axis = super::Axis::linear("").within(bar.low, bar.high).fit([bar.low, bar.high].into_iter());
        for tick in axis.ticks((frame.height / 32.0) as usize) {
            let top = frame.bottom() - tick.at * frame.height;
            svg.text(left + BAR_WIDTH + 5.0, top + 4.0, "font-size=\"11\"", &tick.text);
        }
        svg.text(cell.left + cell.width, frame.top - 12.0, "text-anchor=\"end\"", &shortened(&bar.label, 34));
    }
}

fn parallel_line(svg: &mut Svg, line: &ParallelLine, fitted: &[Fitted], frame: Area, left_of: &dyn Fn(usize) -> f64) {
    let placed: Vec<Option<(f64, f64)>> = fitted
        .iter()
        .enumerate()
        .map(|(i, axis)| {
            let at = axis.at(line.values.get(i).copied().flatten()?)?;
            Some((left_of(i), frame.bottom() - at.clamp(-0.02, 1.02) * frame.height))
        })
        .collect();
    for run in placed.split(Option::is_none) {
        let run: Vec<(f64, f64)> = run.iter().flatten().copied().collect();
        match run[..] {
            [] => {}
            [(x, y)] => {
                let colour = line.colour.class();
                let attributes =
                    format!("cx=\"{}\" cy=\"{}\" r=\"3\" class=\"{colour}\" fill=\"currentColor\"", n(x), n(y));
                svg.shape("circle", &attributes, &line.note);
            }
            _ => {
                let attributes = format!("{}{}", path(&run), stroke(line.colour, line.width, line.opacity));
                svg.shape("path", &attributes, &line.note);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Axis, Band, ColourBar, Guide, categorical};
    use super::*;

    fn example() -> Figure {
        let mut figure = Figure::new("a & b <\"c\">", "it's");
        let mut plot = Plot::new("loss", Axis::whole("epoch"), Axis::log("loss in nats"));
        let points = vec![(1.0, 2.0), (2.0, f64::NAN), (3.0, 0.5), (4.0, 0.0), (5.0, 0.25), (6.0, 0.1)];
        plot.series.push(Series::line("train", categorical(0), points.clone()));
        plot.series.push(Series::dots("validation", categorical(1), points.clone()).thin());
        plot.series.push(Series::line("dashed", categorical(2), points).dashed());
        plot.bands.push(Band { low: 0.0, high: 1.0, name: "healthy".into() });
        plot.guides.push(Guide { at: 3.0, name: "best".into() });
        figure.charts.push(Chart::Plot(plot));
        let line = |values: Vec<Option<f64>>| ParallelLine {
            values,
            colour: sequential(0.3),
            width: 1.0,
            opacity: 0.5,
            note: "trial <1>".into(),
        };
        figure.charts.push(Chart::Parallel(Parallel {
            title: "trials".into(),
            axes: vec![Axis::log("l2"), Axis::categories("optimizer", vec!["a".into(), "b".into()]), Axis::linear("y")],
            lines: vec![line(vec![Some(1e-3), Some(1.0), Some(0.5)]), line(vec![Some(1e-5), None, Some(0.7)])],
            colour_bar: Some(ColourBar { label: "accuracy".into(), low: 0.5, high: 0.7 }),
        }));
        figure
    }

    #[test]
    fn texts_are_escaped_and_elements_closed() {
        let text = String::from_utf8(example().to_svg()).unwrap();
        assert!(text.contains("<title>a &amp; b &lt;&quot;c&quot;&gt;</title>"), "{text}");
        assert!(text.contains("it&#39;s") && text.contains("<title>trial &lt;1&gt;</title>"));
        for name in ["svg", "text", "title", "path", "circle"] {
            let opened = text.matches(&format!("<{name} ")).count() + text.matches(&format!("<{name}>")).count();
            let closed = text.matches(&format!("</{name}>")).count();
            let alone =
                text.lines().filter(|line| line.starts_with(&format!("<{name} ")) && line.ends_with("/>")).count();
            assert_eq!(opened, closed + alone, "{name}");
        }
        assert!(!text.contains("NaN") && !text.contains("inf"));
    }

    #[test]
    fn a_missing_value_breaks_a_line_and_a_lone_point_is_seen() {
        let text = String::from_utf8(example().to_svg()).unwrap();
        // 1 | 3 | 5 to 6: two lone points and one path for each of the two lines.
        let paths = text.lines().filter(|line| line.starts_with("<path")).count();
        // And one across the parallel axes; the other has a gap in the middle.
        assert_eq!(paths, 2 + 1);
        let circles = text.lines().filter(|line| line.starts_with("<circle")).count();
        assert_eq!(circles, 2 * 2 + 4 + 2);
    }

    #[test]
    fn the_same_figure_gives_the_same_bytes() {
        assert_eq!(example().to_svg(), example().to_svg());
        let digest = blake3::hash(&example().to_svg()).to_string();
        assert_eq!(&digest[..16], "d38d1951c746753d", "a picture changed: look at it, then pin it anew");
    }

    #[test]
    fn a_figure_of_nothing_is_a_picture_with_its_title() {
        let text = String::from_utf8(Figure::new("nothing", "").to_svg()).unwrap();
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n") && text.contains("nothing"));
    }

    #[test]
    fn coordinates_are_short() {
        assert_eq!([n(1.0), n(0.125), n(-0.001), n(100.0), n(-2.5)], ["1", "0.12", "0", "100", "-2.5"]);
    }
}
