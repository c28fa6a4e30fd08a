//! Variants of a manifest by `[matrix]` and `repeats`: what they share, what they write, what proves them.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{ran, unbroken};

/// A linear net on the built-in digits; `head` stands above its stages.
fn manifest(folder: &Path, head: &str, train: &str) {
    let text = format!(
        "schema = 1\nname = \"m\"\n{head}\n[stages.ingest]\nsource = \"builtin:digits\"\n[stages.split]\nseed = 1\n\
         folds = 2\ntrain_share = 0.5\n[stages.train]\narchitecture = \"INPUT - FC\"\nsanity = false\nepochs = 1\n{train}"
    );
    let text = text.replace("train_share = 0.5\n", "");
    fs::write(folder.join("m.toml"), text).unwrap();
}

const EVALUATE: &str = "[stages.evaluate]\nmetrics = [\"accuracy\", \"log-loss\"]\n";

fn json(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let all: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let (code, told, error) = ran(folder, &all);
    assert_eq!(code, Some(0), "{told}{error}");
    serde_json::from_str(&told).unwrap()
}

fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}

#[test]
fn the_first_repeat_is_the_plain_run_and_the_others_share_what_has_no_seed() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    manifest(folder, "seed = 7", EVALUATE);
    let plain = json(folder, &["run", "-q"]);
    // Ingest, split, two folds, an evaluation, its pictures and its suspects.
    assert_eq!(plain["computed"], 7);
    let repeated = json(folder, &["run", "-q", "--repeats", "3"]);
    // Two more trainings of two folds, two more evaluations with pictures and suspects.
    assert_eq!(repeated["computed"], 10);
    assert_eq!(repeated["variants"].as_array().unwrap().len(), 3);
    assert_eq!(json(folder, &["run", "-q", "--set", "repeats=3"])["computed"], 0);
    let out = fs::read_dir(folder.join("out")).unwrap().map(|entry| entry.unwrap().path());
    let out = out.into_iter().find(|path| path.to_string_lossy().contains("@set-")).unwrap();
    for file in ["metrics.csv", "predictions.csv", "epochs.csv", "metrics.json"] {
        let plain = fs::read(folder.join("out/m").join(file)).unwrap();
        assert_eq!(fs::read(out.join("repeat=1").join(file)).unwrap(), plain, "{file}");
        assert_ne!(fs::read(out.join("repeat=2").join(file)).unwrap(), plain, "{file}");
    }
    // As many repeats again with one more: seeds do not depend on how many there are.
    assert_eq!(json(folder, &["run", "-q", "--repeats", "4"])["computed"], 5);
    let (_, told, _) = ran(folder, &["why", "train", "--set", "repeats=5"]);
    assert!(told.contains("train repeat=5, fold 1..2: stale\n  param: `seed` changed: 7 -> "), "{told}");
}

#[test]
fn a_matrix_is_one_run_one_lock_file_and_one_table() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let head = "[matrix]\nseed = [1, 2]\n\"stages.train.optimizer\" = [\"sgd\", \"adam\"]";
    manifest(folder, head, EVALUATE);
    let (code, told, error) = ran(folder, &["run"]);
    assert_eq!(code, Some(0), "{told}{error}");
    // Ingest and split once, then two folds, an evaluation, its pictures and its suspects for each of four variants.
    assert!(error.contains("m: 22 of 22 tasks computed"), "{error}");
    let lines: Vec<&str> = told.lines().filter(|line| line.starts_with("optimizer=")).collect();
    assert_eq!(lines.len(), 4, "{told}");
    assert!(lines.iter().all(|line| line.contains(" ± ") && line.ends_with("2") && line.len() <= 102), "{told}");

    let table = rows(&folder.join("out/m/matrix.csv"));
    assert_eq!(table.len(), 4 * 2 * 2, "variants, splits, metrics");
    for row in &table {
        let is_own = |other: &&BTreeMap<String, String>| {
            ["stages.train.optimizer", "model", "split", "metric"].iter().all(|key| other[*key] == row[*key])
        };
        let values: Vec<f64> = table.iter().filter(is_own).map(|other| other["value"].parse().unwrap()).collect();
        let mean = (values[0] + values[1]) / 2.0;
        let deviation = (values[0] - values[1]).abs() / 2f64.sqrt();
        assert_eq!(row["repeats"], "2");
        assert!((row["mean"].parse::<f64>().unwrap() - mean).abs() < 1e-12, "{row:?}");
        assert!((row["deviation"].parse::<f64>().unwrap() - deviation).abs() < 1e-12, "{row:?}");
        assert!(row["variant"] == format!("seed={},optimizer={}", row["seed"], row["stages.train.optimizer"]));
    }

    // A variant's own manifest is that variant.
    let own = folder.join("out/m/seed=2,optimizer=adam");
    assert_eq!(json(&own, &["run", "manifest.toml", "-q"])["computed"], 0);
    // So is the manifest with its settings: where they are set, nothing is varied.
    let set = ["run", "-q", "--set", "seed=2", "--set", "stages.train.optimizer=adam"];
    let plain = json(folder, &set);
    assert_eq!((&plain["computed"], &plain["variants"]), (&0.into(), &serde_json::Value::Null));

    // The lock file has all of them.
    let lock = fs::read_to_string(folder.join("m.lock")).unwrap();
    for name in ["train seed=1,optimizer=sgd/fold 1", "evaluate seed=2,optimizer=adam/whole", "split/whole"] {
        assert!(lock.contains(&format!("\"{name}\" = ")), "{name}: {lock}");
    }
    let (code, _, error) = ran(folder, &["run", "--locked"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(error.contains("all equal"), "{error}");
    let (code, told, error) = ran(folder, &["check", "--locked"]);
    assert_eq!(code, Some(0), "{told}{error}");

    // What changed is told by variant, and judged by the predictions of that variant.
    fs::copy(folder.join("m.lock"), folder.join("before.lock")).unwrap();
    let manifest_before = fs::read_to_string(folder.join("m.toml")).unwrap();
    manifest(
        folder,
        head,
        &format!("{EVALUATE}gates = [{{ metric = \"accuracy\", baseline = \"before.lock\", within_noise = true }}]\n"),
    );
    let longer = fs::read_to_string(folder.join("m.toml")).unwrap().replace("epochs = 1", "epochs = 2");
    fs::write(folder.join("m.toml"), longer).unwrap();
    let (code, told, error) = ran(folder, &["run", "-q", "--locked", "--recompute"]);
    assert!(matches!(code, Some(3 | 6)), "{told}{error}");
    let changed = |line: &&str| line.contains("metric accuracy of train seed=") && line.contains("images)");
    assert!(unbroken(error.as_bytes()).lines().filter(changed).count() > 0, "{error}");
    assert!(error.contains("McNemar") && !error.contains("not known here"), "{error}");
    assert_eq!(ran(folder, &["run", "-q"]).0, Some(0));
    let (code, told, error) = ran(folder, &["diff", "before.lock", "m.lock"]);
    assert_eq!(code, Some(0), "{told}{error}");
    for variant in ["train seed=1,optimizer=sgd", "train seed=2,optimizer=adam"] {
        assert!(told.contains(variant), "{told}");
    }
    fs::write(folder.join("m.toml"), manifest_before).unwrap();
    assert_eq!(ran(folder, &["run", "-q"]).0, Some(0));
    manifest(folder, &head.replace("2]", "3]"), EVALUATE);
    let (code, _, error) = ran(folder, &["run", "--locked"]);
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("train") && error.contains("nothing was computed"), "{error}");
    assert_eq!(ran(folder, &["check", "--locked"]).0, Some(3));

    // What is no variant any more has no folder, and what somebody put there stays.
    fs::write(own.join("notes.txt"), "mine").unwrap();
    fs::remove_dir_all(own.join("out")).ok();
    assert_eq!(json(folder, &["run", "-q"])["computed"], 10);
    assert!(!folder.join("out/m/seed=2,optimizer=sgd").exists());
    assert!(own.join("notes.txt").exists() && !own.join("metrics.csv").exists());
    assert!(folder.join("out/m/seed=3,optimizer=sgd/curves/train.svg").exists());
}

#[test]
fn a_search_in_each_variant_is_the_search_of_that_variant_alone() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let search = "[stages.search]\nrounds = [{ trials = 2 }, { trials = 2 }]\n[stages.search.space]\n\
                  \"stages.train.learning_rate\" = { log-uniform = [1e-4, 1e-1] }\n";
    // The axis in front moves the stages behind it in the graph.
    let head = "[matrix]\nstages.split.folds = [2, 3]\nstages.search.seed = [1, 2]";
    manifest(folder, head, &format!("{search}{EVALUATE}"));
    let all = json(folder, &["run", "-q"]);
    assert_eq!(all["complete"], true);
    let set = ["run", "-q", "--set", "stages.split.folds=3", "--set", "stages.search.seed=2", "--out-dir", "alone"];
    assert_eq!(json(folder, &set)["computed"], 0);
    let alone = fs::read_dir(folder.join("alone")).unwrap().next().unwrap().unwrap().path();
    let own = folder.join("out/m/folds=3,seed=2");
    for file in ["trials.csv", "metrics.csv", "epochs.csv", "data.csv", "splits.csv"] {
        let expected = fs::read_to_string(alone.join(file)).unwrap();
        assert_eq!(fs::read_to_string(own.join(file)).unwrap(), expected, "{file}");
    }
    assert_eq!(json(folder, &["run", "-q"])["computed"], 0);
    assert_eq!(ran(folder, &["run", "--locked", "-q"]).0, Some(0));
}

#[test]
fn a_gate_that_one_variant_fails_is_told_with_the_variant() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let gate = "gates = { accuracy = \">= 0.5\" }\n";
    manifest(folder, "[matrix]\nstages.train.learning_rate = [0.01, 1e-9]", &format!("{EVALUATE}{gate}"));
    let (code, _, error) = ran(folder, &["run", "-q"]);
    assert_eq!(code, Some(6), "{error}");
    assert!(error.contains("of `train` in variant `learning_rate=1e-9` on test"), "{error}");
    assert!(!error.contains("in variant `learning_rate=0.01`"), "{error}");
    let (code, _, error) = ran(folder, &["predict", "m.toml", "x.png"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--stage 'train learning_rate=0.01'"), "{error}");
}
