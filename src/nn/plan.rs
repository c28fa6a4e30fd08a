//! What a list of layers makes of an input shape: shapes, tensors, cost, and which layers are fused. Pure and cheap.
//!
//! [`NetworkPlan::new`] decides everything that can be decided before memory is touched; [`crate::nn::network`] carries
//! it out. An activation becomes part of the layer above it; ReLUs that can are fused into that layer's stores, and
//! their backward pass into the loads of the layer below.

use std::ops::Range;
use std::sync::Arc;

use super::layer::{Action, Activation, Build, Fusion, Layer, LayerConfig, Reach, Start, TensorSpec, lay_out};
use crate::config::Complaint;
use crate::engine::Engine;
use crate::tensor::SampleShape;

/// A network, before memory is touched.
#[derive(Clone, Debug)]
pub struct NetworkPlan {
    /// Shape of one sample.
    pub input: SampleShape,
    /// Width of the last layer.
    pub n_classes: usize,
    /// One entry a layer, in order.
    pub layers: Vec<LayerPlan>,
    pub(super) ops: Vec<Op>,
    /// The first op with something to train: backward passes end there.
    pub(super) first_trained: usize,
    pub(super) parameters_len: usize,
    pub(super) statistics_len: usize,
}

/// One layer of a [`NetworkPlan`].
#[derive(Clone, Debug)]
pub struct LayerPlan {
    /// What the manifest says, `units` of the last FC filled in.
    pub config: Arc<dyn LayerConfig>,
    /// Shape of its input.
    pub input: SampleShape,
    /// Shape of its output.
    pub output: SampleShape,
    /// Its tensors.
    pub tensors: Vec<PlannedTensor>,
    /// Values that training moves.
    pub n_parameters: usize,
    /// Multiply-adds of a forward pass of one sample.
    pub multiply_adds: u64,
    /// Height and width, in pixels of the network's input, that one output value sees; `None` for flat inputs.
    pub receptive_field: Option<(usize, usize)>,
}

/// A tensor and where it lies among the network's parameters (or statistics).
#[derive(Clone, Debug)]
pub struct PlannedTensor {
    /// `3.conv.weights`: the layer's place from 0, its word, the tensor.
    pub name: String,
    /// What the layer says of it.
    pub spec: TensorSpec,
    pub(super) range: Range<usize>,
}

/// A layer that computes, with the activation that became part of it.
#[derive(Clone, Debug)]
pub(super) struct Op {
    pub layer: usize,
    pub activation: Option<Activation>,
    /// The layer applies the activation, which is a ReLU, itself.
    pub is_fused: bool,
    /// The layer below leaves out the gradients that this one's ReLU would.
    pub is_masked_below: bool,
    /// Its own backward pass leaves those out.
    pub masks_itself: bool,
    /// The op above is batch normalisation whose output, and sums over its gradient, this op can make as it goes.
    pub norm_above: bool,
    /// The op below is batch normalisation of this op's very output, whose moments, and gradient, it can make as it
    /// goes.
    pub norm_below: bool,
    /// The pooling that became part of it, before `activation`.
    pub pooling: Option<Pooling>,
    pub input_len: usize,
    pub output_len: usize,
    pub is_in_place: bool,
    /// Its parts of the parameters and of the statistics.
    pub parameters: Range<usize>,
    pub statistics: Range<usize>,
}

/// Max pooling of 2x2 windows that became part of the layer above it, which applies it as it writes its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pooling {
    /// The pooling layer.
    pub layer: usize,
    /// Whether there is a ReLU between the two.
    pub relu: bool,
}

impl Op {
    /// Whether the values of the batch normalisation above are made as this op reads them, when training.
    pub fn makes_input(&self) -> bool {
        self.norm_above && self.pooling.is_none()
    }

    /// Whether `layer`'s values, with the activation that became part of it, are this op's output.
    pub fn is_output_of(&self, layer: usize) -> bool {
        self.pooling.map_or(self.layer, |pooling| pooling.layer) == layer
    }

    /// Whether this op's output is 0 wherever a ReLU at the end of `layer` holds it at 0 throughout.
    pub fn has_relu_of(&self, layer: usize) -> bool {
        let is_pooled = self.layer == layer && self.pooling.is_some_and(|pooling| pooling.relu);
        is_pooled || self.is_output_of(layer) && self.activation == Some(Activation::Relu)
    }
}

/// The most values that training may move: 8 GiB of weights. Beyond that lie slips of the pen.
const MAX_PARAMETERS: usize = 1 << 31;

/// What is wrong with a network, at which layer, by its place from 0.
pub type PlanProblem = Complaint<usize>;

impl NetworkPlan {
    /// Plans `layers` for samples of shape `input`.
    ///
    /// The last FC has `n_classes` units unless it says otherwise; softmax cross-entropy follows the last layer.
    ///
    /// # Errors
    /// Where a layer cannot take the shape above it (the first such layer: one misfit makes the next), where the last
    /// layer's width is not `n_classes`, and where there is nothing to train.
    pub fn new(
        layers: &[Arc<dyn LayerConfig>],
        input: SampleShape,
        n_classes: usize,
    ) -> Result<NetworkPlan, Vec<PlanProblem>> {
        let problem = |layer, message: String, help: &str| vec![PlanProblem::about(layer, message).help(help)];
        let last_fc = layers.iter().rposition(|layer| layer.word() == "fc");
        let mut plan = NetworkPlan {
            input,
            n_classes,
            layers: Vec::with_capacity(layers.len()),
            ops: Vec::new(),
            first_trained: 0,
            parameters_len: 0,
            statistics_len: 0,
        };
        let mut shape = input;
        let mut field = input.image().map(|_| Field { size: (1, 1), jump: (1, 1) });
        for (i, layer) in layers.iter().enumerate() {
            let filled = if Some(i) == last_fc { layer.with_classes(n_classes) } else { None };
            let config = filled.unwrap_or_else(|| Arc::clone(layer));
            let output = config.output_shape(shape).map_err(|error| vec![error.of(i)])?;
            field = field.map(|field| field.through(config.reach(shape), input));
            plan.push(config, shape, output, field);
            shape = output;
        }
        if plan.parameters_len == 0 {
            let last = layers.len().saturating_sub(1);
            return Err(problem(last, "the network has nothing to train".to_owned(), "end with `FC`"));
        }
        if shape != SampleShape::Flat(n_classes) {
            let got = match shape {
                SampleShape::Flat(n) => format!("{n} values"),
                SampleShape::Image(shape) => format!("images of {shape}"),
            };
            let message = format!("the network ends with {got}, but there are {n_classes} classes");
            let help = "end with `FC`, which takes the number of classes by itself";
            return Err(problem(layers.len() - 1, message, help));
        }
        if plan.parameters_len > MAX_PARAMETERS {
            let widest = (0..plan.layers.len()).max_by_key(|&i| plan.layers[i].n_parameters).unwrap_or(0);
            let message = format!("the network has {} parameters, more than {MAX_PARAMETERS}", plan.parameters_len);
            return Err(problem(widest, message, "make its largest layer smaller, or pool before it"));
        }
        plan.first_trained = plan.ops.iter().position(|op| !op.parameters.is_empty()).unwrap_or(0);
        let fusions: Vec<Fusion> = plan.ops.iter().map(|op| plan.layers[op.layer].config.fusion()).collect();
        for (op, fusion) in plan.ops.iter_mut().zip(&fusions) {
            op.masks_itself = fusion.masks_itself && op.is_fused;
        }
        for i in 1..plan.ops.len() {
            let [above, below] = &mut plan.ops[i - 1..=i] else { continue };
            let (upper, lower) = (fusions[i - 1], fusions[i]);
            let has_relu = above.activation == Some(Activation::Relu);
            above.is_masked_below = lower.relu_before && has_relu && !above.masks_itself;
            let is_whole = above.activation.is_none() || above.is_fused;
            below.norm_above = upper.is_norm && lower.beside_norm && is_whole;
            let is_bare = above.activation.is_none() && above.pooling.is_none();
            above.norm_below = upper.beside_norm && lower.is_norm && is_bare;
        }
        Ok(plan)
    }

    fn push(&mut self, config: Arc<dyn LayerConfig>, input: SampleShape, output: SampleShape, field: Option<Field>) {
        let layer = self.layers.len();
        let specs = config.tensors(input);
        let (trained, trained_len) = lay_out(specs.iter().filter(|spec| spec.is_trained()).map(TensorSpec::len));
        let (followed, followed_len) = lay_out(specs.iter().filter(|spec| !spec.is_trained()).map(TensorSpec::len));
        let (mut trained, mut followed) = (trained.into_iter(), followed.into_iter());
        let (from, followed_from) = (self.parameters_len, self.statistics_len);
        let tensors: Vec<PlannedTensor> = specs
            .into_iter()
            .filter_map(|spec| {
                let (range, from) =
                    if spec.is_trained() { (trained.next()?, from) } else { (followed.next()?, followed_from) };
                let name = format!("{layer}.{}.{}", config.word(), spec.name);
                Some(PlannedTensor { name, spec, range: range.start + from..range.end + from })
            })
            .collect();
        let parameters = from..from + trained_len;
        let statistics = followed_from..followed_from + followed_len;
        self.parameters_len = parameters.end;
        self.statistics_len = statistics.end;
        let fusion = config.fusion();
        let action = config.action();
        let above_is_free = self.ops.last().is_some_and(|op| {
            let is_activation = matches!(self.layers[op.layer].config.action(), Action::Activate(_));
            op.activation.is_none() && !is_activation
        });
        let tiles = config.tiles_in_pairs(input);
        let takes_pooling = |op: &Op| {
            let is_plain = op.activation.is_none() || op.is_fused;
            is_plain && op.pooling.is_none() && self.layers[op.layer].config.fusion().pool_after
        };
        match action {
            Action::Nothing => {}
            _ if tiles && self.ops.last().is_some_and(takes_pooling) => {
                if let Some(op) = self.ops.last_mut() {
                    op.pooling = Some(Pooling { layer, relu: op.is_fused });
                    (op.activation, op.is_fused, op.is_in_place) = (None, false, false);
                    op.output_len = output.len();
                }
            }
            Action::Activate(activation) if above_is_free => {
                if let Some(op) = self.ops.last_mut() {
                    op.activation = Some(activation);
                    op.is_fused = activation == Activation::Relu
                        && op.pooling.is_none()
                        && self.layers[op.layer].config.fusion().relu_after;
                }
            }
            _ => self.ops.push(Op {
                layer,
                activation: None,
                is_fused: false,
                is_masked_below: false,
                masks_itself: false,
                norm_above: false,
                norm_below: false,
                pooling: None,
                input_len: input.len(),
                output_len: output.len(),
                is_in_place: fusion.is_in_place,
                parameters,
                statistics,
            }),
        }
        self.layers.push(LayerPlan {
            input,
            output,
            n_parameters: tensors.iter().filter(|t| t.spec.is_trained()).map(|t| t.spec.len()).sum(),
            tensors,
            multiply_adds: config.multiply_adds(input),
            receptive_field: field.map(|field| field.size),
            config,
        });
    }

    /// Values that training moves.
    pub fn n_parameters(&self) -> usize {
        self.layers.iter().map(|layer| layer.n_parameters).sum()
    }

    /// Multiply-adds of a forward pass of one sample; training takes about three times as many.
    pub fn multiply_adds(&self) -> u64 {
        self.layers.iter().map(|layer| layer.multiply_adds).sum()
    }

    /// The last layer whose weights are drawn, from 0: the one before the softmax, or before what averages its output.
    pub fn last_drawn(&self) -> Option<usize> {
        let is_drawn = |tensor: &PlannedTensor| matches!(tensor.spec.start, Start::Drawn { .. });
        self.layers.iter().rposition(|layer| layer.tensors.iter().any(is_drawn))
    }

    /// All tensors, layer by layer.
    pub fn tensors(&self) -> impl Iterator<Item = &PlannedTensor> {
        self.layers.iter().flat_map(|layer| &layer.tensors)
    }

    /// The layer of the op at `i`, with all that it allocates.
    pub(super) fn build(&self, engine: &Engine, i: usize, batch: usize, is_training: bool) -> Box<dyn Layer> {
        let op = &self.ops[i];
        let layer = &self.layers[op.layer];
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
            relu_before: i > 0 && self.ops[i - 1].is_masked_below,
            is_training,
            trained: &lengths(true),
            statistics: &lengths(false),
        })
    }

    /// Bytes that training at this batch size takes on one thread: activations, gradients, weights, their gradients and
    /// `n_moments` moments, two batches of samples, and what each layer keeps, the engine's scratch included. Without
    /// the program and the data set.
    pub fn training_bytes(&self, batch: usize, n_moments: usize) -> u64 {
        let engine = Engine::new(1);
        let kept: usize = (0..self.ops.len()).map(|i| self.build(&engine, i, batch, true).training_bytes()).sum();
        self.least_training_bytes(batch, n_moments) + kept as u64
    }

    /// Bytes that each further thread takes then.
    pub fn bytes_per_thread(&self, batch: usize) -> u64 {
        let kept = |threads: usize| -> u64 {
            let engine = Engine::new(threads);
            (0..self.ops.len()).map(|i| self.build(&engine, i, batch, true).training_bytes() as u64).sum()
        };
        kept(2).saturating_sub(kept(1))
    }

    /// [`NetworkPlan::training_bytes`] without what layers keep, which is known only once they have it: told without
    /// taking any memory.
    pub fn least_training_bytes(&self, batch: usize, n_moments: usize) -> u64 {
        let (_, values) = self.value_slots(batch, true);
        let grads: usize = self.gradient_slots(batch).into_iter().sum();
        let samples = 2 * batch * self.input.len();
        let floats = values + grads + samples + self.parameters_len * (2 + n_moments) + self.statistics_len;
        (floats * 4) as u64
    }

    /// Bytes that predicting at this batch size takes.
    pub fn prediction_bytes(&self, batch: usize) -> u64 {
        let (_, values) = self.value_slots(batch, false);
        ((values + 2 * self.parameters_len + self.statistics_len) * 4) as u64
    }

    /// Where the output of each op lies, and the length of it all: apart for training, in turns otherwise.
    pub(super) fn value_slots(&self, batch: usize, is_training: bool) -> (Vec<Range<usize>>, usize) {
        if is_training {
            return lay_out(self.ops.iter().map(|op| op.output_len * batch));
        }
        let most = |turn: usize| self.ops.iter().skip(turn).step_by(2).map(|op| op.output_len * batch).max();
        let (turns, len) = lay_out([0, 1].map(|turn| most(turn).unwrap_or(0)).into_iter());
        let slots = self.ops.iter().enumerate().map(|(i, op)| {
            let start = turns[i % 2].start;
            start..start + op.output_len * batch
        });
        (slots.collect(), len)
    }

    /// Lengths of the two buffers that gradients travel through, from the last op up.
    pub(super) fn gradient_slots(&self, batch: usize) -> [usize; 2] {
        let mut most = [0; 2];
        let mut at = 0;
        for i in (self.first_trained..self.ops.len()).rev() {
            let op = &self.ops[i];
            most[at] = most[at].max(op.output_len * batch);
            if i > self.first_trained && !op.is_in_place {
                at = 1 - at;
                most[at] = most[at].max(op.input_len * batch);
            }
        }
        most
    }
}

/// What one value of a layer's output sees of the network's input: `(height, width)`.
#[derive(Clone, Copy)]
struct Field {
    size: (usize, usize),
    /// Pixels of the network's input between neighbours.
    jump: (usize, usize),
}

impl Field {
    fn through(self, reach: Reach, input: SampleShape) -> Field {
        let whole = input.image().map_or((1, 1), |shape| (shape.height, shape.width));
        match reach {
            Reach::Point => self,
            Reach::Whole => Field { size: whole, jump: self.jump },
            Reach::Window { extent, stride } => Field {
                size: (
                    (self.size.0 + (extent.0 - 1) * self.jump.0).min(whole.0),
                    (self.size.1 + (extent.1 - 1) * self.jump.1).min(whole.1),
                ),
                jump: (self.jump.0 * stride.0, self.jump.1 * stride.1),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::layer::network_of;
    use crate::tensor::ImageShape;

    const INPUT: SampleShape = SampleShape::Image(ImageShape { height: 28, width: 20, channels: 1 });

    #[track_caller]
    fn plan(layers: &str) -> Result<NetworkPlan, Vec<PlanProblem>> {
        NetworkPlan::new(&network_of(layers), INPUT, 10)
    }

    #[test]
    fn shapes_parameters_and_fields_add_up() {
        let plan =
            plan("input | conv | relu | pool | conv filters=64 stride=2 | relu | fc units=128 | relu | dropout | fc")
                .unwrap();
        let shapes: Vec<String> = plan.layers.iter().map(|layer| layer.output.to_string()).collect();
        assert_eq!(
            shapes,
            ["20x28x1", "20x28x32", "20x28x32", "10x14x32", "5x7x64", "5x7x64", "128", "128", "128", "10"]
        );
        assert_eq!(plan.n_parameters(), 9 * 32 + 32 + 9 * 32 * 64 + 64 + 35 * 64 * 128 + 128 + 1280 + 10);
        assert_eq!(plan.multiply_adds(), 560 * 288 + 35 * 9 * 32 * 64 + 2240 * 128 + 1280);
        let fields: Vec<_> = plan.layers.iter().map(|layer| layer.receptive_field.unwrap()).collect();
        assert_eq!(fields[..5], [(1, 1), (3, 3), (3, 3), (4, 4), (8, 8)]);
        assert_eq!(fields[6], (28, 20));
        let ops: Vec<_> = plan.ops.iter().map(|op| (op.layer, op.is_fused, op.is_masked_below)).collect();
        assert_eq!(ops, [(1, false, false), (4, true, true), (6, true, true), (8, false, false), (9, false, false)]);
        assert_eq!(plan.ops[0].pooling, Some(Pooling { layer: 3, relu: true }));
        assert_eq!(
            plan.tensors().map(|t| &t.name[..]).take(3).collect::<Vec<_>>(),
            ["1.conv.weights", "1.conv.bias", "4.conv.weights"]
        );
        assert!(plan.tensors().all(|t| t.range.start % 16 == 0));
        assert!(plan.training_bytes(64, 1) > plan.prediction_bytes(64));
    }

    #[test]
    fn multiplications_are_those_that_are_made() {
        let of = |layer: &str| plan(&format!("input | conv filters=8 | {layer} | fc")).unwrap().layers[2].multiply_adds;
        // 28x20 pixels are 14x10 tiles of 16 products for 4 pixels.
        assert_eq!(of("conv filters=6"), 14 * 10 * 16 * 8 * 6);
        assert_eq!(of("conv filters=6 padding=0"), 13 * 9 * 16 * 8 * 6);
        assert_eq!(of("conv filters=6 padding=1 convolution=direct"), 28 * 20 * 9 * 8 * 6);
        // Not for these shapes: too few channels, another kernel, a stride, groups.
        assert_eq!(plan("input | conv filters=6 | fc").unwrap().layers[1].multiply_adds, 28 * 20 * 9 * 6);
        assert_eq!(of("conv filters=6 kernel_size=5"), 28 * 20 * 25 * 8 * 6);
        assert_eq!(of("conv filters=6 stride=2"), 14 * 10 * 9 * 8 * 6);
        assert_eq!(of("conv filters=6 groups=2"), 28 * 20 * 9 * 4 * 6);
    }

    #[test]
    fn misfits_are_told_at_their_layer() {
        for (layers, layer, message) in [
            ("input | conv | fc units=7", 2, "the network ends with 7 values, but there are 10 classes"),
            ("input | conv", 1, "the network ends with images of 20x28x32, but there are 10 classes"),
            ("input | fc | fc", 1, "this `fc` needs `units`; only the last `fc` takes the number of classes"),
            (
                "input | flatten | conv | fc",
                2,
                "`conv` needs an image with a height and a width, got 560 flat features",
            ),
            (
                "input | pool size=21 | fc",
                1,
                "the 21×21 window of `pool` is larger than its 20×28 input (width × height)",
            ),
            (
                "input | conv filters=5 | conv groups=2 | fc",
                2,
                "`groups` must divide the channels: got 2 groups and 5 input channels",
            ),
            ("input | relu | gap", 2, "the network has nothing to train"),
        ] {
            let problems = plan(layers).unwrap_err();
            assert_eq!((problems[0].at, &problems[0].message[..]), (layer, message), "{layers}");
        }
    }
}
