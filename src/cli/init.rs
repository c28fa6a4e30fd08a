//! `init`: a manifest to start from, a template or one that fits the data that is there.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::arguments::InitArguments;
use super::terminal::Terminal;
use super::{Exit, check, manifest};
use crate::config::{did_you_mean, quote};
use crate::data::reader::GivenSplit;
use crate::escape::on_line;
use crate::manifest::{Diagnostics, Manifest, Overrides};
use crate::report::text::grouped;
use crate::runner;
use crate::stages::{self, Glance, StageError};
use crate::tensor::SampleShape;

/// A manifest with places to fill in: `{name}`, `{source}`, `{file}`.
struct Template {
    word: &'static str,
    text: &'static str,
    /// Where its data is looked for, unless it is built in.
    source: Option<&'static str>,
}

const TEMPLATES: &[Template] = &[
    Template { word: "digits", text: include_str!("templates/digits.toml"), source: None },
    Template { word: "folder", text: include_str!("templates/folder.toml"), source: Some("images") },
    Template { word: "photos", text: include_str!("templates/photos.toml"), source: Some("photos") },
    Template { word: "csv", text: include_str!("templates/csv.toml"), source: Some("images.csv") },
    Template { word: "search", text: include_str!("templates/search.toml"), source: None },
    Template { word: "pca", text: include_str!("templates/pca.toml"), source: None },
];

/// The file that is written into a folder.
const FILE: &str = "pipeline.toml";

/// Writes a manifest, never over a file, checks it and says what to do next.
pub fn init(arguments: &InitArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let (template, path) = match wanted(arguments) {
        Ok(wanted) => wanted,
        Err((message, help)) => {
            terminal.fault(&message, Some(&help));
            return Ok(Exit::Usage);
        }
    };
    if path.symlink_metadata().is_ok() {
        terminal.fault(&format!("`{}` exists already", path.display()), Some("name another file"));
        return Ok(Exit::Usage);
    }
    let (text, absent) = match &arguments.from {
        None => (filled(template, &path), template.source),
        Some(data) => match Found::look(data, &path) {
            Ok(found) => (found.manifest(), None),
            Err(Refused::Diagnostics(wrong)) => {
                manifest::print(&wrong, terminal);
                return Ok(Exit::Usage);
            }
            Err(Refused::Data(error)) => {
                terminal.fault(&format!("`{}`: {}", data.display(), error.message), error.help.as_deref());
                return Ok(Exit::Usage);
            }
        },
    };
    let cannot = || format!("cannot write `{}`", path.display());
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(cannot)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).with_context(cannot)?;
    file.write_all(text.as_bytes()).with_context(cannot)?;
    drop(file);
    let (is_well, told) = checked(&path, terminal);
    let source = absent.map(|source| path.with_file_name(source)).filter(|source| source.symlink_metadata().is_err());
    let shown = path.display();
    if arguments.json {
        let name = if arguments.from.is_some() { None } else { Some(template.word) };
        terminal.json(serde_json::json!({
            "path": shown.to_string(), "template": name, "ok": is_well, "data": told,
        }));
    }
    terminal.note(&match (is_well, source) {
        (false, _) => format!("wrote {shown}; next: mend it, then convoy check --data {shown}"),
        (true, Some(source)) => {
            format!("wrote {shown}; next: put your images at {}, then convoy run {shown}", source.display())
        }
        (true, None) => format!("wrote {shown}; next: convoy run {shown}"),
    });
    if let Some(told) = told.filter(|_| !arguments.json) {
        terminal.note(&format!("  {told}"));
    }
    Ok(if is_well { Exit::Done } else { Exit::Usage })
}

/// Which template, and which file; else what is wrong, and what would help.
fn wanted(arguments: &InitArguments) -> Result<(&'static Template, PathBuf), (String, String)> {
    let find = |word: &Path| TEMPLATES.iter().find(|template| word.as_os_str() == template.word);
    let words = || TEMPLATES.iter().map(|template| template.word);
    let known = || format!("templates: {}", words().collect::<Vec<_>>().join(", "));
    let (template, place) = match &arguments.what[..] {
        [] => (&TEMPLATES[0], None),
        [one] => match find(one) {
            Some(template) if arguments.from.is_none() => (template, None),
            _ => {
                let typo = did_you_mean(&one.to_string_lossy(), words());
                if let (Some(help), false, None) = (typo, one.exists(), &arguments.from) {
                    return Err((format!("there is no template `{}`", one.display()), help));
                }
                (&TEMPLATES[0], Some(one))
            }
        },
        [word, place, ..] => match find(word) {
            Some(_) if arguments.from.is_some() => {
                let message = "`--from` and a template are two answers to the same question".to_owned();
                return Err((message, "leave one of them out".to_owned()));
            }
            Some(template) => (template, Some(place)),
            None => return Err((format!("there is no template `{}`", word.display()), known())),
        },
    };
    let path = match place {
        None => PathBuf::from(FILE),
        Some(place) if place.extension().is_some_and(|extension| extension == "toml") => place.clone(),
        Some(folder) => folder.join(FILE),
    };
    Ok((template, path))
}

fn filled(template: &Template, path: &Path) -> String {
    let text = template.text.replace("{name}", &name_of(path)).replace("{file}", &path.display().to_string());
    match template.source {
        Some(source) => text.replace("{source}", source),
        None => text,
    }
}

/// A name that a manifest may have, of a file's.
fn name_of(path: &Path) -> String {
    let stem = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = stem.split('.').find(|part| !part.is_empty()).unwrap_or("pipeline");
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let name: String = stem.chars().map(|c| if is_fine(c) { c } else { '-' }).take(64).collect();
    if name.chars().any(|c| c.is_ascii_alphanumeric()) { name } else { "pipeline".to_owned() }
}

/// Checks a manifest that was just written, with its data where that is here: whether it is well, and what the data is.
fn checked(path: &Path, terminal: &Terminal) -> (bool, Option<String>) {
    let manifest = match Manifest::load(path, &Overrides::default()) {
        Ok(manifest) => manifest,
        Err(wrong) => {
            manifest::print(&wrong, terminal);
            return (false, None);
        }
    };
    let places = runner::places(&manifest, None);
    let looked = manifest.look(&|stage| match manifest.nodes[stage].stage.sources(&places) {
        Ok(_) => check::glance(&manifest, stage, &places),
        // The template's data is not here yet, which is said below.
        Err(_) => Ok(None),
    });
    let problems = manifest.warnings.iter().cloned().chain(looked.problems).collect();
    let found = Diagnostics::new(problems, manifest.texts.clone());
    if !found.problems.is_empty() {
        manifest::print(&found, terminal);
    }
    (found.n_errors() == 0, looked.told.into_iter().next().map(|(_, told)| told))
}

/// Why there is no manifest for the data.
enum Refused {
    Diagnostics(Diagnostics),
    Data(StageError),
}

/// What a look at a source tells.
struct Found {
    name: String,
    /// As the manifest says it.
    source: String,
    /// Keys of `ingest` without which it cannot be read.
    keys: Vec<String>,
    glance: Glance,
    /// The same, in a sentence.
    told: String,
}

impl Found {
    /// Looks at `data`, for a manifest at `path`. What the stage asks for (one size, one number of channels) is added.
    fn look(data: &Path, path: &Path) -> Result<Found, Refused> {
        let source = as_written(data, path);
        let mut keys: Vec<String> = Vec::new();
        loop {
            let text = format!(
                "schema = 1\nname = \"m\"\n[stages.ingest]\nsource = {}\n{}\n",
                quote(&source),
                keys.join("\n")
            );
            let manifest = Manifest::from_bytes(path, text.as_bytes(), &Overrides::default(), stages::KINDS);
            let manifest = manifest.map_err(Refused::Diagnostics)?;
            let error = match check::glance(&manifest, 0, &runner::places(&manifest, None)) {
                Ok(Some((glance, told))) => {
                    return Ok(Found { name: name_of(data), source, keys, glance, told });
                }
                Ok(None) => StageError::new("nothing can be seen of it"),
                Err(error) => error,
            };
            match remedy(&error).filter(|key| !keys.contains(key)) {
                Some(key) => keys.push(key),
                None => return Err(Refused::Data(error)),
            }
        }
    }

    /// The manifest that fits.
    fn manifest(&self) -> String {
        let Found { glance, .. } = self;
        let has = |split| glance.given.contains(&Some(split));
        let (has_test, has_validation) = (has(GivenSplit::Test), has(GivenSplit::Validation));
        let is_training = |given: &Option<GivenSplit>| matches!(given, None | Some(GivenSplit::Train));
        let n_rest = glance.given.iter().filter(|given| is_training(given)).count();
        let n = if has_test { n_rest } else { n_rest * 4 / 5 }.max(1);
        let net = Net::for_shape(glance.shape, n);
        let has_groups = glance.groups.iter().any(Option::is_some);
        let mut counts = vec![0u64; glance.classes.len()];
        glance.labels.iter().for_each(|&label| counts[label as usize] += 1);
        let (most, least) = (counts.iter().max().copied().unwrap_or(0), counts.iter().min().copied().unwrap_or(0));
        let folds = if has_validation || net.is_large || n > 20_000 { 1 } else { 5 };
        let mut text = String::new();
        let mut line = |line: &str| {
            let _ = writeln!(text, "{line}");
        };
        line("#:schema ./convoy.schema.json");
        line(&format!("# {}", on_line(&self.told)));
        line("# For an editor that helps with the keys: convoy schema --json > convoy.schema.json");
        line(&format!("schema = 1\nname   = {}\nseed   = 1\n", quote(&self.name)));
        line(&format!("[stages.ingest]\nsource = {}", quote(&self.source)));
        self.keys.iter().for_each(|key| line(key));
        if let Some(side) = net.resize.filter(|_| !self.keys.iter().any(|key| key.starts_with("resize"))) {
            line(&format!("resize = {side}   # pixels on each side; larger ones take longer"));
        }
        line("\n[stages.split]");
        line(match has_test {
            true => "test  = \"given\"   # the data's own test split",
            false => "test  = 0.2       # held out until the end; the data has no split of its own",
        });
        line(&format!("folds = {folds}"));
        match (folds, has_validation) {
            (1, true) => line("validation = \"given\"   # the data's own"),
            (1, false) => line("validation = 0.1   # to watch"),
            _ => {}
        }
        if has_groups {
            line("group = \"group\"   # the images of a group stay together");
        }
        line("\n[stages.preprocess]\nsteps = [\"center\", \"scale\"]   # fitted on training images only");
        line(&format!("\n[stages.train]\n{}", net.keys));
        if most >= 10 * least.max(1) {
            line(&format!(
                "class_weights = \"balanced\"   # the largest class has {} images, the smallest {}",
                grouped(most),
                grouped(least)
            ));
        }
        if folds > 1 {
            line("\n[stages.ensemble]");
        }
        let share = most as f64 / glance.labels.len().max(1) as f64;
        let gate = (share * 100.0 + 5.0 - 1e-9).ceil().min(99.0) / 100.0;
        line(&format!(
            "\n[stages.evaluate]\n# Exit code 6 if it is not reached. The largest class alone gives {share:.2}: raise it to what you need.\n\
             gates = {{ accuracy = \">= {gate}\" }}"
        ));
        text
    }
}

/// A network and how it is trained.
struct Net {
    /// Whether images are photos rather than small pictures.
    is_large: bool,
    /// The size that images are to have, where theirs is too large.
    resize: Option<usize>,
    /// Keys of `train`.
    keys: String,
}

/// Sides, in pixels: of what is small, and what photos are brought to.
const SMALL: usize = 40;
const USUAL: usize = 64;
const LARGEST: usize = 96;

impl Net {
    /// For `n` training samples of `shape`.
    fn for_shape(shape: Option<SampleShape>, n: usize) -> Net {
        let epochs = |samples: usize, least: usize, most: usize| (samples / n).clamp(least, most);
        let common = "schedule      = \"cosine\"";
        let image = match shape {
            Some(SampleShape::Image(image)) => image,
            _ => {
                let keys = format!(
                    "architecture  = \"INPUT - FC(128) - RELU - DROPOUT(0.25) - FC\"\nepochs        = {}\n{common}",
                    epochs(40_000, 5, 30)
                );
                return Net { is_large: false, resize: None, keys };
            }
        };
        let side = image.height.min(image.width);
        if side < SMALL {
            let body = match side {
                0..8 => "FC(128) - RELU - DROPOUT(0.25) - FC",
                _ => {
                    "[CONV(32) - BN - RELU]*2 - POOL - [CONV(64) - BN - RELU]*2 - POOL - DROPOUT(0.25) - FC(128) - RELU - FC"
                }
            };
            let augment = match (side, image.channels) {
                (0..20, _) => String::new(),
                (_, 3) => {
                    "augment       = [\"flip\", { crop = { padding = 2, fill = \"edge\" } }]   # no flip for letters\n"
                        .to_owned()
                }
                _ => "augment       = [{ crop = { padding = 2, fill = \"edge\" } }]\n".to_owned(),
            };
            let epochs = epochs(100_000, 5, 30);
            let keys = format!(
                "architecture  = \"INPUT - {body}\"\n{augment}epochs        = {epochs}\nlearning_rate = 0.001   # `convoy \
                 selftest rate` looks for one\n{common}"
            );
            return Net { is_large: false, resize: None, keys };
        }
        // The template's, which was measured.
        let photos = include_str!("templates/photos.toml");
        let keys = photos.split("[stages.train]\n").nth(1).and_then(|rest| rest.split("\n\n[").next()).unwrap_or("");
        let of_template = keys.lines().find(|line| line.starts_with("epochs")).unwrap_or("");
        let keys = keys.replace(of_template, &format!("epochs          = {}", epochs(90_000, 10, 60)));
        let resize = (side > LARGEST || image.height != image.width).then_some(USUAL);
        Net { is_large: true, resize, keys }
    }
}

/// The key that an error of `ingest` asks for.
fn remedy(error: &StageError) -> Option<String> {
    let help = error.help.as_deref()?;
    if let Some(key) = help.strip_prefix("add `resize = ").and_then(|rest| rest.split('`').next()) {
        return key.parse::<u32>().ok().map(|side| format!("resize = {side}"));
    }
    let asks = |key: &str| help.starts_with(&format!("set `{key}` to"));
    if asks("channels") {
        return Some("channels = \"rgb\"".to_owned());
    }
    asks("depth").then(|| "depth = \"8\"".to_owned())
}

/// A source as a manifest at `path` says it: as it was given where that is relative to the manifest, else whole.
fn as_written(data: &Path, path: &Path) -> String {
    let is_here = path.parent().is_none_or(|folder| folder.as_os_str().is_empty() || folder == Path::new("."));
    let whole = || std::fs::canonicalize(data).unwrap_or_else(|_| data.to_owned());
    let shown = if data.is_absolute() || is_here { data.to_owned() } else { whole() };
    shown.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ImageShape;

    #[test]
    fn every_template_is_a_manifest() {
        for template in TEMPLATES {
            let text = filled(template, Path::new("first.toml"));
            let loaded =
                Manifest::from_bytes(Path::new("first.toml"), text.as_bytes(), &Overrides::default(), stages::KINDS);
            let manifest = loaded.unwrap_or_else(|wrong| panic!("{}: {wrong}", template.word));
            assert_eq!((manifest.name.as_str(), manifest.warnings.len()), ("first", 0), "{}", template.word);
            assert!(text.starts_with("#:schema ./convoy.schema.json\n"), "{}", template.word);
        }
    }

    #[test]
    fn names_are_those_that_a_manifest_may_have() {
        for (path, name) in [("a/b c.tar.gz", "b-c"), ("photos/", "photos"), ("..", "pipeline"), ("é.toml", "pipeline")]
        {
            assert_eq!(name_of(Path::new(path)), name, "{path}");
        }
    }

    #[test]
    fn manifests_fit_what_was_seen() {
        let found = |shape: (usize, usize, usize), given: &[Option<GivenSplit>], labels: &[u32], group: Option<u32>| {
            let (height, width, channels) = shape;
            let glance = Glance {
                shape: Some(SampleShape::Image(ImageShape { height, width, channels })),
                classes: vec!["a\nb".to_owned(), "c".to_owned()],
                labels: labels.to_vec(),
                groups: vec![group; labels.len()],
                given: given.to_vec(),
                ..Glance::default()
            };
            let found = Found {
                name: "n".to_owned(),
                source: "s \"1\"".to_owned(),
                keys: Vec::new(),
                glance,
                told: "a\nb".to_owned(),
            };
            let text = found.manifest();
            let loaded =
                Manifest::from_bytes(Path::new("n.toml"), text.as_bytes(), &Overrides::default(), stages::KINDS);
            loaded.unwrap_or_else(|wrong| panic!("{text}\n{wrong}"));
            text
        };
        let labels: Vec<u32> = (0..60).map(|i| u32::from(i % 12 == 0)).collect();
        let own: Vec<Option<GivenSplit>> =
            (0..60).map(|i| Some([GivenSplit::Train, GivenSplit::Validation, GivenSplit::Test][i % 3])).collect();
        let photos = found((200, 200, 3), &own, &labels, Some(1));
        for expected in [
            "resize = 64",
            "test  = \"given\"",
            "folds = 1",
            "validation = \"given\"",
            "group = \"group\"",
            "CONV(256)",
            "epochs          = 60",
            "class_weights = \"balanced\"",
        ] {
            assert!(photos.contains(expected), "{expected} in\n{photos}");
        }
        let small = found((28, 28, 1), &[None; 60], &[0, 1].repeat(30), None);
        for expected in ["test  = 0.2", "folds = 5", "crop", "[stages.ensemble]", "gates = { accuracy = \">= 0.55\" }"]
        {
            assert!(small.contains(expected), "{expected} in\n{small}");
        }
        for unexpected in ["resize", "flip", "class_weights", "group", "validation"] {
            assert!(!small.contains(unexpected), "{unexpected} in\n{small}");
        }
    }
}
