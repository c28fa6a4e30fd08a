//! Data sets that a `source` may name: what they are, where their files are looked for, and what is compiled in.
//!
//! An entry is a file `datasets/NAME.toml`. Those of this repository are compiled in as well, so that the program knows
//! them wherever it runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::reader::idx::Idx;
use super::reader::input::Input;
use super::reader::{self, Error, Found, GivenSplit};
use crate::files;
use crate::tensor::ImageShape;

/// The entries that are compiled in, by name.
const EMBEDDED: &[(&str, &str)] = &[
    ("cifar10", include_str!("../../datasets/cifar10.toml")),
    ("digits", include_str!("../../datasets/digits.toml")),
    ("mnist", include_str!("../../datasets/mnist.toml")),
];

const DIGITS_IMAGES: &[u8] = include_bytes!("../../datasets/digits/digits-images-idx3-ubyte.gz");
const DIGITS_LABELS: &[u8] = include_bytes!("../../datasets/digits/digits-labels-idx1-ubyte.gz");

/// Data sets that are compiled in whole.
pub const BUILTIN: &[&str] = &["digits"];

/// What is known of a data set before its files are touched.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// As a `source` names it.
    pub name: String,
    /// Its full name.
    pub title: String,
    /// Where to get it.
    pub homepage: String,
    /// Under which terms.
    pub licence: String,
    /// Whom to cite.
    pub citation: String,
    /// A name from [`reader::FORMATS`].
    pub format: String,
    /// Zeros where images differ.
    #[serde(default)]
    shape: [usize; 3],
    /// Number of images, all splits together.
    pub n_samples: usize,
    /// The classes' names, by label.
    pub classes: Vec<String>,
    splits: Vec<String>,
    /// Addresses of folders that have its files, in the order in which they are asked.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Its folder, relative to the project's root, if it is not `datasets/NAME`.
    #[serde(default)]
    pub place: Option<PathBuf>,
    /// Its files.
    pub files: Vec<File>,
}

/// A file of a data set, with the digest of its bytes, of its inflated bytes, or of both.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name, below the data set's folder; the same name with or without `.gz` will do where the digest is of the
    /// inflated bytes.
    pub name: String,
    /// Addresses of it.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// SHA-256, hexadecimal.
    pub sha256: Option<String>,
    /// Bytes once inflated.
    pub unpacked_size: Option<u64>,
    /// SHA-256 of the inflated bytes, hexadecimal.
    pub unpacked_sha256: Option<String>,
}

static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    // A test parses each of them, so none is lost here.
    EMBEDDED.iter().filter_map(|(_, text)| toml::from_str(text).ok()).collect()
});

/// The entries that are compiled in.
pub fn embedded() -> &'static [Entry] {
    &ENTRIES
}

/// The compiled-in entry called `name`.
pub fn entry(name: &str) -> Option<&'static Entry> {
    embedded().iter().find(|entry| entry.name == name)
}

/// Whether `source` has the form of a catalogue name, and not of a path.
pub fn is_name(source: &str) -> bool {
    !source.is_empty() && source.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// The entry called `name`: the project's own `datasets/NAME.toml` before the compiled-in one.
///
/// # Errors
/// If the file is there but is not an entry.
pub fn find_entry(name: &str, project_root: &Path) -> Result<Option<Entry>, Error> {
    let path = project_root.join("datasets").join(format!("{name}.toml"));
    let Ok(text) = fs::read_to_string(&path) else { return Ok(entry(name).cloned()) };
    let entry: Entry = toml::from_str(&text).map_err(|e| {
        let message = e.message().replace("unknown field", "unknown key").replace("missing field", "missing key");
        Error::new(format!("`{}` is not a catalogue entry: {}", path.display(), message.replace('\n', " ")))
    })?;
    let is_below = |path: &Path| {
        let mut parts = path.components().peekable();
        parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
    };
    let places = entry.place.iter().map(PathBuf::as_path);
    if let Some(odd) = entry.files.iter().map(|file| Path::new(&file.name)).chain(places).find(|path| !is_below(path)) {
        return Err(Error::new(format!(
            "`{}` names `{}`, which is not below its folder",
            path.display(),
            odd.display()
        )));
    }
    if entry.name != name {
        return Err(Error::new(format!("`{}` is named `{}`, expected `{name}`", path.display(), entry.name)));
    }
    Ok(Some(entry))
}

/// A built-in data set, and the bytes it consists of.
pub type Builtin = (Box<dyn Found>, [&'static [u8]; 2]);

/// The built-in data set called `name`, and the bytes it consists of.
pub fn builtin(name: &str) -> Option<Builtin> {
    (name == "digits").then(|| {
        let images = Input::Memory("digits-images-idx3-ubyte.gz", DIGITS_IMAGES);
        let labels = Input::Memory("digits-labels-idx1-ubyte.gz", DIGITS_LABELS);
        let found: Box<dyn Found> = Box::new(Idx::builtin(images, labels));
        (found, [DIGITS_IMAGES, DIGITS_LABELS])
    })
}

impl Entry {
    /// The shape of its images.
    pub fn shape(&self) -> ImageShape {
        let [height, width, channels] = self.shape;
        ImageShape { height, width, channels }
    }

    /// Whether it comes with this split.
    pub fn has_split(&self, split: GivenSplit) -> bool {
        self.splits.iter().any(|word| GivenSplit::parse(word) == Some(split))
    }

    /// Where its files are looked for, in this order.
    pub fn folders(&self, data_dir: Option<&Path>, root: &Path) -> Vec<PathBuf> {
        let named = data_dir.into_iter().flat_map(|dir| [dir.join(&self.name), dir.to_owned()]);
        let own = self.place.as_ref().map_or_else(|| root.join("datasets").join(&self.name), |place| root.join(place));
        named.chain([own]).collect()
    }

    /// Looks for its files in `folders`, in order, and recognises them.
    ///
    /// # Errors
    /// If no folder has them all, with where to put them.
    pub fn locate(&self, folders: &[PathBuf]) -> Result<Located, Error> {
        for folder in folders {
            let paths: Option<Vec<PathBuf>> = self.files.iter().map(|file| file.path_in(folder)).collect();
            let Some(paths) = paths else { continue };
            let source = if let ([path], true) = (&paths[..], self.format != "folders") { path } else { folder };
            let found = reader::find(source, &reader::Hints::default(), &self.format)?;
            if let reader::Files::Each(each) = found.files()
                && let Some((_, extra)) = each.iter().find(|(_, path)| !paths.contains(path))
            {
                return Err(Error::new(format!("`{}` is not a file of `{}`", extra.display(), self.name))
                    .help(format!("move it elsewhere, or set `source` to the folder `{}`", folder.display())));
            }
            return Ok(Located { found, paths, folder: folder.clone() });
        }
        let missing = |folder: &PathBuf| self.files.iter().find(|file| file.path_in(folder).is_none());
        let nearest = folders.iter().find(|folder| folder.is_dir()).or(folders.last());
        let detail = nearest.and_then(|folder| Some((folder, missing(folder)?)));
        let target = folders.last().map_or(String::new(), |folder| folder.display().to_string());
        let files: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        let message = match detail {
            Some((folder, file)) => {
                format!("the data set `{}` is not here: no `{}` in `{}`", self.name, file.name, folder.display())
            }
            None => format!("the data set `{}` is not here", self.name),
        };
        let shown = if files.len() > 4 {
            format!("{}`, …, `{}", files[0], files[files.len() - 1])
        } else {
            files.join("`, `")
        };
        let can_be_fetched = !self.mirrors.is_empty() || self.files.iter().all(|file| !file.urls.is_empty());
        let fetch = if can_be_fetched { format!("`convoy data fetch {}`, or ", self.name) } else { String::new() };
        let from = if self.homepage.is_empty() { String::new() } else { format!(" (from {})", self.homepage) };
        Err(Error::new(message)
            .help(format!("{fetch}put `{shown}`{from} into `{target}`, or name the folder above it with `--data-dir`")))
    }
}

/// A data set whose files are there, unchecked.
#[derive(Debug)]
pub struct Located {
    /// The source.
    pub found: Box<dyn Found>,
    paths: Vec<PathBuf>,
    folder: PathBuf,
}

impl Located {
    /// Checks every file against the entry's digests.
    ///
    /// # Errors
    /// If one is another file than the entry names.
    pub fn verify(&self, entry: &Entry) -> Result<(), Error> {
        for (file, path) in entry.files.iter().zip(&self.paths) {
            file.verify(path, &entry.name)?;
        }
        if matches!(self.found.files(), reader::Files::Folder(_)) {
            let known: BTreeSet<&PathBuf> = self.paths.iter().collect();
            if let Some(extra) = files_below(&self.folder)?.into_iter().find(|path| !known.contains(path)) {
                return Err(Error::new(format!("`{}` is not a file of `{}`", extra.display(), entry.name)).help(
                    format!("move it elsewhere, or write the entry anew with `convoy data add {}`", entry.name),
                ));
            }
        }
        Ok(())
    }
}

/// The files below a folder of images, sorted by path: those that ingest may read.
///
/// # Errors
/// If a folder cannot be read.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let is_source = |entry: &walkdir::DirEntry| {
        entry.depth() == 0 || !files::is_no_source(entry.path(), entry.file_type().is_dir())
    };
    let mut found = Vec::new();
    let walk = walkdir::WalkDir::new(folder).follow_links(true).sort_by_file_name();
    for entry in walk.into_iter().filter_entry(is_source) {
        let entry = entry.map_err(|error| Error::new(format!("cannot read `{}`: {error}", folder.display())))?;
        if !entry.file_type().is_dir() && !files::is_text_name(entry.path()) {
            found.push(entry.into_path());
        }
    }
    found.sort();
    Ok(found)
}

/// The size and the SHA-256, in hexadecimal digits, of a file's bytes.
///
/// # Errors
/// If it cannot be read, or is no regular file.
pub fn digest_of(path: &Path) -> Result<(u64, String), Error> {
    let input = Input::Path(path.to_owned());
    digest(&mut input.open_raw()?, &input)
}

impl File {
    /// Where it is in a folder, if it is there.
    pub fn path_in(&self, folder: &Path) -> Option<PathBuf> {
        let plain = self.name.strip_suffix(".gz").unwrap_or(&self.name);
        let mut names = vec![self.name.clone()];
        if self.unpacked_sha256.is_some() {
            names.extend([plain.to_owned(), format!("{plain}.gz")]);
        }
        names.into_iter().map(|name| folder.join(name)).find(|path| path.is_file())
    }

    /// Checks the file at `path` against its size and digests; with none of them known, anything will do.
    ///
    /// # Errors
    /// If it is another one, or cannot be read.
    pub fn verify(&self, path: &Path, name: &str) -> Result<(), Error> {
        if self.sha256.is_none() && self.unpacked_sha256.is_none() {
            return Ok(());
        }
        let input = Input::Path(path.to_owned());
        let is =
            |expected: &Option<String>, got: &str| expected.as_deref().is_some_and(|e| e.eq_ignore_ascii_case(got));
        if self.sha256.is_some() {
            let (len, sha256) = digest(&mut input.open_raw()?, &input)?;
            if is(&self.sha256, &sha256) && self.size.is_none_or(|size| size == len) {
                return Ok(());
            }
        }
        if self.unpacked_sha256.is_some() {
            let (len, sha256) = digest(&mut input.open()?, &input)?;
            if is(&self.unpacked_sha256, &sha256) && self.unpacked_size.is_none_or(|size| size == len) {
                return Ok(());
            }
        }
        Err(input
            .wrong(format_args!("is not the file of `{name}`: its SHA-256 is another"))
            .help("fetch it anew, or set `source` to its path to read it unchecked"))
    }
}

fn digest(stream: &mut dyn std::io::Read, input: &Input) -> Result<(u64, String), Error> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut len = 0;
    loop {
        let n = stream.read(&mut buffer).map_err(|e| input.error(e))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        len += n as u64;
    }
    let hex = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((len, hex))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pixels::Limits;

    const LIMITS: Limits = Limits { max_pixels: 1 << 20, max_bytes: 1 << 20 };

    #[test]
    fn every_embedded_entry_parses_under_its_name() {
        assert_eq!(embedded().len(), EMBEDDED.len());
        for (name, _) in EMBEDDED {
            let entry = entry(name).unwrap();
            assert!(!entry.classes.is_empty() && !entry.files.is_empty(), "{name}");
            for file in &entry.files {
                assert!(file.sha256.is_some() || file.unpacked_sha256.is_some(), "{name}: {}", file.name);
            }
        }
    }

    #[test]
    fn digits_is_what_its_entry_says() {
        let (found, bytes) = builtin("digits").unwrap();
        let entry = entry("digits").unwrap();
        for (file, bytes) in entry.files.iter().zip(bytes) {
            let input = Input::Memory("digits", bytes);
            let (_, sha256) = digest(&mut input.open_raw().unwrap(), &input).unwrap();
            assert_eq!(file.sha256.as_ref(), Some(&sha256));
        }
        let reader = found.open(&LIMITS).unwrap();
        assert_eq!(reader.n_samples(), entry.n_samples as u64);
        assert_eq!(reader.classes(), entry.classes);
    }

    #[test]
    fn an_absent_data_set_says_where_to_put_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = entry("mnist").unwrap().locate(&[folder.path().join("mnist")]).unwrap_err();
        assert!(error.message.contains("no `train-images-idx3-ubyte.gz` in"), "{error}");
        assert!(error.help.unwrap().contains("--data-dir"));
    }

    #[test]
    fn another_file_of_the_same_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let entry = entry("digits").unwrap();
        for (file, bytes) in entry.files.iter().zip([DIGITS_IMAGES, DIGITS_LABELS]) {
            fs::write(folder.path().join(&file.name), bytes).unwrap();
        }
        let folders = [folder.path().to_owned()];
        entry.locate(&folders).unwrap().verify(entry).unwrap();
        let mut other = DIGITS_LABELS.to_vec();
        // The time in a gzip header: the same labels in another file.
        other[4] ^= 1;
        fs::write(folder.path().join(&entry.files[1].name), other).unwrap();
        let error = entry.locate(&folders).unwrap().verify(entry).unwrap_err();
        assert!(error.message.contains("is not the file of `digits`"), "{error}");
    }
}
