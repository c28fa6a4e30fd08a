//! Networks as text: the shorthand and the long form, each from the other.

use super::Architecture;
use crate::config::{Entry, Node, Value};
use crate::nn::layer;

impl Architecture {
    /// The network in shorthand: `INPUT - [CONV(32) - RELU]*2 - FC`. Repeats are folded.
    pub fn shorthand(&self) -> String {
        let items: Vec<String> = self.nodes.iter().map(shorthand_of).collect();
        fold(&items).join(" - ")
    }

    /// Each layer in shorthand: `CONV(32)`.
    pub fn layer_names(&self) -> Vec<String> {
        self.nodes.iter().map(shorthand_of).collect()
    }

    /// The network in the long form, one layer a line: `layers = [ … ]`.
    pub fn long_form(&self) -> String {
        let mut out = String::from("layers = [\n");
        for node in &self.nodes {
            out.push_str(&format!("  {},\n", toml_of(&node.value)));
        }
        out + "]\n"
    }
}

/// A layer of the long form in shorthand.
fn shorthand_of(node: &Node) -> String {
    let (word, table) = match &node.value {
        Value::Text { text, .. } => (text.as_str(), None),
        Value::Table(table) if table.entries.len() == 1 => {
            (table.entries[0].key.as_str(), Some(&table.entries[0].node.value))
        }
        other => return toml_of(other),
    };
    let Some(kind) = layer::KINDS.iter().find(|kind| kind.word == word) else { return word.to_owned() };
    let Some(value) = table else { return kind.shorthand.to_owned() };
    let Value::Table(table) = value else {
        // `{ dropout = 0.5 }`: the long form of a single unnamed value.
        return format!("{}({word}={})", kind.shorthand, argument_of(value));
    };
    let unnamed: Vec<&Entry> = kind.positional.iter().map_while(|key| table.get(key)).collect();
    let n_unnamed = unnamed.len();
    let mut arguments: Vec<String> = unnamed.iter().map(|entry| argument_of(&entry.node.value)).collect();
    for entry in &table.entries {
        if !kind.positional[..n_unnamed].contains(&entry.key.as_str()) {
            arguments.push(format!("{}={}", entry.key, argument_of(&entry.node.value)));
        }
    }
    if arguments.is_empty() {
        kind.shorthand.to_owned()
    } else {
        format!("{}({})", kind.shorthand, arguments.join(", "))
    }
}

/// A value as an argument of the shorthand.
fn argument_of(value: &Value) -> String {
    match value {
        Value::Text { text, .. }
            if text.starts_with(char::is_alphabetic)
                && text.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
                && !matches!(text.as_str(), "true" | "false" | "inf" | "nan") =>
        {
            text.clone()
        }
        Value::Text { text, .. } if !text.contains('\'') => format!("'{text}'"),
        Value::List(items) => {
            format!("[{}]", items.iter().map(|item| argument_of(&item.value)).collect::<Vec<_>>().join(", "))
        }
        other => toml_of(other),
    }
}

/// A value as TOML, on one line.
pub(super) fn toml_of(value: &Value) -> String {
    match value {
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(x) if x.is_nan() => "nan".to_owned(),
        Value::Float(x) => format!("{x:?}"),
        Value::Text { text, .. } => toml_string(text),
        Value::Datetime(text) => text.clone(),
        Value::List(items) => {
            format!("[{}]", items.iter().map(|item| toml_of(&item.value)).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) if table.entries.is_empty() => "{}".to_owned(),
        Value::Table(table) => {
            let pairs: Vec<String> = table
                .entries
                .iter()
                .map(|entry| {
                    let is_bare = !entry.key.is_empty()
                        && entry.key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
                    let key = if is_bare { entry.key.clone() } else { toml_string(&entry.key) };
                    format!("{key} = {}", toml_of(&entry.node.value))
                })
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

fn toml_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

/// Folds what follows itself into `[…]*n`; of all ways the one that folds the most layers first, then the shortest.
fn fold(items: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < items.len() {
        let rest = &items[at..];
        let best = (1..=rest.len() / 2)
            .map(|length| {
                let turns = rest.chunks(length).take_while(|chunk| *chunk == &rest[..length]).count();
                (turns, length)
            })
            .filter(|&(turns, _)| turns > 1)
            .max_by_key(|&(turns, length)| (turns * length, std::cmp::Reverse(length)));
        match best {
            Some((turns, length)) => {
                out.push(format!("[{}]*{turns}", fold(&rest[..length]).join(" - ")));
                at += turns * length;
            }
            None => {
                out.push(rest[0].clone());
                at += 1;
            }
        }
    }
    out
}
