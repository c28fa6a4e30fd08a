//! From the bytes of an image file to pixels under a policy: channels, alpha, orientation, size.

use serde::{Deserialize, Serialize};

use crate::tensor::ImageShape;

/// Bits of one pixel value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Depth {
    /// One byte.
    U8,
    /// Two bytes, little-endian.
    U16,
}

impl Depth {
    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Depth::U8 => 1,
            Depth::U16 => 2,
        }
    }

    /// Bits of one value: 8 or 16.
    pub fn bits(self) -> u32 {
        8 * self.bytes() as u32
    }

    /// The largest value: 255 or 65535.
    pub fn max(self) -> f32 {
        match self {
            Depth::U8 => 255.0,
            Depth::U16 => 65535.0,
        }
    }
}

/// How images are decoded: the part of ingest that a model must repeat to predict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecodePolicy {}

/// BLAKE3 of an image's shape, depth and values, cut to 16 bytes.
pub fn pixel_digest(shape: ImageShape, depth: Depth, pixels: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for n in [shape.height, shape.width, shape.channels, depth.bytes()] {
        hasher.update(&(n as u64).to_le_bytes());
    }
    hasher.update(pixels);
    let hash = hasher.finalize();
    let (head, _) = hash.as_bytes().split_at(16);
    head.iter().fold(0, |digest, &byte| digest << 8 | u128::from(byte))
}
