//! Which files of an artifact a report, or the results on the terminal, are made from: what a store that knows tasks by their
//! records only must have to show them.

use super::curves::CURVES;
use super::{PICTURES, TABLES, summary};
use crate::artifact::search::ROUND;
use crate::stages::Part;

/// Whether the file `name` of a task of this kind is read by somebody who shows results; `is_trial`: of a search's trial.
pub fn reads(kind: &str, part: Part, is_trial: bool, name: &str) -> bool {
    let is_table = |table: &super::Table| table.kind == kind && table.file == name && (table.is_per_task || !is_trial);
    TABLES.iter().any(is_table)
        || !is_trial && (PICTURES.contains(&(kind, name)) || CURVES.contains(&name))
        || match kind {
            "search" => name == ROUND,
            _ => !is_trial && summary::reads(kind, part, name),
        }
}
