//! The checks before a training, as a user meets them: what they stop, what they cost the cache, what `selftest`
//! prints.

mod common;

use std::fs;
use std::path::Path;

use common::ran;

const GOOD: &str = "INPUT - CONV(4) - RELU - POOL - FC";

fn write(dir: &Path, architecture: &str, more: &str) {
    let text = format!(
        "schema = 1\nname = \"t\"\n\n[stages.ingest]\nsource = \"builtin:digits\"\nlimit = 120\n\n[stages.split]\nfolds = 2\n\n\
         [stages.preprocess]\nsteps = [{{ divide = 16 }}]\n\n[stages.train]\narchitecture = \"{architecture}\"\n{more}\n"
    );
    fs::write(dir.join("t.toml"), text).expect("writable");
}

fn project() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(dir.path().join(".git")).expect("a project root");
    dir
}

#[test]
fn checks_are_made_once_for_an_architecture_and_never_wake_a_fold() {
    let project = project();
    let dir = project.path();
    write(dir, GOOD, "epochs = 1");
    let (code, _, said) = ran(dir, &["run"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("sanity)"), "{said}");
    let table = fs::read_to_string(dir.join("out/t/sanity.csv")).expect("a table");
    assert_eq!(table.lines().next(), Some("stage,trial,fold,check,status,value,limit,finding"));
    assert_eq!(table.lines().count(), 6, "{table}");
    assert!(table.contains("train,,,memorises,passed,"), "{table}");
    for name in ["curves/train.svg", "report.html", "report.md", "summary.md"] {
        assert!(dir.join("out/t").join(name).is_file(), "no {name}");
    }

    write(dir, GOOD, "epochs = 2\nlearning_rate = 0.002\nl2 = 1e-4");
    let (_, _, said) = ran(dir, &["run"]);
    assert!(said.contains("2 of 7 tasks computed") && !said.contains("sanity"), "{said}");
    write(dir, GOOD, "epochs = 2\nlearning_rate = 0.002\nl2 = 1e-4\nsanity = false");
    let (_, _, said) = ran(dir, &["run"]);
    assert!(said.contains("nothing to do, 6 tasks are fresh"), "{said}");
    write(dir, &GOOD.replace("CONV(4)", "CONV(5)"), "epochs = 1\nsanity = false");
    let (_, _, said) = ran(dir, &["run"]);
    assert!(said.contains("2 of 6 tasks computed"), "{said}");
    // The folds are there: only the checks are made.
    write(dir, &GOOD.replace("CONV(4)", "CONV(5)"), "epochs = 1");
    let (_, _, said) = ran(dir, &["run"]);
    assert!(said.contains("1 of 7 tasks computed") && said.contains("train (sanity)"), "{said}");
}

#[test]
fn a_network_that_cannot_learn_is_stopped_before_any_fold() {
    let project = project();
    let dir = project.path();
    write(dir, "INPUT - CONV(1) - RELU - GAP - FC", "epochs = 1");
    for turn in 1..=2 {
        let (code, stdout, said) = ran(dir, &["run"]);
        assert_eq!((code, &stdout[..]), (Some(1), ""), "{said}");
        assert!(said.contains("error: stage `train, sanity`: the network cannot learn 20 images by heart"), "{said}");
        assert!(
            said.contains(" --> t.toml:15:17") && said.contains("= help: layer `3.gap` lets only 1 value"),
            "{said}"
        );
        assert!(!said.contains("train, fold"), "{said}");
        assert_eq!(said.contains("train (sanity)"), turn == 1, "what was found is kept: {said}");
    }
    let (code, stdout, said) = ran(dir, &["selftest", "training"]);
    assert_eq!(code, Some(1), "{said}");
    for expected in ["passed  labels", "passed  initial_loss", "failed  memorises", "help: layer `3.gap`"] {
        assert!(stdout.contains(expected), "no {expected}: {stdout}");
    }
    let (code, stdout, _) = ran(dir, &["selftest", "training", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(
        (code, &json["stages"][0]["passed"], &json["stages"][0]["stage"]),
        (Some(1), &false.into(), &"train".into())
    );
    assert_eq!(json["stages"][0]["findings"][4]["status"], "failed");

    write(dir, GOOD, "l2 = 0.01");
    let (code, stdout, said) = ran(dir, &["selftest", "training"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(stdout.contains("L2 adds 0.") && stdout.contains("20 images are learned by heart after"), "{stdout}");
    write(dir, GOOD, "sanity = false");
    let (code, stdout, _) = ran(dir, &["selftest", "training"]);
    assert_eq!((code, &stdout[..]), (Some(0), "train: `sanity = false`, nothing is checked\n"));
}

#[test]
fn the_program_checks_itself() {
    let project = project();
    let (code, stdout, said) = ran(project.path(), &["selftest"]);
    assert_eq!(code, Some(0), "{stdout}{said}");
    assert!(stdout.contains("the same bytes here as everywhere"), "{stdout}");
    let (code, stdout, _) = ran(project.path(), &["selftest", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, &json["passed"]), (Some(0), &true.into()));
}
