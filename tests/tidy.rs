//! The house rules that the compiler does not check: who may import whom, what a file says first, how long it may be.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom. A room may always import itself; `cli` is the top.
const IMPORTS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    (
        "cli",
        &[
            "artifact",
            "config",
            "data",
            "elementary",
            "engine",
            "escape",
            "files",
            "manifest",
            "memory",
            "nn",
            "report",
            "rng",
            "runner",
            "stages",
            "store",
            "tensor",
        ],
    ),
    ("report", &["files", "runner", "stages", "artifact", "data", "nn", "tensor", "config", "elementary", "memory"]),
    ("runner", &["files", "manifest", "stages", "store", "artifact", "engine", "rng", "config"]),
    ("manifest", &["files", "stages", "artifact", "data", "nn", "config", "escape", "tensor"]),
    ("store", &["files", "artifact"]),
    ("stages", &["files", "artifact", "data", "nn", "engine", "tensor", "rng", "config", "elementary", "memory"]),
    ("artifact", &["data", "nn", "tensor", "config"]),
    ("data", &["files", "engine", "tensor", "rng", "config", "elementary", "memory"]),
    ("nn", &["engine", "tensor", "rng", "config", "elementary"]),
    ("engine", &["tensor", "elementary"]),
    ("rng", &["elementary"]),
    ("config", &[]),
    ("files", &[]),
    ("elementary", &[]),
    ("escape", &[]),
    ("memory", &[]),
    ("tensor", &[]),
];

const MAX_LINES: usize = 1_000;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = walkdir::WalkDir::new(dir)
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.expect("the source tree is readable").into_path())
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .collect();
    files.sort();
    files
}

fn rust_files() -> Vec<PathBuf> {
    ["src", "tests", "benches"]
        .iter()
        .map(|dir| root().join(dir))
        .filter(|dir| dir.is_dir())
        .flat_map(|dir| files_below(&dir, "rs"))
        .collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The room a file of `src/` belongs to: its first folder, or its own name.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).expect("a file of src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Whether the file is a module that only tests compile: its parent declares it under `#[cfg(test)]`.
fn is_test_module(path: &Path) -> bool {
    let (Some(dir), Some(name)) = (path.parent(), path.file_stem()) else { return false };
    let declaration = format!("mod {};", name.to_string_lossy());
    [dir.join("mod.rs"), dir.join("lib.rs"), dir.with_extension("rs")].iter().any(|parent| {
        let text = fs::read_to_string(parent).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.windows(2).any(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with(&declaration))
    })
}

/// The source files that are compiled into the program.
fn program_files() -> Vec<PathBuf> {
    files_below(&root().join("src"), "rs").into_iter().filter(|path| !is_test_module(path)).collect()
}

/// The code of a file: comments and everything from its `#[cfg(test)] mod` on left out.
fn code_lines(text: &str) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let end = lines
        .windows(2)
        .position(|pair| {
            pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().contains("mod ") && pair[1].ends_with('{')
        })
        .unwrap_or(lines.len());
    lines[..end]
        .iter()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(i, line)| (i + 1, *line))
        .collect()
}

/// Every room named after `crate::` (or `convoy::`) in a line.
fn named_rooms(line: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for prefix in ["crate::", "convoy::"] {
        let mut rest = line;
        while let Some(at) = rest.find(prefix) {
            let before = rest[..at].chars().next_back();
            rest = &rest[at + prefix.len()..];
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            if let Some(inner) = rest.strip_prefix('{') {
                let inner = inner.split('}').next().unwrap_or(inner);
                rooms.extend(inner.split(',').map(|part| part.trim().split("::").next().unwrap_or("").to_owned()));
            } else {
                rooms.push(rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or("").to_owned());
            }
        }
    }
    rooms
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let table: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in program_files() {
        let own = room(&path);
        let Some(allowed) = table.get(own.as_str()) else {
            wrong.push(format!("{}: room `{own}` is not in the import table", shown(&path)));
            continue;
        };
        let text = fs::read_to_string(&path).expect("a source file is UTF-8");
        for (number, line) in code_lines(&text) {
            for named in named_rooms(line) {
                if table.contains_key(named.as_str()) && named != own && !allowed.contains(&named.as_str()) {
                    wrong.push(format!("{}:{number}: room `{own}` may not import `{named}`", shown(&path)));
                }
                if line.trim_start().starts_with("pub use") && named != own && own != "lib" {
                    wrong.push(format!("{}:{number}: re-export of room `{named}`", shown(&path)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_import_table_has_no_cycle_and_misses_no_room() {
    let table: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    fn visit<'a>(room: &'a str, table: &BTreeMap<&'a str, &[&'a str]>, path: &mut Vec<&'a str>) {
        assert!(!path.contains(&room), "cycle: {path:?} -> {room}");
        path.push(room);
        for next in table[room] {
            visit(next, table, path);
        }
        path.pop();
    }
    for room in table.keys() {
        visit(room, &table, &mut Vec::new());
    }
    let map = fs::read_to_string(root().join("src/lib.rs")).expect("lib.rs");
    for room in table.keys().filter(|room| !matches!(**room, "main" | "lib")) {
        assert!(map.contains(&format!("pub mod {room};")), "lib.rs does not have room `{room}`");
    }
}

#[test]
fn every_file_says_in_its_first_line_what_lives_there() {
    let silent: Vec<String> = rust_files()
        .iter()
        .filter(|path| !fs::read_to_string(path).expect("UTF-8").starts_with("//! "))
        .map(|path| shown(path))
        .collect();
    assert!(silent.is_empty(), "no `//!` line: {silent:?}");
}

#[test]
fn no_file_is_longer_than_a_thousand_lines() {
    let long: Vec<String> = rust_files()
        .iter()
        .map(|path| (fs::read_to_string(path).expect("UTF-8").lines().count(), path))
        .filter(|(n_lines, _)| *n_lines > MAX_LINES)
        .map(|(n_lines, path)| format!("{}: {n_lines}", shown(path)))
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn nothing_prints_but_cli_and_nothing_is_left_undone() {
    let mut wrong = Vec::new();
    for path in program_files() {
        let may_print = matches!(room(&path).as_str(), "cli" | "main");
        let text = fs::read_to_string(&path).expect("UTF-8");
        for (number, line) in code_lines(&text) {
            let printing = ["println!", "print!", "dbg!"].iter().any(|word| line.contains(word));
            if printing && !may_print {
                wrong.push(format!("{}:{number}: prints", shown(&path)));
            }
            if ["todo!(", "unimplemented!("].iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{number}: undone", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rows begin as training, validation or test rows where a partition is made: where samples are divided, and where that is
/// read back. From there on types keep them apart.
#[test]
fn only_a_split_and_its_artifact_say_which_rows_are_which() {
    let allowed = ["src/data/fit_set.rs", "src/data/split.rs", "src/artifact/splits.rs"];
    let mut made = Vec::new();
    for path in program_files() {
        let text = fs::read_to_string(&path).expect("UTF-8");
        let lines = code_lines(&text);
        let makes = |line: &str| line.contains("Partition::new(") || line.contains("Partition {");
        made.extend(lines.iter().filter(|(_, line)| makes(line)).map(|(n, _)| (shown(&path), *n)));
    }
    let wrong: Vec<_> = made.iter().filter(|(path, _)| !allowed.contains(&path.as_str())).collect();
    assert!(wrong.is_empty() && !made.is_empty(), "partitions are made at {wrong:?}");
}

#[test]
fn unsafe_lives_in_the_engine_and_at_the_one_map_with_its_guard() {
    let mut wrong = Vec::new();
    for path in program_files() {
        let text = fs::read_to_string(&path).expect("UTF-8");
        if room(&path) == "engine" {
            continue;
        }
        let n = code_lines(&text).iter().filter(|(_, line)| line.contains("unsafe ")).count();
        let allowed = if path.ends_with("store/mapped.rs") { 4 } else { 0 };
        if n > allowed {
            wrong.push(format!("{}: {n} lines with `unsafe`", shown(&path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let mut wrong = Vec::new();
    for ending in ["rs", "toml", "md", "csv", "json", "py", "sh"] {
        for path in files_below(&root(), ending) {
            let inside = shown(&path);
            if inside.starts_with("target") || inside.starts_with('.') || inside.starts_with("out") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            for (i, line) in text.lines().enumerate() {
                if [concat!("/", "work/"), concat!("/", "root/"), concat!("/", "home/")]
                    .iter()
                    .any(|p| line.contains(p))
                {
                    wrong.push(format!("{inside}:{}", i + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
