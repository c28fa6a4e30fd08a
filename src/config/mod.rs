//! How a config is read: located values in, typed fields out, every problem collected on the way.
//!
//! The bottom of the house, below every room that has a config. [`manifest`](crate::manifest) turns TOML into a tree of
//! [`Node`]s, each with the [`Span`] it came from; a config (a stage, a layer, an optimizer, a transform) reads its keys
//! through a [`Section`]. Reading a key checks it, remembers that it is a known key, and records its **resolved** value
//! (defaults written out) in the [`Log`]: the same list is what a fingerprint hashes and what `why` compares.
//! No rendering, no I/O; TOML only as the canonical text of values (`canonical.rs`).

mod canonical;

pub use canonical::{canonical_float, parse, positive_zero, quote, rebuild, segment, shortest, toml};

use std::fmt;
use std::ops::RangeInclusive;

/// A range of bytes in one of the texts that make up a manifest (the file, a `--set` argument).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Which text: 0 is the manifest file, the others are the overrides in the order given.
    pub source: u16,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What was written.
    pub value: Value,
    /// Where: the whole value, quotes included.
    pub span: Span,
}

/// What a key can be set to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A string. `inner` is the byte at which its content starts when content and source agree byte for byte (no
    /// escapes), so that errors can point inside.
    Text {
        /// The content, escapes resolved.
        text: String,
        /// Offset of the first byte of the content in the source, when the content stands there as it is.
        inner: Option<u32>,
    },
    /// A TOML date or time: no key takes one, but an error must be able to name it.
    Datetime(String),
    /// `[a, b]`.
    List(Vec<Node>),
    /// `{ a = b }` or `[a]`, in source order.
    Table(Table),
}

/// Keys and their values, in source order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// In the order of the source.
    pub entries: Vec<Entry>,
}

/// One `key = value`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key's last segment.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// Its value.
    pub node: Node,
}

impl Table {
    /// The entry with this key, if any.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

impl Value {
    /// What an error calls it: "a whole number", "a string", …
    pub fn noun(&self) -> &'static str {
        match self {
            Value::Boolean(_) => "true or false",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Text { .. } => "a string",
            Value::Datetime(_) => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// Whether a problem stops the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is run.
    Error,
    /// Said once, then the run goes on.
    Warning,
}

/// One thing wrong with a manifest, in the user's words; the caret goes under `span`.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// What must change.
    pub span: Span,
    /// One sentence, lower case, no full stop: what is wrong, then what was expected.
    pub message: String,
    /// At most one action the reader can take.
    pub help: Option<String>,
}

impl Problem {
    /// An error at `span`.
    pub fn error(span: Span, message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Error, span, message: message.into(), help: None }
    }

    /// A warning at `span`.
    pub fn warning(span: Span, message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, span, message: message.into(), help: None }
    }

    /// Adds the `help:` line.
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }
}

/// A key with the value that is in force, default or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Dotted, relative to its stage: `optimizer.sgd.momentum`, `steps[0].center.per`.
    pub key: String,
    /// Canonical TOML ([`toml`]): it reads back to the same value.
    pub value: String,
    /// Where it was set; `None` for a default.
    pub span: Option<Span>,
}

/// What reading a config leaves behind besides the config.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// Everything wrong so far.
    pub problems: Vec<Problem>,
    /// Every key read so far, resolved, in reading order.
    pub resolved: Vec<Resolved>,
    /// Where lists are written, which have a record for each item.
    pub lists: Vec<(String, Span)>,
    /// Keys that say where something is, as the path of a source: checked and not resolved, since no fingerprint may hold
    /// them, but needed beside the resolved keys to read the same config again.
    pub places: Vec<Resolved>,
}

impl Log {
    /// Adds a problem.
    pub fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Where `key` was set, or `otherwise` when it has its default.
    pub fn span_of(&self, key: &str, otherwise: Span) -> Span {
        let list = || self.lists.iter().find(|(list, _)| list == key).map(|(_, span)| *span);
        self.resolved.iter().rev().find(|r| r.key == key).and_then(|r| r.span).or_else(list).unwrap_or(otherwise)
    }
}

/// Bounds of a number, and how an error says them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bounds {
    /// `> 0`.
    Positive,
    /// `>= 0`.
    NonNegative,
    /// `0 <= x < 1`: a rate of something that must leave something.
    Rate,
    /// `0 <= x <= 1`.
    Fraction,
    /// Any finite number.
    Finite,
}

impl Bounds {
    fn holds(self, x: f64) -> bool {
        x.is_finite()
            && match self {
                Bounds::Positive => x > 0.0,
                Bounds::NonNegative => x >= 0.0,
                Bounds::Rate => (0.0..1.0).contains(&x),
                Bounds::Fraction => (0.0..=1.0).contains(&x),
                Bounds::Finite => true,
            }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bounds::Positive => "a number above 0",
            Bounds::NonNegative => "a number, at least 0",
            Bounds::Rate => "a number from 0 up to, not including, 1",
            Bounds::Fraction => "a number from 0 to 1",
            Bounds::Finite => "a finite number",
        })
    }
}

/// One table of a manifest while a config reads it.
///
/// Every read names its key; [`Section::finish`] then reports the keys that nobody asked for. A read never fails: it
/// reports the problem and returns a stand-in, so that one pass finds everything.
pub struct Section<'a> {
    table: Option<&'a Table>,
    span: Span,
    prefix: String,
    known: Vec<String>,
    log: &'a mut Log,
}

impl<'a> Section<'a> {
    /// Reads `table` (`None`: all defaults); `span` is its header, for missing keys; `prefix` is put before every
    /// recorded key ("" or ending in `.`).
    pub fn new(table: Option<&'a Table>, span: Span, prefix: &str, log: &'a mut Log) -> Section<'a> {
        Section { table, span, prefix: prefix.to_owned(), known: Vec::new(), log }
    }

    /// The header's span.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The log that problems and resolved keys go to.
    pub fn log(&mut self) -> &mut Log {
        self.log
    }

    /// Marks `key` as known and returns what it was set to, unchecked and unrecorded.
    pub fn raw(&mut self, key: &str) -> Option<&'a Node> {
        self.known.push(key.to_owned());
        self.table.and_then(|table| table.get(key)).map(|entry| &entry.node)
    }

    /// Records the resolved value of `key` (for what [`Section::raw`] returned), as canonical TOML.
    pub fn record(&mut self, key: &str, value: impl Into<String>, span: Option<Span>) {
        let key = format!("{}{key}", self.prefix);
        self.log.resolved.push(Resolved { key, value: value.into(), span });
    }

    /// Notes that `key` says where something is.
    pub fn record_place(&mut self, key: &str, place: &str, span: Span) {
        let key = format!("{}{key}", self.prefix);
        self.log.places.push(Resolved { key, value: quote(place), span: Some(span) });
    }

    /// Reports a value of the wrong type or range: `` `key` expected …, got … ``.
    pub fn expected(&mut self, key: &str, node: &Node, expected: impl fmt::Display) {
        let got = display(&node.value);
        self.log.push(Problem::error(node.span, format!("`{key}` expects {expected}, got {got}")));
    }

    fn missing(&mut self, key: &str, expected: &str) {
        self.log
            .push(Problem::error(self.span, format!("missing key `{key}`")).help(format!("add `{key}`: {expected}")));
    }

    /// A whole number within `range`; `default = None` makes the key required.
    pub fn whole(&mut self, key: &str, range: RangeInclusive<u64>, default: Option<u64>) -> u64 {
        self.whole_or(key, range.clone(), default, true).unwrap_or(*range.start())
    }

    /// A whole number within `range` where the key may be absent (and is not recorded then).
    pub fn optional_whole(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.whole_or(key, range, None, false)
    }

    fn whole_or(&mut self, key: &str, range: RangeInclusive<u64>, default: Option<u64>, required: bool) -> Option<u64> {
        let expected = if *range.end() >= i64::MAX as u64 {
            format!("a whole number, at least {}", range.start())
        } else {
            format!("a whole number from {} to {}", range.start(), range.end())
        };
        let Some(node) = self.raw(key) else {
            match default {
                Some(value) => self.record(key, value.to_string(), None),
                None if required => self.missing(key, &expected),
                None => {}
            }
            return default;
        };
        match node.value {
            Value::Integer(i) if u64::try_from(i).is_ok_and(|u| range.contains(&u)) => {
                self.record(key, i.to_string(), Some(node.span));
                Some(i as u64)
            }
            _ => {
                self.expected(key, node, expected);
                default
            }
        }
    }

    /// A number within `bounds`; `default = None` makes the key required. Whole numbers are numbers.
    pub fn number(&mut self, key: &str, bounds: Bounds, default: Option<f64>) -> f64 {
        let Some(node) = self.raw(key) else {
            match default {
                Some(value) => self.record(key, canonical_float(value), None),
                None => self.missing(key, &bounds.to_string()),
            }
            return default.unwrap_or(0.5);
        };
        match as_number(&node.value).map(positive_zero).filter(|&x| bounds.holds(x)) {
            Some(x) => {
                self.record(key, canonical_float(x), Some(node.span));
                x
            }
            None => {
                self.expected(key, node, bounds);
                default.unwrap_or(0.5)
            }
        }
    }

    /// A number within `bounds` where the key may be absent (and is not recorded then).
    pub fn optional_number(&mut self, key: &str, bounds: Bounds) -> Option<f64> {
        if self.table.is_some_and(|table| table.get(key).is_some()) {
            return Some(self.number(key, bounds, Some(0.5)));
        }
        self.raw(key);
        None
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        let Some(node) = self.raw(key) else {
            self.record(key, default.to_string(), None);
            return default;
        };
        match node.value {
            Value::Boolean(value) => {
                self.record(key, value.to_string(), Some(node.span));
                value
            }
            _ => {
                self.expected(key, node, "true or false");
                default
            }
        }
    }

    /// A string; `default = None` makes the key required.
    pub fn text(&mut self, key: &str, default: Option<&str>) -> String {
        let Some(node) = self.raw(key) else {
            match default {
                Some(value) => self.record(key, quote(value), None),
                None => self.missing(key, "a string"),
            }
            return default.unwrap_or_default().to_owned();
        };
        match &node.value {
            Value::Text { text, .. } => {
                self.record(key, quote(text), Some(node.span));
                text.clone()
            }
            _ => {
                self.expected(key, node, "a string");
                default.unwrap_or_default().to_owned()
            }
        }
    }

    /// A string that must not enter a fingerprint (a path): checked, not recorded.
    pub fn unrecorded_text(&mut self, key: &str) -> Option<(String, Span)> {
        let node = self.raw(key)?;
        match &node.value {
            Value::Text { text, .. } => {
                self.record_place(key, text, node.span);
                Some((text.clone(), node.span))
            }
            _ => {
                self.expected(key, node, "a string");
                None
            }
        }
    }

    /// One of a closed list of words.
    pub fn word(&mut self, key: &str, words: &[&'static str], default: &'static str) -> &'static str {
        let Some(node) = self.raw(key) else {
            self.record(key, quote(default), None);
            return default;
        };
        match &node.value {
            Value::Text { text, .. } => match words.iter().find(|word| *word == text) {
                Some(word) => {
                    self.record(key, quote(word), Some(node.span));
                    word
                }
                None => {
                    self.unknown_word(key, text, node.span, words);
                    default
                }
            },
            _ => {
                self.expected(key, node, OneOf(words));
                default
            }
        }
    }

    fn unknown_word(&mut self, key: &str, got: &str, span: Span, words: &[&str]) {
        let mut problem = Problem::error(span, format!("unknown `{key}`: `{got}`, expected {}", OneOf(words)));
        problem.help = did_you_mean(got, words.iter().copied());
        self.log.push(problem);
    }

    /// A choice: a bare word or a one-key table (`"adam"`, `{ adam = { beta1 = 0.9 } }`).
    ///
    /// `read` gets the chosen name and a section for its keys, which is finished here. Returns `None` after a problem,
    /// or when the key is absent and there is no `default`.
    pub fn choice<T>(
        &mut self,
        key: &str,
        names: &[&'static str],
        default: Option<&'static str>,
        read: impl FnOnce(&'static str, &mut Section<'_>) -> T,
    ) -> Option<T> {
        match self.raw(key) {
            Some(node) => self.choice_at(key, key, node, names, read),
            None => {
                let name = default?;
                self.record(key, quote(name), None);
                let mut section = Section::new(None, self.span, &format!("{}{key}.{name}.", self.prefix), self.log);
                Some(read(name, &mut section))
            }
        }
    }

    /// A list of choices, in order. An absent key is an empty list.
    pub fn choices<T>(
        &mut self,
        key: &str,
        names: &[&'static str],
        mut read: impl FnMut(&'static str, &mut Section<'_>) -> T,
    ) -> Vec<T> {
        let Some(node) = self.raw(key) else {
            self.record(key, "[]", None);
            return Vec::new();
        };
        let Value::List(items) = &node.value else {
            self.expected(key, node, "a list");
            return Vec::new();
        };
        if items.is_empty() {
            self.record(key, "[]", Some(node.span));
        }
        self.log.lists.push((format!("{}{key}", self.prefix), node.span));
        let mut out = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let at = format!("{key}[{i}]");
            out.extend(self.choice_at(key, &at, item, names, &mut read));
        }
        out
    }

    /// The choice that `node` makes; problems name `key`, records are kept under `at`.
    pub fn choice_at<T>(
        &mut self,
        key: &str,
        at: &str,
        node: &Node,
        names: &[&'static str],
        read: impl FnOnce(&'static str, &mut Section<'_>) -> T,
    ) -> Option<T> {
        let empty = Table::default();
        let (name, name_span, inner) = match &node.value {
            Value::Text { text, .. } => (text, node.span, Ok(&empty)),
            Value::Table(table) if table.entries.len() == 1 => {
                let entry = &table.entries[0];
                let inner = match &entry.node.value {
                    Value::Table(inner) => Ok(inner),
                    _ => Err(&entry.node),
                };
                (&entry.key, entry.key_span, inner)
            }
            _ => {
                let got = match &node.value {
                    Value::Table(table) => format!("a table with {} keys", table.entries.len()),
                    other => display(other),
                };
                let message =
                    format!("`{key}` expects {}, or a table with one of them as its only key, got {got}", OneOf(names));
                self.log.push(Problem::error(node.span, message));
                return None;
            }
        };
        let Some(name) = names.iter().find(|known| *known == name) else {
            self.unknown_word(key, name, name_span, names);
            return None;
        };
        self.record(at, quote(name), Some(node.span));
        // `{ divide = 255 }`: a choice with one unnamed value reads it under its own name.
        let wrapped;
        let table = match inner {
            Ok(table) => table,
            Err(value) => {
                wrapped = Table {
                    entries: vec![Entry { key: (*name).to_owned(), key_span: name_span, node: value.clone() }],
                };
                &wrapped
            }
        };
        let mut section = Section::new(Some(table), node.span, &format!("{}{at}.{name}.", self.prefix), self.log);
        let value = read(name, &mut section);
        section.finish();
        Some(value)
    }

    /// The table under `key`, if it is there.
    pub fn section(&mut self, key: &str) -> Option<Section<'_>> {
        let node = self.raw(key)?;
        match &node.value {
            Value::Table(table) => {
                Some(Section::new(Some(table), node.span, &format!("{}{key}.", self.prefix), self.log))
            }
            _ => {
                self.expected(key, node, "a table");
                None
            }
        }
    }

    /// The keys read so far, in reading order.
    pub fn known(&self) -> &[String] {
        &self.known
    }

    /// Reports every key that was not read, with "did you mean".
    pub fn finish(self) {
        let Some(table) = self.table else { return };
        for entry in &table.entries {
            if !self.known.contains(&entry.key) {
                let mut problem = Problem::error(entry.key_span, format!("unknown key `{}`", entry.key));
                problem.help = did_you_mean(&entry.key, self.known.iter().map(String::as_str)).or_else(|| {
                    let mut known: Vec<&str> = self.known.iter().map(String::as_str).collect();
                    known.sort_unstable();
                    known.dedup();
                    (!known.is_empty()).then(|| format!("the keys here are `{}`", known.join("`, `")))
                });
                self.log.push(problem);
            }
        }
    }
}

/// `a`, `b` or `c`, for messages.
pub struct OneOf<'a>(pub &'a [&'a str]);

impl fmt::Display for OneOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, word) in self.0.iter().enumerate() {
            let separator = match i {
                0 => "",
                _ if i + 1 == self.0.len() => " or ",
                _ => ", ",
            };
            write!(f, "{separator}`{word}`")?;
        }
        Ok(())
    }
}

/// The number in a value, whole or not.
pub fn as_number(value: &Value) -> Option<f64> {
    match *value {
        Value::Integer(i) => Some(i as f64),
        Value::Float(x) => Some(x),
        _ => None,
    }
}

/// Longer strings are cut in messages; the snippet below has them in full.
const SHOWN_CHARACTERS: usize = 60;

/// A value as an error shows it.
pub fn display(value: &Value) -> String {
    match value {
        Value::Boolean(b) => format!("`{b}`"),
        Value::Integer(i) => format!("`{i}`"),
        Value::Float(x) => format!("`{}`", shortest(*x)),
        Value::Text { text, .. } => match text.char_indices().nth(SHOWN_CHARACTERS) {
            Some((at, _)) => format!("the string `{}…`", &text[..at]),
            None => format!("the string `{text}`"),
        },
        other => other.noun().to_owned(),
    }
}

/// "did you mean `x`?" for the nearest known word, when it is near enough, or for the one with these initials (`lr`).
pub fn did_you_mean<'k>(got: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    let initials = |word: &str| -> String { word.split(['_', '-']).filter_map(|part| part.chars().next()).collect() };
    known
        .map(|word| {
            let is_initials = word.contains(['_', '-']) && initials(word) == got;
            (if is_initials { 0 } else { edit_distance(got, word) }, word)
        })
        .filter(|(distance, word)| {
            let shorter = word.len().min(got.len());
            // Two letters out of two or three are another word.
            *distance == 0 || (shorter > 2 && *distance <= 1 + shorter / 4 && *distance < word.len())
        })
        .min()
        .map(|(_, word)| format!("did you mean `{word}`?"))
}

/// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let substitute = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substitute.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["learning_rate", "l2", "epochs", "batch_size", "clip"];
        let case = |got: &str, expected: Option<&str>| {
            let expected = expected.map(|word| format!("did you mean `{word}`?"));
            assert_eq!(did_you_mean(got, known.into_iter()), expected, "{got}");
        };
        case("epoch", Some("epochs"));
        case("ephocs", Some("epochs"));
        case("Epochs", Some("epochs"));
        case("learningrate", Some("learning_rate"));
        case("lr", Some("learning_rate"));
        case("bs", Some("batch_size"));
        case("l1", None);
        case("momentum", None);
        case("", None);
    }

    #[test]
    fn long_strings_are_cut_in_messages() {
        let text = |text: &str| Value::Text { text: text.to_owned(), inner: None };
        assert_eq!(display(&text("é")), "the string `é`");
        assert_eq!(display(&text(&"é".repeat(61))), format!("the string `{}…`", "é".repeat(60)));
    }
}
