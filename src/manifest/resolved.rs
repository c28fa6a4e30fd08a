//! A manifest as it was run, as text: overrides and profile in force, defaults written out, paths from another folder.

use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use super::{Combination, Manifest, StageEntry, stage_name};
use crate::config::{Entry, Node, Table, Value, quote, rebuild, segment, toml};
use crate::stages::evaluate::is_lock;

/// Keys that are another spelling of each other: the one that is set says both.
const SPELLINGS: [&str; 2] = ["architecture", "layers"];

impl Manifest {
    /// A variant of the manifest as TOML that gives the same fingerprints from the folder `dir`, under another `name`: with the
    /// values that are in force. Defaults are written out, unless there is a search, whose trials override what is set.
    /// Relative places for which `is_place` holds are rewritten to be relative to `dir`.
    ///
    /// The text depends on the manifest, the overrides and where the folders are to one another, and on nothing else.
    pub fn resolved(
        &self,
        combination: &Combination,
        dir: &Path,
        name: &str,
        is_place: &dyn Fn(&str) -> bool,
    ) -> String {
        let mut text = format!("schema = 1\nname = {}\nseed = {}\n", quote(name), combination.seed);
        let Some(Node { value: Value::Table(stages), .. }) = combination.trials.stages() else { return text };
        let own = || combination.nodes.iter().map(|&at| (&self.nodes[at], &self.entries[at]));
        let has_search = own().any(|(node, _)| node.stage.search().is_some());
        let from = absolute(dir);
        let moved = |place: &str| {
            let is_relative = Path::new(place).is_relative() && is_place(place);
            is_relative.then(|| relative(&from, &absolute(&self.dir.join(place)))).flatten()
        };
        for stage in &stages.entries {
            let Value::Table(keys) = &stage.node.value else { continue };
            let Some((_, entry)) = own().find(|(node, _)| stage_name(&node.name) == stage.key) else { continue };
            let _ = writeln!(text, "\n[stages.{}]", segment(&stage.key));
            for own in &keys.entries {
                let mut value = own.node.value.clone();
                leave_out_lock_gates(&own.key, &mut value);
                for place in &entry.places {
                    let last = place.key.rsplit('.').next().unwrap_or(&place.key);
                    replace_places(&own.key, &mut value, last, &place.value, &moved);
                }
                let _ = writeln!(text, "{} = {}", segment(&own.key), toml(&value));
            }
            if !has_search {
                for (key, value) in defaults(entry, keys) {
                    let _ = writeln!(text, "{key} = {value}");
                }
            }
        }
        text
    }
}

/// Leaves out gates against lock files: they are no part of what is computed, and a lock file is of one manifest at its place.
fn leave_out_lock_gates(key: &str, of: &mut Value) {
    if let ("gates", Value::List(items)) = (key, of) {
        items.retain(|item| {
            let baseline = if let Value::Table(table) = &item.value { table.get("baseline") } else { None };
            !matches!(baseline.map(|entry| &entry.node.value), Some(Value::Text { text, .. }) if is_lock(text))
        });
    }
}

/// The keys of a stage that nobody set, with the values in force.
fn defaults(entry: &StageEntry, keys: &Table) -> Vec<(String, String)> {
    let of_nobody = entry.resolved.iter().filter(|resolved| {
        let first = resolved.key.split(['.', '[']).next().unwrap_or_default();
        keys.get(first).is_none()
            && !(SPELLINGS.contains(&first) && SPELLINGS.iter().any(|key| keys.get(key).is_some()))
    });
    let mut pairs: Vec<(String, String)> =
        of_nobody.map(|resolved| (resolved.key.clone(), resolved.value.clone())).collect();
    pairs.sort();
    // They were recorded to be read back.
    let table = rebuild(&pairs, &[]).unwrap_or_default();
    table.entries.iter().map(|entry| (segment(&entry.key), toml(&entry.node.value))).collect()
}

/// Rewrites the texts under a key called `last` that are the place `value` (as canonical TOML).
fn replace_places(key: &str, of: &mut Value, last: &str, value: &str, moved: &dyn Fn(&str) -> Option<String>) {
    match of {
        Value::Text { text, .. } if key == last && quote(text) == value => {
            if let Some(text) = moved(text) {
                *of = Value::Text { text, inner: None };
            }
        }
        Value::Table(table) => {
            for Entry { key, node, .. } in &mut table.entries {
                replace_places(key, &mut node.value, last, value, moved);
            }
        }
        Value::List(items) => {
            items.iter_mut().for_each(|item| replace_places(key, &mut item.value, last, value, moved))
        }
        _ => {}
    }
}

/// An absolute path without `.` and `..`, as it is written: links are not followed.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

/// `to` as seen from the folder `from`, with `/` between names; `None` between two drives, or where a name is not
/// Unicode.
fn relative(from: &Path, to: &Path) -> Option<String> {
    let n = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    if n == 0 {
        return None;
    }
    let up = from.components().skip(n).map(|_| "..".to_owned());
    let down = to.components().skip(n).map(|name| name.as_os_str().to_str().map(str::to_owned));
    let names: Option<Vec<String>> = up.map(Some).chain(down).collect();
    names.map(|names| if names.is_empty() { ".".to_owned() } else { names.join("/") })
}

#[cfg(test)]
mod tests {
    use super::super::Overrides;
    use super::*;
    use crate::stages::KINDS;

    fn load(text: &str, path: &str, sets: &[&str]) -> Manifest {
        let overrides = Overrides { sets: sets.iter().map(|set| (*set).to_owned()).collect(), profile: None };
        Manifest::from_bytes(Path::new(path), text.as_bytes(), &overrides, KINDS)
            .unwrap_or_else(|found| panic!("{found}"))
    }

    /// Of each stage: its name, its seed, what it reads, its keys.
    type Stages = Vec<(String, u64, Vec<usize>, Vec<(String, String)>)>;

    fn keys(manifest: &Manifest) -> Stages {
        let own = manifest.nodes.iter().zip(&manifest.entries);
        own.map(|(node, entry)| {
            let mut keys: Vec<(String, String)> =
                entry.resolved.iter().map(|resolved| (resolved.key.clone(), resolved.value.clone())).collect();
            keys.sort();
            (node.name.clone(), entry.seed, node.inputs.clone(), keys)
        })
        .collect()
    }

    #[test]
    fn every_shipped_manifest_is_the_same_when_it_is_resolved() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut n = 0;
        for folder in ["pipelines", "tests/manifests/good"] {
            for file in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_none_or(|ending| ending != "toml") {
                    continue;
                }
                let manifest = Manifest::load(&path, &Overrides::default()).unwrap_or_else(|found| panic!("{found}"));
                if manifest.has_variants() {
                    // Each of its variants is run from its own manifest in `tests/matrix.rs`.
                    continue;
                }
                let text = manifest.resolved(&manifest.combinations[0], &root.join("out/x"), "x.resolved", &|_| true);
                let again = load(&text, "out/x/manifest.toml", &[]);
                assert_eq!(keys(&again), keys(&manifest), "{}\n{text}", path.display());
                assert_eq!((again.seed, again.name.as_str()), (manifest.seed, "x.resolved"));
                n += 1;
            }
        }
        assert!(n > 20, "{n} manifests");
    }

    #[test]
    fn overrides_are_in_it_and_places_are_moved() {
        let text = "schema = 1\nname = \"m\"\nseed = 3\n[stages.ingest]\nsource = \"data/images\"\nlabels = \"l.npy\"\n\
                    [stages.split]\n[stages.train]\narchitecture = \"INPUT - FC\"\n[stages.evaluate]\n\
                    gates = { accuracy = { baseline = \"../good.csv\", max_drop = 0.1 } }\n";
        let manifest = load(text, "project/m.toml", &["stages.train.epochs=3", "stages.split.seed=9"]);
        let resolved =
            manifest.resolved(&manifest.combinations[0], Path::new("project/out/m"), "m.resolved", &|place| {
                place != "l.npy"
            });
        for line in [
            "source = \"../../data/images\"",
            "labels = \"l.npy\"",
            "epochs = 3",
            "seed = 9",
            "batch_size = 64",
            "gates = { accuracy = { baseline = \"../../../good.csv\", max_drop = 0.1 } }",
        ] {
            assert!(resolved.lines().any(|own| own == line), "`{line}` is not in\n{resolved}");
        }
        assert_eq!(keys(&load(&resolved, "project/out/m/manifest.toml", &[])), keys(&manifest));
        assert_eq!(relative(Path::new("/a/b"), Path::new("/a/b")).as_deref(), Some("."));
    }
}
