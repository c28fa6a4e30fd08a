//! A network in memory: forward, backward, update, and what can be saved of it.
//!
//! Everything is allocated when a [`Network`] is made: one arena for activations, two buffers that gradients travel
//! through, one slice each for parameters, gradients and moments. A step allocates nothing. Start at
//! [`Network::train_step`]; the plan that it carries out is [`NetworkPlan`].

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::init::Initializer;
use super::layer::{Backward, Build, Forward, Layer, Norm, Pass, Role, Start, lay_out};
use super::optimizer::{Evaluated, MAX_MOMENTS, Objective, OptimizerConfig, Update};
use super::plan::{NetworkPlan, Op};
use super::seeds::Seeds;
use crate::engine::{
    self, BatchLoss, Buffer, Engine, Input, LossOptions, LossScratch, Targets, UpdateStep, activate, activate_backward,
    softmax_cross_entropy,
};

/// How a network is trained, apart from its layers and the learning rate of each step.
#[derive(Clone, Debug)]
pub struct Training {
    /// What all random numbers are derived from.
    pub seeds: Seeds,
    /// For layers that do not name their own.
    pub initializer: Initializer,
    /// What the deviation of the last layer with weights, the one before the softmax, is multiplied by, whatever its
    /// initializer draws from; constants stay what they are. At 1 it starts as all others do.
    pub last_layer_gain: f64,
    /// The rule.
    pub optimizer: Arc<dyn OptimizerConfig>,
    /// `l2 * w` is added to the gradient of weights (not of biases and batch normalisation); a layer's own goes first.
    pub l2: f64,
    /// Decoupled; `None` leaves it to the optimizer (AdamW has one).
    pub weight_decay: Option<f64>,
    /// Whether `l2` and `weight_decay` act on biases and batch normalisation too.
    pub decays_all: bool,
    /// Gradients (without L2) are scaled down to this norm when theirs is larger.
    pub clip: Option<f64>,
    /// Share of each target that is spread over all classes.
    pub label_smoothing: f64,
    /// A weight per class.
    pub class_weights: Option<Vec<f32>>,
}

/// All samples that are learned from, in batches that are the same each time.
pub trait AllSamples {
    /// Calls `f(images, targets)` for each batch, in order; false if it was stopped before the end.
    fn for_each(&mut self, f: &mut dyn FnMut(&[f32], Targets<'_>)) -> bool;
}

/// What one step, or an evaluation, tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepStats {
    /// Sum over samples of weight times loss, in nats, without L2.
    pub loss_sum: f64,
    /// Sum of the weights: the number of samples where classes have none. The mean loss is `loss_sum / weight_sum`.
    pub weight_sum: f64,
    /// Samples whose largest probability is at their label.
    pub n_correct: usize,
    /// Samples.
    pub n: usize,
}

impl StepStats {
    /// Mean loss in nats.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.weight_sum
    }

    /// Share of samples that are right.
    pub fn accuracy(&self) -> f64 {
        self.n_correct as f64 / self.n as f64
    }

    /// Whether the loss is a number; if not, the step that says so has changed no weight.
    pub fn is_finite(&self) -> bool {
        self.loss_sum.is_finite()
    }

    /// Adds another batch.
    pub fn add(&mut self, other: StepStats) {
        self.loss_sum += other.loss_sum;
        self.weight_sum += other.weight_sum;
        self.n_correct += other.n_correct;
        self.n += other.n;
    }
}

/// What a step did to one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerStatistics {
    /// The layer's place, from 0.
    pub layer: usize,
    /// Its word.
    pub word: &'static str,
    /// Euclidean norm of its weights (without biases) after the step; `None` for layers without weights.
    pub weight_norm: Option<f64>,
    /// Norm of what the step added to them.
    pub update_norm: Option<f64>,
    /// Norm of their gradient, before clipping and L2.
    pub grad_norm: Option<f64>,
    /// Share of channels (of flat outputs: units) that its ReLU held at 0 for the whole batch.
    pub dead_fraction: Option<f64>,
}

/// A tensor with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// `3.conv.weights`; moments have `moment1.` or `moment2.` in front.
    pub name: String,
    /// Axes, outermost first.
    pub shape: Vec<usize>,
    /// Row by row.
    pub values: Vec<f32>,
}

/// Tensors that do not fit a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tensor `{name}` {message}")]
pub struct TensorError {
    /// The tensor.
    pub name: String,
    /// What is wrong with it.
    pub message: String,
}

/// A network in memory, for at most so many samples at a time.
pub struct Network {
    engine: Engine,
    plan: NetworkPlan,
    batch: usize,
    layers: Vec<Box<dyn Layer>>,
    parameters: Buffer,
    statistics: Buffer,
    values: Buffer,
    value_slots: Vec<Range<usize>>,
    training: Option<Trained>,
    scratch: LossScratch,
}

/// What only training needs.
struct Trained {
    config: Training,
    step: u64,
    gradients: Buffer,
    moments: Vec<Buffer>,
    /// The two buffers that gradients travel through.
    buffers: [Buffer; 2],
    /// Parameters before the step, when statistics are asked for.
    before: Option<Buffer>,
    segments: Vec<Segment>,
    /// What a full-batch rule knows of the weights as they are.
    here: Option<Evaluated<StepStats>>,
}

/// A trained tensor as the optimizer sees it.
struct Segment {
    range: Range<usize>,
    layer: usize,
    is_weights: bool,
    /// Whether weight decay acts on it.
    decays: bool,
    l2: f64,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({} ops, {} parameters, batch {})", self.layers.len(), self.plan.n_parameters(), self.batch)
    }
}

impl Network {
    /// A network that can be trained on batches of at most `batch` samples; its weights are drawn.
    ///
    /// # Determinism
    /// Element `i` of a tensor is draw `i` of the stream (seed, "init", run, layer, tensor).
    ///
    /// # Panics
    /// If `batch` is 0.
    pub fn for_training(engine: &Engine, plan: &NetworkPlan, batch: usize, config: Training) -> Network {
        let mut network = Network::new(engine, plan, batch, true);
        let last = plan.last_drawn();
        for (layer_idx, layer) in plan.layers.iter().enumerate() {
            let gain = if Some(layer_idx) == last { config.last_layer_gain } else { 1.0 };
            for (tensor_idx, tensor) in layer.tensors.iter().enumerate() {
                let values = match tensor.spec.is_trained() {
                    true => &mut network.parameters[tensor.range.clone()],
                    false => &mut network.statistics[tensor.range.clone()],
                };
                match tensor.spec.start {
                    Start::Constant(value) => values.fill(value),
                    Start::Drawn { initializer, fan_in, fan_out } => {
                        let place = [("layer", layer_idx as u64), ("tensor", tensor_idx as u64)];
                        let stream = config.seeds.stream("init", &place);
                        initializer.unwrap_or(config.initializer).fill(gain, fan_in, fan_out, &stream, values);
                    }
                }
            }
        }
        let segments = plan
            .layers
            .iter()
            .enumerate()
            .flat_map(|(layer, planned)| planned.tensors.iter().map(move |tensor| (layer, tensor)))
            .filter(|(_, tensor)| tensor.spec.is_trained())
            .map(|(layer, tensor)| {
                let is_weights = tensor.spec.role == Role::Weights;
                let decays = is_weights || config.decays_all;
                let l2 = tensor.spec.l2.filter(|_| decays || tensor.spec.role == Role::Scale);
                let l2 = l2.unwrap_or(if decays { config.l2 } else { 0.0 });
                Segment { range: tensor.range.clone(), layer, is_weights, decays, l2 }
            })
            .collect();
        network.training = Some(Trained {
            step: 0,
            gradients: Buffer::zeros(plan.parameters_len),
            moments: (0..config.optimizer.n_moments()).map(|_| Buffer::zeros(plan.parameters_len)).collect(),
            buffers: plan.gradient_slots(batch).map(Buffer::zeros),
            before: None,
            segments,
            here: None,
            config,
        });
        network
    }

    /// A network that only predicts; its weights are 0 until [`Network::load`].
    ///
    /// # Panics
    /// If `batch` is 0.
    pub fn for_prediction(engine: &Engine, plan: &NetworkPlan, batch: usize) -> Network {
        Network::new(engine, plan, batch, false)
    }

    fn new(engine: &Engine, plan: &NetworkPlan, batch: usize, is_training: bool) -> Network {
        assert!(batch > 0, "a batch of no samples");
        let (value_slots, len) = plan.value_slots(batch, is_training);
        let layers = (0..plan.ops.len()).map(|i| build(engine, plan, i, batch, is_training)).collect();
        Network {
            engine: engine.clone(),
            plan: plan.clone(),
            batch,
            layers,
            parameters: Buffer::zeros(plan.parameters_len),
            statistics: Buffer::zeros(plan.statistics_len),
            values: Buffer::zeros(len),
            value_slots,
            training: None,
            scratch: LossScratch::default(),
        }
    }

    /// The plan it carries out.
    pub fn plan(&self) -> &NetworkPlan {
        &self.plan
    }

    /// The most samples of one step.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Steps done; part of the address of dropout and noise.
    pub fn step(&self) -> u64 {
        self.training.as_ref().map_or(0, |training| training.step)
    }

    /// One update: forward, loss, backward, optimizer. `statistics`, where given, is overwritten with one entry for each
    /// layer that has weights or a ReLU.
    ///
    /// A loss that is not finite is returned before any weight has changed.
    ///
    /// # Shapes
    /// - `images`: `[n, ...input]`, `n` at most the batch the network was made for
    ///
    /// # Panics
    /// If the network was made for prediction, or shapes do not fit.
    ///
    /// # Determinism
    /// The same bits for any number of threads and any instruction set. Dropout and noise are addressed by
    /// (run, layer, step, position in the batch).
    pub fn train_step(
        &mut self,
        images: &[f32],
        targets: Targets<'_>,
        learning_rate: f64,
        statistics: Option<&mut Vec<LayerStatistics>>,
    ) -> StepStats {
        let stats = self.accumulate_gradients(images, targets);
        if !stats.is_finite() {
            return stats;
        }
        let n = stats.n;
        let training = self.training.as_mut().expect("`accumulate_gradients` wants a network made for training");
        if statistics.is_some() {
            let before = training.before.get_or_insert_with(|| Buffer::zeros(self.parameters.len()));
            before.copy_from_slice(&self.parameters);
        }
        training.update(&self.engine, &mut self.parameters, learning_rate);
        if let Some(statistics) = statistics {
            self.write_statistics(n, statistics);
        }
        stats
    }

    /// One iteration of a full-batch optimizer ([`OptimizerConfig::full_batch`]): what the network says of all samples
    /// afterwards, and the step length that was found. Counts one step. `None` if `samples` were stopped: the network is
    /// then as it was, but for running statistics.
    ///
    /// Batch normalisation looks at one batch at a time, and follows one pass over all samples.
    ///
    /// # Panics
    /// If the network was made for prediction or for another optimizer, or shapes do not fit.
    ///
    /// # Determinism
    /// As [`Network::train_step`]; gradients of batches are added in f64, in order.
    pub fn full_batch_step(
        &mut self,
        samples: &mut dyn AllSamples,
        statistics: Option<&mut Vec<LayerStatistics>>,
    ) -> Option<(StepStats, f64)> {
        let training = self.training.as_mut().expect("a network made for training");
        let optimizer = Arc::clone(&training.config.optimizer);
        let rule = optimizer.full_batch().expect("a full-batch optimizer");
        let mut moments = std::mem::take(&mut training.moments);
        let known = training.here.take();
        let engine = self.engine.clone();
        let mut point = self.parameters.to_vec();
        let sums = vec![0.0; point.len()];
        let mut all = FullBatch { network: self, samples, sums, n_last: 0, is_stopped: false };
        let here = known.unwrap_or_else(|| {
            let mut gradient = vec![0.0; point.len()];
            let (loss, seen) = all.evaluate(&point, &mut gradient);
            Evaluated { loss, gradient, seen }
        });
        let before = all.network.parameters.clone();
        let (next, length) = rule.iterate(&engine, &mut all, &mut point, &here, &mut moments);
        let (is_stopped, n) = (all.is_stopped, all.n_last);
        self.parameters.copy_from_slice(if is_stopped { &before } else { &point });
        let mut is_stopped = is_stopped;
        if !is_stopped && !self.statistics.is_empty() {
            is_stopped = !samples.for_each(&mut |images, _| {
                let n = images.len() / self.plan.input.len();
                self.forward(images, n, true);
            });
        }
        let training = self.training.as_mut().expect("a network made for training");
        training.moments = moments;
        if is_stopped {
            return None;
        }
        training.step += 1;
        training.gradients.copy_from_slice(&next.gradient);
        for segment in &training.segments {
            let weights = &self.parameters[segment.range.clone()];
            for (g, w) in training.gradients[segment.range.clone()].iter_mut().zip(weights) {
                *g -= segment.l2 as f32 * w;
            }
        }
        training.before = Some(before);
        let stats = next.seen;
        training.here = Some(next);
        if let Some(statistics) = statistics {
            self.write_statistics(n, statistics);
        }
        Some((stats, length))
    }

    /// Forward and backward in training mode; the gradient of the mean loss (without L2) is then in
    /// [`Network::gradient`]. Counts no step.
    ///
    /// # Panics
    /// As [`Network::train_step`].
    pub fn accumulate_gradients(&mut self, images: &[f32], targets: Targets<'_>) -> StepStats {
        let n = images.len() / self.plan.input.len();
        self.forward(images, n, true);
        let training = self.training.as_mut().expect("a network made for training");
        let config = &training.config;
        let logits =
            self.value_slots.last().map_or(&[][..], |slot| &self.values[slot.start..][..n * self.plan.n_classes]);
        let options = LossOptions {
            label_smoothing: config.label_smoothing as f32,
            class_weights: config.class_weights.as_deref(),
        };
        let grad = &mut training.buffers[0][..logits.len()];
        let loss = softmax_cross_entropy(
            &self.engine,
            self.plan.n_classes,
            logits,
            targets,
            options,
            Some(grad),
            &mut self.scratch,
        );
        let stats = stats_of(loss, n);
        if stats.is_finite() {
            self.backward(images, n);
        }
        stats
    }

    /// Loss and accuracy in inference mode, without label smoothing and class weights; and, if asked for, what
    /// [`Network::predict`] gives. Any number of samples.
    ///
    /// # Shapes
    /// - `images`: `[n, ...input]`
    /// - `probabilities`: `[n, n_classes]`
    ///
    /// # Panics
    /// If there are not as many labels as images, or `probabilities` are not as many.
    pub fn evaluate(&mut self, images: &[f32], labels: &[u32], mut probabilities: Option<&mut [f32]>) -> StepStats {
        let mut total = StepStats::default();
        let (sample, n_classes) = (self.plan.input.len(), self.plan.n_classes);
        assert_eq!(images.len(), labels.len() * sample, "images and labels");
        let n_values = probabilities.as_ref().map_or(labels.len() * n_classes, |values| values.len());
        assert_eq!(n_values, labels.len() * n_classes, "images and rows of probabilities");
        for (images, labels) in images.chunks(self.batch * sample).zip(labels.chunks(self.batch)) {
            let n = labels.len();
            self.forward(images, n, false);
            let options = LossOptions::default();
            let targets = Targets::Labels(labels);
            let logits =
                self.value_slots.last().map_or(&[][..], |slot| &self.values[slot.start..][..n * self.plan.n_classes]);
            let (engine, scratch) = (&self.engine, &mut self.scratch);
            let loss = softmax_cross_entropy(engine, n_classes, logits, targets, options, None, scratch);
            total.add(stats_of(loss, n));
            if let Some(values) = probabilities.take() {
                let (rows, rest) = values.split_at_mut(n * n_classes);
                rows.copy_from_slice(logits);
                engine::softmax(engine, n_classes, rows);
                probabilities = Some(rest);
            }
        }
        total
    }

    /// Writes the probability of each class for each image, in inference mode. Any number of samples.
    ///
    /// # Shapes
    /// - `images`: `[n, ...input]`
    /// - `probabilities`: `[n, n_classes]`
    ///
    /// # Panics
    /// If shapes do not fit.
    pub fn predict(&mut self, images: &[f32], probabilities: &mut [f32]) {
        let (sample, n_classes) = (self.plan.input.len(), self.plan.n_classes);
        assert_eq!(images.len() / sample, probabilities.len() / n_classes, "images and rows of probabilities");
        let rows = probabilities.chunks_mut(self.batch * n_classes);
        for (images, rows) in images.chunks(self.batch * sample).zip(rows) {
            let n = images.len() / sample;
            self.forward(images, n, false);
            if let Some(slot) = self.value_slots.last() {
                rows.copy_from_slice(&self.values[slot.start..][..n * n_classes]);
            }
            engine::softmax(&self.engine, n_classes, rows);
        }
    }

    fn forward(&mut self, images: &[f32], n: usize, is_training: bool) {
        assert_eq!(images.len(), n * self.plan.input.len(), "images of shape {}", self.plan.input);
        assert!((1..=self.batch).contains(&n), "{n} samples in a batch of at most {}", self.batch);
        let no_seeds = Seeds { seed: 0, indices: Vec::new() };
        let (seeds, step) = match &self.training {
            Some(training) => (&training.config.seeds, training.step),
            None => (&no_seeds, 0),
        };
        let pass = Pass { engine: &self.engine, n, is_training, step, seeds };
        let (ops, slots) = (&self.plan.ops, &self.value_slots);
        let slot = |i: usize| slots[i].start..slots[i].start + n * ops[i].output_len;
        for (i, op) in ops.iter().enumerate() {
            if is_training && ops.get(i + 1).is_some_and(Op::makes_input) {
                // The next op has these values made as it reads them.
                continue;
            }
            let (above, rest) = self.layers.split_at_mut(i);
            let [layer, below @ ..] = rest else { unreachable!("a layer for each op") };
            let below = if is_training && op.norm_below { below.first_mut() } else { None };
            let norm = below.and_then(|below| below.as_norm()).map(Norm::norm);
            let above = if is_training && op.makes_input() { above.last_mut() } else { None };
            let (before, output) = if is_training || i == 0 {
                let (before, output) = self.values.split_at_mut(slots[i].start);
                (before, &mut output[..n * op.output_len])
            } else {
                // Predicting, two slots take turns.
                let [before, output] = self.values.get_disjoint_mut([slot(i - 1), slot(i)]).expect("two slots");
                (before, output)
            };
            let normalised;
            let input = match (above.and_then(|above| above.as_norm()), i) {
                (Some(norm), _) => {
                    let (before, into) = before.split_at_mut(slots[i - 1].start);
                    let before = if i == 1 { images } else { &before[slot(i - 2)] };
                    let op = &ops[i - 1];
                    let statistics = &mut self.statistics[op.statistics.clone()];
                    normalised = norm.normalise(&pass, &self.parameters[op.parameters.clone()], statistics, before);
                    Input::Made { by: &normalised, into: &mut into[..n * op.output_len] }
                }
                (None, 0) => Input::Given(images),
                (None, _) if is_training => Input::Given(&before[slot(i - 1)]),
                (None, _) => Input::Given(before),
            };
            layer.forward(
                &pass,
                Forward {
                    parameters: &self.parameters[op.parameters.clone()],
                    statistics: &mut self.statistics[op.statistics.clone()],
                    input,
                    output: &mut *output,
                    norm,
                },
            );
            if let Some(activation) = op.activation
                && !op.is_fused
            {
                activate(&self.engine, activation.pointwise(), output);
            }
        }
    }

    fn backward(&mut self, images: &[f32], n: usize) {
        let training = self.training.as_mut().expect("a network made for training");
        let Trained { config, step, gradients, buffers, .. } = training;
        let pass = Pass { engine: &self.engine, n, is_training: true, step: *step, seeds: &config.seeds };
        let [at, other] = buffers;
        let (mut at, mut other) = (at, other);
        let (ops, first) = (&self.plan.ops, self.plan.first_trained);
        let value = |i: usize, len: usize| &self.values[self.value_slots[i].start..][..n * len];
        let input_of = |i: usize| if i == 0 { images } else { value(i - 1, ops[i].input_len) };
        let parameters_of = |i: usize| &self.parameters[ops[i].parameters.clone()];
        for i in (first..ops.len()).rev() {
            let op = &ops[i];
            if let Some(activation) = op.activation
                && !(op.is_masked_below || op.masks_itself)
            {
                let output = value(i, op.output_len);
                activate_backward(&self.engine, activation.pointwise(), output, &mut at[..n * op.output_len]);
            }
            let (above, rest) = self.layers.split_at_mut(i);
            let [layer, below @ ..] = rest else { unreachable!("a layer for each op") };
            if i > first && ops[i - 1].norm_below {
                // The op above has the gradient made as it reads it.
                if let Some(norm) = layer.as_norm() {
                    let sums = norm.gradient_sums(&pass, parameters_of(i), input_of(i));
                    sums.finish(&self.engine, &mut at[..n * op.output_len]);
                    if !op.is_in_place {
                        (at, other) = (other, at);
                    }
                }
                continue;
            }
            let wants_input = i > first;
            let goes_across = wants_input && !op.is_in_place;
            let below = if op.norm_below { below.first_mut() } else { None };
            let norm = below.and_then(|below| below.as_norm());
            let has_weights = norm.is_some();
            if let Some(norm) = norm {
                let lower = &ops[i + 1];
                // Where values are pooled, that gradient was left in the other buffer.
                let pooled = if lower.is_in_place { &[] } else { &other[..n * lower.output_len] };
                let grad_norm = &mut gradients[lower.parameters.clone()];
                let made_by = norm.gradient(&pass, parameters_of(i + 1), grad_norm, input_of(i + 1), pooled);
                layer.backward(
                    &pass,
                    Backward {
                        parameters: parameters_of(i),
                        grad_parameters: &mut gradients[op.parameters.clone()],
                        input: input_of(i),
                        output: value(i, op.output_len),
                        grad_output: &mut at[..n * op.output_len],
                        made_by: Some(&made_by),
                        has_weights: false,
                        sums: None,
                        grad_input: None,
                        wants_input: false,
                    },
                );
            }
            let above = if op.norm_above && wants_input { above.last_mut() } else { None };
            let sums = above
                .and_then(|above| above.as_norm())
                .map(|norm| norm.gradient_sums(&pass, parameters_of(i - 1), input_of(i - 1)));
            layer.backward(
                &pass,
                Backward {
                    parameters: parameters_of(i),
                    grad_parameters: &mut gradients[op.parameters.clone()],
                    input: input_of(i),
                    output: value(i, op.output_len),
                    grad_output: &mut at[..n * op.output_len],
                    made_by: None,
                    has_weights,
                    sums: sums.as_ref(),
                    grad_input: goes_across.then(|| &mut other[..n * op.input_len]),
                    wants_input,
                },
            );
            if goes_across {
                (at, other) = (other, at);
            }
        }
    }

    fn write_statistics(&self, n: usize, statistics: &mut Vec<LayerStatistics>) {
        let Some(training) = &self.training else { return };
        let Some(before) = &training.before else { return };
        statistics.clear();
        for (layer, planned) in self.plan.layers.iter().enumerate() {
            let mut entry = LayerStatistics {
                layer,
                word: planned.config.word(),
                weight_norm: None,
                update_norm: None,
                grad_norm: None,
                dead_fraction: None,
            };
            let engine = &self.engine;
            let weights = training.segments.iter().find(|segment| segment.layer == layer && segment.is_weights);
            if let Some(Segment { range, .. }) = weights {
                let (after, before) = (&self.parameters[range.clone()], &before[range.clone()]);
                entry.weight_norm = Some(engine::sum_of_squares(engine, after).sqrt());
                entry.update_norm = Some(engine::sum_of_squared_differences(engine, after, before).sqrt());
                entry.grad_norm = Some(engine::sum_of_squares(engine, &training.gradients[range.clone()]).sqrt());
            }
            if let Some(i) = self.plan.ops.iter().position(|op| op.has_relu_of(layer)) {
                let lanes = planned.output.image().map_or(planned.output.len(), |shape| shape.channels);
                // Pooled or not: windows cover every pixel, so their largest values are 0 where all values are.
                let values = &self.values[self.value_slots[i].start..][..n * self.plan.ops[i].output_len];
                entry.dead_fraction = Some(engine::zero_lanes(values, lanes) as f64 / lanes as f64);
            }
            if entry.weight_norm.is_some() || entry.dead_fraction.is_some() {
                statistics.push(entry);
            }
        }
    }

    /// Every tensor, trained or not, layer by layer: what a model is.
    pub fn save(&self) -> Vec<NamedTensor> {
        self.plan
            .tensors()
            .map(|tensor| {
                let all = if tensor.spec.is_trained() { &self.parameters } else { &self.statistics };
                let values = all[tensor.range.clone()].to_vec();
                NamedTensor { name: tensor.name.clone(), shape: tensor.spec.shape.clone(), values }
            })
            .collect()
    }

    /// Takes over what [`Network::save`] gave; tensors are found by name. Tensors that the network does not have (such
    /// as moments) are left alone.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape; the network is then half loaded.
    pub fn load(&mut self, tensors: &[NamedTensor]) -> Result<(), TensorError> {
        for tensor in self.plan.layers.iter().flat_map(|layer| &layer.tensors) {
            let all = if tensor.spec.is_trained() { &mut self.parameters } else { &mut self.statistics };
            take(tensors, &tensor.name, &tensor.spec.shape, &mut all[tensor.range.clone()])?;
        }
        Ok(())
    }

    /// Everything that the next step depends on besides its samples: tensors, moments and the number of steps done. A
    /// network restored from it goes on with the same bytes.
    pub fn save_state(&self) -> (u64, Vec<NamedTensor>) {
        let mut tensors = self.save();
        let Some(training) = &self.training else { return (0, tensors) };
        for (i, moment) in training.moments.iter().enumerate() {
            for tensor in self.plan.tensors().filter(|tensor| tensor.spec.is_trained()) {
                tensors.push(NamedTensor {
                    name: format!("moment{}.{}", i + 1, tensor.name),
                    shape: tensor.spec.shape.clone(),
                    values: moment[tensor.range.clone()].to_vec(),
                });
            }
        }
        (training.step, tensors)
    }

    /// Takes over what [`Network::save_state`] gave.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape; the network is then half loaded.
    ///
    /// # Panics
    /// If the network was made for prediction.
    pub fn load_state(&mut self, step: u64, tensors: &[NamedTensor]) -> Result<(), TensorError> {
        self.load(tensors)?;
        let training = self.training.as_mut().expect("a network made for training");
        training.step = step;
        training.here = None;
        for (i, moment) in training.moments.iter_mut().enumerate() {
            for tensor in self.plan.layers.iter().flat_map(|layer| &layer.tensors).filter(|t| t.spec.is_trained()) {
                let name = format!("moment{}.{}", i + 1, tensor.name);
                take(tensors, &name, &tensor.spec.shape, &mut moment[tensor.range.clone()])?;
            }
        }
        Ok(())
    }

    /// The gradient that the last backward pass left, tensor by tensor, in the order of the plan's trained tensors.
    pub fn gradient(&self) -> impl Iterator<Item = (&str, &[f32])> {
        let gradients = self.training.as_ref().map(|training| &training.gradients);
        self.plan
            .tensors()
            .filter(|tensor| tensor.spec.is_trained())
            .filter_map(move |tensor| gradients.map(|gradients| (&tensor.name[..], &gradients[tensor.range.clone()])))
    }

    /// The output of each ReLU, as [`Network::train_step`] left it, is not kept apart: this is the output of the layer
    /// at `layer` (with the activation that became part of it) for the first `n` samples of the last pass. `None` for
    /// layers that compute nothing of their own, and for those whose output is only kept pooled.
    pub fn output_of(&self, layer: usize, n: usize) -> Option<&[f32]> {
        let i = self.plan.ops.iter().position(|op| op.is_output_of(layer))?;
        Some(&self.values[self.value_slots[i].start..][..n * self.plan.ops[i].output_len])
    }
}

/// The loss of all samples as a function of the weights.
struct FullBatch<'a> {
    network: &'a mut Network,
    samples: &'a mut dyn AllSamples,
    /// The gradient so far, times the weight of the samples.
    sums: Vec<f64>,
    /// Samples of the last batch.
    n_last: usize,
    is_stopped: bool,
}

impl Objective for FullBatch<'_> {
    type Seen = StepStats;

    fn evaluate(&mut self, point: &[f32], gradient: &mut [f32]) -> (f64, StepStats) {
        let FullBatch { network, samples, sums, n_last, is_stopped } = self;
        let mut total = StepStats::default();
        if *is_stopped {
            // The search for a step length comes to its end without another pass.
            return (f64::INFINITY, total);
        }
        network.parameters.copy_from_slice(point);
        let followed = network.statistics.clone();
        sums.fill(0.0);
        *is_stopped = !samples.for_each(&mut |images, targets| {
            let stats = network.accumulate_gradients(images, targets);
            total.add(stats);
            *n_last = stats.n;
            if stats.is_finite()
                && let Some(training) = &network.training
            {
                for (sum, g) in sums.iter_mut().zip(&*training.gradients) {
                    *sum += stats.weight_sum * f64::from(*g);
                }
            }
        });
        network.statistics.copy_from_slice(&followed);
        let mut loss = total.loss();
        for (g, sum) in gradient.iter_mut().zip(&*sums) {
            *g = (sum / total.weight_sum) as f32;
        }
        for segment in network.training.iter().flat_map(|training| &training.segments).filter(|s| s.l2 > 0.0) {
            let weights = &point[segment.range.clone()];
            loss += 0.5 * segment.l2 * engine::sum_of_squares(&network.engine, weights);
            for (g, w) in gradient[segment.range.clone()].iter_mut().zip(weights) {
                *g += segment.l2 as f32 * w;
            }
        }
        (if loss.is_finite() { loss } else { f64::INFINITY }, total)
    }
}

impl Trained {
    /// Moves all parameters by one step.
    fn update(&mut self, engine: &Engine, parameters: &mut Buffer, learning_rate: f64) {
        self.step += 1;
        let config = &self.config;
        let mut grad_scale = 1.0;
        if let Some(clip) = config.clip {
            let squares = self
                .segments
                .iter()
                .fold(0.0, |sum, segment| sum + engine::sum_of_squares(engine, &self.gradients[segment.range.clone()]));
            // As PyTorch's clip_grad_norm_ has it.
            grad_scale = (clip / (squares.sqrt() + 1e-6)).min(1.0);
        }
        let weight_decay = config.weight_decay.unwrap_or_else(|| config.optimizer.weight_decay());
        for segment in &self.segments {
            let decay = if segment.decays { 1.0 - learning_rate * weight_decay } else { 1.0 };
            let step = UpdateStep {
                learning_rate: learning_rate as f32,
                grad_scale: grad_scale as f32,
                l2: segment.l2 as f32,
                decay: decay as f32,
            };
            let mut slices: [&mut [f32]; MAX_MOMENTS] = Default::default();
            for (slice, moment) in slices.iter_mut().zip(&mut self.moments) {
                *slice = &mut moment[segment.range.clone()];
            }
            let n_moments = config.optimizer.n_moments();
            config.optimizer.update(
                Update {
                    engine,
                    step,
                    step_number: self.step,
                    weights: &mut parameters[segment.range.clone()],
                    grad: &self.gradients[segment.range.clone()],
                },
                &mut slices[..n_moments],
            );
        }
    }
}

pub(super) fn build(engine: &Engine, plan: &NetworkPlan, i: usize, batch: usize, is_training: bool) -> Box<dyn Layer> {
    let op = &plan.ops[i];
    let layer = &plan.layers[op.layer];
    let lengths = |trained: bool| {
        let specs = layer.tensors.iter().filter(move |tensor| tensor.spec.is_trained() == trained);
        lay_out(specs.map(|tensor| tensor.spec.len())).0
    };
    layer.config.build(&Build {
        engine,
        batch,
        layer_idx: op.layer,
        input: layer.input,
        output: layer.output,
        relu_after: op.pooling.map_or(op.is_fused, |pooling| pooling.relu),
        pool_after: op.pooling.is_some(),
        relu_before: i > 0 && plan.ops[i - 1].is_masked_below,
        is_training,
        trained: &lengths(true),
        statistics: &lengths(false),
    })
}

fn stats_of(loss: BatchLoss, n: usize) -> StepStats {
    StepStats { loss_sum: loss.loss_sum, weight_sum: loss.weight_sum, n_correct: loss.n_correct, n }
}

fn take(tensors: &[NamedTensor], name: &str, shape: &[usize], into: &mut [f32]) -> Result<(), TensorError> {
    let error = |message: String| TensorError { name: name.to_owned(), message };
    let tensor = tensors.iter().find(|tensor| tensor.name == name).ok_or_else(|| error("is missing".to_owned()))?;
    if tensor.shape != shape || tensor.values.len() != into.len() {
        return Err(error(format!("has shape {:?}, expected {shape:?}", tensor.shape)));
    }
    into.copy_from_slice(&tensor.values);
    Ok(())
}
