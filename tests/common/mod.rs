//! What several of the tests use.
#![allow(dead_code, reason = "each test file uses its part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The manifests that lie in `folder` itself, sorted by path.
pub fn manifests_in(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("its entries can be read").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    paths.sort();
    paths
}

/// Two classes of twelve grey images of 6x6 pixels in `images`, told apart by their brightness.
pub fn draw_images(root: &Path) {
    for (class, name) in ["ant", "bee"].iter().enumerate() {
        let folder = root.join("images").join(name);
        fs::create_dir_all(&folder).unwrap();
        for i in 0..12u32 {
            let pixel = |x: u32, y: u32| image::Luma([((x * 31 + y * 17 + i * 29) % 97) as u8 + 120 * class as u8]);
            image::GrayImage::from_fn(6, 6, pixel).save(folder.join(format!("{i:02}.png"))).unwrap();
        }
    }
}

/// What the program said, with the lines whole that it broke to the width of a terminal.
pub fn unbroken(told: &[u8]) -> String {
    String::from_utf8_lossy(told).replace("\n    ", " ")
}

/// The program in `folder`, with no input and in an environment that says nothing.
pub fn program(folder: impl AsRef<Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let is_heard = ["CONVOY_", "CLICOLOR", "GITHUB_", "CI_"].iter().any(|start| name.starts_with(start));
        if is_heard || ["NO_COLOR", "CI", "COLUMNS", "TERM"].contains(&&name[..]) {
            command.env_remove(name);
        }
    }
    command
}

/// The exit code of the program in `folder`, and what it said on stdout and stderr.
pub fn ran(folder: impl AsRef<Path>, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = program(folder, arguments).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

/// What Git says in `folder`, whatever this machine's settings of it are.
pub fn git(folder: impl AsRef<Path>, arguments: &[&str]) -> Output {
    Command::new("git")
        .current_dir(folder)
        .args(["-c", "user.name=tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false"])
        .args(["-c", "init.defaultBranch=main"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::null())
        .output()
        .expect("git starts")
}
