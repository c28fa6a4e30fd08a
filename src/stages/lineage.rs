//! What every stage below a split needs of the stages above it, and the feed that comes of it.

use std::sync::Arc;

use super::{Need, Output, Part, Reads, StageError, Task, Upstream};
use crate::artifact::dataset::{DATASET_FILES, Dataset, Names, Numbers};
use crate::artifact::features::{self, Features};
use crate::artifact::splits::{self, Splits};
use crate::artifact::transform;
use crate::data::feed::Feed;
use crate::data::fit_set::{Fit, FitSet};
use crate::data::samples::Samples;

/// What [`splits`] reads.
const SPLITS: Reads = Reads(&[splits::PLACES, splits::SUMMARY]);

/// What [`feed`] reads of a fitted stage: its transforms, or the features.
const FITTED: Reads = Reads(&[transform::STEPS, transform::NUMBERS, features::DESCRIPTION, features::FEATURES]);

/// The tasks that fit set `part` of a stage builds on: data set, splits, then the fitted stages in order.
pub fn needs(part: Part, upstream: &Upstream<'_>) -> Vec<Need> {
    let above = upstream.own_lineage().into_iter();
    above
        .map(|stage| match upstream.nodes[stage].flow.output {
            Output::Dataset => Need { stage, part: Part::Whole, files: Reads(DATASET_FILES) },
            Output::Splits => Need { stage, part: Part::Whole, files: SPLITS },
            _ => Need { stage, part, files: FITTED },
        })
        .collect()
}

/// The data set above a stage, of which it reads these files.
pub fn dataset_need(upstream: &Upstream<'_>, files: &'static [&'static str]) -> Option<Need> {
    let is_dataset = |stage: &usize| upstream.nodes[*stage].flow.output == Output::Dataset;
    let stage = upstream.own_lineage().into_iter().find(is_dataset)?;
    Some(Need { stage, part: Part::Whole, files: Reads(files) })
}

/// The split above a stage.
pub fn splits_need(upstream: &Upstream<'_>) -> Option<Need> {
    let is_split = |stage: &usize| upstream.nodes[*stage].flow.output == Output::Splits;
    let stage = upstream.own_lineage().into_iter().find(is_split)?;
    Some(Need { stage, part: Part::Whole, files: SPLITS })
}

/// What a task knows of its data set but for pixels and names.
///
/// # Errors
/// If its files are damaged.
pub fn numbers(task: &Task) -> Result<Numbers, StageError> {
    Ok(Numbers::read(task.input(Output::Dataset))?)
}

/// What the data set of a task calls its images and classes.
///
/// # Errors
/// If its files are damaged.
pub fn names(task: &Task) -> Result<Names, StageError> {
    Ok(Names::read(task.input(Output::Dataset))?)
}

/// The data set of a task.
///
/// # Errors
/// If its files are damaged.
pub fn dataset(task: &Task) -> Result<Dataset, StageError> {
    Ok(Dataset::read(task.input(Output::Dataset))?)
}

/// The splits of a task.
///
/// # Errors
/// If their files are damaged.
pub fn splits(task: &Task) -> Result<Splits, StageError> {
    Ok(Splits::read(task.input(Output::Splits))?)
}

/// The samples as they come out of the fitted stages of a task: the features of the last `reduce`, if there is one,
/// else the data set's pixels, under the transforms fitted on them.
///
/// # Errors
/// If files are damaged.
pub fn feed(task: &Task, dataset: &Arc<Dataset>) -> Result<Feed, StageError> {
    let mut samples: Arc<dyn Samples> = Arc::<Dataset>::clone(dataset) as _;
    let mut fitted = Vec::new();
    for delivered in task.inputs_with(Output::Fitted) {
        if Features::are_in(&delivered.files) {
            // All that came before is in the features.
            samples = Arc::new(Features::read(&delivered.files)?);
            fitted.clear();
            if samples.n_samples() != dataset.n_samples() {
                let message = format!("`{}` has features of other images than the data set", delivered.stage_name);
                return Err(StageError::new(message));
            }
        } else {
            let (steps, shape) = transform::read(&delivered.files)?;
            if shape != samples.shape() {
                let message = format!("`{}` was fitted on samples of another shape", delivered.stage_name);
                return Err(StageError::new(message));
            }
            fitted.extend(steps);
        }
    }
    Ok(Feed::new(samples, fitted))
}

/// The rooms that [`feed`] computes with.
pub fn rooms(upstream: &Upstream<'_>) -> Vec<&'static str> {
    let mut rooms = Vec::new();
    upstream.own_lineage().into_iter().for_each(|stage| upstream.nodes[stage].stage.feed(&mut rooms));
    rooms
}

/// The fit set that a task of `part` is about.
///
/// # Panics
/// If `part` is the whole stage.
pub fn fit_set(splits: &Splits, part: Part) -> FitSet {
    splits.fit_set(match part {
        Part::Fold(fold) => Fit::Fold(fold),
        Part::All => Fit::All,
        Part::Whole | Part::Round(_) | Part::Sanity | Part::Pictures | Part::Suspects => {
            panic!("a task for the whole stage has no fit set")
        }
    })
}
