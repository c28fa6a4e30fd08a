//! The book in `docs/`: its reference is what the program declares, its links lead somewhere, tables have the columns that it names.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use convoy::artifact::columns::{ASIDE, FILES, is_header};
use convoy::config::{Declaration, Form};
use convoy::data::metrics::METRICS;
use convoy::manifest::schema::{stage_keys, top_keys};
use convoy::nn::layer;
use convoy::stages::KINDS;

use common::{program, ran};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Below every page of the reference's title.
const WRITTEN: &str = "<!-- Written by `UPDATE_EXPECT=1 cargo test --test book` from what the program declares. -->\n";

/// A key in a list, with the keys below it.
fn item(text: &mut String, depth: usize, key: &Declaration) {
    let indent = "  ".repeat(depth);
    let _ = writeln!(text, "{indent}- `{}`: {}  \n{indent}  {}", key.key, key.meaning, facts(key));
    below(text, depth + 1, &key.form);
}

/// What a key may be, its default, an example.
fn facts(key: &Declaration) -> String {
    let mut facts = vec![noun(&key.form)];
    facts.extend(key.default.as_ref().map(|default| format!("default `{default}`")));
    facts.extend(key.is_required.then(|| "must be set".to_owned()));
    facts.push(format!("example `{} = {}`", key.key, key.example));
    facts.extend(key.is_short.then(|| "may stand alone for the table".to_owned()));
    facts.extend(key.is_place.then(|| "what is there counts, not where".to_owned()));
    format!("*{}*", facts.join("; "))
}

fn is_metrics(words: &[(String, &str)]) -> bool {
    words.iter().any(|(word, _)| word == METRICS[0].name)
}

fn noun(form: &Form) -> String {
    match form {
        Form::Words(words) if is_metrics(words) => {
            let others = words.iter().filter(|(word, _)| METRICS.iter().all(|metric| metric.name != word));
            let others: String = others.map(|(word, _)| format!(", or `\"{word}\"`")).collect();
            format!("the name of a [metric](metrics.md){others}")
        }
        Form::Words(words) => words.iter().map(|(word, _)| format!("`\"{word}\"`")).collect::<Vec<_>>().join(" or "),
        Form::Choice(choices) if is_layers(form) => format!("one of {} [layers](layers.md)", choices.len()),
        Form::Choice(choices) => {
            choices.iter().map(|choice| format!("`\"{}\"`", choice.word)).collect::<Vec<_>>().join(" or ")
        }
        Form::List(inner, _) if matches!(&**inner, Form::Words(words) if is_metrics(words)) => {
            "a list of names of [metrics](metrics.md)".to_owned()
        }
        Form::List(inner, n) if n.start() != n.end() => format!("a list of {}", noun(inner)),
        Form::Either(forms) => forms.iter().map(noun).collect::<Vec<_>>().join(", or "),
        Form::Filled(inner) => noun(inner),
        _ => form.noun(),
    }
}

fn is_layers(form: &Form) -> bool {
    matches!(form, Form::Choice(choices) if choices.iter().any(|choice| choice.word == layer::KINDS[0].word))
}

/// What stands below a key: the meanings of its words, the keys of its choices and tables.
fn below(text: &mut String, depth: usize, form: &Form) {
    let indent = "  ".repeat(depth);
    match form {
        Form::Words(words) if is_metrics(words) => {}
        Form::Words(words) => {
            words.iter().for_each(|(word, meaning)| _ = writeln!(text, "{indent}- `\"{word}\"`: {meaning}"));
        }
        Form::Choice(_) if is_layers(form) => {}
        Form::Choice(choices) => {
            for choice in choices {
                let _ = writeln!(text, "{indent}- `\"{}\"`: {}", choice.word, choice.meaning);
                choice.keys.iter().for_each(|key| item(text, depth + 1, key));
            }
        }
        Form::List(inner, _) | Form::Filled(inner) | Form::Map(inner) => below(text, depth, inner),
        Form::Table(keys) | Form::Open(keys, _) => {
            // A key of each metric's name says the same fifteen times.
            let is_metric = |key: &&Declaration| METRICS.iter().any(|metric| metric.name == key.key);
            let (metrics, others): (Vec<_>, Vec<_>) = keys.iter().partition(is_metric);
            if let Some(first) = metrics.first() {
                let _ = writeln!(text, "{indent}- the name of a [metric](metrics.md): {}  ", first.meaning);
                let _ = writeln!(text, "{indent}  {}", facts(first));
                below(text, depth + 1, &first.form);
            }
            others.into_iter().for_each(|key| item(text, depth, key));
        }
        Form::Either(forms) => forms.iter().for_each(|form| below(text, depth, form)),
        _ => {}
    }
}

/// A page of keys, each below a heading of its own.
fn keys_page(title: &str, intro: &str, keys: &[Declaration]) -> String {
    let mut text = format!("# {title}\n\n{WRITTEN}\n{intro}");
    for key in keys.iter().filter(|key| key.key != "kind") {
        let _ = write!(text, "\n## `{}`\n\n{}\n\n{}\n", key.key, key.meaning, facts(key));
        let mut list = String::new();
        below(&mut list, 0, &key.form);
        if !list.is_empty() {
            let _ = write!(text, "\n{list}");
        }
    }
    text
}

fn layers_page() -> String {
    let mut text = format!(
        "# Layers\n\n{WRITTEN}\nIn the shorthand of [`architecture`](train.md#architecture) and, by the lower-case word, in \
         [`layers`](train.md#layers).\nWithout arguments a layer has its defaults; \
         unnamed arguments stand in the order below, all others have their names: `CONV(32, 5, stride=2)`.\n"
    );
    let train = KINDS.iter().find(|kind| kind.name == "train").expect("it is there");
    let keys = stage_keys(train);
    let Form::List(choice, _) = unfilled(&keys.iter().find(|key| key.key == "layers").expect("it is there").form)
    else {
        panic!("layers are a list")
    };
    let Form::Choice(choices) = unfilled(choice) else { panic!("of choices") };
    for choice in choices {
        let kind = layer::KINDS.iter().find(|kind| kind.word == choice.word).expect("a kind of layer");
        let _ = write!(text, "\n## `{}`\n\n{}\n", kind.shorthand, choice.meaning);
        if !kind.positional.is_empty() {
            let _ = write!(text, "\nUnnamed: `{}({})`.\n", kind.shorthand, kind.positional.join(", "));
        }
        if !choice.keys.is_empty() {
            text.push('\n');
        }
        choice.keys.iter().for_each(|key| item(&mut text, 0, key));
    }
    text
}

fn unfilled(form: &Form) -> &Form {
    match form {
        Form::Filled(inner) => unfilled(inner),
        form => form,
    }
}

fn metrics_page() -> String {
    let mut text = format!(
        "# Metrics\n\n{WRITTEN}\nAs scikit-learn defines them. Those marked are reported where `metrics` is not set; besides them \
         precision, recall, F1 and support of every class are.\n\n| metric | meaning | values | better | default |\n\
         |---|---|---|---|---|\n"
    );
    for metric in METRICS {
        let (low, high) = metric.range;
        let better = if metric.is_higher_better { "higher" } else { "lower" };
        let mark = if metric.is_default { "yes" } else { "" };
        let _ = writeln!(text, "| `{}` | {} | {low} to {high} | {better} | {mark} |", metric.name, metric.meaning);
    }
    text
}

fn files_page() -> String {
    let mut text = format!(
        "# Files of a run\n\n{WRITTEN}\nWhat `out/NAME/` holds, with every column. Tables are UTF-8 with a header and commas; a cell \
         is empty where nothing applies; numbers are as short as reads back exactly. A text that begins with `=`, `+`, `-`, `@`, a tab, \
         a line break or `'` has a `'` in front, so that no spreadsheet runs it. All files but `timings.csv` and `run.json` have the \
         same bytes on any machine. `convoy schema metrics.csv` prints the columns of a table.\n"
    );
    for file in FILES.iter().chain(ASIDE) {
        let mut meaning = file.meaning.to_owned();
        meaning[..1].make_ascii_uppercase();
        let _ = write!(text, "\n## `{}`\n\n{meaning}.\n", file.name);
        if !file.columns.is_empty() {
            let _ = write!(text, "\n| column | meaning |\n|---|---|\n");
        }
        for (column, meaning) in file.columns {
            let _ = writeln!(text, "| `{}` | {meaning} |", column.trim_end_matches('?'));
        }
    }
    text += "\n## Pictures\n\nEach is also in the report; with a title, axis names and units.\n\n| file | picture |\n|---|---|\n\
             | `figures/*.svg` | those of the report |\n| `curves/*.svg` | learning curves, a file a stage |\n\
             | `filters/*.svg` | the first layer's filters, from 5x5 pixels on |\n\
             | `components/*.svg` | components of PCA |\n| `trials-*.svg` | a search's trials |\n";
    text
}

/// The help of a verb at the width of a book's page, and of the verbs below it.
fn commands_page() -> String {
    fn help(verb: &[String]) -> String {
        let words: Vec<&str> = verb.iter().map(String::as_str).chain(["--help"]).collect();
        let output = program(".", &words).env("COLUMNS", "80").output().expect("it starts");
        assert!(output.status.success(), "{words:?}");
        String::from_utf8(output.stdout).expect("text")
    }
    fn add(text: &mut String, verb: &[String]) {
        let help = help(verb);
        let title = if verb.is_empty() { String::new() } else { format!(" {}", verb.join(" ")) };
        let _ = write!(text, "\n## `convoy{title}`\n\n```text\n{}\n```\n", help.trim_end());
        let told = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        let names = told.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|word| !word.is_empty()));
        for name in names.filter(|name| *name != "help") {
            add(text, &[verb, &[name.to_owned()]].concat());
        }
    }
    let mut text = format!(
        "# Commands, exit codes, environment\n\n{WRITTEN}\nAs `convoy --help` and `convoy VERB --help` print them; `convoy man` prints a \
         manual page, `convoy completions SHELL` what a shell completes verbs, stages, profiles, data sets and keys with.\n"
    );
    add(&mut text, &[]);
    text
}

fn formats_page() -> String {
    let ingest = stage_keys(KINDS.iter().find(|kind| kind.name == "ingest").expect("it is there"));
    let format = ingest.iter().find(|key| key.key == "format").expect("it is there");
    let Form::Words(words) = &format.form else { panic!("words") };
    let mut text = format!(
        "# Formats in and out\n\n{WRITTEN}\n## Sources\n\nWhat [`source`](ingest.md#source) may be. The content says which it is; \
         [`format`](ingest.md#format) insists on one. How to lay out your own: [Your own data](../how-to/own-data.md).\n\n\
         | `format` | source |\n|---|---|\n"
    );
    for (word, meaning) in words.iter().filter(|(word, _)| word != "auto") {
        let _ = writeln!(text, "| `{word}` | {meaning} |");
    }
    text += "\nImage files are BMP, GIF, JPEG, PNG, PNM, TIFF and WebP, of 8 or 16 bits, told by their \
             content.\n\n## Models\n\n";
    let (_, help, _) = ran(".", &["export", "--help"]);
    text += "| command | writes |\n|---|---|\n";
    let told = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What is about a form may go on over several lines.
    let mut forms: Vec<String> = Vec::new();
    for line in told {
        match (line.starts_with("   "), forms.last_mut()) {
            (true, Some(form)) => *form += &format!(" {}", line.trim()),
            _ => forms.push(line.trim().to_owned()),
        }
    }
    for (name, about) in forms.iter().filter_map(|form| form.split_once(' ')).filter(|(name, _)| *name != "help") {
        let _ = writeln!(text, "| `convoy export {name}` | {} |", about.trim());
    }
    text += "\n## Results\n\nTables, pictures and reports: [Files of a run](files.md). For programs: `metrics.json`, `convoy run --json` and \
             `--events FILE` ([Events](../events.md)), `--junit FILE` ([CI](../ci.md)).\n";
    text
}

#[test]
fn the_reference_is_what_the_program_declares() {
    let mut pages = BTreeMap::new();
    let intro = "Keys at the top of a manifest. Tables and keys that are not known are errors; `convoy schema manifest` prints this.\n";
    pages.insert("manifest".to_owned(), keys_page("The manifest", intro, &top_keys()));
    for kind in KINDS {
        let intro = format!(
            "Keys of `[stages.{0}]`, or of a stage of any name with `kind = \"{0}\"`. `convoy schema {0}` prints this.\n\n```toml\n{1}```\n",
            kind.name, kind.example
        );
        pages.insert(kind.name.to_owned(), keys_page(&format!("`{}` stages", kind.name), &intro, &stage_keys(kind)));
    }
    pages.insert("layers".to_owned(), layers_page());
    pages.insert("metrics".to_owned(), metrics_page());
    pages.insert("files".to_owned(), files_page());
    pages.insert("commands".to_owned(), commands_page());
    pages.insert("formats".to_owned(), formats_page());

    let folder = root().join("docs/reference");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(&folder).unwrap();
        pages.iter().for_each(|(name, page)| fs::write(folder.join(format!("{name}.md")), page).unwrap());
    }
    for (name, page) in &pages {
        let committed = fs::read_to_string(folder.join(format!("{name}.md"))).unwrap_or_default();
        assert!(committed == *page, "docs/reference/{name}.md: write it anew with UPDATE_EXPECT=1");
    }
    let listed = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let listed: BTreeSet<String> = listed.collect();
    assert_eq!(listed, pages.keys().map(|name| format!("{name}.md")).collect(), "pages that nothing writes");
}

/// Every file below `folder` that ends so.
fn below_folder(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(below_folder(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Lines of a page that are not in a fenced block.
fn prose(page: &str) -> Vec<&str> {
    let mut is_code = false;
    let kept = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    };
    page.lines().filter(kept).collect()
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let slug = |heading: &str| -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose(page).iter().filter(|line| line.starts_with('#')).map(|line| slug(line)).collect()
}

/// Targets of the links and pictures of a page.
fn targets(page: &str) -> Vec<String> {
    let text = prose(page).join("\n");
    let mut found = Vec::new();
    for (at, _) in text.match_indices("](") {
        found.extend(text[at + 2..].split(')').next().map(str::to_owned));
    }
    found
}

/// What is wrong with the links of a page in `folder`, where `read` tells what files there are.
fn broken(folder: &Path, page: &str, read: &dyn Fn(&Path) -> Option<String>) -> Vec<String> {
    let mut broken = Vec::new();
    for target in targets(page).into_iter().filter(|target| !target.starts_with("https://")) {
        let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
        let text = if file.is_empty() { Some(page.to_owned()) } else { read(&folder.join(file)) };
        if text.is_none_or(|text| !anchor.is_empty() && !anchors(&text).contains(anchor)) {
            broken.push(target);
        }
    }
    broken
}

#[test]
fn links_of_the_docs_lead_somewhere_and_every_page_is_in_the_summary() {
    let docs = root().join("docs");
    let mut pages = below_folder(&docs, ".md");
    pages.extend(["README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let read = |path: &Path| fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut n = 0;
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        n += targets(&text).len();
        assert_eq!(broken(page.parent().unwrap(), &text, &read), [""; 0], "{}", page.display());
    }
    assert!(n > 50, "{n} links");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<PathBuf> = targets(&summary).iter().map(|target| docs.join(target)).collect();
    let there: BTreeSet<PathBuf> =
        below_folder(&docs, ".md").into_iter().filter(|page| !page.ends_with("SUMMARY.md")).collect();
    assert_eq!(there, listed);

    let nothing = |_: &Path| None;
    assert_eq!(broken(Path::new("."), "# A `b`\n[x](#a-b) [y](#c)\n```\n[z](w)\n```\n", &nothing), ["#c"]);
    assert_eq!(broken(Path::new("."), "[x](y.md) [z](https://example.org)", &nothing), ["y.md"]);
}

/// Shows what tables runs write: a search, ensembles that are weighed and stacked, a reduction, repeats.
const MANIFEST: &str = r#"schema = 1
name   = "all"
repeats = 2

[stages.ingest]
source = "builtin:digits"
limit  = 200

[stages.split]
folds = 2

[stages.preprocess]
steps = ["center", "scale"]

[stages.reduce]
method = { pca = { components = 20, whiten = true } }

[stages.first]
kind         = "train"
architecture = "INPUT - FC(64) - RELU - FC"
epochs       = 1

[stages.second]
kind         = "train"
input        = "reduce"
architecture = "INPUT - FC"
epochs       = 1
sanity       = false

[stages.ensemble]
members = ["first", "second"]
combine = "weighted"

[stages.evaluate]
"#;

const SEARCH: &str = r#"schema = 1
name   = "search"

[stages.ingest]
source = "builtin:digits"
limit  = 200

[stages.split]
folds = 2

[stages.train]
architecture = "INPUT - FC"
epochs       = 1

[stages.search]
space  = { "stages.train.learning_rate" = { log-uniform = [1e-4, 1e-1] } }
metric = "macro-f1"
rounds = [{ trials = 2 }]

[stages.evaluate]
"#;

const BY: &str = r#"schema = 1
name   = "by"

[stages.ingest]
source  = "images.csv"
columns = ["camera"]

[stages.split]
folds = 2

[stages.train]
architecture = "INPUT - FC"
epochs       = 1
sanity       = false
calibrate    = "temperature"
abstain      = { error = 0.2 }

[stages.evaluate]
by = ["camera"]
"#;

#[test]
fn tables_have_the_columns_that_are_declared_and_no_declared_table_is_missing() {
    let temp = tempfile::tempdir().unwrap();
    let stacked = MANIFEST.replace("\"weighted\"", "\"stacking\"").replace("\"all\"", "\"stacked\"");
    common::draw_images(temp.path());
    let mut images = String::from("path,label,camera\n");
    for (class, i) in ["ant", "bee"].iter().flat_map(|class| (0..12).map(move |i| (class, i))) {
        images.push_str(&format!("images/{class}/{i:02}.png,{class},{}\n", i % 2));
    }
    fs::write(temp.path().join("images.csv"), images).unwrap();
    for (name, text) in [("all.toml", MANIFEST), ("stacked.toml", &stacked), ("search.toml", SEARCH), ("by.toml", BY)] {
        fs::write(temp.path().join(name), text).unwrap();
        let (code, _, told) = ran(temp.path(), &["run", "-q", name]);
        assert_eq!(code, Some(0), "{told}");
    }
    let mut seen = BTreeSet::new();
    for path in below_folder(&temp.path().join("out"), ".csv") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let file = FILES.iter().chain(ASIDE).find(|file| file.name == name);
        let file = file.unwrap_or_else(|| panic!("`{name}` is not declared in src/artifact/columns.rs"));
        let text = fs::read_to_string(&path).unwrap();
        let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        assert!(is_header(file.columns, &header), "{}: {header:?}, declared: {:?}", path.display(), file.columns);
        seen.insert(file.name);
    }
    let declared = FILES.iter().chain(ASIDE).filter(|file| !file.columns.is_empty());
    assert_eq!(seen, declared.map(|file| file.name).collect());
    for file in FILES.iter().chain(ASIDE) {
        assert!(file.columns.iter().all(|(_, meaning)| meaning.ends_with('.')), "{}", file.name);
        let is_there = !below_folder(&temp.path().join("out"), file.name).is_empty();
        assert!(is_there, "no run wrote `{}`", file.name);
    }
    let columns = [("a", ""), ("b?", ""), ("p_<x>", "")];
    assert!(
        is_header(&columns, &["a"])
            && is_header(&columns, &["a", "b", "p_1", "p_2"])
            && is_header(&columns, &["a", "p_1"])
    );
    assert!(
        !is_header(&columns, &["a", "q"]) && !is_header(&columns, &["b"]) && !is_header(&columns, &["a", "p_1", "b"])
    );
}

#[test]
fn columns_and_the_manual_are_told_on_the_terminal() {
    let (code, told, _) = ran(".", &["schema", "metrics.csv", "weights.csv"]);
    assert_eq!(code, Some(0));
    assert!(
        told.starts_with("\n[metrics.csv]\n    every metric of every model")
            && told.contains("\nci_low\n    Lower end"),
        "{told}"
    );
    assert!(told.contains("\nsaid\n"), "{told}");
    let (code, _, told) = ran(".", &["schema", "metric.csv"]);
    assert_eq!((code, told.contains("did you mean `metrics.csv`?")), (Some(2), true), "{told}");
    let (code, page, _) = ran(".", &["man"]);
    assert_eq!(code, Some(0));
    assert!(page.is_ascii() && page.starts_with(".TH CONVOY 1 ") && page.contains("\n.SS convoy cache gc "), "{page}");
}
