//! BN: batch normalisation.

use std::ops::Range;
use std::sync::Arc;

use super::{
    Backward, Build, Forward, Fusion, Inference, Layer, LayerConfig, LayerKind, Norm, Pass, Role, ShapeError, Start,
    TensorSpec,
};
use crate::config::{Bounds, Section};
use crate::engine::{BatchNorm, GradientSums, InputGradient, Normalised};
use crate::tensor::SampleShape;

pub(super) const KIND: LayerKind = LayerKind {
    word: "bn",
    shorthand: "BN",
    meaning: "Batch normalisation: each channel gets mean 0 and deviation 1 over the batch, then a scale and a shift.",
    positional: &["momentum", "epsilon"],
    read: |section| Arc::new(BnConfig::read(section)),
    example: "momentum=0.8",
};

/// Normalises each channel (of flat input: each feature) over the batch, then scales and shifts it
/// (Ioffe and Szegedy 2015).
///
/// `y = scale * (x - mean) / sqrt(variance + epsilon) + shift`; in training with the batch's mean and (biased)
/// variance, else with the running ones: `running = momentum * running + (1 - momentum) * batch`, where the batch's
/// variance is the unbiased one. `momentum` [0.9], `epsilon` [1e-5]; `l2`, where given, acts on the scale.
#[derive(Clone, Debug, PartialEq)]
pub struct BnConfig {
    /// Share of the old running value that is kept at each step.
    pub momentum: f32,
    /// Added to the variance.
    pub epsilon: f32,
    /// L2 of the scale; absent: the network's, if that acts on more than weights.
    pub l2: Option<f64>,
}

impl BnConfig {
    /// Reads `momentum`, `epsilon`, `l2`.
    pub fn read(section: &mut Section<'_>) -> BnConfig {
        let momentum = section
            .key("momentum", "Share of the old running value that is kept at each step.", "0.99")
            .number(Bounds::Fraction)
            .or(0.9) as f32;
        let epsilon = section.key("epsilon", "Added to the variance.", "1e-3").number(Bounds::Positive).or(1e-5) as f32;
        BnConfig {
            momentum,
            epsilon,
            l2: section
                .key("l2", "L2 of the scale; absent: the network's, if `decay_on` is all.", "1e-4")
                .number(Bounds::NonNegative)
                .optional(),
        }
    }
}

/// What is normalised together: `(values of one sample that share a lane, lanes)`.
fn lanes(input: SampleShape) -> (usize, usize) {
    match input {
        SampleShape::Image(shape) => (shape.height * shape.width, shape.channels),
        SampleShape::Flat(features) => (1, features),
    }
}

impl LayerConfig for BnConfig {
    fn word(&self) -> &'static str {
        "bn"
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        Ok(input)
    }

    fn inference(&self, _input: SampleShape) -> Result<Inference, ShapeError> {
        Ok(Inference::Norm { epsilon: self.epsilon })
    }

    fn tensors(&self, input: SampleShape) -> Vec<TensorSpec> {
        let tensor = |name, role, start| TensorSpec {
            name,
            shape: vec![lanes(input).1],
            role,
            start: Start::Constant(start),
            l2: self.l2.filter(|_| role == Role::Scale),
        };
        vec![
            tensor("scale", Role::Scale, 1.0),
            tensor("shift", Role::Bias, 0.0),
            tensor("running_mean", Role::Statistic, 0.0),
            tensor("running_variance", Role::Statistic, 1.0),
        ]
    }

    fn fusion(&self) -> Fusion {
        Fusion {
            relu_after: true,
            pool_after: true,
            is_in_place: true,
            masks_itself: true,
            is_norm: true,
            ..Fusion::default()
        }
    }

    fn build(&self, build: &Build<'_>) -> Box<dyn Layer> {
        let (values, channels) = lanes(build.input);
        let [scale, shift] = build.trained else { panic!("batch normalisation trains a scale and a shift") };
        let [running_mean, running_variance] = build.statistics else { panic!("and follows mean and variance") };
        let rows = build.batch * values;
        let (norm, taps) = match build.input {
            SampleShape::Image(image) if build.pool_after => {
                let n_taps = if build.is_training { rows / 4 * channels } else { 0 };
                (BatchNorm::pooled(build.engine, rows, channels, self.epsilon, image.width), Some(vec![0; n_taps]))
            }
            _ => (BatchNorm::new(rows, channels, self.epsilon), None),
        };
        Box::new(Bn {
            rows: values,
            norm,
            taps,
            momentum: self.momentum,
            relu_after: build.relu_after,
            scale: scale.clone(),
            shift: shift.clone(),
            running_mean: running_mean.clone(),
            running_variance: running_variance.clone(),
        })
    }
}

struct Bn {
    /// Rows of one sample.
    rows: usize,
    norm: BatchNorm,
    /// Which pixel of its window each output is, if the output is pooled.
    taps: Option<Vec<u8>>,
    momentum: f32,
    relu_after: bool,
    scale: Range<usize>,
    shift: Range<usize>,
    running_mean: Range<usize>,
    running_variance: Range<usize>,
}

impl Layer for Bn {
    fn training_bytes(&mut self) -> usize {
        self.norm.bytes() + self.taps.as_ref().map_or(0, Vec::len)
    }

    fn forward(&mut self, pass: &Pass<'_>, values: Forward<'_>) {
        let input = values.input();
        self.normalise(pass, values.parameters, values.statistics, input).write(pass.engine, values.output);
    }

    fn backward(&mut self, pass: &Pass<'_>, values: Backward<'_>) {
        let Backward { parameters, grad_parameters, input, grad_output, grad_input, wants_input, .. } = values;
        self.gradient_sums(pass, parameters, input).finish(pass.engine, grad_output);
        if self.taps.is_some() {
            let made = self.gradient(pass, parameters, grad_parameters, input, grad_output);
            if let Some(grad_input) = grad_input {
                made.write(pass.engine, grad_input);
            }
        } else {
            let made = self.gradient(pass, parameters, grad_parameters, input, &[]);
            if wants_input {
                made.write(pass.engine, grad_output);
            }
        }
    }

    fn as_norm(&mut self) -> Option<&mut dyn Norm> {
        Some(self)
    }
}

impl Norm for Bn {
    fn norm(&mut self) -> &mut BatchNorm {
        &mut self.norm
    }

    fn normalise<'a>(
        &'a mut self,
        pass: &Pass<'_>,
        parameters: &'a [f32],
        statistics: &mut [f32],
        input: &'a [f32],
    ) -> Normalised<'a> {
        let (scale, shift) = (&parameters[self.scale.clone()], &parameters[self.shift.clone()]);
        let (low, high) = statistics.split_at_mut(self.running_variance.start);
        let (mean, variance) = (&mut low[self.running_mean.clone()], &mut high[..self.running_variance.len()]);
        let mut taps = None;
        if pass.is_training {
            self.norm.measure(pass.engine, input, scale);
            self.norm.follow(pass.n * self.rows, self.momentum, mean, variance);
            taps = self.taps.as_deref_mut();
        } else {
            self.norm.use_running(scale, mean, variance);
        }
        self.norm.values(pass.engine, self.rows, input, shift, self.relu_after, taps)
    }

    fn gradient_sums<'a>(&'a mut self, pass: &Pass<'_>, parameters: &'a [f32], input: &'a [f32]) -> GradientSums<'a> {
        let shift = &parameters[self.shift.clone()];
        self.norm.gradient_sums(pass.engine, input, shift, self.relu_after, self.taps.as_deref())
    }

    fn gradient<'a>(
        &'a mut self,
        pass: &Pass<'_>,
        parameters: &[f32],
        grad_parameters: &mut [f32],
        input: &'a [f32],
        pooled: &'a [f32],
    ) -> InputGradient<'a> {
        let scale = &parameters[self.scale.clone()];
        let (low, high) = grad_parameters.split_at_mut(self.shift.start);
        let (grad_scale, grad_shift) = (&mut low[self.scale.clone()], &mut high[..self.shift.len()]);
        let pooled = self.taps.as_deref().map(|taps| (pooled, taps));
        self.norm.gradient(pass.engine, self.rows, input, scale, pooled, [grad_scale, grad_shift])
    }
}
