//! Records and files of one clone carried to another: what is known there, what is computed again, and what is vouched for.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::ran;

const MANIFEST: &str = r#"schema = 1
name   = "small"
seed   = 1

[stages.ingest]
source = "builtin:digits"
limit  = 100

[stages.split]
test  = 0.2
folds = 2

[stages.preprocess]
steps = ["center", "scale"]

[stages.train]
architecture  = "INPUT - CONV(4) - RELU - POOL - FC"
epochs        = 2
batch_size    = 16
learning_rate = 0.005

[stages.ensemble]

[stages.evaluate]
"#;

/// `ingest`, `split`, two folds of `preprocess` and of `train` with its checks, `ensemble`, `evaluate`, its pictures and its
/// suspects.
const N_TASKS: usize = 11;

/// Two clones of a project, the first one run: with its lock file in both.
struct Clones {
    temp: tempfile::TempDir,
}

impl Clones {
    fn new() -> Clones {
        Clones::of(MANIFEST)
    }

    fn of(manifest: &str) -> Clones {
        let clones = Clones { temp: tempfile::tempdir().unwrap() };
        for clone in ["a", "b"] {
            let root = clones.root(clone);
            fs::create_dir_all(root.join(".git")).unwrap();
            fs::write(root.join("small.toml"), manifest).unwrap();
        }
        clones.done("a", &["run", "-q"]);
        fs::copy(clones.root("a").join("small.lock"), clones.root("b").join("small.lock")).unwrap();
        clones
    }

    fn root(&self, clone: &str) -> PathBuf {
        self.temp.path().join(clone)
    }

    /// What a verb that ends well says, on stdout and on stderr.
    fn done(&self, clone: &str, arguments: &[&str]) -> String {
        let (code, out, err) = ran(self.root(clone), arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {out}{err}");
        format!("{out}{err}")
    }

    /// The exit code of a verb and what it says.
    fn said(&self, clone: &str, arguments: &[&str]) -> (i32, String) {
        let (code, out, err) = ran(self.root(clone), arguments);
        (code.unwrap(), format!("{out}{err}"))
    }

    /// Packs in the first clone, unpacks in the second.
    fn carry(&self, options: &[&str]) {
        self.done("a", &[&["cache", "pack", "../pack.tar"], options].concat());
        self.done("b", &["cache", "unpack", "../pack.tar"]);
    }

    fn blobs(&self, clone: &str) -> Vec<PathBuf> {
        let mut blobs: Vec<PathBuf> =
            fs::read_dir(self.root(clone).join(".convoy/cas")).unwrap().map(|blob| blob.unwrap().path()).collect();
        blobs.sort();
        blobs
    }

    /// The reports of a clone, but for what holds times.
    fn reports(&self, clone: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let out = self.root(clone).join("out/small");
        let mut reports: Vec<(PathBuf, Vec<u8>)> = walkdir::WalkDir::new(&out)
            .into_iter()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().is_file())
            .filter(|entry| !["run.json", "timings.csv"].contains(&entry.file_name().to_str().unwrap()))
            .map(|entry| (entry.path().strip_prefix(&out).unwrap().to_owned(), fs::read(entry.path()).unwrap()))
            .collect();
        reports.sort();
        reports
    }
}

/// How many of the tasks are known by their records only, and how many there are.
fn recorded(told: &str) -> (usize, usize) {
    let before = |words: &str| {
        let at = told.find(words).unwrap_or_else(|| panic!("`{words}` is not in {told}"));
        told[..at].rsplit(' ').next().unwrap().parse().unwrap()
    };
    (before(" by their records only"), before(" tasks are fresh"))
}

fn lock(root: &Path) -> String {
    fs::read_to_string(root.join("small.lock")).unwrap()
}

#[test]
fn with_what_reports_need_there_is_nothing_to_do_and_nothing_large_is_carried() {
    let clones = Clones::new();
    clones.carry(&[]);
    let (all, carried) = (clones.blobs("a"), clones.blobs("b"));
    assert!(!carried.is_empty() && carried.len() < all.len(), "{} of {}", carried.len(), all.len());
    let status = clones.done("b", &["status"]);
    assert!(status.contains("nothing to do"), "{status}");
    let (n_recorded, n_tasks) = recorded(&status);
    assert!(n_recorded > 0 && n_recorded < n_tasks, "{status}");
    let told = clones.done("b", &["run"]);
    assert!(told.contains("nothing to do"), "{told}");
    assert_eq!(recorded(&told), (n_recorded, n_tasks));
    assert_eq!(clones.blobs("b"), carried);
    assert_eq!(clones.reports("a"), clones.reports("b"));
    assert_eq!(lock(&clones.root("a")), lock(&clones.root("b")));
    // One key of the last stage: only it runs, and what it reads that is not here.
    let edited = MANIFEST.replace("[stages.evaluate]", "[stages.evaluate]\nmetrics = [\"accuracy\"]");
    for clone in ["a", "b"] {
        fs::write(clones.root(clone).join("small.toml"), &edited).unwrap();
        clones.done(clone, &["run", "-q"]);
    }
    assert_eq!(clones.reports("a"), clones.reports("b"));
    assert_eq!(lock(&clones.root("a")), lock(&clones.root("b")));
}

#[test]
fn records_alone_are_known_and_what_a_report_reads_is_computed_again() {
    let clones = Clones::new();
    clones.carry(&["--records"]);
    assert!(clones.blobs("b").is_empty());
    let status = clones.done("b", &["status"]);
    assert!(status.contains("nothing to do"), "{status}");
    assert_eq!(recorded(&status), (N_TASKS, N_TASKS));
    assert_eq!(clones.done("b", &["status", "--exit-code"]), status);
    let told = clones.done("b", &["cache", "list"]);
    assert!(
        told.contains(&format!("{N_TASKS} tasks, {N_TASKS} of them without all of their files; 0 files")),
        "{told}"
    );
    // A report reads tables of them, so those are computed again, with what they read.
    let (code, told) = clones.said("b", &["run"]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(clones.reports("a"), clones.reports("b"));
    assert_eq!(lock(&clones.root("a")), lock(&clones.root("b")));
    assert!(!told.contains("warning: ingest"), "what is not here was not expected to be: {told}");
    // And then nothing is.
    assert!(clones.done("b", &["run"]).contains("nothing to do"), "the second time");
    let told = clones.done("b", &["run", "--all-files"]);
    assert!(!told.contains("by their records"), "{told}");
    assert_eq!(clones.blobs("a").len(), clones.blobs("b").len());
}

/// Trials and their rounds, and what is made of the best of them.
#[test]
fn each_file_of_a_search_may_be_gone_and_the_reports_stay() {
    let plain = "architecture  = \"INPUT - CONV(4) - RELU - POOL - FC\"\nepochs        = 2";
    let tuned = "architecture  = \"INPUT - CONV({n}, 5x5) - RELU - FC\"\nepochs        = 1";
    let space = "[stages.search]\nkeep = 1\nrounds = [{ trials = 2, keep = 1 }, {}]\n\n[stages.search.space]\n\
                 stages.train.vars.n = { choice = [2, 3] }\n\n[stages.ensemble]";
    let manifest = MANIFEST.replace(plain, tuned).replace("[stages.ensemble]", space);
    let clones = Clones::of(&manifest);
    let expected = clones.reports("a");
    assert!(expected.iter().any(|(path, _)| path.ends_with("curves/search.svg")), "{expected:?}");
    for blob in clones.blobs("a") {
        fs::remove_file(&blob).unwrap();
        let told = clones.done("a", &["run", "-q"]);
        assert!(clones.reports("a") == expected, "without {}: {told}", blob.display());
    }
    clones.carry(&[]);
    clones.done("b", &["run", "-q"]);
    assert!(clones.reports("b") == expected, "what was carried");
}

#[test]
fn any_files_may_be_gone_and_the_bytes_stay() {
    let clones = Clones::new();
    let expected = (clones.reports("a"), lock(&clones.root("a")));
    let n = clones.blobs("a").len();
    for step in 2..6 {
        for blob in clones.blobs("a").into_iter().step_by(step) {
            fs::remove_file(blob).unwrap();
        }
        fs::remove_dir_all(clones.root("a").join("out")).unwrap();
        let told = clones.done("a", &["run"]);
        assert!(!told.contains("error:"), "{told}");
        assert_eq!((clones.reports("a"), lock(&clones.root("a"))), expected, "every {step}.");
        clones.done("a", &["run", "-q", "--all-files"]);
        assert_eq!(clones.blobs("a").len(), n, "every {step}.");
    }
}

#[test]
fn a_locked_run_vouches_for_nothing_that_is_not_here() {
    let clones = Clones::new();
    clones.carry(&[]);
    let n = clones.blobs("b").len();
    let (code, told) = clones.said("b", &["run", "--locked"]);
    assert_eq!(code, 3, "{told}");
    assert!(told.contains(&format!("of {N_TASKS} tasks of `small.lock` are known by their records only")), "{told}");
    assert_eq!(clones.blobs("b").len(), n, "nothing is computed");
    let told = clones.done("b", &["run", "--locked", "--recompute"]);
    assert!(told.contains("all equal"), "{told}");
    assert_eq!(clones.blobs("b").len(), clones.blobs("a").len());
    assert!(clones.done("b", &["run", "--locked"]).contains("all equal"));
}

#[test]
fn a_model_is_not_exported_from_its_record() {
    let clones = Clones::new();
    clones.carry(&[]);
    let (code, told) = clones.said("b", &["export", "safetensors", "small.toml"]);
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("known by its record only") && told.contains("--all-files"), "{told}");
    clones.done("b", &["run", "-q", "--all-files"]);
    clones.done("b", &["export", "safetensors", "small.toml"]);
}

#[test]
fn what_is_carried_and_contradicts_the_lock_file_is_refused() {
    let clones = Clones::new();
    clones.done("a", &["cache", "pack", "../pack.tar"]);
    let path = clones.root("b").join("small.lock");
    let text = lock(&clones.root("b"));
    let at = text.find("output = \"").unwrap() + "output = \"".len();
    let other = if text[at..].starts_with('0') { "1" } else { "0" };
    fs::write(&path, format!("{}{other}{}", &text[..at], &text[at + 1..])).unwrap();
    let (code, told) = clones.said("b", &["cache", "unpack", "../pack.tar"]);
    assert_eq!(code, 4, "{told}");
    assert!(told.contains("than `small.lock`"), "{told}");
    assert!(clones.blobs("b").is_empty());
    fs::write(&path, &text).unwrap();
    let archive = clones.temp.path().join("pack.tar");
    let whole = fs::read(&archive).unwrap();
    fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
    let (code, told) = clones.said("b", &["cache", "unpack", "../pack.tar"]);
    assert_eq!(code, 5, "{told}");
    assert!(told.contains("cut short") && told.contains("nothing was taken"), "{told}");
}

#[test]
fn the_key_of_a_ci_cache_follows_manifest_and_lock_file_and_nothing_else() {
    let clones = Clones::new();
    let key = |clone: &str| clones.done(clone, &["cache", "key"]);
    let first = key("a");
    assert_eq!(first, key("b"));
    let prefix = first.lines().nth(1).unwrap().strip_prefix("restore-prefix=").unwrap();
    assert!(first.lines().next().unwrap().strip_prefix("key=").unwrap().starts_with(prefix), "{first}");
    // How a manifest is written says nothing; what it computes does.
    fs::write(clones.root("b").join("small.toml"), format!("# a comment\n{MANIFEST}")).unwrap();
    assert_eq!(first, key("b"));
    fs::write(clones.root("b").join("small.toml"), MANIFEST.replace("epochs        = 2", "epochs = 3")).unwrap();
    assert_ne!(first, key("b"));
    assert_eq!(first.lines().nth(1), key("b").lines().nth(1));
    fs::write(clones.root("b").join("small.toml"), MANIFEST).unwrap();
    fs::remove_file(clones.root("b").join("small.lock")).unwrap();
    assert_ne!(first, key("b"));
}

#[test]
fn packing_is_the_same_each_time_and_on_every_machine() {
    let clones = Clones::new();
    clones.done("b", &["run", "-q", "--threads", "1"]);
    for clone in ["a", "b"] {
        clones.done(clone, &["cache", "pack", "pack.tar", "small.toml"]);
    }
    let archive = |clone: &str| fs::read(clones.root(clone).join("pack.tar")).unwrap();
    assert!(archive("a") == archive("b"));
}

#[test]
fn gc_holds_locks_and_runs_but_not_experiments_and_drops_what_it_is_told() {
    let clones = Clones::new();
    let set = ["run", "-q", "--set", "stages.train.epochs=1"];
    clones.done("a", &set);
    let n_tasks = |clone: &str| fs::read_dir(clones.root(clone).join(".convoy/ac")).unwrap().count();
    let all = n_tasks("a");
    assert!(all > N_TASKS);
    // There is room.
    let told = clones.done("a", &["cache", "gc"]);
    assert!(told.contains("lock file `small.lock`") && told.contains("run of `small`, today"), "{told}");
    assert!(told.contains("while there is room"), "{told}");
    assert_eq!(n_tasks("a"), all);
    // Where there is none, an experiment goes and the rest stays.
    clones.done("a", &["cache", "gc", "--max-size", "0"]);
    assert_eq!(n_tasks("a"), N_TASKS);
    // A dropped pipeline goes, but for what the lock file names.
    clones.done("a", &set);
    clones.done("a", &["cache", "gc", "--drop", "small"]);
    assert_eq!(n_tasks("a"), N_TASKS);
    fs::remove_file(clones.root("a").join("small.lock")).unwrap();
    clones.done("a", &["run", "-q", "--out-dir", "elsewhere"]);
    fs::remove_file(clones.root("a").join("small.lock")).ok();
    clones.done("a", &["cache", "gc", "--drop", "small"]);
    assert_eq!(n_tasks("a"), 0);
    assert_eq!(clones.said("a", &["cache", "gc", "--drop", "small"]).0, 2);
}

#[test]
fn one_task_is_shown_found_and_copied() {
    let clones = Clones::new();
    let shown = clones.done("a", &["cache", "show", "small ingest"]);
    assert!(shown.contains("kind         ingest, whole") && shown.contains("images.npy"), "{shown}");
    assert!(shown.contains("lock file `small.lock`"), "{shown}");
    let place = clones.done("a", &["cache", "path", "small ingest", "data.csv"]);
    assert!(clones.root("a").join(place.trim()).is_file(), "{place}");
    clones.done("a", &["cache", "export", "small ingest", "copy"]);
    let copy = fs::read(clones.root("a").join("copy/data.csv")).unwrap();
    assert_eq!(copy, fs::read(clones.root("a").join(place.trim())).unwrap());
    assert_eq!(clones.said("a", &["cache", "export", "small ingest", "copy"]).0, 2, "it is not empty");
    assert_eq!(clones.said("a", &["cache", "export", "small train", "other"]).0, 2, "they are several");
    assert_eq!(clones.said("a", &["cache", "path", "small ingest", "nothing"]).0, 2);
}
