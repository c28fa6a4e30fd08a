//! POOL and AVGPOOL: the largest value, or the mean, of each window of each channel.

use std::sync::Arc;

use super::window::{Padding, Window};
use super::{
    Backward, Build, Forward, Fusion, Inference, Layer, LayerConfig, LayerKind, Pass, Reach, ShapeError, image,
};
use crate::config::Section;
use crate::engine::{self, PoolShape};
use crate::tensor::{ImageShape, SampleShape};

pub(super) const MAX: LayerKind = LayerKind {
    word: "pool",
    shorthand: "POOL",
    meaning: "The largest value of each window of each channel.",
    positional: &["size", "stride", "padding"],
    read: |section| Arc::new(PoolConfig::read(section, PoolKind::Max)),
    example: "size=[3,2] stride=2",
};

pub(super) const AVERAGE: LayerKind = LayerKind {
    word: "avgpool",
    shorthand: "AVGPOOL",
    meaning: "The mean of each window of each channel.",
    positional: &["size", "stride", "padding"],
    read: |section| Arc::new(PoolConfig::read(section, PoolKind::Average)),
    example: "size=[2,3] stride=2 padding=same",
};

/// What becomes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Its largest value; the first in row order where several are largest.
    Max,
    /// The mean of those of its values that lie inside the image.
    Average,
}

/// Reduces each window of each channel to one value. `size` [2], `stride` [the size], `padding` ["valid"].
#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    /// What becomes of a window.
    pub kind: PoolKind,
    pub(super) window: Window,
}

impl PoolConfig {
    /// Reads `size`, `stride`, `padding`.
    pub fn read(section: &mut Section<'_>, kind: PoolKind) -> PoolConfig {
        PoolConfig {
            kind,
            window: Window::read(
                section,
                ("size", "Height and width of the window, in pixels."),
                2,
                None,
                Padding::Valid,
                false,
            ),
        }
    }
}

impl LayerConfig for PoolConfig {
    fn word(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "pool",
            PoolKind::Average => "avgpool",
        }
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        let input = image(self.word(), input)?;
        if self.window.size.0 * self.window.size.1 >= usize::from(u16::MAX) {
            return Err(ShapeError::new(format!("the window of `{}` has more than 65,534 pixels", self.word())));
        }
        let placed = self.window.place(self.word(), input)?;
        Ok(SampleShape::Image(ImageShape {
            height: placed.height_out,
            width: placed.width_out,
            channels: input.channels,
        }))
    }

    fn inference(&self, input: SampleShape) -> Result<Inference, ShapeError> {
        let windows = self.window.windows(self.word(), input)?;
        Ok(match self.kind {
            PoolKind::Max => Inference::MaxPool(windows),
            PoolKind::Average => Inference::AveragePool(windows),
        })
    }

    fn reach(&self, _input: SampleShape) -> Reach {
        self.window.reach()
    }

    fn tiles_in_pairs(&self, input: SampleShape) -> bool {
        let output = self.output_shape(input).ok().and_then(SampleShape::image);
        let (Some(input), Some(output)) = (input.image(), output) else { return false };
        self.kind == PoolKind::Max
            && self.window.size == (2, 2)
            && self.window.stride == (2, 2)
            && (2 * output.height, 2 * output.width) == (input.height, input.width)
    }

    fn fusion(&self) -> Fusion {
        Fusion { relu_before: self.kind == PoolKind::Max, ..Fusion::default() }
    }

    fn build(&self, build: &Build<'_>) -> Box<dyn Layer> {
        let shape = self.window.pool_shape(build);
        match self.kind {
            PoolKind::Max => {
                let n_taps = if build.is_training { build.batch * shape.output_len() } else { 0 };
                Box::new(MaxPool { shape, taps: vec![0; n_taps], relu_before: build.relu_before })
            }
            PoolKind::Average => Box::new(AveragePool { shape }),
        }
    }
}

struct MaxPool {
    shape: PoolShape,
    /// Which pixel of its window each output is.
    taps: Vec<u16>,
    relu_before: bool,
}

impl Layer for MaxPool {
    fn forward(&mut self, pass: &Pass<'_>, values: Forward<'_>) {
        let taps = pass.is_training.then_some(&mut self.taps[..]);
        engine::max_pool(pass.engine, &self.shape, pass.n, values.input(), self.relu_before, values.output, taps);
    }

    fn backward(&mut self, pass: &Pass<'_>, values: Backward<'_>) {
        if let Some(grad_input) = values.grad_input {
            engine::max_pool_backward(pass.engine, &self.shape, pass.n, &self.taps, values.grad_output, grad_input);
        }
    }

    fn training_bytes(&mut self) -> usize {
        2 * self.taps.len()
    }
}

struct AveragePool {
    shape: PoolShape,
}

impl Layer for AveragePool {
    fn forward(&mut self, pass: &Pass<'_>, values: Forward<'_>) {
        engine::average_pool(pass.engine, &self.shape, pass.n, values.input(), values.output);
    }

    fn backward(&mut self, pass: &Pass<'_>, values: Backward<'_>) {
        if let Some(grad_input) = values.grad_input {
            engine::average_pool_backward(pass.engine, &self.shape, pass.n, values.grad_output, grad_input);
        }
    }
}
