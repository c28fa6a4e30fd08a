//! The epochs: batches in, updates out, validation after each; then the predictions on every row not learned from.

use std::sync::Arc;

use super::batches::{Batches, TrainingBatches};
use super::checkpoint::{Best, Checkpoint};
use super::rows::{EpochRow, LayerRow, epochs_table, layers_table};
use super::{ClassWeights, Context, Output, Part, StageError, Task, Train, lineage, trial, watch};
use crate::artifact::dataset::Dataset;
use crate::artifact::model::{self, Description};
use crate::artifact::predictions::{self, Predictions};
use crate::artifact::search::Exploded;
use crate::artifact::{Sink, model::axes, sheet};
use crate::config::shortest;
use crate::data::fit_set::{TrainingRows, ValidationRows};
use crate::elementary::ln;
use crate::engine::{Engine, Isa};
use crate::memory;
use crate::nn::layer::Role;
use crate::nn::network::{NamedTensor, Network, StepStats};
use crate::nn::plan::{NetworkPlan, PlanProblem};
use crate::nn::schedule::{Moment, Plateau};
use crate::nn::seeds::Seeds;
use crate::nn::training::{LayerStatistics, Trainer, Training};
use crate::tensor::{ImageShape, SampleShape};

/// Trains one network and writes the task's artifact.
pub(super) fn fit(stage: &Train, task: &Task, context: &dyn Context, sink: &mut dyn Sink) -> Result<(), StageError> {
    let dataset = Arc::new(lineage::dataset(task)?);
    let splits = lineage::splits(task)?;
    let fit_set = lineage::fit_set(&splits, task.part);
    let feed = lineage::feed(task, &dataset)?;
    let seeds = seeds(task);
    let training_rows = match fit_set.training() {
        all if stage.data_fraction < 1.0 => &trial::share_of_rows(stage.data_fraction, &seeds, &dataset, all),
        all => all,
    };
    let validation_rows = fit_set.validation();
    if training_rows.is_empty() {
        return Err(no_images());
    }
    let architecture = stage.architecture.as_ref().expect("a checked stage has its layers");
    let plan = plan(stage, feed.sample_shape(), dataset.n_classes())?;

    check_augmentation(stage, feed.sample_shape())?;
    let batch = stage.batch_size.min(training_rows.len());
    if batch < stage.batch_size && stage.batch_size > USUAL_BATCH && is_advised(stage) {
        context.warn(&format!(
            "`batch_size = {}` is more than the training images: each epoch is one update; 32 to {USUAL_BATCH} is usual",
            stage.batch_size
        ));
    }
    let engine = Engine::with_capacity(context.threads(), context.most_threads(), Isa::detect());
    let config = self::training(stage, &seeds, &dataset, training_rows);
    let mut trainer = Trainer::new(&engine, &plan, batch, config);
    let epochs = if task.part == Part::All { median_best_epoch(task)? } else { stage.epochs };
    let mut batches = Batches::new(&feed, &dataset, batch);
    let mut training = TrainingBatches::new(
        (&feed, &dataset),
        training_rows,
        &seeds,
        batch,
        &stage.augment,
        stage.oversample,
        context.threads() > 1,
    );
    let setup = setup(stage, &plan, epochs, validation_rows.len());
    let course = Course { stage, engine: &engine, setup: &setup, context };
    if let Some(message) = l2_outweighs(stage, trainer.network()).filter(|_| is_advised(stage)) {
        context.warn(&message);
    }
    let start = Filters::of(trainer.network());
    let mut run = course.run(&mut trainer, &mut training, &mut batches, validation_rows)?;
    if let Some(exploded) = &run.exploded {
        exploded.write(sink)?;
        sink.put("epochs.csv", &epochs_table(&run.epochs))?;
        sink.put("layers.csv", &layers_table(&run.layers))?;
        return Ok(());
    }
    if is_advised(stage) && !run.is_advised {
        watch::curves(&setup, &run.epochs, &run.layers).iter().for_each(|message| context.warn(message));
    }

    let is_selected =
        !validation_rows.is_empty() && (stage.early_stopping.is_some() || stage.schedule.needs_validation());
    let description = Description {
        format: model::FORMAT,
        architecture: architecture.shorthand(),
        input: axes(plan.input),
        n_classes: plan.n_classes,
        n_parameters: plan.n_parameters(),
        epochs: run.epochs.last().map_or(0, |row| row.epoch),
        best_epoch: run.best.epoch,
        is_selected,
        n_training: training_rows.len(),
        snapshots: run.snapshots.iter().rev().map(|(epoch, _)| *epoch).collect(),
    };
    let mut network = trainer.into_network();
    let weights = network.save();
    model::write(&description, &weights, sink)?;
    sink.put("epochs.csv", &epochs_table(&run.epochs))?;
    sink.put("layers.csv", &layers_table(&run.layers))?;
    if let Some(start) = start {
        for (name, values) in
            [("start", Some(&start.values)), ("best", run.best_filters.as_ref()), ("end", run.end_filters.as_ref())]
        {
            if let Some(values) = values {
                sink.put(&format!("filters-{name}.png"), &start.sheet(values)?)?;
            }
        }
    }
    let (held_out, test_rows) = (validation_rows.indices(), splits.test_rows().indices());
    let validation = if is_selected { predictions::VALIDATION_SELECTED } else { predictions::VALIDATION };
    // The last snapshot is the network as it is.
    let earlier = run.snapshots.iter().rev().skip(1);
    for (model, (_, weights)) in (2..).zip(earlier.clone()) {
        model::write_weights(weights, sink, &predictions::file_of(model::WEIGHTS, model))?;
    }
    for (model, weights) in (1..).zip([&weights].into_iter().chain(earlier.map(|(_, weights)| weights))) {
        if model > 1 {
            network.load(weights).map_err(|error| StageError::new(error.to_string()))?;
        }
        for (rows, name) in [(&held_out, validation), (&test_rows, predictions::TEST)] {
            if !rows.is_empty() {
                let known = if model == 1 && name == validation { run.validation.take() } else { None };
                let predictions = match known {
                    Some(known) => known,
                    None => predict(&mut network, &mut batches, rows, context)?,
                };
                predictions.write(sink, &predictions::file_of(name, model))?;
            }
        }
    }
    Ok(())
}

/// What all random numbers of a task follow from.
pub(super) fn seeds(task: &Task) -> Seeds {
    let fit_set = match task.part {
        Part::Fold(fold) => u64::from(fold),
        _ => 0,
    };
    Seeds { seed: task.seed, indices: vec![("fit set", fit_set)] }
}

/// How the stage trains a network on these rows.
pub(super) fn training(stage: &Train, seeds: &Seeds, dataset: &Dataset, rows: &TrainingRows) -> Training {
    Training {
        seeds: seeds.clone(),
        initializer: stage.initializer,
        last_layer_gain: stage.last_layer_gain,
        optimizer: Arc::clone(&stage.optimizer),
        l2: stage.l2,
        weight_decay: stage.weight_decay,
        decays_all: stage.decays_all(),
        clip: stage.clip,
        label_smoothing: stage.label_smoothing,
        class_weights: class_weights(stage.class_weights, dataset, rows),
    }
}

/// What `check` could not know of: whether the stage's augmentation fits the shape of the images.
///
/// # Errors
/// The first that does not.
pub(super) fn check_augmentation(stage: &Train, shape: SampleShape) -> Result<(), StageError> {
    let Some(misfit) = stage.augment.misfits(Some(shape)).into_iter().next() else { return Ok(()) };
    let error = StageError::new(misfit.message).key("augment");
    Err(match misfit.help {
        Some(help) => error.help(help),
        None => error,
    })
}

/// A task without a training row.
pub(super) fn no_images() -> StageError {
    StageError::new("there is no image to train on").help("give `split` more images, or fewer folds")
}

/// The stage's network for samples of this shape.
///
/// # Errors
/// What `check` could not know before the shape and the number of classes were.
pub(super) fn plan(stage: &Train, shape: SampleShape, n_classes: usize) -> Result<NetworkPlan, StageError> {
    let architecture = stage.architecture.as_ref().expect("a checked stage has its layers");
    let plan = NetworkPlan::new(&architecture.layers, shape, n_classes).map_err(plan_error)?;
    let needed = plan.least_training_bytes(stage.batch_size, stage.optimizer.n_moments());
    memory::check("training this network", needed).map_err(|message| {
        StageError::new(message).key("architecture").help("make its layers or `batch_size` smaller")
    })?;
    Ok(plan)
}

/// The first problem of a plan.
pub(super) fn plan_error(problems: Vec<PlanProblem>) -> StageError {
    problems.into_iter().next().expect("an error names a problem").of("architecture").into()
}

/// What the epochs leave behind besides the network.
struct Run {
    epochs: Vec<EpochRow>,
    layers: Vec<LayerRow>,
    best: Best,
    /// Epochs and weights.
    snapshots: Vec<(u32, Vec<NamedTensor>)>,
    /// A trial whose numbers ended it.
    exploded: Option<Exploded>,
    /// The first layer's weights after the best epoch, where they can be looked at.
    best_filters: Option<Vec<f32>>,
    /// And after the last one.
    end_filters: Option<Vec<f32>>,
    /// What the network says of the validation rows, if that was asked for already.
    validation: Option<Predictions>,
    /// Whether advice was given: more would be about what follows from the same.
    is_advised: bool,
}

/// What a pass over the training rows leaves behind besides the network.
struct Passed {
    total: StepStats,
    /// Of the last step.
    learning_rate: f64,
    /// The step that the layers' statistics are of.
    statistics_step: u64,
}

/// Why a pass ended before its last row.
enum Ended {
    /// A trial's numbers ended it.
    Exploded(Exploded),
    Failed(StageError),
}

impl From<StageError> for Ended {
    fn from(error: StageError) -> Ended {
        Ended::Failed(error)
    }
}

/// Where a training stands before an epoch.
struct Progress<'a> {
    epochs: u32,
    plateau: &'a Plateau,
    before: &'a [EpochRow],
}

/// A training, from its first epoch to its last.
struct Course<'a> {
    stage: &'a Train,
    engine: &'a Engine,
    setup: &'a watch::Setup,
    context: &'a dyn Context,
}

impl Course<'_> {
    fn run(
        &self,
        trainer: &mut Trainer,
        training: &mut TrainingBatches<'_>,
        batches: &mut Batches<'_>,
        validation_rows: &ValidationRows,
    ) -> Result<Run, StageError> {
        let Course { stage, setup, context, .. } = *self;
        let epochs = setup.epochs;
        let steps_per_epoch = training.n_batches() as u64;
        let mut plateau = Plateau::default();
        let mut run = Run {
            epochs: Vec::new(),
            layers: Vec::new(),
            best: Best::none(),
            snapshots: Vec::new(),
            exploded: None,
            best_filters: None,
            end_filters: None,
            validation: None,
            is_advised: false,
        };
        let mut best_weights = None;
        let snapshot_epochs = snapshot_epochs(stage, epochs);
        let mut first_epoch = 1;
        let checkpoint = context.load_checkpoint().and_then(Checkpoint::from_bytes);
        if let Some(checkpoint) = checkpoint
            && trainer.load_state(checkpoint.step, &checkpoint.state).is_ok()
        {
            first_epoch = checkpoint.epoch + 1;
            plateau = checkpoint.plateau;
            run = Run {
                epochs: checkpoint.epochs,
                layers: checkpoint.layers,
                best: checkpoint.best,
                snapshots: checkpoint.snapshots,
                exploded: None,
                best_filters: checkpoint.best_filters,
                end_filters: None,
                validation: None,
                is_advised: false,
            };
            best_weights = checkpoint.best_weights;
        }
        let mut statistics: Vec<LayerStatistics> = Vec::new();
        if first_epoch > 1 {
            // What is left is reckoned from here.
            let note = format!("goes on after epoch {}", first_epoch - 1);
            let (done, total) = (u64::from(first_epoch - 1) * steps_per_epoch, u64::from(epochs) * steps_per_epoch);
            context.progress(done, total, "batches", &note);
        }
        for epoch in first_epoch..=epochs {
            if is_stopped(stage, &run.best) {
                break;
            }
            let passed = if stage.optimizer.full_batch().is_some() {
                self.full_batch(trainer, training, epoch, &mut statistics)
            } else {
                let progress = Progress { epochs, plateau: &plateau, before: &run.epochs };
                self.in_batches(trainer, training, epoch, &progress, &mut statistics)
            };
            let Passed { total, learning_rate, statistics_step } = match passed {
                Ok(passed) => passed,
                Err(Ended::Exploded(exploded)) => {
                    run.exploded = Some(exploded);
                    return Ok(run);
                }
                Err(Ended::Failed(error)) => return Err(error),
            };
            // Where the last epoch's network is the one that is kept, what it says now is what it will predict.
            let mut probabilities = Vec::new();
            if epoch == epochs && stage.early_stopping.is_none() {
                probabilities.resize(validation_rows.len() * trainer.network().plan().n_classes, 0.0);
            }
            let valid =
                (!validation_rows.is_empty()).then(|| evaluate(trainer, batches, validation_rows, &mut probabilities));
            if !probabilities.is_empty() {
                let n_classes = trainer.network().plan().n_classes;
                run.validation = Some(Predictions::new(validation_rows.indices(), n_classes, probabilities));
            }
            let row = EpochRow {
                epoch,
                step: trainer.step(),
                learning_rate,
                train_loss: total.loss(),
                train_accuracy: total.accuracy(),
                valid_loss: valid.map(|stats| stats.loss()),
                valid_accuracy: valid.map(|stats| stats.accuracy()),
            };
            run.layers.extend(statistics.iter().map(|of| LayerRow::new(epoch, statistics_step, of)));
            if stage.is_trial {
                run.exploded = trial::exploded(
                    epoch,
                    run.epochs.last().map(|before| before.train_loss),
                    row.train_loss,
                    trainer.network().plan().n_classes,
                );
                if run.exploded.is_some() {
                    run.epochs.push(row);
                    return Ok(run);
                }
            }
            let by_accuracy = stage.early_stopping.is_some_and(|stopping| stopping.by_accuracy);
            let score = match (row.valid_loss, row.valid_accuracy) {
                (Some(_), Some(accuracy)) if by_accuracy => -accuracy,
                (Some(loss), _) => loss,
                // Without validation the last epoch counts.
                (None, _) => -f64::from(epoch),
            };
            if run.best.watch(epoch, score) {
                run.best_filters = Filters::of(trainer.network()).map(|filters| filters.values);
                if stage.early_stopping.is_some() && valid.is_some() {
                    best_weights = Some(trainer.network().save());
                }
            }
            if let (Some(loss), Some(accuracy)) = (row.valid_loss, row.valid_accuracy) {
                stage.schedule.watch(loss, accuracy, &mut plateau);
            }
            if snapshot_epochs.contains(&u64::from(epoch)) {
                run.snapshots.push((epoch, trainer.network().save()));
            }
            let train_loss = row.train_loss;
            run.epochs.push(row);
            let note = format!("epoch {epoch}/{epochs}, loss {train_loss:.3}{}", standing(&run.epochs));
            if is_advised(stage)
                && !run.is_advised
                && let Some(message) = watch::layers(setup, &run.epochs, &run.layers)
            {
                context.warn(&message);
                run.is_advised = true;
            }
            context.progress(u64::from(epoch) * steps_per_epoch, u64::from(epochs) * steps_per_epoch, "batches", &note);
            if epoch < epochs && context.wants_checkpoint() {
                let (step, state) = trainer.save_state();
                let checkpoint = Checkpoint {
                    epoch,
                    step,
                    plateau,
                    best: run.best,
                    epochs: run.epochs.clone(),
                    layers: run.layers.clone(),
                    state,
                    best_weights: best_weights.clone(),
                    snapshots: run.snapshots.clone(),
                    best_filters: run.best_filters.clone(),
                };
                match checkpoint.to_bytes() {
                    Ok(bytes) => context.save_checkpoint(&bytes),
                    Err(error) => context.warn(&format!("no checkpoint is kept: {error}")),
                }
                if context.is_out_of_time() {
                    return Err(StageError::cancelled());
                }
            }
        }
        run.end_filters = Filters::of(trainer.network()).map(|filters| filters.values);
        if let (Some(last), true) = (run.epochs.last(), best_weights.is_some()) {
            let kept = run.best.epoch;
            let accuracy = run.epochs.iter().find(|row| row.epoch == kept).and_then(|row| row.valid_accuracy);
            let accuracy =
                accuracy.map_or_else(String::new, |accuracy| format!(" (validation accuracy {accuracy:.4})"));
            let ended = if last.epoch < epochs { "stopped after" } else { "went through" };
            let note = format!("{ended} epoch {} of {epochs}, kept epoch {kept}{accuracy}", last.epoch);
            let done = u64::from(last.epoch) * steps_per_epoch;
            context.progress(done, done, "batches", &note);
        }
        if let Some(weights) = best_weights {
            trainer.load(&weights).map_err(|error| StageError::new(error.to_string()))?;
        }
        Ok(run)
    }

    /// One update by all training rows at once.
    fn full_batch(
        &self,
        trainer: &mut Trainer,
        training: &mut TrainingBatches<'_>,
        epoch: u32,
        statistics: &mut Vec<LayerStatistics>,
    ) -> Result<Passed, Ended> {
        let Course { stage, context, .. } = *self;
        let step = trainer.full_batch_step(&mut training.all(context), Some(statistics));
        let (total, learning_rate) = step.ok_or_else(StageError::cancelled)?;
        if total.is_finite() {
            return Ok(Passed { total, learning_rate, statistics_step: trainer.step() });
        }
        Err(if stage.is_trial {
            Ended::Exploded(trial::not_finite(epoch, 1))
        } else {
            StageError::new(format!("loss is not finite (epoch {epoch})")).key("optimizer").into()
        })
    }

    /// One update by each batch.
    fn in_batches(
        &self,
        trainer: &mut Trainer,
        training: &mut TrainingBatches<'_>,
        epoch: u32,
        progress: &Progress<'_>,
        statistics: &mut Vec<LayerStatistics>,
    ) -> Result<Passed, Ended> {
        let Course { stage, engine, context, .. } = *self;
        let (epochs, steps_per_epoch) = (u64::from(progress.epochs), training.n_batches() as u64);
        // What a step did is read off a whole batch: in a rest of two samples half of all units are 0.
        let statistics_at = training.n_whole_batches().saturating_sub(1);
        let mut passed = Passed { total: StepStats::default(), learning_rate: stage.learning_rate, statistics_step: 0 };
        let mut exploded = None;
        let outcome = training.for_each(epoch, |i, images, targets| {
            if context.is_cancelled() {
                return Err(StageError::cancelled());
            }
            engine.set_threads(context.threads_now());
            let moment = Moment { step: trainer.step(), steps_per_epoch, epochs };
            passed.learning_rate = stage.learning_rate * stage.schedule.factor(moment, progress.plateau);
            let is_looked_at = i == statistics_at;
            let stats =
                trainer.train_step(images, targets, passed.learning_rate, is_looked_at.then_some(&mut *statistics));
            if is_looked_at {
                passed.statistics_step = trainer.step();
            }
            if !stats.is_finite() {
                if stage.is_trial {
                    exploded = Some(trial::not_finite(epoch, i + 1));
                }
                return Err(not_finite(stage, epoch, i + 1, images));
            }
            passed.total.add(stats);
            if i % 16 == 15 {
                let done = u64::from(epoch - 1) * steps_per_epoch + i as u64 + 1;
                let (loss, standing) = (passed.total.loss(), standing(progress.before));
                let note = format!("epoch {epoch}/{epochs}, loss {loss:.3}{standing}");
                context.progress(done, epochs * steps_per_epoch, "batches", &note);
            }
            Ok(())
        });
        match exploded {
            Some(exploded) => Err(Ended::Exploded(exploded)),
            None => outcome.map(|()| passed).map_err(Ended::Failed),
        }
    }
}

/// What to say of a loss that is no number.
fn not_finite(stage: &Train, epoch: u32, batch: usize, images: &[f32]) -> StageError {
    if let Some(value) = images.iter().find(|x| !x.is_finite()) {
        let message = format!("an image comes to the network with the value {value} (epoch {epoch}, batch {batch})");
        return StageError::new(message).help("look at the stages above: a `scale` or a `reduce` made it of the image");
    }
    StageError::new(format!("loss is not finite (epoch {epoch}, batch {batch})"))
        .key("learning_rate")
        .help(format!("lower `learning_rate` (now {})", shortest(stage.learning_rate)))
}

/// The epochs after which a snapshot is kept: the last ends of cycles, or the last epochs where there are no cycles.
fn snapshot_epochs(stage: &Train, epochs: u32) -> Vec<u64> {
    let epochs = u64::from(epochs);
    let all =
        if stage.schedule.n_cycles() > 1 { stage.schedule.ends_of_cycles(epochs) } else { (1..=epochs).collect() };
    all[all.len().saturating_sub(stage.snapshots.unwrap_or(0) as usize)..].to_vec()
}

/// How the last epoch did on validation rows, and the best one so far: `, validation accuracy 0.9723 (best 0.9801)`.
fn standing(epochs: &[EpochRow]) -> String {
    let Some(last) = epochs.last().and_then(|row| row.valid_accuracy) else { return String::new() };
    let best = epochs.iter().filter_map(|row| row.valid_accuracy).fold(last, f64::max);
    format!(", validation accuracy {last:.4} (best {best:.4})")
}

/// Whether people are told about the numbers of a training. Advice about a hundred trials would be a hundred warnings:
/// a search ranks them instead. A full-batch optimizer chooses its own step lengths.
fn is_advised(stage: &Train) -> bool {
    !stage.is_trial && stage.optimizer.full_batch().is_none()
}

/// Images of the largest batch that is usual.
const USUAL_BATCH: usize = 128;

/// What advice depends on.
fn setup(stage: &Train, plan: &NetworkPlan, epochs: u32, n_valid: usize) -> watch::Setup {
    let has = |word: &str| plan.layers.iter().any(|layer| layer.config.word() == word);
    let has_l2 = plan.tensors().any(|tensor| stage.l2_of(&tensor.spec) > 0.0);
    let decays = stage.weight_decay.unwrap_or_else(|| stage.optimizer.weight_decay()) > 0.0;
    let is_image = plan.input.image().is_some();
    let means = [
        ("`l2 = 1e-4`", has_l2 || decays),
        ("`DROPOUT(0.5)` before the last `FC`", has("dropout")),
        ("`NOISE(0.1)` after `INPUT`", has("noise")),
        ("`augment`", !is_image || !stage.augment.is_empty()),
    ];
    watch::Setup {
        learning_rate: stage.learning_rate,
        epochs,
        guessing: ln(plan.n_classes as f64),
        stops_early: stage.early_stopping.is_some(),
        starts_small: stage.last_layer_gain < 1.0,
        unused: means.into_iter().filter(|(_, is_used)| !is_used).map(|(name, _)| name).collect(),
        n_valid,
    }
}

/// A warning if L2 makes up more of the loss at the start than guessing does: it is added to every loss that is
/// minimised, and to none that is reported.
fn l2_outweighs(stage: &Train, network: &Network) -> Option<String> {
    let plan = network.plan();
    let share = network.save().iter().fold(0.0, |sum, tensor| {
        let spec = plan.tensors().find(|planned| planned.name == tensor.name).map(|planned| &planned.spec);
        let l2 = spec.map_or(0.0, |spec| stage.l2_of(spec));
        match l2 > 0.0 {
            true => sum + l2 / 2.0 * tensor.values.iter().fold(0.0, |sum, &w| sum + f64::from(w) * f64::from(w)),
            false => sum,
        }
    });
    let guessing = ln(plan.n_classes as f64);
    (share > guessing).then(|| {
        format!("L2 adds {share:.1} to the loss before the first update, more than the {guessing:.1} of guessing: lower `l2`")
    })
}

/// The first layer's weights as pictures: what each filter (or unit) of it looks for in an image.
struct Filters {
    /// `[n, height, width, channels]`.
    values: Vec<f32>,
    shape: ImageShape,
}

/// Most pictures on a sheet.
const MOST_FILTERS: usize = 64;

impl Filters {
    /// Those of the first layer with weights, if it sees the image itself and more than a pixel of it.
    fn of(network: &Network) -> Option<Filters> {
        let plan = network.plan();
        let input = plan.input.image()?;
        let layer =
            plan.layers.iter().find(|layer| layer.tensors.iter().any(|tensor| tensor.spec.role == Role::Weights))?;
        let planned = layer.tensors.iter().find(|tensor| tensor.spec.role == Role::Weights)?;
        let sees_input = layer.input.len() == input.len();
        let shape = match (layer.config.word(), &planned.spec.shape[..]) {
            ("conv", &[height, width, channels, _]) if channels == input.channels => {
                ImageShape { height, width, channels }
            }
            ("fc", &[n, _]) if n == input.len() => input,
            _ => return None,
        };
        if !sees_input || shape.height * shape.width < 2 {
            return None;
        }
        let tensor = network.save().into_iter().find(|tensor| tensor.name == planned.name)?;
        let n_filters = *tensor.shape.last()?;
        let n = n_filters.min(MOST_FILTERS);
        let values = (0..n).flat_map(|filter| tensor.values.iter().skip(filter).step_by(n_filters).copied()).collect();
        Some(Filters { values, shape })
    }

    /// A sheet of such pictures.
    fn sheet(&self, values: &[f32]) -> Result<Vec<u8>, StageError> {
        Ok(sheet::sheet(values, self.shape)?)
    }
}

fn is_stopped(stage: &Train, best: &Best) -> bool {
    stage.early_stopping.is_some_and(|stopping| best.stale_epochs >= stopping.patience)
}

/// Loss and accuracy, for what stops or slows a training, and into `probabilities`, unless they are empty, what
/// [`predict`] gives.
fn evaluate(
    trainer: &mut Trainer,
    batches: &mut Batches<'_>,
    rows: &ValidationRows,
    mut probabilities: &mut [f32],
) -> StepStats {
    let mut total = StepStats::default();
    let n_classes = trainer.network().plan().n_classes;
    for chunk in rows.chunks(trainer.network().batch()) {
        let (images, labels) = batches.load(chunk);
        let out;
        (out, probabilities) = probabilities.split_at_mut(probabilities.len().min(chunk.len() * n_classes));
        total.add(trainer.evaluate(images, labels, (!out.is_empty()).then_some(out)));
    }
    total
}

fn predict(
    network: &mut Network,
    batches: &mut Batches<'_>,
    rows: &[u32],
    context: &dyn Context,
) -> Result<Predictions, StageError> {
    let n_classes = network.plan().n_classes;
    let mut probabilities = vec![0.0; rows.len() * n_classes];
    let batch = network.batch();
    for (chunk, out) in rows.chunks(batch).zip(probabilities.chunks_mut(batch * n_classes)) {
        if context.is_cancelled() {
            return Err(StageError::cancelled());
        }
        let (images, _) = batches.load(chunk);
        network.predict(images, out);
    }
    Ok(Predictions::new(rows.to_vec(), n_classes, probabilities))
}

/// The lower median of the folds' best epochs.
fn median_best_epoch(task: &Task) -> Result<u32, StageError> {
    let mut epochs: Vec<u32> = task
        .inputs_with(Output::Model)
        .map(|fold| Ok(Description::read(&fold.files)?.best_epoch))
        .collect::<Result<_, StageError>>()?;
    epochs.sort_unstable();
    Ok(epochs[(epochs.len() - 1) / 2].max(1))
}

fn class_weights(weights: ClassWeights, dataset: &Dataset, rows: &TrainingRows) -> Option<Vec<f32>> {
    match weights {
        ClassWeights::None => None,
        ClassWeights::Balanced => {
            let n_classes = dataset.n_classes();
            let by_class = rows.by_class(n_classes, |i| dataset.label(i));
            // A class without a training image weighs nothing: it never comes up.
            let weight = |count: usize| match count {
                0 => 0.0,
                count => (rows.len() as f64 / (n_classes as f64 * count as f64)) as f32,
            };
            Some(by_class.iter().map(|rows| weight(rows.len())).collect())
        }
    }
}
