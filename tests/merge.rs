//! Two branches that change different stages: Git merges their lock files, and what comes of it is the lock file of both.

mod common;

use std::fs;
use std::path::Path;

use common::{draw_images, program};

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

[stages.a]
kind = "train"
architecture = "INPUT - CONV(4) - RELU - POOL - FC"
epochs = 2
sanity = false

[stages.of-a]
kind = "evaluate"
input = "a"

[stages.b]
kind = "train"
input = "preprocess"
architecture = "INPUT - FC(8) - RELU - FC"
epochs = 3
sanity = false

[stages.of-b]
kind = "evaluate"
input = "b"
"#;

/// Git with no configuration but this project's; whether it did well, and what it said.
fn git(dir: &Path, arguments: &[&str]) -> (bool, String) {
    let output = common::git(dir, arguments);
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = program(dir, &[&["run", "-q", "--threads", "1"], arguments].concat()).output().expect("it starts");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

/// Changes a key on a branch of its own, runs, and commits the manifest with its lock file.
fn branch(dir: &Path, name: &str, old: &str, new: &str) {
    assert!(git(dir, &["checkout", "-q", "-b", name, "main"]).0);
    let path = dir.join("small.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches(old).count(), 1, "`{old}`");
    fs::write(&path, text.replace(old, new)).unwrap();
    let (code, stderr) = run(dir, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    let (ok, said) = git(dir, &["commit", "-q", "-a", "-m", name]);
    assert!(ok, "{said}");
}

#[test]
fn branches_that_change_different_stages_merge() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    draw_images(dir);
    fs::write(dir.join("small.toml"), MANIFEST).unwrap();
    fs::write(dir.join(".gitignore"), ".convoy\nout\nimages\n").unwrap();
    assert!(git(dir, &["init", "-q", "-b", "main"]).0);
    assert_eq!(run(dir, &[]).0, Some(0));
    assert!(git(dir, &["add", "."]).0 && git(dir, &["commit", "-q", "-m", "begin"]).0);
    branch(dir, "longer", "epochs = 2\n", "epochs = 4\n");
    branch(dir, "wider", "FC(8)", "FC(9)");
    let (ok, said) = git(dir, &["merge", "-q", "--no-edit", "longer"]);
    assert!(ok, "{said}");
    // Nothing was computed since, and the merged lock file is what the merged manifest comes to.
    let merged = fs::read_to_string(dir.join("small.lock")).unwrap();
    let (code, stderr) = run(dir, &["--locked"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("nothing to do") && stderr.contains("all equal"), "{stderr}");
    let (code, stderr) = run(dir, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(fs::read_to_string(dir.join("small.lock")).unwrap(), merged);
}

#[test]
fn branches_that_change_one_key_conflict_and_the_lock_file_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    draw_images(dir);
    fs::write(dir.join("small.toml"), MANIFEST).unwrap();
    fs::write(dir.join(".gitignore"), ".convoy\nout\nimages\n").unwrap();
    assert!(git(dir, &["init", "-q", "-b", "main"]).0);
    assert_eq!(run(dir, &[]).0, Some(0));
    assert!(git(dir, &["add", "."]).0 && git(dir, &["commit", "-q", "-m", "begin"]).0);
    branch(dir, "nine", "FC(8)", "FC(9)");
    branch(dir, "ten", "FC(8)", "FC(10)");
    assert!(!git(dir, &["merge", "-q", "--no-edit", "nine"]).0);
    assert!(git(dir, &["checkout", "-q", "--ours", "small.toml"]).0);
    let (code, stderr) = run(dir, &["--locked"]);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("`small.lock`: the lock file holds a conflict of a merge, line "), "{stderr}");
    assert_eq!(run(dir, &["--relock"]).0, Some(0));
    assert_eq!(run(dir, &["--locked"]).0, Some(0));
}
