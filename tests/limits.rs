//! Limits of a run: tasks side by side, memory, time, no network. None of them changes a byte.

mod common;
mod toy;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use common::ran;
use convoy::runner::{Event, Events, Options, Outcome, Session};
use convoy::store::Access;
use toy::{Project, computed};

const MANIFEST: &str = r#"
schema = 1
name = "toy"

[stages.gather]
path = "data.txt"

[stages.cut]
folds = 6

[stages.fit]

[stages.learn]
sleep = 150
takes = 100

[stages.join]

[stages.score]
"#;

/// How many tasks of `learn` ran at once, and what was warned of.
#[derive(Default)]
struct Watch {
    /// Now, and at most.
    running: Mutex<(usize, usize)>,
    warnings: Mutex<Vec<String>>,
}

impl Events for Watch {
    fn event(&self, event: &Event<'_>) {
        let mut running = self.running.lock().unwrap();
        match event {
            Event::Started { stage: "learn", .. } => {
                running.0 += 1;
                running.1 = running.1.max(running.0);
            }
            Event::Ended { task, .. } if task.starts_with("learn") => running.0 -= 1,
            Event::Warning { message, .. } => self.warnings.lock().unwrap().push((*message).to_owned()),
            _ => {}
        }
    }
}

fn run(project: &Project, change: &dyn Fn(&mut Options<'_>)) -> (Outcome, Watch) {
    let manifest = project.manifest(MANIFEST);
    let session = Session::open(&manifest, None, None, Access::Write).unwrap();
    let (go_on, watch) = (AtomicBool::new(false), Watch::default());
    let mut options = Options::new(6, &go_on);
    change(&mut options);
    let outcome = session.run(&options, &watch).unwrap();
    (outcome, watch)
}

/// The digests of all that was written, by task.
fn outputs(outcome: &Outcome) -> BTreeMap<String, String> {
    let of =
        |task: &convoy::runner::TaskOutcome| (task.name.clone(), task.entry.as_ref().unwrap().artifact().to_string());
    outcome.tasks.iter().map(of).collect()
}

#[test]
fn fewer_tasks_run_side_by_side_where_memory_or_jobs_say_so() {
    const MIB: u64 = 1 << 20;
    let mut all = Vec::new();
    // Of 100 MiB each: the process and its threads take some 50. What else the machine does may delay one of them.
    for (jobs, memory, expected) in [
        (None, Some(100_000), 4..=6),
        (Some(2), Some(100_000), 2..=2),
        (None, Some(400), 2..=3),
        (None, Some(1), 1..=1),
    ] {
        let project = Project::new();
        let (outcome, watch) = run(&project, &|options| {
            options.jobs = jobs;
            options.memory = memory.map(|memory| memory * MIB);
        });
        assert!(outcome.is_complete());
        let most = watch.running.lock().unwrap().1;
        assert!(expected.contains(&most), "{most} at once, {expected:?}");
        let warnings = watch.warnings.into_inner().unwrap();
        let told = warnings.iter().filter(|text| text.contains("of memory, and 0 B are left (by `--memory`)")).count();
        // Each stage once.
        assert_eq!(told, if memory == Some(1) { 6 } else { 0 }, "{warnings:?}");
        all.push(outputs(&outcome));
    }
    assert!(all.iter().all(|outputs| *outputs == all[0]));
}

#[test]
fn a_run_out_of_time_ends_at_checkpoints_and_goes_on_to_the_same_bytes() {
    let whole = Project::new();
    let expected = outputs(&run(&whole, &|_| ()).0);

    let project = Project::new();
    let mut n_runs = 0;
    loop {
        n_runs += 1;
        assert!(n_runs < 50, "no run gets any further");
        let (outcome, _) = run(&project, &|options| {
            options.jobs = Some(1);
            options.deadline = Some(Instant::now() + Duration::from_millis(60));
        });
        assert!(!outcome.is_interrupted);
        if outcome.is_complete() {
            assert!(!outcome.is_out_of_time);
            assert_eq!(outputs(&outcome), expected);
            break;
        }
        assert!(outcome.is_out_of_time);
        assert!(outcome.failures().next().is_none());
    }
    assert!(n_runs > 2, "{n_runs} runs");
    assert!(computed(&run(&project, &|_| ()).0).is_empty());
    // Nothing is begun where the time is over from the start.
    let late = Project::new();
    let (outcome, _) = run(&late, &|options| options.deadline = Some(Instant::now()));
    assert!(outcome.is_out_of_time && computed(&outcome).is_empty());
}

/// Every report but the ones with times, by path.
fn reports(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap).filter(|f| f.file_type().is_file());
    let files = files.filter(|f| !["run.json", "timings.csv"].contains(&&*f.file_name().to_string_lossy()));
    files.map(|f| (f.path().strip_prefix(folder).unwrap().to_owned(), fs::read(f.path()).unwrap())).collect()
}

#[test]
fn the_command_line_says_what_is_left_and_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let text = "schema = 1\nname = \"m\"\n[stages.ingest]\nsource = \"builtin:digits\"\n[stages.split]\nfolds = 4\n\
                [stages.train]\narchitecture = \"INPUT - CONV(16) - RELU - POOL - FC(32) - RELU - FC\"\nepochs = 150\n\
                sanity = false\n[stages.evaluate]\n";
    fs::write(folder.join("m.toml"), text).unwrap();
    let limited = ["run", "-q", "--time-limit", "1s", "--jobs", "1", "--threads", "1", "--json"];
    let (code, told, error) = ran(folder, &limited);
    assert_eq!(code, Some(1), "{error}");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["out_of_time"], &told["interrupted"]), (&true.into(), &false.into()));
    assert!(error.contains("the time limit of 1.0 s is over: "), "{error}");
    assert!(error.contains("evaluate") && error.contains("help: run again to go on"), "{error}");
    assert!(!folder.join("m.lock").exists());
    let mut n_runs = 1;
    while ran(folder, &limited).0 == Some(1) {
        n_runs += 1;
        assert!(n_runs < 100, "no run gets any further");
    }
    let (code, _, error) = ran(folder, &["run", "--out-dir", "other", "--cache-dir", "cache"]);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(reports(&folder.join("out/m")).len(), reports(&folder.join("other/m")).len());
    let (own, other) = (reports(&folder.join("out/m")), reports(&folder.join("other/m")));
    for (path, bytes) in own.iter().filter(|(path, _)| !path.ends_with("manifest.toml")) {
        assert_eq!(Some(bytes), other.get(path), "{}", path.display());
    }
}

#[test]
fn a_run_uses_no_network_and_names_the_file_that_is_missing() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let text = "schema = 1\n[stages.ingest]\nsource = \"mnist\"\n[stages.split]\n[stages.train]\n\
                architecture = \"INPUT - FC\"\n[stages.evaluate]\n";
    fs::write(folder.join("m.toml"), text).unwrap();
    let (code, _, error) = ran(folder, &["run", "--offline"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("the data set `mnist` is not here: no `train-images"), "{error}");
    assert!(error.contains("m.toml:3:"), "{error}");
}

#[test]
fn limits_that_mean_nothing_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("m.toml"), "schema = 1\n").unwrap();
    for (option, value, expected) in [
        ("--memory", "lots", "expected a size such as"),
        ("--memory", "0", "expected a size such as"),
        ("--time-limit", "1h1h", "expected a time such as"),
        ("--time-limit", "30m1h", "expected a time such as"),
        ("--time-limit", "0", "expected a time such as"),
        ("--jobs", "0", "0 is not in 1..=1024"),
    ] {
        let (code, _, error) = ran(temp.path(), &["run", option, value]);
        assert_eq!(code, Some(2), "{option} {value}: {error}");
        assert!(error.contains(expected), "{option} {value}: {error}");
    }
}

#[test]
fn a_gate_that_names_no_class_of_the_data_is_told_before_any_training() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    common::draw_images(folder);
    let manifest = |gate: &str| {
        format!(
            "schema = 1\nname = \"m\"\n[stages.ingest]\nsource = \"images\"\n[stages.split]\nfolds = 2\ntest = 0.25\n\
             [stages.train]\narchitecture = \"INPUT - FC\"\nepochs = 1\nsanity = false\n[stages.evaluate]\n\
             gates = [{{ metric = \"recall\", {gate}, at_least = 0.01 }}]\n"
        )
    };
    for (gate, expected) in [("class = \"cat\"", "cat"), ("group = \"7\"", "group")] {
        fs::write(folder.join("m.toml"), manifest(gate)).unwrap();
        let (code, _, error) = ran(folder, &["run"]);
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains(expected) && error.contains("m.toml:13:"), "{error}");
        assert!(!error.contains("train, fold 1: done"), "{error}");
    }
    fs::write(folder.join("m.toml"), manifest("class = \"ant\"")).unwrap();
    // Passed or not, it is judged.
    let (code, _, error) = ran(folder, &["run"]);
    assert!(matches!(code, Some(0 | 6)), "{error}");
    // A finished data set is asked as well.
    fs::write(folder.join("m.toml"), manifest("class = \"cat\"").replace("epochs = 1", "epochs = 2")).unwrap();
    assert_eq!(ran(folder, &["run"]).0, Some(2));
}
