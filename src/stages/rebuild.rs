//! A stage again from what its task recorded: no manifest, no graph.

use super::{Kind, Part, Stage, search};
use crate::config::{self, Log, Section, Severity, Span};

/// The stage of `kinds` of which a task recorded `keys`, sorted or not, so that the task of `part` can be run: the same
/// bytes come out.
///
/// `places` says where its sources are, by key. It is not the stage that planned the task: what only planning needs is
/// not in a record.
///
/// # Errors
/// In one sentence, what in the record this version of the program cannot have written.
pub fn rebuild(
    kinds: &[Kind],
    kind: &str,
    part: Part,
    keys: &[(String, String)],
    places: &[(String, String)],
) -> Result<Box<dyn Stage>, String> {
    let Some(kind) = kinds.iter().find(|known| known.name == kind) else { return Err(format!("kind `{kind}`")) };
    if kind.name == search::KIND.name {
        return Ok(Box::new(search::rebuild(part, keys)?));
    }
    let table = config::rebuild(keys, places)?;
    let mut log = Log::default();
    let mut section = Section::new(Some(&table), Span::default(), "", &mut log);
    let stage = (kind.read)(&mut section);
    section.finish();
    match log.problems.into_iter().find(|problem| problem.severity == Severity::Error) {
        Some(problem) => Err(problem.message),
        None => Ok(stage),
    }
}
