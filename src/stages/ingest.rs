//! `ingest`: files in, one packed data set out.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Context, Flow, Given, Kind, Need, Output, Part, Places, Source, Stage, StageError, Task, Upstream};
use crate::artifact::Sink;
use crate::artifact::dataset::{DatasetWriter, IMAGES, Row, Skipped};
use crate::config::{Log, Problem, Section, Span, did_you_mean};
use crate::data::catalogue::{self, Entry, Located};
use crate::data::decode::{self, DecodePolicy, Decoded};
use crate::data::reader::load::{Loaded, Plan, load};
use crate::data::reader::{self, FORMATS, Files, Found, GivenSplit, Limits, Pick, Reader};
use crate::tensor::SampleShape;

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

/// Bumped when the same files give other bytes.
const REVISION: u32 = 1;

/// Images a progress report covers.
const REPORT_EVERY: u64 = 256;

/// The stage's config.
#[derive(Clone, Debug)]
pub struct Ingest {
    source: String,
    labels: Option<String>,
    format: &'static str,
    policy: DecodePolicy,
    skips_corrupt: bool,
    max_corrupt: u64,
    allow_empty: bool,
    limit: Option<u64>,
    limits: Limits,
}

/// Reads the keys of `ingest`.
pub fn read(section: &mut Section<'_>) -> Box<dyn Stage> {
    let meaning = "A folder or file (relative to the manifest), a name of the catalogue, or `builtin:NAME`.";
    let source = section.key("source", meaning, "\"builtin:digits\"").place(true);
    if section.node("source").is_none() {
        let problem = Problem::error(section.span(), "missing key `source`")
            .help("add `source`: a folder, a file, a catalogue name, or `\"builtin:digits\"`");
        section.log().push(problem);
    }
    let meaning = "The file of labels, where a format has them apart (IDX, NPY).";
    let labels = section.key("labels", meaning, "\"labels.npy\"").place(false).map(|(text, _)| text);
    let mut formats = vec![("auto", "What the content says.", "auto")];
    formats.extend(FORMATS.iter().map(|format| (format.name, "This format.", format.name)));
    let format = section.key("format", "How the source is read.", "\"idx\"").word(&formats);
    if let Some((text, span)) = &source {
        check_source(text, *span, section.log());
    }
    Box::new(Ingest {
        source: source.map_or(String::new(), |(text, _)| text),
        labels,
        format,
        policy: DecodePolicy::read(section),
        skips_corrupt: section
            .key("on_corrupt", "What happens to an image that cannot be decoded.", "\"skip\"")
            .word(&[("error", "Nothing is ingested.", false), ("skip", "It is left out and listed.", true)]),
        max_corrupt: section
            .key("max_corrupt", "Images that may be left out.", "10")
            .whole(0..=i64::MAX as u64)
            .or(100),
        allow_empty: section.key("allow_empty", "Whether a class may have no image.", "true").flag(false),
        limit: section
            .key("limit", "At most this many images, evenly spread over the source; absent: all.", "1000")
            .whole(1..=i64::MAX as u64)
            .optional(),
        limits: Limits {
            max_pixels: section
                .key("max_pixels", "Width times height of an image, in pixels, at most.", "40000000")
                .whole(1..=1 << 32)
                .or(100_000_000),
            max_bytes: section
                .key("max_bytes", "Bytes of one image file at most.", "10000000")
                .whole(1..=1 << 40)
                .or(256 << 20),
        },
    })
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

    fn resolve(&self, places: &Places) -> Result<Resolved, reader::Error> {
        let builtin = self.source.strip_prefix("builtin:");
        if let Some(name) = builtin {
            return match catalogue::builtin(name) {
                Some((found, bytes)) => Ok(Resolved::Builtin(found, bytes)),
                None => Err(reader::Error::new(format!("unknown built-in data set `{name}`"))),
            };
        }
        if catalogue::is_name(&self.source)
            && let Some(entry) = catalogue::find_entry(&self.source, &places.project_root)?
        {
            return self.resolve_entry(entry, places);
        }
        let path = places.resolve(Path::new(&self.source));
        let labels = self.labels.as_ref().map(|labels| places.resolve(Path::new(labels)));
        if !path.exists() {
            return Err(self.absent(&path, places));
        }
        if let Some(labels) = labels.as_deref().filter(|labels| !labels.exists()) {
            return Err(reader::Error::new(format!("`{}` does not exist", labels.display())));
        }
        let found = reader::find(&path, labels.as_deref(), self.format)?;
        let has_role = |files: &Files| match files {
            Files::Each(files) => files.iter().any(|(role, _)| role == "labels"),
            Files::Folder(_) => false,
        };
        if labels.is_some() && !has_role(&found.files()) {
            return Err(reader::Error::new("`labels` is set, but images of this format have their labels with them")
                .help("remove `labels`"));
        }
        Ok(Resolved::Path(found))
    }

    fn resolve_entry(&self, entry: Entry, places: &Places) -> Result<Resolved, reader::Error> {
        let mut folders: Vec<PathBuf> = Vec::new();
        if let Some(dir) = &places.data_dir {
            folders.extend([dir.join(&entry.name), dir.clone()]);
        }
        folders.push(places.project_root.join("datasets").join(&entry.name));
        match (entry.locate(&folders), catalogue::builtin(&entry.name)) {
            (Ok(located), _) => Ok(Resolved::Catalogue(Box::new(entry), located)),
            (Err(_), Some((found, bytes))) => Ok(Resolved::Builtin(found, bytes)),
            (Err(error), None) => Err(error),
        }
    }

    /// Why there is nothing at `path`: the nearest name that is there, or the catalogue's.
    fn absent(&self, path: &Path, places: &Places) -> reader::Error {
        let error = reader::Error::new(format!("`{}` does not exist", path.display()));
        let parent = path.parent().unwrap_or(&places.manifest_dir);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut names = reader::names_in(parent).unwrap_or_default();
        if catalogue::is_name(&self.source) {
            names.extend(catalogue::embedded().iter().map(|entry| entry.name.clone()));
        }
        match did_you_mean(&name, names.iter().map(String::as_str)) {
            Some(help) => error.help(help),
            None => {
                error.help(format!("paths are relative to the manifest's folder, `{}`", places.manifest_dir.display()))
            }
        }
    }

    fn pack(
        &self,
        reader: &dyn Reader,
        images: File,
        context: &dyn Context,
    ) -> Result<(DatasetWriter, Vec<Skipped>), StageError> {
        let pick = Pick::new(reader.n_samples(), self.limit);
        let plan = Plan { policy: &self.policy, limits: self.limits, pick, threads: context.threads() };
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
                context.progress(done, pick.len(), "images", "");
            }
            let Loaded { path, label, given, group, image } = loaded;
            let (image, digest) = match image {
                Ok(image) => image,
                Err(reason) => {
                    let class = reader.classes()[label as usize].clone();
                    return self.skip(Skipped { path, class, reason }, &mut skipped);
                }
            };
            if let Some(file) = images.take() {
                writer = Some((DatasetWriter::new(file, image.shape, image.depth)?, path.clone()));
            }
            if let Some((writer, first)) = &mut writer {
                check_alike(writer, first, &path, &image)?;
                let seen = image.seen;
                let row = Row {
                    path,
                    label,
                    group,
                    given,
                    format: seen.format,
                    width: seen.width,
                    height: seen.height,
                    channels: seen.channels,
                    depth: seen.depth,
                };
                writer.push_digested(row, &image.pixels, digest)?;
            }
            Ok(())
        })?;
        match writer {
            Some((writer, _)) => Ok((writer, skipped)),
            None if skipped.is_empty() => Err(StageError::new("the source has no image").key("source")),
            None => Err(StageError::new(format!("all {} images are corrupt", skipped.len()))
                .help(format!("the first one, `{}`, {}", skipped[0].path, skipped[0].reason))
                .key("source")),
        }
    }

    fn skip(&self, image: Skipped, skipped: &mut Vec<Skipped>) -> Result<(), StageError> {
        if !self.skips_corrupt {
            return Err(StageError::new(format!("`{}` {}", image.path, image.reason))
                .key("source")
                .help("repair or remove it, or set `on_corrupt = \"skip\"`"));
        }
        skipped.push(image);
        if skipped.len() as u64 > self.max_corrupt {
            let last = &skipped[skipped.len() - 1];
            return Err(StageError::new(format!(
                "more than `max_corrupt = {}` images are corrupt; the last one, `{}`, {}",
                self.max_corrupt, last.path, last.reason
            ))
            .key("max_corrupt")
            .help("repair or remove them, or raise `max_corrupt`"));
        }
        Ok(())
    }
}

/// All images have the shape and the depth of the first.
fn check_alike(writer: &DatasetWriter, first: &str, path: &str, image: &Decoded) -> Result<(), StageError> {
    let (expected, got) = (writer.shape(), image.shape);
    if expected == got && writer.depth() == image.depth {
        return Ok(());
    }
    Err(if (expected.width, expected.height) != (got.width, got.height) {
        StageError::new(format!(
            "images have different sizes: `{first}` is {}x{} pixels, `{path}` is {}x{}",
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
            writer.depth().bits(),
            image.depth.bits()
        ))
        .help("set `depth` to \"8\" or \"16\"")
    }
    .key("source"))
}

/// A class without any image can neither be learned nor be tested.
fn check_classes(ingest: &Ingest, classes: &[String], counts: &[u64], skipped: &[Skipped]) -> Result<(), StageError> {
    let Some(label) = counts.iter().position(|&n| n == 0).filter(|_| !ingest.allow_empty) else { return Ok(()) };
    let name = &classes[label];
    let reason = match (skipped.iter().filter(|image| image.class == *name).count(), ingest.limit) {
        (0, Some(limit)) => format!("class `{name}` has no image within `limit = {limit}`"),
        (0, None) => format!("class `{name}` has no image"),
        (n, _) => format!("class `{name}` has no image left: all {n} are corrupt"),
    };
    Err(StageError::new(reason).key("source").help("add images, remove the class, or set `allow_empty = true`"))
}

impl Stage for Ingest {
    fn kind(&self) -> &'static str {
        "ingest"
    }

    fn revision(&self) -> String {
        format!("ingest {REVISION}, decode {}", decode::REVISION)
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
        }
    }

    fn accepts(&self) -> &'static [Output] {
        &[]
    }

    fn parts(&self, _flow: &Flow) -> Vec<Part> {
        vec![Part::Whole]
    }

    fn needs(&self, _part: Part, _upstream: &Upstream<'_>) -> Vec<Need> {
        Vec::new()
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

    fn run(
        &self,
        _task: &Task<'_>,
        places: &Places,
        context: &dyn Context,
        sink: &mut dyn Sink,
    ) -> Result<(), StageError> {
        let resolved = self.resolve(places)?;
        if let Resolved::Catalogue(entry, located) = &resolved {
            located.verify(entry)?;
        }
        let reader = resolved.found().open(&self.limits)?;
        let (writer, skipped) = self.pack(&*reader, sink.create(IMAGES)?, context)?;
        let mut classes = reader.classes().to_vec();
        let mut counts = vec![0; classes.len()];
        for label in writer.labels() {
            counts[label as usize] += 1;
        }
        check_classes(self, &classes, &counts, &skipped)?;
        if let Resolved::Catalogue(entry, _) = &resolved {
            // Formats that only number their classes get the names of the entry.
            let are_numbers = classes.iter().enumerate().all(|(i, class)| *class == i.to_string());
            if are_numbers && classes.len() == entry.classes.len() {
                classes.clone_from(&entry.classes);
            }
        }
        writer.finish(sink, &classes, &self.policy, &skipped)?;
        if let Some(first) = skipped.first() {
            let n = skipped.len();
            let images = if n == 1 { "image was" } else { "images were" };
            context.warn(&format!("{n} corrupt {images} left out, first `{}` (all are in skipped.csv)", first.path));
        }
        Ok(())
    }
}

impl From<reader::Error> for StageError {
    fn from(error: reader::Error) -> StageError {
        StageError { message: error.message, key: Some("source".to_owned()), help: error.help, is_cancelled: false }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::artifact::Files as Artifact;
    use crate::artifact::dataset::{DATA, Dataset, IMAGES, SKIPPED};
    use crate::config::{Entry as ConfigEntry, Node, Table, Value};
    use crate::data::reader::testing::png;
    use crate::stages::testing::{self, TestContext};

    fn text(text: &str) -> Value {
        Value::Text { text: text.to_owned(), inner: None }
    }

    fn table(keys: &[(&str, Value)]) -> Table {
        let entry = |(key, value): &(&str, Value)| ConfigEntry {
            key: (*key).to_owned(),
            key_span: Span::default(),
            node: Node { value: value.clone(), span: Span::default() },
        };
        Table { entries: keys.iter().map(entry).collect() }
    }

    #[track_caller]
    fn stage(keys: &[(&str, Value)]) -> Box<dyn Stage> {
        let (stage, log) = testing::read(read, &table(keys));
        assert_eq!(log.problems, []);
        stage
    }

    fn run_in(folder: &Path, keys: &[(&str, Value)], context: &TestContext) -> Result<Dataset, StageError> {
        let places = Places { manifest_dir: folder.to_owned(), data_dir: None, project_root: folder.to_owned() };
        let files = testing::run(&*stage(keys), Part::Whole, Vec::new(), &places, context)?;
        Ok(Dataset::read(&files).unwrap())
    }

    fn put(folder: &Path, path: &str, bytes: &[u8]) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn files_in(folder: &Path, keys: &[(&str, Value)], threads: usize) -> Result<Artifact, StageError> {
        let places = Places { manifest_dir: folder.to_owned(), data_dir: None, project_root: folder.to_owned() };
        let context = TestContext { threads, ..TestContext::default() };
        testing::run(&*stage(keys), Part::Whole, Vec::new(), &places, &context)
    }

    /// 60 grey images in two classes, one of them broken, in a fresh folder.
    fn sixty() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..60_u8 {
            let class = if i % 3 == 0 { "cat" } else { "dog" };
            put(folder.path(), &format!("img/{class}/{i:02}.png"), &png(3, 2, &[i; 6]));
        }
        put(folder.path(), "img/dog/31.png", b"broken");
        folder
    }

    #[test]
    fn digits_come_whole_for_any_number_of_threads() {
        for threads in [1, 2, 7] {
            let context = TestContext { threads, ..TestContext::default() };
            let digits = run_in(Path::new("."), &[("source", text("builtin:digits"))], &context).unwrap();
            assert_eq!(digits.n_samples(), 1797);
            assert_eq!(digits.shape().to_string(), "8x8x1");
            assert_eq!(digits.labels()[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
            let mut first = [0.0; 64];
            digits.to_f32(0, &mut first);
            assert_eq!(first[..8], [0.0, 0.0, 5.0, 13.0, 9.0, 1.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn what_is_known_before_a_run_is_what_comes_out() {
        let resize = Value::Table(table(&[("width", Value::Integer(5)), ("height", Value::Integer(6))]));
        let keys = [
            ("source", text("builtin:digits")),
            ("channels", text("rgb")),
            ("resize", resize.clone()),
            ("limit", Value::Integer(50)),
        ];
        let flow = stage(&keys).check(&[], Span::default(), &mut Log::default());
        let digits = run_in(Path::new("."), &keys, &TestContext::default()).unwrap();
        assert_eq!(flow.shape.unwrap().to_string(), digits.shape().to_string());
        assert_eq!(flow.n_classes, Some(digits.n_classes()));
        assert_eq!(flow.n_samples, Some(digits.n_samples()));
        let folder = [("source", text("some/folder")), ("channels", text("gray")), ("resize", resize)];
        let flow = stage(&folder).check(&[], Span::default(), &mut Log::default());
        assert_eq!(flow.shape.unwrap().to_string(), "5x6x1");
        assert_eq!((flow.n_classes, flow.given), (None, None));
        let mnist = stage(&[("source", text("mnist"))]).check(&[], Span::default(), &mut Log::default());
        assert_eq!(mnist.given, Some(Given { test: true, validation: false }));
    }

    #[test]
    fn the_same_bytes_for_any_number_of_threads() {
        let folder = sixty();
        let keys = [("source", text("img")), ("on_corrupt", text("skip"))];
        let first = files_in(folder.path(), &keys, 1).unwrap();
        for threads in [2, 3, 7] {
            let other = files_in(folder.path(), &keys, threads).unwrap();
            assert!(first.0.iter().map(|(n, b)| (n, &b[..])).eq(other.0.iter().map(|(n, b)| (n, &b[..]))), "{threads}");
        }
        let dataset = Dataset::read(&first).unwrap();
        assert_eq!((dataset.n_samples(), dataset.classes().join(",")), (59, "cat,dog".to_owned()));
        assert_eq!(dataset.path(0), "cat/00.png");
        assert_eq!(
            first.get(SKIPPED).unwrap()[..],
            b"path,class,reason\ndog/31.png,dog,is not an image of a known format\n"[..]
        );
        assert_eq!(String::from_utf8_lossy(first.get(DATA).unwrap()).lines().count(), 60);
        assert_eq!(first.get(IMAGES).unwrap().len(), 128 + 59 * 6);
    }

    #[test]
    fn a_corrupt_image_stops_ingest_unless_skipped_up_to_a_bound() {
        let folder = sixty();
        let error = files_in(folder.path(), &[("source", text("img"))], 2).unwrap_err();
        assert_eq!(error.message, "`dog/31.png` is not an image of a known format");
        assert_eq!(error.help.as_deref(), Some("repair or remove it, or set `on_corrupt = \"skip\"`"));
        let skip = [("source", text("img")), ("on_corrupt", text("skip")), ("max_corrupt", Value::Integer(0))];
        let error = files_in(folder.path(), &skip, 2).unwrap_err();
        assert!(error.message.starts_with("more than `max_corrupt = 0` images are corrupt"), "{error}");
        put(folder.path(), "bad/a/1.png", b"");
        let error = files_in(folder.path(), &[("source", text("bad")), ("on_corrupt", text("skip"))], 2).unwrap_err();
        assert_eq!(error.message, "all 1 images are corrupt");
    }

    #[test]
    fn sizes_channels_and_depths_that_differ_name_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let rgb = {
            let mut out = std::io::Cursor::new(Vec::new());
            image::RgbImage::from_raw(2, 1, vec![9; 6]).unwrap().write_to(&mut out, image::ImageFormat::Png).unwrap();
            out.into_inner()
        };
        put(folder.path(), "size/a/1.png", &png(2, 1, &[1; 2]));
        put(folder.path(), "size/b/1.png", &png(1, 2, &[1; 2]));
        put(folder.path(), "channels/a/1.png", &png(2, 1, &[1; 2]));
        put(folder.path(), "channels/b/1.png", &rgb);
        let run = |keys: &[(&str, Value)]| files_in(folder.path(), keys, 2);
        let error = run(&[("source", text("size"))]).unwrap_err();
        assert_eq!(error.message, "images have different sizes: `a/1.png` is 2x1 pixels, `b/1.png` is 1x2");
        let resize = Value::Table(table(&[("width", Value::Integer(4)), ("height", Value::Integer(4))]));
        assert!(run(&[("source", text("size")), ("resize", resize)]).is_ok());
        let error = run(&[("source", text("channels"))]).unwrap_err();
        assert_eq!(error.message, "images have different channels: `a/1.png` is grey, `b/1.png` is in colour");
        for channels in ["gray", "rgb"] {
            assert!(run(&[("source", text("channels")), ("channels", text(channels))]).is_ok());
        }
    }

    #[test]
    fn an_empty_class_is_an_error_unless_allowed() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "img/a/1.png", &png(1, 1, &[1]));
        fs::create_dir_all(folder.path().join("img/b")).unwrap();
        let error = files_in(folder.path(), &[("source", text("img"))], 1).unwrap_err();
        assert_eq!(error.message, "class `b` has no image");
        let keys = [("source", text("img")), ("allow_empty", Value::Boolean(true))];
        let dataset = Dataset::read(&files_in(folder.path(), &keys, 1).unwrap()).unwrap();
        assert_eq!(dataset.classes(), ["a", "b"]);
        put(folder.path(), "img/b/1.png", b"broken");
        let error = files_in(folder.path(), &[("source", text("img")), ("on_corrupt", text("skip"))], 1).unwrap_err();
        assert_eq!(error.message, "class `b` has no image left: all 1 are corrupt");
    }

    #[test]
    fn limits_are_those_of_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "img/a/1.png", &png(4, 4, &[1; 16]));
        let run = |key, value| files_in(folder.path(), &[("source", text("img")), (key, Value::Integer(value))], 1);
        let error = run("max_pixels", 15).unwrap_err();
        assert_eq!(error.message, "`a/1.png` is 4x4 pixels, more than `max_pixels = 15`");
        let error = run("max_bytes", 20).unwrap_err();
        assert!(
            error.message.starts_with("`a/1.png` has ") && error.message.ends_with("more than `max_bytes = 20`"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_source_says_what_might_be_meant() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "images/a/1.png", &png(1, 1, &[1]));
        let run = |source| files_in(folder.path(), &[("source", text(source))], 1).unwrap_err();
        assert_eq!(run("image").help.as_deref(), Some("did you mean `images`?"));
        assert_eq!(run("mnsit").help.as_deref(), Some("did you mean `mnist`?"));
        assert!(run("mnist").message.contains("no `train-images-idx3-ubyte.gz` in"));
        assert!(run("./far/away").message.contains("does not exist"));
        let (_, log) = testing::read(read, &table(&[("source", text("builtin:digit"))]));
        assert_eq!(log.problems[0].help.as_deref(), Some("did you mean `digits`?"));
        let (_, log) = testing::read(read, &table(&[]));
        assert_eq!(log.problems.len(), 1);
        assert_eq!(log.problems[0].message, "missing key `source`");
    }

    #[test]
    fn the_source_itself_is_not_recorded_but_its_content_is_named() {
        let (_, log) = testing::read(read, &table(&[("source", text("some/where")), ("labels", text("else"))]));
        assert!(log.resolved.iter().all(|r| !r.value.contains("where") && !r.value.contains("else")));
        let digits = stage(&[("source", text("builtin:digits"))]);
        let sources = digits.sources(&Places::default()).unwrap();
        assert!(matches!(&sources[..], [Source::Builtin { name, digest }] if name == "digits" && digest.len() == 64));
        let folder = sixty();
        let places = Places { manifest_dir: folder.path().to_owned(), ..Places::default() };
        let sources = stage(&[("source", text("img"))]).sources(&places).unwrap();
        assert_eq!(sources, [Source::Folder { role: "images".to_owned(), path: folder.path().join("img") }]);
    }

    #[test]
    fn a_cancelled_run_stops() {
        let context = TestContext::default();
        context.cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
        let error = run_in(Path::new("."), &[("source", text("builtin:digits"))], &context).unwrap_err();
        assert!(error.is_cancelled);
    }

    #[test]
    fn labels_that_a_format_does_not_read_are_an_error() {
        let folder = sixty();
        put(folder.path(), "labels.idx", b"x");
        let error = files_in(folder.path(), &[("source", text("img")), ("labels", text("labels.idx"))], 1).unwrap_err();
        assert_eq!(error.message, "`labels` is set, but images of this format have their labels with them");
    }
}
