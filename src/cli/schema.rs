//! `schema`: what every key of a manifest means and may be, as its reader declares it; what the columns of reports are.

use std::fmt::Write as _;

use super::Exit;
use super::arguments::SchemaArguments;
use super::terminal::{Document, Terminal};
use crate::artifact::columns;
use crate::config::{Declaration, Form, did_you_mean};
use crate::manifest::schema::{json_schema, stage_keys, top_keys};
use crate::nn::layer;
use crate::stages::KINDS;

/// `schema`.
pub fn schema(arguments: &SchemaArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    if arguments.json {
        terminal.result(&format!("{}\n", serde_json::to_string_pretty(&Document::of(json_schema()))?));
        return Ok(Exit::Done);
    }
    let pages = pages();
    if arguments.what.is_empty() {
        // The whole of it is long: keys of choices are left to whoever asks for them.
        let text: String = pages.iter().filter(|page| page.depth < 2).map(Page::text).collect();
        terminal.prose(&(text + "`convoy schema NAME` explains a stage, a layer, a choice or a key in full.\n"));
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    for what in &arguments.what {
        if let Some(file) = columns::file(what) {
            text.push_str(&text_of(file));
            continue;
        }
        let wanted = plain(what);
        let is_below = |path: &str, at: &str| path.strip_prefix(at).is_some_and(|rest| rest.starts_with('.'));
        let named: Vec<&str> = pages
            .iter()
            .map(|page| page.path.as_str())
            .filter(|path| *path == wanted || path.ends_with(&format!(".{wanted}")))
            .collect();
        if named.is_empty() {
            let files = columns::FILES.iter().chain(columns::ASIDE).map(|file| file.name);
            let names = pages.iter().filter_map(|page| page.path.rsplit('.').next());
            let help = did_you_mean(&wanted, names.chain(files))
                .unwrap_or_else(|| "`convoy schema` without a name lists the stages and their keys".to_owned());
            let message = format!("there is no stage, layer, choice, key or file `{what}`");
            terminal.fault(&message, Some(&help));
            return Ok(Exit::Usage);
        }
        let is_shown = |page: &&Page| named.iter().any(|at| page.path == *at || is_below(&page.path, at));
        pages.iter().filter(is_shown).for_each(|page| text.push_str(&page.text()));
    }
    terminal.prose(&text);
    Ok(Exit::Done)
}

/// What can be asked for, each with what it means.
pub fn names() -> Vec<(String, String)> {
    let files = columns::FILES.iter().chain(columns::ASIDE).filter(|file| !file.columns.is_empty());
    let files = files.map(|file| (file.name.to_owned(), file.meaning.to_owned()));
    pages().into_iter().map(|page| (page.path, page.meaning)).chain(files).collect()
}

/// A file of reports, and its columns.
fn text_of(file: &columns::File) -> String {
    let mut text = format!("\n[{}]\n    {}\n", file.name, file.meaning);
    for (column, meaning) in file.columns {
        let _ = write!(text, "{}\n    {meaning}\n", column.trim_end_matches('?'));
    }
    text
}

/// The keys that `--set` takes, from the kind of stage on, each with what it means: also those below a choice, none below a list.
pub fn settable() -> Vec<(String, String)> {
    fn add(found: &mut Vec<(String, String)>, above: &str, keys: &[Declaration]) {
        for key in keys {
            let path = format!("{above}.{}", key.key);
            found.push((path.clone(), key.meaning.to_owned()));
            below(found, &path, &key.form);
        }
    }
    fn below(found: &mut Vec<(String, String)>, path: &str, form: &Form) {
        match form {
            Form::Choice(choices) => {
                choices.iter().for_each(|choice| add(found, &format!("{path}.{}", choice.word), &choice.keys));
            }
            Form::Filled(form) => below(found, path, form),
            Form::Table(keys) | Form::Open(keys, _) => add(found, path, keys),
            Form::Either(forms) => forms.iter().for_each(|form| below(found, path, form)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    KINDS.iter().for_each(|kind| add(&mut found, kind.name, &stage_keys(kind)));
    found
}

/// `stages.train.augment[0].CROP` as pages have it: `train.augment.crop`.
fn plain(what: &str) -> String {
    let mut out = String::new();
    let mut is_index = false;
    for c in what.strip_prefix("stages.").unwrap_or(what).chars() {
        match c {
            '[' => is_index = true,
            ']' => is_index = false,
            c if !is_index => out.extend(c.to_lowercase()),
            _ => {}
        }
    }
    out
}

/// What is told of one stage, key, or choice.
struct Page {
    path: String,
    depth: usize,
    meaning: String,
    facts: Vec<String>,
}

impl Page {
    fn text(&self) -> String {
        let mut text = if self.depth == 0 { format!("\n[{}]\n", self.path) } else { format!("{}\n", self.path) };
        for line in std::iter::once(&self.meaning).chain(&self.facts).filter(|line| !line.is_empty()) {
            let _ = writeln!(text, "    {line}");
        }
        text
    }
}

/// Everything there is to tell, in the order in which it is declared.
fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    let page = |path: &str| Page { path: path.to_owned(), depth: 0, meaning: String::new(), facts: Vec::new() };
    pages.push(page("manifest"));
    add_keys(&mut pages, "manifest", 1, &top_keys());
    for kind in KINDS {
        pages.push(Page { facts: Vec::new(), ..page(kind.name) });
        add_keys(&mut pages, kind.name, 1, &stage_keys(kind));
    }
    pages
}

fn add_keys(pages: &mut Vec<Page>, above: &str, depth: usize, keys: &[Declaration]) {
    for key in keys {
        let path = format!("{above}.{}", key.key);
        let mut facts = vec![format!("value: {}", key.form.noun())];
        match &key.default {
            Some(default) => facts.push(format!("default: {default}")),
            None if key.is_required => facts.push("must be set".to_owned()),
            None => {}
        }
        facts.push(format!("example: {} = {}", key.key, key.example));
        if key.is_short {
            let choice = above.rsplit('.').next().unwrap_or(above);
            facts.push(format!("short: {choice} = {}", key.example));
        }
        if key.is_place {
            facts.push("says where something is: what is there counts, not where".to_owned());
        }
        pages.push(Page { path: path.clone(), depth, meaning: key.meaning.to_owned(), facts });
        add_form(pages, &path, depth + 1, &key.form);
    }
}

fn add_form(pages: &mut Vec<Page>, path: &str, depth: usize, form: &Form) {
    match form {
        Form::Words(words) => {
            for (word, meaning) in words {
                let path = format!("{path}.{word}");
                pages.push(Page { path, depth, meaning: (*meaning).to_owned(), facts: Vec::new() });
            }
        }
        Form::Choice(alternatives) => {
            for choice in alternatives {
                let path = format!("{path}.{}", choice.word);
                let mut facts = Vec::new();
                // A choice among layers has a name in the shorthand, too.
                let is_layer = path.ends_with(&format!(".layers.{}", choice.word));
                let layer = layer::KINDS.iter().find(|kind| is_layer && kind.word == choice.word);
                facts.extend(layer.map(|kind| match kind.positional {
                    [] => format!("shorthand: {}", kind.shorthand),
                    keys => format!("shorthand: {}({})", kind.shorthand, keys.join(", ")),
                }));
                pages.push(Page { path: path.clone(), depth, meaning: choice.meaning.to_owned(), facts });
                add_keys(pages, &path, depth + 1, &choice.keys);
            }
        }
        Form::List(item, _) | Form::Filled(item) | Form::Map(item) => add_form(pages, path, depth, item),
        Form::Table(keys) | Form::Open(keys, _) => add_keys(pages, path, depth, keys),
        Form::Either(forms) => forms.iter().for_each(|form| add_form(pages, path, depth, form)),
        Form::Flag
        | Form::Whole(_)
        | Form::Number(_)
        | Form::Text
        | Form::Name
        | Form::Source(_)
        | Form::Space
        | Form::Duration
        | Form::Comparison
        | Form::Anything => {}
    }
}
