//! Where the store of the project here is, and `verify --store`.

use std::path::{Path, PathBuf};

use super::Exit;
use super::arguments::{StoreArguments, VerifyArguments};
use super::terminal::Terminal;
use crate::report::text::bytes;
use crate::runner::{self, RunError};
use crate::store::{self, Access, Store};

/// Where the store of the project here (or the one that was named) is, and the project's root.
pub fn locate(arguments: &StoreArguments) -> (PathBuf, PathBuf) {
    let root = store::project_root(Path::new("."));
    (runner::store_dir(&root, arguments.cache_dir.as_deref()), root)
}

/// Opens it; what is wrong with it was told where there is none.
pub fn open(arguments: &StoreArguments, access: Access, terminal: &Terminal) -> Option<Store> {
    let (dir, root) = locate(arguments);
    match Store::open(&dir, &root, access) {
        Ok(store) => Some(told(store, terminal)),
        Err(error) => {
            terminal.fault(&error.to_string(), error.help().as_deref());
            None
        }
    }
}

fn told(store: Store, terminal: &Terminal) -> Store {
    store.take_warnings().iter().for_each(|warning| terminal.warning(warning));
    store
}

/// Tells of an error, and what helps.
pub fn failed(error: &RunError, terminal: &Terminal) -> Exit {
    let help = if let RunError::Store(error) = error { error.help() } else { None };
    terminal.fault(&error.to_string(), help.as_deref());
    Exit::Failed
}

/// `verify --store`.
pub fn verify(arguments: &VerifyArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let place = StoreArguments { cache_dir: arguments.places.cache_dir.clone() };
    let (dir, root) = locate(&place);
    // What is damaged is moved away where the store can be written to; where not, it is told only.
    let writable = if dir.exists() { Store::open(&dir, &root, Access::Write).ok() } else { None };
    let store = match writable {
        Some(store) => told(store, terminal),
        None => match open(&place, Access::Look, terminal) {
            Some(store) => store,
            None => return Ok(Exit::Failed),
        },
    };
    let verified = match runner::verify(&store, &mut |_, _| {}) {
        Ok(verified) => verified,
        Err(error) => return Ok(failed(&error, terminal)),
    };
    for (digest, labels) in &verified.corrupt {
        let of = if labels.is_empty() { String::new() } else { format!(" of {}", labels.join(", ")) };
        terminal.note(&format!("corrupt: {}{of}", digest.short()));
    }
    for record in &verified.broken_records {
        terminal.note(&format!("corrupt: the record {record}"));
    }
    for note in &verified.lost_notes {
        terminal.note(&format!("damaged, and of no harm: the note {note}"));
    }
    for task in &verified.incomplete {
        terminal.note(&format!("incomplete, computed again where it is read: {task}"));
    }
    for (task, place) in &verified.disputed {
        terminal.note(&format!(
            "disputed: {task} once gave other bytes, in `{}`; remove that folder to let the first result stand",
            place.display()
        ));
    }
    for path in &verified.left {
        terminal.note(&format!("cannot be moved to quarantine: `{}`", path.display()));
    }
    let verdict = match (verified.is_sound(), verified.left.is_empty()) {
        (true, _) => "sound",
        (false, true) => "corrupt files were moved to quarantine",
        (false, false) => "corrupt files were found and left where they are",
    };
    if arguments.json {
        terminal.json(serde_json::json!({
            "sound": verified.is_sound(),
            "tasks": verified.n_entries, "files": verified.n_blobs, "bytes": verified.n_bytes,
            "corrupt_files": verified.corrupt.iter().map(|(digest, tasks)| {
                serde_json::json!({ "digest": digest.to_string(), "tasks": tasks })
            }).collect::<Vec<_>>(),
            "corrupt_records": verified.broken_records,
            "lost_notes": verified.lost_notes,
            "incomplete_tasks": verified.incomplete,
            "disputed_tasks": verified.disputed.iter().map(|(task, _)| task).collect::<Vec<_>>(),
        }));
    } else {
        terminal.result(&format!(
            "{} tasks, {} files, {}: {verdict}\n",
            verified.n_entries,
            verified.n_blobs,
            bytes(verified.n_bytes)
        ));
    }
    Ok(match (verified.is_sound(), verified.disputed.is_empty()) {
        (false, _) => Exit::Corrupt,
        (true, false) => Exit::NonDeterministic,
        (true, true) => Exit::Done,
    })
}
