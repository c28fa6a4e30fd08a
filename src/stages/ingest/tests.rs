//! Tests of `ingest`: what comes in, what is left out, what is told.

use crate::data::samples::Samples;
use std::fs;

use super::*;
use crate::artifact::Files as Artifact;
use crate::artifact::dataset::Names;
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
        digits.values(0).copy_to(&mut first);
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
    let (dataset, names) = (Dataset::read(&first).unwrap(), Names::read(&first).unwrap());
    assert_eq!((dataset.n_samples(), names.classes().join(",")), (59, "cat,dog".to_owned()));
    assert_eq!(names.path(0), "cat/00.png");
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
    put(folder.path(), "bad/a/2.heic", b"\0\0\0\x18ftypheic");
    let error = files_in(folder.path(), &[("source", text("bad")), ("on_corrupt", text("skip"))], 2).unwrap_err();
    assert_eq!(error.message, "all 2 images cannot be read");
    fs::remove_file(folder.path().join("bad/a/2.heic")).unwrap();
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
fn a_class_without_images_is_an_error_unless_allowed() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "img/a/1.png", &png(1, 1, &[1]));
    put(folder.path(), "img/c/1.png", &png(1, 1, &[2]));
    put(folder.path(), "img/b/1.png", b"broken");
    // Folders without images are no classes.
    put(folder.path(), "img/scripts/x.py", b"print()");
    fs::create_dir_all(folder.path().join("img/logs")).unwrap();
    let skip = [("source", text("img")), ("on_corrupt", text("skip"))];
    let error = files_in(folder.path(), &skip, 1).unwrap_err();
    assert_eq!(error.message, "class `b` has no image left: all 1 are corrupt");
    let keys = [&skip[..], &[("allow_empty", Value::Boolean(true))]].concat();
    let names = Names::read(&files_in(folder.path(), &keys, 1).unwrap()).unwrap();
    assert_eq!(names.classes(), ["a", "b", "c"]);
}

#[test]
fn one_class_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "img/only/1.png", &png(1, 1, &[1]));
    let error = files_in(folder.path(), &[("source", text("img"))], 1).unwrap_err();
    assert_eq!(error.message, "the data set has one class, `only`, and two are needed");
    assert_eq!(error.key.as_deref(), Some("source"));
    // Also where it is the last that is left.
    put(folder.path(), "img/other/1.png", b"broken");
    let keys = [("source", text("img")), ("on_corrupt", text("skip")), ("allow_empty", Value::Boolean(true))];
    let error = files_in(folder.path(), &keys, 1).unwrap_err();
    assert_eq!(error.message, "the data set has one class, `only`, and two are needed");
    let one = [("source", text("builtin:digits")), ("limit", Value::Integer(1)), ("allow_empty", Value::Boolean(true))];
    let error = files_in(folder.path(), &one, 1).unwrap_err();
    assert!(error.message.contains("one class within `limit = 1`"), "{error}");
}

#[test]
fn what_is_left_out_is_told_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    for (path, value) in [("train/a/1.png", 1), ("train/b/1.png", 2), ("test/1.png", 3), ("other/x.png", 4)] {
        put(folder.path(), &format!("img/{path}"), &png(1, 1, &[value]));
    }
    put(folder.path(), "img/train/a/notes.txt", b"text");
    let context = TestContext::default();
    let places = Places { manifest_dir: folder.path().to_owned(), ..Places::default() };
    let files = testing::run(&*stage(&[("source", text("img"))]), Part::Whole, Vec::new(), &places, &context).unwrap();
    assert_eq!(
        String::from_utf8_lossy(files.get(SKIPPED).unwrap()),
        "path,class,reason\nother/x.png,,lies beside the folders of the splits\ntest/1.png,,lies in no class folder\n\
         train/a/notes.txt,,is no image\n"
    );
    let warned = context.warnings.lock().unwrap().join("\n");
    for expected in [
        "1 image was left out, first `test/1.png`, which lies in no class folder (all are in skipped.csv)",
        "1 image was left out, first `other/x.png`, which lies beside the folders of the splits",
        "1 file that is no image was left out, first `train/a/notes.txt`",
    ] {
        assert!(warned.contains(expected), "{warned}");
    }
}

#[test]
fn classes_that_are_numbered_get_names() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "t.csv", b"label,a,b,c,d\n7,0,0,0,1\n3,0,0,0,2\n");
    let list = |names: &[&str]| {
        let node = |name: &&str| Node { value: text(name), span: Span::default() };
        Value::List(names.iter().map(node).collect())
    };
    let run = |names: &[&str]| files_in(folder.path(), &[("source", text("t.csv")), ("classes", list(names))], 1);
    let files = run(&["three", "seven"]).unwrap();
    assert_eq!(Names::read(&files).unwrap().classes(), ["three", "seven"]);
    assert_eq!(Dataset::read(&files).unwrap().labels(), [1, 0]);
    let error = run(&["a", "b", "c"]).unwrap_err();
    assert_eq!(error.message, "`classes` has 3 names, but the source has 2 labels: `3`, `7`");
    assert_eq!(error.key.as_deref(), Some("classes"));
    put(folder.path(), "t.csv", b"label,a,b,c,d\ncat,0,0,0,1\ndog,0,0,0,2\n");
    let error = run(&["a", "b"]).unwrap_err();
    assert_eq!(error.message, "`classes` is set, but the source names its classes itself: `cat`, `dog`");
    for (names, expected) in [(&["a", "a"], "`classes` has `a` twice"), (&["a", ""], "`classes` has an empty name")] {
        let (_, log) = testing::read(read, &table(&[("source", text("x")), ("classes", list(names))]));
        assert_eq!(log.problems[0].message, expected);
    }
}

#[test]
fn one_image_in_two_classes_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for (path, value) in [("a/1.png", 1), ("b/1.png", 1), ("b/2.png", 1), ("a/2.png", 2), ("b/3.png", 3)] {
        put(folder.path(), &format!("img/{path}"), &png(1, 1, &[value]));
    }
    let context = TestContext::default();
    run_in(folder.path(), &[("source", text("img"))], &context).unwrap();
    let warned = context.warnings.lock().unwrap().join("\n");
    let expected = "1 image is there pixel for pixel in two classes, such as `a/1.png` in `a` and `b/1.png` in `b`";
    assert!(warned.contains(expected), "{warned}");
}

#[test]
fn classes_that_look_alike_are_told() {
    let warned =
        |classes: &[&str]| twins(&classes.iter().map(|class| (*class).to_owned()).collect::<Vec<_>>()).concat();
    assert!(warned(&["caf\u{e9}", "cafe\u{301}", "tea"]).ends_with("differ only in their Unicode form: are they one?"));
    for twins in [["Cat", "cat"], ["cat ", "cat"], ["ca\u{200b}t", "cat"], ["\u{ff23}at", "cat"]] {
        assert!(warned(&twins).contains("differ only in case, blanks or marks"), "{twins:?}");
    }
    assert_eq!(warned(&["cat", "car"]), "");
}

#[test]
fn a_resize_beyond_the_limits_is_an_error_of_check() {
    let resize = |side| Value::Table(table(&[("width", Value::Integer(side)), ("height", Value::Integer(side))]));
    let (_, log) = testing::read(read, &table(&[("source", text("x")), ("resize", resize(30_000))]));
    assert_eq!(
        log.problems[0].message,
        "an image after `resize` is 30000x30000 pixels, more than `max_pixels = 100000000`"
    );
    let (_, log) = testing::read(read, &table(&[("source", text("x")), ("resize", resize(300))]));
    assert_eq!(log.problems, []);
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
