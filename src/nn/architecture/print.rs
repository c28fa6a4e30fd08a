//! Networks as text: the shorthand and the long form, each from the other.

use super::Architecture;
use crate::config::{Entry, Log, Node, Section, Span, Table, Value, rebuild, toml};
use crate::nn::layer;

impl Architecture {
    /// The network in shorthand: `INPUT - [CONV(16) - RELU]*2 - FC`. Repeats are folded, and what is the default anyway
    /// is left out: networks whose keys have the same values have the same text, however they were written.
    pub fn shorthand(&self) -> String {
        let items: Vec<String> = self.nodes.iter().map(|node| shorthand_of(&canonical(node))).collect();
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
            out.push_str(&format!("  {},\n", toml(&node.value)));
        }
        out + "]\n"
    }
}

/// The keys that a network of this layer alone records.
fn records(node: &Node) -> Vec<(String, String)> {
    let layers = Node { value: Value::List(vec![node.clone()]), span: Span::default() };
    let table = Table { entries: vec![Entry { key: "layers".to_owned(), key_span: Span::default(), node: layers }] };
    let mut log = Log::default();
    // That a network does not begin with this layer is not the question.
    super::read(&mut Section::new(Some(&table), Span::default(), "", &mut log));
    let of_layers = log.resolved.into_iter().filter(|resolved| resolved.key.starts_with("layers["));
    of_layers.map(|resolved| (resolved.key, resolved.value)).collect()
}

/// The layer with the same records and no key that can be left out.
fn canonical(node: &Node) -> Node {
    let wanted = records(node);
    let layer = rebuild(&wanted, &[]).ok().and_then(|table| match table.entries.into_iter().next()?.node.value {
        Value::List(items) => items.into_iter().next(),
        _ => None,
    });
    let Some(mut layer) = layer else { return node.clone() };
    // The last key first: where a later one follows from an earlier one (a stride from a size), that one stays.
    let mut at = keys_of(&mut layer).map_or(0, |keys| keys.len());
    while at > 0 {
        at -= 1;
        let mut less = layer.clone();
        if let Some(keys) = keys_of(&mut less) {
            keys.remove(at);
        }
        if records(&less) == wanted {
            layer = less;
        }
    }
    layer
}

/// The keys of a layer that is more than a word.
fn keys_of(layer: &mut Node) -> Option<&mut Vec<Entry>> {
    let Value::Table(outer) = &mut layer.value else { return None };
    match &mut outer.entries.first_mut()?.node.value {
        Value::Table(keys) => Some(&mut keys.entries),
        _ => None,
    }
}

/// A layer of the long form in shorthand.
fn shorthand_of(node: &Node) -> String {
    let (word, table) = match &node.value {
        Value::Text { text, .. } => (text.as_str(), None),
        Value::Table(table) if table.entries.len() == 1 => {
            (table.entries[0].key.as_str(), Some(&table.entries[0].node.value))
        }
        other => return toml(other),
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
        other => toml(other),
    }
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
