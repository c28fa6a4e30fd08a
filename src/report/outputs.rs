//! `out/NAME/` on the disk: it holds what this run writes and nothing else of ours.
//!
//! `run.json` notes the digest of each file that was written. What a later run does not write any more (a stage was
//! removed, a part is stale again) is removed, if it is still what was noted, and only under a name that this program
//! gives: an edited file, and whatever somebody else put there, stays and is named.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::content::{FOLDER, HTML, MARKDOWN, SHORT};
use super::matrix::MATRIX;
use super::{PICTURES, TABLES};
use crate::files::{self, Folder, RUN, document};

/// The file with the times of tasks.
pub const TIMINGS: &str = "timings.csv";

/// The file with the manifest as it was run.
pub const MANIFEST: &str = "manifest.toml";

/// The file with the scores as nested numbers.
pub const METRICS_JSON: &str = "metrics.json";

/// The largest report that is read back, in bytes; larger ones are rewritten and never pruned.
const MOST: u64 = 4 << 30;

/// What was noted of an output folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Noted {
    /// The BLAKE3 digest of each file, in hexadecimal, by its path relative to the folder, with `/` between names.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

impl Noted {
    /// What `run.json` of this folder notes; nothing, where it is not there or cannot be read: then nothing is removed.
    pub fn read(out_dir: &Path) -> Noted {
        let bytes = files::read_regular(&out_dir.join(RUN), document::MOST).unwrap_or_default();
        document::from_bytes(&bytes, None).unwrap_or_default()
    }
}

/// What became of an output folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// What is to be noted of it.
    pub noted: Noted,
    /// Files of an earlier run that were edited since, and so were left.
    pub left: Vec<PathBuf>,
}

/// Writes these files (by their path within `out_dir`), each atomically and only if it holds something else, sweeps
/// what killed runs left, and removes what `before` notes and this run does not write.
///
/// # Errors
/// Those of writing, with the path. What cannot be removed is left.
pub fn write(out_dir: &Path, reports: &BTreeMap<PathBuf, Vec<u8>>, before: &Noted) -> Result<Written, files::Error> {
    let mut written = Written::default();
    for (name, bytes) in reports {
        files::replace(&out_dir.join(name), bytes, false)?;
        written.noted.files.insert(shown(name), blake3::hash(bytes).to_hex().to_string());
    }
    let folders = reports.keys().map(PathBuf::as_path).chain(before.files.keys().map(Path::new));
    let mut folders: Vec<PathBuf> =
        folders.filter_map(|name| Some(out_dir.join(name.parent()?))).chain([out_dir.to_owned()]).collect();
    folders.sort();
    folders.dedup();
    folders.iter().for_each(|folder| files::sweep(folder));
    for (name, digest) in &before.files {
        if written.noted.files.contains_key(name) || !is_ours(name) {
            continue;
        }
        let path = out_dir.join(name);
        let is_noted = match files::read_regular(&path, MOST) {
            Ok(bytes) => blake3::hash(&bytes).to_hex().as_str() == digest,
            Err(error) if error.cause.kind() == std::io::ErrorKind::NotFound => continue,
            Err(_) => false,
        };
        if !is_noted || remove(out_dir, name).is_err() {
            written.left.push(PathBuf::from(name));
        }
    }
    Ok(written)
}

/// Removes a file, and its folder if that is empty then, by the folders' descriptors: no link is followed.
fn remove(out_dir: &Path, name: &str) -> std::io::Result<()> {
    remove_in(&Folder::open(out_dir)?, name)
}

fn remove_in(folder: &Folder, name: &str) -> std::io::Result<()> {
    match name.split_once('/') {
        None => folder.remove(name),
        Some((inner, name)) => {
            remove_in(&folder.inner(inner)?, name)?;
            // It stays where something else is in it.
            let _ = folder.remove_folder(inner);
            Ok(())
        }
    }
}

fn shown(path: &Path) -> String {
    let names: Vec<String> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.join("/")
}

/// Whether a path is one that this program gives to a report: a table, a table or a picture in a folder; all of them in a
/// variant's folder, too.
fn is_ours(name: &str) -> bool {
    let path = Path::new(name);
    let are_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !are_plain || name.contains('\\') {
        return false;
    }
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let is_variant = |folder: &str| folder.contains('=') || folder.strip_prefix('v').is_some_and(is_number);
    match name.split_once('/') {
        Some((folder, name)) if is_variant(folder) => is_report(name),
        _ => name == MATRIX || is_report(name),
    }
}

fn is_report(name: &str) -> bool {
    let is_table = |name: &str| TABLES.iter().any(|table| table.file == name);
    match name.split('/').collect::<Vec<_>>()[..] {
        [name] => {
            is_table(name)
                || [MANIFEST, METRICS_JSON, HTML, MARKDOWN, SHORT].contains(&name)
                || name.starts_with("trials-") && name.ends_with(".svg")
        }
        ["curves" | "components" | "filters", picture] if picture.ends_with(".svg") => true,
        [folder, picture] if folder == FOLDER && (picture.ends_with(".svg") || picture.ends_with(".png")) => true,
        [folder, name] => {
            let is_picture = |(_, file): &(&str, &str)| {
                let stem = file.split('.').next().unwrap_or(file);
                folder == stem.split('-').next().unwrap_or(stem) && name.ends_with(".png")
            };
            is_table(name) || name.starts_with("trials-") && name.ends_with(".svg") || PICTURES.iter().any(is_picture)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn reports(names: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
        names.iter().map(|name| (PathBuf::from(name), format!("{name}\n").into_bytes())).collect()
    }

    fn listed(dir: &Path) -> Vec<String> {
        let files = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().map(Result::unwrap);
        files.filter(|f| !f.file_type().is_dir()).map(|f| shown(f.path().strip_prefix(dir).unwrap())).collect()
    }

    #[test]
    fn what_is_no_longer_written_goes_unless_it_was_edited_or_is_not_ours() {
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out/x");
        let all = ["metrics.csv", "trials.csv", "curves/cnn.svg", "filters/cnn-start.png", "weights.csv"];
        let first = write(&out, &reports(&all), &Noted::default()).unwrap();
        assert_eq!(first.noted.files.len(), 5);
        fs::write(out.join("weights.csv"), "edited").unwrap();
        fs::write(out.join("notes.txt"), "mine").unwrap();
        fs::write(out.join(".convoy-0123456789abcdef"), "half").unwrap();
        let second = write(&out, &reports(&["metrics.csv"]), &first.noted).unwrap();
        assert_eq!(second.left, [PathBuf::from("weights.csv")]);
        assert_eq!(listed(&out), ["metrics.csv", "notes.txt", "weights.csv"]);
        assert!(!out.join("curves").exists());
    }

    #[test]
    fn a_note_cannot_remove_what_this_program_does_not_write() {
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out/x");
        fs::create_dir_all(&out).unwrap();
        fs::create_dir(temp.path().join("photos")).unwrap();
        let mut noted = Noted::default();
        for name in ["../../thesis.csv", "model.safetensors", "curves/../../../thesis.csv", "/etc/passwd", "a/b/c.csv"]
        {
            noted.files.insert(name.to_owned(), blake3::hash(b"mine").to_hex().to_string());
        }
        fs::write(temp.path().join("thesis.csv"), "mine").unwrap();
        fs::write(out.join("model.safetensors"), "mine").unwrap();
        fs::write(temp.path().join("photos/a.svg"), "mine").unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(temp.path().join("photos"), out.join("curves")).unwrap();
            noted.files.insert("curves/a.svg".to_owned(), blake3::hash(b"mine").to_hex().to_string());
        }
        write(&out, &reports(&["metrics.csv"]), &noted).unwrap();
        assert!(temp.path().join("thesis.csv").exists());
        assert!(out.join("model.safetensors").exists());
        assert!(temp.path().join("photos/a.svg").exists());
    }

    #[test]
    fn every_report_has_a_name_that_is_ours() {
        for table in TABLES {
            assert!(is_ours(table.file) && is_ours(&format!("cnn/{}", table.file)), "{}", table.file);
        }
        for name in [
            "filters/cnn.svg",
            "filters/cnn-fold-1-start.png",
            "components/pca-all.svg",
            "figures/confusion-evaluate-test.svg",
            HTML,
            MARKDOWN,
            SHORT,
            "curves/cnn.svg",
            "trials-slices.svg",
            METRICS_JSON,
            MATRIX,
            "optimizer=adam,seed=2/metrics.csv",
            "seed=2/curves/cnn.svg",
            "v17/manifest.toml",
        ] {
            assert!(is_ours(name), "{name}");
        }
        for name in [
            "",
            "x.csv",
            "filters",
            "filters/x.txt",
            "a/b/metrics.csv",
            "./metrics.csv",
            "..",
            "a\\metrics.csv",
            "seed=1/matrix.csv",
            "seed=1/x/y/metrics.csv",
            "seed=1/../x/metrics.csv",
        ] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
