//! A network in memory: forward, prediction, and what can be saved of it.
//!
//! Everything is allocated when a [`Network`] is made: one arena for activations, one slice each for parameters and
//! running statistics. What trains one is [`Trainer`](super::training::Trainer); the plan that it carries out is
//! [`NetworkPlan`].

use std::fmt;
use std::ops::Range;

use super::layer::{Forward, Layer, Norm, Pass};
use super::plan::{NetworkPlan, Op};
use super::seeds::Seeds;
use crate::engine::{
    self, BatchLoss, Buffer, Engine, Input, LossOptions, LossScratch, Targets, activate, softmax_cross_entropy,
};

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
    pub(super) engine: Engine,
    pub(super) plan: NetworkPlan,
    pub(super) batch: usize,
    pub(super) layers: Vec<Box<dyn Layer>>,
    pub(super) parameters: Buffer,
    pub(super) statistics: Buffer,
    pub(super) values: Buffer,
    pub(super) value_slots: Vec<Range<usize>>,
    pub(super) scratch: LossScratch,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({} ops, {} parameters, batch {})", self.layers.len(), self.plan.n_parameters(), self.batch)
    }
}

impl Network {
    /// A network that only predicts; its weights are 0 until [`Network::load`].
    ///
    /// # Panics
    /// If `batch` is 0.
    pub fn new(engine: &Engine, plan: &NetworkPlan, batch: usize) -> Network {
        Network::with_room(engine, plan, batch, false)
    }

    /// A network with room for what training needs of its own passes, too.
    pub(super) fn with_room(engine: &Engine, plan: &NetworkPlan, batch: usize, is_training: bool) -> Network {
        assert!(batch > 0, "a batch of no samples");
        let (value_slots, len) = plan.value_slots(batch, is_training);
        let layers = (0..plan.ops.len()).map(|i| plan.build(engine, i, batch, is_training)).collect();
        Network {
            engine: engine.clone(),
            plan: plan.clone(),
            batch,
            layers,
            parameters: Buffer::zeros(plan.parameters_len),
            statistics: Buffer::zeros(plan.statistics_len),
            values: Buffer::zeros(len),
            value_slots,
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

    /// What the last pass left of the op at `i`, for its first `n` samples.
    pub(super) fn value(&self, i: usize, n: usize) -> &[f32] {
        &self.values[self.value_slots[i].start..][..n * self.plan.ops[i].output_len]
    }

    /// Loss of the last pass's `n` samples; its gradient, if asked for, with respect to their logits.
    pub(super) fn loss(
        &mut self,
        n: usize,
        targets: Targets<'_>,
        options: LossOptions<'_>,
        grad: Option<&mut [f32]>,
    ) -> StepStats {
        let (engine, n_classes, scratch) = (&self.engine, self.plan.n_classes, &mut self.scratch);
        let logits = self.value_slots.last().map_or(&[][..], |slot| &self.values[slot.start..][..n * n_classes]);
        let BatchLoss { loss_sum, weight_sum, n_correct } =
            softmax_cross_entropy(engine, n_classes, logits, targets, options, grad, scratch);
        StepStats { loss_sum, weight_sum, n_correct, n }
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
            self.forward(images, n, None);
            total.add(self.loss(n, Targets::Labels(labels), LossOptions::default(), None));
            if let Some(values) = probabilities.take() {
                let (rows, rest) = values.split_at_mut(n * n_classes);
                self.probabilities(n, rows);
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
            self.forward(images, n, None);
            self.probabilities(n, rows);
        }
    }

    /// The values that the last layer reads of each image, in inference mode: what the network has made of the image
    /// before it scores classes. Any number of samples.
    ///
    /// # Shapes
    /// - `images`: `[n, ...input]`
    /// - returns `[n, n_values]` and `n_values`; those of the image itself where there is one layer
    ///
    /// # Panics
    /// If shapes do not fit.
    pub fn embed(&mut self, images: &[f32]) -> (Vec<f32>, usize) {
        let (sample, last) = (self.plan.input.len(), self.plan.ops.len() - 1);
        let n_values = self.plan.ops[last].input_len;
        let mut out = Vec::with_capacity(images.len() / sample * n_values);
        for images in images.chunks(self.batch * sample) {
            let n = images.len() / sample;
            self.forward(images, n, None);
            match last.checked_sub(1) {
                // Predicting, the slot of the op before the last is left alone by the last.
                Some(before) => out.extend_from_slice(self.value(before, n)),
                None => out.extend_from_slice(images),
            }
        }
        (out, n_values)
    }

    /// What the last pass says of its `n` samples.
    fn probabilities(&self, n: usize, rows: &mut [f32]) {
        rows.copy_from_slice(self.value(self.plan.ops.len() - 1, n));
        engine::softmax(&self.engine, self.plan.n_classes, rows);
    }

    /// Leaves the output of each op in its slot. Training, layers draw from the streams of `draws` (identity of the
    /// run, step).
    pub(super) fn forward(&mut self, images: &[f32], n: usize, draws: Option<(&Seeds, u64)>) {
        assert_eq!(images.len(), n * self.plan.input.len(), "images of shape {}", self.plan.input);
        assert!((1..=self.batch).contains(&n), "{n} samples in a batch of at most {}", self.batch);
        let (is_training, nothing) = (draws.is_some(), Seeds::default());
        let (seeds, step) = draws.unwrap_or((&nothing, 0));
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

    /// The output of each ReLU, as the last pass left it, is not kept apart: this is the output of the layer
    /// at `layer` (with the activation that became part of it) for the first `n` samples of the last pass. `None` for
    /// layers that compute nothing of their own, and for those whose output is only kept pooled.
    pub fn output_of(&self, layer: usize, n: usize) -> Option<&[f32]> {
        let i = self.plan.ops.iter().position(|op| op.is_output_of(layer))?;
        Some(self.value(i, n))
    }
}

/// Copies the tensor of this name, which must have this shape.
pub(super) fn take(tensors: &[NamedTensor], name: &str, shape: &[usize], into: &mut [f32]) -> Result<(), TensorError> {
    let error = |message: String| TensorError { name: name.to_owned(), message };
    let tensor = tensors.iter().find(|tensor| tensor.name == name).ok_or_else(|| error("is missing".to_owned()))?;
    if tensor.shape != shape || tensor.values.len() != into.len() {
        return Err(error(format!("has shape {:?}, expected {shape:?}", tensor.shape)));
    }
    into.copy_from_slice(&tensor.values);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::layer::network_of;
    use crate::nn::training::{Trainer, Training};
    use crate::tensor::{ImageShape, SampleShape};

    #[test]
    fn embeddings_are_what_the_last_layer_reads() {
        let shape = ImageShape { height: 6, width: 5, channels: 2 };
        let images: Vec<f32> = (0..7 * shape.len()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
        let engine = Engine::new(2);
        for layers in ["input | conv filters=3 | relu | pool | fc units=4 | relu | dropout rate=0.5 | fc", "input | fc"]
        {
            let plan = NetworkPlan::new(&network_of(layers), SampleShape::Image(shape), 3).unwrap();
            let mut network = Network::new(&engine, &plan, 4);
            network.load(&Trainer::new(&engine, &plan, 4, Training::default()).network().save()).unwrap();
            let mut probabilities = vec![0.0; 7 * 3];
            network.predict(&images, &mut probabilities);
            let (embeddings, n_values) = network.embed(&images);
            assert_eq!((embeddings.len(), n_values), (7 * n_values, if layers == "input | fc" { 60 } else { 4 }));
            let saved = network.save();
            let (weights, biases) = (&saved[saved.len() - 2].values, &saved[saved.len() - 1].values);
            for (values, expected) in embeddings.chunks(n_values).zip(probabilities.chunks(3)) {
                let mut logits = biases.clone();
                for (x, weights) in values.iter().zip(weights.chunks(3)) {
                    logits.iter_mut().zip(weights).for_each(|(logit, w)| *logit += x * w);
                }
                engine::softmax(&engine, 3, &mut logits);
                let is_near = logits.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
                assert!(is_near, "{layers}: {logits:?}, {expected:?}");
            }
        }
    }
}
