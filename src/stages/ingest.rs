//! `ingest`: files in, one packed data set out.

mod earlier;
mod glance;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use unicode_normalization::UnicodeNormalization as _;

use super::{
    Context, Flow, Given, Glance, Kind, Learns, Need, Output, Part, Places, Price, Source, Stage, StageError, Task,
    Upstream,
};
use crate::artifact::Sink;
use crate::artifact::dataset::{DatasetWriter, IMAGES, Row, Skipped};
use crate::config::{Form, Log, Problem, Section, Span, Value, did_you_mean, quote};
use crate::data::catalogue::{self, Entry, Located};
use crate::data::decode::{DecodePolicy, Decoded, Fault, Refused};
use crate::data::pixels::Depth;
use crate::data::reader::classes::{MAX_CLASSES, some_of};
use crate::data::reader::load::{Loaded, Plan, load};
use crate::data::reader::{self, Aside, FORMATS, Files, Found, GivenSplit, Hints, Pick, Reader};
use crate::tensor::{ImageShape, SampleShape};

use earlier::Earlier;

/// The line in the list of kinds.
pub const KIND: Kind = Kind { name: "ingest", read, example: EXAMPLE };

const EXAMPLE: &str = r#"schema = 1
name   = "example"
seed   = 42

[stages.ingest]
source   = "builtin:digits"
channels = "gray"
resize   = { width = 8, height = 8, fit = "stretch", filter = "triangle" }
"#;

/// Images a progress report covers.
const REPORT_EVERY: u64 = 256;

/// The stage's config.
#[derive(Clone, Debug)]
pub struct Ingest {
    source: String,
    labels: Option<String>,
    root: Option<String>,
    suffix: String,
    columns: Vec<String>,
    classes: Option<Vec<String>>,
    format: &'static str,
    policy: DecodePolicy,
    skips_corrupt: bool,
    max_corrupt: u64,
    allow_empty: bool,
    limit: Option<u64>,
}

fn read(section: &mut Section<'_>) -> Box<dyn Stage> {
    Box::new(read_config(section))
}

/// Reads the keys of `ingest`.
pub fn read_config(section: &mut Section<'_>) -> Ingest {
    let meaning = "A folder or file (relative to the manifest), a name of the catalogue, or `builtin:NAME`.";
    let source = section
        .key("source", meaning, "\"builtin:digits\"")
        .place_of(true, || Form::Source(catalogue::BUILTIN.iter().map(|name| format!("builtin:{name}")).collect()));
    if section.node("source").is_none() {
        let problem = Problem::error(section.span(), "missing key `source`")
            .help("add `source`: a folder, a file, a catalogue name, or `\"builtin:digits\"`");
        section.log().push(problem);
    }
    let meaning = "The file of labels, where a format has them apart (IDX, NPY, NPZ).";
    let labels = section.key("labels", meaning, "\"labels.npy\"").place(false).map(|(text, _)| text);
    let meaning = "The folder that a table's paths are relative to; absent: the table's own.";
    let root = section.key("root", meaning, "\"images\"").place(false).map(|(text, _)| text);
    let mut formats = vec![("auto", "What the content says.", "auto")];
    formats.extend(FORMATS.iter().map(|format| (format.name, format.meaning, format.name)));
    let format = section.key("format", "How the source is read.", "\"idx\"").word(&formats);
    if let Some((text, span)) = &source {
        check_source(text, *span, section.log());
    }
    let policy = DecodePolicy::read(section);
    let max_corrupt =
        section.key("max_corrupt", "Images that may be left out.", "10").whole(0..=i64::MAX as u64).or(100);
    if let Some(Value::List(_)) = section.node("source").map(|node| &node.value) {
        section.advise(
            "source",
            "one source is read: put folders below one folder, or list the files in a table of paths",
        );
    }
    match section.node("channels").map(|node| &node.value) {
        Some(Value::Integer(1)) => section.advise("channels", "write `channels = \"gray\"`"),
        Some(Value::Integer(_)) => section.advise("channels", "write `channels = \"rgb\"`"),
        _ => {}
    }
    section.advise("max_corrupt", "write the number of images that may be left out, such as `max_corrupt = 10`");
    check_resize(&policy, section.span(), section.log());
    Ingest {
        source: source.map_or(String::new(), |(text, _)| text),
        labels,
        root,
        suffix: section.key("suffix", "What a table's paths lack at their end, where it has ids.", "\".jpg\"").text(""),
        columns: super::read_names(
            section,
            "columns",
            "Columns of the source's table that are kept beside the images, for `by` of `evaluate`.",
            "[\"camera\"]",
        ),
        classes: read_classes(section),
        format,
        policy,
        skips_corrupt: section
            .key("on_corrupt", "What happens to an image that cannot be decoded.", "\"skip\"")
            .word(&[("error", "Nothing is ingested.", false), ("skip", "It is left out and listed.", true)]),
        max_corrupt,
        allow_empty: section.key("allow_empty", "Whether a class may have no image.", "true").flag(false),
        limit: section
            .key("limit", "At most this many images, evenly spread over the source; absent: all.", "1000")
            .whole(1..=i64::MAX as u64)
            .optional(),
    }
}

/// Reads the names of classes that the source only numbers.
fn read_classes(section: &mut Section<'_>) -> Option<Vec<String>> {
    let meaning = "Names of the classes, in the order of their labels, where the source only numbers them.";
    let form = || Form::List(Box::new(Form::Text), 2..=MAX_CLASSES);
    let node = section.key("classes", meaning, "[\"cat\", \"dog\"]").form(None, form)?;
    let items = match &node.value {
        Value::List(items) if (2..=MAX_CLASSES).contains(&items.len()) => items,
        _ => {
            section.expected("classes", node, format_args!("a list of 2 to {MAX_CLASSES} names"));
            return None;
        }
    };
    let mut names: Vec<String> = Vec::with_capacity(items.len());
    for item in items {
        match &item.value {
            Value::Text { text, .. } if text.is_empty() || names.contains(text) => {
                let what = if text.is_empty() { "an empty name".to_owned() } else { format!("`{text}` twice") };
                section.log().push(Problem::error(item.span, format!("`classes` has {what}")));
                return None;
            }
            Value::Text { text, .. } => names.push(text.clone()),
            _ => {
                section.expected("classes", item, "names as strings");
                return None;
            }
        }
    }
    let canonical = names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
    section.record("classes", format!("[{canonical}]"), Some(node.span));
    Some(names)
}

/// What `resize` makes is an image as well, with the limits of one.
fn check_resize(policy: &DecodePolicy, otherwise: Span, log: &mut Log) {
    let Some(resize) = policy.resize else { return };
    let shape = ImageShape { height: resize.height, width: resize.width, channels: 1 };
    if let Err(reason) = policy.limits.check_decoded(shape, Depth::U8) {
        let at = log.span_of("resize.width", log.span_of("resize", otherwise));
        let problem = Problem::error(at, format!("an image after `resize` {reason}"));
        log.push(problem.help("make `resize` smaller, or raise `max_pixels`"));
    }
}

fn check_source(text: &str, span: Span, log: &mut Log) {
    if text.is_empty() {
        log.push(Problem::error(span, "`source` is empty").help("set it to a folder, a file, or `\"builtin:digits\"`"));
    } else if let Some(name) = text.strip_prefix("builtin:")
        && !catalogue::BUILTIN.contains(&name)
    {
        let expected = catalogue::BUILTIN.join("`, `");
        let mut problem = Problem::error(span, format!("unknown built-in data set `{name}`, expected `{expected}`"));
        problem.help = did_you_mean(name, catalogue::BUILTIN.iter().copied());
        log.push(problem);
    }
}

/// A source that is there.
enum Resolved {
    Builtin(Box<dyn Found>, [&'static [u8]; 2]),
    Catalogue(Box<Entry>, Located),
    Path(Box<dyn Found>),
}

impl Resolved {
    fn found(&self) -> &dyn Found {
        match self {
            Resolved::Builtin(found, _) | Resolved::Path(found) => &**found,
            Resolved::Catalogue(_, located) => &*located.found,
        }
    }
}

impl Ingest {
    /// The entry that `check` may rely on, without looking at any file.
    fn known_entry(&self) -> Option<&'static Entry> {
        catalogue::entry(self.source.strip_prefix("builtin:").unwrap_or(&self.source))
    }

    fn no_columns(&self) -> reader::Error {
        reader::Error::new("`columns` are those of a table of images, and this source is none")
            .help("list the images in a table of paths with these columns, or remove `columns`")
    }

    fn resolve(&self, places: &Places) -> Result<Resolved, reader::Error> {
        let builtin = self.source.strip_prefix("builtin:");
        if builtin.is_some() && !self.columns.is_empty() {
            return Err(self.no_columns());
        }
        if let Some(name) = builtin {
            return match catalogue::builtin(name) {
                Some((found, bytes)) => Ok(Resolved::Builtin(found, bytes)),
                None => Err(reader::Error::new(format!("unknown built-in data set `{name}`"))),
            };
        }
        if catalogue::is_name(&self.source)
            && let Some(entry) = catalogue::find_entry(&self.source, &places.project_root)?
        {
            let resolved = self.resolve_entry(entry, places)?;
            return if self.columns.is_empty() { Ok(resolved) } else { Err(self.no_columns()) };
        }
        let path = places.resolve(Path::new(&self.source));
        let labels = self.labels.as_ref().map(|labels| places.resolve(Path::new(labels)));
        if !path.exists() {
            return Err(self.absent(&path, places));
        }
        if let Some(labels) = labels.as_deref().filter(|labels| !labels.exists()) {
            return Err(reader::Error::new(format!("`{}` does not exist", labels.display())));
        }
        let root = self.root.as_ref().map(|root| places.resolve(Path::new(root)));
        if let Some(root) = root.as_deref().filter(|root| !root.is_dir()) {
            return Err(reader::Error::new(format!("`root` is `{}`, which is not a folder", root.display())));
        }
        let hints =
            Hints { labels: labels.as_deref(), root: root.as_deref(), suffix: &self.suffix, columns: &self.columns };
        let found = reader::find(&path, &hints, self.format)?;
        let has_role = |files: &Files| match files {
            Files::Each(files) => files.iter().any(|(role, _)| role == "labels"),
            Files::Folder(_) => false,
        };
        if labels.is_some() && !has_role(&found.files()) {
            return Err(reader::Error::new("`labels` is set, but images of this format have their labels with them")
                .help("remove `labels`"));
        }
        if (root.is_some() || !self.suffix.is_empty()) && !has_images_apart(&found.files()) {
            return Err(reader::Error::new("`root` and `suffix` are about tables of paths, and this source is none")
                .help("remove `root` and `suffix`"));
        }
        if !self.columns.is_empty() && !has_images_apart(&found.files()) {
            return Err(self.no_columns());
        }
        Ok(Resolved::Path(found))
    }

    fn resolve_entry(&self, entry: Entry, places: &Places) -> Result<Resolved, reader::Error> {
        let folders = entry.folders(places.data_dir.as_deref(), &places.project_root);
        match (entry.locate(&folders), catalogue::builtin(&entry.name)) {
            (Ok(located), _) => Ok(Resolved::Catalogue(Box::new(entry), located)),
            (Err(_), Some((found, bytes))) => Ok(Resolved::Builtin(found, bytes)),
            (Err(error), None) => Err(error),
        }
    }

    /// Why there is nothing at `path`: the nearest name that is there, or the catalogue's.
    fn absent(&self, path: &Path, places: &Places) -> reader::Error {
        let error = reader::Error::new(format!("`{}` does not exist", path.display()));
        if self.source.contains("://") {
            return error.help("an address is no path: load it with `convoy data fetch ADDRESS`, and name the file");
        }
        if self.source.starts_with('~') || self.source.contains('$') {
            return error.help("`~` and `$` stand for themselves here: write the path out");
        }
        let parent = path.parent().unwrap_or(&places.manifest_dir);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut names = reader::names_in(parent).unwrap_or_default();
        if catalogue::is_name(&self.source) {
            names.extend(catalogue::embedded().iter().map(|entry| entry.name.clone()));
        }
        match did_you_mean(&name, names.iter().map(String::as_str)) {
            Some(help) => error.help(help),
            None => {
                let folders = reader::names_in(&places.manifest_dir).unwrap_or_default().into_iter();
                let folders: Vec<String> =
                    folders.filter(|name| name != "out" && places.manifest_dir.join(name).is_dir()).collect();
                let there = match folders.is_empty() {
                    true => String::new(),
                    false => format!(", which has {}", some_of(folders.iter().map(String::as_str))),
                };
                let folder = places.manifest_dir.display();
                error.help(format!("paths are relative to the manifest's folder, `{folder}`{there}"))
            }
        }
    }

    /// The source, listed, and the names of its classes: for who reads labelled images without a data set.
    ///
    /// # Errors
    /// If it is not there or cannot be read.
    pub fn open(&self, places: &Places) -> Result<(Box<dyn Reader>, Vec<String>), StageError> {
        let resolved = self.resolve(places)?;
        if let Resolved::Catalogue(entry, located) = &resolved {
            located.verify(entry)?;
        }
        let reader = resolved.found().open(&self.policy.limits)?;
        let mut classes = reader.classes().to_vec();
        self.name_classes(&mut classes, &resolved)?;
        Ok((reader, classes))
    }

    fn pack(
        &self,
        reader: &dyn Reader,
        images: File,
        context: &dyn Context,
    ) -> Result<(DatasetWriter, Vec<(Skipped, Fault)>), StageError> {
        let pick = Pick::new(reader.n_samples(), self.limit);
        let earlier = context.before().and_then(|before| Earlier::of(before, &self.policy));
        let n_known = AtomicU64::new(0);
        let known = |path: &str| {
            let image = earlier.as_ref()?.image(path)?;
            n_known.fetch_add(1, Ordering::Relaxed);
            Some(image)
        };
        let plan = Plan { policy: &self.policy, pick, threads: context.threads(), known: Some(&known) };
        let mut images = Some(images);
        let mut writer: Option<(DatasetWriter, String)> = None;
        let mut skipped = Vec::new();
        let mut done = 0;
        context.progress(0, pick.len(), "images", "");
        load(reader, &plan, &mut |loaded: Loaded| {
            if context.is_cancelled() {
                return Err(StageError::cancelled());
            }
            done += 1;
            if done % REPORT_EVERY == 0 || done == pick.len() {
                let note = match n_known.load(Ordering::Relaxed) {
                    0 => String::new(),
                    n => format!("{n} as before"),
                };
                context.progress(done, pick.len(), "images", &note);
            }
            let Loaded { path, label, given, group, cells, image } = loaded;
            let (image, digest) = match image {
                Ok(image) => image,
                Err(Refused { fault, reason }) => {
                    let class = reader.classes()[label as usize].clone();
                    return self.skip(Skipped { path, class, reason }, fault, &mut skipped);
                }
            };
            if let Some(file) = images.take() {
                let mut own = DatasetWriter::new(file, image.shape, image.depth)?;
                own.keep_columns(&self.columns);
                writer = Some((own, path.clone()));
            }
            if let Some((writer, first)) = &mut writer {
                check_alike((writer.shape(), writer.depth()), first, &path, &image)?;
                let row = Row { path, label, group, given, cells, seen: image.seen };
                writer.push_digested(row, &image.pixels, digest)?;
            }
            Ok(())
        })?;
        match writer {
            Some((writer, _)) => Ok((writer, skipped)),
            None if skipped.is_empty() => Err(StageError::new("the source has no image").key("source")),
            None => {
                let what = if skipped.iter().all(is_damaged) { "are corrupt" } else { "cannot be read" };
                let (first, _) = &skipped[0];
                Err(StageError::new(format!("all {} images {what}", skipped.len()))
                    .help(format!("the first one, `{}`, {}", first.path, first.reason))
                    .key("source"))
            }
        }
    }

    /// Gives names to classes that the source only numbers: those of the manifest, else of the catalogue.
    fn name_classes(&self, classes: &mut Vec<String>, resolved: &Resolved) -> Result<(), StageError> {
        if let Some(names) = &self.classes {
            check_names(names, classes)?;
            classes.clone_from(names);
        } else if let Resolved::Catalogue(entry, _) = resolved {
            let are_numbers = classes.iter().enumerate().all(|(i, class)| *class == i.to_string());
            if are_numbers && classes.len() == entry.classes.len() {
                classes.clone_from(&entry.classes);
            }
        }
        Ok(())
    }

    fn skip(&self, image: Skipped, fault: Fault, skipped: &mut Vec<(Skipped, Fault)>) -> Result<(), StageError> {
        if !self.skips_corrupt {
            let what = match fault {
                _ if image.reason.starts_with("does not exist (looked for") => {
                    "set `root` to the folder of the images, and `suffix` to the end that their names lack"
                }
                Fault::Absent => "put it there and let it be read, or remove what names it",
                Fault::Damaged => "repair or remove it",
                Fault::Unsupported => "convert it to PNG, say, or remove it",
                Fault::Machine => "see to the machine, and run again",
                Fault::TooLarge => "make it smaller, or raise `max_pixels` or `max_bytes`",
            };
            return Err(StageError::new(format!("`{}` {}", image.path, image.reason))
                .key("source")
                .help(format!("{what}, or set `on_corrupt = \"skip\"`")));
        }
        skipped.push((image, fault));
        if skipped.len() as u64 > self.max_corrupt {
            let what = if skipped.iter().all(is_damaged) { "are corrupt" } else { "cannot be read" };
            let (last, _) = &skipped[skipped.len() - 1];
            return Err(StageError::new(format!(
                "more than `max_corrupt = {}` images {what}; the last one, `{}`, {}",
                self.max_corrupt, last.path, last.reason
            ))
            .key("max_corrupt")
            .help("repair or remove them, or raise `max_corrupt`"));
        }
        Ok(())
    }
}

fn is_damaged((_, fault): &(Skipped, Fault)) -> bool {
    *fault == Fault::Damaged
}

/// `1 image was`, `5 images were`.
fn images_were(n: usize) -> String {
    if n == 1 { "1 image was".to_owned() } else { format!("{n} images were") }
}

/// Says what was left out, and why.
fn warn_of_skipped(skipped: &[(Skipped, Fault)], context: &dyn Context) {
    for (fault, what) in [
        (Fault::Absent, "missing or unreadable"),
        (Fault::Damaged, "corrupt"),
        (Fault::Unsupported, "unsupported"),
        (Fault::TooLarge, "too large"),
    ] {
        let of_fault: Vec<&Skipped> = skipped.iter().filter(|(_, own)| *own == fault).map(|(image, _)| image).collect();
        if let Some(first) = of_fault.first() {
            let n = of_fault.len();
            let images = if n == 1 { "image was" } else { "images were" };
            context.warn(&format!("{n} {what} {images} left out, first `{}` (all are in skipped.csv)", first.path));
        }
    }
}

/// Says what lies beside the images, and lists it.
fn note_aside(aside: &Aside, skipped: &mut Vec<Skipped>, context: &dyn Context) {
    aside.warnings.iter().for_each(|warning| context.warn(warning));
    let mut of_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (path, reason) in &aside.images {
        of_reason.entry(reason).or_default().push(path);
        let skipped_one = Skipped { path: path.clone(), class: String::new(), reason: (*reason).to_owned() };
        skipped.push(skipped_one);
    }
    for (reason, paths) in of_reason {
        context.warn(&format!(
            "{} left out, first `{}`, which {reason} (all are in skipped.csv)",
            images_were(paths.len()),
            paths[0]
        ));
    }
    let is_none =
        |path: &String| Skipped { path: path.clone(), class: String::new(), reason: "is no image".to_owned() };
    skipped.extend(aside.others.iter().map(is_none));
    if let Some(first) = aside.others.first() {
        let n = aside.others.len();
        let files = if n == 1 {
            "1 file that is no image was".to_owned()
        } else {
            format!("{n} files that are no images were")
        };
        context.warn(&format!("{files} left out, first `{first}` (all are in skipped.csv)"));
    }
}

/// Says which classes have names that a person takes for the same.
fn twins(classes: &[String]) -> Vec<String> {
    let seen = |name: &str| -> String {
        let is_shown = |c: &char| !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{feff}' | '\u{ad}');
        name.nfkc().filter(is_shown).flat_map(char::to_lowercase).collect::<String>().trim().to_owned()
    };
    let mut twins: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for class in classes {
        twins.entry(seen(class)).or_default().push(class);
    }
    let same = twins.values().filter(|same| same.len() > 1);
    same.map(|same| {
        let is_form = same.iter().all(|class| class.nfc().eq(same[0].nfc()));
        let how = if is_form { "in their Unicode form" } else { "in case, blanks or marks that hardly show" };
        let named = some_of(same.iter().map(|class| class.as_str()));
        format!("the classes {named} differ only {how}: are they one?")
    })
    .collect()
}

/// Whether it is a table whose images lie in files of their own.
fn has_images_apart(files: &Files) -> bool {
    match files {
        Files::Each(files) => files.iter().any(|(role, _)| role == "table"),
        Files::Folder(_) => false,
    }
}

/// Names fit labels that are numbers, one each.
fn check_names(names: &[String], labels: &[String]) -> Result<(), StageError> {
    let shown = some_of(labels.iter().map(String::as_str));
    let error = if labels.iter().any(|label| label.parse::<u64>().is_err()) {
        StageError::new(format!("`classes` is set, but the source names its classes itself: {shown}"))
            .help("remove `classes`")
    } else if names.len() != labels.len() {
        StageError::new(format!(
            "`classes` has {} names, but the source has {} labels: {shown}",
            names.len(),
            labels.len()
        ))
        .help("give a name to each label that there is, in their order")
    } else {
        return Ok(());
    };
    Err(error.key("classes"))
}

/// Warns of images that are the same under two labels: one of them is wrong.
fn warn_of_contradictions(writer: &DatasetWriter, classes: &[String], context: &dyn Context) {
    let found = writer.contradictions();
    let Some([one, other]) = found.first() else { return };
    let images = if found.len() == 1 { "1 image is".to_owned() } else { format!("{} images are", found.len()) };
    context.warn(&format!(
        "{images} there pixel for pixel in two classes, such as `{}` in `{}` and `{}` in `{}`: one of the labels is wrong",
        one.path, classes[one.label as usize], other.path, classes[other.label as usize]
    ));
}

/// How the error about sizes begins, to which a size is added that would do.
const SIZES_DIFFER: &str = "images have different sizes";

/// All images have the shape and the depth of the first.
fn check_alike(
    (expected, depth): (ImageShape, Depth),
    first: &str,
    path: &str,
    image: &Decoded,
) -> Result<(), StageError> {
    let got = image.shape;
    if expected == got && depth == image.depth {
        return Ok(());
    }
    Err(if (expected.width, expected.height) != (got.width, got.height) {
        StageError::new(format!(
            "{SIZES_DIFFER}: `{first}` is {}x{} pixels, `{path}` is {}x{}",
            expected.width, expected.height, got.width, got.height
        ))
        .help("add `resize = { width = …, height = … }`")
    } else if expected.channels != got.channels {
        let colour = |channels| if channels == 1 { "grey" } else { "in colour" };
        StageError::new(format!(
            "images have different channels: `{first}` is {}, `{path}` is {}",
            colour(expected.channels),
            colour(got.channels)
        ))
        .help("set `channels` to \"gray\" or \"rgb\"")
    } else {
        StageError::new(format!(
            "images have different depths: `{first}` has {} bits per value, `{path}` has {}",
            depth.bits(),
            image.depth.bits()
        ))
        .help("set `depth` to \"8\" or \"16\"")
    }
    .key("source"))
}

/// A class without any image can neither be learned nor be tested.
fn check_classes(
    ingest: &Ingest,
    classes: &[String],
    counts: &[u64],
    skipped: &[(Skipped, Fault)],
) -> Result<(), StageError> {
    let mut there = (0..classes.len()).filter(|&label| counts[label] > 0);
    if let (Some(only), None) = (there.next(), there.next())
        && (classes.len() == 1 || ingest.allow_empty)
    {
        let within = ingest.limit.map_or(String::new(), |limit| format!(" within `limit = {limit}`"));
        return Err(StageError::new(format!(
            "the data set has one class{within}, `{}`, and two are needed",
            classes[only]
        ))
        .key("source")
        .help("whatever a model says of one class is right: give it images of another one"));
    }
    let Some(label) = counts.iter().position(|&n| n == 0).filter(|_| !ingest.allow_empty) else { return Ok(()) };
    let name = &classes[label];
    let reason = match (skipped.iter().filter(|(image, _)| image.class == *name).count(), ingest.limit) {
        (0, Some(limit)) => format!("class `{name}` has no image within `limit = {limit}`"),
        (0, None) => format!("class `{name}` has no image"),
        (n, _) if skipped.iter().filter(|(image, _)| image.class == *name).all(is_damaged) => {
            format!("class `{name}` has no image left: all {n} are corrupt")
        }
        (n, _) => format!("class `{name}` has no image left: all {n} cannot be read"),
    };
    Err(StageError::new(reason).key("source").help("add images, remove the class, or set `allow_empty = true`"))
}

impl Stage for Ingest {
    fn kind(&self) -> &'static str {
        "ingest"
    }

    fn rooms(&self, _part: Part, _upstream: &Upstream<'_>) -> Vec<&'static str> {
        // Which reader it takes, and whether there is anything to decode, is seen when it looks at the source.
        ["decode", KIND.name, "readers"].into_iter().chain(self.policy.resize.map(|_| "resize")).collect()
    }

    fn check(&self, _inputs: &[Flow], _span: Span, _log: &mut Log) -> Flow {
        let entry = self.known_entry();
        let shape = entry.map(|entry| self.policy.output_shape(entry.shape())).or(self.policy.fixed_shape());
        Flow {
            output: Output::Dataset,
            shape: shape.map(SampleShape::Image),
            n_classes: entry.map(|entry| entry.classes.len()),
            n_samples: entry.map(|entry| entry.n_samples.min(self.limit.map_or(usize::MAX, |n| n as usize))),
            given: entry.map(|entry| Given {
                test: entry.has_split(GivenSplit::Test),
                validation: entry.has_split(GivenSplit::Validation),
            }),
            folds: 0,
            has_test: false,
            refit: false,
            models: 1,
            has_views: false,
            has_temperature: false,
            abstains: false,
        }
    }

    fn accepts(&self) -> &'static [Output] {
        &[]
    }

    fn price(&self, _: Option<&Flow>, _: u64) -> Price {
        // A photo of three million pixels and what its decoder keeps, on each thread, and as many that wait to be written.
        const PHOTO: u64 = 32 << 20;
        let is_builtin = self.source.starts_with("builtin:");
        if is_builtin { Price { bytes: 8 << 20, per_thread: 0 } } else { Price { bytes: 2 * PHOTO, per_thread: PHOTO } }
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn parts(&self, _flow: &Flow) -> Vec<Part> {
        vec![Part::Whole]
    }

    fn needs(&self, _part: Part, _upstream: &Upstream<'_>) -> Vec<Need> {
        Vec::new()
    }

    fn glance(&self, places: &Places) -> Result<Option<Glance>, StageError> {
        self.look(places).map(Some)
    }

    fn sources(&self, places: &Places) -> Result<Vec<Source>, StageError> {
        let resolved = self.resolve(places)?;
        if let Resolved::Builtin(_, bytes) = &resolved {
            let mut hasher = blake3::Hasher::new();
            for bytes in bytes {
                hasher.update(bytes);
            }
            let name = self.source.trim_start_matches("builtin:").to_owned();
            return Ok(vec![Source::Builtin { name, digest: hasher.finalize().to_hex().to_string() }]);
        }
        Ok(match resolved.found().files() {
            Files::Each(files) => files.into_iter().map(|(role, path)| Source::File { role, path }).collect(),
            Files::Folder(path) => vec![Source::Folder { role: "images".to_owned(), path }],
        })
    }

    fn learns(&self, _part: Part) -> Option<Learns> {
        None
    }

    fn run(&self, _task: &Task, places: &Places, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
        let resolved = self.resolve(places)?;
        if let Resolved::Catalogue(entry, located) = &resolved {
            located.verify(entry)?;
        }
        let reader = resolved.found().open(&self.policy.limits)?;
        let packed = self.pack(&*reader, sink.create(IMAGES)?, context);
        let (writer, skipped) = packed.map_err(|error| self.advise_size(error, &*reader))?;
        let mut classes = reader.classes().to_vec();
        let mut counts = vec![0; classes.len()];
        for label in writer.labels() {
            counts[label as usize] += 1;
        }
        check_classes(self, &classes, &counts, &skipped)?;
        self.name_classes(&mut classes, &resolved)?;
        warn_of_contradictions(&writer, &classes, context);
        warn_of_skipped(&skipped, context);
        let mut skipped: Vec<Skipped> = skipped.into_iter().map(|(image, _)| image).collect();
        if let Some(aside) = reader.aside() {
            note_aside(aside, &mut skipped, context);
        }
        twins(&classes).iter().for_each(|warning| context.warn(warning));
        writer.finish(sink, &classes, &self.policy, &skipped)?;
        Ok(())
    }
}

impl From<reader::Error> for StageError {
    fn from(error: reader::Error) -> StageError {
        error.of("source").into()
    }
}

#[cfg(test)]
mod tests;
