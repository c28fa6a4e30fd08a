//! `diff` says what changed between revisions, folders, tables and runs, and never that something did not change that it does
//! not know; what a run was is in its folder, to be run again.

mod common;

use std::fs;
use std::path::Path;

use common::{draw_images, program};
use serde_json::Value;

const DIGITS: &str = r#"schema = 1
name = "small"
seed = 1

[stages.ingest]
source = "builtin:digits"
limit = 400

[stages.split]
test = 0.5
folds = 4

[stages.train]
architecture = "INPUT - FC(24) - RELU - FC"
epochs = 8
sanity = false

[stages.evaluate]
gates = { accuracy = ">= 0.6" }

[profile.ci]
stages.train.epochs = 2
"#;

const PHOTOS: &str = r#"schema = 1
name = "photos"
seed = 1

[stages.ingest]
source = "images"

[stages.split]
test = 0.25
folds = 4

[stages.train]
architecture = "INPUT - FC"
epochs = 2
sanity = false

[stages.evaluate]
"#;

fn git(dir: &Path, arguments: &[&str]) {
    let output = common::git(dir, arguments);
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The exit code, and both streams.
fn convoy(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = program(dir, arguments).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("it ends"), text(output.stdout), text(output.stderr))
}

fn json(dir: &Path, arguments: &[&str]) -> Value {
    let (_, stdout, stderr) = convoy(dir, &[arguments, &["--json"]].concat());
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"))
}

fn project(name: &str, manifest: &str) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    fs::write(dir.join(name), manifest).unwrap();
    fs::write(dir.join(".gitignore"), ".convoy\nout\nimages\n").unwrap();
    git(dir, &["init", "-q", "-b", "main"]);
    temp
}

fn run(dir: &Path) {
    let (code, _, stderr) = convoy(dir, &["run", "-q", "--threads", "1"]);
    assert!(code == 0 || code == 6, "{stderr}");
}

fn commit(dir: &Path, message: &str) {
    git(dir, &["add", "."]);
    git(dir, &["commit", "-q", "-m", message]);
}

#[test]
fn a_worse_branch_is_told_from_its_lock_file_from_the_store_and_from_reports() {
    let temp = project("small.toml", DIGITS);
    let dir = temp.path();
    run(dir);
    commit(dir, "begin");
    fs::rename(dir.join("out/small"), dir.join("out/before")).unwrap();
    let same = json(dir, &["diff"]);
    assert_eq!((&same["keys"], &same["predictions"][0]["n_flipped"]), (&Value::Array(Vec::new()), &0.into()));
    assert_eq!(convoy(dir, &["diff", "--fail-on-worse"]).0, 0);
    git(dir, &["checkout", "-q", "-b", "worse"]);
    fs::write(dir.join("small.toml"), DIGITS.replace("epochs = 8", "epochs = 8\nlearning_rate = 1e-7")).unwrap();
    // Nothing has run yet: keys are known, results are not.
    let (code, stdout, stderr) = convoy(dir, &["diff", "--fail-on-worse"]);
    assert_eq!(code, 6, "what cannot be told does not pass: {stdout}{stderr}");
    assert!(stderr.contains("`accuracy` is not known of `working tree`"), "{stderr}");
    assert!(stdout.contains("`train`: `learning_rate` changed: 0.001 -> 1e-7\n    --> small.toml:16:17\n"), "{stdout}");
    for unknown in ["metrics: not known here", "predictions: not known here", "gates: not known here"] {
        assert!(stdout.contains(unknown), "{stdout}");
    }
    run(dir);
    // The store has both sides: McNemar's test on all images of the test split.
    let changes = json(dir, &["diff", "--fail-on-worse"]);
    assert_eq!((&changes["exit_code"], &changes["data"][0]["change"]["added"]), (&6.into(), &Value::Array(Vec::new())));
    let accuracy = |changes: &Value| {
        let all = changes["metrics"].as_array().expect("metrics").clone();
        let is_meant = |change: &&Value| change["metric"] == "accuracy" && change["split"] == "test";
        all.iter().find(is_meant).cloned().expect("an accuracy")
    };
    let own = accuracy(&changes);
    assert_eq!((&own["judged"]["by"], &own["judged"]["is_noise"]), (&"mcnemar".into(), &false.into()));
    assert_eq!((&own["judged"]["n_common"], &own["old_n"]), (&200.into(), &200.into()));
    let flips = &changes["predictions"][0];
    let named = flips["flips"].as_array().unwrap().len() as u64;
    assert_eq!(named, flips["n_flipped"].as_u64().unwrap().min(20));
    let gate = &changes["gates"][0];
    assert_eq!((&gate["old"]["is_passed"], &gate["new"]["is_passed"]), (&true.into(), &false.into()));
    let (code, stdout, stderr) = convoy(dir, &["diff", "main", "--md", "--fail-on-worse"]);
    assert_eq!(code, 6);
    assert!(stdout.contains("| `train` | `learning_rate` | `0.001` | `1e-7` |"), "{stdout}");
    assert!(
        stdout.contains("**Worse beyond noise.**")
            && stderr.contains("error: worse: metric accuracy of train on test: ")
    );
    // The better side after the worse one is not worse.
    commit(dir, "worse");
    assert_eq!(convoy(dir, &["diff", "worse", "main", "--fail-on-worse=log-loss"]).0, 0);
    // Folders, tables and runs say the same numbers.
    let folders = json(dir, &["diff", "out/before", "out/small"]);
    assert_eq!(accuracy(&folders)["judged"], own["judged"]);
    assert_eq!(folders["keys"][0]["key"], "learning_rate");
    let tables = json(dir, &["diff", "out/before/metrics.csv", "out/small/metrics.csv"]);
    assert_eq!((&tables["keys"], &tables["predictions"], &tables["data"]), (&Value::Null, &Value::Null, &Value::Null));
    assert_eq!((&accuracy(&tables)["old"], &accuracy(&tables)["judged"]["by"]), (&own["old"], &"intervals".into()));
    let runs = json(dir, &["runs"]);
    let id = |i: usize| runs["runs"][i]["id"].as_str().unwrap().to_owned();
    let changed: Vec<&str> = runs["runs"][0]["changed"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(changed, ["`train`: `learning_rate` changed: 0.001 -> 1e-7"]);
    let by_runs = json(dir, &["diff", &id(1), &id(0)]);
    assert_eq!(accuracy(&by_runs)["judged"], own["judged"]);
    // Without the store the lock files have numbers and how many images, and nothing is called unchanged.
    fs::remove_dir_all(dir.join(".convoy")).unwrap();
    let poor = json(dir, &["diff", "main", "worse", "--fail-on-worse"]);
    assert_eq!((&poor["exit_code"], &poor["predictions"], &poor["gates"]), (&6.into(), &Value::Null, &Value::Null));
    assert_eq!(accuracy(&poor)["judged"]["by"], "intervals");
}

#[test]
fn images_are_named_that_came_went_changed_and_were_relabelled() {
    let temp = project("photos.toml", PHOTOS);
    let dir = temp.path();
    draw_images(dir);
    run(dir);
    commit(dir, "begin");
    let images = dir.join("images");
    fs::rename(images.join("ant/03.png"), images.join("bee/ant-03.png")).unwrap();
    fs::remove_file(images.join("bee/05.png")).unwrap();
    let pixel = |x: u32, y: u32| image::Luma([(x * 40 + y) as u8]);
    image::GrayImage::from_fn(6, 6, pixel).save(images.join("ant/new.png")).unwrap();
    image::GrayImage::from_fn(6, 6, |x, y| image::Luma([(y * 40 + x) as u8])).save(images.join("bee/06.png")).unwrap();
    run(dir);
    let (code, stdout, _) = convoy(dir, &["diff"]);
    assert_eq!(code, 0);
    for line in [
        "  ingest: 1 added, 1 removed, 1 changed, 1 relabelled; 24 -> 24 images\n",
        "    relabelled  ant/03.png -> bee/ant-03.png: ant -> bee\n",
        "    changed     bee/06.png\n",
        "    added       ant/new.png\n",
        "    removed     bee/05.png\n",
        "`ingest` reads another `images`",
    ] {
        assert!(stdout.contains(line), "`{line}` is not in\n{stdout}");
    }
    assert!(stdout.lines().all(|line| line.chars().count() <= 100), "{stdout}");
    // Without the store the lock files tell that the source is another one, and no more.
    fs::remove_dir_all(dir.join(".convoy")).unwrap();
    let (_, stdout, _) = convoy(dir, &["diff"]);
    assert!(stdout.contains("\n  ingest: not known here\n") && stdout.contains("reads another `images`"), "{stdout}");
}

#[test]
fn a_folder_of_reports_holds_the_manifest_and_what_was_run() {
    let temp = project("photos.toml", &(PHOTOS.to_owned() + "\n[profile.ci]\nstages.train.epochs = 3\n"));
    let dir = temp.path();
    draw_images(dir);
    commit(dir, "begin");
    let set = ["--set", "stages.split.folds=5"];
    for (more, folder) in [(&[][..], "photos"), (&["--profile", "ci"], "photos@ci"), (&set, "photos@set-")] {
        let (code, _, stderr) = convoy(dir, &[&["run", "-q", "--threads", "1"], more].concat());
        assert_eq!(code, 0, "{stderr}");
        let found =
            fs::read_dir(dir.join("out")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let folder = found.filter(|name| name.starts_with(folder)).min_by_key(String::len).unwrap();
        let manifest = format!("out/{folder}/manifest.toml");
        // The same fingerprints: nothing of it is stale, and it runs.
        let (code, stdout, stderr) = convoy(dir, &["status", &manifest, "--exit-code"]);
        assert_eq!(code, 0, "{stdout}{stderr}");
        let (code, _, stderr) = convoy(dir, &["run", &manifest, "-q", "--threads", "1", "--out-dir", "elsewhere"]);
        assert!(code == 0 && stderr.contains("nothing to do"), "{stderr}");
        let run: Value =
            serde_json::from_slice(&fs::read(dir.join(format!("out/{folder}/run.json"))).unwrap()).unwrap();
        assert_eq!((&run["manifest"], &run["variant"]), (&"photos.toml".into(), &folder.as_str().into()));
        assert_eq!(run["git"]["revision"].as_str().map(str::len), Some(40));
        assert!(run["lock"]["stage"]["train"]["keys"]["epochs"].is_string() && run["convoy"].is_string());
        assert!(run["lock"]["tasks"]["evaluate/whole"]["key"].is_string(), "{run}");
    }
    let dirty = |dir: &Path| {
        let run: Value = serde_json::from_slice(&fs::read(dir.join("out/photos/run.json")).unwrap()).unwrap();
        run["git"]["dirty"].clone()
    };
    assert_eq!(dirty(dir), false);
    fs::write(dir.join("photos.toml"), PHOTOS.replace("epochs = 2", "epochs = 4")).unwrap();
    run(dir);
    assert_eq!(dirty(dir), true);
}
