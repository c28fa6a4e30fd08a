//! Training a network: its loss, the way back, the update, and what a run goes on from.
//!
//! Everything is allocated when a [`Trainer`] is made: two buffers that gradients travel through, one slice each for
//! gradients and moments. A step allocates nothing. Start at [`Trainer::train_step`].

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::init::Initializer;
use super::layer::{Backward, Pass, Role, Start};
use super::network::{NamedTensor, Network, StepStats, TensorError, take};
use super::optimizer::{Adam, Evaluated, MAX_MOMENTS, Objective, OptimizerConfig, Update};
use super::plan::NetworkPlan;
use super::seeds::Seeds;
use crate::engine::{self, Buffer, Engine, LossOptions, Targets, UpdateStep, activate_backward};

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

impl Default for Training {
    /// What a manifest that names nothing of it says, with the seed 0.
    fn default() -> Training {
        Training {
            seeds: Seeds::default(),
            initializer: Initializer::HeNormal,
            last_layer_gain: 0.1,
            optimizer: Arc::new(Adam::default()),
            l2: 0.0,
            weight_decay: None,
            decays_all: false,
            clip: None,
            label_smoothing: 0.0,
            class_weights: None,
        }
    }
}

/// All samples that are learned from, in batches that are the same each time.
pub trait AllSamples {
    /// Calls `f(images, targets)` for each batch, in order; false if it was stopped before the end.
    fn for_each(&mut self, f: &mut dyn FnMut(&[f32], Targets<'_>)) -> bool;
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

/// A network, and what only training needs.
pub struct Trainer {
    network: Network,
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

impl fmt::Debug for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trainer({:?}, step {})", self.network, self.step)
    }
}

impl Trainer {
    /// A network that can be trained on batches of at most `batch` samples; its weights are drawn.
    ///
    /// # Determinism
    /// Element `i` of a tensor is draw `i` of the stream (seed, "init", run, layer, tensor).
    ///
    /// # Panics
    /// If `batch` is 0.
    pub fn new(engine: &Engine, plan: &NetworkPlan, batch: usize, config: Training) -> Trainer {
        let mut network = Network::with_room(engine, plan, batch, true);
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
        let tensors = plan.layers.iter().enumerate().flat_map(|(i, layer)| layer.tensors.iter().map(move |t| (i, t)));
        let segments = tensors
            .filter(|(_, tensor)| tensor.spec.is_trained())
            .map(|(layer, tensor)| Segment {
                range: tensor.range.clone(),
                layer,
                is_weights: tensor.spec.role == Role::Weights,
                decays: tensor.spec.decays(config.decays_all),
                l2: tensor.spec.l2_in(config.l2, config.decays_all),
            })
            .collect();
        Trainer {
            network,
            step: 0,
            gradients: Buffer::zeros(plan.parameters_len),
            moments: (0..config.optimizer.n_moments()).map(|_| Buffer::zeros(plan.parameters_len)).collect(),
            buffers: plan.gradient_slots(batch).map(Buffer::zeros),
            before: None,
            segments,
            here: None,
            config,
        }
    }

    /// The network as it is.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The network alone; what only training needed is given back.
    pub fn into_network(self) -> Network {
        self.network
    }

    /// Steps done; part of the address of dropout and noise.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// [`Network::evaluate`].
    ///
    /// # Panics
    /// As that.
    pub fn evaluate(&mut self, images: &[f32], labels: &[u32], probabilities: Option<&mut [f32]>) -> StepStats {
        self.network.evaluate(images, labels, probabilities)
    }

    /// [`Network::load`]. Moments and the number of steps stay as they are.
    ///
    /// # Errors
    /// As that.
    pub fn load(&mut self, tensors: &[NamedTensor]) -> Result<(), TensorError> {
        self.here = None;
        self.network.load(tensors)
    }

    /// One update: forward, loss, backward, optimizer. `statistics`, where given, is overwritten with one entry for
    /// each layer that has weights or a ReLU.
    ///
    /// A loss that is not finite is returned before any weight has changed.
    ///
    /// # Shapes
    /// - `images`: `[n, ...input]`, `n` at most the batch it was made for
    ///
    /// # Panics
    /// If shapes do not fit.
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
        if statistics.is_some() {
            let parameters = &self.network.parameters;
            self.before.get_or_insert_with(|| Buffer::zeros(parameters.len())).copy_from_slice(parameters);
        }
        self.update(learning_rate);
        if let Some(statistics) = statistics {
            self.write_statistics(n, statistics);
        }
        stats
    }

    /// One iteration of a full-batch optimizer ([`OptimizerConfig::full_batch`]): what the network says of all samples
    /// afterwards, and the step length that was found. Counts one step. `None` if `samples` were stopped: the network
    /// is then as it was, but for running statistics.
    ///
    /// Batch normalisation looks at one batch at a time, and follows one pass over all samples.
    ///
    /// # Panics
    /// If it was made for another optimizer, or shapes do not fit.
    ///
    /// # Determinism
    /// As [`Trainer::train_step`]; gradients of batches are added in f64, in order.
    pub fn full_batch_step(
        &mut self,
        samples: &mut dyn AllSamples,
        statistics: Option<&mut Vec<LayerStatistics>>,
    ) -> Option<(StepStats, f64)> {
        let optimizer = Arc::clone(&self.config.optimizer);
        let rule = optimizer.full_batch().expect("a full-batch optimizer");
        let mut moments = std::mem::take(&mut self.moments);
        let known = self.here.take();
        let engine = self.network.engine.clone();
        let mut point = self.network.parameters.to_vec();
        let sums = vec![0.0; point.len()];
        let mut all = FullBatch { trainer: self, samples, sums, n_last: 0, is_stopped: false };
        let here = known.unwrap_or_else(|| {
            let mut gradient = vec![0.0; point.len()];
            let (loss, seen) = all.evaluate(&point, &mut gradient);
            Evaluated { loss, gradient, seen }
        });
        let before = all.trainer.network.parameters.clone();
        let (next, length) = rule.iterate(&engine, &mut all, &mut point, &here, &mut moments);
        let (is_stopped, n) = (all.is_stopped, all.n_last);
        self.network.parameters.copy_from_slice(if is_stopped { &before } else { &point });
        let mut is_stopped = is_stopped;
        if !is_stopped && !self.network.statistics.is_empty() {
            is_stopped = !samples.for_each(&mut |images, _| {
                let n = images.len() / self.network.plan.input.len();
                self.network.forward(images, n, Some((&self.config.seeds, self.step)));
            });
        }
        self.moments = moments;
        if is_stopped {
            return None;
        }
        self.step += 1;
        self.gradients.copy_from_slice(&next.gradient);
        for segment in &self.segments {
            let weights = &self.network.parameters[segment.range.clone()];
            for (g, w) in self.gradients[segment.range.clone()].iter_mut().zip(weights) {
                *g -= segment.l2 as f32 * w;
            }
        }
        self.before = Some(before);
        let stats = next.seen;
        self.here = Some(next);
        if let Some(statistics) = statistics {
            self.write_statistics(n, statistics);
        }
        Some((stats, length))
    }

    /// Forward and backward in training mode; the gradient of the mean loss (without L2) is then in
    /// [`Trainer::gradient`]. Counts no step.
    ///
    /// # Panics
    /// As [`Trainer::train_step`].
    pub fn accumulate_gradients(&mut self, images: &[f32], targets: Targets<'_>) -> StepStats {
        let n = images.len() / self.network.plan.input.len();
        self.network.forward(images, n, Some((&self.config.seeds, self.step)));
        let options = LossOptions {
            label_smoothing: self.config.label_smoothing as f32,
            class_weights: self.config.class_weights.as_deref(),
        };
        let grad = &mut self.buffers[0][..n * self.network.plan.n_classes];
        let stats = self.network.loss(n, targets, options, Some(grad));
        if stats.is_finite() {
            self.backward(images, n);
        }
        stats
    }

    /// The way back of a pass in training mode.
    fn backward(&mut self, images: &[f32], n: usize) {
        let Trainer { network, config, step, gradients, buffers, .. } = self;
        let Network { engine, plan, layers, parameters, values, value_slots, .. } = network;
        let pass = Pass { engine, n, is_training: true, step: *step, seeds: &config.seeds };
        let [at, other] = buffers;
        let (mut at, mut other) = (at, other);
        let (ops, first) = (&plan.ops, plan.first_trained);
        let value = |i: usize, len: usize| &values[value_slots[i].start..][..n * len];
        let input_of = |i: usize| if i == 0 { images } else { value(i - 1, ops[i].input_len) };
        let parameters_of = |i: usize| &parameters[ops[i].parameters.clone()];
        for i in (first..ops.len()).rev() {
            let op = &ops[i];
            if let Some(activation) = op.activation
                && !(op.is_masked_below || op.masks_itself)
            {
                let output = value(i, op.output_len);
                activate_backward(engine, activation.pointwise(), output, &mut at[..n * op.output_len]);
            }
            let (above, rest) = layers.split_at_mut(i);
            let [layer, below @ ..] = rest else { unreachable!("a layer for each op") };
            if i > first && ops[i - 1].norm_below {
                // The op above has the gradient made as it reads it.
                if let Some(norm) = layer.as_norm() {
                    let sums = norm.gradient_sums(&pass, parameters_of(i), input_of(i));
                    sums.finish(engine, &mut at[..n * op.output_len]);
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
                let grads = [&mut gradients[op.parameters.clone()], &mut at[..n * op.output_len]];
                let request = Backward::of(parameters_of(i), [input_of(i), value(i, op.output_len)], grads);
                layer.backward(&pass, Backward { made_by: Some(&made_by), ..request });
            }
            let above = if op.norm_above && wants_input { above.last_mut() } else { None };
            let sums = above
                .and_then(|above| above.as_norm())
                .map(|norm| norm.gradient_sums(&pass, parameters_of(i - 1), input_of(i - 1)));
            let grads = [&mut gradients[op.parameters.clone()], &mut at[..n * op.output_len]];
            let request = Backward::of(parameters_of(i), [input_of(i), value(i, op.output_len)], grads);
            let grad_input = goes_across.then(|| &mut other[..n * op.input_len]);
            layer.backward(&pass, Backward { has_weights, sums: sums.as_ref(), grad_input, wants_input, ..request });
            if goes_across {
                (at, other) = (other, at);
            }
        }
    }

    /// Moves all parameters by one step.
    fn update(&mut self, learning_rate: f64) {
        self.step += 1;
        let (engine, parameters) = (&self.network.engine, &mut self.network.parameters);
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

    fn write_statistics(&self, n: usize, statistics: &mut Vec<LayerStatistics>) {
        let Some(before) = &self.before else { return };
        let Network { engine, plan, parameters, .. } = &self.network;
        statistics.clear();
        for (layer, planned) in plan.layers.iter().enumerate() {
            let mut entry = LayerStatistics {
                layer,
                word: planned.config.word(),
                weight_norm: None,
                update_norm: None,
                grad_norm: None,
                dead_fraction: None,
            };
            let weights = self.segments.iter().find(|segment| segment.layer == layer && segment.is_weights);
            if let Some(Segment { range, .. }) = weights {
                let (after, before) = (&parameters[range.clone()], &before[range.clone()]);
                entry.weight_norm = Some(engine::sum_of_squares(engine, after).sqrt());
                entry.update_norm = Some(engine::sum_of_squared_differences(engine, after, before).sqrt());
                entry.grad_norm = Some(engine::sum_of_squares(engine, &self.gradients[range.clone()]).sqrt());
            }
            if let Some(i) = plan.ops.iter().position(|op| op.has_relu_of(layer)) {
                let lanes = planned.output.image().map_or(planned.output.len(), |shape| shape.channels);
                // Pooled or not: windows cover every pixel, so their largest values are 0 where all values are.
                let values = self.network.value(i, n);
                entry.dead_fraction = Some(engine::zero_lanes(values, lanes) as f64 / lanes as f64);
            }
            if entry.weight_norm.is_some() || entry.dead_fraction.is_some() {
                statistics.push(entry);
            }
        }
    }

    /// Everything that the next step depends on besides its samples: tensors, moments and the number of steps done. A
    /// network restored from it goes on with the same bytes.
    pub fn save_state(&self) -> (u64, Vec<NamedTensor>) {
        let mut tensors = self.network.save();
        for (i, moment) in self.moments.iter().enumerate() {
            for tensor in self.network.plan.tensors().filter(|tensor| tensor.spec.is_trained()) {
                tensors.push(NamedTensor {
                    name: format!("moment{}.{}", i + 1, tensor.name),
                    shape: tensor.spec.shape.clone(),
                    values: moment[tensor.range.clone()].to_vec(),
                });
            }
        }
        (self.step, tensors)
    }

    /// Takes over what [`Trainer::save_state`] gave.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape; the network is then half loaded.
    pub fn load_state(&mut self, step: u64, tensors: &[NamedTensor]) -> Result<(), TensorError> {
        self.load(tensors)?;
        self.step = step;
        for (i, moment) in self.moments.iter_mut().enumerate() {
            for tensor in self.network.plan.tensors().filter(|tensor| tensor.spec.is_trained()) {
                let name = format!("moment{}.{}", i + 1, tensor.name);
                take(tensors, &name, &tensor.spec.shape, &mut moment[tensor.range.clone()])?;
            }
        }
        Ok(())
    }

    /// The gradient that the last backward pass left, tensor by tensor, in the order of the plan's trained tensors.
    pub fn gradient(&self) -> impl Iterator<Item = (&str, &[f32])> {
        let trained = self.network.plan.tensors().filter(|tensor| tensor.spec.is_trained());
        trained.map(|tensor| (&tensor.name[..], &self.gradients[tensor.range.clone()]))
    }
}

/// The loss of all samples as a function of the weights.
struct FullBatch<'a> {
    trainer: &'a mut Trainer,
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
        let FullBatch { trainer, samples, sums, n_last, is_stopped } = self;
        let mut total = StepStats::default();
        if *is_stopped {
            // The search for a step length comes to its end without another pass.
            return (f64::INFINITY, total);
        }
        trainer.network.parameters.copy_from_slice(point);
        let followed = trainer.network.statistics.clone();
        sums.fill(0.0);
        *is_stopped = !samples.for_each(&mut |images, targets| {
            let stats = trainer.accumulate_gradients(images, targets);
            total.add(stats);
            *n_last = stats.n;
            if stats.is_finite() {
                for (sum, g) in sums.iter_mut().zip(&*trainer.gradients) {
                    *sum += stats.weight_sum * f64::from(*g);
                }
            }
        });
        trainer.network.statistics.copy_from_slice(&followed);
        let mut loss = total.loss();
        for (g, sum) in gradient.iter_mut().zip(&*sums) {
            *g = (sum / total.weight_sum) as f32;
        }
        for segment in trainer.segments.iter().filter(|segment| segment.l2 > 0.0) {
            let weights = &point[segment.range.clone()];
            loss += 0.5 * segment.l2 * engine::sum_of_squares(&trainer.network.engine, weights);
            for (g, w) in gradient[segment.range.clone()].iter_mut().zip(weights) {
                *g += segment.l2 as f32 * w;
            }
        }
        (if loss.is_finite() { loss } else { f64::INFINITY }, total)
    }
}
