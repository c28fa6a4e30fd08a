//! What differs between two sides, and how it is shown: as text, as Markdown for a pull request, for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Exit;
use super::locked::metric_line;
use crate::artifact::evaluation::GateResult;
use crate::escape::on_line;
use crate::report::changed_data::{DataChange, Moved};
use crate::report::compare::{self, Flip, Flips, MetricChange, shown_pair};
use crate::report::markdown::code;
use crate::report::text::{COLUMNS, wrapped};

/// So many images or predictions are named.
const MOST_NAMED: usize = 20;
/// So many metrics of models are shown in a comment.
const MOST_ROWS: usize = 50;

/// Everything that differs.
pub struct Changes {
    /// What the sides are called.
    pub sides: [String; 2],
    /// Keys, revisions and sources, in order, each with its place; `None`: not known.
    pub keys: Option<Vec<Key>>,
    /// By stage that reads data; `None` of the second: not known.
    pub data: Option<Vec<(String, Option<DataChange>)>>,
    /// Every metric; `None`: not known.
    pub metrics: Option<Vec<MetricChange>>,
    /// `None`: not known.
    pub flips: Option<Vec<Flips>>,
    /// Gates before and after; `None`: not known of one side.
    pub gates: Option<Vec<GateChange>>,
    /// Why something is not known here.
    pub notes: Vec<String>,
    /// What `--fail-on-worse` found, and whether it failed.
    pub worse: Option<(Vec<String>, bool)>,
}

/// A key, a revision or a source that changed.
pub struct Key {
    /// In words.
    pub text: String,
    /// The stage.
    pub stage: String,
    /// The key, its old and its new value, where it is one.
    pub key: Option<(String, String, String)>,
    /// Where the new value stands.
    pub at: Option<String>,
}

/// A gate on either side.
pub struct GateChange {
    /// `accuracy >= 0.97 on test of cnn`.
    pub name: String,
    /// Before, if it was there.
    pub old: Option<GateResult>,
    /// After, if it is there.
    pub new: Option<GateResult>,
}

/// What is said where a side does not know.
const NOT_KNOWN: &str = "not known here";

fn s(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

/// For a terminal.
pub fn text(changes: &Changes) -> String {
    let [a, b] = &changes.sides;
    let mut text = format!("{a} -> {b}\n\nkeys");
    match &changes.keys {
        None => text.push_str(&format!(": {NOT_KNOWN}\n")),
        Some(keys) if keys.is_empty() => text.push_str(": unchanged\n"),
        Some(keys) => {
            text.push('\n');
            for key in keys {
                let _ = writeln!(text, "  {}", wrapped(&key.text, COLUMNS - 2, "    "));
                if let Some(at) = &key.at {
                    let _ = writeln!(text, "    --> {at}");
                }
            }
        }
    }
    text.push_str("\ndata");
    match &changes.data {
        None => text.push_str(&format!(": {NOT_KNOWN}\n")),
        Some(data) if data.is_empty() => text.push_str(": no stage of both sides reads data\n"),
        Some(data) => {
            text.push('\n');
            for (stage, change) in data {
                let _ = writeln!(text, "  {stage}: {}", data_line(change.as_ref()));
                named(&mut text, change.as_ref().map(images).unwrap_or_default());
            }
        }
    }
    text.push_str("\nmetrics");
    match &changes.metrics {
        None => text.push_str(&format!(": {NOT_KNOWN}\n")),
        Some(metrics) if metrics.is_empty() => text.push_str(": none\n"),
        Some(metrics) if metrics.iter().all(MetricChange::is_same) => text.push_str(": unchanged\n"),
        Some(metrics) => {
            text.push('\n');
            for change in metrics.iter().filter(|change| !change.is_same()) {
                let line = metric_line(change).trim_start_matches("metric ").to_owned();
                let _ = writeln!(text, "  {}", wrapped(&line, COLUMNS - 2, "    "));
                if let Some(line) = interval_line(change) {
                    let _ = writeln!(text, "    {line}");
                }
            }
            let n = metrics.iter().filter(|change| change.is_same()).count();
            if n > 0 {
                let _ = writeln!(text, "  {n} unchanged");
            }
        }
    }
    text.push_str("\npredictions");
    match &changes.flips {
        None => text.push_str(&format!(": {NOT_KNOWN}\n")),
        Some(all) if all.is_empty() => text.push_str(": none of both sides\n"),
        Some(all) => {
            text.push('\n');
            for flips in all {
                let _ = writeln!(text, "  {}", flips_line(flips));
                named(&mut text, flips.flips.iter().map(flip_line).collect());
            }
        }
    }
    text.push_str("\ngates");
    match &changes.gates {
        None => text.push_str(&format!(": {NOT_KNOWN}\n")),
        Some(gates) if gates.is_empty() => text.push_str(": none\n"),
        Some(gates) => {
            text.push('\n');
            for gate in gates {
                let (old, new) = (passed(gate.old.as_ref()), passed(gate.new.as_ref()));
                let _ = writeln!(text, "  {}: {old} -> {new}", gate.name);
            }
        }
    }
    if !changes.notes.is_empty() {
        text.push('\n');
    }
    for note in &changes.notes {
        let _ = writeln!(text, "{}", wrapped(&on_line(note), COLUMNS, "  "));
    }
    text
}

fn passed(gate: Option<&GateResult>) -> String {
    match gate {
        None => "not there".to_owned(),
        Some(gate) => {
            let verdict = if gate.is_passed { "passed" } else { "FAILED" };
            gate.value.map_or_else(|| format!("{verdict}, no value"), |value| format!("{verdict} with {value:.4}"))
        }
    }
}

/// Some of many lines.
fn named(text: &mut String, lines: Vec<String>) {
    for line in lines.iter().take(MOST_NAMED) {
        let _ = writeln!(text, "    {}", on_line(line));
    }
    if lines.len() > MOST_NAMED {
        let _ = writeln!(text, "    and {} more", lines.len() - MOST_NAMED);
    }
}

/// `2 added, 1 removed, 1 changed, 1 relabelled, 3 renamed; 24 -> 25 images`.
fn data_line(change: Option<&DataChange>) -> String {
    let Some(change) = change else { return NOT_KNOWN.to_owned() };
    if change.is_empty() {
        return "the same images, labels and names".to_owned();
    }
    let counts = [
        (change.added.len(), "added"),
        (change.removed.len(), "removed"),
        (change.changed.len(), "changed"),
        (change.relabelled.len(), "relabelled"),
        (change.renamed.len(), "renamed"),
    ];
    let counts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let n = change.n.map(|(old, new)| format!("; {old} -> {new} images")).unwrap_or_default();
    format!("{}{n}", counts.join(", "))
}

/// What is named of a data set: first what changes a label.
fn images(change: &DataChange) -> Vec<String> {
    let moved = |moved: &Moved| match &moved.new_path {
        Some(path) => format!("{} -> {path}", moved.path),
        None => moved.path.clone(),
    };
    let relabelled =
        change.relabelled.iter().map(|image| format!("relabelled  {}: {} -> {}", moved(image), image.old, image.new));
    let of = |word: &'static str, paths: &[String]| -> Vec<String> {
        paths.iter().map(|path| format!("{word:<10}  {path}")).collect()
    };
    relabelled
        .chain(of("changed", &change.changed))
        .chain(of("added", &change.added))
        .chain(of("removed", &change.removed))
        .chain(change.renamed.iter().map(|image| format!("renamed     {}", moved(image))))
        .collect()
}

fn interval_line(change: &MetricChange) -> Option<String> {
    let interval = |value: Option<compare::Value>| {
        let (low, high) = value?.interval?;
        Some(format!("[{low:.4}, {high:.4}]"))
    };
    let (old, new) = (interval(change.old)?, interval(change.new)?);
    Some(format!("95 % intervals {old} -> {new}"))
}

/// `cnn on test: 3 of 100 images flipped, 1 right now, 2 wrong now`.
fn flips_line(flips: &Flips) -> String {
    let (n, of) = (flips.flips.len(), flips.n_common);
    let counts = format!("{} right now, {} wrong now", flips.n_mended(), flips.n_broken());
    format!("{} on {}: {n} of {of} common image{} flipped, {counts}", flips.model, flips.split, s(of))
}

fn flip_line(flip: &Flip) -> String {
    let what = if flip.new == flip.actual {
        "right now"
    } else if flip.old == flip.actual {
        "wrong now"
    } else {
        "still wrong"
    };
    format!("{what:<11}  {}: {} -> {} (is {})", flip.path, flip.old, flip.new, flip.actual)
}

/// For a comment on a pull request.
pub fn markdown(changes: &Changes) -> String {
    let [a, b] = &changes.sides;
    let mut text = format!("### {} → {}\n", code(a), code(b));
    if let Some((lines, has_failed)) = &changes.worse {
        let verdict = if *has_failed { "**Worse beyond noise.**" } else { "Not worse beyond noise." };
        let _ = writeln!(text, "\n{verdict}");
        for line in lines {
            let _ = writeln!(text, "- {}", code(line));
        }
    }
    text.push_str("\n**Keys**");
    match &changes.keys {
        None => text.push_str(&format!(": {NOT_KNOWN}\n")),
        Some(keys) if keys.is_empty() => text.push_str(": unchanged\n"),
        Some(keys) => {
            text.push_str("\n\n| stage | key | old | new |\n|---|---|---|---|\n");
            for key in keys.iter().take(MOST_ROWS) {
                let _ = match &key.key {
                    Some((name, old, new)) => {
                        writeln!(text, "| {} | {} | {} | {} |", code(&key.stage), code(name), code(old), code(new))
                    }
                    None => writeln!(text, "| {} | {} | | |", code(&key.stage), code(&key.text)),
                };
            }
            more(&mut text, keys.len(), MOST_ROWS);
        }
    }
    text.push_str("\n**Data**");
    match &changes.data {
        None => text.push_str(&format!(": {NOT_KNOWN}\n")),
        Some(data) if data.is_empty() => text.push_str(": no stage of both sides reads data\n"),
        Some(data) => {
            text.push('\n');
            for (stage, change) in data {
                let _ = writeln!(text, "\n{}: {}", code(stage), data_line(change.as_ref()));
                list(&mut text, &change.as_ref().map(images).unwrap_or_default());
            }
        }
    }
    text.push_str("\n**Metrics**");
    match &changes.metrics {
        None => text.push_str(&format!(": {NOT_KNOWN}\n")),
        Some(metrics) if metrics.is_empty() => text.push_str(": none\n"),
        Some(metrics) if metrics.iter().all(MetricChange::is_same) => text.push_str(": unchanged\n"),
        Some(metrics) => {
            text.push_str("\n\n| model | split | metric | old | new | n | |\n|---|---|---|---:|---:|---:|---|\n");
            for change in metrics.iter().take(MOST_ROWS) {
                let value = |side: Option<compare::Value>| side.and_then(|side| side.value);
                let (old, new) = shown_pair(value(change.old), value(change.new));
                let cell = |shown: String, side: Option<compare::Value>| match side.and_then(|side| side.interval) {
                    Some((low, high)) => format!("{shown} [{low:.4}, {high:.4}]"),
                    None => shown,
                };
                let (old, new) = (cell(old, change.old), cell(new, change.new));
                let n = change.new_n.or(change.old_n).map(|n| n.to_string()).unwrap_or_default();
                let judged = match &change.judged {
                    Some(judged) => judged.to_string(),
                    None if change.is_same() => "unchanged".to_owned(),
                    None if change.old.is_none() => "new".to_owned(),
                    None if change.new.is_none() => "gone".to_owned(),
                    None => format!("noise {NOT_KNOWN}"),
                };
                let judged = if change.is_worse_beyond_noise() { format!("**worse**, {judged}") } else { judged };
                let at = [&change.model, &change.split, &change.metric].map(|text| code(text)).join(" | ");
                let _ = writeln!(text, "| {at} | {old} | {new} | {n} | {judged} |");
            }
            more(&mut text, metrics.len(), MOST_ROWS);
        }
    }
    text.push_str("\n**Predictions**");
    match &changes.flips {
        None => text.push_str(&format!(": {NOT_KNOWN}\n")),
        Some(all) if all.is_empty() => text.push_str(": none of both sides\n"),
        Some(all) => {
            text.push('\n');
            for flips in all {
                let (n, of) = (flips.flips.len(), flips.n_common);
                let (model, split) = (code(&flips.model), code(&flips.split));
                let (mended, broken) = (flips.n_mended(), flips.n_broken());
                let _ = writeln!(
                    text,
                    "\n{model} on {split}: {n} of {of} common images flipped, {mended} right now, {broken} wrong now"
                );
                list(&mut text, &flips.flips.iter().map(flip_line).collect::<Vec<_>>());
            }
        }
    }
    text.push_str("\n**Gates**");
    match &changes.gates {
        None => text.push_str(&format!(": {NOT_KNOWN}\n")),
        Some(gates) if gates.is_empty() => text.push_str(": none\n"),
        Some(gates) => {
            text.push_str("\n\n| gate | old | new |\n|---|---|---|\n");
            for gate in gates {
                let (old, new) = (passed(gate.old.as_ref()), passed(gate.new.as_ref()));
                let _ = writeln!(text, "| {} | {old} | {new} |", code(&gate.name));
            }
        }
    }
    if !changes.notes.is_empty() {
        text.push('\n');
        for note in &changes.notes {
            let _ = writeln!(text, "- {}", code(note));
        }
    }
    text
}

fn more(text: &mut String, n: usize, most: usize) {
    if n > most {
        let _ = writeln!(text, "\nand {} more", n - most);
    }
}

fn list(text: &mut String, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    text.push('\n');
    for line in lines.iter().take(MOST_NAMED) {
        let _ = writeln!(text, "- {}", code(line));
    }
    more(text, lines.len(), MOST_NAMED);
}

/// For programs: `null` is what is not known.
pub fn json(changes: &Changes, exit: Exit) -> Value {
    let key = |key: &Key| {
        let part = |which: fn(&(String, String, String)) -> &String| key.key.as_ref().map(which);
        let (name, old, new) = (part(|key| &key.0), part(|key| &key.1), part(|key| &key.2));
        json!({ "text": key.text, "stage": key.stage, "key": name, "old": old, "new": new, "at": key.at })
    };
    let flips = |flips: &Flips| {
        json!({
            "model": flips.model, "split": flips.split, "n_common": flips.n_common, "n_flipped": flips.flips.len(),
            "n_right_now": flips.n_mended(), "n_wrong_now": flips.n_broken(),
            "flips": flips.flips.iter().take(MOST_NAMED).collect::<Vec<_>>(),
        })
    };
    let metric = |change: &MetricChange| {
        let mut json = serde_json::to_value(change).unwrap_or_default();
        json["same"] = change.is_same().into();
        json
    };
    let gate = |gate: &GateChange| json!({ "gate": gate.name, "old": gate.old, "new": gate.new });
    json!({
        "a": changes.sides[0], "b": changes.sides[1], "exit_code": exit as u8,
        "keys": changes.keys.as_ref().map(|keys| keys.iter().map(key).collect::<Vec<_>>()),
        "data": changes.data.as_ref().map(|data| {
            data.iter().map(|(stage, change)| json!({ "stage": stage, "change": change })).collect::<Vec<_>>()
        }),
        "metrics": changes.metrics.as_ref().map(|all| all.iter().map(metric).collect::<Vec<_>>()),
        "predictions": changes.flips.as_ref().map(|all| all.iter().map(flips).collect::<Vec<_>>()),
        "gates": changes.gates.as_ref().map(|gates| gates.iter().map(gate).collect::<Vec<_>>()),
        "worse": changes.worse.as_ref().map(|(lines, _)| lines),
        "notes": changes.notes,
    })
}
