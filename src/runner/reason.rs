//! Why a task is stale, as a person would say it. How reasons are found: [`super::differ`].

use std::fmt;

use crate::config::Span;
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
        /// The files that differ, of those that are read.
        files: Vec<String>,
    },
    /// A search hands on another trial.
    Winner {
        /// The trial that was best.
        old: String,
        /// The trial that is best.
        new: String,
    },
    /// Something it computes with gives other bytes in this version of the program.
    Revision {
        /// What: `adam`, `pca`.
        room: String,
        /// Its revision then.
        old: u32,
        /// Its revision now.
        new: u32,
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
    /// Its record is known and this file, which somebody reads, is not here.
    Absent(String),
    /// The record that it had last time is no more, so that nobody can say what changed.
    Forgotten,
}

impl StaleReason {
    /// The kind of reason, in one word.
    pub fn word(&self) -> &'static str {
        match self {
            StaleReason::Param { .. } => "param",
            StaleReason::Input { .. } => "input",
            StaleReason::Upstream { .. } | StaleReason::Winner { .. } => "upstream",
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
            StaleReason::Param { key, old, new, .. } => {
                let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
                write!(f, "`{key}` changed: {} -> {}", shown(old), shown(new))
            }
            StaleReason::Input { role, changes: Some(changes), .. } => {
                write!(f, "input `{role}` changed: {changes}")
            }
            StaleReason::Input { role, old: Some(_), new: Some(_), .. } => write!(f, "input `{role}` changed"),
            StaleReason::Input { role, new: Some(_), .. } => write!(f, "input `{role}` is read now"),
            StaleReason::Input { role, .. } => write!(f, "input `{role}` is no longer read"),
            StaleReason::Upstream { stage, part, files } => {
                write!(f, "output of `{stage}` changed")?;
                let part = Some(part.as_str()).filter(|part| *part != "whole");
                let file = files.first().filter(|_| files.len() == 1);
                match (part, file) {
                    (None, None) => Ok(()),
                    (Some(part), None) => write!(f, " ({part})"),
                    (None, Some(file)) => write!(f, " (`{file}`)"),
                    (Some(part), Some(file)) => write!(f, " ({part}, `{file}`)"),
                }
            }
            StaleReason::Winner { old, new } => write!(f, "the best trial changed: {old} -> {new}"),
            StaleReason::Revision { room, old, new } => {
                write!(f, "`{room}` gives other bytes in this version of Convoy (revision {old} -> {new})")
            }
            StaleReason::Missing(Lost::NeverRun) => f.write_str("has not run yet"),
            StaleReason::Missing(Lost::Gone(None)) => f.write_str("its artifact is no longer in the store"),
            StaleReason::Missing(Lost::Gone(Some(file))) => {
                write!(f, "file `{file}` of its artifact is no longer in the store")
            }
            StaleReason::Missing(Lost::Absent(file)) => {
                write!(f, "file `{file}` of its artifact is read and not here, only its record is")
            }
            StaleReason::Missing(Lost::Forgotten) => {
                f.write_str("what it was computed from last time is no longer known: its record was removed")
            }
            StaleReason::Corrupt { file } => write!(f, "file `{file}` of its artifact was damaged on disk"),
            StaleReason::Forced => f.write_str("forced"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (
                StaleReason::Upstream { stage: "cnn".into(), part: "fold 2".into(), files: Vec::new() },
                "output of `cnn` changed (fold 2)",
            ),
            (
                StaleReason::Upstream {
                    stage: "ingest".into(),
                    part: "whole".into(),
                    files: vec!["images.npy".into()],
                },
                "output of `ingest` changed (`images.npy`)",
            ),
            (
                StaleReason::Param { key: "clip".into(), old: Some("5.0".into()), new: None, span: None },
                "`clip` changed: 5.0 -> none",
            ),
            (StaleReason::Missing(Lost::NeverRun), "has not run yet"),
        ] {
            assert_eq!(reason.to_string(), text);
        }
    }
}
