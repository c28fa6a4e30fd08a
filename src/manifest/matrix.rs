//! `[matrix]` and `repeats`: a manifest as several variants of itself, which share every stage that is the same in them.
//!
//! Start at [`read`]: it makes axes of the tables. [`Matrix::choices`] are all combinations, [`Matrix::apply`] puts one
//! of them into the manifest's table, which is then read like any other; [`join`] makes one graph of what came of that.
//! Nothing below this file knows of variants but by the names of nodes: `train optimizer=adam,seed=2`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::{Entry, Node, Problem, Span, Table, Value, did_you_mean, display, toml};
use crate::rng::Stream;
use crate::stages;

use super::overrides::{self, Override};
use super::{StageEntry, Variants};

/// More combinations than this are refused.
pub const MOST: usize = 1_000;

/// Longer names of variants give way to numbers: they name folders.
const MOST_NAME: usize = 100;

/// What the axis of `repeats` is called.
const REPEAT: &str = "repeat";

/// One key that is varied, or the repeats.
#[derive(Clone, Debug)]
struct Axis {
    /// The dotted key.
    key: String,
    /// What names of variants call it.
    short: String,
    /// Its segments from the root down; empty for the repeats.
    path: Vec<(String, Span)>,
    /// Its values.
    items: Vec<Node>,
    /// What names of variants call those.
    words: Vec<String>,
    /// Whether it is a seed's: results that differ in it only are averaged.
    is_seed: bool,
}

/// All keys that are varied.
#[derive(Clone, Debug, Default)]
pub(super) struct Matrix {
    axes: Vec<Axis>,
}

/// One value of one key that is varied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The dotted key, or `repeat`.
    pub key: String,
    /// The value as TOML.
    pub value: String,
    /// Whether it is a seed's.
    pub is_seed: bool,
    /// How both are called in the variant's name: `optimizer=adam`.
    word: String,
}

impl Setting {
    /// The value for a cell of a table: a string as it is, anything else as TOML.
    pub fn plain(&self) -> String {
        match crate::config::parse(&self.value) {
            Some(Value::Text { text, .. }) => text,
            _ => self.value.clone(),
        }
    }
}

/// A variant of the manifest: one value for each key of `[matrix]`. A manifest without `[matrix]` has one, without
/// settings.
#[derive(Clone, Debug)]
pub struct Combination {
    /// Its name, safe as a folder's: `optimizer=adam,seed=2`; empty without settings.
    pub name: String,
    /// The same without seeds: what differs in those only has one.
    pub group: String,
    /// In the order of the manifest.
    pub settings: Vec<Setting>,
    /// The manifest's seed in it.
    pub seed: u64,
    /// The node of each of its stages, by the stage's place in the manifest.
    pub nodes: Vec<usize>,
    /// Makes the trials of its searches.
    pub trials: Variants,
}

/// The name of a node's stage in the manifest: without the variant that the node is of.
pub fn stage_name(node: &str) -> &str {
    node.split(' ').next().unwrap_or(node)
}

/// What stands behind that: the values by which the node differs from those of other variants; empty if it is one for all.
pub fn variant_of(node: &str) -> &str {
    node.split_once(' ').map_or("", |(_, variant)| variant)
}

/// Reads `[matrix]`, and `repeats` where that is a number above 1. What `changes` (the profile and `--set`) set is not varied.
pub(super) fn read(table: &Table, changes: &[Override], problems: &mut Vec<Problem>) -> Matrix {
    let mut axes = Vec::new();
    if let Some(entry) = table.get("matrix") {
        match &entry.node.value {
            Value::Table(keys) if keys.entries.is_empty() => {
                let help = "for example `\"stages.train.optimizer\" = [\"sgd\", \"adam\"]`";
                problems.push(Problem::error(entry.node.span, "`[matrix]` varies no key").help(help));
            }
            Value::Table(keys) => walk(keys, &mut Vec::new(), &mut axes, problems),
            other => {
                let message = format!("`matrix` expects a table of keys and lists, got {}", display(other));
                problems.push(Problem::error(entry.node.span, message).help("write `[matrix]`"));
            }
        }
    }
    let stages = table.get("stages");
    axes.retain(|axis| is_known_root(axis, stages, problems));
    check_distinct(&axes, problems);
    axes.retain(|axis| !is_set(axis, changes, problems));
    if let Some(Node { value: Value::Integer(n), span }) = table.get("repeats").map(|entry| &entry.node)
        && *n > 1
    {
        // Too many are told below; what is no number at all, by who reads the key.
        let items = (1..=(*n).min(MOST as i64 + 1)).map(|i| Node { value: Value::Integer(i), span: *span }).collect();
        let (key, short) = (REPEAT.to_owned(), REPEAT.to_owned());
        axes.push(Axis { key, short, path: Vec::new(), items, words: Vec::new(), is_seed: true });
    }
    let n = axes.iter().try_fold(1, |n: usize, axis| n.checked_mul(axis.items.len()));
    if n.is_none_or(|n| n > MOST) {
        let factors: Vec<String> = axes.iter().map(|axis| axis.items.len().to_string()).collect();
        let longest = axes.iter().max_by_key(|axis| axis.items.len());
        let span = longest.map(|axis| axis.path.last().map_or(axis.items[0].span, |(_, span)| *span));
        let message = format!("{} variants are more than the {MOST} that a manifest may have", factors.join(" x "));
        let help = "leave values out, or let a `search` draw from ranges";
        problems.push(Problem::error(span.unwrap_or_default(), message).help(help));
        axes.clear();
    }
    name(&mut axes);
    Matrix { axes }
}

/// The segments of a key as it may be written in quotes: `stages.preprocess.steps[0]`.
fn segments(key: &str) -> Vec<String> {
    let mut out = Vec::new();
    for part in key.split('.') {
        let (name, indices) = part.split_at(part.find('[').unwrap_or(part.len()));
        out.push(name.trim().to_owned());
        out.extend(indices.split_inclusive(']').map(|index| index.trim().to_owned()).filter(|index| !index.is_empty()));
    }
    out
}

fn dotted(path: &[(String, Span)]) -> String {
    let mut key = String::new();
    for (segment, _) in path {
        if !key.is_empty() && !segment.starts_with('[') {
            key.push('.');
        }
        key.push_str(segment);
    }
    key
}

fn walk(table: &Table, path: &mut Vec<(String, Span)>, axes: &mut Vec<Axis>, problems: &mut Vec<Problem>) {
    for entry in &table.entries {
        let depth = path.len();
        path.extend(segments(&entry.key).into_iter().map(|segment| (segment, entry.key_span)));
        let key = dotted(path);
        match &entry.node.value {
            Value::Table(inner) => walk(inner, path, axes, problems),
            Value::List(items) if items.is_empty() => {
                let help = "name the values that it takes, or leave the key out";
                problems.push(Problem::error(entry.node.span, format!("the list of `{key}` is empty")).help(help));
            }
            Value::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    let own = toml(&item.value);
                    if items[..i].iter().any(|other| toml(&other.value) == own) {
                        let message = format!("{own} stands twice in the list of `{key}`: two variants of one name");
                        problems.push(Problem::error(item.span, message));
                    }
                }
                let is_seed = path.last().is_some_and(|(last, _)| last == "seed");
                let (items, path) = (items.clone(), path.clone());
                axes.push(Axis { key, short: String::new(), path, items, words: Vec::new(), is_seed });
            }
            other => {
                let message = format!("`{key}` expects a list of values, got {}", display(other));
                let help = format!("write it as a list: `[{}]`", toml(other));
                problems.push(Problem::error(entry.node.span, message).help(help));
            }
        }
        path.truncate(depth);
    }
}

/// Whether the key is one that can be varied: a stage's, or `seed`.
fn is_known_root(axis: &Axis, stages: Option<&Entry>, problems: &mut Vec<Problem>) -> bool {
    let Some((root, span)) = axis.path.first() else { return true };
    if root == "stages" && axis.path.len() > 1 || root == "seed" && axis.path.len() == 1 {
        return true;
    }
    let has_stage = |name: &str| {
        let names = stages.map(|stages| &stages.node.value);
        matches!(names, Some(Value::Table(names)) if names.get(name).is_some())
    };
    let mut problem = Problem::error(*span, format!("`[matrix]` varies `seed` and keys of stages, got `{}`", axis.key));
    problem.help = if has_stage(root) {
        Some(format!("the stage's keys begin with `stages.{root}.`"))
    } else if root == "repeats" || root == REPEAT {
        Some("`repeats = 5` stands at the top of the manifest".to_owned())
    } else {
        did_you_mean(root, ["seed", "stages"].into_iter())
    };
    problems.push(problem);
    false
}

/// Whether `short` is the beginning of `long`, or all of it.
fn is_above(short: &[(String, Span)], long: &[(String, Span)]) -> bool {
    short.len() <= long.len() && short.iter().zip(long).all(|((a, _), (b, _))| a == b)
}

/// No key may be a part of another one: one of them would override the other.
fn check_distinct(axes: &[Axis], problems: &mut Vec<Problem>) {
    for (i, one) in axes.iter().enumerate() {
        for other in &axes[..i] {
            let (short, long) = if one.path.len() < other.path.len() { (one, other) } else { (other, one) };
            if is_above(&short.path, &long.path) {
                let message = if one.key == other.key {
                    format!("`{}` is varied twice", one.key)
                } else {
                    format!("`{}` and `{}` override one another", short.key, long.key)
                };
                problems.push(Problem::error(one.path[0].1, message));
            }
        }
    }
}

/// Whether the profile or `--set` fixes the key. What they set a part of would be overridden in silence.
fn is_set(axis: &Axis, changes: &[Override], problems: &mut Vec<Problem>) -> bool {
    let mut is_set = false;
    for change in changes {
        if change.path.len() == axis.path.len() && is_above(&axis.path, &change.path) {
            is_set = true;
        } else if is_above(&axis.path, &change.path) || is_above(&change.path, &axis.path) {
            let message = format!("`{}` is varied by `[matrix]`, which overrides this", axis.key);
            let help = format!("set `{}` as a whole: it is not varied then", axis.key);
            problems.push(Problem::error(change.path[0].1, message).help(help));
        }
    }
    is_set
}

/// Gives axes and values their names.
fn name(axes: &mut [Axis]) {
    let named: Vec<Vec<String>> = axes
        .iter()
        .map(|axis| match axis.path.as_slice() {
            [] => vec![axis.short.clone()],
            path => {
                // An item of a list is told by the list's name and its index.
                let mut names: Vec<String> = Vec::new();
                for (segment, _) in path.iter().filter(|(segment, _)| segment != "stages") {
                    match (segment.strip_prefix('['), names.last_mut()) {
                        (Some(index), Some(last)) => *last = format!("{last}-{}", index.trim_end_matches(']')),
                        _ => names.push(segment.clone()),
                    }
                }
                names
            }
        })
        .collect();
    let last = |names: &[String], n: usize| names[names.len().saturating_sub(n)..].join(".");
    for i in 0..axes.len() {
        let is_taken = |n: usize| {
            let own = last(&named[i], n);
            named.iter().enumerate().any(|(other, names)| other != i && last(names, n) == own)
        };
        let n = (1..named[i].len()).find(|&n| !is_taken(n)).unwrap_or(named[i].len());
        axes[i].short = last(&named[i], n);
    }
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    for axis in axes {
        axis.short.retain(is_safe);
        let word = |(i, item): (usize, &Node)| {
            let text = match &item.value {
                Value::Text { text, .. } => text.clone(),
                Value::Boolean(_) | Value::Integer(_) | Value::Float(_) => toml(&item.value),
                _ => String::new(),
            };
            let is_plain = !text.is_empty() && text.len() <= 32 && text.chars().all(is_safe) && !text.ends_with('.');
            if is_plain { text } else { format!("v{}", i + 1) }
        };
        axis.words = axis.items.iter().enumerate().map(word).collect();
        // Some file systems take no notice of capitals.
        let distinct: BTreeSet<String> = axis.words.iter().map(|word| word.to_lowercase()).collect();
        if distinct.len() < axis.words.len() {
            axis.words = (1..=axis.items.len()).map(|i| format!("v{i}")).collect();
        }
    }
}

impl Matrix {
    /// Every combination, as the place of the value of each axis; the last axis changes first.
    pub fn choices(&self) -> Vec<Vec<usize>> {
        let mut all = vec![Vec::new()];
        for axis in &self.axes {
            let longer = |choice: &Vec<usize>| {
                let choice = choice.clone();
                (0..axis.items.len()).map(move |i| choice.iter().copied().chain([i]).collect())
            };
            all = all.iter().flat_map(longer).collect();
        }
        all
    }

    /// Puts a combination into the manifest's table.
    pub fn apply(&self, choice: &[usize], table: &mut Table, problems: &mut Vec<Problem>) {
        for (axis, &i) in self.axes.iter().zip(choice) {
            let item = &axis.items[i];
            if axis.path.is_empty() {
                repeat(table, i as u64 + 1, item.span);
                continue;
            }
            problems.extend(overrides::apply(table, &Override { path: axis.path.clone(), node: item.clone() }).err());
        }
    }

    /// What a combination sets.
    pub fn settings(&self, choice: &[usize]) -> Vec<Setting> {
        let setting = |(axis, &i): (&Axis, &usize)| Setting {
            key: axis.key.clone(),
            value: toml(&axis.items[i].value),
            is_seed: axis.is_seed,
            word: format!("{}={}", axis.short, axis.words[i]),
        };
        self.axes.iter().zip(choice).map(setting).collect()
    }

    /// Whether a place in a text is within the values and keys that are varied.
    pub fn covers(&self, span: Span) -> bool {
        let is_within = |outer: Span| outer.source == span.source && outer.start <= span.start && span.end <= outer.end;
        let spans = |axis: &Axis| {
            let own = axis.path.iter().map(|(_, span)| *span).chain(axis.items.iter().map(|item| item.span));
            own.collect::<Vec<_>>()
        };
        self.axes.iter().flat_map(spans).any(is_within)
    }
}

/// Gives a repeat its seed, derived from the manifest's; the first one has that itself.
fn repeat(table: &mut Table, repeat: u64, span: Span) {
    if repeat == 1 {
        return;
    }
    let seed = match table.get("seed").map(|entry| &entry.node.value) {
        Some(Value::Integer(seed)) => u64::try_from(*seed).unwrap_or(0),
        _ => 0,
    };
    // 32 bits, so that it can be read and written down.
    let derived = Stream::new(seed, "repeat", &[(REPEAT, repeat)]).bits(0) >> 32;
    let node = Node { value: Value::Integer(derived as i64), span };
    let entry = Entry { key: "seed".to_owned(), key_span: span, node };
    match table.entries.iter_mut().find(|entry| entry.key == "seed") {
        Some(known) => *known = entry,
        None => table.entries.push(entry),
    }
}

/// A combination that was read and checked on its own.
pub(super) struct Read {
    pub settings: Vec<Setting>,
    pub seed: u64,
    pub trials: Variants,
    pub nodes: Vec<stages::Node>,
    pub entries: Vec<Arc<StageEntry>>,
}

/// A graph, and the combinations that it is of.
pub(super) type Joined = (Vec<stages::Node>, Vec<Arc<StageEntry>>, Vec<Combination>);

/// One graph of all combinations: a stage that is written alike, has one seed and reads the same is one node.
pub(super) fn join(all: Vec<Read>) -> Joined {
    /// A stage by what it is: its name, its table as text, its seed where it draws from it, the nodes that it reads.
    type Known = BTreeMap<(String, String, Option<u64>, Vec<usize>), usize>;
    let (mut known, mut nodes, mut entries) = (Known::new(), Vec::new(), Vec::new());
    let mut combinations: Vec<Combination> = Vec::with_capacity(all.len());
    // By node: the combinations that have it.
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (own, read) in all.into_iter().enumerate() {
        let mut places = Vec::with_capacity(read.nodes.len());
        for (node, entry) in read.nodes.into_iter().zip(read.entries) {
            let inputs: Vec<usize> = node.inputs.iter().map(|&input| places[input]).collect();
            let seed = node.stage.uses_seed().then_some(entry.seed);
            let what = (node.name.clone(), read.trials.text_of(&node.name), seed, inputs.clone());
            let at = *known.entry(what).or_insert_with(|| {
                nodes.push(stages::Node { inputs, ..node });
                entries.push(entry);
                members.push(Vec::new());
                nodes.len() - 1
            });
            members[at].push(own);
            places.push(at);
        }
        let (settings, seed, trials) = (read.settings, read.seed, read.trials);
        let joined = |with_seeds: bool| {
            let own = settings.iter().filter(|setting| with_seeds || !setting.is_seed);
            own.map(|setting| setting.word.as_str()).collect::<Vec<_>>().join(",")
        };
        let (name, group) = (joined(true), joined(false));
        combinations.push(Combination { name, group, settings, seed, nodes: places, trials });
    }
    if combinations.iter().any(|combination| combination.name.len() > MOST_NAME) {
        number(&mut combinations);
    }
    label(&mut nodes, &members, &combinations);
    (nodes, entries, combinations)
}

/// Names that are too long for a folder give way to numbers.
fn number(combinations: &mut [Combination]) {
    let mut groups: BTreeMap<String, String> = BTreeMap::new();
    for (i, combination) in combinations.iter_mut().enumerate() {
        combination.name = format!("v{}", i + 1);
        let group = groups.entry(combination.group.clone()).or_insert_with(|| combination.name.clone());
        combination.group.clone_from(group);
    }
}

/// Names nodes by what sets them apart from those of other combinations: the values that all of theirs have.
fn label(nodes: &mut [stages::Node], members: &[Vec<usize>], combinations: &[Combination]) {
    let n_values = |axis: usize| {
        let values = combinations.iter().map(|combination| combination.settings[axis].value.as_str());
        values.collect::<BTreeSet<_>>().len()
    };
    let n_axes = combinations.first().map_or(0, |combination| combination.settings.len());
    let varied: Vec<usize> = (0..n_axes).filter(|&axis| n_values(axis) > 1).collect();
    let labels: Vec<String> = members
        .iter()
        .map(|members| {
            if members.len() == combinations.len() {
                return String::new();
            }
            let setting = |member: usize, axis: usize| &combinations[member].settings[axis];
            let is_agreed = |&&axis: &&usize| {
                members.iter().all(|&member| setting(member, axis).value == setting(members[0], axis).value)
            };
            let agreed = varied.iter().filter(is_agreed);
            let label: Vec<&str> = agreed.map(|&axis| setting(members[0], axis).word.as_str()).collect();
            label.join(",")
        })
        .collect();
    let mut taken: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (node, label) in nodes.iter().zip(&labels) {
        *taken.entry((node.name.as_str(), label.as_str())).or_default() += 1;
    }
    let is_own = |node: &stages::Node, label: &str| taken.get(&(node.name.as_str(), label)) == Some(&1);
    let names: Vec<Option<String>> = nodes
        .iter()
        .zip(&labels)
        .zip(members)
        .map(|((node, label), members)| {
            if members.len() == combinations.len() {
                return None;
            }
            let is_fit = !label.is_empty() && label.len() <= MOST_NAME && is_own(node, label);
            let label = if is_fit { label } else { &combinations[members[0]].name };
            Some(format!("{} {label}", node.name))
        })
        .collect();
    for (node, name) in nodes.iter_mut().zip(names) {
        if let Some(name) = name {
            node.name = name;
        }
    }
}
