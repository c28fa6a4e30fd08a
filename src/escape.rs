//! Foreign text (names of files and classes, words of a manifest, what a decoder says) made safe to show.
//!
//! A terminal obeys control characters, C1 ones too, and reorders a line at bidirectional controls; line feeds would
//! forge lines of ours. Each becomes an escape as JSON has it (`\n`, `\u009b`), so that a document of JSON stays one.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a terminal does something else with `c` than to show it.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` on one line, nothing in it that a terminal obeys.
pub fn on_line(text: &str) -> Cow<'_, str> {
    escaped(text, false, false)
}

/// `text` with its line feeds, and with its colours (SGR sequences) where there are any to be shown; nothing else in it
/// that a terminal obeys.
pub fn on_lines(text: &str, has_colour: bool) -> Cow<'_, str> {
    escaped(text, true, has_colour)
}

fn escaped(text: &str, keeps_lines: bool, keeps_colour: bool) -> Cow<'_, str> {
    let is_kept = |c: char| !is_unsafe(c) || (keeps_lines && c == '\n');
    if text.chars().all(is_kept) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut len = c.len_utf8();
        match c {
            c if is_kept(c) => out.push(c),
            '\x1b' if keeps_colour && colour_len(rest).is_some() => {
                len = colour_len(rest).unwrap_or(len);
                out.push_str(&rest[..len]);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // All of them lie below U+10000: four digits do. Writing to a string cannot fail.
            c => drop(write!(out, "\\u{:04x}", u32::from(c))),
        }
        rest = &rest[len..];
    }
    Cow::Owned(out)
}

/// The length of the SGR sequence (`ESC [ 1;31 m`) that `text` begins with.
fn colour_len(text: &str) -> Option<usize> {
    let inner = text.strip_prefix("\x1b[")?;
    let end = inner.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    inner[end..].starts_with('m').then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_comes_out() {
        for (text, expected) in [
            ("caf\u{e9} \u{65e5}", "caf\u{e9} \u{65e5}"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\x1b[31mred\x1b]0;title\x07", "\\u001b[31mred\\u001b]0;title\\u0007"),
            ("\u{7f}\u{9b}31m\u{85}", "\\u007f\\u009b31m\\u0085"),
            ("\u{202e}evil\u{2066}\u{2069}\u{200f}\u{2028}", "\\u202eevil\\u2066\\u2069\\u200f\\u2028"),
        ] {
            assert_eq!(on_line(text), expected);
        }
        assert_eq!(on_lines("a\n\x1b[1;31mb\x1b[0m\x1b[2J", true), "a\n\x1b[1;31mb\x1b[0m\\u001b[2J");
        assert_eq!(on_lines("a\n\x1b[1mb", false), "a\n\\u001b[1mb");
    }

    #[test]
    fn a_document_of_json_stays_one() {
        let value = serde_json::json!({ "a\u{9b}\u{7f}": "\u{202e}\n\x1b" });
        let shown = on_lines(&value.to_string(), false).into_owned();
        assert!(shown.is_ascii());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
