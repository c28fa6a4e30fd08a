//! Why a task is stale: one reason for everything that differs from the last time.

use std::fmt;

use super::graph::Graph;
use super::task_name;
use crate::config::Span;
use crate::stages::Part;
use crate::store::fingerprint::Parts;
use crate::store::{Changes, Digest};

/// Why a task is stale. `Display` says it to people; the first word of each is [`StaleReason::word`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaleReason {
    /// A key has another value.
    Param {
        /// Dotted, relative to the stage.
        key: String,
        /// What it was; `None`: the key was not there.
        old: Option<String>,
        /// What it is; `None`: the key is not there.
        new: Option<String>,
        /// Where it is set; `None`: nowhere, the default is in force.
        span: Option<Span>,
    },
    /// A file from outside has other content.
    Input {
        /// What it is to the stage.
        role: String,
        /// Its content then, if it was there.
        old: Option<Digest>,
        /// Its content now, if it is there.
        new: Option<Digest>,
        /// Which files of a folder changed, where that is remembered.
        changes: Option<Changes>,
    },
    /// A stage above gave other bytes.
    Upstream {
        /// That stage.
        stage: String,
        /// Its task.
        part: String,
    },
    /// The stage computes differently in this version of the program.
    Revision {
        /// What it was.
        old: String,
        /// What it is.
        new: String,
    },
    /// Its artifact is not in the store.
    Missing(Lost),
    /// Its artifact was damaged.
    Corrupt {
        /// The damaged file.
        file: String,
    },
    /// It was asked for.
    Forced,
}

/// Why an artifact is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It never was.
    NeverRun,
    /// It is no more, or this file of it is no more.
    Gone(Option<String>),
}

impl StaleReason {
    /// The kind of reason, in one word.
    pub fn word(&self) -> &'static str {
        match self {
            StaleReason::Param { .. } => "param",
            StaleReason::Input { .. } => "input",
            StaleReason::Upstream { .. } => "upstream",
            StaleReason::Revision { .. } => "revision",
            StaleReason::Missing(_) => "missing",
            StaleReason::Corrupt { .. } => "corrupt",
            StaleReason::Forced => "forced",
        }
    }
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StaleReason::Param { key, old, new, .. } => match (old, new) {
                (Some(old), Some(new)) => write!(f, "`{key}` changed: {old} -> {new}"),
                (None, Some(new)) => write!(f, "`{key}` is new: {new}"),
                (Some(old), None) => write!(f, "`{key}` is gone, it was {old}"),
                (None, None) => write!(f, "`{key}` changed"),
            },
            StaleReason::Input { role, changes: Some(changes), .. } => {
                let counts = [(changes.changed, "changed"), (changes.added, "added"), (changes.removed, "removed")];
                let counts: Vec<String> =
                    counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
                write!(f, "input `{role}` changed: {}, first `{}`", counts.join(", "), changes.first)
            }
            StaleReason::Input { role, old: Some(_), new: Some(_), .. } => write!(f, "input `{role}` changed"),
            StaleReason::Input { role, new: Some(_), .. } => write!(f, "input `{role}` is new"),
            StaleReason::Input { role, .. } => write!(f, "input `{role}` is gone"),
            StaleReason::Upstream { stage, part } => {
                write!(f, "output of `{stage}` changed")?;
                if part == "whole" { Ok(()) } else { write!(f, " ({part})") }
            }
            StaleReason::Revision { old, new } => write!(f, "the stage computes differently now: {old} -> {new}"),
            StaleReason::Missing(Lost::NeverRun) => f.write_str("has not run yet"),
            StaleReason::Missing(Lost::Gone(None)) => f.write_str("its artifact is no longer in the store"),
            StaleReason::Missing(Lost::Gone(Some(file))) => {
                write!(f, "file `{file}` of its artifact is no longer in the store")
            }
            StaleReason::Corrupt { file } => write!(f, "file `{file}` of its artifact was damaged on disk"),
            StaleReason::Forced => f.write_str("forced"),
        }
    }
}

/// Everything in which `new`, the parts of a task of `stage`, differs from `old`.
pub(super) fn differences(graph: &Graph, stage: usize, old: &Parts, new: &Parts) -> Vec<StaleReason> {
    let mut reasons = own_differences(graph, stage, old, new);
    let node = &graph.nodes[stage];
    let names = |parts: &Parts| {
        let mut names: Vec<&str> = parts.inputs.iter().map(|input| input.stage.as_str()).collect();
        names.dedup();
        names.join(", ")
    };
    let is_rewired = old.inputs.len() != new.inputs.len()
        || old.inputs.iter().zip(&new.inputs).any(|(a, b)| a.stage != b.stage || a.role != b.role);
    let is_other =
        || old.inputs.iter().map(|i| (&i.role, i.artifact)).ne(new.inputs.iter().map(|i| (&i.role, i.artifact)));
    if is_rewired && names(old) != names(new) {
        if is_other() || old.names != new.names {
            reasons.push(StaleReason::Param {
                key: if node.stage.takes_members() { "members" } else { "input" }.to_owned(),
                old: Some(names(old)),
                new: Some(names(new)),
                span: None,
            });
        }
    } else {
        // As many as differ, the first per stage: five folds of one stage are one reason.
        let mut named: Vec<&str> = Vec::new();
        for (i, input) in new.inputs.iter().enumerate() {
            let is_same = old.inputs.get(i).is_some_and(|o| o.role == input.role && o.artifact == input.artifact);
            if !is_same && !named.contains(&input.stage.as_str()) {
                named.push(&input.stage);
                let part = input.role.split_once(' ').map_or("whole", |(_, part)| part);
                reasons.push(StaleReason::Upstream { stage: input.stage.clone(), part: part.to_owned() });
            }
        }
        // Fewer than last time, the rest alike: folds that are no more.
        for input in old.inputs.iter().skip(new.inputs.len()) {
            if !named.contains(&input.stage.as_str()) {
                named.push(&input.stage);
                reasons.push(StaleReason::Upstream { stage: input.stage.clone(), part: "whole".to_owned() });
            }
        }
        if reasons.is_empty() && (is_other() || old.names != new.names) {
            let stage = names(new);
            reasons.push(StaleReason::Upstream { stage, part: "whole".to_owned() });
        }
    }
    reasons
}

/// Everything but what comes from stages above: known even while those are stale.
pub(super) fn own_differences(graph: &Graph, stage: usize, old: &Parts, new: &Parts) -> Vec<StaleReason> {
    let text = |text: &str| Some(text.to_owned());
    if old.kind != new.kind {
        let (old, new) = (text(&old.kind), text(&new.kind));
        return vec![StaleReason::Param { key: "kind".to_owned(), old, new, span: graph.span_of(stage, "kind") }];
    }
    let mut reasons = Vec::new();
    if old.revision != new.revision {
        reasons.push(StaleReason::Revision { old: old.revision.clone(), new: new.revision.clone() });
    }
    if old.seed != new.seed {
        let say = |seed: Option<u64>| seed.map(|seed| seed.to_string());
        let (old, new) = (say(old.seed), say(new.seed));
        reasons.push(StaleReason::Param { key: "seed".to_owned(), old, new, span: graph.span_of(stage, "seed") });
    }
    reasons.extend(changed_keys(&old.keys, &new.keys).into_iter().map(|(key, old, new)| {
        let span = graph.span_of(stage, &key);
        StaleReason::Param { key, old, new, span }
    }));
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
    // Two sources of one role that changed places, or one more of a role.
    if reasons.is_empty() && old.sources != new.sources {
        let role = new.sources.first().or(old.sources.first()).map(|s| s.role.clone()).unwrap_or_default();
        reasons.push(StaleReason::Input { role, old: None, new: None, changes: None });
    }
    reasons
}

type ChangedKey = (String, Option<String>, Option<String>);

/// Keys that differ, sorted. Where a choice changed, the keys of the old and the new choice are left out.
fn changed_keys(old: &[(String, String)], new: &[(String, String)]) -> Vec<ChangedKey> {
    let value = |keys: &[(String, String)], key: &str| keys.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let mut all: Vec<&String> = old.iter().chain(new).map(|(key, _)| key).collect();
    all.sort();
    all.dedup();
    let mut changed: Vec<ChangedKey> = Vec::new();
    for key in all {
        let (before, after) = (value(old, key), value(new, key));
        let is_below =
            |above: &str| key.strip_prefix(above).is_some_and(|rest| rest.starts_with('.') || rest.starts_with('['));
        if before != after && !changed.iter().any(|(above, ..)| is_below(above)) {
            changed.push((key.clone(), before, after));
        }
    }
    changed
}

/// A task in a sentence: `stale cnn, fold 3: …`.
pub(super) fn label(pipeline: &str, stage: &str, part: Part) -> String {
    format!("{pipeline} {}", task_name(stage, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_choice_is_one_reason() {
        let keys = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let adam = keys(&[("epochs", "20"), ("optimizer", "\"adam\""), ("optimizer.adam.beta1", "0.9")]);
        let sgd = keys(&[("epochs", "20"), ("optimizer", "\"sgd\""), ("optimizer.sgd.momentum", "0.9")]);
        assert_eq!(
            changed_keys(&adam, &sgd),
            [("optimizer".to_owned(), Some("\"adam\"".to_owned()), Some("\"sgd\"".to_owned()))]
        );
        let other = keys(&[("epochs", "20"), ("optimizer", "\"adam\""), ("optimizer.adam.beta1", "0.8")]);
        assert_eq!(changed_keys(&adam, &other).len(), 1);
        assert_eq!(changed_keys(&adam, &adam), []);
    }

    #[test]
    fn reasons_read_well() {
        let changes = Changes { added: 0, removed: 1, changed: 2, first: "cat/1.png".into() };
        for (reason, text) in [
            (
                StaleReason::Param {
                    key: "learning_rate".into(),
                    old: Some("0.1".into()),
                    new: Some("0.05".into()),
                    span: None,
                },
                "`learning_rate` changed: 0.1 -> 0.05",
            ),
            (
                StaleReason::Input { role: "images".into(), old: None, new: None, changes: Some(changes) },
                "input `images` changed: 2 changed, 1 removed, first `cat/1.png`",
            ),
            (StaleReason::Upstream { stage: "cnn".into(), part: "fold 2".into() }, "output of `cnn` changed (fold 2)"),
            (StaleReason::Missing(Lost::NeverRun), "has not run yet"),
        ] {
            assert_eq!(reason.to_string(), text);
        }
    }
}
