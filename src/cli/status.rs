//! `status` and `why`: what is fresh, what is stale, and for what reason, with the manifest's lines.

use std::fmt::Write as _;

use std::sync::atomic::AtomicBool;

use super::arguments::{StatusArguments, WhyArguments};
use super::run::{run_error, threads, unknown_stage};
use super::terminal::Terminal;
use super::{Exit, check};
use crate::manifest::Manifest;
use crate::report::text::{Align, aligned};
use crate::runner::{Graph, Options, Plan, PlannedTask, Session, StaleReason, State};
use crate::stages::Part;
use crate::store::Access;

/// `status`.
pub fn status(arguments: &StatusArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(manifest) = check::load(&arguments.manifest, terminal)? else { return Ok(Exit::Usage) };
    let places = &arguments.places;
    let cancel = AtomicBool::new(false);
    let options = Options::new(threads(places), &cancel);
    let planned = Session::open(&manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), Access::Look)
        .and_then(|session| session.plan(&options));
    let plan = match planned {
        Ok(planned) => planned,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    terminal.result(&render(&plan, arguments.json));
    Ok(if arguments.exit_code && !plan.is_fresh() { Exit::Stale } else { Exit::Done })
}

/// A plan as lines (one a task; tasks of one stage that stand alike share one), or as JSON.
pub fn render(plan: &Plan, as_json: bool) -> String {
    let graph = &plan.graph;
    if as_json {
        let tasks: Vec<serde_json::Value> = plan
            .tasks
            .iter()
            .map(|task| {
                let (state, reasons) = standing(task);
                serde_json::json!({
                    "stage": graph.nodes[task.stage].name,
                    "part": task.part.to_string(),
                    "state": state,
                    "reasons": reasons.iter().map(|reason| serde_json::json!({
                        "reason": reason.word(), "text": reason.to_string(),
                    })).collect::<Vec<_>>(),
                })
            })
            .collect();
        return format!("{}\n", serde_json::json!({ "is_fresh": plan.is_fresh(), "tasks": tasks }));
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (stage, node) in graph.nodes.iter().enumerate() {
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
    let n_fresh = plan.tasks.iter().filter(|task| task.state == State::Fresh).count();
    let _ = if plan.is_fresh() {
        writeln!(text, "nothing to do: {n_fresh} tasks are fresh")
    } else {
        writeln!(text, "{n_fresh} of {} tasks are fresh", plan.tasks.len())
    };
    text
}

/// `cnn`, `cnn, fold 1..5`, `cnn, fold 2 4`.
fn name(stage: &str, parts: &[Part]) -> String {
    let folds: Vec<u32> =
        parts.iter().filter_map(|part| if let Part::Fold(f) = part { Some(*f) } else { None }).collect();
    let is_run = folds.len() > 1 && folds.windows(2).all(|pair| pair[1] == pair[0] + 1);
    let mut text = stage.to_owned();
    match (folds.as_slice(), is_run) {
        ([], _) => {}
        ([first, .., last], true) => {
            let _ = write!(text, ", fold {first}..{last}");
        }
        (folds, _) => {
            let folds: Vec<String> = folds.iter().map(ToString::to_string).collect();
            let _ = write!(text, ", fold {}", folds.join(" "));
        }
    }
    if parts.contains(&Part::All) {
        text.push_str(", all");
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

fn line(plan: &Plan, graph: &Graph, task: &PlannedTask) -> String {
    let (state, reasons) = standing(task);
    let mut texts: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    if let (true, State::Pending { above, .. }) = (texts.is_empty(), &task.state) {
        let mut stages: Vec<&str> = above.iter().map(|&i| graph.nodes[plan.tasks[i].stage].name.as_str()).collect();
        stages.dedup();
        texts.push(format!("waits for `{}`", stages.join("`, `")));
    }
    format!("{state}\t{}", texts.join("; "))
}

/// `why`.
pub fn why(arguments: &WhyArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(manifest) = check::load(&arguments.manifest, terminal)? else { return Ok(Exit::Usage) };
    let Some(stage) = manifest.stage(&arguments.stage) else {
        terminal.note(&unknown_stage(&manifest, &arguments.stage, terminal));
        return Ok(Exit::Usage);
    };
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
        terminal.result(&format!("{}\n", json(&plan, stage, &manifest)));
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    explain(&plan, &plan.graph, stage, &manifest, &mut Vec::new(), &mut text);
    terminal.result(&text);
    Ok(Exit::Done)
}

fn json(plan: &Plan, stage: usize, manifest: &Manifest) -> serde_json::Value {
    let tasks: Vec<serde_json::Value> = plan
        .of_stage(stage)
        .map(|task| {
            let (state, reasons) = standing(task);
            let reasons: Vec<serde_json::Value> = reasons
                .iter()
                .map(|reason| {
                    let mut value = serde_json::json!({ "reason": reason.word(), "text": reason.to_string() });
                    if let StaleReason::Param { key, old, new, span } = reason {
                        value["key"] = key.clone().into();
                        value["old"] = old.clone().into();
                        value["new"] = new.clone().into();
                        value["at"] =
                            span.and_then(|span| manifest.texts.location(span)).map(|at| at.to_string()).into();
                    }
                    value
                })
                .collect();
            serde_json::json!({ "part": task.part.to_string(), "state": state, "reasons": reasons })
        })
        .collect();
    serde_json::json!({ "stage": manifest.nodes[stage].name, "tasks": tasks })
}

/// The stage's own reasons, then those of the stages above that it waits for.
fn explain(
    plan: &Plan,
    graph: &Graph,
    stage: usize,
    manifest: &Manifest,
    told: &mut Vec<usize>,
    text: &mut String,
) {
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
            let mut stages: Vec<usize> = tasks.iter().map(|&i| plan.tasks[i].stage).collect();
            stages.dedup();
            for stage in stages {
                let _ = writeln!(lines, "  upstream: waits for `{}`", graph.nodes[stage].name);
                above.push(stage);
            }
        }
        match groups.iter_mut().find(|(known, _)| *known == lines) {
            Some((_, parts)) => parts.push(task.part),
            None => groups.push((lines, vec![task.part])),
        }
    }
    for (lines, parts) in groups {
        let _ = write!(text, "{}: {lines}", name(&graph.nodes[stage].name, &parts));
    }
    above.sort_unstable();
    above.dedup();
    for stage in above {
        explain(plan, graph, stage, manifest, told, text);
    }
}
