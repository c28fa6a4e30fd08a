//! `schema`: the keys of every kind of stage, with their defaults, as the stages themselves read them.

use std::fmt::Write as _;

use super::Exit;
use super::arguments::SchemaArguments;
use super::terminal::{RED, Terminal};
use crate::manifest::schema::stage_keys;
use crate::report::text::{Align, aligned};
use crate::stages::KINDS;

/// `schema`.
pub fn schema(arguments: &SchemaArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let kinds: Vec<_> =
        KINDS.iter().filter(|kind| arguments.kind.as_deref().is_none_or(|name| name == kind.name)).collect();
    if kinds.is_empty() {
        let name = arguments.kind.as_deref().unwrap_or_default();
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        let help = crate::config::did_you_mean(name, names.iter().copied())
            .unwrap_or_else(|| format!("the kinds are `{}`", names.join("`, `")));
        terminal.note(&format!("{} unknown kind of stage `{name}`\n  help: {help}", terminal.paint("error:", RED)));
        return Ok(Exit::Usage);
    }
    let mut text = String::new();
    for kind in kinds {
        let rows: Vec<Vec<String>> =
            stage_keys(kind).into_iter().map(|key| vec![key.key, key.default.unwrap_or_default()]).collect();
        let _ = writeln!(text, "[stages.{}]\n{}", kind.name, aligned(&["key", "default"], &[Align::Left; 2], &rows));
    }
    terminal.result(&text);
    Ok(Exit::Done)
}
