//! Searches end to end, on a tiny net: the same bytes whatever the threads and the interruptions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use convoy::manifest::{Manifest, Overrides};
use convoy::runner::{Ended, Event, Events, Options, Outcome, Session, Silent, SourcesFrom, State};
use convoy::stages::Part;
use convoy::store::Access;

const MANIFEST: &str = r#"
schema = 1
name   = "s"
seed   = 7

[stages.ingest]
source = "builtin:digits"
limit  = 120

[stages.split]
folds = 2

[stages.preprocess]
steps = ["center"]

[stages.net]
kind         = "train"
architecture = "INPUT - FC({units}) - RELU - FC"
epochs       = 3
batch_size   = 8
optimizer    = "sgd"

[stages.search]
keep   = 2
rounds = [{ trials = 8, epochs = 1, keep = 2 }, { trials = 2, epochs = 2, keep = 2 }, {}]

[stages.search.space]
stages.net.vars.units    = { integer = [4, 12] }
stages.net.learning_rate = { log-uniform = [1e-4, 10.0] }
stages.preprocess.steps  = { choice = [["center"], [{ divide = 16 }]] }

[stages.ensemble]

[stages.evaluate]
"#;

struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    fn new() -> Project {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join(".git")).expect("a project root");
        Project { dir }
    }

    fn manifest(&self, text: &str) -> Manifest {
        let path = self.dir.path().join("s.toml");
        fs::write(&path, text).expect("writable");
        Manifest::load(&path, &Overrides::default()).unwrap_or_else(|found| panic!("{}", found.render(false)))
    }

    fn run_with(&self, text: &str, threads: usize, cancel: &AtomicBool, events: &dyn Events) -> Outcome {
        let manifest = self.manifest(text);
        let session = Session::open(&manifest, None, None, Access::Write).expect("a store");
        session.run(&Options::new(threads, cancel), events).expect("a run")
    }

    fn run(&self, text: &str, threads: usize) -> Outcome {
        self.run_with(text, threads, &AtomicBool::new(false), &Silent)
    }
}

/// What every task gave, by name.
fn outputs(outcome: &Outcome) -> BTreeMap<String, String> {
    assert!(outcome.is_complete(), "{:?}", outcome.failures().map(|(task, why)| (&task.name, why)).collect::<Vec<_>>());
    outcome.tasks.iter().map(|task| (task.name.clone(), task.entry.as_ref().unwrap().artifact().to_string())).collect()
}

fn trials_csv(project: &Project, text: &str, outcome: &Outcome) -> String {
    let manifest = project.manifest(text);
    let search = manifest.stage("search").expect("a search");
    let session = Session::open(&manifest, None, None, Access::Look).expect("a store");
    let rounds = manifest.nodes[search].stage.search().expect("a search").rounds().len() as u32;
    (1..=rounds)
        .map(|round| {
            let files = outcome.files(&session.store, search, Part::Round(round)).expect("it ended").expect("readable");
            String::from_utf8(files.get("trials.csv").expect("a table").to_vec()).expect("text")
        })
        .collect()
}

#[test]
fn a_search_has_the_same_bytes_on_any_number_of_threads() {
    let project = Project::new();
    let first = project.run(MANIFEST, 1);
    let expected = outputs(&first);
    let lock = first.lock_file().expect("a lock file").render();
    for threads in [2, 3, 7] {
        let run = Project::new().run(MANIFEST, threads);
        assert!(outputs(&run) == expected, "{threads} threads");
        assert!(run.lock_file().expect("a lock file").render() == lock, "{threads} threads");
    }
    // What is there is found: the second run has nothing to do, and plans all rounds.
    let again = project.run(MANIFEST, 2);
    assert_eq!(again.computed().count(), 0);
    assert!(outputs(&again) == expected);
    assert!(again.lock_file().expect("a lock file").render() == lock);
    // The tuned stage does not run on its own, and the two best are handed on.
    assert!(!expected.keys().any(|name| name.starts_with("net")), "{:?}", expected.keys());
    for name in ["search, round 3", "search, fold 2", "search.2, fold 1", "ensemble"] {
        assert!(expected.contains_key(name), "{name} is not among {:?}", expected.keys());
    }
    let table = trials_csv(&project, MANIFEST, &first);
    let header = "round,rank,trial,chosen,status,origin,epochs,data_fraction,folds,n_valid,n_parameters,\
                  mean_valid_accuracy,std_valid_accuracy,mean_valid_loss,std_valid_loss,\
                  param_units,param_learning_rate,param_preprocess.steps\n";
    assert!(table.starts_with(header), "{table}");
    assert_eq!(table.lines().filter(|line| line.contains(",true,finished,")).count(), 6, "{table}");
}

#[test]
fn a_killed_search_goes_on_and_ends_with_the_same_bytes() {
    struct Stop<'a> {
        cancel: &'a AtomicBool,
        at: usize,
        n: AtomicUsize,
    }
    impl Events for Stop<'_> {
        fn event(&self, event: &Event<'_>) {
            if let Event::Ended { ended: Ended::Computed, .. } = event
                && self.n.fetch_add(1, Ordering::SeqCst) + 1 == self.at
            {
                self.cancel.store(true, Ordering::SeqCst);
            }
        }
    }
    let expected = outputs(&Project::new().run(MANIFEST, 2));
    let project = Project::new();
    let mut stops = 0;
    for at in [4, 7, 3, 5] {
        let cancel = AtomicBool::new(false);
        let stop = Stop { cancel: &cancel, at, n: AtomicUsize::new(0) };
        stops += usize::from(project.run_with(MANIFEST, 2, &cancel, &stop).is_interrupted);
    }
    assert!(stops >= 3, "only {stops} runs were stopped");
    assert!(outputs(&project.run(MANIFEST, 2)) == expected);
}

#[test]
fn adding_trials_reuses_those_that_were_there() {
    let project = Project::new();
    project.run(MANIFEST, 2);
    let more = MANIFEST.replace("trials = 8", "trials = 9");
    let manifest = project.manifest(&more);
    let session = Session::open(&manifest, None, None, Access::Look).expect("a store");
    let plan = session.plan(&Options::new(2, &AtomicBool::new(false))).expect("a plan");
    let stale: Vec<String> = (0..plan.tasks.len())
        .filter(|&i| matches!(plan.tasks[i].state, State::Stale(_)))
        .map(|i| plan.name(i))
        .filter(|name| !name.contains("preprocess"))
        .collect();
    assert_eq!(stale, ["search r1t9 net, fold 1"]);
    let pending = plan.find(manifest.stage("search").unwrap(), Part::Round(2)).expect("a round");
    assert!(matches!(plan.tasks[pending].state, State::Pending { .. }));
}

#[test]
fn a_time_limit_keeps_a_prefix_and_says_so() {
    /// Holds the trials behind the first one up until the limit is over, whatever the machine does meanwhile.
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(4);
    struct Slow;
    impl Events for Slow {
        fn event(&self, event: &Event<'_>) {
            if let Event::Started { task, .. } = event
                && task.contains("r1t2 ")
                && task.contains("net")
            {
                std::thread::sleep(LIMIT);
            }
        }
    }
    let limited = MANIFEST
        .replace("keep   = 2\nrounds", "keep   = 1\ntime_limit = \"4s\"\nrounds")
        .replace("10.0", "1e-2")
        .replace("trials = 8", "trials = 80");
    let project = Project::new();
    let run = project.run_with(&limited, 1, &AtomicBool::new(false), &Slow);
    assert!(run.is_complete(), "{:?}", run.failures().map(|(_, why)| why).collect::<Vec<_>>());
    assert_eq!(run.truncated.len(), 1);
    let table = trials_csv(&project, &limited, &run);
    let trials = |prefix: &str| table.lines().filter(|line| line.contains(prefix)).count();
    assert!((1..50).contains(&trials(",r1t")), "{table}");
    assert_eq!(trials(",r2t"), 0, "nothing is drawn after the limit: {table}");
    assert!(table.contains(",r1t1,"), "{table}");
}

#[test]
fn a_lock_file_holds_the_trials() {
    let project = Project::new();
    let path = project.dir.path().join("s.lock");
    project.run(MANIFEST, 2).lock_file().expect("a lock file").write(&path).expect("writable");
    let manifest = project.manifest(MANIFEST);
    let session = Session::open(&manifest, None, None, Access::Look).expect("a store");
    let lock = convoy::runner::LockFile::read(&path).expect("readable").expect("there");
    assert!(lock.tasks.contains_key("search r2k1 net/fold 1"), "{:?}", lock.tasks.keys());
    assert_eq!(session.compare_with_lock(&lock, SourcesFrom::Disk, 1).expect("compared"), []);
    // Without the store the later rounds are not known, and not called gone.
    let elsewhere = Project::new();
    let manifest = elsewhere.manifest(MANIFEST);
    let session = Session::open(&manifest, None, None, Access::Look).expect("a store");
    assert_eq!(session.compare_with_lock(&lock, SourcesFrom::Disk, 1).expect("compared"), []);
    assert!(!Path::new(&elsewhere.dir.path().join("out")).exists());
}
