//! TOML in, checked manifest or diagnostics out.
//!
//! Start at [`Manifest::load`]. A manifest's text becomes a tree of located values ([`source`]), overrides are put
//! into it ([`overrides`]), and the stages are read and checked from the top down ([`graph`]); whatever is wrong on the
//! way is collected and reported at once ([`Diagnostics`]). What a stage's keys mean is known to the stages alone, what
//! is stale to nobody here.

mod diagnostic;
mod foreign;
mod graph;
mod look;
mod matrix;
mod overrides;
#[cfg(test)]
mod records;
mod resolved;
pub mod schema;
pub(crate) mod source;
#[cfg(test)]
mod tests;
mod variants;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Entry, Form, Log, Node, OneOf, Problem, Resolved, Section, Span, Table, Value, did_you_mean};
use crate::stages;

pub use diagnostic::{Diagnostics, Location, Text, Texts, shown_path};
pub use look::{Looked, Seen};
pub use matrix::{Combination, Setting, stage_name, variant_of};
pub use overrides::Overrides;
pub use variants::{Variant, Variants};

/// A checked manifest: the graph of its stages, and where everything in it was written.
#[derive(Debug)]
pub struct Manifest {
    /// Names the output folder and the lock file; safe as a file name.
    pub name: String,
    /// Where all random streams are derived from, unless a stage has its own.
    pub seed: u64,
    /// The file, as it was named.
    pub path: PathBuf,
    /// The folder that relative paths in it are relative to.
    pub dir: PathBuf,
    /// The stages, in manifest order; a stage reads only stages above it. With `[matrix]`, those of its first variant, and
    /// then what is other in the others: `train optimizer=adam`.
    pub nodes: Vec<stages::Node>,
    /// What is known of each stage's text, by the same index.
    pub entries: Vec<Arc<StageEntry>>,
    /// What all spans point into.
    pub texts: Texts,
    /// What is worth saying, but stops nothing; in file order.
    pub warnings: Vec<Problem>,
    /// The profile in force.
    pub profile: Option<String>,
    /// The profiles that the manifest has, in file order.
    pub profiles: Vec<String>,
    /// Whether `--set` changed anything.
    pub has_sets: bool,
    /// The `--set` arguments in force, as given.
    pub sets: Vec<String>,
    /// Its variants by `[matrix]` and `repeats`, at least one.
    pub combinations: Arc<Vec<Combination>>,
    /// Makes trials of its searches, in the first of its variants.
    pub variants: Variants,
}

/// What a stage's table said.
#[derive(Clone, Debug, PartialEq)]
pub struct StageEntry {
    /// The keys it reads with the values in force, in reading order, without its `seed`.
    pub resolved: Vec<Resolved>,
    /// The keys that no fingerprint may hold, as the place of a source: with `resolved`, all that the stage can be read
    /// from again ([`crate::config::rebuild`]).
    pub places: Vec<Resolved>,
    /// The values of its table by key, `input` and `members` as well.
    pub values: Vec<(String, Span)>,
    /// Its header.
    pub header: Span,
    /// The seed in force: its own, else the manifest's.
    pub seed: u64,
    /// Where that seed was set; `None` for the default.
    pub seed_span: Option<Span>,
}

impl StageEntry {
    /// A problem about a key that the manifest does not set stands at the stage's header.
    fn locate(&self, problem: Problem) -> Problem {
        let span = if problem.span == Span::default() { self.header } else { problem.span };
        Problem { span, ..problem }
    }

    /// Where `key` (dotted, relative to the stage) was set: the key itself, else the nearest one above it; `None` where
    /// the default is in force.
    pub fn span_of(&self, key: &str) -> Option<Span> {
        if key == "seed" {
            return self.seed_span;
        }
        let mut key = key;
        loop {
            let set = self.resolved.iter().find(|resolved| resolved.key == key).and_then(|resolved| resolved.span);
            let written = self.values.iter().find(|(name, _)| name == key).map(|(_, span)| *span);
            match (set.or(written), key.rsplit_once(['.', '['])) {
                (Some(span), _) => return Some(span),
                (None, Some((above, _))) => key = above,
                // The same layers in shorthand.
                (None, None) if key == "layers" => key = "architecture",
                (None, None) => return None,
            }
        }
    }
}

impl Manifest {
    /// Reads and checks the manifest at `path`, with `overrides` in force.
    ///
    /// # Errors
    /// Everything that is wrong with it, warnings included, in file order.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Manifest, Diagnostics> {
        let name = shown_path(path);
        match source::read(path) {
            Ok(content) => Manifest::from_text(path, Text { name, content }, overrides, stages::KINDS),
            Err((content, problem)) => Err(unreadable(name, content, problem)),
        }
    }

    /// The same for the `bytes` of a manifest that would stand at `path`, with the kinds of stage in `kinds`.
    ///
    /// # Errors
    /// As [`Manifest::load`].
    pub fn from_bytes(
        path: &Path,
        bytes: &[u8],
        overrides: &Overrides,
        kinds: &'static [stages::Kind],
    ) -> Result<Manifest, Diagnostics> {
        let name = shown_path(path);
        match source::decode(bytes.to_vec()) {
            Ok(content) => Manifest::from_text(path, Text { name, content }, overrides, kinds),
            Err((content, problem)) => Err(unreadable(name, content, problem)),
        }
    }

    fn from_text(
        path: &Path,
        text: Text,
        overrides: &Overrides,
        kinds: &'static [stages::Kind],
    ) -> Result<Manifest, Diagnostics> {
        let source::Parsed { mut table, mut problems, is_broken } = source::parse_document(&text.content, 0);
        let mut texts = Texts { texts: vec![text] };
        let (profiles, changes) = apply_overrides(&mut table, &mut texts, &mut problems, overrides);
        if is_broken {
            // What the parser could not understand may be just what would seem to be missing.
            return Err(Diagnostics::new(problems, texts));
        }

        let matrix = matrix::read(&table, &changes, &mut problems);
        let mut name = String::new();
        let mut read = Vec::new();
        for choice in matrix.choices() {
            let mut found = Vec::new();
            let mut own = table.clone();
            matrix.apply(&choice, &mut own, &mut found);
            let settings = matrix.settings(&choice);
            let (own_name, combination) = read_combination(own, path, kinds, settings, &mut found);
            if read.is_empty() {
                name = own_name;
                problems.append(&mut found);
            } else {
                add_found(&mut problems, found, &matrix, &combination.settings);
            }
            read.push(combination);
        }
        let found = Diagnostics::new(problems, texts);
        if found.n_errors() > 0 {
            return Err(found);
        }
        let (nodes, entries, combinations) = matrix::join(read);
        Ok(Manifest {
            name,
            seed: combinations[0].seed,
            path: path.to_owned(),
            dir: match path.parent() {
                Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
                _ => PathBuf::from("."),
            },
            nodes,
            entries,
            texts: found.texts,
            warnings: found.problems,
            profile: overrides.profile.clone(),
            profiles,
            has_sets: !overrides.sets.is_empty(),
            sets: overrides.sets.clone(),
            variants: combinations[0].trials.clone(),
            combinations: Arc::new(combinations),
        })
    }

    /// The warnings as a page of their own.
    pub fn diagnostics(&self) -> Diagnostics {
        Diagnostics { problems: self.warnings.clone(), texts: self.texts.clone() }
    }

    /// Number of stages that the manifest has; further models of a search are nodes, but no stages.
    pub fn n_stages(&self) -> usize {
        let own = self.combinations[0].nodes.iter().map(|&at| &self.nodes[at]);
        own.filter(|node| node.stage.search().is_none_or(|search| search.rank() == 1)).count()
    }

    /// Whether it has variants by `[matrix]` or `repeats`.
    pub fn has_variants(&self) -> bool {
        !self.combinations[0].name.is_empty()
    }

    /// The index of the stage called `name`; of several variants', the first.
    pub fn stage(&self, name: &str) -> Option<usize> {
        self.stages_called(name).first().copied()
    }

    /// The indices of all that are called `name`: a stage in all of its variants, or one variant's, as
    /// `train optimizer=adam`.
    pub fn stages_called(&self, name: &str) -> Vec<usize> {
        let called = |is_called: &dyn Fn(&str) -> bool| -> Vec<usize> {
            let nodes = self.nodes.iter().enumerate();
            nodes.filter(|(_, node)| is_called(&node.name)).map(|(at, _)| at).collect()
        };
        let exact = called(&|node| node == name);
        if exact.is_empty() { called(&|node| stage_name(node) == name) } else { exact }
    }

    /// Where `key` (dotted, relative to the stage) was set: the key itself, else the nearest one above it, else the
    /// stage's header.
    pub fn span_of(&self, stage: usize, key: &str) -> Span {
        let entry = &self.entries[stage];
        let is_architecture = key.split(['.', '[']).next() == Some("architecture");
        let architecture = if is_architecture { self.architecture_span(stage) } else { None };
        architecture.or_else(|| entry.span_of(key)).unwrap_or(entry.header)
    }

    /// A stage's architecture from its first layer to its last; only the first where it stands on several lines.
    fn architecture_span(&self, stage: usize) -> Option<Span> {
        let spans = &self.nodes[stage].stage.network()?.architecture.spans;
        let (first, last) = (*spans.first()?, *spans.last()?);
        let whole = Span { end: last.end, ..first };
        let is_one_line =
            first.source == last.source && first.start < last.end && !self.texts.slice(whole).contains('\n');
        Some(if is_one_line { whole } else { first })
    }
}

fn unreadable(name: String, content: String, problem: Problem) -> Diagnostics {
    Diagnostics::new(vec![problem], Texts { texts: vec![Text { name, content }] })
}

/// Reads the table of a manifest that has no variants of its own: its name, and its stages.
fn read_combination(
    mut table: Table,
    path: &Path,
    kinds: &'static [stages::Kind],
    settings: Vec<Setting>,
    problems: &mut Vec<Problem>,
) -> (String, matrix::Read) {
    let mut log = Log::default();
    let mut section = Section::new(Some(&table), Span::default(), "", &mut log);
    read_schema(&mut section);
    let name = read_name(&mut section, path);
    let seed = read_rest(&mut section);
    section.finish();
    foreign::explain(&mut log.problems, &table, None, kinds);
    let seed_span = log.resolved.iter().find(|resolved| resolved.key == "seed").and_then(|seed| seed.span);
    let stand_ins = variants::put_stand_ins(&mut table);
    let trials = Variants::new(table, kinds, (seed, seed_span));
    let (nodes, entries) = graph::read(trials.stages(), (seed, seed_span), kinds, &mut log.problems);
    variants::check(&trials, &nodes, &entries, &stand_ins, &mut log.problems);
    problems.append(&mut log.problems);
    (name, matrix::Read { settings, seed, trials, nodes, entries })
}

/// Adds what is wrong with a variant and was not with those before it. What stands outside of `[matrix]` is wrong in this variant
/// only.
fn add_found(problems: &mut Vec<Problem>, found: Vec<Problem>, matrix: &matrix::Matrix, settings: &[Setting]) {
    for problem in found {
        let is_known = |known: &Problem| known.span == problem.span && known.message.starts_with(&problem.message);
        if problems.iter().any(is_known) {
            continue;
        }
        let with: Vec<String> =
            settings.iter().map(|setting| format!("`{}` = {}", setting.key, setting.value)).collect();
        let message = match matrix.covers(problem.span) {
            true => problem.message,
            false => format!("{} (with {})", problem.message, with.join(", ")),
        };
        problems.push(Problem { message, ..problem });
    }
}

/// Puts the profile and then the `--set` arguments into `table`; returns the names of all profiles, and what was set.
fn apply_overrides(
    table: &mut Table,
    texts: &mut Texts,
    problems: &mut Vec<Problem>,
    overrides: &Overrides,
) -> (Vec<String>, Vec<overrides::Override>) {
    let profiles = match table.get("profile").map(|entry| (entry.key_span, &entry.node.value)) {
        Some((_, Value::Table(profiles))) => profiles.entries.clone(),
        Some((span, _)) => {
            problems.push(Problem::error(span, "`profile` expects tables").help("write `[profile.NAME]`"));
            Vec::new()
        }
        None => Vec::new(),
    };
    let mut changes = Vec::new();
    for profile in &profiles {
        if let Some(message) = refusal(&profile.key) {
            let message = message.replacen("`name`", "a profile's name", 1);
            problems.push(Problem::error(profile.key_span, message).help("it is part of the names of files"));
        }
        let Value::Table(keys) = &profile.node.value else {
            let message = format!("profile `{}` expects a table, got {}", profile.key, profile.node.value.noun());
            problems
                .push(Problem::error(profile.node.span, message).help(format!("write `[profile.{}]`", profile.key)));
            continue;
        };
        let file = &texts.texts[0].content;
        let is_inline = |node: &Node| file[node.span.start as usize..].starts_with('{');
        let of_profile = overrides::from_profile(keys, &is_inline);
        if overrides.profile.as_ref() == Some(&profile.key) {
            changes.extend(of_profile);
        } else {
            // A profile that is not in force is checked as far as can be: its keys have their places.
            let mut aside = table.clone();
            problems.extend(of_profile.iter().filter_map(|change| overrides::apply(&mut aside, change).err()));
        }
    }
    if let Some(name) = &overrides.profile
        && !profiles.iter().any(|profile| profile.key == *name)
    {
        let number = texts.texts.len() as u16;
        texts.texts.push(Text { name: "--profile".to_owned(), content: name.clone() });
        let span = Span { source: number, start: 0, end: name.len() as u32 };
        let mut problem = Problem::error(span, format!("the manifest has no profile `{name}`"));
        let known: Vec<&str> = profiles.iter().map(|profile| profile.key.as_str()).collect();
        problem.help = did_you_mean(name, known.iter().copied()).or_else(|| match known.as_slice() {
            [] => Some(format!("add a table `[profile.{name}]`")),
            known => Some(format!("it has {}", OneOf(known)).replace(" or ", " and ")),
        });
        problems.push(problem);
    }
    for argument in &overrides.sets {
        let number = texts.texts.len() as u16;
        texts.texts.push(Text { name: "--set".to_owned(), content: argument.clone() });
        match overrides::parse_set(argument, number) {
            Ok(change) => changes.push(change),
            Err(found) => problems.extend(found),
        }
    }
    problems.extend(changes.iter().filter_map(|change| overrides::apply(table, change).err()));
    (profiles.into_iter().map(|profile| profile.key).collect(), changes)
}

/// Reads `seed`, and declares the keys that are read elsewhere.
fn read_rest(section: &mut Section<'_>) -> u64 {
    let meaning = "The number that all random numbers follow from.";
    let seed = section.key("seed", meaning, "42").whole(0..=i64::MAX as u64).or(0);
    let meaning = "How often everything is run, each time with another seed that follows from `seed`; the first time with `seed` itself.";
    section.key("repeats", meaning, "5").whole(1..=matrix::MOST as u64).or(1);
    let meaning = "Keys and lists of their values: every combination is run, what they share once.";
    let form = || Form::Map(Box::new(Form::Anything));
    section.key("matrix", meaning, "{ seed = [1, 2], stages.train.optimizer = [\"sgd\", \"adam\"] }").form(None, form);
    let meaning = "Keys that are overridden by `--profile NAME`, by name and stage.";
    let form = || Form::Map(Box::new(Form::Map(Box::new(Form::Anything))));
    section.key("profile", meaning, "{ quick = { stages.train.epochs = 1 } }").form(None, form);
    let meaning = "The stages, in order; each is of the kind it is called by, unless it sets `kind`.";
    let example = "{ ingest = { source = \"builtin:digits\" } }";
    section.key("stages", meaning, example).required_form(|| Form::Map(Box::new(Form::Map(Box::new(Form::Anything)))));
    seed
}

fn read_schema(section: &mut Section<'_>) {
    let span = section.span();
    let key = section.key("schema", "The version of this format.", "1");
    let problem = match key.required_form(|| Form::Whole(1..=1)) {
        None => Problem::error(span, "missing key `schema`").help("add `schema = 1` at the top"),
        Some(Node { value: Value::Integer(1), .. }) => return,
        Some(Node { value: Value::Integer(i), span }) if *i > 1 => {
            Problem::error(*span, format!("schema `{i}` is newer than this program, expected `1`"))
                .help("use a newer convoy")
        }
        Some(node) => {
            section.expected("schema", node, "`1`");
            return;
        }
    };
    section.log().push(problem);
}

/// File names are safe with these everywhere, and `@` stays free for profiles and `--set`.
fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.'
}

/// Names that Windows keeps for devices.
const RESERVED: &[&str] = &["con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "lpt1", "lpt2", "lpt3", "lpt4"];

fn read_name(section: &mut Section<'_>, path: &Path) -> String {
    let header = section.span();
    let meaning = "Names the output folder and the lock file: letters, digits, `-`, `_` and `.`, at most 64; absent: as the file.";
    let Some(node) = section.key("name", meaning, "\"digits\"").form(None, || Form::Name) else {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if refusal(stem).is_none() {
            return stem.to_owned();
        }
        let safe: String = stem.chars().filter(|&c| is_safe(c)).collect();
        let safe = if refusal(&safe).is_none() { safe } else { "digits".to_owned() };
        let message = "missing key `name`, which the name of the file cannot stand for";
        let problem = Problem::error(header, message).help(format!("add `name = \"{safe}\"`"));
        section.log().push(problem);
        return String::new();
    };
    let Value::Text { text, .. } = &node.value else {
        section.expected("name", node, "a string");
        return String::new();
    };
    let Some(message) = refusal(text) else { return text.clone() };
    section.log().push(Problem::error(node.span, message).help("it names the output folder and the lock file"));
    String::new()
}

/// Why a name cannot name files everywhere, if it cannot.
fn refusal(text: &str) -> Option<String> {
    Some(if text.is_empty() {
        "`name` is empty".to_owned()
    } else if let Some(c) = text.chars().find(|&c| !is_safe(c)) {
        format!("`name` has the character `{}`, expected letters, digits, `-`, `_` and `.`", c.escape_debug())
    } else if text.starts_with(['.', '-']) || text.ends_with('.') {
        "`name` expects a letter, a digit or `_` at its ends, since it names files".to_owned()
    } else if text.len() > 64 {
        format!("`name` expects at most 64 characters, got {}", text.len())
    } else if RESERVED.contains(&text.split('.').next().unwrap_or_default().to_ascii_lowercase().as_str()) {
        format!("`name` is `{text}`, a name that some systems keep for devices")
    } else {
        return None;
    })
}

/// The table under `entry`, or an error in its place.
fn as_table<'t>(entry: &'t Entry, what: &str, problems: &mut Vec<Problem>) -> Option<&'t Table> {
    match &entry.node.value {
        Value::Table(table) => Some(table),
        other => {
            let got = crate::config::display(other);
            problems.push(Problem::error(entry.node.span, format!("{what} expects a table, got {got}")));
            None
        }
    }
}
