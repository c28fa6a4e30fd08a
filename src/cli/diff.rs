//! `diff`: what changed between two revisions, lock files, folders of reports, tables of metrics or runs: keys, data, metrics,
//! predictions, gates. What a side does not know is told as such.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::arguments::{DiffArguments, ManifestArguments};
use super::changes::{self, Changes, GateChange, Key};
use super::git::{FETCH, Git};
use super::history::{self, RUN, RunRecord};
use super::terminal::Terminal;
use super::{Exit, locked, manifest};
use crate::artifact::Files;
use crate::artifact::evaluation::{GateResult, METRICS, PREDICTIONS};
use crate::config::Span;
use crate::manifest::{Manifest, shown_path};
use crate::report::changed_data::{self, DataChange};
use crate::report::compare::{self, MetricChange, Results};
use crate::runner::{self, Difference, Graph, LockFile, changed_keys, compared_lock, locked_dataset, locked_results};
use crate::stages::KINDS;
use crate::store::{self, Access, Store};

/// The largest report that is read, in bytes.
const MOST: u64 = 4 << 30;

/// One of the two sides.
struct Side {
    /// What it is called.
    shown: String,
    /// Keys, sources, tasks; without tasks of what is not known. `None`: nothing of it is known.
    lock: Option<LockFile>,
    /// Its results; `None`: not known.
    results: Option<Results>,
    /// Its data sets, by the stages that read them; `None` of one that is not known.
    data: Vec<(String, Option<Files>)>,
    /// Why something is not known.
    notes: Vec<String>,
    /// Its manifest, where that is the one that lies here.
    manifest: Option<(Manifest, Graph)>,
}

/// `diff`.
pub fn diff(arguments: &DiffArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let metric = arguments.fail_on_worse.as_deref();
    if let Some(name) = metric.filter(|name| crate::data::metrics::find(name).is_none()) {
        let help = crate::data::metrics::suggest(name);
        return Ok(refuse(&format!("unknown metric `{name}`"), &help, terminal));
    }
    let (a, b) = match sides(arguments, terminal) {
        Ok(Some(sides)) => sides,
        Ok(None) => return Ok(Exit::Usage),
        Err((message, help)) => return Ok(refuse(&message, &help, terminal)),
    };
    let mut changes = between(&a, &b);
    let exit = match metric.map(|metric| worse(&changes, [&a, &b], metric)) {
        None => Exit::Done,
        Some((lines, has_failed)) => {
            changes.worse = Some((lines, has_failed));
            if has_failed { Exit::Gate } else { Exit::Done }
        }
    };
    if arguments.json {
        terminal.json(changes::json(&changes, exit));
    } else if arguments.md {
        terminal.result(&changes::markdown(&changes));
    } else {
        terminal.result(&changes::text(&changes));
    }
    if let Some((lines, true)) = &changes.worse {
        lines.iter().for_each(|line| terminal.fault(line, None));
    }
    Ok(exit)
}

fn refuse(message: &str, help: &str, terminal: &Terminal) -> Exit {
    terminal.fault(message, Some(help));
    Exit::Usage
}

/// What went wrong, and what helps.
type Refusal = (String, String);

/// The two sides that are asked for; `None` after a wrong manifest has been told.
fn sides(arguments: &DiffArguments, terminal: &Terminal) -> Result<Option<(Side, Side)>, Refusal> {
    let open = |dir: &Path| -> Option<Store> {
        let root = store::project_root(dir);
        Store::open(&runner::store_dir(&root, arguments.store.cache_dir.as_deref()), &root, Access::Look).ok()
    };
    let words = [&arguments.a, &arguments.b].map(|word| word.as_ref().map(|word| word.to_string_lossy().into_owned()));
    let is_file = |word: &str| Path::new(word).is_file() || has_reports(Path::new(word)) || word.starts_with(RUN);
    // Two files or runs need no manifest.
    if let [Some(a), Some(b)] = &words
        && is_file(a)
        && is_file(b)
    {
        let store = open(Path::new("."));
        return Ok(Some((of_file(a, store.as_ref())?, of_file(b, store.as_ref())?)));
    }
    let asked = ManifestArguments {
        manifest: arguments.manifest.clone(),
        sets: Vec::new(),
        profile: arguments.profile.clone(),
    };
    let loaded = manifest::load_without_warnings(&asked, terminal);
    let Some(manifest) = loaded.map_err(|error| (error.to_string(), String::new()))? else { return Ok(None) };
    let git = Git::of(&manifest.dir);
    let store = open(&manifest.dir);
    let project = Project { manifest: &manifest, git: git.as_ref(), store: store.as_ref() };
    let a = match &words[0] {
        Some(word) => project.side(word)?,
        None => {
            let help = "name what to compare: a Git revision, a lock file, a folder of reports, a `metrics.csv`, a run";
            let Some(git) = &git else {
                return Err(("this is no Git checkout, there is nothing to compare with".to_owned(), help.to_owned()));
            };
            let (branch, commit) = git.merge_base().map_err(|message| match git.is_shallow() {
                true => (message, format!("{FETCH}, or {help}")),
                false => (message, help.to_owned()),
            })?;
            project.of_commit(&format!("merge base with {branch}"), &commit)
        }
    };
    let b = match &words[1] {
        Some(word) => project.side(word)?,
        None => project.of_working_tree(),
    };
    Ok(Some((a, b)))
}

/// A manifest with what surrounds it.
struct Project<'p> {
    manifest: &'p Manifest,
    git: Option<&'p Git>,
    store: Option<&'p Store>,
}

impl Project<'_> {
    fn side(&self, word: &str) -> Result<Side, Refusal> {
        let commit = self.git.and_then(|git| git.commit(word));
        // A branch may be called as a folder is that has nothing to do with it.
        let is_other = commit.is_some() && Path::new(word).is_dir() && !has_reports(Path::new(word));
        if !is_other && (Path::new(word).exists() || word.starts_with(RUN)) {
            return of_file(word, self.store);
        }
        let help = "expected a Git revision, a lock file, a folder of reports, a `metrics.csv`, or a run as `convoy runs` lists it";
        let Some(commit) = commit else {
            return Err((format!("`{word}` is no file, no run and no Git revision"), help.to_owned()));
        };
        Ok(self.of_commit(word, &commit))
    }

    /// The manifest and the lock file as they were in a commit.
    fn of_commit(&self, word: &str, commit: &str) -> Side {
        let short = commit.get(..8).unwrap_or(commit);
        let shown = if commit.starts_with(word) { short.to_owned() } else { format!("{word} ({short})") };
        let show = |name: &str| self.git.and_then(|git| git.show(commit, name));
        let file = self.manifest.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let overrides = crate::manifest::Overrides { profile: self.manifest.profile.clone(), ..Default::default() };
        let mut notes = Vec::new();
        let text = show(&file);
        let then = text.as_ref().and_then(|bytes| {
            Manifest::from_bytes(&self.manifest.path, bytes, &overrides, KINDS)
                .map_err(|_| notes.push(format!("{shown}: `{file}` is no manifest that this program can read")))
                .ok()
        });
        if text.is_none() {
            notes.push(format!("{shown}: there is no `{file}`"));
        }
        let path = compared_lock(then.as_ref().unwrap_or(self.manifest));
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let lock = match show(&name).map(|bytes| LockFile::parse(&String::from_utf8_lossy(&bytes))) {
            Some(Ok(lock)) => Some(lock),
            Some(Err(message)) => {
                notes.push(format!("{shown}: `{name}`: {message}"));
                None
            }
            None => {
                notes.push(format!("{shown}: there is no `{name}`"));
                None
            }
        };
        if text.is_none() && lock.is_none() {
            // There was no such pipeline: that is known.
            let (lock, results) = (Some(LockFile::default()), Some(Results::of_nothing()));
            return Side { shown, lock, results, data: Vec::new(), notes, manifest: None };
        }
        let graph = then.as_ref().map(|manifest| Graph::of(manifest, runner::places(manifest, None)));
        self.joined(shown, graph.as_ref(), lock, &name, notes, None)
    }

    /// The manifest and the lock file as they lie here.
    fn of_working_tree(&self) -> Side {
        let mut notes = Vec::new();
        let path = compared_lock(self.manifest);
        let shown = "working tree".to_owned();
        let lock = match locked::read(&path) {
            Ok(lock) => Some(lock),
            Err((message, _)) => {
                notes.push(format!("{shown}: {message}"));
                None
            }
        };
        let overrides = crate::manifest::Overrides { profile: self.manifest.profile.clone(), ..Default::default() };
        let again = Manifest::load(&self.manifest.path, &overrides).ok();
        let graph = Graph::of(self.manifest, runner::places(self.manifest, None));
        let manifest = again.map(|manifest| (manifest, graph.clone()));
        self.joined(shown, Some(&graph), lock, &shown_path(&path), notes, manifest)
    }

    /// Keys are the manifest's. A lock file says what came of them as far as it is of the same keys.
    fn joined(
        &self,
        shown: String,
        graph: Option<&Graph>,
        lock: Option<LockFile>,
        name: &str,
        mut notes: Vec<String>,
        manifest: Option<(Manifest, Graph)>,
    ) -> Side {
        let (Some(graph), Some(mut lock)) = (graph, lock.clone()) else {
            let ran = graph.and_then(|graph| self.run_of(graph));
            if let Some(ran) = ran {
                notes.push(format!("{shown}: its results are those of {}", ran.id()));
                return of_run(shown, ran, notes, manifest, self.store);
            }
            let lock = lock.or_else(|| graph.map(LockFile::of_graph));
            return with_store(Side { shown, lock, results: None, data: Vec::new(), notes, manifest }, self.store);
        };
        let of_manifest = LockFile::of_graph(graph);
        let mut stale: BTreeSet<String> = changed_keys(&lock, graph).into_iter().filter_map(|d| stage_of(&d)).collect();
        stale.extend(of_manifest.stages.keys().filter(|stage| !lock.stages.contains_key(*stage)).cloned());
        stale.extend(lock.stages.keys().filter(|stage| !of_manifest.stages.contains_key(*stage)).cloned());
        if !stale.is_empty() {
            let other = format!("{shown}: `{name}` is of other keys than the manifest");
            if let Some(ran) = self.run_of(graph) {
                notes.push(format!("{other}: its results are those of {}", ran.id()));
                return of_run(shown, ran, notes, manifest, self.store);
            }
            notes.push(format!("{other}: run it to know its results"));
            lock.metrics.clear();
            // Data are read by stages that read no other.
            lock.tasks.retain(|task, _| {
                let stage = task.rsplit_once('/').map_or(task.as_str(), |(stage, _)| stage);
                !stale.contains(stage) && lock.stages.get(stage).is_some_and(|stage| stage.inputs.is_empty())
            });
            let mut stages = of_manifest.stages;
            for (stage, own) in stages.iter_mut().filter(|(stage, _)| !stale.contains(*stage)) {
                if let Some(locked) = lock.stages.get(stage) {
                    (own.rooms, own.sources) = (locked.rooms.clone(), locked.sources.clone());
                }
            }
            lock.stages = stages;
        }
        with_store(Side { shown, lock: Some(lock), results: None, data: Vec::new(), notes, manifest }, self.store)
    }
}

impl Project<'_> {
    /// The last whole run here of a manifest with these keys: a lock file need not have been written of it.
    fn run_of(&self, graph: &Graph) -> Option<RunRecord> {
        let of_manifest = LockFile::of_graph(graph);
        let is_of_it = |run: &RunRecord| {
            run.complete
                && !run.lock.metrics.is_empty()
                && run.lock.stages.keys().eq(of_manifest.stages.keys())
                && !changed_keys(&run.lock, graph).iter().any(|difference| stage_of(difference).is_some())
        };
        history::runs(self.store?).ok()?.into_iter().find(is_of_it)
    }
}

/// What a run came to.
fn of_run(
    shown: String,
    run: RunRecord,
    notes: Vec<String>,
    manifest: Option<(Manifest, Graph)>,
    store: Option<&Store>,
) -> Side {
    let gates = run.complete.then_some(run.gates);
    let side = Side { shown, lock: Some(run.lock), results: None, data: Vec::new(), notes, manifest };
    let mut side = with_store(side, store);
    if let Some(results) = &mut side.results {
        results.gates = gates;
    }
    side
}

/// The stage that a difference of keys is about.
fn stage_of(difference: &Difference) -> Option<String> {
    match difference {
        Difference::Setting(stage, ..) | Difference::Input(stage, _) | Difference::Room(stage, ..) => {
            Some(stage.clone())
        }
        _ => None,
    }
}

/// The results that a lock file names: numbers from it, the rest from the store where that has it.
fn with_store(mut side: Side, store: Option<&Store>) -> Side {
    let Some(lock) = &side.lock else { return side };
    side.data = store.map(|store| locked_dataset(store, lock)).unwrap_or_default();
    if lock.metrics.is_empty() {
        // What evaluates nothing has no results; what does and has none is not known.
        if !lock.tasks.is_empty() && lock.stages.values().all(|stage| stage.kind != "evaluate") {
            side.results = Some(Results::of_nothing());
        }
        return side;
    }
    let files = store.and_then(|store| locked_results(store, lock));
    let whole = files.and_then(|files| locked::results_of(&files).ok());
    side.results = Some(match whole {
        Some(whole) => whole,
        None => {
            let shown = &side.shown;
            side.notes
                .push(format!("{shown}: its predictions and gates are not in the store, its lock file has numbers"));
            Results::of_headline(&lock.metrics)
        }
    });
    side
}

/// A lock file, a folder of reports, a table of metrics, or a run.
fn of_file(word: &str, store: Option<&Store>) -> Result<Side, Refusal> {
    let path = Path::new(word);
    let shown = shown_path(path);
    if path.is_dir() {
        return of_folder(path, shown);
    }
    if path.exists() {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        return match ending {
            "lock" => {
                let lock = locked::read(path)?;
                let side = Side {
                    shown,
                    lock: Some(lock),
                    results: None,
                    data: Vec::new(),
                    notes: Vec::new(),
                    manifest: None,
                };
                Ok(with_store(side, store))
            }
            "csv" => {
                let results = tables(path, None).map_err(|message| (message, TABLES.to_owned()))?;
                Ok(Side {
                    shown,
                    lock: None,
                    results: Some(results),
                    data: Vec::new(),
                    notes: Vec::new(),
                    manifest: None,
                })
            }
            "json" if path.file_name().is_some_and(|name| name == crate::files::RUN) => {
                let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                of_folder(dir, shown_path(dir))
            }
            _ => Err((format!("`{shown}` is nothing that can be compared"), TABLES.to_owned())),
        };
    }
    let runs = store.map(history::runs).transpose().map_err(|error| (error.to_string(), String::new()))?;
    let mut found: Vec<RunRecord> = runs.unwrap_or_default();
    found.retain(|run| run.id().starts_with(word));
    match found.len() {
        1 => {
            let run = found.remove(0);
            Ok(of_run(format!("{} of {}", run.id(), run.variant), run, Vec::new(), None, store))
        }
        0 => Err((format!("there is no run `{word}`"), "`convoy runs` lists them".to_owned())),
        n => Err((format!("`{word}` stands for {n} runs"), "write more of its digits".to_owned())),
    }
}

/// What can be compared.
const TABLES: &str = "name a lock file, a folder of reports (`out/NAME`), or a `metrics.csv`";

fn has_reports(dir: &Path) -> bool {
    dir.join(METRICS).is_file() || dir.join(crate::files::RUN).is_file()
}

/// A folder of reports.
fn of_folder(dir: &Path, shown: String) -> Result<Side, Refusal> {
    let run = RunRecord::read(dir);
    let mut notes = Vec::new();
    let mut found: Vec<PathBuf> = vec![dir.to_owned()];
    // Several evaluations with other columns have folders of their own.
    let inner = std::fs::read_dir(dir).map(|all| all.filter_map(Result::ok).map(|entry| entry.path()));
    found.extend(inner.into_iter().flatten().filter(|path| path.is_dir() && path.join(PREDICTIONS).is_file()));
    found.sort();
    let metrics = dir.join(METRICS);
    let results = match metrics.is_file() {
        true => {
            let predictions: Vec<PathBuf> = found.iter().map(|dir| dir.join(PREDICTIONS)).collect();
            let mut results = tables(&metrics, Some(&predictions)).map_err(|message| (message, TABLES.to_owned()))?;
            if let Some(run) = &run {
                results.headline = Results::of_headline(&run.lock.metrics).headline;
                results.gates = run.complete.then(|| run.gates.clone());
            }
            Some(results)
        }
        false => None,
    };
    if run.is_none() && results.is_none() {
        return Err((format!("`{shown}` is no folder of reports: it has no `{METRICS}`"), TABLES.to_owned()));
    }
    if run.is_none() {
        notes.push(format!("{shown}: there is no `{}` that says which keys were in force", crate::files::RUN));
    }
    Ok(Side { shown, lock: run.map(|run| run.lock), results, data: Vec::new(), notes, manifest: None })
}

fn tables(metrics: &Path, predictions: Option<&[PathBuf]>) -> Result<Results, String> {
    let read = |path: &Path| crate::files::read_regular(path, MOST).map_err(|error| error.to_string());
    let mut results =
        Results::of_tables(&read(metrics)?, None).map_err(|message| format!("`{}`: {message}", shown_path(metrics)))?;
    for path in predictions.unwrap_or_default().iter().filter(|path| path.is_file()) {
        results.read_predictions(&read(path)?).map_err(|message| format!("`{}`: {message}", shown_path(path)))?;
    }
    Ok(results)
}

fn between(a: &Side, b: &Side) -> Changes {
    let mut notes: Vec<String> = a.notes.iter().chain(&b.notes).cloned().collect();
    let locks = a.lock.as_ref().zip(b.lock.as_ref());
    let data = locks.map(|(old, new)| data((old, &a.data), (new, &b.data), &mut notes));
    let results = a.results.as_ref().zip(b.results.as_ref());
    // A side that evaluates nothing predicts nothing.
    let is_nothing = |side: &Results| side.scores.is_empty() && side.gates.as_ref().is_some_and(Vec::is_empty);
    let flips = results.and_then(|(old, new)| match is_nothing(old) || is_nothing(new) {
        true => Some(Vec::new()),
        false => compare::flips(old, new),
    });
    let gates = results.and_then(|(old, new)| Some(gates(old.gates.as_ref()?, new.gates.as_ref()?)));
    Changes {
        sides: [a.shown.clone(), b.shown.clone()],
        keys: locks.map(|(old, new)| keys(old, new, b)),
        data,
        metrics: results.map(|(old, new)| compare::metrics(old, new)),
        flips,
        gates,
        notes,
        worse: None,
    }
}

fn keys(old: &LockFile, new: &LockFile, b: &Side) -> Vec<Key> {
    let compared = match &b.manifest {
        Some((_, graph)) => old.compare_in(new, graph),
        None => old.compare(new),
    };
    let place = |span: Option<Span>| {
        let at = b.manifest.as_ref().zip(span).and_then(|((manifest, _), span)| manifest.texts.location(span));
        at.map(|at| at.to_string())
    };
    let mut keys: Vec<Key> = Vec::new();
    let both = |stage: &String, what: &str| Key {
        text: format!("`{stage}` {what}"),
        stage: stage.clone(),
        key: None,
        at: None,
    };
    let gone = old.stages.keys().filter(|stage| !new.stages.contains_key(*stage));
    keys.extend(gone.map(|stage| both(stage, "is gone")));
    let come = new.stages.keys().filter(|stage| !old.stages.contains_key(*stage));
    keys.extend(come.map(|stage| both(stage, "is new")));
    for difference in compared {
        let Some(stage) = stage_of(&difference) else { continue };
        let (key, at) = match &difference {
            Difference::Setting(_, key, old, new, span) => {
                (Some((key.clone(), old.clone(), new.clone())), place(*span))
            }
            _ => (None, None),
        };
        keys.push(Key { text: difference.to_string(), stage, key, at });
    }
    keys
}

/// A lock file, and of its data sets those that the store has.
type Data<'s> = (&'s LockFile, &'s [(String, Option<Files>)]);

/// Of every stage that reads data on both sides: in which images it differs, `None` where that is not known.
fn data((old, before): Data<'_>, (new, after): Data<'_>, notes: &mut Vec<String>) -> Vec<(String, Option<DataChange>)> {
    let stages = new.stages.iter().filter(|(name, stage)| stage.kind == "ingest" && old.stages.contains_key(*name));
    let mut out = Vec::new();
    for (name, _) in stages {
        let task = |lock: &LockFile| {
            let own = lock.tasks.iter().find(|(task, _)| task.rsplit_once('/').is_some_and(|(stage, _)| stage == name));
            own.map(|(_, task)| task.output)
        };
        let known = task(old).zip(task(new));
        if known.is_some_and(|(a, b)| a == b) {
            out.push((name.clone(), Some(DataChange::default())));
            continue;
        }
        let files = |side: &[(String, Option<Files>)]| {
            side.iter().find(|(stage, _)| stage == name).and_then(|(_, files)| files.clone())
        };
        let change = files(before).zip(files(after)).map(|(a, b)| changed_data::changes(&a, &b));
        out.push((
            name.clone(),
            match change {
                Some(Ok(change)) => Some(change),
                Some(Err(message)) => {
                    notes.push(format!("{name}: {message}"));
                    None
                }
                None => None,
            },
        ));
    }
    out
}

fn gates(old: &[GateResult], new: &[GateResult]) -> Vec<GateChange> {
    let name = |gate: &GateResult| format!("{} {} on {} of {}", gate.measured(), gate.expected, gate.split, gate.model);
    let mut all: Vec<GateChange> = Vec::new();
    for gate in new {
        let before = old.iter().find(|other| name(other) == name(gate)).cloned();
        all.push(GateChange { name: name(gate), old: before, new: Some(gate.clone()) });
    }
    for gate in old.iter().filter(|gate| !new.iter().any(|other| name(other) == name(gate))) {
        all.push(GateChange { name: name(gate), old: Some(gate.clone()), new: None });
    }
    all
}

/// What `--fail-on-worse=METRIC` says: lines, and whether it is worse beyond noise, or cannot be told.
fn worse(changes: &Changes, sides: [&Side; 2], metric: &str) -> (Vec<String>, bool) {
    let not_known = |side: &str| {
        (vec![format!("`{metric}` is not known of `{side}`: it cannot be told whether it is worse")], true)
    };
    if let Some(side) = sides.iter().find(|side| side.results.as_ref().is_none_or(|results| results.scores.is_empty()))
    {
        return not_known(&side.shown);
    }
    let all = changes.metrics.as_deref().unwrap_or_default();
    let own: Vec<&MetricChange> = all.iter().filter(|change| change.metric == metric).collect();
    let has_test = own.iter().any(|change| change.split == "test");
    let own: Vec<&MetricChange> = own.into_iter().filter(|change| !has_test || change.split == "test").collect();
    if own.iter().all(|change| change.old.is_none_or(|old| old.value.is_none())) {
        return not_known(&changes.sides[0]);
    }
    let worse: Vec<String> = own
        .iter()
        .filter(|change| change.is_worse_beyond_noise())
        .map(|change| format!("worse: {}", locked::metric_line(change)))
        .collect();
    let has_failed = !worse.is_empty();
    (worse, has_failed)
}
