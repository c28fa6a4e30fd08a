//! `cache list`, `cache gc` and `verify`: the store from outside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Exit;
use super::arguments::{CacheVerb, StoreArguments, VerifyArguments};
use super::terminal::Terminal;
use crate::report::text::{Align, aligned, bytes};
use crate::runner::{self, RunError};
use crate::store::{self, Access, Cleaned, Digest, Listed, Store};

/// Where the store of the project here (or the one that was named) is, and the project's root.
pub fn locate(arguments: &StoreArguments) -> (PathBuf, PathBuf) {
    let root = store::project_root(Path::new("."));
    (runner::store_dir(&root, arguments.cache_dir.as_deref()), root)
}

fn open(arguments: &StoreArguments, access: Access, terminal: &Terminal) -> Option<Store> {
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

fn failed(error: &RunError, terminal: &Terminal) -> Exit {
    let help = if let RunError::Store(error) = error { error.help() } else { None };
    terminal.fault(&error.to_string(), help.as_deref());
    Exit::Failed
}

/// The tasks that a word of `--keep` names: by their fingerprint, or by the first words of what they are called.
fn named(word: &str, listed: &[Listed]) -> Vec<Digest> {
    let is_meant = |listed: &&Listed| {
        let rest = listed.entry.label.strip_prefix(word);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            || word.len() >= 8 && listed.entry.fingerprint.to_string().starts_with(word)
    };
    listed.iter().filter(is_meant).map(|listed| listed.entry.fingerprint).collect()
}

/// `cache`.
pub fn cache(verb: &CacheVerb, terminal: &Terminal) -> anyhow::Result<Exit> {
    match verb {
        CacheVerb::List { store: arguments, json } => {
            let Some(store) = open(arguments, Access::Look, terminal) else { return Ok(Exit::Failed) };
            let listed = match runner::cache_list(&store) {
                Ok(listed) => listed,
                Err(error) => return Ok(failed(&error, terminal)),
            };
            if *json {
                let tasks = listed.iter().map(|listed| {
                    let entry = &listed.entry;
                    let fingerprint = entry.fingerprint.to_string();
                    serde_json::json!({ "task": entry.label, "fingerprint": fingerprint, "bytes": entry.size() })
                });
                terminal.json(serde_json::json!({ "tasks": tasks.collect::<Vec<_>>() }));
                return Ok(Exit::Done);
            }
            let rows: Vec<Vec<String>> =
                listed.iter().map(|entry| vec![bytes(entry.entry.size()), entry.entry.label.clone()]).collect();
            terminal.result(&match rows.is_empty() {
                true => "nothing is stored yet\n".to_owned(),
                false => aligned(&["size", "task"], &[Align::Right, Align::Left], &rows),
            });
            Ok(Exit::Done)
        }
        CacheVerb::Gc { store: arguments, max_size, keep, dry_run, json } => {
            let Some(max_size) = parse_size(max_size) else {
                let message = format!("`--max-size` expects a size such as `500MiB` or `2GiB`, got `{max_size}`");
                terminal.fault(&message, None);
                return Ok(Exit::Usage);
            };
            gc(arguments, keep, max_size, *dry_run, *json, terminal)
        }
    }
}

fn gc(
    arguments: &StoreArguments,
    keep: &[String],
    max_size: u64,
    is_dry: bool,
    is_json: bool,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    if !locate(arguments).0.exists() {
        if is_json {
            terminal.json(cleaned_json(&Cleaned::default(), is_dry));
        } else {
            terminal.result("there is no store, and nothing to remove\n");
        }
        return Ok(Exit::Done);
    }
    let Some(mut store) = open(arguments, Access::Write, terminal) else { return Ok(Exit::Failed) };
    let mut kept = BTreeSet::new();
    if !keep.is_empty() {
        let listed = match runner::cache_list(&store) {
            Ok(listed) => listed,
            Err(error) => return Ok(failed(&error, terminal)),
        };
        for word in keep {
            let meant = named(word, &listed);
            if meant.is_empty() {
                let help = "`convoy cache list` shows what there is";
                terminal.fault(&format!("no task in the store is called `{word}`"), Some(help));
                return Ok(Exit::Usage);
            }
            kept.extend(meant);
        }
    }
    let cleaned = match runner::cache_gc(&mut store, &kept, max_size, is_dry) {
        Ok(cleaned) => cleaned,
        Err(error) => return Ok(failed(&error, terminal)),
    };
    for root in store.roots()? {
        if root.is_gone()? {
            terminal.note(&format!(
                "the project `{}` is gone; what only its lock files named may go, and it is forgotten 30 days after its last run",
                root.place.display()
            ));
        }
    }
    if is_json {
        terminal.json(cleaned_json(&cleaned, is_dry));
        return Ok(Exit::Done);
    }
    terminal.result(&format!(
        "{} {} tasks and {} files ({}), kept {} tasks ({})\n",
        if is_dry { "would remove" } else { "removed" },
        cleaned.removed_entries,
        cleaned.removed_blobs,
        bytes(cleaned.removed_bytes),
        cleaned.kept_entries,
        bytes(cleaned.kept_bytes)
    ));
    Ok(Exit::Done)
}

fn cleaned_json(cleaned: &Cleaned, is_dry: bool) -> serde_json::Value {
    serde_json::json!({
        "dry_run": is_dry,
        "removed_tasks": cleaned.removed_entries,
        "removed_files": cleaned.removed_blobs,
        "removed_bytes": cleaned.removed_bytes,
        "kept_tasks": cleaned.kept_entries,
        "kept_bytes": cleaned.kept_bytes,
    })
}

/// `500MiB`, `2GiB`, `1000000`.
fn parse_size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let unit: u64 = match text[split..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
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
        terminal.note(&format!("incomplete, will be computed again: {task}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(parse_size("0"), Some(0));
        assert_eq!(parse_size("500MiB"), Some(500 << 20));
        assert_eq!(parse_size("2 GB"), Some(2_000_000_000));
        assert_eq!(parse_size("many"), None);
        assert_eq!(parse_size("99999999999TiB"), None);
    }
}
