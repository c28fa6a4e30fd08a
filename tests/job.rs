//! What a run leaves for the pages of CI: gates against lock files, JUnit's XML, pages of Markdown, annotations, events.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::Path;

use common::{draw_images, program, ran, unbroken};

const MANIFEST: &str = r#"schema = 1
name   = "small"
seed   = 1

[stages.ingest]
source = "images"

[stages.split]
test  = 0.25
folds = 5

[stages.preprocess]
steps = ["center", "scale"]

[stages.train]
architecture = "INPUT - FC"
epochs       = 2
batch_size   = 8

[stages.evaluate]
"#;

fn project(gates: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    draw_images(folder.path());
    fs::create_dir(folder.path().join(".git")).unwrap();
    write(folder.path(), gates);
    folder
}

fn write(folder: &Path, gates: &str) {
    fs::write(folder.join("small.toml"), format!("{MANIFEST}{gates}\n")).unwrap();
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The number of a metric that a lock file names, with its line.
fn edit_lock(folder: &Path, metric: &str, value: &str) {
    let lock = read(folder, "small.lock");
    let line = lock.lines().find(|line| line.contains(&format!("train.test.{metric}"))).expect("the metric is locked");
    let (name, _) = line.rsplit_once(' ').unwrap();
    fs::write(folder.join("small.lock"), lock.replace(line, &format!("{name} \"{value}\""))).unwrap();
}

#[test]
fn a_gate_against_a_lock_file_fails_and_the_lock_file_stays() {
    let folder = project("");
    let folder = folder.path();
    assert_eq!(ran(folder, &["run", "-q"]).0, Some(0));
    let before = read(folder, "small.lock");
    // No gate is a part of the task that evaluates: nothing is computed again.
    write(folder, "gates = [{ metric = \"log-loss\", split = \"test\", baseline = \"small.lock\" }]");
    let (exit, out, told) = ran(folder, &["run", "-q"]);
    assert_eq!(exit, Some(0), "{told}");
    assert!(told.contains("nothing to do") && out.contains("worse than small.lock ("), "{told}{out}");
    assert_eq!(read(folder, "small.lock"), before);

    edit_lock(folder, "log-loss", "0.0001");
    let edited = read(folder, "small.lock");
    let (exit, _, told) = ran(folder, &["run", "-q"]);
    assert_eq!(exit, Some(6), "{told}");
    assert!(unbroken(told.as_bytes()).contains("`small.lock` stays as it is: a gate compares with it"), "{told}");
    assert_eq!(read(folder, "small.lock"), edited, "or the next run would pass");
    assert_eq!(ran(folder, &["run", "-q"]).0, Some(6));
    let run: serde_json::Value = serde_json::from_slice(&ran(folder, &["run", "-q", "--json"]).1.into_bytes()).unwrap();
    assert_eq!(run["evaluations"]["evaluate"]["gates"][0]["is_passed"], false);
    ran(folder, &["run", "-q", "--relock"]);
    assert_eq!(read(folder, "small.lock"), before);
}

#[test]
fn a_gate_against_a_git_revision_reads_its_lock_file() {
    let folder = project("");
    let folder = folder.path();
    fs::remove_dir(folder.join(".git")).unwrap();
    let git = |arguments: &[&str]| {
        assert!(common::git(folder, arguments).status.success(), "{arguments:?}");
    };
    git(&["init", "-q"]);
    assert_eq!(ran(folder, &["run", "-q"]).0, Some(0));
    git(&["add", "small.toml", "small.lock"]);
    git(&["commit", "-qm", "first"]);
    for (revision, exit, message) in [
        ("HEAD", Some(0), ""),
        ("merge-base", Some(0), ""),
        ("nowhere", Some(2), "`git:nowhere`: there is no such revision here"),
    ] {
        write(
            folder,
            &format!("gates = [{{ metric = \"accuracy\", baseline = \"git:{revision}\", within_noise = true }}]"),
        );
        for verb in ["check", "run"] {
            let (got, out, told) = ran(folder, &[verb, "small.toml"]);
            assert_eq!(got, exit, "{verb} {revision}: {told}");
            assert!(told.contains(message), "{told}");
            assert!(
                exit != Some(0) || verb == "check" || out.contains(&format!("worse than git:{revision} (")),
                "{out}"
            );
        }
    }
}

#[test]
fn baselines_that_are_not_there_are_errors_of_the_manifest() {
    let folder = project("");
    let folder = folder.path();
    for (baseline, message) in [
        ("absent.lock", "there is no lock file `absent.lock`"),
        ("absent.csv", "there is no file `absent.csv` to compare `accuracy` with"),
        ("git:main", "`git:main`: this is no Git checkout"),
    ] {
        write(folder, &format!("gates = [{{ metric = \"accuracy\", baseline = \"{baseline}\" }}]"));
        let (exit, _, told) = ran(folder, &["check", "small.toml"]);
        assert_eq!(exit, Some(2), "{told}");
        assert!(unbroken(told.as_bytes()).contains(message) && told.contains("small.toml:21:"), "{told}");
    }
    write(folder, "gates = [{ metric = \"recall\", class = \"wasp\", at_least = 0.9 }]");
    let (exit, _, told) = ran(folder, &["check", "small.toml", "--data"]);
    assert_eq!(exit, Some(2), "{told}");
    assert!(told.contains("there is no class `wasp`") && told.contains("small.toml:21:"), "{told}");
    assert_eq!(ran(folder, &["run", "-q"]).0, Some(2), "it is an error, not a gate that is passed");
    // The table of a run that has no such row.
    fs::write(folder.join("old.csv"), "model,split,fold,class,metric,value\n").unwrap();
    write(folder, "gates = [{ metric = \"accuracy\", split = \"test\", baseline = \"old.csv\" }]");
    let (exit, _, told) = ran(folder, &["check", "small.toml"]);
    assert_eq!(exit, Some(2), "{told}");
    assert!(unbroken(told.as_bytes()).contains("has no row for `accuracy` of `train` on test"), "{told}");
}

#[test]
fn a_gate_may_look_at_one_group_and_the_manifest_in_out_is_runnable() {
    let folder = project("gates = []");
    let folder = folder.path();
    let rows = (0..24).map(|i| {
        let class = ["ant", "bee"][i % 2];
        format!("images/{class}/{:02}.png,{class},clinic-{}\n", i / 2, i % 3)
    });
    fs::write(folder.join("t.csv"), format!("path,label,group\n{}", rows.collect::<String>())).unwrap();
    let manifest = read(folder, "small.toml")
        .replace("source = \"images\"", "source = \"t.csv\"")
        .replace("test  = 0.25\n", "test  = 0\n");
    fs::write(folder.join("small.toml"), &manifest).unwrap();
    assert_eq!(ran(folder, &["run", "-q", "small.toml"]).0, Some(0));
    let gates = "gates = [{ metric = \"accuracy\", group = \"clinic-1\", at_least = 0.001 },
        { metric = \"accuracy\", baseline = \"small.lock\" }]";
    fs::write(folder.join("small.toml"), manifest.replace("gates = []", gates)).unwrap();
    let (_, out, told) = ran(folder, &["run", "-q", "small.toml"]);
    // Eight of 24 images are of that clinic, and the number is that of the table of predictions.
    let predictions = read(folder, "out/small/predictions.csv");
    let own: Vec<&str> = predictions
        .lines()
        .filter(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let (class, n) = (cells[1].contains("bee"), cells[1].rsplit('/').next().unwrap().trim_end_matches(".png"));
            n.parse::<usize>().is_ok_and(|n| (2 * n + usize::from(class)) % 3 == 1)
        })
        .collect();
    assert_eq!(own.len(), 8, "{predictions}");
    let n_right = own.iter().filter(|line| line.contains(",true,")).count();
    let expected =
        format!("gate accuracy in group clinic-1 >= 0.001 on out_of_fold of train: {:.4}", n_right as f64 / 8.0);
    assert!(out.contains(&expected), "{expected}: {out}{told}");
    assert_eq!(ran(folder, &["check", "out/small/manifest.toml"]).0, Some(0), "gates of lock files are left out");
    let wrong =
        manifest.replace("gates = []", "gates = [{ metric = \"accuracy\", group = \"clinic-11\", at_least = 0.1 }]");
    fs::write(folder.join("small.toml"), wrong).unwrap();
    let (exit, _, told) = ran(folder, &["run", "-q", "small.toml"]);
    assert_eq!(exit, Some(1));
    assert!(
        told.contains("there is no group `clinic-11` for a gate") && told.contains("did you mean `clinic-1`?"),
        "{told}"
    );
}

const GATES: &str = "gates = [{ metric = \"accuracy\", at_least = 0.999 }, { metric = \"log-loss\", at_most = 9 }]";

#[test]
fn the_pages_have_equal_bytes_over_threads_and_reruns() {
    let run = |threads: &str| {
        let folder = project(GATES);
        let (exit, _, told) = ran(folder.path(), &["run", "-q", "--threads", threads, "--junit", "a/junit.xml"]);
        assert!([Some(0), Some(6)].contains(&exit), "{told}");
        folder
    };
    let (one, two) = (run("1"), run("2"));
    let pages = ["a/junit.xml", "out/small/metrics.json"];
    let first: Vec<String> = pages.iter().map(|page| read(one.path(), page)).collect();
    assert_eq!(first, pages.iter().map(|page| read(two.path(), page)).collect::<Vec<_>>());
    ran(one.path(), &["run", "-q", "--junit", "a/junit.xml"]);
    assert_eq!(first, pages.iter().map(|page| read(one.path(), page)).collect::<Vec<_>>());
    for case in ["name=\"accuracy &gt;= 0.999 on test of train\"", "name=\"train initial_loss\"", "name=\"fold 2\""] {
        assert!(first[0].contains(case), "{case}: {}", first[0]);
    }
    assert!(!first[0].contains("time="), "{}", first[0]);
    let metrics: serde_json::Value = serde_json::from_str(&first[1]).unwrap();
    assert_eq!(metrics["evaluate"]["train"]["test"]["n"], 6);
    ran(one.path(), &["run", "-q", "--force", "evaluate", "--junit", "a/junit.xml", "--junit-times"]);
    assert!(read(one.path(), "a/junit.xml").contains(" time=\""));
}

#[test]
fn the_summary_of_a_job_is_appended_even_where_the_run_does_not_begin() {
    let folder = project(GATES);
    let folder = folder.path();
    fs::write(folder.join("page.md"), "before\n").unwrap();
    let run = |arguments: &[&str]| {
        let output = program(folder, arguments).env("GITHUB_STEP_SUMMARY", folder.join("page.md")).output().unwrap();
        output.status.code()
    };
    assert_eq!(run(&["run", "-q", "--locked", "--junit", "junit.xml"]), Some(3));
    let page = read(folder, "page.md");
    assert!(page.starts_with("before\n## `small`: ❌ the lock file is stale or missing\n"), "{page}");
    assert!(
        page.contains("there is no lock file") && read(folder, "junit.xml").contains("there is no lock file"),
        "{page}"
    );
    run(&["run", "-q"]);
    let page = read(folder, "page.md");
    assert_eq!(page.matches("\n## `small`: ").count(), 2, "{page}");
    for part in ["### Gates", "tasks computed.", "curves/train"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    fs::write(folder.join("small.toml"), "schema = 2").unwrap();
    assert_eq!(run(&["run", "small.toml", "--junit", "junit.xml"]), Some(2));
    assert!(read(folder, "junit.xml").contains("<failure type=\"run\""));
}

#[test]
fn problems_of_a_manifest_are_annotated_and_reported() {
    let folder = project("gates = { acuracy = \">= 0.9\" }");
    let folder = folder.path();
    let mut command = program(folder, &["check", "small.toml", "--code-quality", "quality.json"]);
    let output =
        command.env("GITHUB_ACTIONS", "true").env("GITHUB_WORKSPACE", folder.parent().unwrap()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let file = format!("{}/small.toml", folder.file_name().unwrap().to_str().unwrap());
    let line =
        format!("\n::error file={file},line=21,col=11::unknown metric `acuracy`%0Ahelp: did you mean `accuracy`?\n");
    assert!(told.contains(&line), "{told}");
    let quality: serde_json::Value = serde_json::from_str(&read(folder, "quality.json")).unwrap();
    assert_eq!(quality[0]["location"], serde_json::json!({ "path": "small.toml", "lines": { "begin": 21 } }));
    let (_, _, told) = ran(folder, &["check", "small.toml"]);
    assert!(!told.contains("::error"), "{told}");
    write(folder, "");
    assert_eq!(ran(folder, &["check", "small.toml", "--code-quality", "quality.json"]).0, Some(0));
    assert_eq!(read(folder, "quality.json"), "[]\n");
}

/// The lines of a log of events; every one has the version and a kind.
fn events(text: &str) -> Vec<serde_json::Value> {
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().all(|line| line["v"] == 1 && line["event"].is_string() && line["unix_milliseconds"].is_u64()));
    lines
}

#[test]
fn events_are_those_of_the_documentation() {
    let page = include_str!("../docs/events.md");
    let example = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let documented = events(example);
    let folder = project(GATES);
    let folder = folder.path();
    let mut kinds: Vec<String> = Vec::new();
    for (arguments, hits) in
        [(&["run", "-q", "--events", "e.jsonl"][..], false), (&["run", "-q", "--events", "e.jsonl"], true)]
    {
        let (exit, _, told) = ran(folder, arguments);
        let log = events(&read(folder, "e.jsonl"));
        let of = |kind: &str| log.iter().filter(|line| line["event"] == kind).collect::<Vec<_>>();
        assert_eq!(log[0]["event"], "run");
        let verdict = log.last().unwrap();
        assert_eq!(
            (verdict["event"].as_str(), verdict["exit_code"].as_i64()),
            (Some("verdict"), exit.map(i64::from)),
            "{told}"
        );
        let planned = of("plan")[0]["tasks"].as_array().unwrap();
        assert!(planned.iter().any(|task| (task["decision"] == "fresh") == hits));
        // Each task ends once.
        let mut ended: Vec<&str> = of("end").iter().map(|line| line["task"].as_str().unwrap()).collect();
        let mut tasks: Vec<&str> = planned.iter().map(|task| task["task"].as_str().unwrap()).collect();
        ended.sort_unstable();
        tasks.sort_unstable();
        assert_eq!(ended, tasks);
        assert!(of("end").iter().all(|line| line["hit"] == hits || line["outcome"] == "found"), "{log:?}");
        assert_eq!(of("gate").len(), 2);
        // What is written has the fields of the example, and the page names every kind and field.
        for line in &log {
            let (kind, fields) = (line["event"].as_str().unwrap(), line.as_object().unwrap());
            assert!(page.contains(&format!("| `{kind}` |")), "{kind} is documented");
            let row = page.lines().find(|row| row.starts_with(&format!("| `{kind}` |"))).unwrap();
            let own = fields.keys().filter(|key| !["v", "event", "unix_milliseconds"].contains(&key.as_str()));
            own.for_each(|key| assert!(row.contains(&format!("`{key}`")), "`{key}` of `{kind}` is documented"));
            if let Some(example) = documented.iter().find(|line| line["event"] == kind).filter(|_| kind != "gate") {
                let keys = |line: &serde_json::Value| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
                assert_eq!(keys(line), keys(example), "{kind}");
            }
            kinds.push(kind.to_owned());
        }
    }
    for kind in ["start", "end", "plan", "data", "gate"] {
        assert!(kinds.iter().any(|known| known == kind), "{kind}");
    }
}

#[test]
fn the_fragment_for_dvc_names_columns_and_files_that_are_there() {
    let page = include_str!("../docs/ci.md");
    let fragment = page.rsplit("```yaml\n").next().and_then(|rest| rest.split("```").next()).expect("a fragment");
    let folder = project("");
    assert_eq!(ran(folder.path(), &["run", "-q"]).0, Some(0));
    for file in ["metrics.json", "predictions.csv"] {
        assert!(
            fragment.contains(&format!("out/digits/{file}")) && folder.path().join("out/small").join(file).exists()
        );
    }
    let header = read(folder.path(), "out/small/predictions.csv");
    let columns: Vec<&str> = header.lines().next().unwrap().split(',').collect();
    for axis in ["x: ", "y: "] {
        let column = fragment.lines().find_map(|line| line.trim().strip_prefix(axis)).unwrap();
        assert!(columns.contains(&column), "{column}");
    }
}
