//! Variants of a manifest: some dotted keys overridden, then read and checked like the manifest itself. The trials of a
//! search are such variants.
//!
//! Start at [`Variants::make`]. That a space of a search makes sense is found by making variants too: one for each end
//! of each range, so that a wrong key or value is told in the same words as if it stood in the manifest, with the caret
//! under the range's end.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::config::{Entry, Log, Node, Problem, Severity, Span, Table, Value, did_you_mean, toml};
use crate::stages::search::{self, Dimension, Search};
use crate::stages::{self, Kind, Upstream};

use super::overrides::{self, Override};
use super::{StageEntry, graph};

/// Keys and their values, by path from the root.
pub type Changes = [(Vec<(String, Span)>, Node)];

/// What variants are made from: the manifest with profile and `--set` in force.
#[derive(Clone)]
pub struct Variants {
    table: Arc<Table>,
    kinds: &'static [Kind],
    seed: (u64, Option<Span>),
    /// The stages as they stand, by the entry of their table; read when the first variant is made.
    base: Arc<OnceLock<Vec<Vec<graph::Read>>>>,
}

impl fmt::Debug for Variants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variants").field("seed", &self.seed.0).finish_non_exhaustive()
    }
}

/// The stages of a variant, down to the one that is tuned: in the order of the manifest.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The stages.
    pub nodes: Vec<stages::Node>,
    /// Their keys, by the same index.
    pub entries: Vec<Arc<StageEntry>>,
}

impl Variants {
    /// The kinds of stage that there are.
    pub fn kinds(&self) -> &'static [Kind] {
        self.kinds
    }

    pub(super) fn new(table: Table, kinds: &'static [Kind], seed: (u64, Option<Span>)) -> Variants {
        Variants { table: Arc::new(table), kinds, seed, base: Arc::default() }
    }

    /// The table of all stages.
    pub(super) fn stages(&self) -> Option<&Node> {
        self.table.get("stages").map(|entry| &entry.node)
    }

    /// A stage's table as canonical text; of a search's second best model, the search's.
    pub(super) fn text_of(&self, stage: &str) -> String {
        let stage = stage.split('.').next().unwrap_or(stage);
        match self.stages().map(|node| &node.value) {
            Some(Value::Table(stages)) => stages.get(stage).map(|entry| toml(&entry.node.value)).unwrap_or_default(),
            _ => String::new(),
        }
    }

    /// The stages down to `tuned`, with these keys overridden.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn make(&self, tuned: &str, changes: &Changes) -> Result<Variant, Vec<Problem>> {
        self.make_below(tuned, changes).unwrap_or_else(|| self.make_whole(tuned, changes))
    }

    /// [`Variants::make`] of which only the stages from the first overridden one on are read: a search has thousands of
    /// variants. `None` where what is above them has an error of its own, or the changes are not all of stages that are
    /// there.
    fn make_below(&self, tuned: &str, changes: &Changes) -> Option<Result<Variant, Vec<Problem>>> {
        let Value::Table(stages) = &self.stages()?.value else { return None };
        let last = stages.entries.iter().position(|entry| entry.key == tuned)?;
        let tables = &stages.entries[..=last];
        let mut changed: Vec<Cow<'_, Entry>> = tables.iter().map(Cow::Borrowed).collect();
        let mut first = last + 1;
        for (path, node) in changes {
            let [(root, _), (stage, _), _, ..] = path.as_slice() else { return None };
            let at = tables.iter().position(|entry| root == "stages" && entry.key == *stage)?;
            overrides::apply_to(changed[at].to_mut(), &path[2..], node).ok()?;
            first = first.min(at);
        }
        let base = self.base.get_or_init(|| self.read_base(&stages.entries));
        let above: Vec<graph::Read> = base.get(..first)?.iter().flatten().cloned().collect();
        let mut problems = Vec::new();
        let is_stage = |name: &str| tables.iter().any(|entry| entry.key == name);
        let below = changed[first..].iter().map(Cow::as_ref);
        let read = graph::read_below(above, below, &is_stage, self.seed, self.kinds, &mut problems);
        let (nodes, entries) = graph::finish(read, &mut problems);
        problems.retain(|problem| problem.severity == Severity::Error);
        Some(if problems.is_empty() { Ok(Variant { nodes, entries }) } else { Err(problems) })
    }

    /// The stages from the top, each table's own, down to the first one with an error.
    fn read_base(&self, tables: &[Entry]) -> Vec<Vec<graph::Read>> {
        let is_stage = |name: &str| tables.iter().any(|entry| entry.key == name);
        let mut above = Vec::new();
        let mut base = Vec::new();
        for table in tables {
            let (n_above, mut problems) = (above.len(), Vec::new());
            above = graph::read_below(above, [table], &is_stage, self.seed, self.kinds, &mut problems);
            graph::finish(above.clone(), &mut problems);
            if problems.iter().any(|problem| problem.severity == Severity::Error) {
                break;
            }
            base.push(above[n_above..].to_vec());
        }
        base
    }

    fn make_whole(&self, tuned: &str, changes: &Changes) -> Result<Variant, Vec<Problem>> {
        let mut table = (*self.table).clone();
        if let Some(stages) = table.entries.iter_mut().find(|entry| entry.key == "stages")
            && let Value::Table(stages) = &mut stages.node.value
            && let Some(at) = stages.entries.iter().position(|entry| entry.key == tuned)
        {
            stages.entries.truncate(at + 1);
        }
        let mut problems = Vec::new();
        for (path, node) in changes {
            let change = Override { path: path.clone(), node: node.clone() };
            problems.extend(overrides::apply(&mut table, &change).err());
        }
        let stages = table.get("stages").map(|entry| &entry.node);
        let (nodes, entries) = graph::read(stages, self.seed, self.kinds, &mut problems);
        problems.retain(|problem| problem.severity == Severity::Error);
        if problems.is_empty() { Ok(Variant { nodes, entries }) } else { Err(problems) }
    }
}

/// A variable of an architecture that has a value in a search only.
pub(super) struct StandIn {
    stage: String,
    name: String,
    span: Span,
}

/// Gives the lower end of its range to each `{name}` of an architecture that a search fills and the manifest does not,
/// so that the stage can be read and checked.
pub(super) fn put_stand_ins(table: &mut Table) -> Vec<StandIn> {
    let mut found: Vec<Dimension> = Vec::new();
    let Some(Entry { node: Node { value: Value::Table(stages), .. }, .. }) = table.get("stages") else {
        return Vec::new();
    };
    for entry in &stages.entries {
        let Value::Table(keys) = &entry.node.value else { continue };
        let is_search = match keys.get("kind").map(|kind| &kind.node.value) {
            Some(Value::Text { text, .. }) => text == search::KIND.name,
            _ => entry.key == search::KIND.name,
        };
        if is_search && keys.get("space").is_some() {
            found.extend(search::space_of(keys));
        }
    }
    let mut stand_ins = Vec::new();
    for dimension in found {
        let [(root, _), (stage, _), (vars, _), (name, span)] = dimension.path.as_slice() else { continue };
        let is_set = value_at(table, &dimension.path).is_some();
        if root != "stages" || vars != "vars" || is_set || value_at(table, &dimension.path[..2]).is_none() {
            continue;
        }
        let Some((node, _)) = dimension.corners().into_iter().next() else { continue };
        let (stage, name, span) = (stage.clone(), name.clone(), *span);
        if overrides::apply(table, &Override { path: dimension.path, node }).is_ok() {
            stand_ins.push(StandIn { stage, name, span });
        }
    }
    stand_ins
}

fn value_at<'t>(table: &'t Table, path: &[(String, Span)]) -> Option<&'t Node> {
    let ((first, _), rest) = path.split_first()?;
    let node = &table.get(first)?.node;
    match (&node.value, rest) {
        (_, []) => Some(node),
        (Value::Table(inner), rest) => value_at(inner, rest),
        _ => None,
    }
}

/// Checks the space of every search, and that nothing but a search reads a stage whose variables only the search fills.
pub(super) fn check(
    variants: &Variants,
    nodes: &[stages::Node],
    entries: &[Arc<StageEntry>],
    stand_ins: &[StandIn],
    problems: &mut Vec<Problem>,
) {
    for (own, node) in nodes.iter().enumerate() {
        let Some(search) = node.stage.search().filter(|search| search.rank() == 1) else { continue };
        let Some(&tuned) = node.inputs.first() else { continue };
        if nodes[tuned].stage.kind() != "train" {
            continue;
        }
        let space = Space { variants, nodes, search, tuned };
        let n_before = problems.len();
        let known: Vec<&Dimension> =
            search.space().iter().filter(|dimension| space.check_key(dimension, problems)).collect();
        let base: Vec<Problem> = problems[..n_before].to_vec();
        let is_well = space.check_ends(&known, &base, problems);
        if is_well && known.len() == search.space().len() {
            space.check_together(&known, &base, problems);
            space.check_rounds(&entries[own], &base, problems);
        }
    }
    for stand_in in stand_ins {
        let Some(stage) = nodes.iter().position(|node| node.name == stand_in.stage) else { continue };
        let reads = |node: &&stages::Node| node.inputs.contains(&stage) && node.stage.search().is_none();
        if let Some(reader) = nodes.iter().find(reads) {
            let (name, stage) = (&stand_in.name, &stand_in.stage);
            let message = format!("`{{{name}}}` has a value in the search only, but `{}` reads `{stage}`", reader.name);
            let help = format!("let it read the search, or give `{stage}` a value: `vars = {{ {name} = … }}`");
            problems.push(Problem::error(stand_in.span, message).help(help));
        }
    }
}

/// A search and what its space is about.
struct Space<'s> {
    variants: &'s Variants,
    nodes: &'s [stages::Node],
    search: &'s Search,
    tuned: usize,
}

/// Keys of the tuned stage that are each round's own, or that decide what is planned.
const BUDGET: [&str; 3] = ["epochs", "data_fraction", "trial"];

/// Keys of `ingest` that change what an image looks like, not which images there are.
const APPEARANCE: [&str; 3] = ["resize", "channels", "alpha"];

impl Space<'_> {
    fn tuned_name(&self) -> &str {
        &self.nodes[self.tuned].name
    }

    /// Whether the key is one that a search may vary.
    fn check_key(&self, dimension: &Dimension, problems: &mut Vec<Problem>) -> bool {
        let mut fail = |span: Span, message: String, help: Option<String>| {
            problems.push(Problem { help, ..Problem::error(span, message) });
            false
        };
        let path: Vec<&str> = dimension.path.iter().map(|(segment, _)| segment.as_str()).collect();
        let span = dimension.path[0].1;
        let names = || self.nodes.iter().map(|node| node.name.as_str());
        let [root, stage, key, ..] = path[..] else {
            let help = format!("for example `stages.{}.learning_rate`", self.tuned_name());
            return fail(span, format!("`{}` is no key of a stage", dimension.key), Some(help));
        };
        if root != "stages" {
            let help = names().any(|name| name == root).then(|| format!("write `stages.{}`", dimension.key));
            return fail(
                span,
                format!("a search varies keys of stages, which begin with `stages.`, got `{root}`"),
                help,
            );
        }
        let at = dimension.path[1].1;
        let Some(index) = self.nodes.iter().position(|node| node.name == stage) else {
            return fail(at, format!("there is no stage `{stage}`"), did_you_mean(stage, names()));
        };
        let upstream = Upstream { own: self.tuned, nodes: self.nodes };
        let tuned = self.tuned_name();
        // Where an `input` is searched, what it may name is known to the variants only.
        let is_rewired =
            self.search.space().iter().any(|other| other.path.last().is_some_and(|(key, _)| key == "input"));
        let is_above = index == self.tuned || upstream.own_lineage().contains(&index);
        if !(is_above || is_rewired && index < self.tuned) {
            let help = format!("a search varies `{tuned}` and the stages that it reads");
            return fail(at, format!("`{tuned}` does not read stage `{stage}`"), Some(help));
        }
        let at = dimension.path[2].1;
        match self.nodes[index].stage.kind() {
            "split" => {
                fail(at, "a search cannot vary a `split`: its trials are compared on the same images".to_owned(), None)
            }
            "ingest" if !APPEARANCE.contains(&key) => {
                let help = "of an `ingest` it can vary `resize`, `channels` and `alpha`".to_owned();
                let message = format!("a search cannot vary `{key}`: its trials are compared on the same images");
                fail(at, message, Some(help))
            }
            _ if index == self.tuned && BUDGET.contains(&key) => {
                let help = if key == "trial" { None } else { Some(format!("set it in `rounds`: `{{ {key} = … }}`")) };
                fail(at, format!("`{key}` is each round's own"), help)
            }
            _ if index == self.tuned && key == "final" => {
                fail(at, "a search cannot vary `final`: it decides which models there are".to_owned(), None)
            }
            _ => true,
        }
    }

    /// Makes a variant and adds what is wrong with it, and was not without the change; whether all is well.
    fn try_out(
        &self,
        changes: &Changes,
        base: &[Problem],
        anchor: &dyn Fn(Problem) -> Problem,
        problems: &mut Vec<Problem>,
    ) -> bool {
        let Err(found) = self.variants.make(self.tuned_name(), changes) else { return true };
        let mut is_well = true;
        for problem in found {
            let is_known = base.iter().any(|known| known.span == problem.span && known.message == problem.message);
            if !is_known {
                is_well = false;
                let problem = anchor(problem);
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        is_well
    }

    /// Both ends of every range by themselves, and every item of a choice.
    fn check_ends(&self, known: &[&Dimension], base: &[Problem], problems: &mut Vec<Problem>) -> bool {
        let mut is_well = true;
        for dimension in known {
            for (node, end) in dimension.corners() {
                let text = crate::config::display(&node.value);
                let is_in_place = |span: Span| {
                    let is_within =
                        |outer: Span| outer.source == span.source && outer.start <= span.start && span.end <= outer.end;
                    is_within(dimension.span) || dimension.path.iter().any(|(_, segment)| is_within(*segment))
                };
                let anchor = |problem: Problem| {
                    if is_in_place(problem.span) {
                        return problem;
                    }
                    let message = format!("{} (with `{}` = {text})", problem.message, dimension.key);
                    Problem { help: problem.help, ..Problem::error(end, message) }
                };
                is_well &= self.try_out(&[(dimension.path.clone(), node)], base, &anchor, problems);
            }
        }
        is_well
    }

    /// All lower ends at once, and all upper ends: shapes that do not fit only together.
    fn check_together(&self, known: &[&Dimension], base: &[Problem], problems: &mut Vec<Problem>) {
        for (is_upper, side) in [(false, "lower"), (true, "upper")] {
            let mut changes = Vec::new();
            let mut last = Span::default();
            for dimension in known {
                let corners = dimension.corners();
                let corner = if is_upper { corners.last() } else { corners.first() };
                if let Some((node, span)) = corner {
                    changes.push((dimension.path.clone(), node.clone()));
                    last = *span;
                }
            }
            let anchor = |problem: Problem| {
                let message = format!("{} (with every key at the {side} end of its range)", problem.message);
                Problem { help: problem.help, ..Problem::error(last, message) }
            };
            if !self.try_out(&changes, base, &anchor, problems) {
                return;
            }
        }
    }

    /// The budgets of the rounds.
    fn check_rounds(&self, entry: &StageEntry, base: &[Problem], problems: &mut Vec<Problem>) {
        let log = Log { resolved: entry.resolved.clone(), ..Log::default() };
        for (i, round) in self.search.rounds().iter().enumerate() {
            let Some(epochs) = round.epochs else { continue };
            let span = log.span_of(&format!("rounds[{i}].epochs"), entry.header);
            let path = ["stages", self.tuned_name(), "epochs"].map(|segment| (segment.to_owned(), span));
            let anchor = |problem: Problem| {
                let message = format!("{} (with `epochs` = {epochs})", problem.message);
                Problem { help: problem.help, ..Problem::error(span, message) }
            };
            let node = Node { value: Value::Integer(epochs.into()), span };
            self.try_out(&[(path.to_vec(), node)], base, &anchor, problems);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::{Manifest, Overrides};

    /// Every key of every stage above the tuned one changed, to what fits and to what does not, alone and in pairs.
    #[test]
    fn a_variant_read_from_the_first_changed_stage_on_is_the_one_read_from_the_top() {
        let text = "schema = 1\nname = \"m\"\n[stages.ingest]\nsource = \"builtin:digits\"\n[stages.split]\nfolds = 5\n\
                    [stages.preprocess]\nsteps = [\"center\"]\n[stages.reduce]\nmethod = { pca = { components = 20 } }\n\
                    [stages.train]\narchitecture = \"INPUT - FC({width}) - RELU - FC\"\nepochs = 2\n[stages.search]\n\
                    rounds = [{ trials = 4 }]\n[stages.search.space]\n\"stages.train.vars.width\" = { choice = [8, 16] }\n\
                    \"stages.reduce.method.pca.components\" = { choice = [8, 16] }\n[stages.evaluate]\n";
        let manifest = Manifest::from_bytes(Path::new("m.toml"), text.as_bytes(), &Overrides::default(), stages::KINDS)
            .unwrap_or_else(|found| panic!("{found}"));
        let sets = [
            "stages.ingest.resize=[4, 4]",
            "stages.ingest.channels=3",
            "stages.ingest.nonsense=1",
            "stages.split.folds=3",
            "stages.split.folds=0",
            "stages.preprocess.steps=[\"scale\"]",
            "stages.preprocess.steps[0]=\"scale\"",
            "stages.preprocess.input=\"train\"",
            "stages.reduce.method.pca.components=7",
            "stages.reduce.method.pca.components=70",
            "stages.reduce.method.pca.whiten=true",
            "stages.reduce.input=\"split\"",
            "stages.train.vars.width=5",
            "stages.train.architecture=\"INPUT - CONV(8) - FC\"",
            "stages.train.learning_rate=0.5",
            "stages.train.seed=7",
            "stages.train.input=\"nobody\"",
            "stages.train.input=\"search\"",
            "stages.train={ architecture = \"INPUT - FC\" }",
            "stages.nobody.epochs=1",
            "stages.evaluate.bootstrap=10",
            "seed=7",
        ];
        let changes: Vec<(Vec<(String, Span)>, Node)> = sets
            .iter()
            .map(|set| overrides::parse_set(set, 1).unwrap_or_else(|found| panic!("{set}: {found:?}")))
            .map(|change| (change.path, change.node))
            .collect();
        let (mut n_below, mut n_wrong) = (0, 0);
        let mut compare = |changes: &Changes| {
            let variants = &manifest.variants;
            let whole = variants.make_whole("train", changes);
            n_wrong += usize::from(whole.is_err());
            let Some(below) = variants.make_below("train", changes) else { return };
            n_below += 1;
            let shown = |made: Result<Variant, Vec<Problem>>| match made {
                Ok(variant) => format!("{:?} {:?}", variant.nodes, variant.entries),
                Err(problems) => format!("{problems:?}"),
            };
            assert_eq!(shown(below), shown(whole), "{changes:?}");
        };
        for (i, one) in changes.iter().enumerate() {
            compare(std::slice::from_ref(one));
            for other in &changes[..i] {
                compare(&[one.clone(), other.clone()]);
            }
        }
        assert!(n_below > 100 && n_wrong > 100, "{n_below} read from below, {n_wrong} wrong");
    }
}
