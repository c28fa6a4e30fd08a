//! What a run came to, typed: the [`Report`] of its results, which is the same however it came to them, and beside it what ran.
//! Made from artifacts and outcomes; who renders it (HTML, Markdown, JSON, JUnit) reads nothing else.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Finished;
use crate::artifact::dataset::Summary as DatasetSummary;
use crate::artifact::details::Details;
use crate::artifact::evaluation::{Evaluation, GateResult};
use crate::artifact::gallery::{GALLERY_FILES, Gallery, MISTAKES, SAMPLES};
use crate::artifact::model::{Description, MODEL};
use crate::artifact::sanity::{Findings, SANITY, Status};
use crate::artifact::search::{ROUND, Round};
use crate::artifact::suspects::{PAIRS, SINGLES, SUSPECTS_FILES, Suspects};
use crate::artifact::{Error, details, evaluation, splits};
use crate::report::compare::MetricChange;
use crate::stages::Part;

/// What a run came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// The results.
    pub report: Report,
    /// The exit code, as `--help` documents it.
    pub exit_code: u8,
    /// Every task, in the order of the plan.
    pub tasks: Vec<TaskRow>,
    /// Errors that are of no task, in words.
    pub errors: Vec<String>,
    /// The metrics beside the lock file as it was before; `None` where there was none.
    pub against: Option<Against>,
    /// Paths of pictures, relative to the folder of reports.
    pub pictures: Vec<String>,
    /// What ran, from what.
    pub provenance: Provenance,
}

/// Results and what they are made of. Nothing here, and so nothing that is rendered from it alone, depends on what ran and what
/// was there, on times, threads, the machine, or the lock file.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The pipeline.
    pub pipeline: String,
    /// By stage, in the order of the manifest: scores, gains, gates.
    pub evaluations: Vec<(String, Evaluation)>,
    /// By stage that evaluates: what its pictures are drawn from.
    pub details: Vec<(String, Details)>,
    /// By stage that reads data: what came in.
    pub datasets: Vec<(String, DatasetSummary)>,
    /// By stage that splits.
    pub splits: Vec<(String, splits::Summary)>,
    /// What was checked before trainings.
    pub checks: Vec<Check>,
    /// Networks that were trained, those of trials left out.
    pub trainings: Vec<Training>,
    /// By search: its rounds, in order.
    pub searches: Vec<(String, Vec<Round>)>,
    /// By stage: pictures of images.
    pub galleries: Vec<(String, Sheets)>,
    /// By stage that evaluates: images to look at.
    pub suspects: Vec<(String, SuspectSheets)>,
    /// What stages told, each text once: the stage, and the text.
    pub warnings: Vec<(String, String)>,
    /// What it was made of.
    pub origin: Origin,
}

/// What results were made of.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The manifest as it was run, defaults written out.
    pub manifest: String,
    /// What was typed instead, where no manifest was run.
    pub command: Option<String>,
    /// The key of every task of the manifest's own stages, and those that have none yet.
    pub keys: Vec<Key>,
    /// Gates that compare with a lock file: every run judges them anew, and its output tells how.
    pub n_lock_gates: usize,
}

/// A task, and what stands for all that its result depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its stage.
    pub stage: String,
    /// Which of its tasks.
    pub part: String,
    /// The digest of its record; `None`: there is no result yet.
    pub key: Option<String>,
}

/// Sheets of images, as PNG, and what is on them.
#[derive(Clone, Debug)]
pub struct Sheets {
    /// What is on them.
    pub gallery: Gallery,
    /// Samples of every class.
    pub samples: Option<Vec<u8>>,
    /// The worst mistakes.
    pub mistakes: Option<Vec<u8>>,
}

/// Images to look at: what they are, and the sheets of the first, as PNG.
#[derive(Clone, Debug)]
pub struct SuspectSheets {
    /// What they are.
    pub suspects: Suspects,
    /// Of those that stand alone.
    pub singles: Option<Vec<u8>>,
    /// Of pairs.
    pub pairs: Option<Vec<u8>>,
}

/// A network that was trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// The stage.
    pub stage: String,
    /// `fold 3`, `all`.
    pub part: String,
    /// What it is, and which epoch was best.
    pub model: Description,
}

impl Report {
    /// Reads it from what was finished.
    ///
    /// # Errors
    /// If an artifact cannot be read.
    pub fn of(
        pipeline: &str,
        finished: &[Finished<'_>],
        warnings: Vec<(String, String)>,
        origin: Origin,
    ) -> Result<Report, Error> {
        let mut report = Report { pipeline: pipeline.to_owned(), warnings, origin, ..Report::default() };
        for task in finished.iter().filter(|task| task.trial.is_none()) {
            let (stage, files) = (task.stage.to_owned(), task.files);
            match (task.kind, task.part) {
                ("ingest", _) => report.datasets.push((stage, DatasetSummary::read(files)?)),
                ("split", _) => report.splits.push((stage, files.document(splits::SUMMARY, Some(1))?)),
                ("train", Part::Sanity) => report.checks.extend(Check::all(task.stage, &Findings::read(files)?)),
                ("train", part) if part != Part::Pictures && files.0.contains_key(MODEL) => {
                    let model = Description::read(files)?;
                    report.trainings.push(Training { stage, part: part.to_string(), model });
                }
                ("search", Part::Round(_)) => {
                    let round = Round::read(files)?;
                    match report.searches.iter_mut().find(|(known, _)| *known == stage) {
                        Some((_, rounds)) => rounds.push(round),
                        None => report.searches.push((stage, vec![round])),
                    }
                }
                ("evaluate" | "train", Part::Pictures) => {
                    let gallery = Gallery::read(files)?;
                    let sheet = |name: &str| files.0.get(name).map(|bytes| bytes.to_vec());
                    let (samples, mistakes) = (sheet(SAMPLES), sheet(MISTAKES));
                    report.galleries.push((stage, Sheets { gallery, samples, mistakes }));
                }
                ("evaluate", Part::Suspects) => {
                    let sheet = |name: &str| files.0.get(name).map(|bytes| bytes.to_vec());
                    let (singles, pairs) = (sheet(SINGLES), sheet(PAIRS));
                    let suspects = Suspects::read(files)?;
                    report.suspects.push((stage, SuspectSheets { suspects, singles, pairs }));
                }
                ("evaluate", _) => {
                    report.details.push((stage.clone(), Details::read(files)?));
                    report.evaluations.push((stage, Evaluation::read(files)?));
                }
                _ => {}
            }
        }
        report.searches.iter_mut().for_each(|(_, rounds)| rounds.sort_by_key(|round| round.round));
        Ok(report)
    }

    /// Every gate.
    pub fn gates(&self) -> impl Iterator<Item = &GateResult> {
        self.evaluations.iter().flat_map(|(_, evaluation)| &evaluation.gates)
    }
}

/// Whether a file of a task of this kind is read for a [`Report`].
pub(super) fn reads(kind: &str, part: Part, name: &str) -> bool {
    match (kind, part) {
        ("ingest", _) => crate::artifact::dataset::SUMMARY_FILES.contains(&name),
        ("split", _) => name == splits::SUMMARY,
        ("train", Part::Sanity) => name == SANITY,
        ("evaluate" | "train", Part::Pictures) => GALLERY_FILES.contains(&name),
        ("evaluate", Part::Suspects) => SUSPECTS_FILES.contains(&name),
        // When the best epoch was.
        ("train", _) => name == MODEL,
        ("search", _) => name == ROUND,
        ("evaluate", _) => [evaluation::EVALUATION, details::DETAILS].contains(&name),
        _ => false,
    }
}

/// A check before a training.
#[derive(Clone, Debug)]
pub struct Check {
    /// The stage that trains.
    pub stage: String,
    /// `labels`, `images`, `values`, `initial_loss`, `memorises`.
    pub check: String,
    /// How it ended.
    pub status: Status,
    /// One sentence.
    pub message: String,
}

/// A task.
#[derive(Debug)]
pub struct TaskRow {
    /// Its stage; of a trial, `SEARCH TRIAL STAGE`.
    pub stage: String,
    /// `whole`, `fold 3`, `all`, `sanity`, `round 1`.
    pub part: String,
    /// How it ended.
    pub ended: How,
    /// Why it was computed.
    pub reasons: Vec<String>,
    /// How long it took, in seconds, if it was computed.
    pub seconds: Option<f64>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq)]
pub enum How {
    /// Computed in this run.
    Computed,
    /// It was there.
    Cached,
    /// Why not.
    Failed(String),
    /// Told to stop, or not begun.
    NotRun,
}

/// The metrics beside a lock file.
#[derive(Debug)]
pub struct Against {
    /// Its name.
    pub lock: String,
    /// Every metric that either side has.
    pub changes: Vec<MetricChange>,
}

/// What ran, from what.
#[derive(Debug, Default)]
pub struct Provenance {
    /// The program's version.
    pub convoy: String,
    /// The manifest.
    pub manifest: String,
    /// The profile in force.
    pub profile: Option<String>,
    /// The `--set` arguments in force.
    pub overrides: Vec<String>,
    /// The commit that is checked out, and whether files that Git tracks were changed since.
    pub git: Option<(String, bool)>,
}

impl Check {
    /// Those of a stage.
    pub fn all(stage: &str, findings: &Findings) -> Vec<Check> {
        let of = |finding: &crate::artifact::sanity::Finding| Check {
            stage: stage.to_owned(),
            check: finding.check.clone(),
            status: finding.status,
            message: finding.message.clone(),
        };
        findings.findings.iter().map(of).collect()
    }
}

/// `metrics.json`: `{ STAGE: { MODEL: { SPLIT: { "n": …, METRIC: … } } } }`, numbers only, what has no value left out; `None`
/// without evaluations.
pub fn metrics_json(evaluations: &[(String, Evaluation)]) -> Option<Vec<u8>> {
    if evaluations.is_empty() {
        return None;
    }
    let mut all: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (stage, evaluation) in evaluations {
        let models = all.entry(stage).or_default();
        for score in &evaluation.scores {
            let model = models.entry(score.model.clone()).or_insert_with(|| Map::new().into());
            let metrics = score.metrics.iter().filter_map(|(name, value)| Some((name.clone(), Value::from((*value)?))));
            let numbers: Map<String, Value> = metrics.chain([("n".to_owned(), score.n.into())]).collect();
            model[&score.split] = numbers.into();
        }
    }
    crate::files::document::to_bytes(&all).ok()
}
