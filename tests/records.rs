//! What a task did can be done again from its record alone, without manifest and graph: the same bytes.

mod common;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use convoy::config::quote;
use convoy::manifest::{Manifest, Overrides};
use convoy::runner::{Options, Session, Silent, repeat};
use convoy::stages::{KINDS, Part};
use convoy::store::Access;
use convoy::store::fingerprint::TaskRecord;

use common::{draw_images, manifests_in};

/// Runs a manifest into a store of its own, and repeats every task from its record, on one thread and on three, and
/// once told to stop: then it does, or it was done so soon that nobody waits, never half. Returns the records.
fn check(manifest: &Manifest, places: &[(String, String)], what: &str) -> Vec<(TaskRecord, Part)> {
    let go_on = AtomicBool::new(false);
    let store = tempfile::tempdir().unwrap();
    let session = Session::open(manifest, None, Some(&store.path().join("store")), Access::Write).unwrap();
    let outcome = session.run(&Options::new(2, &go_on), &Silent).unwrap();
    let failures: Vec<_> = outcome.failures().map(|(task, failure)| (&task.name, failure)).collect();
    assert!(outcome.is_complete(), "{what}: {failures:?}");
    let mut done = Vec::new();
    for task in &outcome.tasks {
        let fingerprint = task.entry.as_ref().unwrap().fingerprint;
        let record = session.store.task(&fingerprint).unwrap();
        assert_eq!(record.fingerprint(), fingerprint, "{what}: {}", task.name);
        let places = if record.sources.is_empty() { &[] } else { places };
        for threads in [1, 3] {
            let differing = repeat(&session.store, &fingerprint, KINDS, places, threads, &go_on);
            let differing = differing.unwrap_or_else(|error| panic!("{what}: {}: {error}", task.name));
            assert_eq!(differing, [""; 0], "{what}: {} on {threads} threads", task.name);
        }
        let files = session.store.open_artifact(task.entry.as_ref().unwrap()).unwrap();
        assert!(!files.0.is_empty(), "{what}: {} has no files", task.name);
        let is_long = ["ingest", "reduce", "train"].contains(&&record.kind[..]);
        match repeat(&session.store, &fingerprint, KINDS, places, 1, &AtomicBool::new(true)) {
            Err(error) => assert_eq!(error.to_string(), "it was stopped", "{what}: {}", task.name),
            Ok(differing) => {
                assert_eq!(differing, [""; 0], "{what}: {} is half of it", task.name);
                assert!(!is_long, "{what}: {} does not hear that it is to stop", task.name);
            }
        }
        done.push((record, task.part));
    }
    unmoved(&session, what);
    done
}

/// Rows that are held out of a task move nothing of what it learns, and come to what it says of them.
fn unmoved(session: &Session<'_>, what: &str) {
    let go_on = AtomicBool::new(false);
    let plan = session.plan(&Options::new(2, &go_on)).unwrap();
    let mut test = session.leak_test(&plan).unwrap();
    let mut n = 0;
    for i in 0..test.learners().len() {
        let name = test.learners()[i].name.clone();
        let found = test.check(i, 2, &go_on, &|_, _, _, _| ());
        let Some(found) = found.unwrap_or_else(|error| panic!("{what}: {name}: {error}")) else { continue };
        assert!(!found.fitted.is_empty(), "{what}: {name} learns nothing");
        assert_eq!(found.moved, [], "{what}: {name}");
        assert_eq!(found.unreached, [""; 0], "{what}: {name}");
        n += 1;
    }
    assert!(n > 0, "{what}: nothing learns");
}

#[test]
fn tasks_of_shipped_pipelines_can_be_repeated_from_their_records() {
    let mut n = 0;
    for path in manifests_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")) {
        let plain = Manifest::load(&path, &Overrides::default()).unwrap_or_else(|problems| panic!("{problems}"));
        // The data that come with the program, few of them and not for long.
        let mut sets = vec!["stages.ingest.source=builtin:digits".to_owned(), "stages.ingest.limit=100".to_owned()];
        for node in &plain.nodes {
            let keys: &[&str] = match node.stage.kind() {
                "split" => &["test=0.2"],
                "train" => &["epochs=1", "batch_size=20"],
                "evaluate" => &["gates={}"],
                _ => &[],
            };
            sets.extend(keys.iter().map(|key| format!("stages.{}.{key}", node.name)));
        }
        if plain.nodes.iter().any(|node| node.stage.kind() == "search") {
            sets.push("stages.search.rounds=[{ trials = 3, epochs = 1, keep = 2 }, { trials = 1 }]".to_owned());
        }
        let what = path.file_name().unwrap().to_string_lossy().into_owned();
        let overrides = Overrides { sets, ..Overrides::default() };
        let manifest = Manifest::load(&path, &overrides).unwrap_or_else(|problems| panic!("{what}: {problems}"));
        n += check(&manifest, &[], &what).len();
    }
    assert!(n > 100, "{n} tasks");
}

const EVERY_KIND: &str = r#"
schema = 1
name = "records"
seed = 3

[stages.ingest]
source = "images"
resize = { width = 8, height = 8 }
channels = "gray"

[stages.split]
test = 0.25
folds = 2

[stages.preprocess]
steps = ["center", { scale = { per = "global" } }]

[stages.reduce]
method = { pca = { components = 4, whiten = true } }

[stages.mlp]
kind = "train"
architecture = "INPUT - FC({units}) - RELU - FC"
vars = { units = 4 }
epochs = 2
final = "refit"
calibrate = "temperature"
optimizer = { sgd = { momentum = 0.5 } }

[stages.cnn]
kind = "train"
input = "preprocess"
architecture = "INPUT - CONV(6) - BN - RELU - CONV(6) - RELU - POOL - DROPOUT(0.2) - FC"
epochs = 2
batch_size = 5
augment = [{ flip = { probability = 0.25 } }]
class_weights = "balanced"
predict = ["flip", { shift = { pixels = 1, fill = "edge" } }]
abstain = { error = 0.6 }

[stages.tuned]
kind = "train"
input = "preprocess"
architecture = "INPUT - POOL({a}) - POOL({b}) - FC"
vars = { a = 2, b = 2 }
epochs = 1
final = "refit"
predict = [{ flip = "both" }]
calibrate = "temperature"

[stages.search]
tune = "tuned"
space.stages.tuned.learning_rate = { log-uniform = [1e-4, 1e-1] }
space.stages.tuned.vars.a = { choice = [2, 4, 1] }
space.stages.tuned.vars.b = { choice = [2, 4, 1] }
rounds = [{ trials = 12, epochs = 1, keep = 3 }, { trials = 2 }]
keep = 2

[stages.stacked]
kind = "ensemble"
members = ["mlp", "cnn", "search"]
combine = "stacking"
calibrate = "temperature"

[stages.voted]
kind = "ensemble"
members = ["mlp", "cnn"]
combine = "vote"
abstain = { error = 0.5 }

[stages.evaluate]
bootstrap = 100
"#;

#[test]
fn tasks_of_every_kind_can_be_repeated_from_their_records() {
    let temp = tempfile::tempdir().unwrap();
    draw_images(temp.path());
    let path = temp.path().join("records.toml");
    std::fs::write(&path, EVERY_KIND).unwrap();
    let manifest = Manifest::load(&path, &Overrides::default()).unwrap_or_else(|problems| panic!("{problems}"));
    // Where the images are is in no record: whoever repeats `ingest` says it.
    let images = temp.path().join("images");
    // Windows of 4 on windows of 4 are larger than what is left of the images.
    let done = check(&manifest, &[("source".to_owned(), quote(&images.to_string_lossy()))], "every kind");
    for kind in KINDS {
        assert!(done.iter().any(|(done, _)| done.kind == kind.name), "no task of `{}`", kind.name);
    }
    let recorded: Vec<&(String, String)> = done.iter().flat_map(|(record, _)| &record.keys).collect();
    let unfit = |key: &&(String, String)| key.0.starts_with("trials[r1") && key.0.ends_with("].trained");
    assert!(recorded.iter().any(unfit), "no trial of the search is one that nothing can be trained with");
    let parts = [Part::Whole, Part::Fold(2), Part::All, Part::Round(1), Part::Round(2), Part::Sanity, Part::Pictures];
    for part in parts.into_iter().chain([Part::Predict(0), Part::Predict(2), Part::Calibration, Part::Suspects]) {
        assert!(done.iter().any(|(_, done)| *done == part), "no task `{part}`");
    }
}

#[test]
fn an_evaluation_by_columns_can_be_repeated_from_its_record() {
    let temp = tempfile::tempdir().unwrap();
    draw_images(temp.path());
    let row = |i: u32| {
        let class = ["ant", "bee"][i as usize % 2];
        format!("images/{class}/{:02}.png,{class},c{}\n", i / 2, i / 3 % 2)
    };
    let rows: String = (0..24).map(row).collect();
    std::fs::write(temp.path().join("table.csv"), format!("path,label,camera\n{rows}")).unwrap();
    let text = "schema = 1\n[stages.ingest]\nsource = \"table.csv\"\ncolumns = [\"camera\"]\n[stages.split]\ntest = 0.25\n\
        folds = 2\n[stages.train]\narchitecture = \"INPUT - FC\"\nepochs = 1\nsanity = false\n[stages.evaluate]\n\
        by = [\"camera\"]\ngates = [{ metric = \"accuracy\", by = \"camera\", at_least = 0.01 }]\n";
    let path = temp.path().join("columns.toml");
    std::fs::write(&path, text).unwrap();
    let manifest = Manifest::load(&path, &Overrides::default()).unwrap_or_else(|problems| panic!("{problems}"));
    let table = temp.path().join("table.csv");
    let done = check(&manifest, &[("source".to_owned(), quote(&table.to_string_lossy()))], "columns");
    let keys = done.iter().flat_map(|(record, _)| record.keys.iter().map(|(key, _)| key.as_str()));
    let keys: Vec<&str> = keys.collect();
    assert!(["columns", "by", "gates[0].by"].iter().all(|key| keys.contains(key)), "{keys:?}");
}
