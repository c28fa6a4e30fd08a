//! `search`: random search over dotted keys in rounds, from coarse to fine to final (Bergstra and Bengio 2012).
//!
//! A trial is the manifest with some keys overridden, planned like any other: the variants are made by `manifest`, the
//! rounds are expanded by `runner`, one after the other. Here is what they ask: which settings the trials of a round
//! have ([`Search::trials`]), and how they rank ([`rank`]). Nothing depends on who finished first: a trial's settings
//! come from streams (seed, search, key, round, trial), and a round is ranked when all of its trials have ended.
//!
//! A round trains the trials that the round before kept, with its own budget, and new ones drawn from ranges narrowed
//! around those. So a round without new trials is a barrier: the hopeless ones end there, the others go on. After the
//! last round the `keep` best are handed on as models, each trained on every fold: the best under the stage's own name,
//! the others as `NAME.2`, `NAME.3`, …, which an ensemble of the stage takes as members too.

mod rank;
mod rebuild;
mod space;

use super::{
    Context, Flow, Kind, Learns, Need, Output, Part, Places, Reads, Stage, StageError, Task, Upstream, lineage, train,
};
use crate::artifact::dataset::NUMBERS_FILES;
use crate::artifact::model::{Description, MODEL};
use crate::artifact::predictions::{VALIDATION, VALIDATION_SELECTED, file_of, n_models};
use crate::artifact::search::{EXPLODED, Exploded, ROUND, Round as RoundResult, TRIALS};
use crate::artifact::{Files, Sink, put_document};
use crate::config::{self, Bounds, Form, Log, Node, Problem, Section, Span, Table, Value, describe};
use crate::data::metrics;

pub use rebuild::rebuild;
pub use space::{Dimension, Range, Setting};

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "search",
    read,
    example: "schema = 1\nname = \"example\"\n\n[stages.ingest]\nsource = \"builtin:digits\"\n\n[stages.split]\n\n\
              [stages.train]\narchitecture = \"INPUT - FC({units}) - RELU - FC\"\nepochs = 8\n\n[stages.search]\n\
              tune = \"train\"\nspace.stages.train.learning_rate = { log-uniform = [1e-4, 1e-1] }\n\
              space.stages.train.vars.units = { choice = [16, 32, 64] }\n\
              rounds = [{ trials = 8, epochs = 1 }, { trials = 4, epochs = 3 }, {}]\n",
};

/// Searches for the best settings of a train stage and the stages above it.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Keys and ranges: `"stages.cnn.learning_rate" = { log-uniform = [1e-4, 1e-1] }`; also `uniform`, `integer`,
    /// `choice`. Any key of the tuned stage and of the stages that it reads; `stages.cnn.vars.NAME` fills `{NAME}` in
    /// its architecture.
    space: Vec<Dimension>,
    /// From coarse to final.
    rounds: Vec<Round>,
    /// By what trials are ranked, on their validation images ["accuracy"].
    metric: &'static str,
    /// How many models are handed on [1].
    keep: u32,
    /// Seconds after which no more trials are begun, as `"90s"`, `"30m"`, `"2h"`; absent: no limit.
    time_limit: Option<u64>,
    /// "error" (the default): a run that reached the limit ends with exit code 1. "accept": with 0.
    is_limit_accepted: bool,
    /// The stage's own seed; absent: the manifest's.
    seed: Option<u64>,
    /// 1 for the search itself; the second best model is another node of the graph, and so on.
    rank: u32,
    placement: Placement,
}

/// What a round reads of its trials.
pub const TRIAL: Reads = Reads(&[MODEL, "validation*.safetensors", EXPLODED]);

/// A round, as the manifest has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// New trials, drawn from this round's ranges; at least 1 in the first round [0 in the others].
    pub trials: u32,
    /// Epochs of a trial; absent: as many as the tuned stage has.
    pub epochs: Option<u32>,
    /// Share of the training images that trials learn from, above 0, at most 1 [1].
    pub data_fraction: f64,
    /// Folds that a trial is trained and validated on, the first ones [1; all of them in the last round].
    pub folds: Option<u32>,
    /// How many trials go on into the next round [a quarter, at least the search's `keep`; of the last round it is the
    /// search's `keep`].
    pub keep: u32,
}

/// A trial of a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Which round, from 1.
    pub round: u32,
    /// Its number among the drawn or among the kept ones of the round, from 1.
    pub number: u32,
    /// The trial of an earlier round that it repeats with this round's budget.
    pub origin: Option<String>,
    /// A value for each dimension of the space.
    pub settings: Vec<Setting>,
}

impl Trial {
    /// `r1t7`, the seventh that was drawn in round 1; `r2k1`, the best that round 1 kept, in round 2.
    pub fn id(&self) -> String {
        let letter = if self.origin.is_some() { 'k' } else { 't' };
        format!("r{}{letter}{}", self.round, self.number)
    }
}

/// Where the trials of a search are in the graph, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// The name of the tuned stage.
    pub tuned: String,
    /// The rounds that are known, from the first.
    pub rounds: Vec<PlacedRound>,
    /// The models of the last round by rank, once that is known: the index of the trial's node.
    pub winners: Vec<usize>,
}

/// A round whose trials are nodes of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedRound {
    /// The range of each dimension in this round.
    pub ranges: Vec<Range>,
    /// Trials and the indices of their nodes; no node for settings with which nothing can be trained.
    pub trials: Vec<(Trial, Option<usize>)>,
    /// Epochs that a trial has.
    pub epochs: u32,
}

fn read(section: &mut Section<'_>) -> Box<dyn Stage> {
    let meaning = "The `train` stage whose keys are searched; absent: the stage above.";
    if let Some(Node { value: Value::Text { text, .. }, span }) =
        section.key("tune", meaning, "\"cnn\"").form(None, || Form::Text)
    {
        section.record("tune", config::quote(text), Some(*span));
    }
    let space = space::read(section);
    let metric = read_metric(section);
    let keep = section.key("keep", "How many models are handed on.", "3").whole(1..=100).or(1) as u32;
    let rounds = read_rounds(section, keep);
    Box::new(Search {
        space,
        rounds,
        metric,
        keep,
        time_limit: read_time_limit(section),
        is_limit_accepted: section
            .key("on_time_limit", "How a run ends that reached the limit.", "\"accept\"")
            .word(&[("error", "With exit code 1.", false), ("accept", "With exit code 0.", true)]),
        seed: super::read_seed(section),
        rank: 1,
        placement: Placement::default(),
    })
}

fn read_metric(section: &mut Section<'_>) -> &'static str {
    let default = "accuracy";
    let form = || Form::Words(metrics::METRICS.iter().map(|m| (m.name.to_owned(), m.meaning)).collect());
    let key = section.key("metric", "By what trials are ranked, on their validation images.", "\"log-loss\"");
    let Some(node) = key.form(Some(&config::quote(default)), form) else {
        section.record("metric", config::quote(default), None);
        return default;
    };
    let Value::Text { text, .. } = &node.value else {
        section.expected("metric", node, "the name of a metric");
        return default;
    };
    match metrics::find(text) {
        Some(metric) => {
            section.record("metric", config::quote(metric.name), Some(node.span));
            metric.name
        }
        None => {
            let problem = Problem::error(node.span, format!("unknown metric `{text}`"));
            section.log().push(problem.help(metrics::suggest(text)));
            default
        }
    }
}

/// `"90s"`, `"30m"`, `"2h"`, or a whole number of seconds.
fn read_time_limit(section: &mut Section<'_>) -> Option<u64> {
    const MOST: u64 = 366 * 24 * 3600;
    let meaning =
        "Time after which no more trials are begun, in s, m or h; a whole number is seconds; absent: no limit.";
    let form = || Form::Either(vec![Form::Whole(1..=MOST), Form::Duration]);
    let node = section.key("time_limit", meaning, "\"2h\"").form(None, form)?;
    let seconds = match &node.value {
        Value::Integer(seconds) => u64::try_from(*seconds).ok(),
        // A number without a unit is no string.
        Value::Text { text, .. } if text.trim().ends_with(['s', 'm', 'h']) => crate::config::seconds(text),
        _ => None,
    };
    match seconds.filter(|seconds| (1..=MOST).contains(seconds)) {
        Some(seconds) => {
            section.record("time_limit", seconds.to_string(), Some(node.span));
            Some(seconds)
        }
        None => {
            section.expected("time_limit", node, "a time such as `\"90s\"`, `\"30m\"` or `\"2h\"`");
            None
        }
    }
}

/// What a round may spend.
struct Budget {
    trials: u32,
    epochs: Option<u32>,
    data_fraction: f64,
    folds: Option<u32>,
}

impl Budget {
    fn read(section: &mut Section<'_>, is_first: bool) -> Budget {
        let meaning = "New settings that are drawn; the first round needs some.";
        let key = section.key("trials", meaning, "20").whole(u64::from(is_first)..=100_000);
        let trials = if is_first { key.optional() } else { Some(key.or(0)) };
        if trials.is_none() && section.node("trials").is_none() {
            let message = "the first round has no `trials`";
            let problem = Problem::error(section.span(), message);
            section.log().push(problem.help("add `trials`: how many settings are drawn"));
        }
        let meaning = "Epochs of a trial; absent: as many as the tuned stage has.";
        let epochs = section.key("epochs", meaning, "2").whole(1..=1_000_000).optional();
        let meaning = "Share of the training images that trials learn from.";
        let data_fraction = section.key("data_fraction", meaning, "0.5").number(Bounds::Share).or(1.0);
        let meaning = "Folds that a trial is trained on, the first ones; absent: 1, and all in the last round.";
        let folds = section.key("folds", meaning, "2").whole(1..=1000).optional();
        let small = |n: u64| n as u32;
        Budget { trials: trials.map_or(1, small), epochs: epochs.map(small), data_fraction, folds: folds.map(small) }
    }
}

const KEEP: &str = "Trials that go on into the next round; absent: a quarter, at least the search's `keep`.";

fn read_keep(section: &mut Section<'_>, default: u32) -> u32 {
    section.key("keep", KEEP, "2").whole(1..=100_000).or(default.into()) as u32
}

fn read_rounds(section: &mut Section<'_>, keep: u32) -> Vec<Round> {
    let header = section.span();
    let example = "rounds = [{ trials = 20, epochs = 2 }, { trials = 10, epochs = 5 }, {}]";
    let form = || {
        let keys = describe(|section| {
            let budget = Budget::read(section, false);
            read_keep(section, 1);
            budget
        });
        Form::List(Box::new(Form::Table(keys)), 1..=20)
    };
    let key = section.key("rounds", "From coarse to final.", "[{ trials = 20, epochs = 2 }, {}]");
    let Some(node) = key.required_form(form) else {
        let problem = Problem::error(header, "missing key `rounds`");
        section.log().push(problem.help(format!("add `{example}`: from coarse to fine to final")));
        return Vec::new();
    };
    let items = match &node.value {
        Value::List(items) if items.is_empty() => {
            section.log().push(Problem::error(node.span, "`rounds` is empty").help(format!("write `{example}`")));
            return Vec::new();
        }
        Value::List(items) if items.len() <= 20 => items,
        Value::List(items) => {
            let message = format!("`rounds` expects at most 20 rounds, got {}", items.len());
            section.log().push(Problem::error(node.span, message));
            return Vec::new();
        }
        _ => {
            section.expected("rounds", node, "a list of tables, from coarse to final");
            return Vec::new();
        }
    };
    let mut rounds = Vec::new();
    let mut carried = 0;
    for (i, item) in items.iter().enumerate() {
        let (is_first, is_last) = (i == 0, i + 1 == items.len());
        let Value::Table(table) = &item.value else {
            section.expected("rounds", item, "tables such as `{ trials = 20, epochs = 2 }`");
            return Vec::new();
        };
        let mut inner = section.inner(table, item.span, &format!("rounds[{i}]"));
        let n_problems = inner.log().problems.len();
        let Budget { trials, epochs, data_fraction, folds } = Budget::read(&mut inner, is_first);
        let n_trials = carried + trials;
        let kept = if is_last {
            if let Some(entry) = table.get("keep") {
                inner.key("keep", KEEP, "2").form(None, || Form::Anything);
                let problem = Problem::error(entry.key_span, "the last round hands on what the search's `keep` says");
                inner.log().push(problem.help("set `keep` of the search instead"));
            }
            keep
        } else {
            read_keep(&mut inner, (n_trials.div_ceil(4)).max(keep).min(n_trials.max(1)))
        };
        let is_well = inner.log().problems.len() == n_problems;
        inner.finish();
        if is_well && kept > n_trials {
            let (span, whose) = match table.get("keep") {
                Some(entry) if !is_last => (entry.node.span, "this round"),
                _ => (item.span, "the last round"),
            };
            let message = format!("`keep` is {kept}, but {whose} has {n_trials} trials");
            let span = if is_last { section.log().span_of("keep", span) } else { span };
            let problem = Problem::error(span, message);
            section.log().push(problem.help("let an earlier round `keep` more, or add `trials`"));
        }
        carried = kept;
        rounds.push(Round { trials, epochs, data_fraction, folds, keep: kept });
    }
    rounds
}

/// The keys and ranges under `space` of a search's table, as far as they are right.
pub fn space_of(table: &Table) -> Vec<Dimension> {
    space::read(&mut Section::new(Some(table), Span::default(), "", &mut Log::default()))
}

impl Search {
    /// The keys and their ranges.
    pub fn space(&self) -> &[Dimension] {
        &self.space
    }

    /// The rounds, in order.
    pub fn rounds(&self) -> &[Round] {
        &self.rounds
    }

    /// How many models are handed on.
    pub fn keep(&self) -> u32 {
        self.keep
    }

    /// Seconds after which no more trials are begun.
    pub fn time_limit(&self) -> Option<u64> {
        self.time_limit
    }

    /// Whether a run that reached the time limit is a good one.
    pub fn is_limit_accepted(&self) -> bool {
        self.is_limit_accepted
    }

    /// Which of the search's models this node is: 1 for the search itself.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// What is placed of it.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The node for its model of this rank.
    pub fn of_rank(&self, rank: u32) -> Search {
        Search { rank, ..self.clone() }
    }

    /// The same search with its trials in the graph.
    pub fn placed(&self, placement: Placement) -> Search {
        Search { placement, ..self.clone() }
    }

    /// The ranges of the round after `results`: each narrowed around the trials that were kept, round by round.
    pub fn ranges(&self, results: &[RoundResult]) -> Vec<Range> {
        let mut ranges: Vec<Range> = self.space.iter().map(|dimension| dimension.range.clone()).collect();
        for result in results {
            let kept: Vec<Vec<Setting>> =
                result.trials.iter().filter(|t| t.chosen).filter_map(|t| self.settings(&t.settings)).collect();
            for (i, range) in ranges.iter_mut().enumerate() {
                // A choice keeps its items in the order of the space, by whose places settings are.
                let of_key: Vec<Setting> = kept.iter().map(|settings| settings[i]).collect();
                let of_key: Vec<Setting> = match (&*range, &self.space[i].range) {
                    (Range::Choice(now), Range::Choice(all)) => of_key
                        .into_iter()
                        .filter_map(|setting| match setting {
                            Setting::Choice(at) => {
                                now.iter().position(|item| item.value == all[at].value).map(Setting::Choice)
                            }
                            _ => None,
                        })
                        .collect(),
                    _ => of_key,
                };
                *range = range.narrowed(&of_key);
            }
        }
        ranges
    }

    fn settings(&self, texts: &[String]) -> Option<Vec<Setting>> {
        if texts.len() != self.space.len() {
            return None;
        }
        self.space.iter().zip(texts).map(|(dimension, text)| dimension.parse(text)).collect()
    }

    /// The trials of the round after `results`: those that the round before kept, then the new ones.
    ///
    /// # Determinism
    /// A key of trial t of round r is drawn from the stream (seed, search, key, r, t).
    pub fn trials(&self, seed: u64, results: &[RoundResult]) -> Vec<Trial> {
        let round = results.len() as u32 + 1;
        let Some(config) = self.rounds.get(results.len()) else { return Vec::new() };
        let ranges = self.ranges(results);
        let mut trials = Vec::new();
        if let Some(before) = results.last() {
            for kept in before.trials.iter().filter(|trial| trial.chosen) {
                if let Some(settings) = self.settings(&kept.settings) {
                    let number = trials.len() as u32 + 1;
                    let origin = kept.origin.clone().or_else(|| Some(kept.trial.clone()));
                    trials.push(Trial { round, number, origin, settings });
                }
            }
        }
        trials.extend((1..=config.trials).map(|number| {
            let named = self.space.iter().map(|dimension| dimension.key.as_str()).zip(&ranges);
            let drawn = space::draw(named, seed, round, number);
            let settings = drawn.into_iter().enumerate().map(|(i, setting)| self.of_space(i, &ranges[i], setting));
            Trial { round, number, origin: None, settings: settings.collect() }
        }));
        trials
    }

    /// A setting of a narrowed range as one of the space's.
    fn of_space(&self, dimension: usize, range: &Range, setting: Setting) -> Setting {
        match (setting, range, &self.space[dimension].range) {
            (Setting::Choice(at), Range::Choice(now), Range::Choice(all)) => {
                Setting::Choice(all.iter().position(|item| item.value == now[at].value).unwrap_or(0))
            }
            _ => setting,
        }
    }

    /// The keys that a trial overrides, and their values: its settings, its round's budget, and that it is a trial.
    pub fn overrides(&self, tuned: &str, trial: &Trial) -> Vec<(Vec<(String, Span)>, Node)> {
        let mut overrides: Vec<(Vec<(String, Span)>, Node)> = self
            .space
            .iter()
            .zip(&trial.settings)
            .map(|(dimension, &setting)| (dimension.path.clone(), dimension.node(setting)))
            .collect();
        let mut own = |key: &str, value: Value| {
            let path = ["stages", tuned, key].map(|segment| (segment.to_owned(), Span::default()));
            overrides.push((path.to_vec(), Node { value, span: Span::default() }));
        };
        own("trial", Value::Boolean(true));
        if let Some(round) = self.rounds.get(trial.round as usize - 1) {
            if let Some(epochs) = round.epochs {
                own("epochs", Value::Integer(epochs.into()));
            }
            own("data_fraction", Value::Float(round.data_fraction));
        }
        overrides
    }

    /// Folds that the trials of a round are trained on.
    fn folds(&self, round: u32, of: u32) -> u32 {
        let is_last = round as usize == self.rounds.len();
        let folds = self.rounds[round as usize - 1].folds.unwrap_or(if is_last { of } else { 1 });
        folds.min(of)
    }

    /// The keys of the record that a round's trials stand under: what was drawn, from where ([`rebuild`] reads them).
    pub fn records(&self, round: &PlacedRound, tuned: &str, n_folds: u32) -> Vec<(String, String)> {
        let mut records = Vec::new();
        let Some((first, _)) = round.trials.first() else { return records };
        // The order of a table's columns.
        let keys: Vec<String> = self.space.iter().map(|dimension| config::quote(&dimension.recorded_key())).collect();
        records.push((format!("ranges[r{}].order", first.round), format!("[{}]", keys.join(", "))));
        for (dimension, range) in self.space.iter().zip(&round.ranges) {
            records.push((format!("ranges[r{}].{}", first.round, dimension.recorded_key()), range.toml()));
        }
        records.push((format!("ranges[r{}].epochs", first.round), round.epochs.to_string()));
        records.push((format!("ranges[r{}].folds", first.round), self.folds(first.round, n_folds).to_string()));
        // The keys of its space are called in tables without what they begin with.
        records.push((format!("ranges[r{}].tune", first.round), config::quote(tuned)));
        for (trial, node) in &round.trials {
            let id = trial.id();
            // Nothing can be trained with these settings: nothing is delivered of it.
            records.extend(node.is_none().then(|| (format!("trials[{id}].trained"), "false".to_owned())));
            records.extend(trial.origin.iter().map(|origin| (format!("trials[{id}].origin"), config::quote(origin))));
            for (dimension, &setting) in self.space.iter().zip(&trial.settings) {
                records.push((format!("trials[{id}].{}", dimension.recorded_key()), dimension.text(setting)));
            }
        }
        records
    }

    /// The value by which a trial is ranked, for people who watch: from the artifacts of its folds and its data set.
    /// `None` of one that exploded.
    ///
    /// # Errors
    /// If a file is damaged.
    pub fn value(&self, folds: &[Files], dataset: &Files) -> Result<Option<f64>, StageError> {
        rank::value(self.metric, folds, dataset)
    }

    /// Whether a value of [`Search::value`] is better than another.
    pub fn is_better(&self, value: f64, other: f64) -> bool {
        if metrics::find(self.metric).is_none_or(|metric| metric.is_higher_better) {
            value > other
        } else {
            value < other
        }
    }

    /// By what trials are ranked.
    pub fn metric(&self) -> &'static str {
        self.metric
    }
}

impl Stage for Search {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn rooms(&self, part: Part, _upstream: &Upstream<'_>) -> Vec<&'static str> {
        match part {
            Part::Round(_) => vec![KIND.name, "draw", "metrics"],
            _ => vec![KIND.name],
        }
    }

    fn accepts(&self) -> &'static [Output] {
        &[Output::Model]
    }

    fn input_key(&self) -> &'static str {
        "tune"
    }

    fn search(&self) -> Option<&Search> {
        Some(self)
    }

    fn check(&self, inputs: &[Flow], span: Span, log: &mut Log) -> Flow {
        let flow = &inputs[0];
        for (i, round) in self.rounds.iter().enumerate() {
            if let Some(folds) = round.folds.filter(|&folds| folds > flow.folds) {
                let at = log.span_of(&format!("rounds[{i}].folds"), span);
                let message = format!("round {} wants {folds} folds, but the split has {}", i + 1, flow.folds);
                log.push(Problem::error(at, message).help("lower it, or give `split` more folds"));
            }
        }
        Flow { output: Output::Model, ..flow.clone() }
    }

    fn check_graph(&self, upstream: &Upstream<'_>, log: &mut Log) {
        let node = &upstream.nodes[upstream.own];
        let Some(&tuned) = node.inputs.first() else { return };
        let kind = upstream.nodes[tuned].stage.kind();
        if kind != "train" && self.rank == 1 {
            let span = log.span_of("tune", Span::default());
            let message = format!("`tune` expects a `train` stage, but `{}` is a `{kind}`", upstream.nodes[tuned].name);
            log.push(Problem::error(span, message));
        }
    }

    fn parts(&self, flow: &Flow) -> Vec<Part> {
        let rounds = (1..=self.rounds.len() as u32).filter(|_| self.rank == 1).map(Part::Round);
        let handed_on = (1..=flow.folds).map(Part::Fold).chain(flow.refit.then_some(Part::All));
        rounds.chain(handed_on).chain(train::parts_after(flow)).collect()
    }

    fn is_open(&self, part: Part) -> bool {
        match part {
            Part::Round(round) => self.placement.rounds.len() < round as usize,
            _ => self.placement.winners.len() < self.rank as usize,
        }
    }

    fn needs(&self, part: Part, upstream: &Upstream<'_>) -> Vec<Need> {
        let folds = upstream.nodes[upstream.own].flow.folds;
        // The nodes of the other models stand directly behind the search.
        let search = upstream.own - (self.rank as usize - 1);
        match part {
            Part::Round(round) => match self.placement.rounds.get(round as usize - 1) {
                Some(placed) => {
                    let mut needs: Vec<Need> = Vec::new();
                    for node in placed.trials.iter().filter_map(|(_, node)| *node) {
                        let trial = Upstream { own: node, nodes: upstream.nodes };
                        needs.extend(lineage::dataset_need(&trial, NUMBERS_FILES));
                        let parts = (1..=self.folds(round, folds)).map(Part::Fold);
                        needs.extend(parts.map(|part| Need { stage: node, part, files: TRIAL }));
                    }
                    needs
                }
                None if round > 1 => vec![Need { stage: search, part: Part::Round(round - 1), files: Reads(&[ROUND]) }],
                None => Vec::new(),
            },
            part => match self.placement.winners.get(self.rank as usize - 1) {
                Some(&stage) => vec![Need { stage, part, files: Reads::ALL }],
                None => {
                    let part = Part::Round(self.rounds.len() as u32);
                    vec![Need { stage: search, part, files: Reads(&[ROUND]) }]
                }
            },
        }
    }

    fn reads_key(&self, part: Part, key: &str) -> bool {
        let Part::Round(round) = part else { return false };
        let is_last = round as usize == self.rounds.len();
        let own = format!("rounds[{}].", round - 1);
        key == "metric"
            || key.starts_with("space.")
            || key == "keep" && is_last
            || key.strip_prefix(&own).is_some_and(|key| ["trials", "keep", "data_fraction"].contains(&key))
            || key.starts_with(&format!("ranges[r{round}]."))
            || key.starts_with(&format!("trials[r{round}t"))
            || key.starts_with(&format!("trials[r{round}k"))
    }

    /// Its settings are drawn from it.
    fn uses_seed(&self) -> bool {
        true
    }

    fn own_seed(&self) -> Option<u64> {
        self.seed
    }

    fn learns(&self, part: Part) -> Option<Learns> {
        // Its folds are copies of what a trial learned.
        let learns = Learns { fitted: Reads(&[ROUND, TRIALS]), says: Reads(&[]), chosen: Some("ranks its trials") };
        matches!(part, Part::Round(_)).then_some(learns)
    }

    fn run(&self, task: &Task, _: &Places, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
        match task.part {
            Part::Round(round) => rank::run(self, round, task, context, sink),
            _ => hand_on(task, sink),
        }
    }
}

/// Copies a trial's model. Its validation rows chose it, so what it says of those is `validation_selected`.
fn hand_on(task: &Task, sink: &mut dyn Sink) -> Result<(), StageError> {
    let files = task.input(Output::Model);
    if Exploded::is_in(files) {
        let message = "the training of the best trial exploded on this fold";
        let help = "use more `folds` in the last round, or narrow the range of the learning rate";
        return Err(StageError::new(message).key("rounds").help(help));
    }
    for (name, bytes) in &files.0 {
        if name == MODEL {
            let description = Description { is_selected: true, ..Description::read(files)? };
            put_document(sink, MODEL, &description)?;
        } else if let Some(model) = (1..=n_models(files)).find(|&model| *name == file_of(VALIDATION, model)) {
            sink.put(&file_of(VALIDATION_SELECTED, model), bytes)?;
        } else {
            sink.put(name, bytes)?;
        }
    }
    Ok(())
}
