//! The pipelines that are shipped: each is checked and planned, the digits are run, and their bytes compared.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use convoy::manifest::{Manifest, Overrides};
use convoy::stages::Upstream;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn convoy(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    common::program(dir, arguments).envs(environment.iter().copied()).output().expect("the program starts")
}

#[track_caller]
fn run(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = convoy(dir, arguments, environment);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?} {environment:?}: {}\n{stderr}", output.status);
    stderr
}

/// Every file below `dir` but those that hold times, by relative path.
fn outputs(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|entry| entry.expect("readable"))
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| (entry.path().strip_prefix(dir).expect("below").display().to_string(), entry.into_path()))
        .filter(|(name, _)| !name.ends_with("timings.csv") && !name.ends_with("run.json"))
        .map(|(name, path)| (name, fs::read(path).expect("readable")))
        .collect()
}

fn fresh_project(manifest: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(dir.path().join(".git")).expect("a project root");
    fs::create_dir(dir.path().join("pipelines")).expect("a folder");
    let text = fs::read(root().join("pipelines").join(manifest)).expect("a shipped pipeline");
    fs::write(dir.path().join("pipelines").join(manifest), text).expect("writable");
    dir
}

#[test]
fn every_pipeline_is_checked_and_planned() {
    let mut n_pipelines = 0;
    for entry in fs::read_dir(root().join("pipelines")).expect("pipelines") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        n_pipelines += 1;
        let manifest = Manifest::load(&path, &Overrides::default())
            .unwrap_or_else(|diagnostics| panic!("{}", diagnostics.render(false)));
        let warnings: Vec<&str> = manifest.warnings.iter().map(|warning| warning.message.as_str()).collect();
        // A long training of one model keeps few images to watch it by.
        let is_known =
            path.ends_with("cifar10-augmented.toml") && matches!(warnings[..], [one] if one.starts_with("98 %"));
        assert!(is_known || warnings.is_empty(), "{}: {}", path.display(), manifest.diagnostics().render(false));
        for (own, node) in manifest.nodes.iter().enumerate() {
            let upstream = Upstream { own, nodes: &manifest.nodes };
            for part in node.stage.parts(&node.flow) {
                for need in node.stage.needs(part, &upstream) {
                    assert!(need.stage <= own, "{}: `{}` needs a stage below it", path.display(), node.name);
                }
            }
        }
    }
    assert!(n_pipelines >= 4, "{n_pipelines} pipelines");
}

/// Promise 1: everything but the times is the same to the byte, for any number of threads and from a clean start.
#[test]
fn digits_have_the_same_bytes_on_one_two_and_seven_threads() {
    let reference = fresh_project("digits.toml");
    run(reference.path(), &["run", "pipelines/digits.toml", "--threads", "2"], &[]);
    let expected = outputs(&reference.path().join("out/digits"));
    for name in
        ["metrics.csv", "epochs.csv", "predictions.csv", "confusion.csv", "data.csv", "splits.csv", "skipped.csv"]
    {
        assert!(expected.contains_key(name), "no {name} among {:?}", expected.keys());
    }
    let lock = fs::read(reference.path().join("pipelines/digits.lock")).expect("a lock file");
    for threads in ["1", "7"] {
        let project = fresh_project("digits.toml");
        run(project.path(), &["run", "pipelines/digits.toml", "--threads", threads], &[]);
        let got = outputs(&project.path().join("out/digits"));
        assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, bytes) in &got {
            assert!(*bytes == expected[name], "{name} differs on {threads} threads");
        }
        assert!(fs::read(project.path().join("pipelines/digits.lock")).expect("a lock file") == lock, "lock file");
    }
    let said = run(reference.path(), &["run", "pipelines/digits.toml"], &[]);
    assert!(said.contains("nothing to do"), "{said}");
    run(reference.path(), &["run", "pipelines/digits.toml", "--locked"], &[]);
}

/// Runs a pipeline, cut short, on every instruction set: the portable kernels are slow by design.
fn instruction_sets_change_no_byte(manifest: &str, sets: &[&str]) {
    let path = format!("pipelines/{manifest}");
    let mut arguments = vec!["run", &path];
    arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
    let mut first: Option<BTreeMap<String, Vec<u8>>> = None;
    for isa in convoy::engine::Isa::available() {
        let project = fresh_project(manifest);
        run(project.path(), &arguments, &[("CONVOY_ISA", isa.name())]);
        let got = outputs(&project.path().join("out"));
        assert!(got.keys().any(|name| name.ends_with("metrics.csv")), "{:?}", got.keys());
        match &first {
            None => first = Some(got),
            Some(first) => assert!(*first == got, "{isa} gives other bytes"),
        }
    }
}

#[test]
fn a_short_training_has_the_same_bytes_on_every_instruction_set() {
    let sets = ["stages.train.epochs=1", "stages.split.folds=2", "stages.evaluate.gates={}", "stages.ingest.limit=120"];
    instruction_sets_change_no_byte("digits.toml", &sets);
}

#[test]
fn components_have_the_same_bytes_on_every_instruction_set() {
    let sets = ["stages.cnn.epochs=1", "stages.dense.epochs=2", "stages.split.folds=2", "stages.ingest.limit=200"];
    instruction_sets_change_no_byte("pca.toml", &sets);
}

/// Two train stages, one of them refitted, and an ensemble of both.
#[test]
fn branches_run_and_report_every_model() {
    let project = fresh_project("branches.toml");
    run(
        project.path(),
        &["run", "pipelines/branches.toml", "--set", "stages.cnn.epochs=2", "--set", "stages.dense.epochs=3"],
        &[],
    );
    let out = fs::read_dir(project.path().join("out")).expect("out").next().expect("one").expect("readable").path();
    assert!(out.file_name().expect("a name").to_string_lossy().starts_with("branches@set-"), "{}", out.display());
    let metrics = fs::read_to_string(out.join("metrics.csv")).expect("metrics");
    for model in ["both,test", "cnn,test", "dense,test", "both,out_of_fold"] {
        assert!(metrics.lines().any(|line| line.starts_with(model)), "no row of {model}");
    }
}
