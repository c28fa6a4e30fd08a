//! Kill a run anywhere, or let its disk run full: what can be seen is complete, what finished is kept.
#![cfg(unix)]

mod toy;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use convoy::runner::{Ended, Failure, Options, Session, Silent};
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
    store.list().into_iter().map(|listed| listed.entry.label).collect()
}

#[test]
fn killed_anywhere_nothing_is_lost_and_nothing_half_is_seen() {
    let project = Project::new();
    // Milliseconds until the kill: from before the store exists to far into the run.
    let pauses = [1, 3, 7, 12, 20, 30, 45, 60, 25, 15, 50, 35];
    let mut kept: Vec<String> = Vec::new();
    let mut killed = 0;
    for pause in pauses {
        let mut child = start(&project.root, MANIFEST, "");
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
        let now = finished(&project.root);
        assert!(kept.iter().all(|task| now.contains(task)), "lost: {kept:?} -> {now:?}");
        kept = now;
    }
    assert!(killed > 3, "only {killed} of the runs were killed");
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
        assert_eq!(killed.entry, calm.entry);
    }
}

#[test]
fn a_full_disk_fails_the_task_with_a_reason_and_keeps_the_rest() {
    let project = Project::new();
    let large = MANIFEST.replace("[stages.join]", "[stages.join]\nsize = 8388608");
    // Files of at most 2048 blocks, of 512 or 1024 bytes.
    let mut child = start(&project.root, &large, "trap '' XFSZ; ulimit -f 2048;");
    assert_eq!(result(&project.root, &mut child), "join: cannot write the artifact: File too large (os error 27)");
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
