//! How a config is read: located values in, typed fields out, every problem collected on the way.
//!
//! The bottom of the house, below every room that has a config. [`manifest`](crate::manifest) turns TOML into a tree of
//! [`Node`]s, each with the [`Span`] it came from; a config (a stage, a layer, an optimizer, a transform) reads its
//! keys through a [`Section`]. Reading a key checks it, remembers that it is a known key, and records its **resolved**
//! value (defaults written out) in the [`Log`]: the same list is what a fingerprint hashes and what `why` compares.
//! No rendering, no I/O; TOML only as the canonical text of values (`canonical.rs`).

mod canonical;
mod declare;
mod section;

pub use canonical::{canonical_float, parse, path, positive_zero, quote, rebuild, segment, shortest, toml};
pub use declare::{Alternative, Declaration, Form};
pub use section::{Choice, Key, Number, Section, Short, Whole, describe};

use std::fmt;

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

/// What is wrong, in the user's words, as those say it who know no manifest; who knows where it stands makes a
/// [`Problem`], or an error of a stage, of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaint<P = ()> {
    /// What it is about, as far as who says it knows: a key, the place of an item in a list.
    pub at: P,
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// At most one action.
    pub help: Option<String>,
}

impl<P> Complaint<P> {
    /// A complaint that says `message`.
    pub fn new(message: impl Into<String>) -> Complaint<P>
    where
        P: Default,
    {
        Complaint::about(P::default(), message)
    }

    /// A complaint about `at`.
    pub fn about(at: P, message: impl Into<String>) -> Complaint<P> {
        Complaint { at, message: message.into(), help: None }
    }

    /// Adds the `help:` line.
    pub fn help(mut self, help: impl Into<String>) -> Complaint<P> {
        self.help = Some(help.into());
        self
    }

    /// The same about what its place is part of.
    pub fn of<Q>(self, at: Q) -> Complaint<Q> {
        Complaint { at, message: self.message, help: self.help }
    }

    /// An error of a manifest, at `span`.
    pub fn error(self, span: Span) -> Problem {
        Problem { help: self.help, ..Problem::error(span, self.message) }
    }
}

impl<P> fmt::Display for Complaint<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<P: fmt::Debug> std::error::Error for Complaint<P> {}

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
    /// Keys that say where something is, as the path of a source: checked and not resolved, since no fingerprint may
    /// hold them, but needed beside the resolved keys to read the same config again.
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
    /// `0 < x <= 1`: a share of something.
    Share,
    /// `0 < x <= 1`: a density.
    Density,
    /// `0 < x < 1`.
    Open,
    /// From 0 to this.
    UpTo(f64),
    /// Any finite number.
    Finite,
}

impl Bounds {
    /// Whether `x` lies within.
    pub fn holds(self, x: f64) -> bool {
        x.is_finite()
            && match self {
                Bounds::Positive => x > 0.0,
                Bounds::NonNegative => x >= 0.0,
                Bounds::Rate => (0.0..1.0).contains(&x),
                Bounds::Fraction => (0.0..=1.0).contains(&x),
                Bounds::Share | Bounds::Density => x > 0.0 && x <= 1.0,
                Bounds::Open => x > 0.0 && x < 1.0,
                Bounds::UpTo(most) => (0.0..=most).contains(&x),
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
            Bounds::Share => "a share above 0, at most 1",
            Bounds::Density => "a number above 0, at most 1",
            Bounds::Open => "a number above 0, below 1",
            Bounds::UpTo(most) => return write!(f, "a number from 0 to {most}"),
            Bounds::Finite => "a finite number",
        })
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

/// The seconds in `90s`, `30m`, `2h`, `1h30m` or `3600`; `None` if it is no such time.
pub fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let (mut total, mut rest, mut last) = (0u64, text, u64::MAX);
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let mut chars = behind.chars();
        let unit = match chars.next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return None,
        };
        // Each unit once, the larger one first.
        if unit >= last {
            return None;
        }
        last = unit;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = chars.as_str().trim_start();
    }
    (last < u64::MAX).then_some(total)
}

/// The number that a value which is none, or none that fits, probably means: `"64"`, `"64px"`, `"20%"`, `20` for a
/// share.
fn meant(value: &Value, fits: &dyn Fn(f64) -> bool) -> Option<f64> {
    // What ends at 1 is a share, of which a percentage is meant; 1.5 or 2 is rather a slip.
    let of_hundred = |x: f64| ((5.0..=100.0).contains(&x) && !fits(2.0)).then_some(x / 100.0);
    let x = match value {
        Value::Text { text, .. } => {
            let text = text.trim();
            let number = text.trim_end_matches(|c: char| c.is_alphabetic() || c == '%' || c == ' ');
            let unit = text[number.len()..].trim();
            let x: f64 = number.replace('_', "").parse().ok()?;
            match unit {
                // A percentage of something that is counted could be any number.
                "%" if fits(2.0) => return None,
                "%" => x / 100.0,
                _ => x,
            }
        }
        other => {
            let x = as_number(other)?;
            if fits(x.round()) && x.round() == x { x } else { of_hundred(x)? }
        }
    };
    if fits(x) { Some(x) } else { of_hundred(x).filter(|&x| fits(x)) }
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
    nearest(got, known).map(|word| format!("did you mean `{word}`?"))
}

/// The nearest known word, as [`did_you_mean`] finds it.
fn nearest<'k>(got: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let initials = |word: &str| -> String { word.split(['_', '-']).filter_map(|part| part.chars().next()).collect() };
    known
        .map(|word| {
            let is_initials = word.contains(['_', '-']) && initials(word) == got;
            (if is_initials { 0 } else { strsim::osa_distance(&got.to_lowercase(), &word.to_lowercase()) }, word)
        })
        .filter(|(distance, word)| {
            let shorter = word.len().min(got.len());
            // Two letters out of two or three are another word.
            *distance == 0 || (shorter > 2 && *distance <= 1 + shorter / 4 && *distance < word.len())
        })
        .min()
        .map(|(_, word)| word)
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
    fn a_number_is_found_in_what_was_written_for_it() {
        let text = |text: &str| Value::Text { text: text.to_owned(), inner: None };
        let share = |x: f64| x > 0.0 && x < 1.0;
        let whole = |x: f64| x.fract() == 0.0 && x >= 1.0;
        assert_eq!(meant(&text("20%"), &share), Some(0.2));
        assert_eq!(meant(&Value::Integer(20), &share), Some(0.2));
        assert_eq!(meant(&text("0.2"), &share), Some(0.2));
        assert_eq!(meant(&Value::Integer(1), &share), None);
        assert_eq!(meant(&Value::Integer(-20), &share), None);
        assert_eq!(meant(&text("64px"), &whole), Some(64.0));
        assert_eq!(meant(&text("1_000"), &whole), Some(1000.0));
        assert_eq!(meant(&Value::Float(5.0), &whole), Some(5.0));
        assert_eq!(meant(&Value::Float(5.5), &whole), None);
        assert_eq!(meant(&text("many"), &whole), None);
        assert_eq!(meant(&text("1%"), &whole), None);
        assert_eq!(meant(&Value::Boolean(true), &whole), None);
    }

    #[test]
    fn long_strings_are_cut_in_messages() {
        let text = |text: &str| Value::Text { text: text.to_owned(), inner: None };
        assert_eq!(display(&text("é")), "the string `é`");
        assert_eq!(display(&text(&"é".repeat(61))), format!("the string `{}…`", "é".repeat(60)));
    }
}
