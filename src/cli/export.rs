//! `export`, and how a verb gets a finished model: out of the store by its manifest, or from an exported file.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;

use super::Exit;
use super::arguments::{ExportArguments, ManifestArguments, PlaceArguments};
use super::manifest::{self, run_error, threads, unknown_stage};
use super::terminal::Terminal;
use crate::artifact::Bytes;
use crate::artifact::portable::{self, Portable};
use crate::files;
use crate::manifest::{Manifest, shown_path, stage_name};
use crate::report;
use crate::runner::{Options, Plan, Session, State, variant_name};
use crate::stages::{Output, predict};
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
}

/// `export safetensors`.
pub fn export(arguments: &ExportArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let opened = from_manifest(&arguments.manifest, &arguments.places, arguments.stage.as_deref(), terminal)?;
    let model = match opened {
        Ok(model) => model,
        Err(exit) => return Ok(exit),
    };
    let bytes = model.model.to_bytes()?;
    let in_out = arguments.out_dir.as_ref().map(|out| out.join(&model.place));
    let path = arguments.output.as_ref().or(in_out.as_ref()).unwrap_or(&model.default_path);
    files::replace(path, &bytes, false)?;
    terminal.note(&format!(
        "{}: {}, {} classes, {}",
        model.name,
        networks(model.model.members.len()),
        model.model.classes.len(),
        report::text::bytes(bytes.len() as u64)
    ));
    if arguments.json {
        terminal.json(serde_json::json!({
            "path": shown_path(path), "model": model.name, "networks": model.model.members.len(),
            "classes": model.model.classes, "bytes": bytes.len(),
        }));
    } else {
        terminal.result(&format!("{}\n", shown_path(path)));
    }
    Ok(Exit::Done)
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
        Ok(model) => Ok(Ok(Model { model, name: shown, default_path: path.to_owned(), place: PathBuf::new() })),
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
    Ok(Ok(Model { model, name: format!("{}, {name}", manifest.name), default_path, place }))
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
