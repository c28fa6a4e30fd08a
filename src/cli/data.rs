//! `data`: the catalogue; whether a data set's files are here and are what it says; loading them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::Exit;
use super::arguments::DataVerb;
use super::dataset::{self, entry_of, tell};
use super::progress::{Progress, Told};
use super::terminal::Terminal;
use crate::data::catalogue::{self, Entry};
use crate::data::fetch::{self, Fetched, Patience, Step};
use crate::data::reader::{self, names_in};
use crate::manifest::shown_path;
use crate::report::text::{Align, aligned, bytes, grouped};
use crate::store;

/// `data`.
pub fn data(verb: &DataVerb, terminal: &Terminal) -> anyhow::Result<Exit> {
    match verb {
        DataVerb::List { json } => Ok(list(*json, terminal)),
        DataVerb::Show { data, sheet, data_dir, json } => {
            dataset::show(data, sheet.as_deref(), data_dir.as_deref(), *json, terminal)
        }
        DataVerb::Fetch { data, sha256, called, data_dir, offline, timeout, json, quiet } => {
            let fetch = Fetch {
                data_dir: data_dir.as_deref(),
                is_offline: *offline,
                patience: Patience { silence: Duration::from_secs(*timeout), ..Patience::default() },
                is_json: *json,
                is_quiet: *quiet,
            };
            match data.contains("://") {
                true => fetch.file(data, sha256.as_deref(), called.as_deref(), terminal),
                false => fetch.set(data, terminal),
            }
        }
        DataVerb::Verify { name, data_dir, json } => verify(name, data_dir.as_deref(), *json, terminal),
        DataVerb::Add { dir, called, replace, data_dir, json } => {
            dataset::add(dir, called.as_deref(), *replace, data_dir.as_deref(), *json, terminal)
        }
    }
}

/// The catalogue's entries, those of the project's `datasets/` among them; one that cannot be read is told.
fn entries(terminal: &Terminal) -> Vec<Entry> {
    let root = store::project_root(Path::new("."));
    let own = names_in(&root.join("datasets")).unwrap_or_default();
    let own = own.iter().filter_map(|name| name.strip_suffix(".toml"));
    let mut names: Vec<&str> = catalogue::embedded().iter().map(|entry| entry.name.as_str()).chain(own).collect();
    names.sort_unstable();
    names.dedup();
    let mut entries = Vec::new();
    for name in names {
        match catalogue::find_entry(name, &root) {
            Ok(entry) => entries.extend(entry),
            Err(error) => terminal.warning(&error.message),
        }
    }
    entries
}

fn list(is_json: bool, terminal: &Terminal) -> Exit {
    let entries = entries(terminal);
    let shape = |entry: &Entry| if entry.shape().is_empty() { "various".to_owned() } else { entry.shape().to_string() };
    if is_json {
        let sets = entries.iter().map(|entry| {
            json!({
                "name": entry.name, "images": entry.n_samples, "shape": shape(entry),
                "classes": entry.classes, "licence": entry.licence, "title": entry.title,
            })
        });
        terminal.json(json!({ "data_sets": sets.collect::<Vec<_>>() }));
        return Exit::Done;
    }
    let row = |entry: &Entry| {
        let (n_images, n_classes) = (grouped(entry.n_samples as u64), entry.classes.len().to_string());
        vec![entry.name.clone(), n_images, shape(entry), n_classes, entry.title.clone()]
    };
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    let aligns = [Align::Left, Align::Right, Align::Right, Align::Right, Align::Left];
    terminal.result(&aligned(&["name", "images", "shape", "classes", "title"], &aligns, &rows));
    let licences = entries.iter().map(|entry| vec![entry.name.clone(), entry.licence.clone()]);
    let licences = aligned(&["name", "licence"], &[Align::Left; 2], &licences.collect::<Vec<_>>());
    terminal.result(&format!("\n{licences}"));
    Exit::Done
}

/// How to load.
struct Fetch<'a> {
    data_dir: Option<&'a Path>,
    is_offline: bool,
    patience: Patience,
    is_json: bool,
    is_quiet: bool,
}

impl Fetch<'_> {
    /// A data set of the catalogue.
    fn set(&self, name: &str, terminal: &Terminal) -> anyhow::Result<Exit> {
        let root = store::project_root(Path::new("."));
        let entry = match entry_of(name, &root) {
            Ok(entry) => entry,
            Err(error) => {
                tell(&error, name, self.is_json, terminal);
                return Ok(Exit::Usage);
            }
        };
        if catalogue::BUILTIN.contains(&name) {
            self.told(name, "built in", &[], terminal);
            return Ok(Exit::Done);
        }
        let folders = entry.folders(self.data_dir, &root);
        let here = entry.locate(&folders);
        let ended = match here {
            Ok(located) => located.verify(&entry).map(|()| {
                let n = entry.files.len();
                self.told(name, &format!("{n} files are here, and are what the catalogue says"), &[], terminal);
            }),
            Err(error) if self.is_offline => Err(error),
            Err(_) => self.all(&entry, &root, terminal).map(|(folder, loaded)| {
                let n_bytes: u64 = loaded.iter().map(|(_, n)| n).sum();
                let n = entry.files.len();
                let text = format!("{n} files in `{}`, {} loaded", shown_path(&folder), bytes(n_bytes));
                self.told(name, &text, &loaded, terminal);
            }),
        };
        Ok(match ended {
            Ok(()) => Exit::Done,
            Err(error) => {
                tell(&error, name, self.is_json, terminal);
                Exit::Failed
            }
        })
    }

    /// Every file of an entry: where they are, and the bytes that were loaded of each.
    fn all(
        &self,
        entry: &Entry,
        root: &Path,
        terminal: &Terminal,
    ) -> Result<(PathBuf, Vec<(String, u64)>), reader::Error> {
        let folder = match (&entry.place, self.data_dir) {
            (Some(place), None) => root.join(place),
            _ => fetch::target(entry, self.data_dir, root),
        };
        let mut loaded = Vec::new();
        for file in &entry.files {
            let n = match self.one(file, &entry.name, &fetch::addresses(entry, file), &folder, terminal)? {
                Fetched::Here => 0,
                Fetched::Loaded(_, n) => n,
            };
            loaded.push((file.name.clone(), n));
        }
        entry.locate(std::slice::from_ref(&folder))?;
        Ok((folder, loaded))
    }

    fn one(
        &self,
        file: &catalogue::File,
        of: &str,
        urls: &[String],
        folder: &Path,
        terminal: &Terminal,
    ) -> Result<Fetched, reader::Error> {
        let progress = Progress::new(*terminal, self.is_quiet);
        let mut has_begun = false;
        let mut watch = |step: Step<'_>| match step {
            Step::Asking(url, here) => {
                if !std::mem::replace(&mut has_begun, true) {
                    let why = if here > 0 { format!("goes on at {}", bytes(here)) } else { String::new() };
                    progress.begin(Told { task: &file.name, stage: of, is_trial: false }, &why);
                }
                progress.update(&file.name, here, file.size.unwrap_or(0), "bytes", url);
            }
            Step::Loaded(done, total) => progress.update(&file.name, done, total.unwrap_or(0), "bytes", ""),
            Step::Failed(url, reason) => progress.warn(&format!("{url} {reason}")),
        };
        let fetched = fetch::fetch(file, of, urls, folder, self.patience, &mut watch);
        if has_begun {
            progress.end(&file.name, if fetched.is_ok() { "done" } else { "failed" });
        }
        progress.finish();
        fetched
    }

    /// One file from an address.
    fn file(&self, url: &str, sha256: Option<&str>, name: Option<&str>, terminal: &Terminal) -> anyhow::Result<Exit> {
        let refuse = |error: reader::Error| {
            tell(&error, url, self.is_json, terminal);
            Ok(Exit::Usage)
        };
        let name = match name {
            Some(name) if name.contains(['/', '\\']) || name.starts_with('.') || name.is_empty() => {
                return refuse(reader::Error::new(format!("`{name}` is no plain name of a file")));
            }
            Some(name) => name.to_owned(),
            None => match fetch::name_of(url) {
                Ok(name) => name,
                Err(error) => return refuse(error),
            },
        };
        if let Some(hex) = sha256
            && (hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return refuse(reader::Error::new(format!("`--sha256` expects 64 hexadecimal digits, got `{hex}`")));
        }
        let root = store::project_root(Path::new("."));
        let folder = self.data_dir.map_or_else(|| root.join("datasets"), Path::to_owned);
        let file = catalogue::File {
            name: name.clone(),
            urls: Vec::new(),
            size: None,
            sha256: sha256.map(str::to_owned),
            unpacked_size: None,
            unpacked_sha256: None,
        };
        let path = folder.join(&name);
        let fetched = if self.is_offline && !path.is_file() {
            Err(reader::Error::new(format!("`{}` is not here", path.display())).help("fetch it without `--offline`"))
        } else {
            self.one(&file, &name, &[url.to_owned()], &folder, terminal)
        };
        let ended = fetched.and_then(|fetched| Ok((fetched, catalogue::digest_of(&path)?)));
        match ended {
            Ok((fetched, (size, digest))) => {
                let n = if let Fetched::Loaded(_, n) = fetched { n } else { 0 };
                let checked = match sha256 {
                    Some(_) => "is what it should be".to_owned(),
                    None if fetched == Fetched::Here => {
                        format!("was here already and nothing was loaded; its SHA-256 is {digest}")
                    }
                    None => format!("was not checked, its SHA-256 is {digest}"),
                };
                let text = format!("`{}`, {}, {checked}", shown_path(&path), bytes(size));
                self.told(&name, &text, &[(name.clone(), n)], terminal);
                Ok(Exit::Done)
            }
            Err(error) => {
                tell(&error, &name, self.is_json, terminal);
                Ok(Exit::Failed)
            }
        }
    }

    fn told(&self, name: &str, text: &str, loaded: &[(String, u64)], terminal: &Terminal) {
        if self.is_json {
            let files = loaded.iter().map(|(file, n)| json!({ "file": file, "loaded_bytes": n }));
            terminal.json(json!({ "name": name, "ok": true, "files": files.collect::<Vec<_>>() }));
        } else {
            terminal.result(&format!("{name}: {text}\n"));
        }
    }
}

fn verify(name: &str, data_dir: Option<&Path>, is_json: bool, terminal: &Terminal) -> anyhow::Result<Exit> {
    let root = store::project_root(Path::new("."));
    let is_well = |n_files: usize, text: String| match is_json {
        true => terminal.json(json!({ "name": name, "ok": true, "files": n_files })),
        false => terminal.result(&text),
    };
    let entry = match entry_of(name, &root) {
        Ok(entry) => entry,
        Err(error) => {
            tell(&error, name, is_json, terminal);
            return Ok(Exit::Usage);
        }
    };
    if catalogue::BUILTIN.contains(&name) {
        is_well(0, format!("{name}: built in, {} images\n", grouped(entry.n_samples as u64)));
        return Ok(Exit::Done);
    }
    match entry.locate(&entry.folders(data_dir, &root)).and_then(|located| located.verify(&entry)) {
        Ok(()) => {
            is_well(entry.files.len(), format!("{name}: {} files are what the catalogue says\n", entry.files.len()));
            Ok(Exit::Done)
        }
        Err(error) => {
            tell(&error, name, is_json, terminal);
            Ok(Exit::Failed)
        }
    }
}
