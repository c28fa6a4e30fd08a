//! `cache list`, `cache gc` and `verify`: the store from outside.

use std::path::{Path, PathBuf};

use super::Exit;
use super::arguments::{CacheVerb, StoreArguments};
use super::terminal::{RED, Terminal};
use crate::report::text::{Align, aligned, bytes};
use crate::runner;
use crate::store::{self, Access, Store};

/// Where the store of the project here (or the one that was named) is, and the project's root.
pub fn locate(arguments: &StoreArguments) -> (PathBuf, PathBuf) {
    let root = store::project_root(Path::new("."));
    (runner::store_dir(&root, arguments.cache_dir.as_deref()), root)
}

fn open(arguments: &StoreArguments, access: Access, terminal: &Terminal) -> Option<Store> {
    let (dir, root) = locate(arguments);
    match Store::open(&dir, &root, access) {
        Ok(store) => Some(store),
        Err(error) => {
            terminal.note(&format!("{} {error}", terminal.paint("error:", RED)));
            if let Some(help) = error.help() {
                terminal.note(&format!("  help: {help}"));
            }
            None
        }
    }
}

/// `cache`.
pub fn cache(verb: &CacheVerb, terminal: &Terminal) -> anyhow::Result<Exit> {
    match verb {
        CacheVerb::List(arguments) => {
            let Some(store) = open(arguments, Access::Look, terminal) else { return Ok(Exit::Failed) };
            let listed = runner::cache_list(&store);
            let rows: Vec<Vec<String>> =
                listed.iter().map(|entry| vec![bytes(entry.entry.size()), entry.entry.label.clone()]).collect();
            terminal.result(&aligned(&["size", "task"], &[Align::Right, Align::Left], &rows));
            Ok(Exit::Done)
        }
        CacheVerb::Gc { store: arguments, max_size } => {
            let Some(max_size) = parse_size(max_size) else {
                terminal.note(&format!(
                    "{} `--max-size` expects a size such as `500MiB` or `2GiB`, got `{max_size}`",
                    terminal.paint("error:", RED)
                ));
                return Ok(Exit::Usage);
            };
            let Some(mut store) = open(arguments, Access::Write, terminal) else { return Ok(Exit::Failed) };
            let cleaned = match runner::cache_gc(&mut store, max_size, false) {
                Ok(cleaned) => cleaned,
                Err(error) => {
                    terminal.note(&format!("{} {error}", terminal.paint("error:", RED)));
                    return Ok(Exit::Failed);
                }
            };
            terminal.result(&format!(
                "removed {} tasks and {} files ({}), kept {} tasks ({})\n",
                cleaned.removed_entries,
                cleaned.removed_blobs,
                bytes(cleaned.removed_bytes),
                cleaned.kept_entries,
                bytes(cleaned.kept_bytes)
            ));
            Ok(Exit::Done)
        }
    }
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

/// `verify`.
pub fn verify(arguments: &StoreArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(store) = open(arguments, Access::Look, terminal) else { return Ok(Exit::Failed) };
    let verified = match runner::verify(&store, &mut |_, _| {}) {
        Ok(verified) => verified,
        Err(error) => {
            terminal.note(&format!("{} {error}", terminal.paint("error:", RED)));
            return Ok(Exit::Failed);
        }
    };
    for (digest, labels) in &verified.corrupt {
        terminal.note(&format!("corrupt: {} of {}", digest.short(), labels.join(", ")));
    }
    for record in &verified.broken_records {
        terminal.note(&format!("corrupt: the record {record}"));
    }
    for task in &verified.incomplete {
        terminal.note(&format!("incomplete, will be computed again: {task}"));
    }
    let verdict = if verified.is_sound() { "sound" } else { "corrupt files were moved to quarantine" };
    terminal.result(&format!(
        "{} tasks, {} files, {}: {verdict}\n",
        verified.n_entries,
        verified.n_blobs,
        bytes(verified.n_bytes)
    ));
    Ok(if verified.is_sound() { Exit::Done } else { Exit::Corrupt })
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
