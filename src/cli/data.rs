//! `data list` and `data verify`: the catalogue, and whether its files are here and are what it says.

use std::path::{Path, PathBuf};

use super::Exit;
use super::arguments::DataVerb;
use super::terminal::Terminal;
use crate::data::catalogue;
use crate::report::text::{Align, aligned, grouped};
use crate::store;

/// `data`.
pub fn data(verb: &DataVerb, terminal: &Terminal) -> anyhow::Result<Exit> {
    match verb {
        DataVerb::List { json: true } => {
            let sets = catalogue::embedded().iter().map(|entry| {
                serde_json::json!({
                    "name": entry.name, "images": entry.n_samples, "shape": entry.shape().to_string(),
                    "classes": entry.classes, "licence": entry.licence, "title": entry.title,
                })
            });
            terminal.json(serde_json::json!({ "data_sets": sets.collect::<Vec<_>>() }));
            Ok(Exit::Done)
        }
        DataVerb::List { json: false } => {
            let rows: Vec<Vec<String>> = catalogue::embedded()
                .iter()
                .map(|entry| {
                    vec![
                        entry.name.clone(),
                        grouped(entry.n_samples as u64),
                        entry.shape().to_string(),
                        entry.classes.len().to_string(),
                        entry.title.clone(),
                    ]
                })
                .collect();
            let aligns = [Align::Left, Align::Right, Align::Right, Align::Right, Align::Left];
            terminal.result(&aligned(&["name", "images", "shape", "classes", "title"], &aligns, &rows));
            let licences = catalogue::embedded().iter().map(|entry| vec![entry.name.clone(), entry.licence.clone()]);
            let licences = aligned(&["name", "licence"], &[Align::Left; 2], &licences.collect::<Vec<_>>());
            terminal.result(&format!("\n{licences}"));
            Ok(Exit::Done)
        }
        DataVerb::Verify { name, data_dir, json } => verify(name, data_dir.as_deref(), *json, terminal),
    }
}

fn verify(name: &str, data_dir: Option<&Path>, is_json: bool, terminal: &Terminal) -> anyhow::Result<Exit> {
    let root = store::project_root(Path::new("."));
    let error = |message: String, help: Option<&str>| {
        terminal.fault(&message, help);
        if is_json {
            let error = serde_json::json!({ "message": message, "help": help });
            terminal.json(serde_json::json!({ "name": name, "ok": false, "error": error }));
        }
    };
    let is_well = |n_files: usize, text: String| match is_json {
        true => terminal.json(serde_json::json!({ "name": name, "ok": true, "files": n_files })),
        false => terminal.result(&text),
    };
    let entry = match catalogue::find_entry(name, &root) {
        Ok(Some(entry)) => entry,
        Ok(None) => {
            let names = catalogue::embedded().iter().map(|entry| entry.name.as_str());
            let help = crate::config::did_you_mean(name, names.clone())
                .unwrap_or_else(|| format!("the catalogue has `{}`", names.collect::<Vec<_>>().join("`, `")));
            error(format!("unknown data set `{name}`"), Some(&help));
            return Ok(Exit::Usage);
        }
        Err(problem) => {
            error(problem.message, problem.help.as_deref());
            return Ok(Exit::Usage);
        }
    };
    if catalogue::BUILTIN.contains(&name) {
        is_well(0, format!("{name}: built in, {} images\n", grouped(entry.n_samples as u64)));
        return Ok(Exit::Done);
    }
    let folders: Vec<PathBuf> =
        data_dir.map(|dir| dir.join(name)).into_iter().chain([root.join("datasets").join(name)]).collect();
    match entry.locate(&folders).and_then(|located| located.verify(&entry)) {
        Ok(()) => {
            is_well(entry.files.len(), format!("{name}: {} files are what the catalogue says\n", entry.files.len()));
            Ok(Exit::Done)
        }
        Err(problem) => {
            error(problem.message, problem.help.as_deref());
            Ok(Exit::Failed)
        }
    }
}
