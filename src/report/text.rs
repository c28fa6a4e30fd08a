//! Texts for a terminal: aligned tables.

use unicode_width::UnicodeWidthStr as _;

use crate::memory;

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// The columns that a text takes on a terminal: two for a CJK character, none for a combining mark or a colour.
pub fn width(text: &str) -> usize {
    let mut columns = 0;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        columns += before.width();
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    columns + rest.width()
}

/// Lines for people are at most so wide, in columns, where their words allow it.
pub const COLUMNS: usize = 100;
/// A last column is not made narrower than this.
const NARROW: usize = 30;

/// Renders rows under a header, columns two spaces apart, no trailing blanks. Widths are those on a terminal; text in the last
/// column goes on below itself.
pub fn aligned(header: &[&str], aligns: &[Align], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| width(cell)).collect();
    for row in rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(width(cell));
        }
    }
    let start: usize = widths.iter().rev().skip(1).map(|width| width + 2).sum();
    let is_text = widths.len() > 1 && aligns.last() != Some(&Align::Right);
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (i, cell) in cells.enumerate() {
            if is_text && i + 1 == widths.len() && start + width(cell) > COLUMNS {
                let broken = wrapped(cell, COLUMNS.saturating_sub(start).max(NARROW), "");
                line.push_str("  ");
                line.push_str(&broken.replace('\n', &format!("\n{}", " ".repeat(start))));
                continue;
            }
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

/// `fold 1..5`, `fold 2 4`; `None` without a number. The numbers are in order.
pub fn numbered(word: &str, numbers: &[u32]) -> Option<String> {
    match numbers {
        [] => None,
        [first, .., last] if numbers.windows(2).all(|pair| pair[1] == pair[0] + 1) => {
            Some(format!("{word} {first}..{last}"))
        }
        _ => Some(format!("{word} {}", numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))),
    }
}

/// The words of `text` in lines of at most `width` columns; all lines but the first begin with `indent`. What stands in
/// backticks or braces, to be pasted, is not broken where a line has room for it.
pub fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let room = width.saturating_sub(self::width(indent));
    let mut out = String::new();
    let mut column = 0;
    for word in words(text, room) {
        let own = self::width(word);
        if column > 0 && column + 1 + own > width {
            out.push('\n');
            out.push_str(indent);
            column = self::width(indent);
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += own;
    }
    out
}

/// The words of `text`; what stands in backticks or braces is one, with what is glued to it, if it has at most `most` columns.
fn words(text: &str, most: usize) -> Vec<&str> {
    let count = |text: &str, c: char| text.matches(c).count();
    let is_open = |text: &str| count(text, '`') % 2 == 1 || count(text, '{') > count(text, '}');
    let next_space = |text: &str, from: usize| text[from..].find(' ').map_or(text.len(), |at| from + at);
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        let plain = next_space(rest, 0);
        let mut end = plain;
        while is_open(&rest[..end]) && end < rest.len() {
            end = next_space(rest, end + 1);
        }
        let is_whole = !is_open(&rest[..end]) && width(&rest[..end]) <= most;
        let end = if is_whole { end } else { plain };
        words.push(&rest[..end]);
        match rest.get(end + 1..) {
            Some(next) => rest = next,
            None => return words,
        }
    }
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

/// `1 task`, `1,797 tasks`.
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(n), if n == 1 { one } else { many })
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
    fn text_in_the_last_column_goes_on_below_itself() {
        let rows = [vec!["a".into(), "word ".repeat(30).trim_end().into()], vec!["b".into(), "short".into()]];
        let text = aligned(&["name", "what"], &[Align::Left, Align::Left], &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines.iter().all(|line| width(line) <= COLUMNS), "{text}");
        assert!(lines[2].starts_with("      word word"), "{text}");
        assert_eq!(lines[3], "b     short");
    }

    #[test]
    fn columns_align_under_wide_names_and_colours() {
        let rows = [
            vec!["猫".into(), "1".into()],
            vec!["e\u{301}te\u{301}".into(), "2".into()],
            vec!["\x1b[32mcat\x1b[0m".into(), "3".into()],
        ];
        let text = aligned(&["", ""], &[Align::Left, Align::Right], &rows);
        assert_eq!(text, "\n猫   1\ne\u{301}te\u{301}  2\n\x1b[32mcat\x1b[0m  3\n");
    }

    #[test]
    fn long_lines_are_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 80, "  "), "one two three");
        assert_eq!(wrapped("one two three", 7, "  "), "one two\n  three");
        assert_eq!(wrapped("猫猫猫 b c", 8, "  "), "猫猫猫 b\n  c");
        // Code in one piece, where there is room for it.
        assert_eq!(wrapped("write `a = 1`, or `b`", 13, "  "), "write\n  `a = 1`, or\n  `b`");
        assert_eq!(wrapped("write `a = 1 + 2` now", 8, "  "), "write `a\n  = 1 +\n  2` now");
        assert_eq!(wrapped("{ a = 1 } -> { a = 2 }", 14, ""), "{ a = 1 } ->\n{ a = 2 }");
        assert_eq!(wrapped("an odd ` and more", 8, "  "), "an odd `\n  and\n  more");
        assert_eq!(numbered("fold", &[1, 2, 3]).as_deref(), Some("fold 1..3"));
        assert_eq!(numbered("fold", &[1, 3]).as_deref(), Some("fold 1 3"));
        assert_eq!(numbered("fold", &[7]).as_deref(), Some("fold 7"));
        assert_eq!(numbered("fold", &[]), None);
    }

    #[test]
    fn numbers_are_grouped_and_scaled() {
        assert_eq!(grouped(138_357_544), "138,357,544");
        assert_eq!(grouped(999), "999");
        assert_eq!(seconds(0.44), "0.4 s");
        assert_eq!(seconds(200.2), "3 min 20 s");
    }
}
