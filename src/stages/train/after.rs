//! What follows the training of the folds: predictions over several views of each image, and what is fitted to the
//! probabilities of all folds together. Both are tasks of their own: to ask for them, or for others, trains nothing anew.

use std::sync::Arc;

use super::fit::plan_error;
use super::{Context, Output, StageError, Task, Train, lineage};
use crate::artifact::model::{Description, WEIGHTS, read_weights};
use crate::artifact::predictions::{self, OutOfFold, Predictions, n_models};
use crate::artifact::search::{EXPLODED, Exploded};
use crate::artifact::{Files, Sink, views};
use crate::data::augment::Views;
use crate::data::feed::Feed;
use crate::engine::{Engine, Isa};
use crate::memory;
use crate::nn::network::{NamedTensor, Network};
use crate::nn::plan::NetworkPlan;
use crate::stages::ensemble::Combine;

/// Samples that the network takes at once.
const BATCH: usize = 64;
/// Samples of a view that are in memory at once.
const CHUNK: usize = 1024;

/// What the networks of a fold (or of all rows) say of the rows that they were not fitted on, over the stage's views.
pub(super) fn predict(
    stage: &Train,
    task: &Task,
    context: &dyn Context,
    sink: &mut dyn Sink,
) -> Result<(), StageError> {
    let trained = task.input(Output::Model);
    if Exploded::is_in(trained) {
        // Who reads this says what it means there.
        return Ok(sink.put(EXPLODED, trained.get(EXPLODED)?)?);
    }
    let dataset = Arc::new(lineage::dataset(task)?);
    let splits = lineage::splits(task)?;
    let feed = lineage::feed(task, &dataset)?;
    if let Some(misfit) = stage.views.misfits(Some(feed.sample_shape())).into_iter().next() {
        let error = StageError::new(misfit.message).key("predict");
        return Err(match misfit.help {
            Some(help) => error.help(help),
            None => error,
        });
    }
    let description = Description::read(trained)?;
    let architecture = stage.architecture.as_ref().expect("a checked stage has its layers");
    let plan =
        NetworkPlan::new(&architecture.layers, feed.sample_shape(), description.n_classes).map_err(plan_error)?;
    memory::check("its network", plan.prediction_bytes(BATCH)).map_err(StageError::new)?;
    let engine = Engine::with_capacity(context.threads(), context.most_threads(), Isa::detect());
    let mut network = Network::new(&engine, &plan, BATCH);
    views::write(&stage.views, sink)?;
    let held_out = lineage::fit_set(&splits, task.part).validation().indices();
    let test_rows = splits.test_rows().indices();
    let validation = if description.is_selected { predictions::VALIDATION_SELECTED } else { predictions::VALIDATION };
    let snapshots = description.snapshots.len().max(1) as u32;
    for number in 1..=snapshots {
        network.load(&weights_of(trained, number)?).map_err(|error| StageError::new(error.to_string()))?;
        for (rows, name) in [(&held_out, validation), (&test_rows, predictions::TEST)] {
            if !rows.is_empty() {
                let said = over_views(&engine, &mut network, &feed, &stage.views, rows, context)?;
                said.write(sink, &predictions::file_of(name, number))?;
            }
        }
    }
    Ok(())
}

fn weights_of(trained: &Files, number: u32) -> Result<Vec<NamedTensor>, StageError> {
    let bytes = trained.get(&predictions::file_of(WEIGHTS, number))?.clone();
    Ok(read_weights(&Files([(WEIGHTS.to_owned(), bytes)].into()))?)
}

/// The mean of the probabilities over views.
///
/// # Determinism
/// In double precision, view by view in their order.
fn over_views(
    engine: &Engine,
    network: &mut Network,
    feed: &Feed,
    views: &Views,
    rows: &[u32],
    context: &dyn Context,
) -> Result<Predictions, StageError> {
    let (len, n_classes) = (feed.sample_shape().len(), network.plan().n_classes);
    let mut images = vec![0.0; rows.len().min(CHUNK) * len];
    let mut said = Vec::with_capacity(views.n());
    for view in 0..views.n() {
        let mut probabilities = vec![0.0; rows.len() * n_classes];
        for (rows, out) in rows.chunks(CHUNK).zip(probabilities.chunks_mut(CHUNK * n_classes)) {
            if context.is_cancelled() {
                return Err(StageError::cancelled());
            }
            engine.set_threads(context.threads_now());
            let images = &mut images[..rows.len() * len];
            views.load_on(engine, view, feed, rows, images);
            network.predict(images, out);
        }
        said.push(Predictions::new(rows.to_vec(), n_classes, probabilities));
        context.progress(view as u64 + 1, views.n() as u64, "views", "");
    }
    Combine::MeanProbability.apply(&said)
}

/// Fits what is asked for to the probabilities of all folds.
pub(super) fn calibrate(
    stage: &Train,
    task: &Task,
    context: &dyn Context,
    sink: &mut dyn Sink,
) -> Result<(), StageError> {
    if context.is_cancelled() {
        return Err(StageError::cancelled());
    }
    let dataset = lineage::numbers(task)?;
    let folds: Vec<&Files> = task.inputs_with(Output::Model).map(|fold| &fold.files).collect();
    if let Some(exploded) = folds.iter().find(|files| Exploded::is_in(files)) {
        return Ok(sink.put(EXPLODED, exploded.get(EXPLODED)?)?);
    }
    let n_models = folds.iter().map(|files| n_models(files)).min().unwrap_or(1);
    let of_model = |model: u32| -> Result<Vec<OutOfFold>, StageError> {
        let said = folds.iter().map(|files| OutOfFold::read(files, model));
        Ok(said.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    };
    let models = (1..=n_models).map(of_model).collect::<Result<Vec<_>, _>>()?;
    if models.iter().any(|said| said.len() < folds.len()) {
        return Err(StageError::new("a fold has no predictions of the rows that were held out of it"));
    }
    let (calibration, warnings) = stage.calibrate.fit(&models, &dataset)?;
    if !stage.is_trial {
        warnings.iter().for_each(|warning| context.warn(warning));
    }
    Ok(calibration.write(sink)?)
}
