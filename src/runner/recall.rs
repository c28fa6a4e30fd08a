//! What a lock file names, as far as the store has it: results and data of another revision.

use super::lockfile::LockFile;
use crate::artifact::Files;
use crate::artifact::dataset::NAMES_FILES;
use crate::artifact::evaluation::{EVALUATION, PREDICTIONS};
use crate::store::Store;

/// The tasks of a kind of stage, by the names of their stages, with these files of their artifacts: `None` of one that
/// the store does not have with the bytes that the lock file says.
fn artifacts(store: &Store, lock: &LockFile, kind: &str, files: &[&str]) -> Vec<(String, Option<Files>)> {
    let is_of_kind = |stage: &str| lock.stages.get(stage).is_some_and(|stage| stage.kind == kind);
    let tasks = lock.tasks.iter().filter_map(|(name, task)| {
        let (stage, part) = name.rsplit_once('/')?;
        // Pictures are of no use to a comparison.
        (is_of_kind(stage) && part == "whole").then_some((stage, task))
    });
    tasks
        .map(|(stage, task)| {
            let entry = store.read_entry(&task.key).ok().flatten().filter(|entry| entry.artifact() == task.output);
            let opened = entry.and_then(|entry| store.open_files(&entry, &|name| files.contains(&name)).ok());
            (stage.to_owned(), opened)
        })
        .collect()
}

/// What every `evaluate` stage of a lock file found, by the names of the stages, if the store has all of it.
pub fn locked_results(store: &Store, lock: &LockFile) -> Option<Vec<(String, Files)>> {
    let found = artifacts(store, lock, "evaluate", &[EVALUATION, PREDICTIONS]);
    if found.is_empty() { None } else { found.into_iter().map(|(stage, files)| Some((stage, files?))).collect() }
}

/// The data sets of a lock file, by the names of their stages: `None` of one that the store does not have.
pub fn locked_dataset(store: &Store, lock: &LockFile) -> Vec<(String, Option<Files>)> {
    artifacts(store, lock, "ingest", NAMES_FILES)
}
