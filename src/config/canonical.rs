//! Values as canonical TOML text and back: what a record of a task holds, and what a stage can be read from again.
//!
//! One value has one text: whole numbers plain, numbers in the shortest form that reads back to the same bits and
//! always with a point or an exponent, strings in double quotes, lists and inline tables with single spaces.
//! [`rebuild`] is the inverse of what a [`Section`](super::Section) records.

use std::collections::BTreeMap;
use std::fmt::LowerExp;

use super::{Entry, Node, Span, Table, Value};

/// A value as canonical TOML, on one line.
pub fn toml(value: &Value) -> String {
    match value {
        Value::Boolean(flag) => flag.to_string(),
        Value::Integer(i) => i.to_string(),
        Value::Float(x) => canonical_float(*x),
        Value::Text { text, .. } => quote(text),
        Value::Datetime(text) => text.clone(),
        Value::List(items) => {
            format!("[{}]", items.iter().map(|item| toml(&item.value)).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) if table.entries.is_empty() => "{}".to_owned(),
        Value::Table(table) => {
            let entry = |entry: &Entry| format!("{} = {}", segment(&entry.key), toml(&entry.node.value));
            format!("{{ {} }}", table.entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A number in its shortest form that reads back to the same bits, with a point or an exponent: `0.1`, `1.0`, `1e-5`.
pub fn shortest<F: LowerExp>(x: F) -> String {
    let scientific = format!("{x:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        // Infinite, or no number.
        return scientific.to_lowercase();
    };
    let Ok(exponent @ -4..16) = exponent.parse::<i32>() else { return scientific };
    // The same digits with the point elsewhere: to ask for them once more takes as long again, and tables have many.
    let unsigned = mantissa.trim_start_matches('-');
    let digits = unsigned.bytes().filter(|byte| *byte != b'.');
    let n_digits = unsigned.len() as i32 - i32::from(unsigned.contains('.'));
    let mut plain = String::with_capacity(unsigned.len() + 20);
    if mantissa.len() > unsigned.len() {
        plain.push('-');
    }
    if exponent < 0 {
        plain.push_str(&"0.0000"[..(1 - exponent) as usize]);
    }
    for (i, digit) in (0i32..).zip(digits) {
        if exponent >= 0 && i == exponent + 1 {
            plain.push('.');
        }
        plain.push(char::from(digit));
    }
    if exponent + 1 >= n_digits {
        plain.extend(std::iter::repeat_n('0', (exponent + 1 - n_digits) as usize));
        plain.push_str(".0");
    }
    plain
}

/// [`shortest`], where -0 is 0: two texts differ only if the values do.
pub fn canonical_float(x: f64) -> String {
    shortest(positive_zero(x))
}

/// `x`, where -0 is 0.
pub fn positive_zero(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x }
}

/// A string as TOML's basic string.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 || c == '\u{7F}' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A segment of a dotted key: as it is where TOML allows that, else in quotes.
pub fn segment(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quote(name) }
}

/// The value of a TOML text; `None` if it is not exactly one value.
pub fn parse(text: &str) -> Option<Value> {
    let table: toml::Table = format!("value = {text}").parse().ok()?;
    let mut entries = table.into_iter();
    match (entries.next(), entries.next()) {
        (Some((_, value)), None) => Some(value_of(value)),
        _ => None,
    }
}

fn node(value: Value) -> Node {
    Node { value, span: Span::default() }
}

fn entry(key: String, value: Value) -> Entry {
    Entry { key, key_span: Span::default(), node: node(value) }
}

fn value_of(value: toml::Value) -> Value {
    match value {
        toml::Value::Boolean(flag) => Value::Boolean(flag),
        toml::Value::Integer(i) => Value::Integer(i),
        toml::Value::Float(x) => Value::Float(x),
        toml::Value::String(text) => Value::Text { text, inner: None },
        toml::Value::Datetime(date) => Value::Datetime(date.to_string()),
        toml::Value::Array(items) => Value::List(items.into_iter().map(|item| node(value_of(item))).collect()),
        toml::Value::Table(table) => {
            Value::Table(Table { entries: table.into_iter().map(|(key, value)| entry(key, value_of(value))).collect() })
        }
    }
}

/// The table that a stage's recorded keys stand for, in any order: reading the stage from it gives the same records.
///
/// `places` are keys that no record holds, as the path of a source. A word with keys below it (`optimizer = "adam"`,
/// `optimizer.adam.beta1 = 0.9`) becomes a choice with its keys.
///
/// # Errors
/// The first key that makes no sense, in one sentence.
pub fn rebuild(pairs: &[(String, String)], places: &[(String, String)]) -> Result<Table, String> {
    let mut root = Branch::default();
    for (key, text) in pairs.iter().chain(places) {
        let value = parse(text).ok_or_else(|| format!("`{key}` has a value that is not TOML: `{text}`"))?;
        let steps = steps(key).ok_or_else(|| format!("`{key}` is not a dotted key"))?;
        let branch = steps.into_iter().fold(&mut root, |branch, step| match step {
            Step::Key(name) => {
                let at = match branch.fields.iter().position(|(known, _)| *known == name) {
                    Some(at) => at,
                    None => {
                        branch.fields.push((name, Branch::default()));
                        branch.fields.len() - 1
                    }
                };
                &mut branch.fields[at].1
            }
            Step::Item(i) => branch.items.entry(i).or_default(),
        });
        if branch.value.replace(value).is_some() {
            return Err(format!("`{key}` is there twice"));
        }
    }
    match root.value("")? {
        Value::Table(table) => Ok(table),
        _ => Ok(Table::default()),
    }
}

/// What stands at and below a dotted key.
#[derive(Default)]
struct Branch {
    value: Option<Value>,
    fields: Vec<(String, Branch)>,
    items: BTreeMap<usize, Branch>,
}

enum Step {
    Key(String),
    Item(usize),
}

impl Branch {
    fn value(self, key: &str) -> Result<Value, String> {
        let wrong = || format!("`{key}` has a value of its own and keys below it");
        let dot = if key.is_empty() { "" } else { "." };
        if !self.items.is_empty() {
            if self.value.is_some() || !self.fields.is_empty() {
                return Err(wrong());
            }
            let items = self.items.into_iter().enumerate().map(|(i, (at, item))| match i == at {
                true => Ok(node(item.value(&format!("{key}[{i}]"))?)),
                false => Err(format!("`{key}` has no item {i}")),
            });
            return Ok(Value::List(items.collect::<Result<_, _>>()?));
        }
        match (self.value, &self.fields[..]) {
            (Some(value), []) => return Ok(value),
            (None, _) => {}
            (Some(Value::Text { text, .. }), [(name, _)]) if text == *name => {}
            (Some(_), _) => return Err(wrong()),
        }
        let entries = self.fields.into_iter().map(|(name, branch)| {
            let value = branch.value(&format!("{key}{dot}{}", segment(&name)))?;
            Ok(entry(name, value))
        });
        Ok(Value::Table(Table { entries: entries.collect::<Result<_, String>>()? }))
    }
}

/// The names along a dotted key without list items, quoted ones unquoted: `stages.cnn.vars."a.b"`.
pub fn path(key: &str) -> Option<Vec<String>> {
    let names = steps(key)?.into_iter().map(|step| match step {
        Step::Key(name) => Some(name),
        Step::Item(_) => None,
    });
    names.collect()
}

/// The steps of a dotted key: `steps[0].center.per`.
fn steps(key: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = key;
    loop {
        let end = match rest.strip_prefix('"') {
            // Behind the quote that no backslash escapes.
            Some(inner) => {
                let mut is_escaped = false;
                let end = inner.char_indices().find(|&(_, c)| {
                    let is_end = c == '"' && !is_escaped;
                    is_escaped = c == '\\' && !is_escaped;
                    is_end
                });
                end?.0 + 2
            }
            None => rest.find(['.', '[']).unwrap_or(rest.len()),
        };
        let name = match parse(&rest[..end]) {
            Some(Value::Text { text, .. }) if rest.starts_with('"') => text,
            _ => rest[..end].to_owned(),
        };
        if end == 0 {
            return None;
        }
        steps.push(Step::Key(name));
        rest = &rest[end..];
        while let Some(inner) = rest.strip_prefix('[') {
            let (number, behind) = inner.split_once(']')?;
            steps.push(Step::Item(number.parse().ok()?));
            rest = behind;
        }
        if rest.is_empty() {
            return Some(steps);
        }
        rest = rest.strip_prefix('.')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn texts_read_back_to_the_same_value() {
        for text in [
            "true",
            "-7",
            "0.1",
            "1.0",
            "1e-5",
            "0.0001",
            "1e16",
            "123456789012345.0",
            "5e-324",
            "1.7976931348623157e308",
            r#""a \"b\" \\ \t\n\r\u0000\u007F é ' \u001B""#,
            "[]",
            "[1, 2.5, \"x\", [true]]",
            "{}",
            "{ log-uniform = [0.0001, 0.1], \"a b\" = {} }",
        ] {
            let value = parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(toml(&value), text);
        }
        assert_eq!(canonical_float(-0.0), "0.0");
        assert_eq!(canonical_float(1e22), "1e22");
        assert_eq!(shortest(0.1f32), "0.1");
        assert_eq!(shortest(-0.0), "-0.0");
        // As the standard library writes it where no exponent is wanted.
        let mut stream = 1u64;
        for i in 0..200_000u32 {
            stream = stream.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bits = (stream >> 32) as u32;
            let near_one = f32::from_bits(bits % 0x2000_0000 + 0x3000_0000);
            for x in [f32::from_bits(bits), near_one, i as f32, -(i as f32) * 0.125] {
                let plain = x.to_string();
                let plain = if plain.contains('.') { plain } else { plain + ".0" };
                let told = shortest(x);
                assert!(told.contains('e') || !x.is_finite() || told == plain, "{told} {plain}");
                assert!(!told.contains('e') || !(1e-4..1e16).contains(&x.abs()), "{told}");
            }
        }
        for text in ["", "1 2", "1\nb = 2", "nonsense", "\"open"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_number_and_any_string_read_back(bits: u64, text: String) {
            let x = f64::from_bits(bits);
            if x.is_finite() {
                let Some(Value::Float(back)) = parse(&canonical_float(x)) else { panic!("{x}") };
                proptest::prop_assert_eq!(back.to_bits(), positive_zero(x).to_bits());
            }
            let back = parse(&quote(&text));
            proptest::prop_assert_eq!(back, Some(Value::Text { text: text.clone(), inner: None }));
            let table = rebuild(&pairs(&[(&format!("a.{}[0]", segment(&text)), "1")]), &[]);
            let expected = format!("{{ a = {{ {} = [1] }} }}", segment(&text));
            proptest::prop_assert_eq!(table.map(|table| toml(&Value::Table(table))), Ok(expected));
        }
    }

    #[test]
    fn records_become_the_table_they_are_from() {
        let case = |list: &[(&str, &str)], expected: &str| {
            let mut list = pairs(list);
            for _ in 0..2 {
                let table = rebuild(&list, &[]).map(|table| toml(&Value::Table(table)));
                assert_eq!(table.as_deref().map(str::len), Ok(expected.len()), "{table:?}");
                list.reverse();
            }
            list.sort();
            assert_eq!(rebuild(&list, &[]).map(|table| toml(&Value::Table(table))).as_deref(), Ok(expected));
        };
        case(&[], "{}");
        case(&[("epochs", "3"), ("steps", "[]")], "{ epochs = 3, steps = [] }");
        case(
            &[("optimizer", "\"adam\""), ("optimizer.adam.beta1", "0.9"), ("optimizer.adam.beta2", "0.99")],
            "{ optimizer = { adam = { beta1 = 0.9, beta2 = 0.99 } } }",
        );
        case(
            &[
                ("steps[0]", "\"center\""),
                ("steps[0].center.per", "\"pixel\""),
                ("steps[1]", "\"standardize-image\""),
                ("steps[2]", "\"divide\""),
                ("steps[2].divide.divide", "255.0"),
            ],
            "{ steps = [{ center = { per = \"pixel\" } }, \"standardize-image\", { divide = { divide = 255.0 } }] }",
        );
        case(
            &[("gates.\"search.2\".accuracy", "\">= 0.5\"")],
            "{ gates = { \"search.2\" = { accuracy = \">= 0.5\" } } }",
        );
        let eleven: Vec<(String, String)> = (0..11).map(|i| (format!("a[{i}]"), i.to_string())).collect();
        let eleven: Vec<(&str, &str)> = eleven.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        case(&eleven, "{ a = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10] }");
        let with_place = rebuild(&pairs(&[("a", "1")]), &pairs(&[("source", "\"x\"")]));
        assert_eq!(with_place.map(|table| toml(&Value::Table(table))).as_deref(), Ok("{ a = 1, source = \"x\" }"));
    }

    #[test]
    fn records_that_make_no_sense_are_errors() {
        let case = |list: &[(&str, &str)], expected: &str| {
            assert_eq!(rebuild(&pairs(list), &[]).expect_err("it makes no sense"), expected);
        };
        case(&[("a", "2 items")], "`a` has a value that is not TOML: `2 items`");
        case(&[("a", "none")], "`a` has a value that is not TOML: `none`");
        case(&[("a", "1"), ("a", "1")], "`a` is there twice");
        case(&[("a", "1"), ("a.b", "1")], "`a` has a value of its own and keys below it");
        case(&[("a", "\"x\""), ("a.y", "1")], "`a` has a value of its own and keys below it");
        case(&[("a[0]", "1"), ("a[2]", "1")], "`a` has no item 1");
        for key in ["", ".", "a.", "a[x]", "a[0", "\"a", "a[0]b"] {
            case(&[(key, "1")], &format!("`{key}` is not a dotted key"));
        }
    }
}
