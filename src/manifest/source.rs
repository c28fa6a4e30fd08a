//! TOML text in, located values out: every syntax error collected, in the user's words, with its exact place.
//!
//! The parser is `toml`'s recovering one; this file turns its tree into [`Table`]s in source order, remembers where
//! the content of a string stands, and rewords what it complains about. What keys mean is not known here.

use std::num::IntErrorKind;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::config::{Entry, Node, Problem, Span, Table, Value};

/// Larger manifests are refused.
pub const MAX_BYTES: u64 = 1 << 20;

/// Brackets within brackets and the parts of dotted keys count alike. The parser has this limit for brackets alone; its
/// own tables would overflow the stack at a key of some 100,000 parts.
const MAX_NESTING: usize = 80;

/// What reading one text leaves behind.
pub struct Parsed {
    /// The root table, as far as it could be read.
    pub table: Table,
    /// What is wrong with the text.
    pub problems: Vec<Problem>,
    /// Whether so much is wrong that what is missing from `table` may just not have been understood.
    pub is_broken: bool,
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read the manifest `{}`: {}", path.display(), crate::files::reason(error))
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
        _ => nowhere(unreadable(path, &error), None),
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
    let bytes = crate::files::read_regular(path, MAX_BYTES).map_err(|error| match error.cause.kind() {
        std::io::ErrorKind::FileTooLarge => too_large(),
        _ => nowhere(unreadable(path, &error.cause), None),
    })?;
    decode(bytes)
}

fn too_large() -> (String, Problem) {
    let message = format!("the manifest is larger than {} MiB", MAX_BYTES >> 20);
    (String::new(), Problem::error(Span::default(), message))
}

/// The text in `bytes`, without a byte-order mark.
///
/// # Errors
/// As [`read`].
pub fn decode(bytes: Vec<u8>) -> Result<String, (String, Problem)> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large());
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

/// Parses a whole document; spans get the number `source`.
pub fn parse_document(text: &str, source: u16) -> Parsed {
    if let Some(span) = too_deep(text) {
        let problems = vec![Problem::error(span_of(source, span), TOO_DEEP)];
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
    if let Some(span) = too_deep(text) {
        return Err(vec![Problem::error(reader.span(span), TOO_DEEP)]);
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

const TOO_DEEP: &str = "keys and values are nested too deeply, at most 80 levels";

/// Where the text is nested more than [`MAX_NESTING`] deep, by its brackets and dots outside of strings and comments.
fn too_deep(text: &str) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    // The levels that each open bracket stands for: its own, and those of the dotted key before it.
    let mut open: Vec<usize> = Vec::new();
    let (mut at, mut depth, mut dots, mut key_dots) = (0, 0, 0, 0);
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
            b'.' => dots += 1,
            b'=' => (key_dots, dots) = (dots, 0),
            b'[' | b'{' => {
                open.push(key_dots + 1);
                depth += key_dots + 1;
                (key_dots, dots) = (0, 0);
            }
            b']' | b'}' => {
                depth -= open.pop().unwrap_or(0);
                (key_dots, dots) = (0, 0);
            }
            b'\n' | b',' => (key_dots, dots) = (0, 0),
            _ => {}
        }
        if depth + dots > MAX_NESTING {
            return Some(at..at + 1);
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
            word if word.strip_suffix('%').is_some_and(|share| share.parse::<f64>().is_ok()) => {
                let share = word.trim_end_matches('%').parse::<f64>().unwrap_or_default() / 100.0;
                (format!("`{slice}` is not a value"), Some(format!("a share is a number: write `{share}`")))
            }
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
        "cannot recurse further; max recursion depth met" => (TOO_DEEP.to_owned(), None),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(text: &str) -> (Node, Vec<Problem>) {
        let parsed = parse_document(text, 3);
        (parsed.table.entries[0].node.clone(), parsed.problems)
    }

    #[test]
    fn strings_say_where_their_content_stands() {
        let case = |text: &str, content: &str, inner: Option<u32>| {
            let (node, problems) = value_of(text);
            assert_eq!(problems, []);
            assert_eq!(node.value, Value::Text { text: content.to_owned(), inner }, "{text}");
            assert_eq!((node.span.source, node.span.start, node.span.end), (3, 4, text.len() as u32));
        };
        case("a = \"bc\"", "bc", Some(5));
        case("a = 'b\\c'", "b\\c", Some(5));
        case("a = \"b\\tc\"", "b\tc", None);
        case("a = \"\\u0062c\"", "bc", None);
        case("a = \"\"\"\nb\nc\"\"\"", "b\nc", Some(8));
        case("a = \"\"\"\r\nbc\"\"\"", "bc", Some(9));
        case("a = \"\"\"b\\\n  c\"\"\"", "bc", None);
        case("a = '''b'c'''", "b'c", Some(7));
        case("a = \"\"", "", Some(5));
        case("a = \"é数\"", "é数", Some(5));
    }

    #[test]
    fn values_are_read_as_toml_means_them() {
        let case = |text: &str, value: Value| {
            assert_eq!(value_of(text), (Node { value, span: value_of(text).0.span }, vec![]))
        };
        case("a = 1_000", Value::Integer(1000));
        case("a = -9223372036854775808", Value::Integer(i64::MIN));
        case("a = 0xff", Value::Integer(255));
        case("a = 1e-4", Value::Float(1e-4));
        case("a = -inf", Value::Float(f64::NEG_INFINITY));
        case("a = 2026-01-01T00:00:00Z", Value::Datetime("2026-01-01T00:00:00Z".to_owned()));
    }

    #[test]
    fn tables_keep_the_order_and_the_place_of_their_headers() {
        let text = "[b.c]\nx = 1\n[a]\n[b]\nz.y = 1\nw = 2\n";
        let parsed = parse_document(text, 0);
        assert_eq!(parsed.problems, []);
        let keys: Vec<&str> = parsed.table.entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["a", "b"]);
        let b = parsed.table.get("b").expect("it is there");
        assert_eq!(&text[b.node.span.start as usize..b.node.span.end as usize], "[b]");
        let Value::Table(table) = &b.node.value else { panic!("a table") };
        let keys: Vec<&str> = table.entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["c", "z", "w"]);
    }

    #[test]
    fn no_depth_overflows_the_stack() {
        let many = 200_000;
        for text in [
            format!("{}=1", vec!["a"; many].join(".")),
            format!("{}=1", vec!["'a'"; many].join(" . ")),
            format!("[{}]", vec!["a"; many].join(".")),
            format!("a = {}", "[".repeat(many)),
            format!("a = {}", "{a=".repeat(many)),
            format!("a = {}", "{a.a.a.a.a.a.a.a=[".repeat(many)),
            "[a.a.a.a.a.a.a.a]\n".repeat(many / 10),
        ] {
            assert!(parse_document(&text, 0).is_broken, "{}", &text[..20]);
            assert!(parse_value(&text, 0, 0).is_err());
        }
        let fine = format!("a = {}1{}", "[".repeat(70), "]".repeat(70));
        assert_eq!(parse_document(&fine, 0).problems, []);
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert_eq!(decode(b"\xEF\xBB\xBFa = 1".to_vec()), Ok("a = 1".to_owned()));
        let (shown, problem) = decode(b"ab\xFFc".to_vec()).expect_err("no UTF-8");
        assert_eq!(&shown[problem.span.start as usize..problem.span.end as usize], "\u{FFFD}");
        let (shown, _) = decode(b"ab\xE6\x95".to_vec()).expect_err("a character is cut");
        assert_eq!(shown, "ab\u{FFFD}");
        assert!(decode(vec![b'#'; MAX_BYTES as usize + 1]).is_err());
    }
}
