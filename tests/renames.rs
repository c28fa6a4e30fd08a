//! What changes no pixel and no label retrains nothing: names, files that are left out, keys without effect.

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use convoy::manifest::{Manifest, Overrides};
use convoy::runner::{Options, Outcome, Session, Silent, State};
use convoy::store::Access;

use common::{draw_images, program};

const MANIFEST: &str = r#"
schema = 1
name = "renames"
seed = 1

[stages.ingest]
source = "images"
on_corrupt = "skip"

[stages.split]
test = 0.25
folds = 2

[stages.preprocess]
steps = ["center", "scale"]

[stages.reduce]
method = { pca = { components = 4, whiten = true } }

[stages.train]
architecture = "INPUT - FC(4) - RELU - FC"
epochs = 2
final = "refit"
sanity = false

[stages.other]
kind = "train"
input = "preprocess"
architecture = "INPUT - CONV(2) - RELU - FC"
epochs = 1
sanity = false

[stages.ensemble]
members = ["train", "other"]
combine = "stacking"

[stages.evaluate]
"#;

fn run(root: &Path, manifest: &str) -> (Vec<String>, Outcome) {
    let path = root.join("renames.toml");
    fs::write(&path, manifest).unwrap();
    let manifest = Manifest::load(&path, &Overrides::default()).unwrap_or_else(|problems| panic!("{problems}"));
    let go_on = AtomicBool::new(false);
    let session = Session::open(&manifest, None, None, Access::Write).unwrap();
    let outcome = session.run(&Options::new(2, &go_on), &Silent).unwrap();
    assert!(outcome.is_complete(), "{:?}", outcome.failures().collect::<Vec<_>>());
    assert!(session.plan(&Options::new(2, &go_on)).unwrap().tasks.iter().all(|task| task.state == State::Fresh));
    (outcome.computed().map(|task| task.name.clone()).collect(), outcome)
}

#[track_caller]
fn check(edit: &dyn Fn(&Path), change: (&str, &str), expected: &[&str]) {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join(".git")).unwrap();
    draw_images(temp.path());
    let (first, _) = run(temp.path(), MANIFEST);
    assert!(first.len() > 12, "{first:?}");
    edit(temp.path());
    let (computed, _) = run(temp.path(), &MANIFEST.replace(change.0, change.1));
    assert_eq!(computed, expected);
}

#[test]
fn a_renamed_image_that_keeps_its_place_retrains_nothing() {
    let edit = |root: &Path| fs::rename(root.join("images/ant/03.png"), root.join("images/ant/03-old.png")).unwrap();
    check(&edit, ("", ""), &["ingest", "split", "evaluate", "evaluate, pictures", "evaluate, suspects"]);
}

#[test]
fn a_renamed_class_retrains_nothing() {
    let edit = |root: &Path| fs::rename(root.join("images/bee"), root.join("images/wasp")).unwrap();
    check(&edit, ("", ""), &["ingest", "split", "evaluate", "evaluate, pictures", "evaluate, suspects"]);
}

#[test]
fn a_file_that_is_left_out_wakes_only_ingest() {
    let corrupt = |root: &Path| fs::write(root.join("images/ant/99.png"), b"\x89PNG\r\n\x1a\nbroken").unwrap();
    check(&corrupt, ("", ""), &["ingest"]);
    let notes = |root: &Path| fs::write(root.join("images/ant/notes.txt"), "text").unwrap();
    check(&notes, ("", ""), &["ingest"]);
}

#[test]
fn keys_without_effect_on_pixels_wake_only_ingest() {
    for key in ["exif = \"ignore\"", "depth = \"8\"", "alpha = \"white\"", "max_corrupt = 7", "max_pixels = 1000000"] {
        let with = format!("source = \"images\"\n{key}");
        check(&|_| (), ("source = \"images\"", &with), &["ingest"]);
    }
}

#[test]
fn a_changed_pixel_retrains_everything_that_stands_on_it() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join(".git")).unwrap();
    draw_images(temp.path());
    let (first, _) = run(temp.path(), MANIFEST);
    let path = temp.path().join("images/ant/03.png");
    let mut image = image::open(&path).unwrap().to_luma8();
    image.put_pixel(2, 2, image::Luma([255]));
    image.save(&path).unwrap();
    let (computed, outcome) = run(temp.path(), MANIFEST);
    // The places of images are the same: whatever reads only those and labels stays.
    let trainings =
        |names: &[String]| names.iter().filter(|name| name.starts_with("train") || name.starts_with("other")).count();
    assert_eq!(trainings(&computed), trainings(&first), "{computed:?}");
    let reasons: Vec<String> =
        outcome.computed().flat_map(|task| task.reasons.iter().map(ToString::to_string)).collect();
    assert_eq!(reasons[0], "input `images` changed: 1 changed, `ant/03.png`");
    assert!(reasons.contains(&"output of `ingest` changed".to_owned()), "{reasons:?}");
}

#[test]
fn what_a_run_writes_beside_the_images_is_no_source() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    fs::create_dir(root.join(".git")).unwrap();
    draw_images(root);
    for class in ["ant", "bee"] {
        fs::rename(root.join("images").join(class), root.join(class)).unwrap();
    }
    fs::remove_dir(root.join("images")).unwrap();
    fs::write(root.join("renames.toml"), MANIFEST.replace("source = \"images\"", "source = \".\"")).unwrap();
    let run = || {
        let output = program(root, &["run", "renames.toml"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        (said, fs::read_to_string(root.join("out/renames/data.csv")).unwrap())
    };
    let (_, first) = run();
    for _ in 0..2 {
        let (said, data) = run();
        assert!(said.contains("nothing to do"), "{said}");
        assert_eq!(data, first);
    }
    assert_eq!(first.lines().count(), 25);
    // Nor is what its own output is redirected to, and a manifest may be edited where it lies.
    let manifest = fs::read_to_string(root.join("renames.toml")).unwrap();
    fs::write(root.join("renames.toml"), format!("# edited\n{manifest}")).unwrap();
    for name in ["told", "told.txt"] {
        let told = fs::File::create(root.join(name)).unwrap();
        let status = program(root, &["run", "renames.toml"]).stderr(told).status().unwrap();
        let said = fs::read_to_string(root.join(name)).unwrap();
        assert!(status.success() && !said.contains("changed while"), "{said}");
        assert!(name == "told.txt" || said.contains("nothing to do"), "{said}");
        assert_eq!(fs::read_to_string(root.join("out/renames/data.csv")).unwrap(), first);
    }
}
