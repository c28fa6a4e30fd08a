//! POOL and AVGPOOL: the largest value, or the mean, of each window of each channel.

use std::sync::Arc;

use super::window::Window;
use super::{LayerConfig, LayerKind, Reach, ShapeError, image};
use crate::config::Section;
use crate::tensor::{ImageShape, SampleShape};

pub(super) const MAX: LayerKind = LayerKind {
    word: "pool",
    shorthand: "POOL",
    positional: &["size", "stride", "padding"],
    read: |section| Arc::new(PoolConfig::read(section, PoolKind::Max)),
    example: "size=[3,2] stride=2",
};

pub(super) const AVERAGE: LayerKind = LayerKind {
    word: "avgpool",
    shorthand: "AVGPOOL",
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
        PoolConfig { kind, window: Window::read(section, "size", 2, None, "valid", false) }
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
        let placed = self.window.place(self.word(), input)?;
        Ok(SampleShape::Image(ImageShape {
            height: placed.height_out,
            width: placed.width_out,
            channels: input.channels,
        }))
    }

    fn reach(&self, _input: SampleShape) -> Reach {
        self.window.reach()
    }
}
