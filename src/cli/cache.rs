//! `cache`: what is stored, why it is kept, what may go, and how it is carried to another machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;

use super::Exit;
use super::arguments::{CacheVerb, ManifestArguments, StoreArguments, parse_size};
use super::locked;
use super::manifest;
use super::store::{failed, locate, open};
use super::terminal::Terminal;
use crate::files;
use crate::manifest::{Manifest, Overrides, shown_path};
use crate::report;
use crate::report::text::{Align, aligned, bytes};
use crate::runner::{self, Cleaning, Graph, LockFile, Named, RunError, Why, compared_lock, variant_name};
use crate::stages::{Part, Places};
use crate::store::{self, Access, Cleaned, Digest, Entry, Listed, PackError, Store};

/// `cache show` shows so many records at most.
const MOST_SHOWN: usize = 20;

/// `cache`.
pub fn cache(verb: &CacheVerb, terminal: &Terminal) -> anyhow::Result<Exit> {
    match verb {
        CacheVerb::List { store, json } => Ok(list(store, *json, terminal)),
        CacheVerb::Show { task, store, json } => Ok(show(store, task, *json, terminal)),
        CacheVerb::Path { task, file, store } => Ok(path(store, task, file.as_deref(), terminal)),
        CacheVerb::Export { task, dir, store } => export(store, task, dir, terminal),
        CacheVerb::Gc { store, max_size, keep, drop, dry_run, json } => {
            let Some(max_size) = parse_size(max_size) else {
                let message = format!("`--max-size` expects a size such as `500MiB` or `2GiB`, got `{max_size}`");
                terminal.fault(&message, None);
                return Ok(Exit::Usage);
            };
            gc(
                store,
                keep,
                Cleaning { drop: drop.clone(), max_size, is_dry: *dry_run, ..Cleaning::default() },
                *json,
                terminal,
            )
        }
        CacheVerb::Key { manifest, json } => key(manifest, *json, terminal),
        CacheVerb::Pack { file, manifests, records, store, json } => {
            Ok(pack(store, file, manifests, *records, *json, terminal))
        }
        CacheVerb::Unpack { file, store, json } => Ok(unpack(store, file, *json, terminal)),
    }
}

/// What there is, or the exit of a verb that cannot know.
fn listed(store: &Store, terminal: &Terminal) -> Result<Vec<Listed>, Exit> {
    runner::cache_list(store).map_err(|error| failed(&error, terminal))
}

/// The tasks that a word names: by their fingerprint, or by the first words of what they are called.
fn named<'l>(word: &str, listed: &'l [Listed]) -> Vec<&'l Listed> {
    let is_meant = |listed: &&Listed| {
        let rest = listed.entry.label.strip_prefix(word);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ',']))
            || word.len() >= 8 && listed.entry.fingerprint.to_string().starts_with(word)
    };
    listed.iter().filter(is_meant).collect()
}

/// As [`named`]; that there is none is told.
fn meant<'l>(word: &str, listed: &'l [Listed], terminal: &Terminal) -> Result<Vec<&'l Listed>, Exit> {
    let found = named(word, listed);
    if found.is_empty() {
        let help = "`convoy cache list` shows what there is";
        terminal.fault(&format!("no task in the store is called `{word}`"), Some(help));
        return Err(Exit::Usage);
    }
    Ok(found)
}

/// The one task that is meant.
fn the_one<'l>(word: &str, listed: &'l [Listed], terminal: &Terminal) -> Result<&'l Listed, Exit> {
    match meant(word, listed, terminal)?[..] {
        [one] => Ok(one),
        ref several => {
            let labels: Vec<String> = several
                .iter()
                .take(4)
                .map(|listed| format!("`{}` ({})", listed.entry.label, listed.entry.fingerprint.short()))
                .collect();
            let more = if several.len() > labels.len() { ", …" } else { "" };
            let message = format!("`{word}` names {} tasks: {}{more}", several.len(), labels.join(", "));
            terminal.fault(&message, Some("name one by its fingerprint"));
            Err(Exit::Usage)
        }
    }
}

/// `today`, `1 day ago`, `12 days ago`.
fn ago(at: SystemTime) -> String {
    days_ago(days_since(at))
}

fn days_since(at: SystemTime) -> u64 {
    SystemTime::now().duration_since(at).map_or(0, |age| age.as_secs() / (24 * 3600))
}

fn days_ago(days: u64) -> String {
    match days {
        0 => "today".to_owned(),
        1 => "1 day ago".to_owned(),
        n => format!("{n} days ago"),
    }
}

fn pipeline(listed: &Listed) -> &str {
    listed.entry.label.split([' ', ',']).next().unwrap_or_default()
}

/// The distinct files of some tasks that are here: how many, and their bytes.
fn room<'e>(store: &Store, entries: impl Iterator<Item = &'e Entry>) -> (usize, u64) {
    let outputs: BTreeMap<Digest, &store::Output> =
        entries.flat_map(|entry| entry.outputs.iter().map(|output| (output.digest, output))).collect();
    let here = outputs.values().filter(|output| store.has_blob(output).unwrap_or(false));
    here.fold((0, 0), |(n, size), output| (n + 1, size + output.size))
}

fn list(arguments: &StoreArguments, is_json: bool, terminal: &Terminal) -> Exit {
    let Some(store) = open(arguments, Access::Look, terminal) else { return Exit::Failed };
    let mut listed = match listed(&store, terminal) {
        Ok(listed) => listed,
        Err(exit) => return exit,
    };
    // Tasks of one run end in any order: pipelines by when they were used last, the tasks of each by name.
    let mut latest: BTreeMap<String, SystemTime> = BTreeMap::new();
    for item in &listed {
        let at = latest.entry(pipeline(item).to_owned()).or_insert(item.used);
        *at = (*at).max(item.used);
    }
    listed.sort_by(|a, b| latest[pipeline(b)].cmp(&latest[pipeline(a)]));
    let (n_files, size) = room(&store, listed.iter().map(|listed| &listed.entry));
    if is_json {
        let tasks = listed.iter().map(|listed| {
            let entry = &listed.entry;
            json!({
                "task": entry.label, "fingerprint": entry.fingerprint.to_string(), "bytes": entry.size(),
                "unused_days": days_since(listed.used), "absent_files": listed.absent,
            })
        });
        terminal.json(json!({ "tasks": tasks.collect::<Vec<_>>(), "files": n_files, "bytes": size }));
        return Exit::Done;
    }
    if listed.is_empty() {
        terminal.result("nothing is stored yet\n");
        return Exit::Done;
    }
    let row = |listed: &Listed| {
        let size = match listed.absent {
            0 => bytes(listed.entry.size()),
            n if n == listed.entry.outputs.len() => "record".to_owned(),
            _ => "in part".to_owned(),
        };
        vec![listed.entry.fingerprint.short(), size, ago(listed.used), listed.entry.label.clone()]
    };
    let rows: Vec<Vec<String>> = listed.iter().map(row).collect();
    let aligns = [Align::Left, Align::Right, Align::Left, Align::Left];
    let mut text = aligned(&["key", "size", "used", "task"], &aligns, &rows);
    let n_absent = listed.iter().filter(|listed| listed.absent > 0).count();
    let recorded =
        if n_absent > 0 { format!(", {n_absent} of them without all of their files") } else { String::new() };
    let _ = writeln!(text, "{} tasks{recorded}; {n_files} files, {}", listed.len(), bytes(size));
    terminal.result(&text);
    Exit::Done
}

fn show(arguments: &StoreArguments, word: &str, is_json: bool, terminal: &Terminal) -> Exit {
    let Some(store) = open(arguments, Access::Look, terminal) else { return Exit::Failed };
    let listed = match listed(&store, terminal) {
        Ok(listed) => listed,
        Err(exit) => return exit,
    };
    let found = match meant(word, &listed, terminal) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let reasons = match runner::named_by_runs_and_locks(&store) {
        Ok(reasons) => reasons,
        Err(error) => return failed(&RunError::Store(error), terminal),
    };
    if !is_json && found.len() > MOST_SHOWN {
        let message = format!("`{word}` names {} tasks, more than the {MOST_SHOWN} that are shown", found.len());
        terminal.fault(&message, Some("name fewer, or use `--json`"));
        return Exit::Usage;
    }
    if is_json {
        let tasks: Vec<_> = found.iter().map(|listed| show_json(&store, listed, &reasons)).collect();
        terminal.json(json!({ "tasks": tasks }));
    } else {
        let texts: Vec<String> = found.iter().map(|listed| show_text(&store, listed, &reasons)).collect();
        terminal.result(&texts.join("\n"));
    }
    Exit::Done
}

/// Who names a task, for people.
fn why(why: &Why) -> String {
    match why {
        Why::Lock(path) => format!("lock file `{}`", shown_path(path)),
        Why::Run { pipeline, days, has_sets } => {
            let room = if *has_sets { ", while there is room" } else { "" };
            format!("run of `{pipeline}`, {}{room}", days_ago(*days))
        }
        Why::Asked(word) => format!("`--keep {word}`"),
    }
}

fn show_text(store: &Store, listed: &Listed, reasons: &Named) -> String {
    let entry = &listed.entry;
    let mut text = format!("{}\n  fingerprint  {}\n", entry.label, entry.fingerprint);
    let _ = writeln!(text, "  used         {}", ago(listed.used));
    let of = |name: &str| format!("  {name:<11}  ");
    let mut lines = |name: &str, values: Vec<String>| {
        for (i, value) in values.iter().enumerate() {
            let head = if i == 0 { of(name) } else { of("") };
            let _ = writeln!(text, "{head}{value}");
        }
    };
    if let Some(task) = store.task(&entry.fingerprint) {
        lines("kind", vec![format!("{}, {}", task.kind, task.part)]);
        lines("seed", task.seed.iter().map(ToString::to_string).collect());
        lines("keys", task.keys.iter().map(|(key, value)| format!("{key} = {value}")).collect());
        let rooms = task.rooms.iter().map(|(room, revision)| format!("{room} {revision}"));
        lines(
            "revisions",
            Some(rooms.collect::<Vec<_>>().join(", ")).filter(|rooms| !rooms.is_empty()).into_iter().collect(),
        );
        lines(
            "sources",
            task.sources.iter().map(|source| format!("{} {}", source.digest.short(), source.role)).collect(),
        );
        let inputs = task.inputs.iter().flat_map(|input| {
            input
                .files
                .iter()
                .map(move |(file, digest)| format!("{} {}, {}: {file}", digest.short(), input.output, input.part))
        });
        lines("inputs", inputs.collect());
    }
    let outputs: Vec<Vec<String>> = entry
        .outputs
        .iter()
        .map(|output| {
            let absent = if store.has_blob(output).unwrap_or(false) { "" } else { " (not here)" };
            vec![output.digest.short(), bytes(output.size), format!("{}{absent}", output.name)]
        })
        .collect();
    let table = aligned(&["", "", ""], &[Align::Left, Align::Right, Align::Left], &outputs);
    lines("outputs", table.lines().skip(1).map(str::to_owned).collect());
    lines("warnings", entry.warnings.clone());
    let by = reasons.get(&entry.fingerprint).map(|by| by.iter().map(why).collect()).unwrap_or_default();
    lines("named by", if Vec::is_empty(&by) { vec!["nobody".to_owned()] } else { by });
    text
}

fn show_json(store: &Store, listed: &Listed, reasons: &Named) -> serde_json::Value {
    let entry = &listed.entry;
    let task = store.task(&entry.fingerprint).unwrap_or_default();
    let inputs = task.inputs.iter().flat_map(|input| {
        input.files.iter().map(move |(file, digest)| {
            json!({ "output": input.output, "part": input.part, "file": file, "digest": digest.to_string() })
        })
    });
    let outputs = entry.outputs.iter().map(|output| {
        json!({
            "file": output.name, "bytes": output.size, "digest": output.digest.to_string(),
            "here": store.has_blob(output).unwrap_or(false),
        })
    });
    let sources = task.sources.iter().map(|s| json!({ "role": s.role, "digest": s.digest.to_string() }));
    json!({
        "task": entry.label, "fingerprint": entry.fingerprint.to_string(), "kind": task.kind, "part": task.part,
        "seed": task.seed, "keys": task.keys.iter().cloned().collect::<BTreeMap<_, _>>(),
        "revisions": task.rooms.iter().cloned().collect::<BTreeMap<_, _>>(),
        "sources": sources.collect::<Vec<_>>(), "inputs": inputs.collect::<Vec<_>>(),
        "outputs": outputs.collect::<Vec<_>>(), "warnings": entry.warnings,
        "named_by": reasons.get(&entry.fingerprint).map(|by| by.iter().map(why).collect::<Vec<_>>()).unwrap_or_default(),
    })
}

fn path(arguments: &StoreArguments, word: &str, file: Option<&str>, terminal: &Terminal) -> Exit {
    let Some(store) = open(arguments, Access::Look, terminal) else { return Exit::Failed };
    let listed = match listed(&store, terminal) {
        Ok(listed) => listed,
        Err(exit) => return exit,
    };
    let entry = match the_one(word, &listed, terminal) {
        Ok(one) => &one.entry,
        Err(exit) => return exit,
    };
    let Some(file) = file else {
        terminal.result(&format!("{}\n", shown_path(&store.place_of_record(&entry.fingerprint))));
        return Exit::Done;
    };
    let Some(output) = entry.outputs.iter().find(|output| output.name == file) else {
        let names: Vec<&str> = entry.outputs.iter().map(|output| output.name.as_str()).collect();
        let help = format!("its files are `{}`", names.join("`, `"));
        terminal.fault(&format!("`{}` has no file `{file}`", entry.label), Some(&help));
        return Exit::Usage;
    };
    match store.has_blob(output) {
        Ok(true) => {
            terminal.result(&format!("{}\n", shown_path(&store.place_of_blob(&output.digest))));
            Exit::Done
        }
        Ok(false) => {
            let help = "`convoy run --all-files` computes it again";
            terminal.fault(&format!("`{file}` of `{}` is known by its record only", entry.label), Some(help));
            Exit::Failed
        }
        Err(error) => failed(&RunError::Store(error), terminal),
    }
}

fn export(arguments: &StoreArguments, word: &str, dir: &Path, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(store) = open(arguments, Access::Look, terminal) else { return Ok(Exit::Failed) };
    let listed = match listed(&store, terminal) {
        Ok(listed) => listed,
        Err(exit) => return Ok(exit),
    };
    let entry = match the_one(word, &listed, terminal) {
        Ok(one) => &one.entry,
        Err(exit) => return Ok(exit),
    };
    if let Ok(mut there) = std::fs::read_dir(dir)
        && there.next().is_some()
    {
        terminal.fault(&format!("`{}` is not empty", shown_path(dir)), Some("name a folder that is not there yet"));
        return Ok(Exit::Usage);
    }
    let is_plain = |name: &str| matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    if let Some(odd) = entry.outputs.iter().find(|output| !is_plain(&output.name)) {
        terminal.fault(&format!("`{}` is no name of a file", odd.name.escape_debug()), None);
        return Ok(Exit::Corrupt);
    }
    let files = match store.open_artifact(entry) {
        Ok(files) => files,
        Err(error) => {
            let help = match &error {
                store::Error::Io { .. } => Some("`convoy run --all-files` computes what is known by its record only"),
                _ => None,
            };
            terminal.fault(&format!("`{}`: {error}", entry.label), help);
            return Ok(Exit::Failed);
        }
    };
    for (name, content) in &files.0 {
        files::replace(&dir.join(name), content, false)?;
    }
    terminal.result(&format!("{} files, {}, in {}\n", files.0.len(), bytes(entry.size()), shown_path(dir)));
    Ok(Exit::Done)
}

fn gc(
    arguments: &StoreArguments,
    keep: &[String],
    mut cleaning: Cleaning,
    is_json: bool,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    if !locate(arguments).0.exists() {
        if is_json {
            terminal.json(cleaned_json(&Cleaned::default(), &[], cleaning.is_dry));
        } else {
            terminal.result("there is no store, and nothing to remove\n");
        }
        return Ok(Exit::Done);
    }
    let Some(mut store) = open(arguments, Access::Write, terminal) else { return Ok(Exit::Failed) };
    let listed = match listed(&store, terminal) {
        Ok(listed) => listed,
        Err(exit) => return Ok(exit),
    };
    for word in keep {
        match meant(word, &listed, terminal) {
            Ok(meant) => {
                cleaning.keep.insert(word.clone(), meant.iter().map(|listed| listed.entry.fingerprint).collect())
            }
            Err(exit) => return Ok(exit),
        };
    }
    for word in &cleaning.drop {
        let is_known = |listed: &Listed| pipeline(listed).split('@').next() == Some(word) || pipeline(listed) == word;
        if !listed.iter().any(is_known) {
            let help = "`convoy cache list` shows what there is";
            terminal.fault(&format!("no pipeline in the store is called `{word}`"), Some(help));
            return Ok(Exit::Usage);
        }
    }
    let (cleaned, reasons) = match runner::cache_gc(&mut store, &cleaning) {
        Ok(cleaned) => cleaned,
        Err(error) => return Ok(failed(&error, terminal)),
    };
    let kept: Vec<&Entry> = listed
        .iter()
        .map(|listed| &listed.entry)
        .filter(|entry| !cleaned.removed.contains(&entry.fingerprint))
        .collect();
    let groups = groups(&store, &kept, &reasons, cleaning.max_size);
    for root in store.roots()? {
        if root.is_gone()? {
            terminal.note(&format!(
                "the project `{}` is gone; what only its lock files named may go, and it is forgotten 30 days after its last run",
                root.place.display()
            ));
        }
    }
    if is_json {
        terminal.json(cleaned_json(&cleaned, &groups, cleaning.is_dry));
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    if !groups.is_empty() {
        let rows: Vec<Vec<String>> =
            groups.iter().map(|g| vec![g.tasks.to_string(), bytes(g.size), g.why.clone()]).collect();
        let aligns = [Align::Right, Align::Right, Align::Left];
        text.push_str(&aligned(&["tasks", "size", "kept because of"], &aligns, &rows));
    }
    let _ = writeln!(
        text,
        "{} {} tasks and {} files ({}), kept {} tasks ({})",
        if cleaning.is_dry { "would remove" } else { "removed" },
        cleaned.removed_entries,
        cleaned.removed_blobs,
        bytes(cleaned.removed_bytes),
        cleaned.kept_entries,
        bytes(cleaned.kept_bytes)
    );
    terminal.result(&text);
    let only_runs = |by: &BTreeSet<Why>| by.iter().all(|why| matches!(why, Why::Run { .. }));
    let pipelines: BTreeSet<&str> = kept
        .iter()
        .filter_map(|entry| reasons.get(&entry.fingerprint).filter(|by| only_runs(by)))
        .flatten()
        .filter_map(|why| if let Why::Run { pipeline, .. } = why { Some(pipeline.as_str()) } else { None })
        .collect();
    if let Some(pipeline) = pipelines.first() {
        terminal.note(&format!("  help: `convoy cache gc --drop {pipeline}` lets go of what only its runs hold"));
    }
    Ok(Exit::Done)
}

/// Tasks that are kept for one reason.
struct Group {
    why: String,
    tasks: usize,
    size: u64,
}

/// What is kept, by reason: a task that has several counts in each.
fn groups(store: &Store, kept: &[&Entry], reasons: &Named, max_size: u64) -> Vec<Group> {
    let mut by: BTreeMap<Option<&Why>, Vec<&Entry>> = BTreeMap::new();
    for entry in kept {
        match reasons.get(&entry.fingerprint) {
            None => by.entry(None).or_default().push(entry),
            Some(whys) => whys.iter().for_each(|why| by.entry(Some(why)).or_default().push(entry)),
        }
    }
    let group = |(reason, entries): (&Option<&Why>, &Vec<&Entry>)| Group {
        why: match reason {
            Some(reason) => why(reason),
            None => format!("room: `--max-size` is {}", bytes(max_size)),
        },
        tasks: entries.len(),
        size: room(store, entries.iter().copied()).1,
    };
    // What has no other reason stands last.
    let (none, named): (Vec<_>, Vec<_>) = by.iter().partition(|(reason, _)| reason.is_none());
    named.into_iter().chain(none).map(group).collect()
}

fn cleaned_json(cleaned: &Cleaned, groups: &[Group], is_dry: bool) -> serde_json::Value {
    let kept = groups.iter().map(|g| json!({ "why": g.why, "tasks": g.tasks, "bytes": g.size }));
    json!({
        "dry_run": is_dry,
        "removed_tasks": cleaned.removed_entries,
        "removed_files": cleaned.removed_blobs,
        "removed_bytes": cleaned.removed_bytes,
        "kept_tasks": cleaned.kept_entries,
        "kept_bytes": cleaned.kept_bytes,
        "kept": kept.collect::<Vec<_>>(),
    })
}

/// `key=…` and `restore-prefix=…`: by what a manifest computes, with defaults written out, and by what its lock file says.
fn key(arguments: &ManifestArguments, is_json: bool, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(manifest) = manifest::load_without_warnings(arguments, terminal)? else { return Ok(Exit::Usage) };
    let graph = Graph::of(&manifest, Places::default());
    let mut text = LockFile::of_graph(&graph).render();
    let path = compared_lock(&manifest);
    if path.exists() {
        match locked::read(&path) {
            Ok(lock) => {
                for (task, locked) in &lock.tasks {
                    let _ = writeln!(text, "{task} {} {}", locked.key, locked.output);
                }
            }
            Err((message, help)) => {
                terminal.fault(&message, Some(&help));
                return Ok(Exit::Failed);
            }
        }
    }
    let prefix = format!("convoy-{}-{}-", store::FORMAT, variant_name(&manifest).replace('@', "-"));
    let key = format!("{prefix}{}", &Digest::of(text.as_bytes()).to_string()[..16]);
    if is_json {
        terminal.json(json!({ "key": key, "restore_prefix": prefix }));
    } else {
        terminal.result(&format!("key={key}\nrestore-prefix={prefix}\n"));
    }
    Ok(Exit::Done)
}

/// The lock files that are meant; what is wrong was told.
fn lock_paths(root: &Path, manifests: &[PathBuf], terminal: &Terminal) -> Result<Vec<PathBuf>, Exit> {
    if manifests.is_empty() {
        return runner::lock_files(root).map_err(|error| failed(&RunError::Store(error), terminal));
    }
    let of = |path: &PathBuf| match Manifest::load(path, &Overrides::default()) {
        Ok(manifest) => Ok(compared_lock(&manifest)),
        Err(diagnostics) => {
            manifest::print(&diagnostics, terminal);
            Err(Exit::Usage)
        }
    };
    manifests.iter().map(of).collect()
}

fn pack(
    arguments: &StoreArguments,
    file: &Path,
    manifests: &[PathBuf],
    records_only: bool,
    is_json: bool,
    terminal: &Terminal,
) -> Exit {
    let (_, root) = locate(arguments);
    let paths = match lock_paths(&root, manifests, terminal) {
        Ok(paths) => paths,
        Err(exit) => return exit,
    };
    let Some(store) = open(arguments, Access::Look, terminal) else { return Exit::Failed };
    let (mut entries, mut trials) = (BTreeMap::new(), BTreeSet::new());
    let mut missing = 0;
    for path in &paths {
        let lock = match locked::read(path) {
            Ok(lock) => lock,
            Err((message, help)) => {
                terminal.fault(&message, Some(&help));
                return Exit::Failed;
            }
        };
        for (name, task) in &lock.tasks {
            match store.read_entry(&task.key) {
                Ok(Some(entry)) if entry.artifact() == task.output => {
                    // A task may be a trial's and the manifest's own.
                    if !runner::is_of_trial(name.split('/').next().unwrap_or_default()) {
                        trials.remove(&task.key);
                    } else if !entries.contains_key(&task.key) {
                        trials.insert(task.key);
                    }
                    entries.insert(task.key, entry);
                }
                Ok(_) => missing += 1,
                Err(error) => return failed(&RunError::Store(error), terminal),
            }
        }
    }
    if entries.is_empty() {
        let message = match paths.is_empty() {
            true => "there is no lock file here that says what to pack".to_owned(),
            false => format!("none of the {missing} tasks that the lock files name is in the store"),
        };
        terminal.fault(&message, Some("`convoy run` computes them and writes the lock file"));
        return Exit::Failed;
    }
    let kinds: BTreeMap<Digest, (String, Part)> = entries
        .keys()
        .filter_map(|key| {
            let task = store.task(key)?;
            Some((*key, (task.kind, task.part.parse().ok()?)))
        })
        .collect();
    let wanted = |entry: &Entry, output: &store::Output| {
        let key = &entry.fingerprint;
        let is_trial = trials.contains(key);
        !records_only && kinds.get(key).is_some_and(|(kind, part)| report::reads(kind, *part, is_trial, &output.name))
    };
    let all: Vec<Entry> = entries.into_values().collect();
    let packed = match store.pack(file, &all, &wanted) {
        Ok(packed) => packed,
        Err(error) => return failed(&RunError::Store(error), terminal),
    };
    if missing > 0 {
        terminal.warning(&format!("{missing} tasks that the lock files name are not in the store: they are left out"));
    }
    if packed.absent > 0 {
        terminal
            .warning(&format!("{} files that reports are made from are not here: they are left out", packed.absent));
    }
    if is_json {
        terminal.json(json!({
            "tasks": packed.records, "files": packed.blobs, "bytes": packed.bytes,
            "missing_tasks": missing, "missing_files": packed.absent,
        }));
    } else {
        let (records, blobs, size) = (packed.records, packed.blobs, bytes(packed.bytes));
        terminal.result(&format!("{}: {records} tasks and {blobs} files, {size}\n", shown_path(file)));
    }
    Exit::Done
}

fn unpack(arguments: &StoreArguments, file: &Path, is_json: bool, terminal: &Terminal) -> Exit {
    let (_, root) = locate(arguments);
    let mut witnesses: BTreeMap<Digest, (Digest, String)> = BTreeMap::new();
    let locks = runner::lock_files(&root).and_then(|paths| {
        paths.into_iter().map(|path| Ok((runner::read_lock(&path)?, path))).collect::<Result<Vec<_>, store::Error>>()
    });
    match locks {
        Ok(locks) => {
            for (lock, path) in locks {
                for task in lock.into_iter().flat_map(|lock| lock.tasks.into_values()) {
                    witnesses.insert(task.key, (task.output, shown_path(&path)));
                }
            }
        }
        Err(error) => return failed(&RunError::Store(error), terminal),
    }
    let Some(store) = open(arguments, Access::Write, terminal) else { return Exit::Failed };
    let unpacked = match store.unpack(file, &|key| witnesses.get(key).cloned()) {
        Ok(unpacked) => unpacked,
        Err(error) => {
            let (help, exit) = match &error {
                PackError::Refused { .. } => (Some("nothing was taken from it".to_owned()), Exit::Corrupt),
                PackError::Contradicts { .. } => (
                    Some("nothing was taken from it; `convoy verify` tells what this machine gives".to_owned()),
                    Exit::NonDeterministic,
                ),
                PackError::Store(error) => (error.help(), Exit::Failed),
            };
            terminal.fault(&error.to_string(), help.as_deref());
            return exit;
        }
    };
    store.save_stamps();
    if is_json {
        terminal.json(json!({
            "tasks": unpacked.records, "new_tasks": unpacked.new_records,
            "files": unpacked.blobs, "new_files": unpacked.new_blobs,
        }));
    } else {
        terminal.result(&format!(
            "{} tasks, {} of them new, and {} files, {} of them new\n",
            unpacked.records, unpacked.new_records, unpacked.blobs, unpacked.new_blobs
        ));
    }
    Exit::Done
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
