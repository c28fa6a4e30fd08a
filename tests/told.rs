//! What a run and a check tell at the border of the process: results that cannot be written, places that are tried
//! first, warnings that stay, and data that is looked at before anything runs.

mod common;

use std::fs;
use std::process::Stdio;

use common::{program, ran};

const MANIFEST: &str = "schema = 1\n\n[stages.ingest]\nsource = \"t.csv\"\n\n[stages.split]\ntest = 0.25\nfolds = 5\n\n\
                        [stages.train]\narchitecture = \"INPUT - FC\"\nepochs = 1\nsanity = false\n\n[stages.evaluate]\n";

/// A folder with a manifest and a table of images of 2x2 pixels, each there twice.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let rows: String = (0..40).map(|i| format!("{},{},{},7,9\n", i % 2, i / 2, 100 * (i % 2))).collect();
    let rows = format!("label,p0,p1,p2,p3\n{rows}{rows}");
    fs::write(folder.path().join("t.csv"), rows).expect("the table can be written");
    fs::write(folder.path().join("m.toml"), MANIFEST).expect("the manifest can be written");
    folder
}

#[test]
fn what_was_told_of_the_data_is_told_with_every_result() {
    let folder = project();
    let of_run = |n: usize| {
        let (code, stdout, stderr) = ran(folder.path(), &["run", "-q", "m.toml"]);
        assert_eq!(code, Some(0), "run {n}: {stderr}");
        assert!(stdout.contains("accuracy"), "{stdout}");
        let told: Vec<String> =
            stderr.lines().filter(|line| line.contains("pixel for pixel")).map(Into::into).collect();
        let noted = fs::read_to_string(folder.path().join("out/m/run.json")).expect("it is there");
        assert!(noted.contains("pixel for pixel"), "{noted}");
        told
    };
    let first = of_run(1);
    assert!(!first.is_empty());
    assert_eq!(of_run(2), first);
    fs::remove_dir_all(folder.path().join("out")).expect("it can be removed");
    assert_eq!(of_run(3), first);
    let (_, stdout, _) = ran(folder.path(), &["run", "-q", "--json", "m.toml"]);
    let json: serde_json::Value = serde_json::from_str(&stdout).expect("it is JSON");
    let of_data =
        |warning: &&serde_json::Value| warning["message"].as_str().is_some_and(|m| m.contains("pixel for pixel"));
    let n_told = json["warnings"].as_array().map(|warnings| warnings.iter().filter(of_data).count());
    assert_eq!(n_told, Some(first.len()), "{json}");
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_a_full_disk_does_not_take_are_an_error_and_a_closed_pipe_is_none() {
    let folder = project();
    assert_eq!(ran(folder.path(), &["run", "-q", "m.toml"]).0, Some(0));
    let verbs: &[&[&str]] = &[
        &["--help"],
        &["--version"],
        &["run", "m.toml"],
        &["run", "--json", "m.toml"],
        &["run", "--dry-run", "m.toml"],
        &["check", "m.toml"],
        &["check", "--locked", "m.toml"],
        &["summary", "m.toml"],
        &["status", "m.toml"],
        &["status", "--json", "m.toml"],
        &["why", "train", "m.toml"],
        &["schema"],
        &["schema", "--json"],
        &["completions", "bash"],
        &["data", "list"],
        &["cache", "list"],
        &["verify"],
        &["export", "safetensors", "m.toml"],
        &["export", "tensorboard", "m.toml"],
    ];
    for verb in verbs {
        let full = fs::File::options().write(true).open("/dev/full").expect("it can be opened");
        let ended = program(folder.path(), verb).stdout(full).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{verb:?}: {stderr}");
        assert!(stderr.contains("cannot write to stdout: no space left on device"), "{verb:?}: {stderr}");

        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = program(folder.path(), verb).stdout(writer).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{verb:?}: {stderr}");
        assert!(!stderr.contains("error"), "{verb:?}: {stderr}");
    }
    let full = fs::File::options().write(true).open("/dev/full").expect("it can be opened");
    let ended =
        program(folder.path(), &["run", "m.toml"]).stdout(Stdio::null()).stderr(full).status().expect("it runs");
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn the_place_of_the_reports_is_tried_before_anything_runs() {
    let folder = project();
    fs::write(folder.path().join("out"), "a file").expect("it can be written");
    let (code, _, stderr) = ran(folder.path(), &["run", "m.toml"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("cannot create `"), "{stderr}");
    assert!(stderr.contains("name a folder that can be written with `--out-dir`"), "{stderr}");
    assert!(!stderr.contains("ingest"), "{stderr}");
    let (code, stdout, stderr) = ran(folder.path(), &["run", "-q", "--out-dir", "elsewhere", "m.toml"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("accuracy"), "{stdout}");
    assert!(folder.path().join("elsewhere/m/metrics.csv").exists());
    // What is there is told, wherever its reports cannot go.
    let (_, stdout, _) = ran(folder.path(), &["run", "-q", "m.toml"]);
    assert!(stdout.contains("accuracy"), "{stdout}");
}

/// Checks `manifest` with its data: the exit code, and every line of stderr that begins like a problem, or its help.
#[track_caller]
fn check_data(manifest: &str, expected: (i32, &[&str])) {
    let folder = project();
    fs::write(folder.path().join("m.toml"), manifest).expect("the manifest can be written");
    let (code, _, stderr) = ran(folder.path(), &["check", "--data", "m.toml"]);
    let told: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("error: ") || line.starts_with("warning: ") || line.contains("= help: "))
        .map(str::trim)
        .collect();
    assert_eq!((code, &told[..]), (Some(expected.0), expected.1), "{stderr}");
}

#[test]
fn data_is_looked_at_before_a_training() {
    check_data(MANIFEST, (0, &[]));
    check_data(
        &MANIFEST.replace("INPUT - FC", "INPUT - FC(5)"),
        (
            2,
            &[
                "error: the network ends with 5 values, but there are 2 classes",
                "= help: end with `FC`, which takes the number of classes by itself",
            ],
        ),
    );
    check_data(
        &MANIFEST.replace("test = 0.25", "test = \"given\""),
        (
            2,
            &[
                "error: `test` is \"given\", but the data set has no test split of its own",
                "= help: set `test` to a fraction such as 0.2",
            ],
        ),
    );
    check_data(
        &MANIFEST.replace("folds = 5", "folds = 100"),
        (
            2,
            &[
                "warning: 99 % of the images outside the test split are trained on, 70 to 90 % is usual",
                "= help: 5 folds train on 80 %",
                "error: cannot make 100 folds from 80 images",
                "= help: set `folds` to at most 80",
            ],
        ),
    );
    check_data(
        &MANIFEST.replace("source = \"t.csv\"", "source = \"absent\""),
        (
            2,
            &[
                "error: stage `ingest`: `./absent` does not exist",
                "= help: paths are relative to the manifest's folder, `.`",
            ],
        ),
    );
}

#[test]
fn fewer_training_rows_than_components_are_told_before_a_training() {
    let folder = project();
    let header: String = (0..64).map(|i| format!(",p{i}")).collect();
    let rows: String = (0..24).map(|i| format!("{}{}\n", i % 2, format!(",{i}").repeat(64))).collect();
    fs::write(folder.path().join("t.csv"), format!("label{header}\n{rows}")).expect("the table can be written");
    let reduce = "[stages.reduce]\nmethod = { pca = { components = 20, whiten = true } }\n\n[stages.train]";
    fs::write(folder.path().join("m.toml"), MANIFEST.replace("[stages.train]", reduce)).expect("it can be written");
    assert_eq!(ran(folder.path(), &["check", "m.toml"]).0, Some(0));
    let (code, _, stderr) = ran(folder.path(), &["check", "--data", "m.toml"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.starts_with("error: 20 components cannot be found in 14 images"), "{stderr}");
}

#[test]
fn a_source_that_is_not_there_is_a_warning_to_who_checks_only_the_manifest() {
    let folder = project();
    fs::remove_file(folder.path().join("t.csv")).expect("it can be removed");
    let (code, stdout, stderr) = ran(folder.path(), &["check", "m.toml"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("no errors"), "{stdout}");
    assert!(stderr.starts_with("warning: stage `ingest`: `./t.csv` does not exist"), "{stderr}");
}

#[test]
fn the_summary_of_own_data_has_its_shapes() {
    let folder = project();
    let (code, stdout, stderr) = ran(folder.path(), &["summary", "m.toml"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("train: input 2x2x1, 2 classes\n"), "{stdout}");
}

#[test]
fn the_store_tells_what_a_data_set_is_like_where_its_source_is_not() {
    let folder = project();
    let first = ran(folder.path(), &["run", "-q", "--to", "ingest", "m.toml"]);
    assert_eq!(first.0, Some(0), "{}", first.2);
    let told = "ingest: 80 images, 2 classes (0 40, 1 40), all 2x2x1\n";
    for data in [&["check", "m.toml"][..], &["check", "--data", "m.toml"]] {
        let (code, stdout, stderr) = ran(folder.path(), data);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.ends_with(told), "{stdout}");
    }
    let table = fs::read(folder.path().join("t.csv")).expect("the table");
    fs::remove_file(folder.path().join("t.csv")).expect("it can be removed");
    let (code, stdout, stderr) = ran(folder.path(), &["check", "m.toml"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.ends_with(told) && stderr.contains("`./t.csv` does not exist"), "{stdout}{stderr}");
    let (_, stdout, _) = ran(folder.path(), &["check", "--json", "m.toml"]);
    assert!(stdout.contains(&format!("\"data\":{{\"ingest\":\"{}\"}}", &told[8..told.len() - 1])), "{stdout}");
    let (code, stdout, stderr) = ran(folder.path(), &["summary", "m.toml"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("train: input 2x2x1, 2 classes\n"), "{stdout}");

    // What does not fit to it is found without it.
    let write = |manifest: &str| fs::write(folder.path().join("m.toml"), manifest).expect("it can be written");
    write(&MANIFEST.replace("INPUT - FC", "INPUT - FC(5)"));
    for verb in ["check", "summary"] {
        let (code, _, stderr) = ran(folder.path(), &[verb, "m.toml"]);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("the network ends with 5 values, but there are 2 classes"), "{stderr}");
    }
    write(&MANIFEST.replace("test = 0.25", "test = \"given\""));
    let (code, _, stderr) = ran(folder.path(), &["check", "m.toml"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("the data set has no test split of its own"), "{stderr}");

    // Another data set, by other keys or by other content, is not that one.
    write(&MANIFEST.replace("INPUT - FC", "INPUT - FC(5)").replace("t.csv\"", "t.csv\"\nlimit = 10"));
    assert_eq!(ran(folder.path(), &["check", "m.toml"]).0, Some(0));
    write(&MANIFEST.replace("INPUT - FC", "INPUT - FC(5)"));
    fs::write(folder.path().join("t.csv"), [&table[..], b"2,1,2,3,4\n"].concat()).expect("it can be written");
    assert_eq!(ran(folder.path(), &["check", "m.toml"]).0, Some(0));
    let (code, _, stderr) = ran(folder.path(), &["check", "--data", "m.toml"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("there are 3 classes"), "{stderr}");

    // A lock file knows the sources, too, where nobody has run here yet.
    fs::write(folder.path().join("t.csv"), &table).expect("it can be written");
    write(&MANIFEST.replace("epochs = 1", "epochs = 1\nearly_stopping = false"));
    write(MANIFEST);
    assert_eq!(ran(folder.path(), &["run", "-q", "m.toml"]).0, Some(0));
    fs::remove_file(folder.path().join("t.csv")).expect("it can be removed");
    fs::remove_dir_all(folder.path().join(".convoy/runs")).expect("it can be removed");
    let (code, stdout, stderr) = ran(folder.path(), &["check", "m.toml"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.ends_with(told), "{stdout}");
}

#[test]
fn names_of_classes_are_checked_before_anything_runs() {
    let three = MANIFEST.replace("t.csv\"", "t.csv\"\nclasses = [\"cat\", \"dog\", \"owl\"]");
    check_data(
        &three,
        (
            2,
            &[
                "error: stage `ingest`: `classes` has 3 names, but the source has 2 labels: `0`, `1`",
                "= help: give a name to each label that there is, in their order",
            ],
        ),
    );
    check_data(&three.replace(", \"owl\"", ""), (0, &[]));
}

#[test]
fn a_split_of_the_data_that_is_not_used_is_told_by_check() {
    let catalogue = MANIFEST.replace("t.csv", "mnist");
    let folder = project();
    fs::write(folder.path().join("m.toml"), &catalogue).expect("it can be written");
    let (code, _, stderr) = ran(folder.path(), &["check", "m.toml"]);
    assert_eq!(code, Some(0), "{stderr}");
    let expected = "warning: stage `split`: the data set has a test split of its own, which `test` overrides";
    assert!(stderr.contains(expected), "{stderr}");
    assert!(stderr.contains("help: leave `test` out or write `test = \"given\"`"), "{stderr}");
    for used in ["", "test = \"given\"\n"] {
        let text = catalogue.replace("test = 0.25\n", used);
        fs::write(folder.path().join("m.toml"), text).expect("it can be written");
        let (_, _, stderr) = ran(folder.path(), &["check", "m.toml"]);
        assert!(!stderr.contains("of its own"), "{stderr}");
    }
    let rows: String =
        (0..40).map(|i| format!("{i}.png,{},{}\n", i % 2, if i < 30 { "train" } else { "test" })).collect();
    for i in 0..40 {
        let image = image::GrayImage::from_fn(2, 2, |x, y| image::Luma([(x * 9 + y * 3 + i) as u8]));
        image.save(folder.path().join(format!("{i}.png"))).expect("it can be written");
    }
    fs::write(folder.path().join("t.csv"), format!("path,label,split\n{rows}")).expect("it can be written");
    fs::write(folder.path().join("m.toml"), MANIFEST).expect("it can be written");
    let (_, _, stderr) = ran(folder.path(), &["check", "--data", "m.toml"]);
    assert!(stderr.contains("a test split of its own, 10 images, which `test` overrides"), "{stderr}");
    // So is a group that nobody keeps together.
    let rows: String = (0..40).map(|i| format!("{i}.png,{},p{}\n", i % 2, i / 4)).collect();
    fs::write(folder.path().join("t.csv"), format!("path,label,group\n{rows}")).expect("it can be written");
    let (_, _, stderr) = ran(folder.path(), &["check", "--data", "m.toml"]);
    assert!(stderr.contains("warning: stage `split`: of 10 groups of the data set "), "{stderr}");
    let grouped = MANIFEST.replace("folds = 5", "folds = 5\ngroup = \"group\"");
    fs::write(folder.path().join("m.toml"), grouped).expect("it can be written");
    let (_, _, stderr) = ran(folder.path(), &["check", "--data", "m.toml"]);
    assert!(!stderr.contains("groups of the data set"), "{stderr}");
}

/// A slip of the hand costs no manifest, no lock file and no folder of images.
#[test]
fn nothing_is_written_over_a_manifest_or_among_the_images() {
    let folder = project();
    assert_eq!(ran(folder.path(), &["run", "-q", "m.toml"]).0, Some(0));
    let kept = |name: &str| fs::read(folder.path().join(name)).expect("it is there");
    let (manifest, lock) = (kept("m.toml"), kept("m.lock"));
    for verb in [
        &["run", "--junit", "m.toml", "m.toml"][..],
        &["run", "--events", "m.lock", "m.toml"],
        &["check", "--code-quality", "m.toml", "m.toml"],
        &["export", "safetensors", "m.toml", "--output", "m.toml"],
        &["export", "onnx", "m.toml", "--output", "m.lock"],
        &["data", "show", "t.csv", "--sheet", "m.toml"],
        &["cache", "pack", "m.lock"],
    ] {
        let (code, _, stderr) = ran(folder.path(), verb);
        assert_eq!(code, Some(2), "{verb:?}: {stderr}");
        assert!(stderr.contains("is there already, and looks like a manifest or a lock file"), "{verb:?}: {stderr}");
        assert!(kept("m.toml") == manifest && kept("m.lock") == lock, "{verb:?}");
    }
    let images = folder.path().join("photos");
    common::draw_images(folder.path());
    let drawn = walkdir::WalkDir::new(folder.path()).into_iter().filter_map(Result::ok);
    let drawn = drawn.filter(|entry| entry.path().extension().is_some_and(|end| end == "png"));
    let first = drawn.map(walkdir::DirEntry::into_path).next().expect("images were drawn");
    let drawn = first.parent().and_then(std::path::Path::parent).expect("a folder of classes").to_owned();
    if drawn != images {
        fs::rename(&drawn, &images).expect("it can be renamed");
    }
    let own = MANIFEST.replace("t.csv", "photos").replace("schema = 1", "schema = 1\nname = \"photos\"");
    fs::write(folder.path().join("photos.toml"), own).expect("it can be written");
    let (code, _, stderr) = ran(folder.path(), &["run", "-q", "photos.toml", "--out-dir", "."]);
    assert!(code == Some(2) && stderr.contains("among the images of `photos`"), "{stderr}");
    assert!(!images.join("run.json").exists());
}

/// What the run could not write or trust at its end is told before the training.
#[test]
fn a_page_that_cannot_be_written_and_a_lock_file_in_the_middle_of_a_merge_are_told_first() {
    let folder = project();
    let (code, _, stderr) = ran(folder.path(), &["run", "-q", "m.toml", "--junit", "t.csv/junit.xml"]);
    assert_eq!(code, Some(1), "{stderr}");
    let lock = "version = 2\n<<<<<<< HEAD\n=======\n>>>>>>> other\n";
    fs::write(folder.path().join("m.lock"), lock).expect("it can be written");
    let (code, _, stderr) = ran(folder.path(), &["run", "-q", "m.toml"]);
    assert!(code == Some(1) && stderr.contains("`m.lock` has both sides of a merge, from line 2 on"), "{stderr}");
    assert!(!folder.path().join(".convoy/ac").read_dir().is_ok_and(|mut records| records.next().is_some()));
    assert_eq!(ran(folder.path(), &["run", "-q", "m.toml", "--relock"]).0, Some(0));
}

/// A lock file that was edited by hand is not what a run came to.
#[test]
fn an_edited_lock_file_is_seen_without_a_run() {
    let folder = project();
    assert_eq!(ran(folder.path(), &["run", "-q", "m.toml"]).0, Some(0));
    let path = folder.path().join("m.lock");
    let lock = fs::read_to_string(&path).expect("it is there");
    assert_eq!(ran(folder.path(), &["check", "--locked", "m.toml"]).0, Some(0));
    let edited = |line: &dyn Fn(&str) -> Option<String>| -> String {
        lock.lines().map(|text| line(text).unwrap_or_else(|| text.to_owned()) + "\n").collect()
    };
    let output = edited(&|text| {
        let (before, digest) = text.split_once("output = \"")?;
        Some(format!("{before}output = \"{}{}", if digest.starts_with('0') { '1' } else { '0' }, &digest[1..]))
    });
    fs::write(&path, output).expect("it can be written");
    let (code, stdout, _) = ran(folder.path(), &["check", "--locked", "m.toml"]);
    assert!(code == Some(3) && stdout.contains("gave other bytes from the same inputs"), "{stdout}");
    assert_eq!(ran(folder.path(), &["run", "-q", "--locked", "m.toml"]).0, Some(4));
    let metric = edited(&|text| {
        let (name, _) = text.split_once(" = ").filter(|(name, _)| name.ends_with(".accuracy\""))?;
        Some(format!("{name} = \"0.125\""))
    });
    assert_ne!(metric, lock);
    fs::write(&path, metric).expect("it can be written");
    let (code, stdout, _) = ran(folder.path(), &["check", "--locked", "m.toml"]);
    assert!(code == Some(3) && stdout.contains("accuracy") && stdout.contains("0.125"), "{stdout}");
    let (code, _, stderr) = ran(folder.path(), &["run", "-q", "--locked", "m.toml"]);
    assert!(code == Some(3) && stderr.contains("metrics that are not theirs: it was edited"), "{stderr}");
}

/// Where nobody counts columns, as in the log of a job, a message is a line: who searches it for a path finds both.
#[test]
fn a_message_in_a_log_is_one_line() {
    let folder = project();
    let long = "a-folder-that-does-not-exist/".repeat(4) + "images";
    let source = format!("stages.ingest.source=\"{long}\"");
    let arguments = ["check", "--data", "m.toml", "--set", &source];
    let (code, _, stderr) = ran(folder.path(), &arguments);
    assert_eq!(code, Some(2), "{stderr}");
    let error = stderr.lines().find(|line| line.starts_with("error: ")).expect("an error");
    assert!(error.len() > 110 && error.contains(&long) && error.ends_with("does not exist"), "{stderr}");
    let counted =
        common::program(folder.path(), &arguments).env("COLUMNS", "100").output().expect("the program starts");
    let broken = String::from_utf8_lossy(&counted.stderr).into_owned();
    assert!(!broken.lines().any(|line| line.starts_with("error: ") && line.ends_with("does not exist")), "{broken}");
}
