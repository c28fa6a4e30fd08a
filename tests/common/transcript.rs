//! Plays commands in a small project, writes down what was said, and compares it with the transcript in `tests/golden/`.
//!
//! Times, the folder of the project, the version, what `doctor` finds of a machine and the memory of a training are
//! replaced by placeholders, nothing else.
#![allow(dead_code, reason = "each test file uses its part of it")]

#[path = "redacted.rs"]
pub mod redacted;

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use unicode_width::UnicodeWidthStr;

use crate::common;

/// Where transcripts are.
pub const FOLDER: &str = "tests/golden";

/// A command with progress that took longer than this may have said more than in a calm hour.
pub const CALM: Duration = Duration::from_millis(1_800);

/// Columns that a line may have.
const WIDTH: usize = 100;

/// Two folds of a net of a few filters on some of the built-in digits: a run takes a tenth of a second.
pub const SMALL: &str = r#"schema = 1
name   = "small"
seed   = 1

[stages.ingest]
source = "builtin:digits"
limit  = 100

[stages.split]
test  = 0.2
folds = 4

[stages.preprocess]
steps = ["center", "scale"]

[stages.train]
architecture  = "INPUT - CONV(4) - RELU - POOL - FC"
epochs        = 4
batch_size    = 16
learning_rate = 0.005

[stages.ensemble]

[stages.evaluate]
"#;

/// A project and what was said in it.
pub struct Project {
    pub temp: tempfile::TempDir,
    pub transcript: String,
    /// Whether a command was so slow that progress may have had more to tell.
    pub was_slow: bool,
}

/// What was printed.
pub fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("the program prints text")
}

impl Project {
    pub fn new(manifest: &str) -> Project {
        // Lines are broken by the length of the paths in them: this one has the same everywhere.
        let temp = tempfile::tempdir_in("/tmp").expect("a temporary folder");
        fs::create_dir(temp.path().join(".git")).expect("a project root");
        let project = Project { temp, transcript: String::new(), was_slow: false };
        if !manifest.is_empty() {
            project.write("small.toml", manifest);
        }
        project
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder can be made");
        fs::write(path, content).expect("a file can be written");
    }

    pub fn edit(&self, name: &str, old: &str, new: &str) {
        let before = fs::read_to_string(self.path(name)).expect("a text");
        assert!(before.contains(old), "`{old}` is in `{name}`");
        self.write(name, &before.replace(old, new));
    }

    /// The program, in an environment that says nothing.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = common::program(self.temp.path(), arguments);
        command.env("TERM", "xterm").env("COLUMNS", "100");
        command
    }

    /// Runs a command and writes down what came of it.
    pub fn convoy(&mut self, arguments: &[&str]) -> (String, String) {
        self.convoy_in(&[], arguments)
    }

    /// Runs these commands, their words apart by `|`.
    pub fn each(&mut self, lines: &str) {
        lines.split(',').for_each(|line| drop(self.convoy(&line.trim().split('|').collect::<Vec<_>>())));
    }

    pub fn convoy_in(&mut self, environment: &[(&str, &str)], arguments: &[&str]) -> (String, String) {
        let started = Instant::now();
        let mut command = self.command(arguments);
        let output = command.envs(environment.iter().copied()).output().expect("the program starts");
        self.was_slow |= started.elapsed() > CALM;
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        self.note(environment, arguments, "", &stdout, &stderr, output.status);
        (stdout, stderr)
    }

    pub fn note(
        &mut self,
        environment: &[(&str, &str)],
        arguments: &[&str],
        behind: &str,
        stdout: &str,
        stderr: &str,
        status: ExitStatus,
    ) {
        let mut line = String::from("$");
        for (name, value) in environment {
            let _ = write!(line, " {name}={value}");
        }
        line.push_str(" convoy");
        for argument in arguments {
            let is_plain = !argument.contains([' ', '"', '\'', '{', '[']) && !argument.is_empty();
            let _ = if is_plain { write!(line, " {argument}") } else { write!(line, " '{argument}'") };
        }
        check_widths(arguments, [stdout, stderr]);
        let dir = self.temp.path().to_string_lossy().into_owned();
        let shown = |text: &str| redacted::redacted(&text.replace(&dir, "[DIR]"));
        let _ = writeln!(self.transcript, "{line}{behind}");
        for (name, text) in [("stdout", stdout), ("stderr", stderr)] {
            if !text.is_empty() {
                let _ = writeln!(self.transcript, "-- {name}\n{}", shown(text).trim_end_matches('\n'));
            }
        }
        let code = status.code().map_or_else(|| format!("{status}"), |code| code.to_string());
        let _ = writeln!(self.transcript, "-- exit {code}\n");
    }
}

/// No line of text is wider than a terminal, but where a word is, or a line of a manifest is shown.
fn check_widths(arguments: &[&str], told: [&str; 2]) {
    // Rows, scripts and Markdown are for programs.
    let is_data = arguments.iter().any(|word| ["predict", "completions", "--md"].contains(word));
    for text in told.into_iter().skip(usize::from(is_data)) {
        for line in text.lines().filter(|line| !line.starts_with('{')) {
            let rest = line.trim_start();
            let longest = rest.split(' ').map(UnicodeWidthStr::width).max().unwrap_or(0);
            let is_broken = line.width() <= WIDTH || longest + (line.len() - rest.len()) > WIDTH;
            assert!(is_broken, "{arguments:?}: {} columns: {line}", line.width());
        }
    }
}

/// Compares what a scenario said with its transcript; one that was slowed down by others is played once more.
#[track_caller]
pub fn check(name: &str, manifest: &str, play: impl Fn(&mut Project)) {
    let mut project = Project::new(manifest);
    play(&mut project);
    for _ in 0..4 {
        if !project.was_slow {
            break;
        }
        project = Project::new(manifest);
        play(&mut project);
    }
    assert!(project.transcript.lines().any(|line| line.starts_with("$ ")), "`{name}` says nothing");
    let path = Path::new(FOLDER).join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &project.transcript).expect("the transcript can be written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if let Some((i, (told, expected))) = (1..)
        .zip(project.transcript.lines().zip(expected.lines().chain(std::iter::repeat("(nothing)"))))
        .find(|(_, (told, expected))| told != expected)
    {
        panic!(
            "{}:{i}\n-- expected\n{expected}\n-- told\n{told}\n-- all of it\n{}",
            path.display(),
            project.transcript
        );
    }
    assert!(project.transcript == expected, "{}: more is expected than was told", path.display());
}

/// Runs a command with stderr and stdout on a pseudo-terminal; what was shown there.
pub fn on_a_terminal(mut command: Command) -> (String, ExitStatus) {
    let (mut master, mut slave) = (0, 0);
    let size = libc::winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointers are to locals, or null where that is allowed; both descriptors are owned below.
    let made = unsafe { libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null_mut(), &size) };
    assert_eq!(made, 0, "a pseudo-terminal");
    // SAFETY: openpty has just made them, and nothing else has them.
    let (master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    let mut child = command
        .stdout(Stdio::from(slave.try_clone().expect("a descriptor")))
        .stderr(Stdio::from(slave))
        .spawn()
        .expect("the program starts");
    // Its copies of the terminal would keep it open.
    drop(command);
    let reader = std::thread::spawn(move || {
        let (mut shown, mut master) = (Vec::new(), fs::File::from(master));
        let mut chunk = [0; 4096];
        // A terminal that nobody has open any more ends with an error.
        while let Ok(n @ 1..) = master.read(&mut chunk) {
            shown.extend_from_slice(&chunk[..n]);
        }
        shown
    });
    let status = child.wait().expect("it ends");
    (text(reader.join().expect("the reader ends")), status)
}
