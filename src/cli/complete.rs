//! What a shell may put after what was typed: a shell's script asks this program, which looks at the manifest that the line
//! names (else at the only one here).
//!
//! The words go through `clap_complete`'s engine; a value has candidates by the name of its argument ([`with_candidates`]).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, Command};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};

use super::{arguments, manifest, schema};
use crate::data::catalogue;
use crate::runner;
use crate::store::{self, Access, Store};

/// Set by the scripts: the shell that asks.
const VARIABLE: &str = "CONVOY_COMPLETE";
/// What people call the program.
const NAME: &str = "convoy";

/// Answers a shell that asks what fits; whether one did.
///
/// # Errors
/// If it is no shell that is known, or stdout does not take the answer.
pub fn answer(words: &[OsString]) -> clap::error::Result<bool> {
    let line = words.to_vec();
    let factory = || with_candidates(&line);
    let folder = std::env::current_dir().ok();
    CompleteEnv::with_factory(factory).var(VARIABLE).bin(NAME).completer(NAME).try_complete(words, folder.as_deref())
}

/// The script by which `shell` asks.
///
/// # Errors
/// If it is no shell that is known.
pub fn script(shell: clap_complete::Shell) -> anyhow::Result<Vec<u8>> {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let known = shells.completer(&name).ok_or_else(|| anyhow::anyhow!("there is no script for `{name}`"))?;
    let mut script = Vec::new();
    known.write_registration(VARIABLE, NAME, NAME, NAME, &mut script)?;
    Ok(script)
}

/// The command line, with candidates for the values that the manifest, the catalogue, the store or the schema knows.
fn with_candidates(line: &[OsString]) -> Command {
    fn with(command: Command, manifest: Option<&PathBuf>, typed: usize) -> Command {
        let command = command.mut_args(|arg| {
            let manifest = manifest.cloned();
            let candidates: Box<dyn Fn() -> Vec<CompletionCandidate> + Send + Sync> = match arg.get_id().as_str() {
                "stage" | "to" | "force" => Box::new(move || plain(Outline::of(manifest.as_deref()).stages)),
                "profile" => Box::new(move || plain(Outline::of(manifest.as_deref()).profiles)),
                "sets" => Box::new(move || keys(&Outline::of(manifest.as_deref()), typed)),
                "name" | "data" => Box::new(|| plain(data_sets())),
                "keep" | "drop" | "task" => Box::new(|| plain(pipelines())),
                "what" => Box::new(|| {
                    let told =
                        |(path, meaning): (String, String)| CompletionCandidate::new(path).help(Some(meaning.into()));
                    schema::names().into_iter().map(told).collect()
                }),
                _ => return arg,
            };
            Arg::add(arg, ArgValueCandidates::new(candidates))
        });
        command.mut_subcommands(|command| with(command, manifest, typed))
    }
    let typed = line.iter().rev().find_map(|word| word.to_str().filter(|word| word.starts_with("stages.")));
    let named = line.iter().skip(1).map(PathBuf::from).find(|word| word.extension().is_some_and(|end| end == "toml"));
    let manifest = named.or_else(|| manifest::only_manifest(Path::new(".")).ok());
    with(arguments::command(), manifest.as_ref(), typed.map_or(0, |typed| typed.matches('.').count()))
}

fn plain(names: Vec<String>) -> Vec<CompletionCandidate> {
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// As much of a manifest as is needed here; it may be half written.
#[derive(Default)]
struct Outline {
    stages: Vec<String>,
    /// The kind of each of them.
    kinds: Vec<String>,
    profiles: Vec<String>,
}

impl Outline {
    fn of(manifest: Option<&Path>) -> Outline {
        let Some(text) = manifest.and_then(|path| std::fs::read_to_string(path).ok()) else {
            return Outline::default();
        };
        let names = |table: Option<&toml::Value>| -> Vec<String> {
            table.and_then(toml::Value::as_table).into_iter().flatten().map(|(name, _)| name.clone()).collect()
        };
        if let Ok(table) = text.parse::<toml::Table>() {
            let stages = names(table.get("stages"));
            let kind = |stage: &String| {
                let kind = table.get("stages").and_then(|stages| stages.get(stage)?.get("kind")?.as_str());
                kind.unwrap_or(stage).to_owned()
            };
            return Outline { kinds: stages.iter().map(kind).collect(), profiles: names(table.get("profile")), stages };
        }
        let headed = |word: &str| -> Vec<String> {
            let heads = text.lines().filter_map(|line| line.trim().strip_prefix(word)?.split([']', '.']).next());
            let mut names: Vec<String> = heads.map(|name| name.trim_matches(['"', ' ']).to_owned()).collect();
            names.dedup();
            names
        };
        let stages = headed("[stages.");
        Outline { kinds: stages.clone(), profiles: headed("[profile."), stages }
    }
}

/// What `--set` takes: the keys of every stage, each with the sign that its value follows; those below a choice once a word with
/// `typed` dots has come that far.
fn keys(outline: &Outline, typed: usize) -> Vec<CompletionCandidate> {
    let all = schema::settable();
    let deepest = if typed > 2 { typed - 1 } else { 1 };
    let mut found = Vec::new();
    for (stage, kind) in outline.stages.iter().zip(&outline.kinds) {
        for (path, meaning) in &all {
            let key = path.strip_prefix(&format!("{kind}.")).filter(|key| key.matches('.').count() < deepest.max(1));
            found.extend(key.map(|key| (format!("stages.{stage}.{key}="), meaning)));
        }
    }
    found.into_iter().map(|(key, meaning)| CompletionCandidate::new(key).help(Some(meaning.clone().into()))).collect()
}

/// The catalogue's names, and those of the project's own `datasets/`.
fn data_sets() -> Vec<String> {
    let own = store::project_root(Path::new(".")).join("datasets");
    let own = crate::data::reader::names_in(&own).unwrap_or_default();
    let own = own.iter().filter_map(|name| name.strip_suffix(".toml").map(str::to_owned));
    let mut names: Vec<String> = catalogue::embedded().iter().map(|entry| entry.name.clone()).chain(own).collect();
    names.sort();
    names.dedup();
    names
}

/// The pipelines that have tasks in the store here.
fn pipelines() -> Vec<String> {
    let root = store::project_root(Path::new("."));
    let dir = runner::store_dir(&root, std::env::var_os("CONVOY_CACHE").map(PathBuf::from).as_deref());
    let listed = Store::open(&dir, &root, Access::Look).ok().and_then(|store| runner::cache_list(&store).ok());
    let labels = listed.unwrap_or_default().into_iter().map(|listed| listed.entry.label);
    let mut names: Vec<String> = labels.filter_map(|label| Some(label.split([' ', ',']).next()?.to_owned())).collect();
    names.sort();
    names.dedup();
    names
}
