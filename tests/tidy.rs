//! The house rules that the compiler does not check: who may import whom, what a file says first, how long it may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom. A room may always import itself; `cli` is the top.
const IMPORTS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    (
        "cli",
        &[
            "artifact", "config", "data", "engine", "escape", "files", "manifest", "nn", "report", "runner", "stages",
            "store", "tensor",
        ],
    ),
    ("report", &["files", "stages", "artifact", "config", "data", "elementary", "escape", "memory"]),
    ("runner", &["files", "manifest", "stages", "store", "artifact", "config", "memory"]),
    ("manifest", &["files", "stages", "config", "escape", "rng"]),
    ("store", &["files", "artifact"]),
    ("stages", &["files", "artifact", "data", "nn", "engine", "tensor", "rng", "config", "elementary", "memory"]),
    ("artifact", &["files", "data", "nn", "tensor", "config"]),
    ("data", &["files", "engine", "tensor", "rng", "config", "elementary", "memory"]),
    ("nn", &["engine", "tensor", "rng", "config", "elementary"]),
    ("engine", &["elementary"]),
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
        assert!(map.contains(&format!("mod {room};")), "lib.rs does not have room `{room}`");
    }
}

#[test]
fn permissions_of_the_import_table_are_used() {
    let mut used: BTreeSet<(String, String)> = BTreeSet::new();
    for path in program_files() {
        let text = fs::read_to_string(&path).expect("UTF-8");
        let rooms = code_lines(&text).into_iter().flat_map(|(_, line)| named_rooms(line));
        used.extend(rooms.map(|named| (room(&path), named)));
    }
    let unused: Vec<String> = IMPORTS
        .iter()
        .flat_map(|(own, allowed)| allowed.iter().map(move |named| (own.to_string(), named.to_string())))
        .filter(|permission| !used.contains(permission))
        .map(|(own, named)| format!("`{own}` may import `{named}` and does not: take it out of the table"))
        .collect();
    assert!(unused.is_empty(), "{}", unused.join("\n"));
}

/// No file of a room needs, through others, itself. A re-export counts as an import from where the name is defined.
/// What the face of a folder (`mod.rs`) defines is there for the files below it: a contract above, the list of who
/// keeps it below.
#[test]
fn no_circle_runs_through_the_files_of_a_room() {
    let circles: Vec<String> = Modules::read().circles().into_iter().map(|circle| circle.join(", ")).collect();
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn a_circle_is_found_through_re_exports_and_a_contract_in_the_face_is_none() {
    let of = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(path, text)| (path.to_string(), text.to_string()));
        Modules::of(files).circles().into_iter().map(|circle| circle.join(" ")).collect::<Vec<_>>()
    };
    // `a` takes from the face what `b` defines, and `b` needs `a`.
    let face = "mod a;\nmod b;\npub use b::{B, Other as Renamed};\n";
    let renamed = [("x/mod.rs", face), ("x/a.rs", "use super::Renamed;\n"), ("x/b.rs", "use crate::x::a;\n")];
    assert_eq!(of(&renamed), ["x/a.rs x/b.rs"]);
    let inline = [
        ("x/mod.rs", face),
        ("x/a.rs", "fn f() { super::b::g() }\n"),
        ("x/b.rs", "mod c {\n    use super::super::a::A;\n}\n"),
    ];
    assert_eq!(of(&inline), ["x/a.rs x/b.rs"]);
    let registry = [("x/mod.rs", "mod a;\npub trait Kind {}\n"), ("x/a.rs", "use super::{\n    Kind,\n};\n")];
    assert!(of(&registry).is_empty());
    // One that needs the folder needs all that is in it.
    let folder = [
        ("x/mod.rs", "mod y;\nmod z;\n"),
        ("x/y/mod.rs", "mod w;\n"),
        ("x/y/w.rs", "use crate::x::z::Z;\n"),
        ("x/z.rs", "use super::y;\n"),
    ];
    assert_eq!(of(&folder), ["x/y/mod.rs x/y/w.rs x/z.rs"]);
}

/// The files of the program as modules, with what each takes from the others of its room.
struct Modules {
    /// By path within the crate (`engine::conv`): the file.
    files: BTreeMap<Vec<String>, String>,
    names: BTreeMap<Vec<String>, Vec<Name>>,
}

/// A path that a module names, from the crate's root.
struct Name {
    path: Vec<String>,
    /// What it is called there.
    called: String,
    /// Whether others may take it from there.
    is_handed_on: bool,
}

impl Modules {
    fn read() -> Modules {
        let src = root().join("src");
        Modules::of(program_files().iter().map(|path| {
            let text = fs::read_to_string(path).expect("UTF-8");
            let code: Vec<&str> = code_lines(&text).into_iter().map(|(_, line)| line).collect();
            (path.strip_prefix(&src).expect("a file of src").display().to_string(), code.join("\n"))
        }))
    }

    fn of(files: impl IntoIterator<Item = (String, String)>) -> Modules {
        let (mut by_path, mut names) = (BTreeMap::new(), BTreeMap::new());
        for (file, code) in files {
            let stem = file.trim_end_matches(".rs").trim_end_matches("/mod");
            let module: Vec<String> = stem.split('/').map(str::to_owned).collect();
            names.insert(module.clone(), names_of(&module, &code));
            by_path.insert(module, file);
        }
        Modules { files: by_path, names }
    }

    /// The module that defines what a path names.
    fn defines(&self, path: &[String]) -> Option<Vec<String>> {
        let mut path = path.to_vec();
        for _ in 0..8 {
            let len = (1..=path.len()).rev().find(|&len| self.files.contains_key(&path[..len]))?;
            let Some(name) = path.get(len) else { return Some(path) };
            match self.names[&path[..len]].iter().find(|other| other.is_handed_on && other.called == *name) {
                Some(from) => path = from.path.clone(),
                None => return Some(path[..len].to_vec()),
            }
        }
        None
    }

    fn circles(&self) -> BTreeSet<Vec<String>> {
        let needs: BTreeMap<&Vec<String>, BTreeSet<Vec<String>>> = self
            .files
            .keys()
            .map(|module| {
                let all = self.names[module].iter().filter_map(|name| self.defines(&name.path));
                (module, all.filter(|other| other[0] == module[0] && !module.starts_with(other)).collect())
            })
            .collect();
        let reached = |from: &Vec<String>| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<&Vec<String>> = needs[from].iter().collect();
            while let Some(module) = next.pop() {
                if seen.insert(module.clone()) {
                    next.extend(&needs[module]);
                }
            }
            seen
        };
        let all: BTreeMap<&Vec<String>, BTreeSet<Vec<String>>> =
            needs.keys().map(|module| (*module, reached(module))).collect();
        let circles = all.iter().filter(|(module, reached)| reached.contains(**module)).map(|(module, reached)| {
            let together = reached.iter().filter(|other| all[*other].contains(*module));
            together.map(|other| self.files[other].clone()).collect()
        });
        circles.collect()
    }
}

/// All paths that a module's code names.
fn names_of(module: &[String], code: &str) -> Vec<Name> {
    let mut names = Vec::new();
    // Modules written inside the file: how far each is indented.
    let mut inner: Vec<usize> = Vec::new();
    let mut statement: Option<String> = None;
    for line in code.lines() {
        let (indent, words) = (line.len() - line.trim_start().len(), line.trim());
        if words == "}" && inner.last() == Some(&indent) {
            inner.pop();
        }
        let at: Vec<String> = module.iter().cloned().chain(inner.iter().map(|_| String::new())).collect();
        let mut name = |path: &[String], called: String, is_handed_on| {
            names.push(Name { path: absolute(&at, path), called, is_handed_on });
        };
        let is_use = words.starts_with("use ") || words.starts_with("pub") && words.contains(" use ");
        if is_use || statement.is_some() {
            let text = statement.get_or_insert_default();
            text.push_str(words);
            if words.ends_with(';') {
                let text = statement.take().unwrap_or_default();
                let tree = text.split_once("use ").map_or("", |(_, tree)| tree).trim_end_matches(';');
                leaves(tree).into_iter().for_each(|(path, called)| name(&path, called, text.starts_with("pub")));
            }
            continue;
        }
        if let Some((_, child)) = words.strip_suffix(';').and_then(|words| words.rsplit_once("mod ")) {
            name(&[child.to_owned()], child.to_owned(), false);
        }
        for (i, _) in line.match_indices("crate::").chain(line.match_indices("super::")) {
            let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            if !line[..i].ends_with(is_part) {
                let path = line[i..].split(|c| !is_part(c)).next().unwrap_or("");
                let path: Vec<String> = path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
                name(&path, String::new(), false);
            }
        }
        if words.contains("mod ") && words.ends_with(" {") && !words.contains('(') {
            inner.push(indent);
        }
    }
    names
}

/// A path as seen from the crate's root.
fn absolute(at: &[String], path: &[String]) -> Vec<String> {
    let n_up = path.iter().take_while(|part| *part == "super").count();
    match path.first().map(String::as_str) {
        Some("crate") => path[1..].to_vec(),
        Some("super") => at[..at.len().saturating_sub(n_up)].iter().chain(&path[n_up..]).cloned().collect(),
        Some("self") => at.iter().chain(&path[1..]).cloned().collect(),
        _ => at.iter().chain(path).cloned().collect(),
    }
}

/// The paths of a `use` and the names that they get: `a::{b, c::{self, d as e}}`.
fn leaves(tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim();
    let Some((start, rest)) = tree.split_once('{') else {
        let (path, renamed) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path: Vec<String> = path
            .split("::")
            .map(|part| part.trim().to_owned())
            .filter(|part| !matches!(part.as_str(), "" | "*"))
            .collect();
        let name =
            if renamed.is_empty() { path.last().cloned().unwrap_or_default() } else { renamed.trim().to_owned() };
        return if path.is_empty() { Vec::new() } else { vec![(path, name)] };
    };
    let inside = &rest[..rest.rfind('}').unwrap_or(rest.len())];
    let start: Vec<String> =
        start.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (i, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inside[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[from..]);
    let below = parts.into_iter().flat_map(leaves);
    below
        .map(|(path, name)| match path.first().map(String::as_str) {
            Some("self") => (start.clone(), start.last().cloned().unwrap_or_default()),
            _ => (start.iter().cloned().chain(path).collect(), name),
        })
        .collect()
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

/// Rows begin as training, validation or test rows where a partition is made: where samples are divided, and where that
/// is read back. From there on types keep them apart.
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
