//! TOML text in, located values out: every syntax error collected, in the user's words, with its exact place.
//!
//! The parser is `toml`'s recovering one; this file turns its tree into [`Table`]s in source order, remembers where
//! the content of a string stands, and rewords what it complains about. What keys mean is not known here.

use std::io::Read;
use std::num::IntErrorKind;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::config::{Entry, Node, Problem, Span, Table, Value};

/// Larger manifests are refused.
pub const MAX_BYTES: u64 = 1 << 20;

/// `a.b.c` may have so many parts; the parser's own tables would overflow the stack at some 100,000.
const MAX_KEY_PARTS: usize = 64;

/// What reading one text leaves behind.
pub struct Parsed {
    /// The root table, as far as it could be read.
    pub table: Table,
    /// What is wrong with the text.
    pub problems: Vec<Problem>,
    /// Whether so much is wrong that what is missing from `table` may just not have been understood.
    pub is_broken: bool,
}

/// The text of the manifest at `path`, without a byte-order mark.
///
/// # Errors
/// A problem without a place if the file cannot be read or is too large; with its place (and the text as far as it can
/// be shown) if it is not UTF-8.
pub fn read(path: &Path) -> Result<String, (String, Problem)> {
    let nowhere = |message: String, help: Option<&str>| {
        let mut problem = Problem::error(Span::default(), message);
        problem.help = help.map(str::to_owned);
        (String::new(), problem)
    };
    let meta = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => nowhere("the manifest does not exist".to_owned(), None),
        _ => nowhere(format!("cannot read the manifest: {}", plain_io(&error)), None),
    })?;
    if meta.is_dir() {
        return Err(nowhere(
            "expected a manifest, got a folder".to_owned(),
            Some("name the `.toml` file inside the folder"),
        ));
    }
    // Opening a pipe would wait for somebody to write.
    if !meta.is_file() {
        return Err(nowhere("expected a manifest, got something that is not a regular file".to_owned(), None));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| nowhere(format!("cannot read the manifest: {}", plain_io(&error)), None))?;
    decode(bytes)
}

/// The text in `bytes`, without a byte-order mark.
///
/// # Errors
/// As [`read`].
pub fn decode(bytes: Vec<u8>) -> Result<String, (String, Problem)> {
    if bytes.len() as u64 > MAX_BYTES {
        let message = format!("the manifest is larger than {} MiB", MAX_BYTES >> 20);
        return Err((String::new(), Problem::error(Span::default(), message)));
    }
    let bytes = match bytes.strip_prefix(b"\xEF\xBB\xBF") {
        Some(rest) => rest.to_vec(),
        None => bytes,
    };
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[at];
        let hint = if error.as_bytes().contains(&0) { "a binary file?" } else { "save the file as UTF-8" };
        let shown = String::from_utf8_lossy(error.as_bytes()).into_owned();
        // Up to `at` both agree; there `shown` has U+FFFD, three bytes long.
        let span = span_of(0, at..at + '\u{FFFD}'.len_utf8());
        (shown, Problem::error(span, format!("the manifest is not UTF-8 text: byte 0x{byte:02X}")).help(hint))
    })
}

/// What the system says, without Rust's "(os error 2)".
fn plain_io(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// Parses a whole document; spans get the number `source`.
pub fn parse_document(text: &str, source: u16) -> Parsed {
    if let Some(span) = overlong_key(text) {
        let message = format!("a key has more than {MAX_KEY_PARTS} parts");
        let problems = vec![Problem::error(span_of(source, span), message)];
        return Parsed { table: Table::default(), problems, is_broken: true };
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text, source, shift: 0, problems: Vec::new() };
    let table = reader.table(root.get_ref());
    let is_broken = reader.complain(errors);
    Parsed { table, problems: reader.problems, is_broken }
}

/// Parses one value that stands at byte `shift` of text number `source`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_value(text: &str, source: u16, shift: usize) -> Result<Node, Vec<Problem>> {
    let mut reader = Reader { text, source, shift, problems: Vec::new() };
    if let Some(span) = overlong_key(text) {
        let message = format!("a key has more than {MAX_KEY_PARTS} parts");
        return Err(vec![Problem::error(reader.span(span), message)]);
    }
    let (value, errors) = DeValue::parse_recoverable(text);
    let node = reader.node(value.span(), value.get_ref());
    reader.complain(errors);
    if reader.problems.is_empty() { Ok(node) } else { Err(reader.problems) }
}

fn span_of(source: u16, range: Range<usize>) -> Span {
    // Texts are at most `MAX_BYTES` long, or what fits into one argument of a command line.
    Span { source, start: range.start as u32, end: range.end as u32 }
}

struct Reader<'t> {
    text: &'t str,
    source: u16,
    shift: usize,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn span(&self, range: Range<usize>) -> Span {
        span_of(self.source, range.start + self.shift..range.end + self.shift)
    }

    fn table(&mut self, table: &DeTable<'_>) -> Table {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                key_span: self.span(key.span()),
                node: self.node(value.span(), value.get_ref()),
            })
            .collect();
        // A table opened by `[a.b]` and defined by `[a]` further down is kept by the parser where it was defined; a
        // stable order by place is what people call "above".
        entries.sort_by_key(|entry| entry.key_span.start);
        Table { entries }
    }

    fn node(&mut self, range: Range<usize>, value: &DeValue<'_>) -> Node {
        let span = self.span(range.clone());
        let value = match value {
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(value) => Value::Integer(value),
                Err(error) if matches!(error.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => {
                    let message = format!("`{}` is too large for a whole number", &self.text[range]);
                    self.problems.push(Problem::error(span, message).help(format!("the limit is {}", i64::MAX)));
                    Value::Integer(0)
                }
                // The parser has complained about everything else.
                Err(_) => Value::Integer(0),
            },
            DeValue::Float(digits) => match digits.as_str().parse::<f64>() {
                Ok(value) if value.is_infinite() && !digits.as_str().contains("inf") => {
                    self.problems
                        .push(Problem::error(span, format!("`{}` is too large for a number", &self.text[range])));
                    Value::Float(0.0)
                }
                value => Value::Float(value.unwrap_or(f64::NAN)),
            },
            DeValue::String(text) => Value::Text {
                text: text.to_string(),
                inner: content_start(&self.text[range.clone()], text)
                    .map(|offset| (range.start + offset + self.shift) as u32),
            },
            DeValue::Datetime(value) => Value::Datetime(value.to_string()),
            DeValue::Array(items) => {
                Value::List(items.iter().map(|item| self.node(item.span(), item.get_ref())).collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { value, span }
    }

    /// Rewords the parser's errors; returns whether any of them leaves holes in the tree.
    fn complain(&mut self, errors: Vec<toml::de::Error>) -> bool {
        let mut is_broken = false;
        let mut last_line = None;
        let mut errors: Vec<(Range<usize>, String)> = errors
            .into_iter()
            .map(|error| (floor_range(self.text, error.span().unwrap_or_default()), error.message().to_owned()))
            .collect();
        errors.sort_by_key(|(range, _)| range.start);
        for (range, message) in errors {
            let (range, message, help) = if message.starts_with("duplicate key") {
                let slice = &self.text[range.clone()];
                let is_header = line_before(self.text, range.start).trim_start().starts_with('[');
                // The parser moves what such a table has to the second place, so order means nothing any more.
                is_broken |= is_header;
                let noun = if is_header { "table" } else { "key" };
                (range, format!("{noun} `{slice}` is set twice"), Some(format!("keep one {noun} `{slice}`")))
            } else {
                is_broken = true;
                // Errors behind the first on a line are echoes of it more often than not.
                let line = self.text[..range.start].matches('\n').count();
                if last_line == Some(line) {
                    continue;
                }
                last_line = Some(line);
                reword(&message, self.text, range)
            };
            self.problems.push(Problem { help, ..Problem::error(self.span(range), message) });
        }
        is_broken
    }
}

fn line_before(text: &str, at: usize) -> &str {
    text[..at].rsplit('\n').next().unwrap_or_default()
}

/// The range, moved outwards to character boundaries and into the text.
fn floor_range(text: &str, range: Range<usize>) -> Range<usize> {
    let mut start = range.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = range.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// Where in `raw` (a string with its quotes) the content begins, if it stands there byte for byte.
fn content_start(raw: &str, content: &str) -> Option<usize> {
    let start = match raw.get(..3) {
        Some("\"\"\"" | "'''") => {
            let behind = &raw[3..];
            // A newline right behind the opening quotes is not content.
            3 + if behind.starts_with("\r\n") { 2 } else { usize::from(behind.starts_with('\n')) }
        }
        _ => 1,
    };
    (raw.get(start..start + content.len())? == content).then_some(start)
}

/// A key of more than [`MAX_KEY_PARTS`] parts, found by the dots outside of strings and comments.
fn overlong_key(text: &str) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let (mut at, mut run_start, mut dots) = (0, 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'#' => {
                at += bytes[at..].iter().position(|&b| b == b'\n').unwrap_or(bytes.len() - at);
                continue;
            }
            quote @ (b'"' | b'\'') => {
                at = behind_string(bytes, at, quote);
                continue;
            }
            b'.' => {
                dots += 1;
                if dots >= MAX_KEY_PARTS {
                    return Some(floor_range(text, run_start..at));
                }
            }
            b'\n' | b',' | b'=' | b'[' | b']' | b'{' | b'}' => (dots, run_start) = (0, at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The first byte behind the string that starts at `at`; an unclosed one ends with its line (or the text).
fn behind_string(bytes: &[u8], at: usize, quote: u8) -> usize {
    let triple = [quote; 3];
    let is_triple = bytes[at..].starts_with(&triple);
    let mut at = at + if is_triple { 3 } else { 1 };
    while at < bytes.len() {
        if is_triple && bytes[at..].starts_with(&triple) {
            return at + 3;
        }
        match bytes[at] {
            b'\\' if quote == b'"' => at += 1,
            b'\n' if !is_triple => return at,
            b if b == quote && !is_triple => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The bytes around `range` up to the next space or punctuation on either side, on the same line.
fn word_around(text: &str, range: Range<usize>) -> Range<usize> {
    let is_border = |c: char| c.is_whitespace() || ",=[]{}#\"'".contains(c);
    let start = text[..range.start].rfind(is_border).map_or(0, |at| {
        let width = text[at..].chars().next().map_or(0, char::len_utf8);
        at + width
    });
    let end = text[range.start..].find(is_border).map_or(text.len(), |at| range.start + at);
    start..end.max(range.start)
}

/// The parser's complaint in the user's words, where the caret goes, and what to do.
fn reword(message: &str, text: &str, range: Range<usize>) -> (Range<usize>, String, Option<String>) {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let expected = if expected == "nothing" { "" } else { expected };
    let slice = &text[range.clone()];
    let word_range = word_around(text, range.clone());
    let word = &text[word_range.clone()];
    let behind = text[range.end..].trim_start_matches([' ', '\t']);
    let help = |text: &str| Some(text.to_owned());
    let a_line = "a line is `key = value`, or a table's `[header]`";
    let a_list = "a table is in braces: `{ key = value }`";
    let (message, help) = match what {
        "string values must be quoted" | "invalid boolean" => match slice.to_ascii_lowercase().as_str() {
            "" => ("expected a value behind `=`".to_owned(), help(a_line)),
            word @ ("true" | "false") => {
                (format!("`{slice}` is not a value"), Some(format!("write it in lower case: `{word}`")))
            }
            _ if behind.starts_with('=') => ("a list has no `=`".to_owned(), help(a_list)),
            _ if slice.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
                (format!("`{slice}` is not a value"), help("strings need quotes, and a line has one value"))
            }
            _ => (format!("the string `{slice}` needs quotes"), Some(format!("write `\"{slice}\"`"))),
        },
        "key with no value" => {
            let key = line_before(text, range.start).trim();
            let span = if word.is_empty() { range } else { word_range };
            return (span, format!("expected `=` behind `{key}`"), help(a_line));
        }
        "missing value for key" | "missing value" => ("expected a value behind `=`".to_owned(), help(a_line)),
        "unexpected key or value" => {
            let span = if word.is_empty() { range } else { word_range };
            return (span, "unexpected text behind the value".to_owned(), help("begin a new line, or a list"));
        }
        "extra `=`" | "extra assignment between key-value pairs" => ("one `=` too many".to_owned(), None),
        "invalid unquoted key" if slice == ":" => ("expected `=`, got `:`".to_owned(), help(a_line)),
        "invalid unquoted key" if !slice.trim().is_empty() => (
            format!("`{slice}` cannot be in a key without quotes"),
            help("keys are letters, digits, `-` and `_`; others need quotes"),
        ),
        "invalid unquoted key" | "unquoted keys cannot be empty" => ("expected a key".to_owned(), help(a_line)),
        "invalid key-value pair" => ("expected `key = value`".to_owned(), None),
        "missing assignment between key-value pairs" => ("expected `=` behind the key".to_owned(), None),
        "missing key for inline table element" => ("expected a key before `=`".to_owned(), None),
        "missing comma between key-value pairs" | "missing comma between array elements" => {
            ("expected `,` before the next item".to_owned(), None)
        }
        "extra comma in array" | "extra comma in inline table" => ("one `,` too many".to_owned(), None),
        "unexpected `=` in array" => ("a list has no `=`".to_owned(), help(a_list)),
        "unclosed array" => ("the list is not closed, expected `]`".to_owned(), None),
        "unclosed inline table" => ("the table is not closed, expected `}`".to_owned(), None),
        "unclosed table" => ("the table's header is not closed, expected `]`".to_owned(), None),
        "unclosed array table" => ("the table's header is not closed, expected `]]`".to_owned(), None),
        "missing array opening" | "missing table open" => ("`]` without `[`".to_owned(), None),
        "missing inline table opening" => ("`}` without `{`".to_owned(), None),
        "missing opening quote" => ("a quote is missing where the string begins".to_owned(), None),
        what if what.starts_with("invalid") && what.ends_with("string") && expected.contains("quote") => {
            ("the string has a character that needs an escape".to_owned(), help("write it as `\\uXXXX`"))
        }
        what if what.starts_with("invalid") && what.ends_with("string") => {
            (format!("the string is not closed, expected {expected}"), None)
        }
        "missing escaped value" => (
            "unknown escape in the string".to_owned(),
            help("write `\\\\` for a backslash, or put the string between `'`, where backslashes are plain"),
        ),
        "too few unicode value digits" | "invalid value" => {
            ("expected the hexadecimal digits of a character".to_owned(), None)
        }
        "carriage return must be followed by newline" => ("a carriage return without a newline".to_owned(), None),
        "cannot recurse further; max recursion depth met" => {
            ("values are nested too deeply, at most 80 levels".to_owned(), None)
        }
        "unexpected leading zero" => {
            return (word_range.clone(), format!("`{word}` begins with a zero"), help("leave the zero out"));
        }
        "redundant numeric sign" | "unexpected sign" => ("one sign too many".to_owned(), None),
        "`_` may only go between digits" => ("`_` may only stand between digits".to_owned(), None),
        "invalid comment character" => ("a comment has a control character".to_owned(), None),
        what if what.starts_with("invalid") && (what.ends_with("number") || what.ends_with("float")) => {
            return (word_range.clone(), format!("`{word}` is not a number"), None);
        }
        what if what.starts_with("cannot extend value of type") => {
            let noun = match what.trim_start_matches("cannot extend value of type ").split(' ').next() {
                Some("string") => "a string",
                Some("integer") => "a whole number",
                Some("float") => "a number",
                Some("boolean") => "true or false",
                Some("datetime") => "a date",
                Some("array") => "a list",
                _ => "a table in braces",
            };
            (format!("`{slice}` is set to {noun} already, it takes no further keys"), None)
        }
        what => {
            let what = what.replace("inline table", "table").replace("array", "list");
            let expected = expected.replace("inline table", "table").replace("array", "list");
            (if expected.is_empty() { what } else { format!("{what}, expected {expected}") }, None)
        }
    };
    (range, message, help)
}
