//! What the store does with what others put in its way, seen from the command line.
#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

const MANIFEST: &str = r#"
schema = 1
name = "toy"

[stages.ingest]
source = "builtin:digits"
limit = 40

[stages.split]
test = 0.2
folds = 2
"#;

struct Project {
    temp: tempfile::TempDir,
}

impl Project {
    fn new() -> Project {
        let project = Project { temp: tempfile::tempdir().unwrap() };
        project.add("p", MANIFEST);
        project
    }

    fn add(&self, name: &str, manifest: &str) {
        fs::create_dir_all(self.dir(name)).unwrap();
        fs::write(self.dir(name).join("toy.toml"), manifest).unwrap();
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn convoy(&self, name: &str, arguments: &[&str]) -> (i32, String) {
        let output: Output = common::program(self.dir(name), arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        (output.status.code().unwrap_or(-1), text)
    }

    fn run(&self, name: &str, more: &[&str]) -> (i32, String) {
        self.convoy(name, &[&["run", "toy.toml", "--threads", "1"], more].concat())
    }
}

fn only_blob(dir: &Path, size: impl Fn(u64) -> bool) -> PathBuf {
    let blobs = fs::read_dir(dir.join(".convoy/cas")).unwrap().map(|entry| entry.unwrap().path());
    blobs.filter(|blob| size(fs::metadata(blob).unwrap().len())).max().unwrap()
}

#[test]
fn a_link_that_a_clone_carries_empties_no_folder() {
    for folder in ["tmp", "cas", "quarantine", "locks"] {
        let project = Project::new();
        let photos = project.dir("photos");
        fs::create_dir_all(photos.join("task-0123456789abcdef")).unwrap();
        fs::write(photos.join("task-0123456789abcdef/0"), "a photo").unwrap();
        fs::write(photos.join("1.jpg"), "a photo").unwrap();
        assert_eq!(project.run("p", &[]).0, 0);
        let path = project.dir("p/.convoy").join(folder);
        fs::remove_dir_all(&path).unwrap();
        symlink("../../photos", &path).unwrap();
        for arguments in [&["run", "toy.toml"][..], &["cache", "gc"], &["verify"], &["status", "toy.toml"]] {
            let (exit, text) = project.convoy("p", arguments);
            assert_eq!(exit, 1, "{arguments:?}: {text}");
            assert!(text.contains(&format!("{folder}` is a link")) && text.contains("--cache-dir"), "{text}");
        }
        assert!(photos.join("1.jpg").exists() && photos.join("task-0123456789abcdef/0").exists());
        assert_eq!(fs::read_dir(&photos).unwrap().count(), 2);
    }
    // Nor is a folder of other things taken for a store by its name.
    let project = Project::new();
    fs::create_dir_all(project.dir("p/.convoy/tmp")).unwrap();
    fs::write(project.dir("p/.convoy/tmp/1.jpg"), "a photo").unwrap();
    let (exit, text) = project.run("p", &[]);
    assert_eq!(exit, 1, "{text}");
    assert!(text.contains("is not a store"), "{text}");
    assert!(project.dir("p/.convoy/tmp/1.jpg").exists());
}

#[test]
fn verify_moves_what_is_rotten_and_the_next_run_computes_it() {
    let project = Project::new();
    assert_eq!(project.run("p", &[]).0, 0);
    let lock = fs::read(project.dir("p/toy.lock")).unwrap();
    let blob = only_blob(&project.dir("p"), |size| size > 1000);
    let stamp = fs::metadata(&blob).unwrap().modified().unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, bytes).unwrap();
    fs::File::options().write(true).open(&blob).unwrap().set_modified(stamp).unwrap();
    let (exit, text) = project.convoy("p", &["verify", "--store"]);
    assert_eq!(exit, 5, "{text}");
    assert!(text.contains("moved to quarantine"), "{text}");
    assert!(!blob.exists());
    assert_eq!(fs::read_dir(project.dir("p/.convoy/quarantine")).unwrap().count(), 1);
    let (exit, text) = project.run("p", &[]);
    assert_eq!(exit, 0, "{text}");
    assert!(blob.exists());
    assert_eq!(fs::read(project.dir("p/toy.lock")).unwrap(), lock);
    assert_eq!(project.convoy("p", &["verify"]).0, 0);
}

#[test]
fn gc_keeps_what_the_lock_of_another_clone_names() {
    let project = Project::new();
    project.add("q", &MANIFEST.replace("limit = 40", "limit = 50"));
    let shared = project.dir("shared");
    let at = ["--cache-dir", shared.to_str().unwrap()];
    assert_eq!(project.run("p", &at).0, 0);
    assert_eq!(project.run("q", &at).0, 0);
    // Neither has run lately, and the notes are lost: the lock files are what counts.
    for note in fs::read_dir(shared.join("runs")).unwrap() {
        fs::remove_file(note.unwrap().path()).unwrap();
    }
    let (exit, text) = project.convoy("p", &[&["cache", "gc"][..], &at].concat());
    assert_eq!(exit, 0, "{text}");
    assert!(text.contains("removed 0 tasks"), "{text}");
    for name in ["p", "q"] {
        let (exit, text) = project.run(name, &at);
        assert!(exit == 0 && text.contains("nothing to do"), "{name}: {text}");
        fs::remove_file(shared.join("runs").read_dir().unwrap().next().unwrap().unwrap().path()).unwrap();
    }
    // A lock that cannot be read is no licence to delete.
    let lock = project.dir("q/toy.lock");
    let text = fs::read_to_string(&lock).unwrap();
    fs::write(&lock, text.replace("version = ", "version = nonsense ")).unwrap();
    let (exit, said) = project.convoy("p", &[&["cache", "gc"][..], &at].concat());
    assert!(exit == 1 && said.contains("q/toy.lock"), "{exit} {said}");
    fs::remove_file(&lock).unwrap();
    // What nobody names stays as long as there is room.
    let roomy = project.convoy("p", &[&["cache", "gc", "--dry-run"][..], &at].concat());
    assert!(roomy.0 == 0 && roomy.1.contains("would remove 0 tasks"), "{roomy:?}");
    let dry = project.convoy("p", &[&["cache", "gc", "--dry-run", "--max-size", "0"][..], &at].concat());
    assert!(dry.0 == 0 && dry.1.contains("would remove 2 tasks"), "{dry:?}");
    let kept = project.convoy("p", &[&["cache", "gc", "--max-size", "0", "--keep", "toy ingest"][..], &at].concat());
    assert!(kept.0 == 0 && kept.1.contains("removed 1 tasks"), "{kept:?}");
    assert_eq!(project.convoy("p", &[&["cache", "gc", "--keep", "other"][..], &at].concat()).0, 2);
}

#[test]
fn leftovers_of_a_kill_beside_reports_and_locks_are_swept() {
    let project = Project::new();
    assert_eq!(project.run("p", &[]).0, 0);
    let left = [project.dir("p/.convoy-0123456789abcdef"), project.dir("p/out/toy/.convoy-fedcba9876543210")];
    left.iter().for_each(|path| fs::write(path, "half").unwrap());
    fs::write(project.dir("p/.convoy-mine"), "").unwrap();
    assert_eq!(project.run("p", &[]).0, 0);
    assert!(left.iter().all(|path| !path.exists()));
    assert!(project.dir("p/.convoy-mine").exists());
}

#[test]
fn what_cannot_be_read_is_told_and_computed_by_nobody() {
    let project = Project::new();
    assert_eq!(project.run("p", &[]).0, 0);
    let ac = project.dir("p/.convoy/ac");
    for record in fs::read_dir(&ac).unwrap() {
        let path = record.unwrap().path();
        let newer = fs::read_to_string(&path).unwrap().replace("convoy entry 3", "convoy entry 4");
        fs::write(&path, newer).unwrap();
    }
    for arguments in [&["run", "toy.toml"][..], &["status", "toy.toml"], &["cache", "gc"], &["verify"]] {
        let (exit, text) = project.convoy("p", arguments);
        assert_eq!(exit, 1, "{arguments:?}: {text}");
        assert!(text.contains(".convoy/ac/") && text.contains("newer convoy"), "{arguments:?}: {text}");
    }
}

#[test]
fn reports_that_are_known_to_be_there_are_healed_all_the_same() {
    let project = Project::new();
    project.run("p", &[]);
    let reports = ["data.csv", "splits.csv"].map(|name| project.dir("p/out/toy").join(name));
    let content = reports.clone().map(|report| fs::read(report).unwrap());
    let known = || {
        // The first run with nothing to do compares, once stamps are settled the next ones know.
        std::thread::sleep(std::time::Duration::from_millis(150));
        for _ in 0..2 {
            let (code, text) = project.run("p", &[]);
            assert_eq!((code, text.contains("nothing to do")), (0, true), "{text}");
        }
    };
    let harms: [fn(&Path); 4] = [
        |report| fs::remove_file(report).unwrap(),
        |report| fs::write(report, "").unwrap(),
        |report| {
            let (mut bytes, modified) = (fs::read(report).unwrap(), fs::metadata(report).unwrap().modified().unwrap());
            bytes[20] ^= 1;
            fs::write(report, bytes).unwrap();
            fs::File::options().write(true).open(report).unwrap().set_modified(modified).unwrap();
        },
        |report| fs::remove_dir_all(report.parent().unwrap()).unwrap(),
    ];
    for (i, harm) in harms.into_iter().enumerate() {
        known();
        harm(&reports[1]);
        let (code, text) = project.run("p", &[]);
        assert_eq!((code, text.contains("nothing to do")), (0, true), "harm {i}: {text}");
        assert_eq!(reports.clone().map(|report| fs::read(report).unwrap()), content, "harm {i}");
    }
    // Another manifest's reports in the same place, then the first one's again.
    known();
    project.add("p", &MANIFEST.replace("folds = 2", "folds = 3"));
    assert_eq!(project.run("p", &[]).0, 0);
    assert_ne!(fs::read(&reports[1]).unwrap(), content[1]);
    project.add("p", MANIFEST);
    assert_eq!(project.run("p", &[]).0, 0);
    assert_eq!(reports.map(|report| fs::read(report).unwrap()), content);
}

/// However little memory there is, a run ends with an exit code of its own, and the next one has the results.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_runs_out_is_a_failed_run() {
    let project = Project::new();
    let mut codes = Vec::new();
    for kilobytes in (20_000..400_000).step_by(20_000) {
        let run = format!(
            "ulimit -v {kilobytes}; \"$0\" --version >/dev/null || exit 127; exec \"$0\" run toy.toml --threads 2"
        );
        let output = std::process::Command::new("sh")
            .args(["-c", &run, env!("CARGO_BIN_EXE_convoy")])
            .current_dir(project.dir("p"))
            .output()
            .unwrap();
        codes.push(output.status.code());
        let _ = fs::remove_dir_all(project.dir("p/.convoy"));
    }
    // Too little to begin with is 127.
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 1 | 127))), "{codes:?}");
    assert!(codes.contains(&Some(1)) && codes.contains(&Some(0)), "{codes:?}");
    assert_eq!(project.run("p", &[]).0, 0);
}
