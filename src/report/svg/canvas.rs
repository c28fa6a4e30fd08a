//! What a picture is written with: texts, lines, rectangles, as SVG.

use std::fmt::Write as _;

use crate::escape::on_line;

/// Between charts.
pub(super) const GAP: f64 = 18.0;
/// Of most texts.
pub(super) const FONT_SIZE: f64 = 12.0;
/// Mean width of a character of a sans-serif font, of its size. Fonts differ; labels are given room for this.
pub(super) const CHARACTER: f64 = 0.56;
/// Lines that are barely seen.
pub(super) const FAINT: &str = "class=\"f\" stroke=\"currentColor\"";
/// Frames.
pub(super) const FRAME: &str = "class=\"r\" stroke=\"currentColor\"";
/// Lines that are to be seen.
pub(super) const INK: &str = "stroke=\"currentColor\"";
/// The width of a chart in a grid.
pub(super) const CELL_WIDTH: f64 = 500.0;

/// The text of an element or attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in on_line(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A coordinate, in hundredths of a pixel, without what says nothing.
pub(super) fn n(x: f64) -> String {
    let text = format!("{x:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

pub(super) fn width_of(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * CHARACTER
}

pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// A name of at most so many characters, its start and its end kept: names of classes often begin alike.
pub(super) fn shortened_name(text: &str, most: usize) -> String {
    let n = text.chars().count();
    if n <= most || most < 4 {
        return shortened(text, most.max(2));
    }
    let n_last = (most - 1) / 3;
    text.chars().take(most - 1 - n_last).chain(['…']).chain(text.chars().skip(n - n_last)).collect()
}

/// A rectangle.
#[derive(Clone, Copy)]
pub(super) struct Area {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

impl Area {
    pub fn right(self) -> f64 {
        self.left + self.width
    }

    pub fn bottom(self) -> f64 {
        self.top + self.height
    }
}

/// An SVG being written.
pub(super) struct Svg(pub String);

impl Svg {
    pub fn text(&mut self, x: f64, y: f64, more: &str, text: &str) {
        let _ = writeln!(self.0, "<text x=\"{}\" y=\"{}\" {more}>{}</text>", n(x), n(y), escaped(text));
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), more: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(self.0, "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" {more}/>", n(x1), n(y1), n(x2), n(y2));
    }

    pub fn rectangle(&mut self, area: Area, more: &str) {
        let Area { left, top, width, height } = area;
        let _ = writeln!(
            self.0,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" {more}/>",
            n(left),
            n(top),
            n(width),
            n(height)
        );
    }

    /// An element with a note for the mouse, if there is one.
    pub fn shape(&mut self, name: &str, attributes: &str, note: &str) {
        if note.is_empty() {
            let _ = writeln!(self.0, "<{name} {attributes}/>");
        } else {
            let _ = writeln!(self.0, "<{name} {attributes}><title>{}</title></{name}>", escaped(note));
        }
    }

    /// A part of the picture outside of which nothing is drawn; coordinates stay those of the whole.
    pub fn clipped(&mut self, area: Area, inside: impl FnOnce(&mut Svg)) {
        let Area { left, top, width, height } = area;
        let box_ = format!("{} {} {} {}", n(left), n(top), n(width), n(height));
        let _ = writeln!(
            self.0,
            "<svg x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" viewBox=\"{box_}\">",
            n(left),
            n(top),
            n(width),
            n(height)
        );
        inside(self);
        self.0.push_str("</svg>\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_begin_alike_stay_apart() {
        assert_eq!(shortened_name("a long name 1", 10), "a long…e 1");
        assert_eq!(
            [shortened_name("short", 5), shortened_name("longer", 3), shortened_name("ab", 1)],
            ["short", "lo…", "ab"]
        );
        assert_eq!(shortened_name("áéíóúáéíóú1", 7).chars().count(), 7);
    }
}
