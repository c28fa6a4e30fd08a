//! Run twice: all fresh; change one thing: exactly these tasks rerun, for these reasons.

mod toy;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use convoy::manifest::Manifest;
use convoy::runner::{
    Difference, Ended, Event, Events, Failure, LockFile, Lost, Options, Outcome, Session, Silent, SourcesFrom,
    StaleReason, State,
};
use convoy::stages::Part;
use convoy::store::Access;
use proptest::prelude::*;
use toy::{KINDS, MANIFEST, NEXT_KINDS, Project, computed, load, reasons};

const ALL: [&str; 11] = [
    "gather",
    "cut",
    "fit, fold 1",
    "fit, fold 2",
    "fit, all",
    "one, fold 1",
    "one, fold 2",
    "two, fold 1",
    "two, fold 2",
    "two, all",
    "join",
];

#[test]
fn the_second_run_has_nothing_to_do() {
    let project = Project::new();
    let first = project.run(MANIFEST);
    assert_eq!(computed(&first), [&ALL[..], &["score"]].concat());
    assert!(reasons(&first).iter().all(|reason| reason.ends_with(": has not run yet")));
    let second = project.run(MANIFEST);
    assert!(second.is_complete());
    assert_eq!(computed(&second), [""; 0]);
    assert!(project.plan(MANIFEST).is_fresh());
}

/// Collects what is warned of.
#[derive(Default)]
struct Warned(Mutex<Vec<String>>);

impl Events for Warned {
    fn event(&self, event: &Event<'_>) {
        if let Event::Warning { message, .. } = event {
            self.0.lock().unwrap().push((*message).to_owned());
        }
    }
}

#[test]
fn what_was_told_while_computing_is_told_again_with_the_results_once_each() {
    let project = Project::new();
    let text = MANIFEST.replace("kind = \"learn\"\n\n", "kind = \"learn\"\nwarn = 1\n\n");
    let expected = ["odd thing 0", "only of fold 1", "only of fold 2", "what all say"];
    let run = |text: &str| {
        let warned = Warned::default();
        let outcome = project.run_with(text, 2, &warned).unwrap();
        let mut warned = warned.0.into_inner().unwrap();
        warned.sort();
        let told: Vec<(String, String)> =
            outcome.warnings().iter().map(|(stage, text)| ((*stage).to_owned(), (*text).to_owned())).collect();
        (warned, told, computed(&outcome).len())
    };
    let told: Vec<(String, String)> = ["odd thing 0", "what all say", "only of fold 1", "only of fold 2"]
        .iter()
        .map(|text| ("one".to_owned(), (*text).to_owned()))
        .collect();
    for n_computed in [12, 0] {
        let (warned, again, n) = run(&text);
        assert_eq!((warned, again, n), (expected.map(str::to_owned).to_vec(), told.clone(), n_computed));
    }
    // Another setting, and back: found in the store, with what was told.
    let other = text.replace("warn = 1", "warn = 1\na = 7");
    run(&other);
    let (warned, again, n) = run(&text);
    assert_eq!((warned, again, n), (expected.map(str::to_owned).to_vec(), told, 0));
}

/// Runs `before`, then `after`: which tasks are computed and why.
#[track_caller]
fn check(before: &str, after: &str, expected: &[&str]) {
    let project = Project::new();
    project.run(before);
    let plan = project.plan(after);
    let run = project.run(after);
    assert_eq!(reasons(&run), expected);
    // What was planned as stale did run, and nothing ran that was planned as fresh.
    for (planned, outcome) in plan.tasks.iter().zip(&run.tasks) {
        match planned.state {
            State::Fresh => assert!(matches!(outcome.ended, Ended::Fresh), "{}", outcome.name),
            State::Stale(ref reasons) => assert_eq!(&outcome.reasons, reasons, "{}", outcome.name),
            State::Pending { .. } => {}
        }
    }
    assert!(project.plan(after).is_fresh());
    // Going back is fresh: the old artifacts are there.
    assert!(project.plan(before).is_fresh());
}

#[test]
fn a_changed_key_reruns_its_stage_and_what_reads_it() {
    let after = MANIFEST.replace("kind = \"learn\"\n\n", "kind = \"learn\"\na = 5\n\n");
    check(
        MANIFEST,
        &after,
        &[
            "one, fold 1: `a` changed: 0 -> 5",
            "one, fold 2: `a` changed: 0 -> 5",
            "join: output of `one` changed (fold 1, `out.txt`)",
            "score: output of `join` changed (`out.txt`)",
        ],
    );
}

#[test]
fn the_same_bytes_wake_nobody() {
    let after = MANIFEST.replace("[stages.cut]", "[stages.cut]\ncoarse = 3");
    check(MANIFEST, &after, &["cut: `coarse` changed: 0 -> 3"]);
}

#[test]
fn spelling_a_default_comments_and_order_change_nothing() {
    let after = MANIFEST
        .replace("[stages.cut]", "# a comment\n[stages.cut]\nfolds = 2\na = 0")
        .replace("input = \"fit\"\nrefit = true", "seed = 42\nrefit = true\ninput = \"fit\"");
    check(MANIFEST, &after, &[]);
}

#[test]
fn a_seed_wakes_only_those_who_draw() {
    let after = MANIFEST.replace("seed = 42", "seed = 43");
    let project = Project::new();
    project.run(MANIFEST);
    let run = project.run(&after);
    let mine = reasons(&run);
    assert_eq!(mine[0], "cut: `seed` changed: 42 -> 43");
    assert!(mine.contains(&"fit, fold 1: output of `cut` changed (`out.txt`)".to_owned()), "{mine:?}");
    assert!(mine.contains(&"two, all: `seed` changed: 42 -> 43".to_owned()), "{mine:?}");
    assert!(matches!(run.tasks[0].ended, Ended::Fresh));
    // A stage with a seed of its own does not follow the manifest's.
    let own = MANIFEST.replace("kind = \"learn\"\n\n", "kind = \"learn\"\nseed = 7\n\n");
    check(
        MANIFEST,
        &own,
        &[
            "one, fold 1: `seed` changed: 42 -> 7",
            "one, fold 2: `seed` changed: 42 -> 7",
            "join: output of `one` changed (fold 1, `out.txt`)",
            "score: output of `join` changed (`out.txt`)",
        ],
    );
}

#[test]
fn renaming_a_stage_retrains_nothing_but_names_that_are_written_count() {
    let after = MANIFEST.replace("stages.one", "stages.first").replace("\"one\"", "\"first\"");
    check(MANIFEST, &after, &[]);
    let after =
        MANIFEST.replace("stages.join", "stages.both").replace("[stages.both]", "[stages.both]\nkind = \"join\"");
    check(MANIFEST, &after, &["score: `input` changed: join -> both"]);
}

#[test]
fn rewiring_is_said() {
    let after = MANIFEST.replace("[\"one\", \"two\"]", "[\"two\"]");
    check(
        MANIFEST,
        &after,
        &["join: `members` changed: one, two -> two", "score: output of `join` changed (`out.txt`)"],
    );
}

#[test]
fn parts_for_all_rows_are_planned_where_something_needs_them() {
    let without = MANIFEST.replace("refit = true", "");
    let project = Project::new();
    assert!(!computed(&project.run(&without)).iter().any(|name| name.ends_with("all")));
    let run = project.run(MANIFEST);
    let computed: Vec<String> = computed(&run).into_iter().filter(|name| name.ends_with("all")).collect();
    assert_eq!(computed, ["fit, all", "two, all"]);
}

#[test]
fn another_revision_is_said() {
    let project = Project::new();
    project.run(MANIFEST);
    let manifest = project.manifest_of(MANIFEST, NEXT_KINDS);
    let run = run(&manifest, None);
    // It gives the same bytes, so nothing below it reruns.
    assert_eq!(computed(&run), ["fit, fold 1", "fit, fold 2", "fit, all"]);
    assert_eq!(run.computed().next().unwrap().reasons, [StaleReason::Revision { room: "fit".into(), old: 1, new: 2 }]);
}

fn run(manifest: &Manifest, cancel: Option<&AtomicBool>) -> Outcome {
    let go_on = AtomicBool::new(false);
    let session = Session::open(manifest, None, None, Access::Write).unwrap();
    session.run(&Options::new(2, cancel.unwrap_or(&go_on)), &Silent).unwrap()
}

#[test]
fn files_from_outside_count_by_content() {
    let project = Project::new();
    let folder = MANIFEST.replace("data.txt", "images");
    fs::create_dir(project.root.join("images")).unwrap();
    fs::write(project.root.join("images/1.png"), "one").unwrap();
    fs::write(project.root.join("images/2.png"), "two").unwrap();
    project.run(&folder);
    // A file that the toy does not look into: it reruns, and is cut off.
    fs::write(project.root.join("images/2.png"), "TWO").unwrap();
    assert_eq!(reasons(&project.run(&folder)), ["gather: input `images` changed: 1 changed, `2.png`"]);
    fs::write(project.root.join("images/3.png"), "3").unwrap();
    fs::remove_file(project.root.join("images/2.png")).unwrap();
    assert_eq!(reasons(&project.run(&folder)), ["gather: input `images` changed: 1 added, 1 removed, first `2.png`"]);
    fs::write(project.root.join("images/1.png"), "ONE").unwrap();
    assert_eq!(computed(&project.run(&folder)).len(), 12);
}

#[test]
fn an_absent_source_is_said_with_its_stage_and_key() {
    let project = Project::new();
    fs::remove_file(project.root.join("data.txt")).unwrap();
    let error = project.run_with(MANIFEST, 1, &Silent).unwrap_err();
    assert_eq!(error.to_string(), "stage `gather`: there is no data");
}

#[test]
fn touched_moved_and_copied_projects_are_fresh() {
    let mut project = Project::new();
    project.run(MANIFEST);
    fs::File::open(project.root.join("data.txt")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(project.plan(MANIFEST).is_fresh(), "touched");
    let moved = project.temp.path().join("moved");
    fs::rename(&project.root, &moved).unwrap();
    project.root = moved;
    assert!(project.plan(MANIFEST).is_fresh(), "moved");
    let copy = project.temp.path().join("copy");
    copy_folder(&project.root, &copy);
    fs::remove_dir_all(&project.root).unwrap();
    project.root = copy;
    assert!(project.plan(MANIFEST).is_fresh(), "copied");
    assert_eq!(computed(&project.run(MANIFEST)), [""; 0]);
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Puts another file in the place of one, at a time that the file system tells from that of the first.
fn replace(path: &Path, content: &[u8]) {
    let before = fs::metadata(path).unwrap().modified().unwrap();
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
    while fs::metadata(path).unwrap().modified().unwrap() == before {
        fs::write(path, content).unwrap();
    }
}

#[test]
fn a_damaged_blob_is_computed_again_in_the_same_run() {
    let project = Project::new();
    project.run(MANIFEST);
    let blobs = project.blobs();
    let contents: Vec<Vec<u8>> = blobs.iter().map(|blob| fs::read(blob).unwrap()).collect();
    for (blob, content) in blobs.iter().zip(&contents) {
        let mut content = content.clone();
        content[0] ^= 1;
        replace(blob, &content);
    }
    let run = project.run(MANIFEST);
    assert!(run.is_complete());
    // `one` and `two` share blobs: what one of them repairs the other one finds.
    assert!((10..=12).contains(&computed(&run).len()), "{:?}", computed(&run));
    assert_eq!(run.tasks[0].reasons, [StaleReason::Corrupt { file: "out.txt".into() }]);
    assert_eq!(fs::read_dir(project.root.join(".convoy/quarantine")).unwrap().count(), blobs.len());
    assert_eq!(project.blobs(), blobs);
    for (blob, content) in blobs.iter().zip(&contents) {
        assert_eq!(&fs::read(blob).unwrap(), content);
    }
    // One that is gone is a miss, and wakes nobody either.
    let at = contents.iter().position(|content| content.starts_with(b"cut")).unwrap();
    fs::remove_file(&blobs[at]).unwrap();
    let run = project.run(MANIFEST);
    assert_eq!(computed(&run), ["cut"]);
    let lost = StaleReason::Missing(Lost::Gone(Some("out.txt".into())));
    assert_eq!(run.computed().next().unwrap().reasons, [lost]);
}

#[test]
fn damage_behind_the_planners_back_is_repaired_in_the_same_run() {
    // The blob is damaged after the plan was made: when the first task starts.
    struct Vandal<'a>(&'a Project, AtomicBool, Mutex<Vec<String>>);
    impl Events for Vandal<'_> {
        fn event(&self, event: &Event<'_>) {
            match event {
                Event::Planned { .. } if !self.1.swap(true, Ordering::SeqCst) => {
                    for blob in self.0.blobs() {
                        let mut content = fs::read(&blob).unwrap();
                        if content.starts_with(b"cut") {
                            content[0] ^= 1;
                            replace(&blob, &content);
                        }
                    }
                }
                Event::Warning { message, .. } => self.2.lock().unwrap().push((*message).to_owned()),
                _ => {}
            }
        }
    }
    let project = Project::new();
    project.run(MANIFEST);
    let vandal = Vandal(&project, AtomicBool::new(false), Mutex::default());
    let after = MANIFEST.replace("[stages.fit]", "[stages.fit]\na = 1");
    let run = project.run_with(&after, 2, &vandal).unwrap();
    assert!(run.is_complete(), "{:?}", run.failures().collect::<Vec<_>>());
    assert!(computed(&run).contains(&"cut".to_owned()));
    let warnings = vandal.2.into_inner().unwrap();
    // Two tasks read it at once: whoever comes second may only find that it was moved away.
    let is_named = |text: &String| text.contains("cut: file `out.txt` of the cached artifact is damaged");
    assert!(warnings.iter().any(is_named), "{warnings:?}");
}

#[test]
fn a_failure_lets_the_others_finish_and_starts_nothing_below() {
    let project = Project::new();
    let failing = MANIFEST.replace("kind = \"learn\"\n\n", "kind = \"learn\"\nfail = 1\n\n");
    let run = project.run(&failing);
    assert!(!run.is_complete() && !run.is_interrupted);
    let (failed, failure) = run.failures().next().unwrap();
    assert_eq!(failed.name, "one, fold 1");
    let Failure::Stage(error) = failure else { panic!("{failure:?}") };
    assert_eq!(error.message, "loss is not finite");
    assert_eq!(run.failures().count(), 1);
    assert_eq!(computed(&run), [&ALL[..5], &ALL[6..10]].concat());
    for task in &run.tasks[10..] {
        assert!(matches!(task.ended, Ended::NotStarted), "{}", task.name);
    }
    // What finished is kept.
    let again = project.run(&failing);
    assert_eq!(computed(&again), [""; 0]);
    assert!(again.lock_file().is_none());
}

#[test]
fn a_panic_is_a_bug_with_a_name_and_publishes_nothing() {
    let project = Project::new();
    let panicking = MANIFEST.replace("kind = \"learn\"\n\n", "kind = \"learn\"\npanic = 2\n\n");
    let run = project.run(&panicking);
    let (failed, failure) = run.failures().next().unwrap();
    assert_eq!(failed.name, "one, fold 2");
    let Failure::Bug(message) = failure else { panic!("{failure:?}") };
    assert!(message.contains("a toy panics"), "{message}");
    assert!(project.run(MANIFEST).is_complete());
}

#[test]
fn a_cancelled_run_keeps_what_finished_and_goes_on_from_checkpoints() {
    struct Stop<'a>(&'a AtomicBool, Mutex<Vec<String>>);
    impl Events for Stop<'_> {
        fn event(&self, event: &Event<'_>) {
            match event {
                Event::Progress { done: 25, .. } => self.0.store(true, Ordering::SeqCst),
                Event::Warning { message, .. } => self.1.lock().unwrap().push((*message).to_owned()),
                _ => {}
            }
        }
    }
    let project = Project::new();
    let slow = MANIFEST.replace("kind = \"learn\"\n\n", "kind = \"learn\"\nsleep = 60\n\n");
    let manifest = project.manifest(&slow);
    let cancel = AtomicBool::new(false);
    let stop = Stop(&cancel, Mutex::default());
    let session = Session::open(&manifest, None, None, Access::Write).unwrap();
    let run = session.run(&Options::new(1, &cancel), &stop).unwrap();
    assert!(run.is_interrupted);
    let cancelled: Vec<&str> =
        run.tasks.iter().filter(|t| matches!(t.ended, Ended::Cancelled)).map(|t| t.name.as_str()).collect();
    assert_eq!(cancelled, ["one, fold 1"]);
    assert!(run.tasks[0].entry.is_some());
    drop(session);
    let go_on = AtomicBool::new(false);
    let session = Session::open(&manifest, None, None, Access::Write).unwrap();
    let log = Stop(&cancel, Mutex::default());
    let run = session.run(&Options::new(1, &go_on), &log).unwrap();
    assert!(run.is_complete());
    let warnings = log.1.into_inner().unwrap();
    assert_eq!(warnings, ["resumed at 20"]);
    assert_eq!(fs::read_dir(project.root.join(".convoy/checkpoints")).unwrap().count(), 0);
}

#[test]
fn two_runs_at_once_compute_each_task_once() {
    let project = Project::new();
    let slow = MANIFEST.replace("kind = \"learn\"", "kind = \"learn\"\nsleep = 30");
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| project.run(&slow));
        (project.run(&slow), other.join().unwrap())
    });
    assert!(a.is_complete() && b.is_complete());
    let mut all = [computed(&a), computed(&b)].concat();
    all.sort();
    let n = all.len();
    all.dedup();
    assert_eq!((n, all.len()), (12, 12));
}

#[test]
fn equal_tasks_of_one_run_are_computed_once() {
    let project = Project::new();
    let twins = MANIFEST.replace("refit = true", "");
    // `one` and `two` are the same network twice.
    let computed = computed(&project.run(&twins));
    assert_eq!(computed.iter().filter(|name| name.ends_with("fold 1")).count(), 2, "{computed:?}");
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let outputs: Vec<_> = [1, 2, 7]
        .map(|threads| {
            let project = Project::new();
            let run = project.run_with(MANIFEST, threads, &Silent).unwrap();
            run.tasks.iter().map(|task| (task.name.clone(), task.entry.clone().unwrap())).collect::<Vec<_>>()
        })
        .into();
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0], outputs[2]);
}

#[test]
fn forced_stages_run_and_prove_themselves() {
    let project = Project::new();
    project.run(MANIFEST);
    let manifest = project.manifest(MANIFEST);
    let go_on = AtomicBool::new(false);
    let session = Session::open(&manifest, None, None, Access::Write).unwrap();
    let mut options = Options::new(2, &go_on);
    options.force = BTreeSet::from([manifest.stage("fit").unwrap()]);
    let run = session.run(&options, &Silent).unwrap();
    assert_eq!(computed(&run), ["fit, fold 1", "fit, fold 2", "fit, all"]);
    assert!(run.tasks.iter().all(|task| task.differing.is_empty()));
}

#[test]
fn only_what_a_target_needs_is_planned() {
    let project = Project::new();
    let manifest = project.manifest(MANIFEST);
    let go_on = AtomicBool::new(false);
    let session = Session::open(&manifest, None, None, Access::Write).unwrap();
    let mut options = Options::new(2, &go_on);
    options.targets = Some(vec![manifest.stage("one").unwrap()]);
    let run = session.run(&options, &Silent).unwrap();
    assert_eq!(computed(&run), ["gather", "cut", "fit, fold 1", "fit, fold 2", "one, fold 1", "one, fold 2"]);
    let files = run.files(&session.store, manifest.stage("one").unwrap(), Part::Fold(1)).unwrap().unwrap();
    assert!(files.get("out.txt").unwrap().starts_with(b"learn fold 1"));
}

#[test]
fn the_lock_file_names_what_moved() {
    let project = Project::new();
    let lock_of = |text: &str| {
        let manifest = project.manifest(text);
        let go_on = AtomicBool::new(false);
        let session = Session::open(&manifest, None, None, Access::Write).unwrap();
        let run = session.run(&Options::new(2, &go_on), &Silent).unwrap();
        run.lock_file().unwrap()
    };
    let lock = lock_of(MANIFEST);
    assert_eq!(LockFile::parse(&lock.render()).unwrap(), lock);
    assert_eq!(lock.compare(&lock_of(MANIFEST)), []);
    let compare = |text: &str, inputs: bool| {
        let manifest = load(&project.root, text, KINDS);
        let session = Session::open(&manifest, None, None, Access::Look).unwrap();
        let sources = if inputs { SourcesFrom::Disk } else { SourcesFrom::Lock };
        session.compare_with_lock(&lock, sources, 2).unwrap()
    };
    assert_eq!(compare(MANIFEST, false), []);
    assert_eq!(compare(MANIFEST, true), []);
    let after = MANIFEST.replace("[stages.join]", "[stages.join]\na = 1");
    let texts = |differences: Vec<Difference>| differences.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        texts(compare(&after, false)),
        [
            "`join`: `a` changed: 0 -> 1",
            "`join/whole` is computed from something else",
            "`score/whole` is below a task that is computed from something else",
        ]
    );
    assert_eq!(
        texts(lock.compare(&lock_of(&after))),
        [
            "`join`: `a` changed: 0 -> 1",
            "`join/whole` is computed from something else",
            "`score/whole` is computed from something else",
        ]
    );
    // Without `inputs` the data is not read.
    fs::write(project.root.join("data.txt"), "other\n").unwrap();
    assert_eq!(compare(MANIFEST, false), []);
    assert_eq!(compare(MANIFEST, true)[0], Difference::Input("gather".into(), "images".into()));
    assert_eq!(compare(MANIFEST, true)[1], Difference::Key("gather/whole".into()));
    let fewer = MANIFEST.replace("[\"one\", \"two\"]", "[\"two\"]").replace("[stages.one]\nkind = \"learn\"\n", "");
    assert!(compare(&fewer, false).contains(&Difference::Gone("one/fold 1".into())));
}

#[test]
fn gc_keeps_what_recent_runs_name() {
    let project = Project::new();
    let after = MANIFEST.replace("[stages.fit]", "[stages.fit]\na = 1");
    project.run(&after);
    project.run(MANIFEST);
    let mut store = convoy::store::Store::open(&project.root.join(".convoy"), &project.root, Access::Write).unwrap();
    let cleaned = convoy::runner::cache_gc(&mut store, &convoy::runner::Cleaning::default()).unwrap().0;
    assert_eq!((cleaned.removed_entries, cleaned.kept_entries), (10, 12));
    drop(store);
    assert!(project.plan(MANIFEST).is_fresh());
    assert!(!project.plan(&after).is_fresh());
}

#[test]
fn two_manifests_of_one_name_are_refused() {
    let project = Project::new();
    let real = "schema = 1\nname = \"toy\"\n\n[stages.ingest]\nsource = \"builtin:digits\"\n";
    fs::write(project.root.join("toy.toml"), real).unwrap();
    project.run(MANIFEST);
    let other = project.root.join("other");
    fs::create_dir_all(other.join(".convoy-not")).unwrap();
    fs::write(other.join("data.txt"), "data\n").unwrap();
    let manifest = load(&other, MANIFEST, KINDS);
    let go_on = AtomicBool::new(false);
    let session = Session::open(&manifest, None, None, Access::Write).unwrap();
    let error = session.run(&Options::new(1, &go_on), &Silent).unwrap_err().to_string();
    assert!(error.starts_with("the name `toy` is taken by the manifest `"), "{error}");
    // The other one was moved away, or renamed: the name is free.
    fs::write(project.root.join("toy.toml"), real.replace("toy", "other")).unwrap();
    assert_eq!(computed(&session.run(&Options::new(1, &go_on), &Silent).unwrap()), [""; 0]);
}

#[test]
fn reading_sources_is_told() {
    struct Bytes(Mutex<u64>);
    impl Events for Bytes {
        fn event(&self, event: &Event<'_>) {
            if let Event::Reading { stage: "gather", bytes } = event {
                *self.0.lock().unwrap() = *bytes;
            }
        }
    }
    let project = Project::new();
    fs::write(project.root.join("data.txt"), "x".repeat(3_000_000)).unwrap();
    let told = Bytes(Mutex::new(0));
    project.run_with(MANIFEST, 1, &told).unwrap();
    assert_eq!(told.0.into_inner().unwrap(), 3_000_000);
}

/// What the property test edits.
#[derive(Clone, Debug)]
struct Model {
    a: [u64; 6],
    coarse: [u64; 6],
    folds: u64,
    refit: bool,
    seed: u64,
    data: u64,
    is_noisy: bool,
}

const STAGES: [&str; 6] = ["gather", "cut", "fit", "learn", "join", "score"];

#[derive(Clone, Debug)]
enum Edit {
    A(usize, u64),
    Coarse(usize, u64),
    Folds(u64),
    Refit(bool),
    Seed(u64),
    Data(u64),
    Noise(bool),
    Touch,
}

fn edits() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (0..6usize, 0..3u64).prop_map(|(i, a)| Edit::A(i, a)),
        4 => (0..6usize, 0..20u64).prop_map(|(i, coarse)| Edit::Coarse(i, coarse)),
        1 => (1..=3u64).prop_map(Edit::Folds),
        1 => any::<bool>().prop_map(Edit::Refit),
        1 => (0..2u64).prop_map(Edit::Seed),
        1 => (0..3u64).prop_map(Edit::Data),
        1 => any::<bool>().prop_map(Edit::Noise),
        1 => Just(Edit::Touch),
    ]
}

impl Model {
    fn manifest(&self) -> String {
        let mut text = format!("schema = 1\nname = \"toy\"\nseed = {}\n", self.seed);
        for (i, stage) in STAGES.iter().enumerate() {
            text += &format!("\n[stages.{stage}]\n");
            let mut lines = vec![format!("a = {}", self.a[i]), format!("coarse = {}", self.coarse[i])];
            match *stage {
                "gather" => lines.push("path = \"data.txt\"".into()),
                "cut" => lines.push(format!("folds = {}", self.folds)),
                "learn" => lines.push(format!("refit = {}", self.refit)),
                _ => {}
            }
            if self.is_noisy {
                lines.reverse();
                lines.insert(1, "# noise".into());
            }
            text += &(lines.join("\n") + "\n");
        }
        text
    }

    /// The tasks, in order: what each reads (named facts) and what it writes.
    fn tasks(&self) -> Vec<(String, BTreeMap<String, String>, String)> {
        let mut tasks: Vec<(String, BTreeMap<String, String>, String)> = Vec::new();
        let folds: Vec<String> = (1..=self.folds).map(|f| format!("fold {f}")).collect();
        for (i, stage) in STAGES.iter().enumerate() {
            let parts = match *stage {
                "fit" | "learn" if self.refit => [&folds[..], &["all".to_owned()]].concat(),
                "fit" | "learn" => folds.clone(),
                _ => vec!["whole".to_owned()],
            };
            for part in parts {
                let mut facts = BTreeMap::new();
                facts.insert("param a".to_owned(), self.a[i].to_string());
                facts.insert("param coarse".to_owned(), self.coarse[i].to_string());
                match *stage {
                    "gather" => drop(facts.insert("input images".to_owned(), self.data.to_string())),
                    "cut" => drop(facts.insert("param folds".to_owned(), self.folds.to_string())),
                    "learn" => drop(facts.insert("param refit".to_owned(), self.refit.to_string())),
                    _ => {}
                }
                if matches!(*stage, "cut" | "learn") {
                    facts.insert("param seed".to_owned(), self.seed.to_string());
                }
                let read = |name: &str| {
                    let outs: Vec<String> = tasks
                        .iter()
                        .filter(|(task, ..)| {
                            let (of, of_part) = task.split_once('/').unwrap();
                            of == name && (of_part == "whole" || of_part == part || part == "whole")
                        })
                        .map(|(task, _, out)| format!("{task}={out}"))
                        .collect();
                    outs.join(";")
                };
                let above: &[&str] = match *stage {
                    "gather" => &[],
                    "cut" => &["gather"],
                    "fit" => &["gather", "cut"],
                    "learn" => &["gather", "cut", "fit"],
                    "join" => &["learn"],
                    _ => &["join"],
                };
                for name in above {
                    facts.insert(format!("upstream {name}"), read(name));
                }
                if *stage == "learn" && part == "all" {
                    let own: Vec<String> = tasks
                        .iter()
                        .filter(|(task, ..)| task.starts_with("learn/fold"))
                        .map(|(task, _, out)| format!("{task}={out}"))
                        .collect();
                    facts.insert("upstream learn".to_owned(), own.join(";"));
                }
                // What it writes: all it reads, but only the tens of `coarse`, and no `folds` or `refit`.
                let mut out = facts.clone();
                out.insert("param coarse".to_owned(), (self.coarse[i] / 10).to_string());
                out.remove("param folds");
                out.remove("param refit");
                let out = blake3::hash(format!("{stage}/{part}: {out:?}").as_bytes()).to_string();
                tasks.push((format!("{stage}/{part}"), facts, out));
            }
        }
        tasks
    }
}

proptest! {
    // The same cases every time, so that a run of the tests says something about the change and not about its luck.
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
        ..ProptestConfig::default()
    })]
    #[test]
    fn exactly_what_reads_a_change_reruns_and_says_why(rounds in prop::collection::vec(prop::collection::vec(edits(), 1..3), 1..7)) {
        let project = Project::new();
        let mut model =
            Model { a: [0; 6], coarse: [0; 6], folds: 2, refit: false, seed: 0, data: 0, is_noisy: false };
        let mut seen: BTreeSet<(String, BTreeMap<String, String>)> = BTreeSet::new();
        let mut last: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for edits in std::iter::once(Vec::new()).chain(rounds) {
            for edit in edits {
                match edit {
                    Edit::A(i, a) => model.a[i] = a,
                    Edit::Coarse(i, coarse) => model.coarse[i] = coarse,
                    Edit::Folds(folds) => model.folds = folds,
                    Edit::Refit(refit) => model.refit = refit,
                    Edit::Seed(seed) => model.seed = seed,
                    Edit::Data(data) => model.data = data,
                    Edit::Noise(is_noisy) => model.is_noisy = is_noisy,
                    Edit::Touch => drop(fs::File::open(project.root.join("data.txt")).unwrap().set_modified(std::time::UNIX_EPOCH)),
                }
            }
            let data = format!("data {}\n", model.data);
            if fs::read_to_string(project.root.join("data.txt")).unwrap() != data {
                fs::write(project.root.join("data.txt"), data).unwrap();
            }
            let mut expected = Vec::new();
            let mut now = BTreeMap::new();
            for (task, facts, _) in model.tasks() {
                if seen.insert((task.clone(), facts.clone())) {
                    let mut why: Vec<String> = match last.get(&task) {
                        None => vec!["missing".to_owned()],
                        Some(old) => facts
                            .iter()
                            .filter(|(name, value)| old.get(*name) != Some(value))
                            .map(|(name, _)| name.clone())
                            .collect(),
                    };
                    why.sort();
                    expected.push((task.clone(), why));
                }
                now.insert(task, facts);
            }
            last = now;
            let run = project.run(&model.manifest());
            prop_assert!(run.is_complete());
            let got: Vec<(String, Vec<String>)> = run
                .computed()
                .map(|task| {
                    let mut why: Vec<String> = task
                        .reasons
                        .iter()
                        .map(|reason| match reason {
                            StaleReason::Param { key, .. } => format!("param {key}"),
                            StaleReason::Input { role, .. } => format!("input {role}"),
                            StaleReason::Upstream { stage, .. } => format!("upstream {stage}"),
                            other => other.word().to_owned(),
                        })
                        .collect();
                    why.sort();
                    (task_key(&task.name), why)
                })
                .collect();
            prop_assert_eq!(got, expected);
        }
    }
}

fn task_key(name: &str) -> String {
    name.split_once(", ").map_or_else(|| format!("{name}/whole"), |(stage, part)| format!("{stage}/{part}"))
}
