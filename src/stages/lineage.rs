//! What every stage below a split needs of the stages above it, and the feed that comes of it.

use std::sync::Arc;

use super::{Need, Output, Part, StageError, Task, Upstream};
use crate::artifact::dataset::Dataset;
use crate::artifact::splits::Splits;
use crate::artifact::transform;
use crate::data::feed::Feed;
use crate::data::fit_set::{Fit, FitSet};

/// The tasks that fit set `part` of a stage builds on: data set, splits, then the fitted stages in order.
pub fn needs(part: Part, upstream: &Upstream<'_>) -> Vec<Need> {
    let above = upstream.own_lineage().into_iter();
    above
        .map(|stage| match upstream.nodes[stage].flow.output {
            Output::Dataset | Output::Splits => Need { stage, part: Part::Whole },
            _ => Need { stage, part },
        })
        .collect()
}

/// The data set of a task.
///
/// # Errors
/// If its files are damaged.
pub fn dataset(task: &Task<'_>) -> Result<Dataset, StageError> {
    Ok(Dataset::read(task.input(Output::Dataset))?)
}

/// The splits of a task.
///
/// # Errors
/// If their files are damaged.
pub fn splits(task: &Task<'_>) -> Result<Splits, StageError> {
    Ok(Splits::read(task.input(Output::Splits))?)
}

/// The samples as they come out of the fitted stages of a task.
///
/// # Errors
/// If files are damaged.
pub fn feed(task: &Task<'_>, dataset: &Arc<Dataset>) -> Result<Feed, StageError> {
    let mut fitted = Vec::new();
    for delivered in task.inputs_with(Output::Fitted) {
        fitted.extend(transform::read(&delivered.files)?.0);
    }
    Ok(Feed::new(Arc::<Dataset>::clone(dataset) as _, fitted))
}

/// The fit set that a task of `part` is about.
///
/// # Panics
/// If `part` is the whole stage.
pub fn fit_set(splits: &Splits, part: Part) -> FitSet {
    splits.fit_set(match part {
        Part::Fold(fold) => Fit::Fold(fold),
        Part::All => Fit::All,
        Part::Whole => panic!("a task for the whole stage has no fit set"),
    })
}
