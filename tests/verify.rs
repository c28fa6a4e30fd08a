//! `verify` re-executes what is recorded, and finds an artifact that its task does not give.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{draw_images, program};
use convoy::store::fingerprint::TaskRecord;
use convoy::store::{Digest, Entry};

const MANIFEST: &str = r#"schema = 1
name = "small"
seed = 1

[stages.ingest]
source = "images"

[stages.split]
test = 0.25
folds = 2

[stages.preprocess]
steps = ["center"]

[stages.train]
architecture = "INPUT - CONV(4) - RELU - POOL - FC"
epochs = 2
sanity = false

[stages.evaluate]
"#;

fn convoy(dir: &Path, arguments: &[&str]) -> (Output, String, String) {
    let output = program(dir, arguments).output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

fn project() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join(".git")).unwrap();
    draw_images(temp.path());
    fs::write(temp.path().join("small.toml"), MANIFEST).unwrap();
    let (run, _, stderr) = convoy(temp.path(), &["run", "-q", "--threads", "1"]);
    assert!(run.status.success(), "{stderr}");
    temp
}

/// Every file below the store but notes that save hashing, with its content.
fn stored(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for folder in ["ac", "cas", "quarantine"] {
        for entry in walkdir::WalkDir::new(dir.join(".convoy").join(folder)).sort_by_file_name() {
            let path = entry.unwrap().into_path();
            if path.is_file() {
                all.push((path.clone(), fs::read(path).unwrap()));
            }
        }
    }
    all
}

/// The record of the task that is called so, replaced by one whose file `name` is `content`.
fn plant(dir: &Path, label: &str, name: &str, edit: impl Fn(&mut Vec<u8>)) {
    let store = dir.join(".convoy");
    let (path, entry, record) = fs::read_dir(store.join("ac"))
        .unwrap()
        .find_map(|file| {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let (entry, record) = Entry::parse_with_task(&text)?;
            let record = TaskRecord::parse(record)?;
            (entry.label == label).then(|| (path.clone(), entry.clone(), record))
        })
        .expect("a record");
    let mut entry = entry;
    let output = entry.outputs.iter_mut().find(|output| output.name == name).expect("a file");
    let mut bytes = fs::read(store.join("cas").join(output.digest.to_string())).unwrap();
    edit(&mut bytes);
    output.digest = Digest::of(&bytes);
    output.size = bytes.len() as u64;
    fs::write(store.join("cas").join(output.digest.to_string()), &bytes).unwrap();
    fs::write(path, entry.render(&record)).unwrap();
}

#[test]
fn what_is_recorded_comes_out_again_and_the_store_is_left_alone() {
    let temp = project();
    let before = stored(temp.path());
    let (run, stdout, stderr) = convoy(temp.path(), &["verify", "small.toml", "--all", "--threads", "3"]);
    assert!(run.status.success(), "{stderr}");
    assert!(stdout.starts_with("small: 9 tasks re-executed on 1 and 3 threads, "), "{stdout}");
    assert!(stdout.contains(": the same bytes ("), "{stdout}");
    assert_eq!(stored(temp.path()), before);
    let leftovers = fs::read_dir(temp.path().join(".convoy/tmp")).unwrap().count();
    assert_eq!(leftovers, 0);
    // The same sample each time, which is said.
    let sample = || convoy(temp.path(), &["verify", "--sample", "3", "--json", "-q"]);
    let (first, again) = (sample(), sample());
    assert_eq!((first.0.status.code(), &first.1), (Some(0), &again.1));
    assert_eq!(first.2, "3 of 9 recorded tasks, those with the smallest fingerprints\n");
    let json: serde_json::Value = serde_json::from_str(&first.1).unwrap();
    let mut fingerprints: Vec<&str> =
        json["tasks"].as_array().unwrap().iter().map(|task| task["fingerprint"].as_str().unwrap()).collect();
    fingerprints.sort_unstable();
    let names = fs::read_dir(temp.path().join(".convoy/ac")).unwrap();
    let mut all: Vec<String> = names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(fingerprints, all[..3]);
}

#[test]
fn a_planted_artifact_is_found_with_its_tensor_and_its_row() {
    let temp = project();
    plant(temp.path(), "small train, fold 2", "weights.safetensors", |bytes| {
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&0.125f32.to_le_bytes());
    });
    let (sound, ..) = convoy(temp.path(), &["verify", "--store"]);
    assert!(sound.status.success(), "every stored file is what its name says");
    let (run, stdout, stderr) = convoy(temp.path(), &["verify", "train", "-q"]);
    assert_eq!(run.status.code(), Some(4), "{stderr}");
    let stderr = common::unbroken(stderr.as_bytes());
    assert!(
        stderr.contains("error: train, fold 2: `weights.safetensors` came out otherwise (on 1 thread, "),
        "{stderr}"
    );
    assert!(stderr.contains("): tensor `") && stderr.contains(": 0.125 recorded, "), "{stderr}");
    assert!(!stderr.contains("fold 1"), "{stderr}");
    assert!(stdout.contains(": other bytes ("), "{stdout}");
    let (run, stdout, _) = convoy(temp.path(), &["verify", "train", "-q", "--json"]);
    assert_eq!(run.status.code(), Some(4));
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(json["differences"].as_array().unwrap().len(), 2, "on one thread and on several: {json}");
    assert_eq!(json["differences"][0]["task"], "train, fold 2");

    let temp = project();
    plant(temp.path(), "small evaluate", "metrics.csv", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replacen(",accuracy,", ",accuracy,0.123456789,", 1).into_bytes();
    });
    let (run, _, stderr) = convoy(temp.path(), &["verify", "evaluate", "-q"]);
    assert_eq!(run.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("`metrics.csv` came out otherwise") && stderr.contains("row "), "{stderr}");
}

/// A leak itself is planted where stages are (`runner/leakage.rs`); here weights that are not those of the training rows.
#[test]
fn what_moves_with_held_out_rows_is_told_with_task_file_and_tensor() {
    let temp = project();
    let verb = ["selftest", "leakage", "-q"];
    let (run, stdout, stderr) = convoy(temp.path(), &verb);
    assert!(run.status.success() && stdout.contains(": held-out rows moved nothing that "), "{stdout}{stderr}");
    plant(temp.path(), "small train, fold 2", "weights.safetensors", |bytes| {
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&0.125f32.to_le_bytes());
    });
    let (run, stdout, stderr) = convoy(temp.path(), &verb);
    assert_eq!(run.status.code(), Some(4), "{stderr}");
    let stderr = common::unbroken(stderr.as_bytes());
    let message = "error: train, fold 2: `weights.safetensors` depends on rows that are held out of it: tensor `";
    assert!(stderr.contains(message) && stderr.contains("`convoy verify train`"), "{stderr}");
    assert!(stdout.contains("moved    train, fold 2  ") && stdout.contains("1 of 2 moved"), "{stdout}");
    assert!(stdout.contains(": held-out rows moved what 1 of "), "{stdout}");
    let (run, stdout, _) = convoy(temp.path(), &[&verb[..], &["--json"]].concat());
    assert_eq!(run.status.code(), Some(4));
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let moved: Vec<&serde_json::Value> =
        json["tasks"].as_array().unwrap().iter().filter(|task| task["verdict"] == "moved").collect();
    assert_eq!((moved.len(), &json["moved"]), (1, &1.into()), "{json}");
    assert_eq!(moved[0]["moved"][0]["file"], "weights.safetensors");
}

#[test]
fn every_set_of_kernels_gives_the_same() {
    let temp = project();
    let (run, stdout, stderr) = convoy(temp.path(), &["verify", "--all", "--isa", "--json", "-q"]);
    assert!(run.status.success(), "{stderr}");
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let isa: Vec<&str> = json["isa"].as_array().unwrap().iter().map(|isa| isa.as_str().unwrap()).collect();
    let all: Vec<&str> = convoy::engine::Isa::available().into_iter().map(|isa| isa.name()).collect();
    assert_eq!((isa, &json["equal"]), (all, &true.into()));
    plant(temp.path(), "small train, fold 1", "weights.safetensors", |bytes| *bytes.last_mut().unwrap() ^= 1);
    let (run, stdout, stderr) = convoy(temp.path(), &["verify", "small.toml", "train", "--isa", "-q"]);
    assert_eq!(run.status.code(), Some(4), "{stderr}");
    assert!(stdout.lines().all(|line| line.contains(": other bytes (")), "{stdout}");
}

#[test]
fn what_is_not_recorded_is_not_called_verified() {
    let temp = project();
    let path = temp.path().join("small.toml");
    fs::write(&path, MANIFEST.replace("epochs = 2", "epochs = 3")).unwrap();
    let (run, stdout, stderr) = convoy(temp.path(), &["verify", "--all", "-q"]);
    assert_eq!(run.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("5 tasks are not recorded"), "{stderr}");
    assert!(stdout.contains("small: 4 tasks re-executed"), "{stdout}");
    let (run, _, stderr) = convoy(temp.path(), &["verify", "train", "-q"]);
    assert_eq!(run.status.code(), Some(3), "{stderr}");
    assert_eq!(convoy(temp.path(), &["verify", "small.toml"]).0.status.code(), Some(2));
    assert_eq!(convoy(temp.path(), &["verify", "small.toml", "trian"]).0.status.code(), Some(2));
}
