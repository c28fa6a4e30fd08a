//! `ensemble`: one model made of the folds of one stage, or of several stages.
//!
//! No network runs here: members have written their probabilities, which are combined sample by sample. With several
//! members, each takes part with its final model (all its folds together, or the one that was refitted); fold f out of
//! fold combines what the members' folds f say of it. With a single member, its folds are the members; such an ensemble
//! has no out-of-fold score, since each fold's model was trained on what the others validate.

use super::{Context, Flow, Kind, Need, Output, Part, Places, Stage, StageError, Task, Upstream};
use crate::artifact::ensemble::{Ensemble, Member, read_validation, validation_name};
use crate::artifact::predictions::{Predictions, TEST, VALIDATION, VALIDATION_SELECTED};
use crate::artifact::{Files, Sink};
use crate::config::{Log, Problem, Section, Span};
use crate::data::metrics::arg_max;

/// The line in the list.
pub const KIND: Kind = Kind {
    name: "ensemble",
    read,
    example: "schema = 1\nname = \"example\"\n\n[stages.ingest]\nsource = \"builtin:digits\"\n\n[stages.split]\n\n\
              [stages.train]\narchitecture = \"INPUT - FC\"\n\n[stages.ensemble]\ncombine = \"mean-probability\"\n",
};

/// How probabilities of members become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// The mean of the probabilities.
    MeanProbability,
    /// Each member votes for its most probable class; the class with most votes wins, of equals the one with the highest
    /// mean probability, of equals the first. Probabilities are `(votes + mean probability) / (members + 1)`: the mean is
    /// one more vote, divided, which decides between equals and can never outvote a whole vote.
    Vote,
}

const WORDS: [&str; 2] = ["mean-probability", "vote"];

impl Combine {
    /// The word in the manifest.
    pub fn word(self) -> &'static str {
        match self {
            Combine::MeanProbability => WORDS[0],
            Combine::Vote => WORDS[1],
        }
    }

    /// The rule that `word` names.
    pub fn of_word(word: &str) -> Option<Combine> {
        [Combine::MeanProbability, Combine::Vote].into_iter().find(|combine| combine.word() == word)
    }

    /// Combines what members say of the same samples; each has the same share.
    ///
    /// # Errors
    /// If they do not speak of the same samples and classes.
    ///
    /// # Determinism
    /// Sums run over members in their order, in double precision.
    pub fn apply(self, members: &[Predictions]) -> Result<Predictions, StageError> {
        let Some(first) = members.first() else { return Err(StageError::new("an ensemble has no members")) };
        for other in members {
            if other.rows() != first.rows() || other.n_classes() != first.n_classes() {
                return Err(StageError::new(format!(
                    "members of an ensemble predict different things: {} samples of {} classes, and {} of {}",
                    first.len(),
                    first.n_classes(),
                    other.len(),
                    other.n_classes()
                )));
            }
        }
        let n_classes = first.n_classes();
        let n_members = members.len() as f64;
        let mut probabilities = Vec::with_capacity(first.len() * n_classes);
        let mut sums = vec![0.0f64; n_classes];
        let mut votes = vec![0.0f64; n_classes];
        for i in 0..first.len() {
            sums.fill(0.0);
            votes.fill(0.0);
            for member in members {
                for (sum, &p) in sums.iter_mut().zip(member.row(i)) {
                    *sum += f64::from(p);
                }
                votes[arg_max(member.row(i))] += 1.0;
            }
            probabilities.extend(sums.iter().zip(&votes).map(|(sum, votes)| match self {
                Combine::MeanProbability => (sum / n_members) as f32,
                Combine::Vote => ((votes + sum / n_members) / (n_members + 1.0)) as f32,
            }));
        }
        Ok(Predictions::new(first.rows().to_vec(), n_classes, probabilities))
    }
}

/// Combines models.
#[derive(Clone, Debug, PartialEq)]
pub struct EnsembleStage {
    /// "mean-probability" (the default) or "vote".
    combine: Combine,
}

fn read(section: &mut Section<'_>) -> Box<dyn Stage> {
    let combine = match section.word("combine", &WORDS, WORDS[0]) {
        "vote" => Combine::Vote,
        _ => Combine::MeanProbability,
    };
    Box::new(EnsembleStage { combine })
}

/// The tasks of model stage `stage` that hold its predictions: its folds, and the refitted model where there is one.
pub(super) fn prediction_needs(stage: usize, flow: &Flow) -> Vec<Need> {
    if flow.output == Output::Ensemble {
        return vec![Need { stage, part: Part::Whole }];
    }
    let folds = (1..=flow.folds).map(Part::Fold);
    folds.chain(flow.refit.then_some(Part::All)).map(|part| Need { stage, part }).collect()
}

impl Stage for EnsembleStage {
    fn kind(&self) -> &'static str {
        KIND.name
    }

    fn revision(&self) -> String {
        "1".to_owned()
    }

    fn accepts(&self) -> &'static [Output] {
        &[Output::Model, Output::Ensemble]
    }

    fn takes_members(&self) -> bool {
        true
    }

    fn reads_names(&self) -> bool {
        true
    }

    fn check(&self, inputs: &[Flow], span: Span, log: &mut Log) -> Flow {
        let first = &inputs[0];
        let voters = match inputs {
            [one] if one.output == Output::Model => one.folds as usize,
            _ => inputs.len(),
        };
        if voters == 1 {
            let what = if first.output == Output::Model { "one model" } else { "one ensemble" };
            let problem = Problem::warning(span, format!("an ensemble of {what} says what its member says"));
            log.push(problem.help("add `members`, or use more `folds`"));
        }
        if voters == 2 && self.combine == Combine::Vote {
            let message = "with two voters every disagreement is a tie, and the mean probability decides";
            let problem = Problem::warning(log.span_of("combine", span), message);
            log.push(problem.help("use `combine = \"mean-probability\"`"));
        }
        if let Some((a, b)) = inputs.iter().find_map(|other| match (first.n_classes, other.n_classes) {
            (Some(a), Some(b)) if a != b => Some((a, b)),
            _ => None,
        }) {
            log.push(Problem::error(span, format!("members have {a} and {b} classes, expected the same")));
        }
        Flow { output: Output::Ensemble, refit: false, ..first.clone() }
    }

    fn parts(&self, _flow: &Flow) -> Vec<Part> {
        vec![Part::Whole]
    }

    fn needs(&self, _part: Part, upstream: &Upstream<'_>) -> Vec<Need> {
        let members = &upstream.nodes[upstream.own].inputs;
        let mut needs = Vec::new();
        for &member in members {
            let flow = &upstream.nodes[member].flow;
            // Of a single stage the folds are the members, whatever its final model is.
            let flow = if members.len() == 1 { &Flow { refit: false, ..flow.clone() } } else { flow };
            needs.extend(prediction_needs(member, flow));
        }
        needs
    }

    fn run(&self, task: &Task<'_>, _: &Places, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
        let models = models(task);
        let members = match &models[..] {
            [one] => one.apart(),
            several => several.iter().map(Model::as_member).collect(),
        };
        let weight = 1.0 / members.len() as f64;
        let is_scored_out_of_fold = match &models[..] {
            [one] => one.is_scored_out_of_fold()? && one.ensemble().is_some(),
            _ => true,
        };
        let ensemble = Ensemble {
            format: 1,
            combine: self.combine.word().to_owned(),
            is_scored_out_of_fold,
            members: members.into_iter().map(|(stage, parts)| Member { stage, parts, weight }).collect(),
        };
        ensemble.write(sink)?;
        let test = match &models[..] {
            [one] => one.tests()?,
            several => several.iter().map(Model::test).collect::<Result<Option<Vec<_>>, _>>()?.unwrap_or_default(),
        };
        if !test.is_empty() {
            self.combine.apply(&test)?.write(sink, TEST)?;
        }
        let folds = models.iter().filter_map(Model::folds).max().unwrap_or(0);
        for fold in 1.. {
            let said: Vec<(Predictions, bool)> = models
                .iter()
                .map(|model| model.validation(fold))
                .collect::<Result<Option<_>, _>>()?
                .unwrap_or_default();
            if said.is_empty() {
                if fold <= folds {
                    return Err(StageError::new(format!("a member of the ensemble has no predictions of fold {fold}")));
                }
                break;
            }
            let is_selected = said.iter().any(|(_, is_selected)| *is_selected);
            let said: Vec<Predictions> = said.into_iter().map(|(predictions, _)| predictions).collect();
            // A single stage's fold stays what it is: a vote of one would change its probabilities.
            let combine = if said.len() == 1 { Combine::MeanProbability } else { self.combine };
            combine.apply(&said)?.write(sink, &validation_name(fold, is_selected))?;
            context.progress(fold.into(), folds.into(), "folds", "");
        }
        Ok(())
    }
}

/// A model stage with the tasks that were delivered of it.
#[derive(Debug)]
pub(super) struct Model<'a> {
    /// Its index.
    pub stage: usize,
    /// Its name.
    pub name: &'a str,
    parts: Vec<(Part, &'a Files)>,
}

/// The models and ensembles among the inputs of a task, in order of first delivery.
pub(super) fn models<'a>(task: &'a Task<'_>) -> Vec<Model<'a>> {
    let mut models: Vec<Model<'a>> = Vec::new();
    for delivered in task.inputs.iter().filter(|d| matches!(d.output, Output::Model | Output::Ensemble)) {
        let part = (delivered.need.part, &delivered.files);
        match models.iter_mut().find(|model| model.stage == delivered.need.stage) {
            Some(model) => model.parts.push(part),
            None => models.push(Model { stage: delivered.need.stage, name: &delivered.stage_name, parts: vec![part] }),
        }
    }
    models
}

impl<'a> Model<'a> {
    fn part(&self, wanted: Part) -> Option<&'a Files> {
        self.parts.iter().find(|(part, _)| *part == wanted).map(|(_, files)| *files)
    }

    /// Number of folds, for a model that has them.
    pub fn folds(&self) -> Option<u32> {
        let fold = |part: &(Part, &Files)| if let Part::Fold(fold) = part.0 { Some(fold) } else { None };
        self.parts.iter().filter_map(fold).max()
    }

    /// The artifact, if it is an ensemble.
    pub fn ensemble(&self) -> Option<&'a Files> {
        self.part(Part::Whole)
    }

    /// Whether what it says of a fold was learned without that fold.
    ///
    /// # Errors
    /// If a file is damaged.
    pub fn is_scored_out_of_fold(&self) -> Result<bool, StageError> {
        match self.ensemble() {
            Some(files) => Ok(Ensemble::read(files)?.is_scored_out_of_fold),
            None => Ok(true),
        }
    }

    /// Its folds as members of an ensemble.
    fn apart(&self) -> Vec<(String, Vec<String>)> {
        self.parts.iter().map(|(part, _)| (self.name.to_owned(), vec![part.to_string()])).collect()
    }

    /// Its final model as a member of an ensemble.
    fn as_member(&self) -> (String, Vec<String>) {
        let refitted = self.part(Part::All).map(|_| vec![Part::All.to_string()]);
        let parts = refitted.unwrap_or_else(|| self.parts.iter().map(|(part, _)| part.to_string()).collect());
        (self.name.to_owned(), parts)
    }

    /// What fold `fold` says of the test split.
    ///
    /// # Errors
    /// If its file is damaged.
    pub fn fold_test(&self, fold: u32) -> Result<Option<Predictions>, StageError> {
        let Some(files) = self.part(Part::Fold(fold)) else { return Ok(None) };
        Ok(Predictions::read_optional(files, TEST)?)
    }

    /// What each of its folds (or the ensemble that it is) says of the test split; nothing without a test split.
    fn tests(&self) -> Result<Vec<Predictions>, StageError> {
        let mut tests = Vec::new();
        for (_, files) in self.parts.iter().filter(|(part, _)| *part != Part::All) {
            tests.extend(Predictions::read_optional(files, TEST)?);
        }
        Ok(tests)
    }

    /// What its final model says of the test split: the refitted one, else the mean of its folds.
    ///
    /// # Errors
    /// If a file is damaged.
    pub fn test(&self) -> Result<Option<Predictions>, StageError> {
        if let Some(files) = self.part(Part::All).or(self.part(Part::Whole)) {
            return Ok(Predictions::read_optional(files, TEST)?);
        }
        let tests = self.tests()?;
        if tests.is_empty() { Ok(None) } else { Combine::MeanProbability.apply(&tests).map(Some) }
    }

    /// What it says of the rows of `fold` out of fold, and whether those rows chose it.
    ///
    /// # Errors
    /// If a file is damaged.
    pub fn validation(&self, fold: u32) -> Result<Option<(Predictions, bool)>, StageError> {
        if let Some(files) = self.part(Part::Whole) {
            return Ok(read_validation(files, fold)?);
        }
        let Some(files) = self.part(Part::Fold(fold)) else { return Ok(None) };
        for (name, is_selected) in [(VALIDATION, false), (VALIDATION_SELECTED, true)] {
            if let Some(predictions) = Predictions::read_optional(files, name)? {
                return Ok(Some((predictions, is_selected)));
            }
        }
        Ok(None)
    }
}
