//! The manifest with some dotted keys overridden: `--set`, `[profile.NAME]` and, by the same mechanism, search trials.
//!
//! An override is a path of keys and a value. It replaces what stands at that path, as a whole; where a choice is
//! written as a bare word (`optimizer = "adam"`), keys below it open the word into its one-key table. `steps[0]` is the
//! first item of a list, and a segment of its own on the path: `[0]`.

use crate::config::{Entry, Node, OneOf, Problem, Span, Table, Value, did_you_mean};

use super::source;

/// What a command line adds to a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--set` arguments, `dotted.key=value` each, in order; the later one wins.
    pub sets: Vec<String>,
    /// `--profile NAME`: the keys of `[profile.NAME]` override those of the manifest.
    pub profile: Option<String>,
}

/// One override: where, and what.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Override {
    /// The keys from the root down, each with its place.
    pub path: Vec<(String, Span)>,
    /// The new value.
    pub node: Node,
}

/// Reads one `--set` argument, text number `number`.
pub(super) fn parse_set(argument: &str, number: u16) -> Result<Override, Vec<Problem>> {
    let whole = Span { source: number, start: 0, end: argument.len() as u32 };
    let Some(equals) = behind_key(argument) else {
        return Err(vec![Problem::error(whole, "expected `key=value`").help("for example `stages.train.epochs=3`")]);
    };
    let (spelled, inserted) = with_quoted_indices(&argument[..equals]);
    let key = source::parse_document(&format!("{spelled}=0"), number);
    let mut path = Vec::new();
    let mut table = &key.table;
    while let [entry] = table.entries.as_slice() {
        let before = |at: u32| at - inserted.iter().filter(|&&inserted| inserted < at).count() as u32;
        let span = Span { start: before(entry.key_span.start), end: before(entry.key_span.end), ..entry.key_span };
        path.push((entry.key.clone(), span));
        let Value::Table(inner) = &entry.node.value else { break };
        table = inner;
    }
    if !key.problems.is_empty() || path.is_empty() {
        let span = Span { end: equals as u32, ..whole };
        return Err(vec![
            Problem::error(span, "expected a dotted key before `=`").help("for example `stages.train.epochs=3`"),
        ]);
    }
    let text = argument[equals + 1..].trim();
    let shift = argument.len() - argument[equals + 1..].trim_start().len();
    if text.is_empty() {
        let end = Span { start: argument.len() as u32, ..whole };
        return Err(vec![Problem::error(end, "expected a value behind `=`").help("an empty string is `\"\"`")]);
    }
    let node = match source::parse_value(text, number, shift) {
        Ok(node) => node,
        // A shell eats quotes, so what is not TOML is taken as the string it looks like.
        Err(problems) if text.starts_with(['"', '\'', '[', '{']) => {
            return Err(problems
                .into_iter()
                .map(|problem| match problem.help {
                    Some(_) => problem,
                    None => problem.help("quote strings inside the argument too: `'key=\"value\"'`"),
                })
                .collect());
        }
        Err(_) => Node {
            value: Value::Text { text: text.to_owned(), inner: Some(shift as u32) },
            span: Span { source: number, start: shift as u32, end: (shift + text.len()) as u32 },
        },
    };
    Ok(Override { path, node })
}

/// A dotted key in which `steps[0]` is written `steps."[0]"`, as TOML has it, and the places of what was put in.
fn with_quoted_indices(key: &str) -> (String, Vec<u32>) {
    let mut out = String::with_capacity(key.len());
    let mut inserted = Vec::new();
    let mut insert = |out: &mut String, c: char| {
        inserted.push(out.len() as u32);
        out.push(c);
    };
    let mut quote = None;
    let mut rest = key;
    while let Some(c) = rest.chars().next() {
        let end = rest.find(']').filter(|_| quote.is_none() && c == '[');
        if let Some(end) = end.filter(|&end| end > 1 && rest[1..end].bytes().all(|b| b.is_ascii_digit())) {
            insert(&mut out, '.');
            insert(&mut out, '"');
            out.push_str(&rest[..=end]);
            insert(&mut out, '"');
            rest = &rest[end + 1..];
            continue;
        }
        match quote {
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    (out, inserted)
}

/// The index that a segment of a path is.
fn index_in(segment: &str) -> Option<usize> {
    segment.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// The `=` behind the key of `key=value`, quoted parts of the key skipped.
fn behind_key(argument: &str) -> Option<usize> {
    let mut quote = None;
    for (i, c) in argument.char_indices() {
        match (quote, c) {
            (None, '=') => return Some(i),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    None
}

/// The overrides that a profile's table stands for. `is_inline` tells a value (`{ … }`) from tables of keys.
pub(super) fn from_profile(table: &Table, is_inline: &dyn Fn(&Node) -> bool) -> Vec<Override> {
    fn walk(table: &Table, path: &mut Vec<(String, Span)>, is_inline: &dyn Fn(&Node) -> bool, out: &mut Vec<Override>) {
        for entry in &table.entries {
            path.push((entry.key.clone(), entry.key_span));
            match &entry.node.value {
                Value::Table(inner) if !is_inline(&entry.node) => walk(inner, path, is_inline, out),
                _ => out.push(Override { path: path.clone(), node: entry.node.clone() }),
            }
            path.pop();
        }
    }
    let mut out = Vec::new();
    walk(table, &mut Vec::new(), is_inline, &mut out);
    out
}

/// The top-level keys that an override may name.
const ROOTS: &[&str] = &["stages", "seed", "repeats", "name"];

/// Puts the new value into its place.
pub(super) fn apply(root: &mut Table, change: &Override) -> Result<(), Problem> {
    let (first, first_span) = &change.path[0];
    if !ROOTS.contains(&first.as_str()) {
        let mut problem =
            Problem::error(*first_span, format!("an override cannot set `{first}`, expected {}", OneOf(ROOTS)));
        problem.help = if root.get("stages").is_some_and(|stages| has_key(stages, first)) {
            Some(format!("the stage's keys begin with `stages.{first}.`"))
        } else {
            did_you_mean(first, ROOTS.iter().copied())
        };
        return Err(problem);
    }
    if first == "stages" {
        let Some((stage, stage_span)) = change.path.get(1) else {
            return Err(Problem::error(*first_span, "an override cannot replace all stages").help("name a key of one"));
        };
        let stages = root.get("stages").map(|entry| &entry.node.value);
        if let Some(Value::Table(stages)) = stages
            && stages.get(stage).is_none()
        {
            let mut problem = Problem::error(*stage_span, format!("there is no stage `{stage}` to override"));
            problem.help = did_you_mean(stage, stages.entries.iter().map(|entry| entry.key.as_str()));
            return Err(problem);
        }
        if change.path.len() == 2 && !matches!(change.node.value, Value::Table(_)) {
            return Err(Problem::error(*stage_span, format!("stage `{stage}` is a table"))
                .help(format!("name one of its keys: `stages.{stage}.KEY`")));
        }
    }
    put(root, &change.path, &change.node)
}

/// Puts a value into a stage's table, at `path` below it.
pub(super) fn apply_to(stage: &mut Entry, path: &[(String, Span)], node: &Node) -> Result<(), Problem> {
    put_in(&mut stage.node, &stage.key, path, node)
}

fn has_key(entry: &Entry, key: &str) -> bool {
    matches!(&entry.node.value, Value::Table(table) if table.get(key).is_some())
}

fn put(table: &mut Table, path: &[(String, Span)], node: &Node) -> Result<(), Problem> {
    let Some(((key, key_span), rest)) = path.split_first() else { return Ok(()) };
    let at = match table.entries.iter().position(|entry| entry.key == *key) {
        Some(at) => at,
        None => {
            if let Some((next, next_span)) = rest.first().filter(|(next, _)| index_in(next).is_some()) {
                let message = format!("`{key}` is not set, it has no item `{next}` to override");
                return Err(Problem::error(*next_span, message));
            }
            let empty = Node { value: Value::Table(Table::default()), span: *key_span };
            table.entries.push(Entry { key: key.clone(), key_span: *key_span, node: empty });
            table.entries.len() - 1
        }
    };
    let entry = &mut table.entries[at];
    if rest.is_empty() {
        entry.key_span = *key_span;
    }
    put_in(&mut entry.node, key, rest, node)
}

/// Puts the new value into `target`, which is called `name`, or below it.
fn put_in(target: &mut Node, name: &str, path: &[(String, Span)], node: &Node) -> Result<(), Problem> {
    let Some(((next, next_span), rest)) = path.split_first() else {
        *target = node.clone();
        return Ok(());
    };
    if let Some(index) = index_in(next) {
        let Value::List(items) = &mut target.value else {
            let message = format!("`{name}` is {}, it has no item `{next}` to override", target.value.noun());
            return Err(Problem::error(*next_span, message));
        };
        let n = items.len();
        return match items.get_mut(index) {
            Some(item) => put_in(item, &format!("{name}{next}"), rest, node),
            None if n == 0 => Err(Problem::error(*next_span, format!("`{name}` is empty, it has no item `{next}`"))),
            None => {
                let message = format!("`{name}` has no item `{next}` to override");
                Err(Problem::error(*next_span, message).help(format!("its items are `[0]` to `[{}]`", n - 1)))
            }
        };
    }
    if let Value::Text { text, .. } = &target.value {
        // The bare word's table: with its old name if the override goes below it, with the new one otherwise.
        let mut opened = Table::default();
        if text == next {
            let empty = Node { value: Value::Table(Table::default()), span: target.span };
            opened.entries.push(Entry { key: text.clone(), key_span: *next_span, node: empty });
        }
        target.value = Value::Table(opened);
    }
    if target.value == Value::Boolean(true) {
        // `early_stopping = true` is the table with its defaults.
        target.value = Value::Table(Table::default());
    }
    match &mut target.value {
        Value::Table(inner) => put(inner, path, node),
        other => {
            Err(Problem::error(*next_span, format!("`{name}` is {}, it has no key `{next}` to override", other.noun())))
        }
    }
}
