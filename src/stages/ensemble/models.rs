//! What was delivered of the members: models with their folds, and what each says of the test split and out of fold.

use super::super::calibrate::tempered;
use super::super::{Flow, Need, Output, Part, Reads, StageError, Task};
use super::Combine;
use crate::artifact::Files;
use crate::artifact::calibration::{CALIBRATION, Calibration, Fit, Fits};
use crate::artifact::ensemble::{Ensemble, MEMBERS, read_validation};
use crate::artifact::predictions::{OutOfFold, Predictions, TEST, file_of, n_models};

/// What models and ensembles said, of each of the models that a task hands on and of each fold, and what an ensemble
/// is.
const PREDICTIONS: Reads = Reads(&["test*.safetensors", "validation*.safetensors", MEMBERS, CALIBRATION]);

/// The tasks of model stage `stage` that hold its predictions: its folds, and the refitted model where there is one; and the
/// task that holds what was fitted to them.
pub(in crate::stages) fn prediction_needs(stage: usize, flow: &Flow) -> Vec<Need> {
    if flow.output == Output::Ensemble {
        return vec![Need { stage, part: Part::Whole, files: PREDICTIONS }];
    }
    let trained = (1..=flow.folds).map(Part::Fold).chain(flow.refit.then_some(Part::All));
    let said = trained.map(|part| if flow.has_views { part.predicting() } else { part });
    said.chain(flow.is_calibrated().then_some(Part::Calibration))
        .map(|part| Need { stage, part, files: PREDICTIONS })
        .collect()
}

/// One of the models of a stage, with the tasks that were delivered of it.
#[derive(Debug)]
pub(in crate::stages) struct Model<'a> {
    /// Which of the stages that the task reads.
    pub from: usize,
    /// What people call it: the stage's name, `NAME.2` for the second of the models that its tasks hand on.
    pub name: String,
    /// The stage's name.
    stage_name: &'a str,
    /// Which of the models that each task hands on, from 1.
    model: u32,
    parts: Vec<(Part, &'a Files)>,
    /// What was fitted to its probabilities, and the error that is wanted of its answers.
    fits: Option<(Fits, Option<f64>)>,
}

/// What people call the `model`-th (from 1) of the models of stage `stage`.
pub(in crate::stages) fn name_of(stage: &str, model: u32) -> String {
    // A stage's name has no dot.
    if model == 1 { stage.to_owned() } else { format!("{stage}.{model}") }
}

/// The models and ensembles among the inputs of a task, in order of first delivery: of a stage whose tasks hand on
/// several models (snapshots, the best of a search), each of them.
///
/// # Errors
/// If what was fitted to probabilities is damaged.
pub(in crate::stages) fn models<'a>(task: &'a Task) -> Result<Vec<Model<'a>>, StageError> {
    let mut stages: Vec<Model<'a>> = Vec::new();
    let mut calibrations: Vec<(usize, Calibration)> = Vec::new();
    for delivered in task.inputs.iter().filter(|d| matches!(d.output, Output::Model | Output::Ensemble)) {
        if let Some(calibration) = Calibration::read_optional(&delivered.files)? {
            calibrations.push((delivered.from, calibration));
        }
        if delivered.part == Part::Calibration {
            continue;
        }
        let part = (delivered.part.trained(), &delivered.files);
        match stages.iter_mut().find(|model| model.from == delivered.from) {
            Some(model) => model.parts.push(part),
            None => stages.push(Model {
                from: delivered.from,
                name: delivered.stage_name.clone(),
                stage_name: &delivered.stage_name,
                model: 1,
                parts: vec![part],
                fits: None,
            }),
        }
    }
    let each = stages.into_iter().flat_map(|stage| {
        let n = stage.parts.iter().map(|(_, files)| n_models(files)).min().unwrap_or(1);
        let calibration = calibrations.iter().find(|(from, _)| *from == stage.from).map(|(_, found)| found);
        (1..=n).map(move |model| Model {
            name: name_of(stage.stage_name, model),
            model,
            parts: stage.parts.clone(),
            fits: calibration.and_then(|found| Some((found.models.get(model as usize - 1)?.clone(), found.error))),
            ..stage
        })
    });
    Ok(each.collect())
}

/// A member of an ensemble: its stage, which of the stage's models it is, the tasks that it is made of.
pub(super) type Share = (String, u32, Vec<String>);

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
    pub fn apart(&self) -> Vec<Share> {
        let of = |part: &Part| (self.stage_name.to_owned(), self.model, vec![part.to_string()]);
        self.parts.iter().map(|(part, _)| of(part)).collect()
    }

    /// Its final model as a member of an ensemble.
    pub fn as_member(&self) -> Share {
        let refitted = self.part(Part::All).map(|_| vec![Part::All.to_string()]);
        let parts = refitted.unwrap_or_else(|| self.parts.iter().map(|(part, _)| part.to_string()).collect());
        (self.stage_name.to_owned(), self.model, parts)
    }

    /// What was fitted for the rows of `fold`; `None`: for test rows.
    pub fn fit(&self, fold: Option<u32>) -> Option<Fit> {
        self.fits.as_ref().map(|(fits, _)| fits.of(fold))
    }

    /// The error that is wanted of its answers, where it may abstain.
    pub fn wanted_error(&self) -> Option<f64> {
        self.fits.as_ref().and_then(|(_, error)| *error)
    }

    /// Whether what goes for a fold was fitted on that very fold.
    pub fn is_fitted_on_own_rows(&self) -> bool {
        self.fits.as_ref().is_some_and(|(fits, _)| fits.is_of_own_rows())
    }

    /// The same model, whose probabilities are as they were before anything was fitted to them.
    pub fn as_trained(&self) -> Model<'a> {
        Model { name: self.name.clone(), parts: self.parts.clone(), fits: None, ..*self }
    }

    /// With its temperature.
    fn at_temperature(&self, said: Predictions, fold: Option<u32>) -> Predictions {
        match self.fit(fold).and_then(|fit| fit.temperature) {
            Some(temperature) => tempered(&said, temperature),
            None => said,
        }
    }

    /// What it says of test rows.
    fn read_test(&self, files: &Files) -> Result<Option<Predictions>, StageError> {
        let said = Predictions::read_optional(files, &file_of(TEST, self.model))?;
        Ok(said.map(|said| self.at_temperature(said, None)))
    }

    /// What fold `fold` says of the test split.
    ///
    /// # Errors
    /// If its file is damaged.
    pub fn fold_test(&self, fold: u32) -> Result<Option<Predictions>, StageError> {
        let Some(files) = self.part(Part::Fold(fold)) else { return Ok(None) };
        self.read_test(files)
    }

    /// What each of its folds (or the ensemble that it is) says of the test split; nothing without a test split.
    pub fn tests(&self) -> Result<Vec<Predictions>, StageError> {
        let mut tests = Vec::new();
        for (_, files) in self.parts.iter().filter(|(part, _)| *part != Part::All) {
            tests.extend(self.read_test(files)?);
        }
        Ok(tests)
    }

    /// What its final model says of the test split: the refitted one, else the mean of its folds.
    ///
    /// # Errors
    /// If a file is damaged.
    pub fn test(&self) -> Result<Option<Predictions>, StageError> {
        if let Some(files) = self.part(Part::All).or(self.part(Part::Whole)) {
            return self.read_test(files);
        }
        let tests = self.tests()?;
        if tests.is_empty() { Ok(None) } else { Combine::MeanProbability.apply(&tests).map(Some) }
    }

    /// What it says of the rows of `fold` out of fold.
    ///
    /// # Errors
    /// If a file is damaged.
    pub fn validation(&self, fold: u32) -> Result<Option<OutOfFold>, StageError> {
        let said = match (self.part(Part::Whole), self.part(Part::Fold(fold))) {
            (Some(files), _) => read_validation(files, fold)?,
            (None, Some(files)) => OutOfFold::read(files, self.model)?,
            (None, None) => None,
        };
        let has_temperature = self.fit(Some(fold)).is_some_and(|fit| fit.temperature.is_some());
        let is_own = has_temperature && self.is_fitted_on_own_rows();
        Ok(said.map(|said| said.changed(is_own, |said| self.at_temperature(said, Some(fold)))))
    }
}
