//! What changed between the record of a task then and its record now, as reasons that a person understands.
//!
//! Keys are compared as the tree that they are in the manifest: a list item, a choice (`optimizer = "adam"` against
//! `{ sgd = … }`) or a whole list is one change, told with its old and new value; what only one side has is `none` on
//! the other.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::Graph;
use super::reason::StaleReason;
use crate::stages::Part;
use crate::store::fingerprint::TaskRecord;

/// A record and what the stages it names by number were, or are, called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side<'a> {
    /// What the task was, or is.
    pub record: &'a TaskRecord,
    /// By [`crate::store::fingerprint::Input::from`].
    pub stages: &'a [String],
}

/// Everything in which a task of `stage` differs from what it was.
pub(super) fn differences(graph: &Graph, stage: usize, old: Side<'_>, new: Side<'_>) -> Vec<StaleReason> {
    let mut reasons = own_differences(graph, stage, old.record, new.record);
    reasons.extend(rewired(graph, stage, old, new));
    // As many as differ, the first per stage: five folds of one stage are one reason.
    let mut named: Vec<&str> = Vec::new();
    for input in &new.record.inputs {
        let is_same_task = |o: &&crate::store::fingerprint::Input| {
            o.output == input.output && o.part == input.part && name(old, o.from) == name(new, input.from)
        };
        let before = old.record.inputs.iter().find(is_same_task);
        let files: Vec<String> = match before {
            Some(before) if before.files == input.files => continue,
            Some(before) => differing(&before.files, &input.files),
            // What it did not read before is a consequence of a key, a member or a fold, told where that is.
            None => continue,
        };
        let stage = name(new, input.from);
        if !named.contains(&stage) {
            named.push(stage);
            reasons.push(StaleReason::Upstream { stage: stage.to_owned(), part: input.part.clone(), files });
        }
    }
    // More or fewer tasks of a stage that it names: folds, or a refitted model. What else it reads now is a consequence
    // of a key, and told where nothing else is.
    let node = &graph.nodes[stage];
    let is_named = |output: &str| node.stage.accepts().iter().any(|accepted| accepted.word() == output);
    let count = |side: Side<'_>, are_named: bool| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for input in side.record.inputs.iter().filter(|input| !are_named || is_named(&input.output)) {
            *counts.entry(name(side, input.from).to_owned()).or_default() += 1;
        }
        counts
    };
    for are_named in [true, false] {
        if !are_named && !reasons.is_empty() || old.record.inputs == new.record.inputs {
            break;
        }
        let (before, after) = (count(old, are_named), count(new, are_named));
        let both: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for stage in both {
            let is_other = before.contains_key(stage) && after.contains_key(stage) || !are_named;
            let is_told = reasons
                .iter()
                .any(|reason| matches!(reason, StaleReason::Upstream { stage: told, .. } if told == stage));
            if is_other && before.get(stage) != after.get(stage) && !is_told {
                let (stage, part) = (stage.clone(), "whole".to_owned());
                reasons.push(StaleReason::Upstream { stage, part, files: Vec::new() });
            }
        }
    }
    if reasons.is_empty() && old.record.names != new.record.names {
        let (before, after) = (old.record.names.join(", "), new.record.names.join(", "));
        reasons.push(StaleReason::Param { key: "name".to_owned(), old: Some(before), new: Some(after), span: None });
    }
    reasons
}

fn name<'a>(side: Side<'a>, from: u32) -> &'a str {
    side.stages.get(from as usize).map_or("", String::as_str)
}

fn differing<T: PartialEq>(a: &[(String, T)], b: &[(String, T)]) -> Vec<String> {
    let of = |files: &[(String, T)], name: &String| files.iter().position(|(n, _)| n == name);
    let mut names: Vec<&String> = a.iter().chain(b).map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let is_other = |name: &&&String| match (of(a, name), of(b, name)) {
        (Some(i), Some(j)) => a[i].1 != b[j].1,
        _ => true,
    };
    names.iter().filter(is_other).map(|name| (*name).clone()).collect()
}

/// Whether it reads other stages than before: the key that names them, with both.
fn rewired(graph: &Graph, stage: usize, old: Side<'_>, new: Side<'_>) -> Option<StaleReason> {
    let node = &graph.nodes[stage];
    let is_named = |output: &str| node.stage.accepts().iter().any(|accepted| accepted.word() == output);
    // What it names itself; data set and splits above are read because those read them.
    let named = |side: Side<'_>| {
        let mut names: Vec<String> = Vec::new();
        for input in side.record.inputs.iter().filter(|input| is_named(&input.output)) {
            let name = name(side, input.from);
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        if !node.stage.takes_members() && node.stage.search().is_none() {
            // The chain of fitted stages: the last one is the input.
            names.drain(..names.len().saturating_sub(1));
        }
        names
    };
    let (before, after) = (named(old), named(new));
    if before == after || before.is_empty() || after.is_empty() {
        return None;
    }
    if node.stage.search().is_some() {
        let trial = |names: &[String]| names.first().map(|name| name.split(' ').nth(1).unwrap_or(name).to_owned());
        return match (trial(&before), trial(&after)) {
            (Some(old), Some(new)) if before.len() == 1 && after.len() == 1 => Some(StaleReason::Winner { old, new }),
            // The trials of a round are told by their settings.
            _ => None,
        };
    }
    let key = node.stage.input_key().to_owned();
    let span = graph.span_of(stage, &key);
    // A renamed stage is no other one, unless its name is written down.
    let is_same_work = old.record.names == new.record.names
        && old.record.inputs.len() == new.record.inputs.len()
        && old.record.inputs.iter().zip(&new.record.inputs).all(|(a, b)| a.files == b.files);
    (!is_same_work).then(|| StaleReason::Param { key, old: Some(before.join(", ")), new: Some(after.join(", ")), span })
}

/// Everything but what comes from stages above: known even while those are stale.
pub(super) fn own_differences(graph: &Graph, stage: usize, old: &TaskRecord, new: &TaskRecord) -> Vec<StaleReason> {
    let text = |text: &str| Some(text.to_owned());
    if old.kind != new.kind {
        let (old, new) = (text(&old.kind), text(&new.kind));
        return vec![StaleReason::Param { key: "kind".to_owned(), old, new, span: graph.span_of(stage, "kind") }];
    }
    let mut reasons = Vec::new();
    // A seed that only one side has is a consequence of a key: of `shuffle`, say.
    if let (Some(before), Some(after)) = (old.seed, new.seed)
        && before != after
    {
        let (old, new) = (Some(before.to_string()), Some(after.to_string()));
        reasons.push(StaleReason::Param { key: "seed".to_owned(), old, new, span: graph.span_of(stage, "seed") });
    }
    let (edited, follow): (Vec<Change>, Vec<Change>) =
        changed_keys(&old.keys, &new.keys).into_iter().partition(|change| !follows(graph, stage, &change.key));
    let above = round_above(new);
    for Change { key, old, new } in edited {
        let span = graph.span_of(stage, &key);
        reasons.push(StaleReason::Param { key, old, new, span });
    }
    for Change { key, old, new } in follow {
        let (Some(old), Some(new)) = (old, new) else { continue };
        // What trials spend is the round's to say, else another stage's, whose key is told with the trials or before
        // them.
        let spent = key.strip_prefix("ranges[r").and_then(|rest| rest.split_once("]."));
        let spent = spent.filter(|(_, what)| ["epochs", "folds"].contains(what));
        if let Some((Ok(round), what)) = spent.map(|(round, what)| (round.parse::<u32>(), what)) {
            let key = format!("rounds[{}].{what}", round.saturating_sub(1));
            if graph.entries[stage].resolved.iter().any(|resolved| resolved.key == key) {
                let span = graph.span_of(stage, &key);
                reasons.push(StaleReason::Param { key, old: Some(old), new: Some(new), span });
            }
        } else if let (true, Some(above)) = (reasons.is_empty(), &above) {
            // Nothing was edited: the round above kept other trials.
            let stage = graph.nodes[stage].name.clone();
            reasons.push(StaleReason::Upstream { stage, part: above.to_string(), files: Vec::new() });
        }
    }
    for source in &new.sources {
        let before = old.sources.iter().find(|o| o.role == source.role).map(|o| o.digest);
        if before != Some(source.digest) {
            let (role, new) = (source.role.clone(), Some(source.digest));
            reasons.push(StaleReason::Input { role, old: before, new, changes: None });
        }
    }
    for source in &old.sources {
        if !new.sources.iter().any(|n| n.role == source.role) {
            let (role, old) = (source.role.clone(), Some(source.digest));
            reasons.push(StaleReason::Input { role, old, new: None, changes: None });
        }
    }
    // So is a room: a layer that is new computes with what it computes with.
    for (room, revision) in &new.rooms {
        if let Some((_, before)) = old.rooms.iter().find(|(r, before)| r == room && before != revision) {
            reasons.push(StaleReason::Revision { room: room.clone(), old: *before, new: *revision });
        }
    }
    if reasons.is_empty() && old.rooms != new.rooms {
        let only = |a: &TaskRecord, b: &TaskRecord| {
            a.rooms.iter().find(|(room, _)| b.rooms.iter().all(|(other, _)| other != room)).cloned()
        };
        // A version that computes with something else.
        match (only(new, old), only(old, new)) {
            (Some((room, new)), _) => reasons.push(StaleReason::Revision { room, old: 0, new }),
            (None, Some((room, old))) => reasons.push(StaleReason::Revision { room, old, new: 0 }),
            (None, None) => {}
        }
    }
    reasons
}

/// Whether `key` is no key of the manifest: the ranges and settings of a round follow from the search's space, its
/// rounds, its seed and what the round above kept.
fn follows(graph: &Graph, stage: usize, key: &str) -> bool {
    let head = key.split(['.', '[']).next().unwrap_or_default();
    graph.nodes[stage].stage.search().is_some() && ["ranges", "trials"].contains(&head)
}

/// The round above the one that `record` is of.
fn round_above(record: &TaskRecord) -> Option<Part> {
    match record.part.parse() {
        Ok(Part::Round(round)) if round > 1 => Some(Part::Round(round - 1)),
        _ => None,
    }
}

/// A key that has another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Dotted, relative to the stage.
    pub key: String,
    /// What it was; `None`: nothing.
    pub old: Option<String>,
    /// What it is; `None`: nothing.
    pub new: Option<String>,
}

/// Keys as the tree that they are: `optimizer.adam.beta1` is three levels, `steps[0].center` as well.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tree {
    Leaf(String),
    /// By segment, list items as `[0]`, `[1]`, in order.
    Branch(Vec<(String, Tree)>),
}

/// Keys that differ, sorted.
pub(super) fn changed_keys(old: &[(String, String)], new: &[(String, String)]) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", &tree(old), &tree(new), &mut changes);
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    changes
}

fn tree(keys: &[(String, String)]) -> Tree {
    let mut root = Tree::Branch(Vec::new());
    for (key, value) in keys {
        let mut at = &mut root;
        for segment in segments(key) {
            if let Tree::Leaf(word) = at {
                // `optimizer = "adam"` and `optimizer.adam.beta1 = …`: the word is the branch's name.
                let word = word.clone();
                *at = Tree::Branch(if segment == unquoted(&word) {
                    Vec::new()
                } else {
                    vec![(word, Tree::Branch(Vec::new()))]
                });
            }
            let Tree::Branch(items) = at else { break };
            let place = match items.iter().position(|(known, _)| known == segment) {
                Some(place) => place,
                None => {
                    items.push((segment.to_owned(), Tree::Branch(Vec::new())));
                    items.len() - 1
                }
            };
            at = &mut items[place].1;
        }
        match at {
            Tree::Branch(items) if items.is_empty() => *at = Tree::Leaf(value.clone()),
            _ => {}
        }
    }
    root
}

/// The segments of a dotted key; quoted ones hold dots and brackets as they like.
fn segments(key: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    let (mut start, mut is_quoted, mut is_escaped) = (0, false, false);
    for (at, c) in key.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '.' | '[' if !is_quoted => {
                if at > start {
                    segments.push(&key[start..at]);
                }
                start = if c == '.' { at + 1 } else { at };
            }
            _ => {}
        }
    }
    if start < key.len() {
        segments.push(&key[start..]);
    }
    segments
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

fn is_item(segment: &str) -> bool {
    segment.starts_with('[')
}

/// Whether a branch stands for a choice: one key, which is no list item.
fn choice(tree: &Tree) -> Option<&str> {
    match tree {
        Tree::Branch(items) => match items.as_slice() {
            [(word, _)] if !is_item(word) => Some(word),
            _ => None,
        },
        Tree::Leaf(text) => Some(unquoted(text)).filter(|word| text.len() > word.len()),
    }
}

fn compare(key: &str, old: &Tree, new: &Tree, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    let mut tell = |old: Option<String>, new: Option<String>| changes.push(Change { key: key.to_owned(), old, new });
    match (old, new) {
        (Tree::Leaf(a), Tree::Leaf(b)) => tell(Some(a.clone()), Some(b.clone())),
        (Tree::Branch(a), Tree::Branch(b)) => {
            let are_lists = |items: &[(String, Tree)]| items.first().is_some_and(|(segment, _)| is_item(segment));
            if !key.is_empty() && are_lists(a) != are_lists(b) && !a.is_empty() && !b.is_empty() {
                return tell(Some(shown(old)), Some(shown(new)));
            }
            if are_lists(a) && are_lists(b) && a.len() != b.len() {
                // An item more or fewer: which one, only where the others kept their places.
                let n_same = a.iter().zip(b).take_while(|(x, y)| x.1 == y.1).count();
                if n_same < a.len().min(b.len()) {
                    return tell(Some(shown(old)), Some(shown(new)));
                }
            }
            if let (Some(before), Some(after)) = (choice(old), choice(new))
                && before != after
                && !key.is_empty()
            {
                return tell(Some(before.to_owned()), Some(after.to_owned()));
            }
            let mut names: Vec<&String> = a.iter().map(|(name, _)| name).collect();
            names.extend(b.iter().map(|(name, _)| name).filter(|name| !a.iter().any(|(known, _)| known == *name)));
            for name in names {
                let at = if key.is_empty() || is_item(name) { format!("{key}{name}") } else { format!("{key}.{name}") };
                let find =
                    |items: &[(String, Tree)]| items.iter().find(|(n, _)| n == name).map(|(_, tree)| tree.clone());
                match (find(a), find(b)) {
                    (Some(x), Some(y)) => compare(&at, &x, &y, changes),
                    (x, y) => {
                        changes.push(Change { key: at, old: x.as_ref().map(shown), new: y.as_ref().map(shown) });
                    }
                }
            }
        }
        _ => {
            // A bare word against the same word with keys: the keys are what is new.
            let inside = |tree: &Tree| match tree {
                Tree::Branch(items) => items.first().map(|(_, tree)| tree.clone()),
                Tree::Leaf(_) => None,
            };
            match (choice(old), choice(new)) {
                (Some(before), Some(after)) if before == after => {
                    let empty = Tree::Branch(Vec::new());
                    let (a, b) = (inside(old).unwrap_or(empty.clone()), inside(new).unwrap_or(empty));
                    compare(&format!("{key}.{after}"), &a, &b, changes);
                }
                (Some(before), Some(after)) => tell(Some(before.to_owned()), Some(after.to_owned())),
                _ => tell(Some(shown(old)), Some(shown(new))),
            }
        }
    }
}

/// A value as it would be written, on one line.
fn shown(tree: &Tree) -> String {
    match tree {
        Tree::Leaf(text) => text.clone(),
        Tree::Branch(items) if items.first().is_some_and(|(segment, _)| is_item(segment)) => {
            let items: Vec<String> = items.iter().map(|(_, item)| shown(item)).collect();
            format!("[{}]", items.join(", "))
        }
        Tree::Branch(items) => {
            let is_empty = |tree: &Tree| {
                matches!(tree, Tree::Branch(items) if items.is_empty()) || *tree == Tree::Leaf("{}".to_owned())
            };
            match items.as_slice() {
                [] => "{}".to_owned(),
                [(word, inner)] if is_empty(inner) => word.clone(),
                items => {
                    let items: Vec<String> =
                        items.iter().map(|(name, tree)| format!("{name} = {}", shown(tree))).collect();
                    format!("{{ {} }}", items.join(", "))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(old: &[(&str, &str)], new: &[(&str, &str)], expected: &[&str]) {
        let keys = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let text = |value: &Option<String>| value.clone().unwrap_or("none".to_owned());
        let said: Vec<String> = changed_keys(&keys(old), &keys(new))
            .iter()
            .map(|change| format!("{}: {} -> {}", change.key, text(&change.old), text(&change.new)))
            .collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn a_changed_choice_is_one_change() {
        let adam = [("epochs", "20"), ("optimizer.adam.beta1", "0.9")];
        let sgd = [("epochs", "20"), ("optimizer.sgd.momentum", "0.9"), ("optimizer.sgd.nesterov", "false")];
        check(&adam, &sgd, &["optimizer: adam -> sgd"]);
        check(&adam, &adam, &[]);
        check(
            &adam,
            &[("epochs", "21"), ("optimizer.adam.beta1", "0.8")],
            &["epochs: 20 -> 21", "optimizer.adam.beta1: 0.9 -> 0.8"],
        );
        check(&[("schedule", "\"constant\"")], &[("schedule.step.every", "5")], &["schedule: constant -> step"]);
        check(
            &[("resize", "\"none\"")],
            &[("resize.width", "5"), ("resize.height", "6")],
            &["resize: \"none\" -> { width = 5, height = 6 }"],
        );
        check(&[("fit", "\"crop\"")], &[("fit", "\"pad\"")], &["fit: \"crop\" -> \"pad\""]);
        // A word, and the word with keys beside it.
        check(
            &[("optimizer", "\"adam\""), ("optimizer.adam.beta1", "0.9")],
            &[("optimizer", "\"sgd\""), ("optimizer.sgd.momentum", "0.9")],
            &["optimizer: adam -> sgd"],
        );
    }

    #[test]
    fn list_items_are_told_by_their_places_where_they_kept_them() {
        let one = [("steps[0].center.per", "\"pixel\"")];
        let two = [("steps[0].center.per", "\"pixel\""), ("steps[1].standardize-image", "{}")];
        check(&one, &two, &["steps[1]: none -> standardize-image"]);
        check(&two, &one, &["steps[1]: standardize-image -> none"]);
        check(
            &two,
            &[("steps[0].standardize-image", "{}")],
            &["steps: [{ center = { per = \"pixel\" } }, standardize-image] -> [standardize-image]"],
        );
        check(&one, &[("steps[0].center.per", "\"channel\"")], &["steps[0].center.per: \"pixel\" -> \"channel\""]);
        check(&[("steps", "[]")], &one, &["steps: [] -> [{ center = { per = \"pixel\" } }]"]);
    }

    #[test]
    fn what_only_one_side_has_is_none_on_the_other() {
        check(&[("clip", "5.0")], &[], &["clip: 5.0 -> none"]);
        check(&[], &[("vars.\"a.b\"", "1")], &["vars: none -> { \"a.b\" = 1 }"]);
        check(&[("vars.b", "2")], &[("vars.\"a.b\"", "1"), ("vars.b", "2")], &["vars.\"a.b\": none -> 1"]);
    }
}
