//! One file per kind of stage. A stage is its own config and a pure function from artifacts to artifacts.
//!
//! Start at [`Stage`]. The lifetime of a stage: `read` from its manifest section, `check`ed against what is known of
//! the stages above ([`Flow`]), asked for its tasks and what each needs, and finally `run`, once per task, with the
//! needed artifacts in hand. A stage never sees the store, the manifest or the clock.

pub(crate) mod ingest;
#[cfg(test)]
pub(crate) mod testing;

mod calibrate;
pub mod ensemble;
pub(crate) mod evaluate;
mod held_out;
pub(crate) mod lineage;
mod pictures;
pub(crate) mod predict;
pub(crate) mod preprocess;
mod rebuild;
pub(crate) mod reduce;
pub(crate) mod revisions;
pub(crate) mod search;
pub(crate) mod split;
pub(crate) mod train;

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::artifact::dataset::{Names, Numbers};
use crate::artifact::{self, Files, Sink};
use crate::config::{Complaint, Form, Log, Section, Span, Value, quote};
use crate::data::reader::GivenSplit;
use crate::engine;
use crate::files;
use crate::nn::architecture::Architecture;
use crate::tensor::SampleShape;

pub use held_out::{HeldOut, HeldOutRows, Learns};
pub use rebuild::rebuild;

/// Runs a stage's task. Once `context.is_cancelled()`, it ends in the middle of whatever it has the engine compute.
///
/// # Errors
/// What the stage says; [`StageError::cancelled`] if it was told to stop.
pub fn run(
    stage: &dyn Stage,
    task: &Task,
    places: &Places,
    context: &dyn Context,
    sink: &mut dyn Sink,
) -> Result<(), StageError> {
    engine::stoppable(&|| context.is_cancelled(), || stage.run(task, places, context, sink))
        .unwrap_or_else(|engine::Stopped| Err(StageError::cancelled()))
}

/// The unit that is cached and scheduled within a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The stage has one task.
    Whole,
    /// Fit set `fold f`, `1..=folds`.
    Fold(u32),
    /// Fit set `all`: every row outside the test split.
    All,
    /// Round `r` of a search, `1..`: its trials, ranked.
    Round(u32),
    /// The checks before a training.
    Sanity,
    /// Pictures of images for the report, which nothing else reads.
    Pictures,
    /// What the model of a fold says over several views of each image; 0: that of fit set `all`.
    Predict(u32),
    /// What is fitted to the probabilities of all folds together.
    Calibration,
    /// Images to look at by eye, which nothing else reads.
    Suspects,
}

impl Part {
    /// The task that holds what a model says, where that is not the one that trained it.
    pub fn predicting(self) -> Part {
        match self {
            Part::Fold(fold) => Part::Predict(fold),
            Part::All => Part::Predict(0),
            other => other,
        }
    }

    /// The task that trained what this one predicts with; any other task itself.
    pub fn trained(self) -> Part {
        match self {
            Part::Predict(0) => Part::All,
            Part::Predict(fold) => Part::Fold(fold),
            other => other,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Whole => f.write_str("whole"),
            Part::Fold(fold) => write!(f, "fold {fold}"),
            Part::All => f.write_str("all"),
            Part::Round(round) => write!(f, "round {round}"),
            Part::Sanity => f.write_str("sanity"),
            Part::Pictures => f.write_str("pictures"),
            Part::Predict(_) => write!(f, "predict {}", self.trained()),
            Part::Calibration => f.write_str("calibration"),
            Part::Suspects => f.write_str("suspects"),
        }
    }
}

impl std::str::FromStr for Part {
    type Err = ();

    /// What `Display` wrote.
    fn from_str(text: &str) -> Result<Part, ()> {
        if let Some(trained) = text.strip_prefix("predict ") {
            let part = trained.parse::<Part>()?.predicting();
            return if part.to_string() == text { Ok(part) } else { Err(()) };
        }
        let (word, number) = text.split_once(' ').map_or((text, None), |(word, number)| (word, number.parse().ok()));
        let part = match (word, number) {
            ("whole", None) => Part::Whole,
            ("fold", Some(fold)) => Part::Fold(fold),
            ("all", None) => Part::All,
            ("round", Some(round)) => Part::Round(round),
            ("sanity", None) => Part::Sanity,
            ("pictures", None) => Part::Pictures,
            ("calibration", None) => Part::Calibration,
            ("suspects", None) => Part::Suspects,
            _ => return Err(()),
        };
        if part.to_string() == text { Ok(part) } else { Err(()) }
    }
}

/// What a stage hands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// `ingest`.
    Dataset,
    /// `split`.
    Splits,
    /// `preprocess` and `reduce`: something fitted, one per fit set.
    Fitted,
    /// `train`, `search`: fold models and a final one.
    Model,
    /// `ensemble`: a model made of models.
    Ensemble,
    /// `evaluate`: numbers.
    Evaluation,
}

impl Output {
    /// All of them, with what a record calls them.
    const WORDS: [(Output, &'static str); 6] = [
        (Output::Dataset, "dataset"),
        (Output::Splits, "splits"),
        (Output::Fitted, "fitted"),
        (Output::Model, "model"),
        (Output::Ensemble, "ensemble"),
        (Output::Evaluation, "evaluation"),
    ];

    /// What a record calls it.
    pub fn word(self) -> &'static str {
        Output::WORDS.iter().find(|(output, _)| *output == self).map_or("", |(_, word)| word)
    }

    /// What a record calls so.
    pub fn parse(word: &str) -> Option<Output> {
        Output::WORDS.iter().find(|(_, known)| *known == word).map(|(output, _)| *output)
    }
}

/// What is known below a stage before anything has run. `None`: only known once ingest has run.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// What the stage hands on.
    pub output: Output,
    /// Shape of one sample.
    pub shape: Option<SampleShape>,
    /// Number of classes.
    pub n_classes: Option<usize>,
    /// Number of samples.
    pub n_samples: Option<usize>,
    /// Whether the data set comes with its own test split; its own validation split.
    pub given: Option<Given>,
    /// Folds of the split above; 0 before a split.
    pub folds: u32,
    /// Whether the split above holds out a test split.
    pub has_test: bool,
    /// Whether a `train` stage refits on all rows (so that a `Part::All` task exists), true for a refit model only.
    pub refit: bool,
    /// Models that each task of a model stage hands on: snapshots of its training, the best of a search; else 1.
    pub models: u32,
    /// Whether what a model stage says stands in tasks of their own ([`Part::Predict`]).
    pub has_views: bool,
    /// Whether probabilities of a model stage get a temperature, fitted in [`Part::Calibration`] (of an ensemble, beside
    /// its members).
    pub has_temperature: bool,
    /// Whether a model stage abstains where it is not sure, by a threshold that is fitted there.
    pub abstains: bool,
}

impl Flow {
    /// Whether something is fitted to what a model stage says.
    pub fn is_calibrated(&self) -> bool {
        self.has_temperature || self.abstains
    }
}

/// The data set's own splits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Has its own test split.
    pub test: bool,
    /// Has its own validation split.
    pub validation: bool,
}

/// An artifact that a task reads, or some of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Index of the stage, in manifest order.
    pub stage: usize,
    /// Which of its tasks.
    pub part: Part,
    /// Which files: those of its artifact that are not covered are not delivered, and a change of them changes nothing.
    pub files: Reads,
}

/// Which files of an artifact are read, by name; a `*` stands for any characters. Those that an artifact does not have
/// are not missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads(pub &'static [&'static str]);

impl Reads {
    /// All of them.
    pub const ALL: Reads = Reads(&["*"]);

    /// Whether the file called `name` is read.
    pub fn covers(self, name: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.split_once('*') {
            Some((start, end)) => {
                name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
            }
            None => name == *pattern,
        })
    }
}

/// What a stage sees of the graph when it says what its tasks need.
pub struct Upstream<'a> {
    /// The stage's own index.
    pub own: usize,
    /// All stages, in manifest order (a stage reads only stages above it).
    pub nodes: &'a [Node],
}

/// One stage of a checked manifest: the graph's node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its table's name.
    pub name: String,
    /// What it hands on and what is known of it.
    pub flow: Flow,
    /// The stages it reads (`input`, or `members`), by index.
    pub inputs: Vec<usize>,
    /// The stage itself.
    pub stage: Arc<dyn Stage>,
}

impl Upstream<'_> {
    /// The chain of first inputs from the top (ingest) down to, and without, `stage` itself.
    pub fn lineage(&self, stage: usize) -> Vec<usize> {
        let mut chain = Vec::new();
        let mut at = stage;
        while let Some(&above) = self.nodes[at].inputs.first() {
            chain.push(above);
            at = above;
        }
        chain.reverse();
        chain
    }

    /// The stage's own lineage.
    pub fn own_lineage(&self) -> Vec<usize> {
        self.lineage(self.own)
    }
}

/// A needed artifact, delivered.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// Which of the stages that the task reads it is from, numbered from 0 in the order of the task's needs.
    pub from: usize,
    /// Which of that stage's tasks.
    pub part: Part,
    /// That stage's name (for the `model` and `stage` columns and for messages, never for seeds).
    pub stage_name: String,
    /// What that stage hands on.
    pub output: Output,
    /// The files of the artifact that were asked for.
    pub files: Files,
}

/// A task as its stage sees it.
pub struct Task {
    /// Which of the stage's tasks.
    pub part: Part,
    /// The seed in force: the stage's own, else the manifest's.
    pub seed: u64,
    /// Exactly what [`Stage::needs`] asked for, in that order.
    pub inputs: Vec<Delivered>,
}

impl Task {
    /// The only input with this output, e.g. the data set.
    ///
    /// # Panics
    /// If there is none: `needs` and `run` of one stage disagree.
    pub fn input(&self, output: Output) -> &Files {
        self.inputs_with(output)
            .next()
            .map(|d| &d.files)
            .unwrap_or_else(|| panic!("no {output:?} among the inputs of a task"))
    }

    /// All inputs with this output, in order.
    pub fn inputs_with(&self, output: Output) -> impl Iterator<Item = &Delivered> {
        self.inputs.iter().filter(move |d| d.output == output)
    }
}

/// What the runner lends a running task.
pub trait Context: Sync {
    /// Threads that this task may use inside from its start on, at least 1. Never changes a byte.
    fn threads(&self) -> usize;

    /// The most threads that it may ever come to use.
    fn most_threads(&self) -> usize {
        self.threads()
    }

    /// Threads that it may use from now on, at least 1: more than at its start when others have ended, fewer when
    /// others wait. Whoever asks must heed the answer.
    fn threads_now(&self) -> usize {
        self.threads()
    }

    /// Whether the run is being stopped: return [`StageError::cancelled`] soon.
    fn is_cancelled(&self) -> bool;

    /// Whether the run's time is over: return [`StageError::cancelled`] at the next checkpoint. Who keeps none goes on to its
    /// end.
    fn is_out_of_time(&self) -> bool {
        false
    }

    /// Tells people how far the task is: `done` of `total` (0 = unknown) `unit`s, and a short note.
    fn progress(&self, done: u64, total: u64, unit: &str, note: &str);

    /// A warning for people, said once per text.
    fn warn(&self, message: &str);

    /// What the same task was computed from the last time and what it gave, if its rooms are the same and the folder that it
    /// reads is remembered as it was and as it is now.
    fn before(&self) -> Option<Before> {
        None
    }

    /// The last checkpoint of this very task (same fingerprint), if an earlier run was killed.
    fn load_checkpoint(&self) -> Option<Vec<u8>>;

    /// Whether so much time has passed since the last checkpoint that another one is worth its cost.
    fn wants_checkpoint(&self) -> bool {
        true
    }

    /// Keeps a checkpoint, atomically; best effort.
    fn save_checkpoint(&self, bytes: &[u8]);
}

/// An earlier result of a task that reads a folder, for a stage that need not do all of it again. What it takes from that
/// must be what it would compute: no byte may tell.
#[derive(Clone, Debug)]
pub struct Before {
    /// Its artifact.
    pub files: Files,
    /// The digest of the content of each file in the folder as it was then, by its path with `/` between names.
    pub then: BTreeMap<String, [u8; 32]>,
    /// The same as it is now.
    pub now: BTreeMap<String, [u8; 32]>,
}

/// A file or folder that a stage reads from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Compiled into the program; the digest of its bytes stands for it.
    Builtin {
        /// As in `builtin:digits`.
        name: String,
        /// BLAKE3 of its bytes, hexadecimal.
        digest: String,
    },
    /// A file. It enters the fingerprint by its content and by `role`, never by its path.
    File {
        /// "images", "labels", …: what it is to the stage.
        role: String,
        /// Where it is now.
        path: PathBuf,
    },
    /// A folder, by the relative path and content of every file below it that is a source; text beside images by its
    /// path alone.
    Folder {
        /// What it is to the stage.
        role: String,
        /// Where it is now.
        path: PathBuf,
    },
}

/// Where relative sources are looked for.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The manifest's folder.
    pub manifest_dir: PathBuf,
    /// `--data-dir` or `CONVOY_DATA`, if given.
    pub data_dir: Option<PathBuf>,
    /// The project's root (for `datasets/NAME.toml` and `datasets/NAME/`).
    pub project_root: PathBuf,
}

impl Places {
    /// `path` relative to the manifest.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        // Without the `.` that people write in front.
        self.manifest_dir.join(path).components().collect()
    }
}

/// What a look at a data set's source tells before it is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Glance {
    /// The shape of its images, after decoding, if one could be decoded.
    pub shape: Option<SampleShape>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// The class of each image.
    pub labels: Vec<u32>,
    /// The group of each image, by number.
    pub groups: Vec<Option<u32>>,
    /// The split that the source puts each image in.
    pub given: Vec<Option<GivenSplit>>,
    /// Files of the source that are left out.
    pub n_left_out: usize,
    /// What is worth a warning already.
    pub warnings: Vec<String>,
}

impl Glance {
    /// What a finished data set tells, without its pixels: [`NAMES_FILES`](artifact::dataset::NAMES_FILES) are read.
    ///
    /// # Errors
    /// If a file is missing or is not what was written.
    pub fn of_dataset(files: &Files) -> Result<Glance, artifact::Error> {
        let numbers = Numbers::read(files)?;
        Ok(Glance {
            shape: Some(SampleShape::Image(numbers.shape())),
            classes: Names::classes_in(files)?,
            labels: numbers.labels().to_vec(),
            groups: numbers.groups().to_vec(),
            given: (0..numbers.n_samples()).map(|i| numbers.given(i)).collect(),
            ..Glance::default()
        })
    }

    /// Completes what is known of a data set.
    pub fn tell(&self, flow: &mut Flow) {
        flow.shape = self.shape.or(flow.shape);
        flow.n_classes = Some(self.classes.len());
        flow.n_samples = Some(self.labels.len());
        let has = |split| self.given.contains(&Some(split));
        flow.given = Some(Given { test: has(GivenSplit::Test), validation: has(GivenSplit::Validation) });
    }
}

/// What a stage would make of a [`Glance`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// What it would warn of.
    pub warnings: Vec<StageError>,
    /// The fewest rows that a fit set below it learns from, if it decides that.
    pub n_training: Option<usize>,
}

/// A kind of stage.
pub trait Stage: Send + Sync + fmt::Debug {
    /// The word in the manifest.
    fn kind(&self) -> &'static str;

    /// The rooms that the task of `part` computes with, by their names in the table of [`revisions`], in any order:
    /// exactly those whose change may change its bytes.
    fn rooms(&self, part: Part, upstream: &Upstream<'_>) -> Vec<&'static str>;

    /// The revisions of those rooms, sorted by name.
    fn revisions(&self, part: Part, upstream: &Upstream<'_>) -> Vec<(String, u32)> {
        revisions::of(&self.rooms(part, upstream))
    }

    /// Changes `rooms`, with which the stages above load samples, into those with which the stages below do so: what a
    /// stage fits may be applied by those who read it.
    fn feed(&self, _rooms: &mut Vec<&'static str>) {}

    /// Checks the stage against what is known of its inputs (in order), reports to `log`, returns what is known below.
    /// `span` is the stage's header.
    fn check(&self, inputs: &[Flow], span: Span, log: &mut Log) -> Flow;

    /// The outputs this stage accepts as `input` (or as `members`); empty for ingest.
    fn accepts(&self) -> &'static [Output];

    /// Whether it takes several inputs under `members` rather than one under `input`.
    fn takes_members(&self) -> bool {
        false
    }

    /// The key that names its inputs.
    fn input_key(&self) -> &'static str {
        if self.takes_members() { "members" } else { "input" }
    }

    /// The search that it is, for those who make its trials.
    fn search(&self) -> Option<&search::Search> {
        None
    }

    /// Whether it is not known yet what the task of `part` reads: a round of a search, before the round above it is
    /// ranked. Such a task waits to be planned again.
    fn is_open(&self, _part: Part) -> bool {
        false
    }

    /// Checks what only the whole graph can tell (names of other stages in the stage's own keys, say), once all stages
    /// are read and wired.
    fn check_graph(&self, _upstream: &Upstream<'_>, _log: &mut Log) {}

    /// The parts that are always planned. `Part::All` of fitted stages is planned only where something needs it.
    fn parts(&self, flow: &Flow) -> Vec<Part>;

    /// What the task of `part` reads, in the order that `run` expects.
    fn needs(&self, part: Part, upstream: &Upstream<'_>) -> Vec<Need>;

    /// The key because of which the task of `part` is there at all: its name, the value (as TOML) with which there is
    /// none, and the value that it has.
    fn planned_by(&self, _part: Part) -> Option<(&'static str, &'static str, &'static str)> {
        None
    }

    /// Tasks of this stage that have a say in whether that of `part` is begun ([`Stage::admits`]). Nothing of them
    /// enters its artifact or its fingerprint: a finished task stays fresh whatever they say later.
    fn gates(&self, _part: Part) -> Vec<Part> {
        Vec::new()
    }

    /// What metrics must reach, where that is written as a list; those against lock files are judged by who ran the task.
    fn listed_gates(&self) -> &[evaluate::Listed] {
        &[]
    }

    /// The columns of its source's table that it keeps beside the images.
    fn columns(&self) -> &[String] {
        &[]
    }

    /// What a gate's artifact says: warnings for people, if the tasks behind it may begin.
    ///
    /// # Errors
    /// Why they may not: the stage has failed then.
    fn admits(&self, _gate: Part, _files: &Files) -> Result<Vec<Advice>, StageError> {
        Ok(Vec::new())
    }

    /// The files that it reads from outside; the runner hashes them into the fingerprint.
    ///
    /// # Errors
    /// If they are not there, with where to put them.
    fn sources(&self, _places: &Places) -> Result<Vec<Source>, StageError> {
        Ok(Vec::new())
    }

    /// What a look at those files tells, without reading them whole; nothing of it is kept.
    ///
    /// # Errors
    /// What would end the stage, as far as the look tells.
    fn glance(&self, _places: &Places) -> Result<Option<Glance>, StageError> {
        Ok(None)
    }

    /// What this stage would make of what is known of its first input: `above`, and its samples where somebody saw them.
    ///
    /// # Errors
    /// What would end it.
    fn try_on(&self, _above: Option<&Flow>, _glance: Option<&Glance>, _seed: u64) -> Result<Tried, StageError> {
        Ok(Tried::default())
    }

    /// Whether the seed is read, and so part of the fingerprint.
    fn uses_seed(&self) -> bool {
        false
    }

    /// Whether the task of `part` reads `key` (dotted, as recorded): what it does not read does not make it stale.
    fn reads_key(&self, _part: Part, _key: &str) -> bool {
        true
    }

    /// Whether the names of the stages it reads stand in its artifact (as a `model` column, say), and so in its
    /// fingerprint.
    fn reads_names(&self) -> bool {
        false
    }

    /// The stage's own `seed`, if it set one.
    fn own_seed(&self) -> Option<u64> {
        None
    }

    /// What a task of it takes while it runs, beside files that it maps: an estimate that is rather too large. `above` is
    /// what is known of its first input, `read_bytes` how much it reads and parses.
    fn price(&self, _above: Option<&Flow>, read_bytes: u64) -> Price {
        Price { bytes: 4 * read_bytes, per_thread: 0 }
    }

    /// The network that it trains, for `summary`.
    fn network(&self) -> Option<Trained<'_>> {
        None
    }

    /// What the task of `part` learns, so that it can be shown that no held-out row moves it; `None`: nothing.
    fn learns(&self, part: Part) -> Option<Learns>;

    /// Trains the task's network while the learning rate grows, to see which one suits it; nothing of it is kept. `None`: it
    /// trains none.
    fn rate_range(
        &self,
        _task: &Task,
        _range: train::rate::RateRange,
        _context: &dyn Context,
    ) -> Option<Result<Vec<train::rate::RateStep>, StageError>> {
        None
    }

    /// Computes the task and writes its artifact.
    ///
    /// # Errors
    /// What and where; nothing is published then.
    fn run(&self, task: &Task, places: &Places, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError>;
}

/// The memory of a running task, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// On one thread.
    pub bytes: u64,
    /// More for each other thread.
    pub per_thread: u64,
}

/// A network that a stage trains, before anything is planned.
#[derive(Clone, Copy, Debug)]
pub struct Trained<'a> {
    /// Its layers.
    pub architecture: &'a Architecture,
    /// Samples per update.
    pub batch_size: usize,
    /// Values that the optimizer keeps per parameter.
    pub n_moments: usize,
}

/// A kind of stage, as the manifest knows it.
pub struct Kind {
    /// The word.
    pub name: &'static str,
    /// Reads a stage's keys (without `kind`, `input`, `members`, which are the graph's).
    pub read: fn(&mut Section<'_>) -> Box<dyn Stage>,
    /// A small manifest that uses it, for docs and the contract test.
    pub example: &'static str,
}

/// A warning, and the image that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// One sentence; "image 7" stands for [`Advice::image`].
    pub message: String,
    /// By its index in the data set. Who learns reads no names: who prints it puts in the path.
    pub image: Option<u32>,
}

/// Reads a stage's own `seed`.
fn read_seed(section: &mut Section<'_>) -> Option<u64> {
    let meaning = "The seed of this stage; absent: the manifest's.";
    section.key("seed", meaning, "7").whole(0..=i64::MAX as u64).optional()
}

/// Reads a list of names, none twice; recorded where it is set.
fn read_names(
    section: &mut Section<'_>,
    key: &'static str,
    meaning: &'static str,
    example: &'static str,
) -> Vec<String> {
    let form = || Form::List(Box::new(Form::Text), 1..=usize::MAX);
    let Some(node) = section.key(key, meaning, example).form(None, form) else { return Vec::new() };
    let Value::List(items) = &node.value else {
        section.expected(key, node, "a list of names");
        if let Value::Text { text, .. } = &node.value {
            section.advise(key, format!("write `{key} = [{}]`", quote(text)));
        }
        return Vec::new();
    };
    let mut names: Vec<String> = Vec::new();
    for item in items {
        match &item.value {
            Value::Text { text, .. } if names.contains(text) => {}
            Value::Text { text, .. } => names.push(text.clone()),
            _ => section.expected(key, item, "names as strings"),
        }
    }
    if !names.is_empty() {
        let canonical = names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
        section.record(key, format!("[{canonical}]"), Some(node.span));
    }
    names
}

/// Why a task failed: what and where, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageError {
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// The key that caused it, dotted, relative to the stage: the manifest's line is shown under the message.
    pub key: Option<String>,
    /// At most one action.
    pub help: Option<String>,
    /// The image that it is about, by its index in the data set: "image 7" in the message, which who prints it replaces
    /// by the path.
    pub image: Option<u32>,
    /// The task was told to stop; it did not fail.
    pub is_cancelled: bool,
    /// The artifact could not be written: who prints it says where that was, which the stage does not know.
    pub is_unwritten: bool,
}

/// How an error begins that came from writing the artifact.
const UNWRITTEN: &str = "cannot write the artifact";

impl StageError {
    /// The error with the folder in which its artifact could not be written.
    pub fn writing_to(self, folder: &Path) -> StageError {
        let message = match self.message.strip_prefix(UNWRITTEN).filter(|_| self.is_unwritten) {
            Some(reason) => format!("{UNWRITTEN} in `{}`{reason}", folder.display()),
            None => return self,
        };
        StageError { message, ..self }
    }

    /// An error that says `message`.
    pub fn new(message: impl Into<String>) -> StageError {
        StageError {
            message: message.into(),
            key: None,
            help: None,
            image: None,
            is_cancelled: false,
            is_unwritten: false,
        }
    }

    /// The task stopped because it was told to.
    pub fn cancelled() -> StageError {
        StageError { is_cancelled: true, ..StageError::new("interrupted") }
    }

    /// Names the key that caused it.
    pub fn key(mut self, key: impl Into<String>) -> StageError {
        self.key = Some(key.into());
        self
    }

    /// Adds the `help:` line.
    pub fn help(mut self, help: impl Into<String>) -> StageError {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StageError {}

/// Of a key, dotted, relative to the stage.
impl<K: Into<String>> From<Complaint<K>> for StageError {
    fn from(complaint: Complaint<K>) -> StageError {
        StageError { help: complaint.help, ..StageError::new(complaint.message).key(complaint.at) }
    }
}

impl From<artifact::Error> for StageError {
    fn from(error: artifact::Error) -> StageError {
        StageError::new(error.to_string())
    }
}

impl From<std::io::Error> for StageError {
    fn from(error: std::io::Error) -> StageError {
        let message = format!("{UNWRITTEN}: {}", files::reason(&error));
        let is_full =
            [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge].contains(&error.kind());
        let help = "make room, for example with `convoy cache gc`, or choose another folder with `--cache-dir`";
        let help = is_full.then(|| help.to_owned());
        StageError { is_unwritten: true, help, ..StageError::new(message) }
    }
}

/// Every kind of stage, in the order of a pipeline. To add one: a file beside this one, and a line here.
pub const KINDS: &[Kind] = &[
    ingest::KIND,
    split::KIND,
    preprocess::KIND,
    reduce::KIND,
    train::KIND,
    search::KIND,
    ensemble::KIND,
    evaluate::KIND,
];
