//! Texts for a terminal: aligned tables.

use crate::memory;

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Renders rows under a header, columns two spaces apart, no trailing blanks. Widths count characters.
pub fn aligned(header: &[&str], aligns: &[Align], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = header.iter().map(|cell| width(cell)).collect();
    for row in rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(width(cell));
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (i, cell) in cells.enumerate() {
            let blanks = " ".repeat(widths[i] - width(cell));
            if i > 0 {
                line.push_str("  ");
            }
            match aligns.get(i) {
                Some(Align::Right) => line.extend([&blanks, cell]),
                _ => line.extend([cell, &blanks]),
            }
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// `1234567` as `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Bytes for people: `512 B`, `1.5 KiB`, `3.2 GiB`.
pub fn bytes(n: u64) -> String {
    memory::bytes(n)
}

/// Seconds for people: `0.4 s`, `12 s`, `3 min 20 s`.
pub fn seconds(s: f64) -> String {
    if s < 10.0 {
        format!("{s:.1} s")
    } else if s < 120.0 {
        format!("{s:.0} s")
    } else {
        let whole = s.round() as u64;
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_leave_no_trailing_blanks() {
        let text = aligned(
            &["layer", "parameters"],
            &[Align::Left, Align::Right],
            &[vec!["CONV(32)".into(), "320".into()], vec!["RELU".into(), "".into()]],
        );
        assert_eq!(text, "layer     parameters\nCONV(32)         320\nRELU\n");
    }

    #[test]
    fn numbers_are_grouped_and_scaled() {
        assert_eq!(grouped(138_357_544), "138,357,544");
        assert_eq!(grouped(999), "999");
        assert_eq!(seconds(0.44), "0.4 s");
        assert_eq!(seconds(200.2), "3 min 20 s");
    }
}
