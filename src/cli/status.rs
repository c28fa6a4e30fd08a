//! `status` and `why`: what is fresh, what is stale, and for what reason, with the manifest's lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use std::sync::atomic::AtomicBool;

use super::Exit;
use super::arguments::{StatusArguments, WhyArguments};
use super::manifest::{self, run_error, threads, unknown_stage};
use super::results::by_records;
use super::terminal::Terminal;
use crate::config::Span;
use crate::manifest::Manifest;
use crate::report::text::{Align, aligned, counted, numbered};
use crate::runner::{Graph, Options, Plan, PlannedTask, Session, StaleReason, State};
use crate::stages::Part;
use crate::store::{Access, Digest};

/// `status`.
pub fn status(arguments: &StatusArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(manifest) = manifest::load(&arguments.manifest, terminal)? else { return Ok(Exit::Usage) };
    let places = &arguments.places;
    let cancel = AtomicBool::new(false);
    let options = Options::new(threads(places), &cancel);
    let planned = Session::open(&manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), Access::Look)
        .and_then(|session| session.plan(&options));
    let plan = match planned {
        Ok(planned) => planned,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    print(&plan, &manifest, arguments.json, terminal);
    let exit = if arguments.exit_code && !plan.is_fresh() { Exit::Stale } else { Exit::Done };
    // The process ends here; freeing a plan piece by piece takes a quarter of the time that making it does.
    std::mem::forget(plan);
    Ok(exit)
}

/// Prints a plan as lines (one a task; tasks of one stage that stand alike share one), or as JSON.
pub fn print(plan: &Plan, manifest: &Manifest, as_json: bool, terminal: &Terminal) {
    if as_json {
        let tasks: Vec<serde_json::Value> = plan.tasks.iter().map(|task| task_json(plan, task, manifest)).collect();
        terminal.json(serde_json::json!({ "is_fresh": plan.is_fresh(), "tasks": tasks }));
    } else {
        terminal.result(&render(plan));
    }
}

/// A task, how it stands and why.
fn task_json(plan: &Plan, task: &PlannedTask, manifest: &Manifest) -> serde_json::Value {
    let (state, reasons) = standing(task);
    let mut json = serde_json::json!({
        "stage": plan.graph.nodes[task.stage].name,
        "part": task.part.to_string(),
        "state": state,
        "reasons": reasons.iter().map(|reason| reason_json(reason, manifest)).collect::<Vec<_>>(),
    });
    if let Some(absent) = &task.absent {
        json["absent_file"] = absent.clone().into();
    }
    if let State::Pending { above, .. } = &task.state {
        json["waits_for"] = above.iter().map(|&task| plan.name(task)).collect::<Vec<_>>().into();
    }
    json
}

/// A reason: its text, and what the text is made of.
fn reason_json(reason: &StaleReason, manifest: &Manifest) -> serde_json::Value {
    let mut json = serde_json::json!({ "reason": reason.word(), "text": reason.to_string() });
    match reason {
        StaleReason::Param { key, old, new, span } => {
            let at = span.and_then(|span| manifest.texts.location(span)).map(|at| at.to_string());
            json["key"] = key.clone().into();
            (json["old"], json["new"], json["at"]) = (old.clone().into(), new.clone().into(), at.into());
        }
        StaleReason::Input { role, old, new, .. } => {
            json["key"] = role.clone().into();
            (json["old"], json["new"]) = (digest_json(old.as_ref()), digest_json(new.as_ref()));
        }
        StaleReason::Upstream { stage, part, files } => {
            (json["stage"], json["part"], json["files"]) =
                (stage.clone().into(), part.clone().into(), files.clone().into());
        }
        StaleReason::Winner { old, new } => (json["old"], json["new"]) = (old.clone().into(), new.clone().into()),
        StaleReason::Revision { room, old, new } => {
            json["key"] = room.clone().into();
            (json["old"], json["new"]) = ((*old).into(), (*new).into());
        }
        StaleReason::Missing(_) | StaleReason::Corrupt { .. } | StaleReason::Forced => {}
    }
    json
}

fn digest_json(digest: Option<&Digest>) -> serde_json::Value {
    digest.map(ToString::to_string).into()
}

fn render(plan: &Plan) -> String {
    let graph = &plan.graph;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (stage, node) in graph.nodes[..graph.n_own].iter().enumerate() {
        rows.extend(trial_groups(plan, stage).into_iter().map(|group| vec![group.state, group.name, group.reason]));
        let mut groups: Vec<(String, Vec<Part>)> = Vec::new();
        for task in plan.of_stage(stage) {
            let line = line(plan, graph, task);
            match groups.iter_mut().find(|(known, _)| *known == line) {
                Some((_, parts)) => parts.push(task.part),
                None => groups.push((line, vec![task.part])),
            }
        }
        for (line, parts) in groups {
            let (state, reason) = line.split_once('\t').unwrap_or((&line, ""));
            rows.push(vec![state.to_owned(), name(&node.name, &parts), reason.to_owned()]);
        }
    }
    let mut text = aligned(&["state", "stage", "reason"], &[Align::Left, Align::Left, Align::Left], &rows);
    let (n_fresh, n_tasks) = plan.count();
    let _ = if plan.is_fresh() {
        let fresh = counted(n_fresh as u64, "task is", "tasks are");
        writeln!(text, "nothing to do: {fresh} fresh{}", by_records(plan.n_recorded()))
    } else {
        let tasks = counted(n_tasks as u64, "task is", "tasks are");
        writeln!(text, "{n_fresh} of {tasks} fresh{}", by_records(plan.n_recorded()))
    };
    text
}

/// The trials of a search's round whose tasks stand alike.
struct TrialGroup {
    state: String,
    /// `search, round 1: 24 trials`.
    name: String,
    reason: String,
    /// Where the key is set that it names.
    at: Option<Span>,
}

/// A line for each round of a search and each state that tasks of its trials are in.
fn trial_groups(plan: &Plan, search: usize) -> Vec<TrialGroup> {
    /// Each with the place of a key that it names.
    type Reasons = BTreeMap<String, Option<Span>>;
    // A trial stands as its tasks do that are to be done, and is told once.
    let mut trials: BTreeMap<(u32, &str), BTreeMap<String, Reasons>> = BTreeMap::new();
    for task in &plan.tasks {
        let Some(trial) = plan.graph.trial(task.stage).filter(|trial| trial.search == search) else { continue };
        let line = line(plan, &plan.graph, task);
        let (state, reason) = line.split_once('\t').unwrap_or((&line, ""));
        let states = trials.entry((trial.round, trial.trial.as_str())).or_default();
        let at = standing(task).1.iter().find_map(|reason| match reason {
            StaleReason::Param { span, .. } => *span,
            _ => None,
        });
        states.entry(state.to_owned()).or_default().insert(reason.to_owned(), at);
    }
    let mut groups: BTreeMap<(u32, String), (BTreeSet<&str>, Reasons)> = BTreeMap::new();
    for ((round, trial), mut states) in trials {
        let told = ["stale", "pending", "fresh"].into_iter().find_map(|state| states.remove_entry(state));
        let Some((state, reasons)) = told else { continue };
        let (trials, all) = groups.entry((round, state)).or_default();
        trials.insert(trial);
        all.extend(reasons);
    }
    let name = &plan.graph.nodes[search].name;
    groups
        .into_iter()
        .map(|((round, state), (trials, reasons))| {
            let s = |n: usize| if n == 1 { "" } else { "s" };
            let (n, n_others) = (trials.len(), reasons.len() - 1);
            let (first, at) = reasons.into_iter().next().unwrap_or_default();
            let others = format!("; {n_others} more reason{}", s(n_others));
            let reason = if n_others > 0 { first + &others } else { first };
            TrialGroup { state, at, name: format!("{name}, round {round}: {n} trial{}", s(n)), reason }
        })
        .collect()
}

/// `cnn`, `cnn, fold 1..5`, `cnn, fold 2 4`, `search, round 1..3`.
fn name(stage: &str, parts: &[Part]) -> String {
    let mut text = stage.to_owned();
    let folds = parts.iter().filter_map(|part| if let Part::Fold(f) = part { Some(*f) } else { None });
    let rounds = parts.iter().filter_map(|part| if let Part::Round(r) = part { Some(*r) } else { None });
    let predicting = parts.iter().filter_map(|part| if let Part::Predict(f @ 1..) = part { Some(*f) } else { None });
    let all =
        [("round", rounds.collect::<Vec<u32>>()), ("fold", folds.collect()), ("predict fold", predicting.collect())];
    for (word, numbers) in all {
        if let Some(numbers) = numbered(word, &numbers) {
            let _ = write!(text, ", {numbers}");
        }
    }
    for (part, word) in [(Part::All, ", all"), (Part::Predict(0), ", predict all")] {
        text.push_str(if parts.contains(&part) { word } else { "" });
    }
    for part in
        [Part::Sanity, Part::Pictures, Part::Suspects, Part::Calibration].into_iter().filter(|&part| parts == [part])
    {
        let _ = write!(text, ", {part}");
    }
    text
}

fn standing(task: &PlannedTask) -> (&'static str, &[StaleReason]) {
    match &task.state {
        State::Fresh => ("fresh", &[]),
        State::Stale(reasons) => ("stale", reasons),
        State::Pending { own, .. } => ("pending", own),
    }
}

/// What a task waits for: stages by name, trials by their round.
fn awaited(plan: &Plan, graph: &Graph, above: &[usize]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for &i in above {
        let task = &plan.tasks[i];
        let text = match (graph.trial(task.stage), task.part) {
            (Some(trial), _) => format!("the trials of `{}`", graph.nodes[trial.search].name),
            (None, Part::Round(round)) => format!("round {round} of `{}`", graph.nodes[task.stage].name),
            (None, _) => format!("`{}`", graph.nodes[task.stage].name),
        };
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.join(", ")
}

fn line(plan: &Plan, graph: &Graph, task: &PlannedTask) -> String {
    let (state, reasons) = standing(task);
    let mut texts: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    if let (true, State::Pending { above, .. }) = (texts.is_empty(), &task.state) {
        texts.push(format!("waits for {}", awaited(plan, graph, above)));
    }
    format!("{state}\t{}", texts.join("; "))
}

/// `why`.
pub fn why(arguments: &WhyArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(manifest) = manifest::load(&arguments.manifest, terminal)? else { return Ok(Exit::Usage) };
    let stages = manifest.stages_called(&arguments.stage);
    if stages.is_empty() {
        unknown_stage(&manifest, &arguments.stage, terminal);
        return Ok(Exit::Usage);
    }
    let places = &arguments.places;
    let cancel = AtomicBool::new(false);
    let options = Options::new(threads(places), &cancel);
    let planned = Session::open(&manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), Access::Look)
        .and_then(|session| session.plan(&options));
    let plan = match planned {
        Ok(planned) => planned,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    if arguments.json {
        let tasks = stages.iter().flat_map(|&stage| plan.of_stage(stage));
        let tasks: Vec<serde_json::Value> = tasks.map(|task| task_json(&plan, task, &manifest)).collect();
        terminal.json(serde_json::json!({ "stage": arguments.stage, "tasks": tasks }));
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    let mut told = Vec::new();
    stages.iter().for_each(|&stage| explain(&plan, &plan.graph, stage, &manifest, &mut told, &mut text));
    terminal.prose(&text);
    Ok(Exit::Done)
}

/// The stage's own reasons, then those of the stages above that it waits for.
fn explain(plan: &Plan, graph: &Graph, stage: usize, manifest: &Manifest, told: &mut Vec<usize>, text: &mut String) {
    if told.contains(&stage) {
        return;
    }
    told.push(stage);
    let mut groups: Vec<(String, Vec<Part>)> = Vec::new();
    let mut above: Vec<usize> = Vec::new();
    for task in plan.of_stage(stage) {
        let (state, reasons) = standing(task);
        let mut lines = format!("{state}\n");
        for reason in reasons {
            let _ = write!(lines, "  {}: {reason}", reason.word());
            if let StaleReason::Param { span: Some(span), .. } = reason
                && let Some(location) = manifest.texts.location(*span)
            {
                let _ = write!(lines, "\n    --> {location}");
            }
            lines.push('\n');
        }
        if let State::Pending { above: tasks, .. } = &task.state {
            let _ = writeln!(lines, "  upstream: waits for {}", awaited(plan, graph, tasks));
            above.extend(tasks.iter().map(|&i| plan.tasks[i].stage));
        }
        match groups.iter_mut().find(|(known, _)| *known == lines) {
            Some((_, parts)) => parts.push(task.part),
            None => groups.push((lines, vec![task.part])),
        }
    }
    for group in trial_groups(plan, stage) {
        let _ = writeln!(text, "{}: {}", group.name, group.state);
        let _ = if group.reason.is_empty() { Ok(()) } else { writeln!(text, "  {}", group.reason) };
        if let Some(location) = group.at.and_then(|span| manifest.texts.location(span)) {
            let _ = writeln!(text, "    --> {location}");
        }
    }
    if groups.is_empty() {
        let searches = graph.nodes[..graph.n_own].iter().enumerate();
        let readers = searches.filter(|(at, _)| graph.trials.iter().any(|t| t.search == *at && t.of == stage));
        let names: Vec<String> = readers.map(|(_, node)| format!("`{}`", node.name)).collect();
        let name = &graph.nodes[stage].name;
        let _ = if names.is_empty() {
            writeln!(text, "{name}: nothing reads it, and it has no tasks of its own")
        } else {
            writeln!(text, "{name}: has no tasks of its own, its trials are those of {}", names.join(", "))
        };
    }
    for (lines, parts) in groups {
        let _ = write!(text, "{}: {lines}", name(&graph.nodes[stage].name, &parts));
    }
    // A trial's own reasons are told with its search.
    above.retain(|&stage| graph.trial(stage).is_none());
    above.sort_unstable();
    above.dedup();
    for stage in above {
        explain(plan, graph, stage, manifest, told, text);
    }
}
