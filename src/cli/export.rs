//! `export`, and how a verb gets a finished model: out of the store by its manifest, or from an exported file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;

use super::Exit;
use super::arguments::{
    ExportArguments, ExportVerb, ManifestArguments, ModelExportArguments, PlaceArguments, TensorboardArguments,
};
use super::manifest::{self, run_error, threads, unknown_stage};
use super::terminal::Terminal;
use crate::artifact::portable::{self, Portable};
use crate::artifact::{Bytes, npz};
use crate::data::catalogue;
use crate::files;
use crate::manifest::{Manifest, shown_path, stage_name, variant_of};
use crate::report::{self, tensorboard};
use crate::runner::{Options, Plan, PlannedTask, Session, State, variant_name};
use crate::stages::predict::{self, onnx};
use crate::stages::{Output, Part};
use crate::store::Access;

/// A model that was found, or how the program ends without it (what is wrong has been said).
pub type Opened = Result<Model, Exit>;

/// The largest model file that is read, in bytes.
const MOST_MODEL: u64 = 16 << 30;

/// A finished model and where it is from.
pub struct Model {
    /// The model.
    pub model: Portable,
    /// What people call it: `digits, ensemble`, or the file.
    pub name: String,
    /// Where `export` puts it.
    pub default_path: PathBuf,
    /// The same, within `out`.
    pub place: PathBuf,
    /// Under which terms its data are, where a catalogue says so.
    pub licence: Option<String>,
}

/// `export`.
pub fn export(form: &ExportVerb, terminal: &Terminal) -> anyhow::Result<Exit> {
    match form {
        ExportVerb::Safetensors(arguments) => safetensors(arguments, terminal),
        ExportVerb::Onnx(arguments) => model(arguments, "onnx", terminal),
        ExportVerb::Npz(arguments) => model(arguments, "npz", terminal),
        ExportVerb::Tensorboard(arguments) => tensorboard(arguments, terminal),
    }
}

/// `export safetensors`.
fn safetensors(arguments: &ExportArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let opened = from_manifest(&arguments.manifest, &arguments.places, arguments.stage.as_deref(), terminal)?;
    let model = match opened {
        Ok(model) => model,
        Err(exit) => return Ok(exit),
    };
    let bytes = model.model.to_bytes()?;
    let in_out = arguments.out_dir.as_ref().map(|out| out.join(&model.place));
    let path = arguments.output.as_ref().or(in_out.as_ref()).unwrap_or(&model.default_path);
    write(&model, path, &bytes, arguments.json, terminal)
}

/// `export onnx`, `export npz`: the form is also the file's ending.
fn model(arguments: &ModelExportArguments, form: &str, terminal: &Terminal) -> anyhow::Result<Exit> {
    let manifest = ManifestArguments {
        manifest: arguments.model.clone(),
        sets: arguments.sets.clone(),
        profile: arguments.profile.clone(),
    };
    let (places, stage) = (&arguments.places, arguments.stage.as_deref());
    let opened = match &arguments.model {
        Some(path) => open(&manifest, path, places, stage, terminal)?,
        None => from_manifest(&manifest, places, stage, terminal)?,
    };
    let model = match opened {
        Ok(model) => model,
        Err(exit) => return Ok(exit),
    };
    let in_out = arguments.out_dir.as_ref().map(|out| out.join(&model.place).with_extension(form));
    let default = || in_out.unwrap_or_else(|| model.default_path.with_extension(form));
    let path = arguments.output.clone().unwrap_or_else(default);
    let real = |path: &Path| path.canonicalize().ok();
    if let Some(source) =
        arguments.model.as_deref().and_then(real).filter(|source| real(&path).as_ref() == Some(source))
    {
        let message = format!("`{}` is the model that is exported", shown_path(&source));
        terminal.fault(&message, Some("name another file to write to"));
        return Ok(Exit::Usage);
    }
    let bytes = match form {
        "npz" => npz::to_bytes(&model.model).map_err(|error| (error.message, None)),
        _ => onnx::to_bytes(&model.model, model.licence.as_deref()).map_err(|error| (error.to_string(), error.help)),
    };
    match bytes {
        Ok(bytes) => write(&model, &path, &bytes, arguments.json, terminal),
        Err((message, help)) => {
            terminal.fault(&format!("{}: {message}", model.name), help.as_deref());
            Ok(Exit::Failed)
        }
    }
}

/// Puts a model's file where it belongs and says so.
fn write(model: &Model, path: &Path, bytes: &[u8], is_json: bool, terminal: &Terminal) -> anyhow::Result<Exit> {
    files::replace(path, bytes, false)?;
    terminal.note(&format!(
        "{}: {}, {} classes, {}",
        model.name,
        networks(model.model.members.len()),
        model.model.classes.len(),
        report::text::bytes(bytes.len() as u64)
    ));
    if is_json {
        terminal.json(serde_json::json!({
            "path": shown_path(path), "model": model.name, "networks": model.model.members.len(),
            "classes": model.model.classes, "bytes": bytes.len(),
        }));
    } else {
        terminal.result(&format!("{}\n", shown_path(path)));
    }
    Ok(Exit::Done)
}

/// `export tensorboard`.
fn tensorboard(arguments: &TensorboardArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(manifest) = manifest::load_without_warnings(&arguments.manifest, terminal)? else {
        return Ok(Exit::Usage);
    };
    let shown = shown_path(&manifest.path);
    let places = &arguments.places;
    let wanted = arguments.stage.as_deref();
    if wanted.is_some_and(|wanted| manifest.stage(wanted).is_none()) {
        unknown_stage(&manifest, wanted.unwrap_or_default(), terminal);
        return Ok(Exit::Usage);
    }
    let cancel = AtomicBool::new(false);
    let options = Options::new(threads(places), &cancel);
    let planned = Session::open(&manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), Access::Look)
        .and_then(|session| Ok((session.plan(&options)?, session)));
    let (plan, session) = match planned {
        Ok(planned) => planned,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    let graph = &plan.graph;
    // A trial is a training of the stage that it varies.
    let own = |stage: usize| graph.trial(stage).map_or(stage, |trial| trial.of);
    let is_wanted = |stage: usize| {
        let name = &graph.nodes[own(stage)].name;
        wanted.is_none_or(|wanted| name == wanted || stage_name(name) == wanted)
    };
    let trains = |task: &&PlannedTask| {
        // Its other tasks look at images, or at what was trained.
        let is_training = matches!(task.part, Part::Fold(_) | Part::All);
        is_training && graph.nodes[task.stage].stage.kind() == "train" && is_wanted(task.stage)
    };
    let (mut artifacts, mut n_absent) = (Vec::new(), 0);
    for task in plan.tasks.iter().filter(trains) {
        match &task.entry {
            Some(entry) if task.state == State::Fresh && task.absent.is_none() => {
                let files = session.store.open_files(entry, &|file| tensorboard::READS.contains(&file))?;
                artifacts.push((task.stage, task.part, files));
            }
            _ => n_absent += 1,
        }
    }
    session.store.save_stamps();
    // Searches of several variants may vary one stage that is the same in all: their trials are told apart by theirs.
    let called = artifacts.iter().map(|(stage, ..)| match graph.trial(*stage) {
        None => graph.nodes[*stage].name.clone(),
        Some(trial) => {
            let variant = variant_of(&graph.nodes[trial.search].name);
            format!("{} {variant}", stage_name(&graph.nodes[trial.of].name)).trim_end().to_owned()
        }
    });
    let called: Vec<String> = called.collect();
    let finished = artifacts.iter().zip(&called).map(|((stage, part, files), called)| report::Finished {
        stage: called,
        kind: "train",
        part: *part,
        trial: graph.trial_name(*stage),
        files,
    });
    let events = tensorboard::event_files(&finished.collect::<Vec<_>>());
    let run = format!("`convoy run {}`", run_arguments(&arguments.manifest, &shown));
    if events.is_empty() {
        let what = wanted.map_or_else(|| format!("`{shown}`"), |stage| format!("`{stage}` of `{shown}`"));
        terminal.fault(&format!("{what} has no finished training"), Some(&format!("train first: {run}")));
        return Ok(Exit::Stale);
    }
    let place = Path::new(&variant_name(&manifest)).join("tensorboard");
    let out = arguments.out_dir.clone().unwrap_or_else(|| session.store.base().join("out"));
    let dir = arguments.output.clone().unwrap_or_else(|| out.join(place));
    for (name, bytes) in &events {
        files::replace(&dir.join(name), bytes, false)?;
    }
    // The default place is this verb's alone: what an earlier export wrote there and this one does not is gone.
    if arguments.output.is_none() && wanted.is_none() {
        remove_other_events(&dir, &events);
    }
    if n_absent > 0 {
        let trainings = report::text::counted(n_absent, "training is", "trainings are");
        terminal.note(&format!("{trainings} not there yet: {run}"));
    }
    let n_scalars = report::text::counted(artifacts.len() as u64, "training", "trainings");
    terminal.note(&format!("{}: {n_scalars}; look with `tensorboard --logdir {}`", manifest.name, shown_path(&dir)));
    if arguments.json {
        let names: Vec<String> = events.keys().map(|path| shown_path(path)).collect();
        terminal.json(serde_json::json!({
            "path": shown_path(&dir), "pipeline": manifest.name, "trainings": artifacts.len(), "absent": n_absent,
            "files": names,
        }));
    } else {
        terminal.result(&format!("{}\n", shown_path(&dir)));
    }
    Ok(Exit::Done)
}

/// Removes event files of this program below `dir` that are not among `events`; what cannot be removed stays.
fn remove_other_events(dir: &Path, events: &BTreeMap<PathBuf, Vec<u8>>) {
    for file in walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok) {
        let is_own = file.file_type().is_file() && file.file_name() == tensorboard::EVENTS;
        let is_kept = || file.path().strip_prefix(dir).is_ok_and(|name| events.contains_key(name));
        if let Some(folder) = file.path().parent().filter(|_| is_own && !is_kept()) {
            let _ = files::Folder::open(folder).and_then(|folder| folder.remove(tensorboard::EVENTS));
        }
    }
}

/// `1 network`, `5 networks`.
pub fn networks(n: usize) -> String {
    if n == 1 { "1 network".to_owned() } else { format!("{n} networks") }
}

/// The model that a person names: a manifest or an exported file.
pub fn open(
    manifest: &ManifestArguments,
    path: &Path,
    places: &PlaceArguments,
    stage: Option<&str>,
    terminal: &Terminal,
) -> anyhow::Result<Opened> {
    let shown = shown_path(path);
    if path.is_dir() {
        let help = "name a manifest, or a file that `convoy export safetensors` wrote";
        terminal.fault(&format!("`{shown}` is a folder, not a model"), Some(help));
        return Ok(Err(Exit::Usage));
    }
    let mut head = Vec::new();
    if let Ok((file, _)) = files::open_regular(path) {
        use std::io::Read as _;
        file.take(9).read_to_end(&mut head).map_err(files::Error::of("read", path))?;
    }
    if !portable::is_likely(&head) && path.extension().is_none_or(|ending| ending != "safetensors") {
        return from_manifest(manifest, places, stage, terminal);
    }
    if let Some(given) = [stage.map(|_| "--stage"), manifest.profile.as_ref().map(|_| "--profile")]
        .into_iter()
        .flatten()
        .chain(manifest.sets.first().map(|_| "--set"))
        .next()
    {
        terminal.fault(&format!("`{given}` is about a manifest, and `{shown}` is an exported model"), None);
        return Ok(Err(Exit::Usage));
    }
    let bytes = files::read_regular(path, MOST_MODEL)?;
    match Portable::from_bytes(Bytes::new(bytes)) {
        Ok(model) => {
            let place = path.file_name().map(PathBuf::from).unwrap_or_default();
            Ok(Ok(Model { model, name: shown, default_path: path.to_owned(), place, licence: None }))
        }
        Err(error) => {
            terminal.fault(&format!("`{shown}` {}", error.message), Some("export it again"));
            Ok(Err(Exit::Failed))
        }
    }
}

/// The final model of a manifest, out of the store.
fn from_manifest(
    arguments: &ManifestArguments,
    places: &PlaceArguments,
    stage: Option<&str>,
    terminal: &Terminal,
) -> anyhow::Result<Opened> {
    let Some(manifest) = manifest::load_without_warnings(arguments, terminal)? else { return Ok(Err(Exit::Usage)) };
    let stage = match final_model(&manifest, stage, terminal) {
        Ok(stage) => stage,
        Err(exit) => return Ok(Err(exit)),
    };
    let cancel = AtomicBool::new(false);
    let options = Options { targets: Some(vec![stage]), ..Options::new(threads(places), &cancel) };
    let planned = Session::open(&manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), Access::Look)
        .and_then(|session| Ok((session.plan(&options)?, session)));
    let (plan, session) = match planned {
        Ok(planned) => planned,
        Err(error) => return Ok(Err(run_error(&error, &manifest, terminal))),
    };
    let shown = shown_path(&manifest.path);
    if let Some(reason) = what_is_missing(&plan) {
        let name = &manifest.nodes[stage].name;
        let message = format!("the model `{name}` of `{shown}` is not there yet: {reason}");
        let all = if plan.n_recorded() > 0 { " --all-files" } else { "" };
        let help = format!("run it first: `convoy run {}{all}`", run_arguments(arguments, &shown));
        terminal.fault(&message, Some(&help));
        return Ok(Err(Exit::Stale));
    }
    let mut deliver = |stage: usize, part: &str| -> anyhow::Result<_> {
        let of_part = plan.of_stage(stage).find(|task| task.part.to_string() == part);
        let entry = of_part.and_then(|task| task.entry.as_ref()).with_context(|| {
            format!("the model needs `{}, {part}`, which its manifest does not plan", plan.graph.nodes[stage].name)
        })?;
        Ok(session.store.open_artifact(entry)?)
    };
    let model = predict::assemble(&plan.graph.nodes, stage, &mut deliver)?;
    session.store.save_stamps();
    let name = &manifest.nodes[stage].name;
    let place = Path::new(&variant_name(&manifest)).join(format!("{name}.safetensors"));
    let default_path = session.store.base().join("out").join(&place);
    let licence = licence(&manifest, stage, session.store.base());
    Ok(Ok(Model { model, name: format!("{}, {name}", manifest.name), default_path, place, licence }))
}

/// Under which terms the data are that `stage` learns from, where their catalogue says so.
fn licence(manifest: &Manifest, stage: usize, project_root: &Path) -> Option<String> {
    let mut at = stage;
    while manifest.nodes[at].flow.output != Output::Dataset {
        at = *manifest.nodes[at].inputs.first()?;
    }
    let source = manifest.entries[at].places.iter().find(|place| place.key == "source")?;
    let source = source.value.trim_matches('"');
    let name = source.strip_prefix("builtin:").unwrap_or(source);
    let entry = catalogue::is_name(name).then(|| catalogue::find_entry(name, project_root).ok().flatten());
    entry.flatten().map(|entry| entry.licence)
}

/// The stage that `wanted` names, else the last ensemble, else the last model.
fn final_model(manifest: &Manifest, wanted: Option<&str>, terminal: &Terminal) -> Result<usize, Exit> {
    // Of several variants none is the final one.
    let only = |stage: usize| {
        let called = manifest.stages_called(stage_name(&manifest.nodes[stage].name));
        if called.len() < 2 {
            return Ok(stage);
        }
        let names: Vec<&str> = called.iter().map(|&at| manifest.nodes[at].name.as_str()).take(5).collect();
        let message = format!("`{}` has {} variants of this model", shown_path(&manifest.path), called.len());
        let help = format!("name one: `--stage '{}'`", names.join("'`, `--stage '"));
        terminal.fault(&message, Some(&help));
        Err(Exit::Usage)
    };
    let with = |output: Output| manifest.nodes.iter().rposition(|node| node.flow.output == output);
    let models: Vec<&str> = manifest
        .nodes
        .iter()
        .filter(|node| matches!(node.flow.output, Output::Model | Output::Ensemble))
        .map(|node| node.name.as_str())
        .collect();
    let Some(wanted) = wanted else {
        let stage = with(Output::Ensemble).or_else(|| with(Output::Model)).ok_or_else(|| {
            let shown = shown_path(&manifest.path);
            terminal.fault(&format!("no stage of `{shown}` trains a model"), Some("add `[stages.train]`"));
            Exit::Usage
        });
        return stage.and_then(only);
    };
    match manifest.stage(wanted) {
        None => {
            unknown_stage(manifest, wanted, terminal);
            Err(Exit::Usage)
        }
        Some(stage) if !models.contains(&manifest.nodes[stage].name.as_str()) => {
            let kind = manifest.nodes[stage].stage.kind();
            let help = format!("the models are `{}`", models.join("`, `"));
            terminal.fault(&format!("stage `{wanted}` is no model, it is of the kind `{kind}`"), Some(&help));
            Err(Exit::Usage)
        }
        Some(stage) if manifest.nodes[stage].name == wanted => Ok(stage),
        Some(stage) => only(stage),
    }
}

/// The first task that has not run, and why it would.
fn what_is_missing(plan: &Plan) -> Option<String> {
    if let Some(i) = plan.tasks.iter().position(|task| task.state == State::Fresh && task.absent.is_some()) {
        return Some(format!("`{}` is known by its record only, its files are not here", plan.name(i)));
    }
    let (i, task) = plan.tasks.iter().enumerate().find(|(_, task)| task.state != State::Fresh)?;
    let name = plan.name(i);
    let reasons = match &task.state {
        State::Stale(reasons) | State::Pending { own: reasons, .. } => reasons.as_slice(),
        State::Fresh => &[],
    };
    Some(match reasons.first() {
        Some(reason) => format!("`{name}` is stale ({reason})"),
        None => format!("`{name}` has not run"),
    })
}

/// What `run` must be told to make the same model.
pub fn run_arguments(arguments: &ManifestArguments, shown: &str) -> String {
    let profile = arguments.profile.iter().map(|profile| format!(" --profile {profile}"));
    let sets = arguments.sets.iter().map(|set| format!(" --set '{set}'"));
    std::iter::once(shown.to_owned()).chain(profile).chain(sets).collect()
}
