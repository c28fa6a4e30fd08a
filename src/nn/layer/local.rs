//! LOCAL: a locally-connected layer, a convolution whose weights are not shared between positions.

use std::sync::Arc;

use super::window::Window;
use super::{LayerConfig, LayerKind, Reach, ShapeError, TensorSpec, WeightKeys, image};
use crate::config::Section;
use crate::tensor::{ImageShape, SampleShape};

pub(super) const KIND: LayerKind = LayerKind {
    word: "local",
    shorthand: "LOCAL",
    positional: &["filters", "kernel_size", "stride", "padding"],
    read: |section| Arc::new(LocalConfig::read(section)),
    example: "filters=3 kernel_size=[3,2] stride=[1,2]",
};

/// Applies to every position of an image filters of its own; weights are
/// `[height_out, width_out, kernel_h, kernel_w, channels_in, filters]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalConfig {
    /// Number of filters at each position. Default 32.
    pub filters: usize,
    pub(super) window: Window,
    pub(super) keys: WeightKeys,
}

impl LocalConfig {
    /// Reads `filters`, `kernel_size`, `stride`, `padding`, `bias`, `initializer`, `l2`.
    pub fn read(section: &mut Section<'_>) -> LocalConfig {
        let filters = section.whole("filters", 1..=65_536, Some(32)) as usize;
        let window = Window::read(section, "kernel_size", 3, Some(1), "same", false);
        LocalConfig { filters, window, keys: WeightKeys::read(section) }
    }

    fn output(&self, input: SampleShape) -> Result<ImageShape, ShapeError> {
        let placed = self.window.place("local", image("local", input)?)?;
        Ok(ImageShape { height: placed.height_out, width: placed.width_out, channels: self.filters })
    }
}

impl LayerConfig for LocalConfig {
    fn word(&self) -> &'static str {
        "local"
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        self.output(input).map(SampleShape::Image)
    }

    fn tensors(&self, input: SampleShape) -> Vec<TensorSpec> {
        let channels = input.image().map_or(0, |shape| shape.channels);
        let (oh, ow) = self.output(input).map_or((0, 0), |shape| (shape.height, shape.width));
        let (h, w) = self.window.size;
        self.keys.tensors(
            vec![oh, ow, h, w, channels, self.filters],
            h * w * channels,
            h * w * self.filters,
            vec![oh, ow, self.filters],
        )
    }

    fn multiply_adds(&self, input: SampleShape) -> u64 {
        self.tensors(input)[0].len() as u64
    }

    fn reach(&self, _input: SampleShape) -> Reach {
        self.window.reach()
    }
}
