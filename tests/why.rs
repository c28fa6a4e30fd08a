//! What `why` says, word by word, of everything that can make a task stale.

mod common;

use std::fs;
use std::path::Path;

use common::{draw_images, program};

const MANIFEST: &str = r#"schema = 1
name = "why"

[stages.ingest]
source = "images"

[stages.split]
test = 0.25
folds = 2

[stages.preprocess]
steps = ["center", "scale"]

[stages.mlp]
kind = "train"
architecture = "INPUT - FC(4) - RELU - FC"
epochs = 2
sanity = false

[stages.cnn]
kind = "train"
input = "preprocess"
architecture = "INPUT - CONV(2) - RELU - FC"
epochs = 2
sanity = false

[stages.tuned]
kind = "train"
input = "preprocess"
architecture = "INPUT - FC"
epochs = 1
sanity = false

[stages.search]
tune = "tuned"
space.stages.tuned.learning_rate = { log-uniform = [1e-3, 1e-1] }
rounds = [{ trials = 3, keep = 2 }, { trials = 1 }]

[stages.ensemble]
members = ["mlp", "cnn"]

[stages.evaluate]
"#;

fn convoy(root: &Path, arguments: &[&str]) -> String {
    let output = program(root, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A project that has run, edited: `(old, new)` in the manifest, then whatever `edit` does.
#[track_caller]
fn check(stage: &str, (old, new): (&str, &str), edit: &dyn Fn(&Path), expected: &str) {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    draw_images(root);
    fs::create_dir(root.join(".git")).unwrap();
    fs::write(root.join("m.toml"), MANIFEST).unwrap();
    convoy(root, &["run", "m.toml", "--quiet"]);
    assert!(MANIFEST.contains(old), "{old}");
    fs::write(root.join("m.toml"), MANIFEST.replacen(old, new, 1)).unwrap();
    edit(root);
    assert_eq!(convoy(root, &["why", stage, "m.toml"]), expected);
}

fn nothing(_: &Path) {}

#[test]
fn a_key_of_a_layer() {
    let expected = "cnn, fold 1..2: stale\n  \
        param: `layers[1].conv.filters` changed: 2 -> 3\n    --> m.toml:23:30\n";
    check("cnn", ("CONV(2)", "CONV(3)"), &nothing, expected);
}

#[test]
fn keys_of_a_list_item_and_the_item_itself() {
    let expected = "preprocess, fold 1..2: stale\n  \
        param: `steps[1].scale.per` changed: \"channel\" -> \"global\"\n    --> m.toml:12:38\n";
    check("preprocess", ("\"scale\"]", "{ scale = { per = \"global\" } }]"), &nothing, expected);
    let expected = "preprocess, fold 1..2: stale\n  \
        param: `steps[1]` changed: { scale = { per = \"channel\", to = \"unit-variance\" } } -> none\n    --> m.toml:12:9\n";
    check("preprocess", (", \"scale\"]", "]"), &nothing, expected);
}

#[test]
fn the_space_of_a_search() {
    let expected = "search, round 1: 3 trials: stale\n  \
        `learning_rate` changed: 0.00227 -> 0.001507; 2 more reasons\n    --> m.toml:36:36\n\
        search, round 1: pending\n  \
        param: `space.stages.tuned.learning_rate` changed: { log-uniform = [0.001, 0.1] } ->\n      { log-uniform = [0.001, 0.01] }\n    --> m.toml:36:36\n  \
        upstream: waits for the trials of `search`\n\
        search, round 2: pending\n  \
        param: `space.stages.tuned.learning_rate` changed: { log-uniform = [0.001, 0.1] } ->\n      { log-uniform = [0.001, 0.01] }\n    --> m.toml:36:36\n  \
        upstream: waits for round 1 of `search`\n\
        search, fold 1..2: pending\n  \
        upstream: waits for round 2 of `search`\n";
    check("search", ("1e-1]", "1e-2]"), &nothing, expected);
}

#[test]
fn a_key_of_the_stage_that_a_search_tunes() {
    let expected = "search, round 1: 3 trials: stale\n  \
        `epochs` changed: 1 -> 3\n    --> m.toml:31:10\n\
        search, round 1: pending\n  \
        upstream: waits for the trials of `search`\n\
        search, round 2: pending\n  \
        upstream: waits for round 1 of `search`\n\
        search, fold 1..2: pending\n  \
        upstream: waits for round 2 of `search`\n";
    check("search", ("epochs = 1\n", "epochs = 3\n"), &nothing, expected);
    check("tuned", ("", ""), &nothing, "tuned: has no tasks of its own, its trials are those of `search`\n");
}

#[test]
fn the_rounds_of_a_search() {
    let expected = "search, round 1: 3 trials: fresh\n\
        search, round 1: 1 trial: stale\n  \
        has not run yet\n\
        search, round 1: pending\n  \
        param: `rounds[0].trials` changed: 3 -> 4\n    --> m.toml:37:22\n  \
        upstream: waits for the trials of `search`\n\
        search, round 2: pending\n  \
        upstream: waits for round 1 of `search`\n\
        search, fold 1..2: pending\n  \
        upstream: waits for round 2 of `search`\n";
    check("search", ("trials = 3", "trials = 4"), &nothing, expected);
}

#[test]
fn members_and_how_they_are_combined() {
    let expected = "ensemble: stale\n  \
        param: `members` changed: mlp, cnn -> mlp, search\n    --> m.toml:40:11\n";
    check("ensemble", ("[\"mlp\", \"cnn\"]", "[\"mlp\", \"search\"]"), &nothing, expected);
    let expected = "ensemble: stale\n  \
        param: `combine` changed: \"mean-probability\" -> \"vote\"\n    --> m.toml:41:11\n";
    let with = "[\"mlp\", \"cnn\"]\ncombine = \"vote\"";
    check("ensemble", ("[\"mlp\", \"cnn\"]", with), &nothing, expected);
}

#[test]
fn images_that_came_went_or_changed_and_an_empty_folder() {
    let at = |root: &Path, name: &str| root.join("images").join(name);
    let check = |edit: &dyn Fn(&Path), expected: &str| {
        check("ingest", ("", ""), edit, &format!("ingest: stale\n  input: input `images` changed: {expected}\n"));
    };
    let copy = |root: &Path| fs::write(at(root, "ant/new.png"), fs::read(at(root, "ant/00.png")).unwrap()).unwrap();
    check(&copy, "1 added, `ant/new.png`");
    check(&|root| fs::remove_file(at(root, "bee/03.png")).unwrap(), "1 removed, `bee/03.png`");
    let both = |root: &Path| {
        fs::copy(at(root, "ant/00.png"), at(root, "ant/05.png")).unwrap();
        fs::remove_file(at(root, "bee/03.png")).unwrap();
    };
    check(&both, "1 changed, 1 removed, first `ant/05.png`");
    check(&|root| fs::create_dir(at(root, "cat")).unwrap(), "1 added, `cat/`");
}

#[test]
fn what_is_above_is_told_once() {
    let expected = "mlp, fold 1..2: pending\n  \
        upstream: waits for `ingest`, `split`, `preprocess`\n\
        ingest: stale\n  \
        input: input `images` changed: 1 removed, `bee/03.png`\n\
        split: pending\n  \
        upstream: waits for `ingest`\n\
        preprocess, fold 1..2: pending\n  \
        upstream: waits for `ingest`, `split`\n";
    check("mlp", ("", ""), &|root| fs::remove_file(root.join("images/bee/03.png")).unwrap(), expected);
}

#[test]
fn a_refit_and_a_seed() {
    let expected = "cnn, fold 1..2: fresh\n\
        cnn, all: pending\n  \
        param: `final` changed: \"fold-ensemble\" -> \"refit\"\n    --> m.toml:21:9\n  \
        upstream: waits for `preprocess`\n\
        preprocess, fold 1..2: fresh\n\
        preprocess, all: stale\n  \
        missing: has not run yet\n";
    let cnn = ("[stages.cnn]\n", "[stages.cnn]\nfinal = \"refit\"\n");
    check("cnn", cnn, &nothing, expected);
    let expected = "split: stale\n  param: `seed` changed: 0 -> 9\n    --> m.toml:2:8\n";
    check("split", ("name =", "seed = 9\nname ="), &nothing, expected);
}

#[test]
fn a_damaged_file_and_one_that_is_gone() {
    let blob = |root: &Path| {
        let blobs = fs::read_dir(root.join(".convoy/cas")).unwrap().map(|blob| blob.unwrap().path());
        blobs.filter(|path| fs::read(path).unwrap().starts_with(b"id,path,group")).max().unwrap()
    };
    // As `verify` leaves one that was damaged.
    let gone = |root: &Path| {
        let path = blob(root);
        let name = format!("{}-1234567890123", path.file_name().unwrap().to_str().unwrap());
        fs::rename(&path, root.join(".convoy/quarantine").join(name)).unwrap();
    };
    let expected = "ingest: stale\n  missing: file `names.csv` of its artifact is no longer in the store\n";
    check("ingest", ("", ""), &gone, expected);
    let damage = |root: &Path| {
        let (path, content) = (blob(root), fs::read(blob(root)).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, &content[1..]).unwrap();
    };
    let expected = "ingest: stale\n  corrupt: file `names.csv` of its artifact was damaged on disk\n";
    check("ingest", ("", ""), &damage, expected);
}

#[test]
fn a_revision() {
    // A record of an earlier version: the same but for the revision, under the name that its text then has.
    use convoy::artifact::Sink;
    use convoy::store::{Access, Store, fingerprint::TaskRecord};
    let older = |root: &Path| {
        let store = Store::open(&root.join(".convoy"), root, Access::Write).unwrap();
        let notes = store.notes("runs").unwrap();
        let (name, _) = notes.first().unwrap();
        let note = String::from_utf8(store.read_note("runs", name).unwrap().unwrap()).unwrap();
        let records = fs::read_dir(root.join(".convoy/ac")).unwrap();
        let fingerprints = records.map(|record| record.unwrap().file_name().into_string().unwrap().parse().unwrap());
        let is_it = |record: &TaskRecord| record.kind == "preprocess" && record.part == "fold 1";
        let (fingerprint, mut record) = fingerprints
            .filter_map(|fingerprint| Some((fingerprint, store.task(&fingerprint)?)))
            .find(|(_, record)| is_it(record))
            .unwrap();
        record.rooms[0].1 -= 1;
        let mut draft = store.draft().unwrap();
        draft.put("transform.json", b"{}").unwrap();
        store.publish(draft, &record, "older", Vec::new()).unwrap();
        let note = note.replace(&fingerprint.to_string(), &record.fingerprint().to_string());
        store.write_note("runs", name, note.as_bytes()).unwrap();
        fs::remove_file(root.join(".convoy/ac").join(fingerprint.to_string())).unwrap();
    };
    let expected = "preprocess, fold 1: stale\n  \
        revision: `affine` gives other bytes in this version of Convoy (revision 0 -> 1)\n\
        preprocess, fold 2: fresh\n";
    check("preprocess", ("", ""), &older, expected);
}
