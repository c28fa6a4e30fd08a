//! What comes in, tried as a stranger would: what the program says of it, and what is left when something later fails.

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;

fn convoy(dir: &Path, arguments: &[&str]) -> Output {
    common::program(dir, arguments).output().expect("the program starts")
}

fn stderr(output: &Output) -> String {
    common::unbroken(&output.stderr)
}

/// A grey PGM file of one value.
fn put(dir: &Path, path: &str, side: usize, value: u8) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    let image = [format!("P5 {side} {side} 255\n").as_bytes(), &vec![value; side * side]].concat();
    fs::write(path, image).expect("writable");
}

/// Two classes, each with a split of its own for testing, of two sizes; something else beside them.
fn photos() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(dir.path().join(".git")).expect("a project root");
    for i in 0..12_u8 {
        put(dir.path(), &format!("photos/train/cat/{i}.pgm"), 3, i);
        put(dir.path(), &format!("photos/train/dog/{i}.pgm"), 4, 100 + i);
    }
    for i in 0..3_u8 {
        put(dir.path(), &format!("photos/test/cat/{i}.pgm"), 3, 50 + i);
        put(dir.path(), &format!("photos/test/dog/{i}.pgm"), 3, 200 + i);
    }
    fs::write(dir.path().join("photos/notes.txt"), "text").expect("writable");
    fs::write(dir.path().join("photos/train/cat/broken.png"), "broken").expect("writable");
    dir
}

fn manifest(dir: &Path, split: &str, last: &str) {
    let text = format!(
        "schema = 1\nname = \"photos\"\nseed = 1\n[stages.ingest]\nsource = \"photos\"\non_corrupt = \"skip\"\n\
         resize = {{ width = 4, height = 4 }}\n[stages.split]\nfolds = 3\n{split}\n\
         [stages.train]\narchitecture = \"INPUT - {last}\"\nepochs = 1\nsanity = false\n[stages.evaluate]\n"
    );
    fs::write(dir.join("photos.toml"), text).expect("writable");
}

#[test]
fn what_came_in_is_told_in_one_line_wherever_something_is_computed_from_it() {
    let dir = photos();
    manifest(dir.path(), "", "FC");
    let line = "ingest: 30 images, 2 classes (cat 15, dog 15), 2 sizes stretched to 4x4x1, own splits 24 train / 6 test, 2 \
                files left out\n";
    // All of it, then the training only, then nothing.
    for (last, is_told) in [("FC", true), ("FC(4) - RELU - FC", true), ("FC(4) - RELU - FC", false)] {
        manifest(dir.path(), "", last);
        let output = convoy(dir.path(), &["run", "photos.toml"]);
        let said = stderr(&output);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.matches(line).count(), usize::from(is_told), "{said}");
        assert_eq!(said.contains("nothing to do"), !is_told, "{said}");
        assert!(!said.contains("of its own"), "{said}");
    }
    assert!(!stderr(&convoy(dir.path(), &["run", "-q", "photos.toml"])).contains("ingest: 30"));
    // Its own test split, but for a manifest that draws another one.
    manifest(dir.path(), "test = 0.2", "FC");
    let said = stderr(&convoy(dir.path(), &["run", "-q", "photos.toml"]));
    let expected = "split: the data set has a test split of its own, 6 images, which `test` overrides: to use it, leave `test` \
                    out or write `test = \"given\"`";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn reports_of_what_succeeded_are_there_when_a_later_stage_fails() {
    let dir = photos();
    manifest(dir.path(), "", "FC(5)");
    let output = convoy(dir.path(), &["run", "-q", "photos.toml"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("stage `train, fold 1`"), "{}", stderr(&output));
    let read = |name: &str| fs::read_to_string(dir.path().join("out/photos").join(name)).unwrap_or_default();
    assert_eq!(
        read("skipped.csv"),
        "path,class,reason\ntrain/cat/broken.png,cat,is not an image of a known format\nnotes.txt,,is no image\n"
    );
    assert_eq!((read("data.csv").lines().count(), read("splits.csv").lines().count()), (31, 31));
    assert!(read("run.json").contains("\"complete\": false"));
    assert!(!dir.path().join("out/photos/metrics.csv").exists());
}

#[test]
fn the_manifest_of_init_uses_the_splits_of_the_data() {
    let dir = photos();
    assert!(convoy(dir.path(), &["init"]).status.success());
    let path = dir.path().join("pipeline.toml");
    let text = fs::read_to_string(&path).expect("a manifest");
    let keys = "source = \"photos\"\non_corrupt = \"skip\"\nresize = { width = 4, height = 4 }";
    fs::write(&path, text.replace("source = \"builtin:digits\"", keys)).expect("writable");
    let output = convoy(dir.path(), &["run", "-q", "--to", "split", "pipeline.toml"]);
    let said = stderr(&output);
    assert!(output.status.success() && !said.contains("of its own"), "{said}");
    let splits = fs::read_to_string(dir.path().join("out/pipeline/splits.csv")).expect("a table");
    assert_eq!(splits.lines().filter(|line| line.contains(",test,")).count(), 6, "{splits}");
}

#[test]
fn sizes_that_differ_come_with_one_that_would_do() {
    let dir = photos();
    manifest(dir.path(), "", "FC");
    let path = dir.path().join("photos.toml");
    let text = fs::read_to_string(&path).expect("a manifest").replace("resize = { width = 4, height = 4 }\n", "");
    fs::write(&path, text).expect("writable");
    for verb in [&["run", "-q"][..], &["check", "--data"]] {
        let said = stderr(&convoy(dir.path(), &[verb, &["photos.toml"]].concat()));
        assert!(said.contains("images have different sizes: `"), "{said}");
        assert!(said.contains("help: add `resize = 3`, say: their median size is 3x3"), "{said}");
    }
}

#[test]
fn a_test_split_that_is_far_from_what_was_learned_is_told_with_every_result() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(dir.path().join(".git")).expect("a project root");
    // Dark and bright are told apart; in the test split they bear each other's names.
    for i in 0..40_u8 {
        put(dir.path(), &format!("photos/train/dark/{i}.pgm"), 4, i);
        put(dir.path(), &format!("photos/train/bright/{i}.pgm"), 4, 200 + i);
        put(dir.path(), &format!("photos/test/dark/{i}.pgm"), 4, 201 + i);
        put(dir.path(), &format!("photos/test/bright/{i}.pgm"), 4, 41 + i);
    }
    manifest(dir.path(), "", "FC");
    let path = dir.path().join("photos.toml");
    let text = fs::read_to_string(&path).expect("a manifest");
    let text = text.replace("[stages.train]", "[stages.preprocess]\nsteps = [\"center\", \"scale\"]\n[stages.train]");
    let text = text.replace("epochs = 1", "epochs = 30\nlearning_rate = 0.01");
    fs::write(&path, text).expect("writable");
    let expected = "warning: evaluate: `train` recognises far fewer test images than it did out of fold:";
    for _ in 0..2 {
        let output = convoy(dir.path(), &["run", "-q", "photos.toml"]);
        let said = stderr(&output);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.matches(expected).count(), 1, "{said}");
    }
    let noted = fs::read_to_string(dir.path().join("out/photos/run.json")).expect("it is there");
    assert!(noted.contains("recognises far fewer test images"), "{noted}");
}
