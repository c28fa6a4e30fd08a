//! Kill a run anywhere, or let its disk run full: what can be seen is complete, what finished is kept.
#![cfg(unix)]

mod toy;

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use convoy::runner::{Ended, Failure, Options, Session, Silent, TaskOutcome};
use convoy::store::{Access, Store};
use toy::{KINDS, Project, load};

/// Set for the process that is to be killed: the project's folder. The manifest is in the file `manifest` there.
const CHILD: &str = "CONVOY_TEST_CHILD";

/// Not a test of its own: what the other tests start this program for.
#[test]
fn child() {
    let Some(root) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let manifest = load(&root, &fs::read_to_string(root.join("manifest")).unwrap(), KINDS);
    let session = Session::open(&manifest, None, None, Access::Write).unwrap();
    let run = session.run(&Options::new(2, &AtomicBool::new(false)), &Silent).unwrap();
    let failures: Vec<String> = run
        .failures()
        .map(|(task, failure)| match failure {
            Failure::Stage(error) => format!("{}: {error}", task.name),
            Failure::Bug(message) => format!("{}: bug: {message}", task.name),
            Failure::Store(error) => format!("{}: {error}", task.name),
        })
        .collect();
    let text = if run.is_complete() { toy::computed(&run).join("\n") } else { failures.join("\n") };
    fs::write(root.join(format!("result-{}", std::process::id())), text).unwrap();
}

fn start(root: &Path, manifest: &str, before: &str) -> Child {
    fs::write(root.join("manifest"), manifest).unwrap();
    let program = std::env::current_exe().unwrap();
    Command::new("sh")
        .args(["-c", &format!("{before} exec \"$0\" --exact child --quiet"), program.to_str().unwrap()])
        .env(CHILD, root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

const MANIFEST: &str = r#"
schema = 1
name = "toy"

[stages.gather]
path = "data.txt"

[stages.cut]
folds = 6

[stages.fit]
sleep = 3
size = 65536

[stages.learn]
sleep = 15

[stages.join]

[stages.score]
"#;

/// What a child that ran to its end had to say.
fn result(root: &Path, child: &mut Child) -> String {
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    fs::read_to_string(root.join(format!("result-{}", child.id()))).unwrap()
}

/// What is finished, by label; the store is sound.
fn finished(root: &Path) -> Vec<String> {
    let store = Store::open(&root.join(".convoy"), root, Access::Look).unwrap();
    let verified = store.verify(&mut |_, _| ()).unwrap();
    assert!(verified.is_sound(), "{verified:?}");
    assert_eq!(verified.incomplete, [""; 0]);
    store.list().unwrap().into_iter().map(|listed| listed.entry.label).collect()
}

#[test]
fn killed_anywhere_nothing_is_lost_and_nothing_half_is_seen() {
    let mut project = Project::new();
    // Milliseconds until the kill: from before the store exists to far into the run.
    let mut pauses = [1, 3, 7, 12, 20, 30, 45, 60, 25, 15, 50, 35].into_iter().cycle().take(200);
    let mut kept: Vec<String> = Vec::new();
    let mut kills = 0;
    while kills < 10 {
        let pause = pauses.next().expect("of 200 kills ten come in time");
        let mut child = start(&project.root, MANIFEST, "");
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            // The kill came late, on a quick machine or a busy one.
            (project, kept) = (Project::new(), Vec::new());
            continue;
        }
        kills += 1;
        let now = finished(&project.root);
        assert!(kept.iter().all(|task| now.contains(task)), "lost: {kept:?} -> {now:?}");
        kept = now;
    }
    let run = project.run(MANIFEST);
    assert!(run.is_complete());
    for task in &run.tasks {
        let was_kept = kept.contains(&format!("toy {}", task.name));
        assert_eq!(matches!(task.ended, Ended::Computed), !was_kept, "{}", task.name);
    }
    assert_eq!(fs::read_dir(project.root.join(".convoy/tmp")).unwrap().count(), 0);
    // The same bytes as without any kill.
    let other = Project::new();
    let calm = other.run(MANIFEST);
    for (killed, calm) in run.tasks.iter().zip(&calm.tasks) {
        // Toys say that they were resumed.
        let outputs = |task: &TaskOutcome| task.entry.as_ref().map(|entry| entry.outputs.clone());
        assert_eq!(outputs(killed), outputs(calm));
    }
}

#[test]
fn a_full_disk_fails_the_task_with_a_reason_and_keeps_the_rest() {
    let project = Project::new();
    let large = MANIFEST.replace("[stages.join]", "[stages.join]\nsize = 8388608");
    // Files of at most 2048 blocks, of 512 or 1024 bytes.
    let mut child = start(&project.root, &large, "trap '' XFSZ; ulimit -f 2048;");
    let folder = project.root.join(".convoy/tmp");
    let expected = format!("join: cannot write the artifact in `{}`: file too large", folder.display());
    assert_eq!(result(&project.root, &mut child), expected);
    let kept = finished(&project.root);
    assert_eq!(kept.len(), 14, "{kept:?}");
    assert_eq!(fs::read_dir(project.root.join(".convoy/tmp")).unwrap().count(), 0);
    let run = project.run(&large);
    assert_eq!(toy::computed(&run), ["join", "score"]);
}

#[test]
fn two_processes_at_once_compute_each_task_once() {
    let project = Project::new();
    let mut children = [start(&project.root, MANIFEST, ""), start(&project.root, MANIFEST, "")];
    let results = children.each_mut().map(|child| result(&project.root, child));
    let mut computed: Vec<&str> = results.iter().flat_map(|result| result.lines()).collect();
    computed.sort_unstable();
    let n = computed.len();
    computed.dedup();
    assert_eq!((n, computed.len()), (16, 16), "{results:?}");
    assert_eq!(finished(&project.root).len(), 16);
}

/// Every kind of stage that keeps something between epochs, and those that do not, on the digits.
const PIPELINE: &str = r#"
schema = 1
name = "killed"
seed = 3

[stages.ingest]
source = "builtin:digits"
limit = 300

[stages.split]
test = 0.2
folds = 2

[stages.preprocess]
steps = ["center"]

[stages.cnn]
kind = "train"
architecture = "INPUT - CONV(4) - BN - RELU - POOL - DROPOUT(0.2) - FC"
sanity       = false
epochs = 12
optimizer = "adam"
early_stopping = { patience = 3 }

[stages.pca]
kind = "reduce"
input = "preprocess"
method = { pca = { components = 12, solver = "randomized" } }

[stages.mlp]
kind = "train"
architecture = "INPUT - NOISE(0.1) - FC(16) - RELU - FC"
sanity       = false
epochs = 12
optimizer = { sgd = { momentum = 0.9 } }
schedule = { plateau = { patience = 1 } }

[stages.linear]
kind = "train"
input = "preprocess"
architecture = "INPUT - FC"
sanity       = false
epochs = 12
final = "refit"

[stages.ensemble]
members = ["cnn", "mlp", "linear"]

[stages.evaluate]
"#;

/// The program, told to run the pipeline in `root`.
fn convoy(root: &Path, threads: &str) -> Command {
    let mut command = common::program(root, &["run", "killed.toml", "--quiet", "--threads", threads]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// What the checkpoints in the store are, to see when there is another one.
fn checkpoints(root: &Path) -> Vec<(std::ffi::OsString, blake3::Hash)> {
    let mut found: Vec<_> = fs::read_dir(root.join(".convoy/checkpoints"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name(), blake3::hash(&fs::read(entry.path()).ok()?))))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Everything that must not depend on kills: the lock file, which names every byte in the store by digest, and reports.
fn outcome(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = vec![root.join("killed.lock")];
    files.extend(walkdir::WalkDir::new(root.join("out")).into_iter().flatten().map(walkdir::DirEntry::into_path));
    let of_a_run = ["timings.csv", "run.json"];
    files.retain(|path| path.is_file() && !of_a_run.iter().any(|name| path.ends_with(name)));
    files.sort();
    files.iter().map(|path| (path.strip_prefix(root).unwrap().to_owned(), fs::read(path).unwrap())).collect()
}

#[test]
fn trainings_killed_at_their_checkpoints_end_with_the_bytes_of_a_calm_run() {
    let project = |text: &str| {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("killed.toml"), text).unwrap();
        temp
    };
    let calm = project(PIPELINE);
    assert!(convoy(calm.path(), "2").status().unwrap().success());
    // Microseconds from a new checkpoint to the kill: into the middle of an epoch, or of writing the next checkpoint.
    let mut pauses = [0, 200, 900, 3000, 0, 500, 1500, 100].into_iter().cycle().take(100);
    let mut kills = 0;
    // A run that ends before enough kills came in time is followed by another one.
    let killed = loop {
        let killed = project(PIPELINE);
        let mut child = convoy(killed.path(), "2").spawn().unwrap();
        let mut before = Vec::new();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            let now = checkpoints(killed.path());
            if now.iter().all(|checkpoint| before.contains(checkpoint)) {
                std::thread::sleep(Duration::from_micros(300));
                continue;
            }
            if kills == 8 {
                break child.wait().unwrap();
            }
            std::thread::sleep(Duration::from_micros(pauses.next().expect("of 100 kills three come in time")));
            child.kill().unwrap();
            kills += usize::from(!child.wait().unwrap().success());
            before = checkpoints(killed.path());
            child = convoy(killed.path(), if kills % 2 == 0 { "2" } else { "1" }).spawn().unwrap();
        };
        assert!(status.success(), "{status}");
        if kills >= 3 {
            break killed;
        }
    };
    let (calm, killed) = (outcome(calm.path()), outcome(killed.path()));
    assert!(calm.len() > 5);
    assert_eq!(
        calm.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        killed.iter().map(|(path, _)| path).collect::<Vec<_>>()
    );
    for ((path, calm), (_, killed)) in calm.iter().zip(&killed) {
        assert!(calm == killed, "{} differs", path.display());
    }
}

/// A search over a network that is trained for some epochs, on the built-in digits.
const SEARCH: &str = r#"
schema = 1
name   = "killed"
seed   = 7

[stages.ingest]
source = "builtin:digits"
limit  = 300

[stages.split]
folds = 2

[stages.preprocess]
steps = ["center"]

[stages.net]
kind         = "train"
architecture = "INPUT - CONV({filters}) - RELU - POOL - DROPOUT(0.2) - FC"
epochs       = 8
batch_size   = 8
optimizer    = "sgd"

[stages.search]
keep   = 2
rounds = [{ trials = 8, epochs = 2, keep = 3 }, { trials = 3, epochs = 4, keep = 2 }, {}]

[stages.search.space]
stages.net.vars.filters  = { choice = [4, 8, 12] }
stages.net.learning_rate = { log-uniform = [1e-4, 1.0] }

[stages.ensemble]
members = ["search"]

[stages.evaluate]
"#;

#[test]
fn a_search_that_is_killed_again_and_again_ends_with_the_bytes_of_one_that_was_not() {
    let project = || {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("killed.toml"), SEARCH).unwrap();
        temp
    };
    let calm = project();
    let start = Instant::now();
    assert!(convoy(calm.path(), "2").status().unwrap().success());
    let whole = start.elapsed();
    let mut killed = project();
    let mut kills = 0;
    // Hundredths of a calm run's time; each run goes on where the last one was killed.
    let mut shares = [3, 20, 35, 10, 30, 25, 15].into_iter().cycle().take(100);
    while kills < 5 {
        let mut child = convoy(killed.path(), "2").spawn().unwrap();
        std::thread::sleep(whole * shares.next().expect("of 100 kills five come in time") / 100);
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            // The kill came late: from the beginning, with the next pause.
            killed = project();
            continue;
        }
        kills += 1;
        finished(killed.path());
    }
    assert!(convoy(killed.path(), "2").status().unwrap().success());
    assert!(outcome(killed.path()) == outcome(calm.path()));
}

/// A rate that is far too high for a net without a batch normalisation: that is told after a few epochs.
const HASTY: &str = r#"
schema = 1
name   = "killed"

[stages.ingest]
source = "builtin:digits"
limit  = 300

[stages.split]
validation = 0.2

[stages.preprocess]
steps = ["center", "scale"]

[stages.cnn]
kind          = "train"
architecture  = "INPUT - CONV(8) - RELU - POOL - FC"
sanity        = false
epochs        = 400
learning_rate = 2.0
optimizer     = "sgd"

[stages.evaluate]
"#;

/// What a training says in its first epochs is not said again by one that goes on behind them: it stands in the checkpoint.
#[test]
fn what_a_killed_training_told_is_told_by_the_one_that_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    fs::write(root.join("killed.toml"), HASTY).unwrap();
    let said = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains("lower `learning_rate`")).map(str::to_owned).collect()
    };
    let errors = root.join("errors");
    let mut child = convoy(root, "1").stderr(fs::File::create(&errors).unwrap()).spawn().unwrap();
    let start = Instant::now();
    let mut at_the_warning = None;
    loop {
        assert!(child.try_wait().unwrap().is_none(), "it ended too soon: {}", fs::read_to_string(&errors).unwrap());
        assert!(start.elapsed() < Duration::from_secs(60), "nothing was told, or no checkpoint kept");
        std::thread::sleep(Duration::from_micros(300));
        let now = checkpoints(root);
        match &at_the_warning {
            None if !said(&fs::read_to_string(&errors).unwrap()).is_empty() => at_the_warning = Some(now),
            // The first checkpoint behind the warning.
            Some(before) if !now.is_empty() && now != *before => break,
            _ => {}
        }
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    let first = said(&fs::read_to_string(&errors).unwrap());
    assert_eq!(first.len(), 1, "{first:?}");
    let kept = checkpoints(root);
    assert_eq!(kept.len(), 1, "{kept:?}");
    // It goes on, and then it is fresh.
    for _ in 0..2 {
        let output = convoy(root, "1").stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success());
        assert_eq!(said(&String::from_utf8(output.stderr).unwrap()), first);
    }
    let noted = fs::read_to_string(root.join("out/killed/run.json")).unwrap();
    assert!(noted.contains("lower `learning_rate`"), "{noted}");
}
