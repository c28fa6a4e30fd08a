//! Pixels of one image as they are stored, and what an image may cost.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::config::Section;
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
}

/// Pixels as a reader found them.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    /// Their shape.
    pub shape: ImageShape,
    /// Bits per value.
    pub depth: Depth,
    /// `[height, width, channels]`; 16-bit values little-endian.
    pub pixels: Vec<u8>,
    /// The format they come from.
    pub format: &'static str,
    /// What the last channel is.
    pub alpha: RawAlpha,
}

/// What the last channel of pixels is. A number of channels does not tell: arrays have near infrared as a fourth one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RawAlpha {
    /// A colour, or a band, like the others.
    #[default]
    None,
    /// How opaque the pixel is.
    Straight,
    /// That, and the colours are multiplied by it already.
    Premultiplied,
}

/// What one image may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Width times height.
    pub max_pixels: u64,
    /// Bytes of one image file.
    pub max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_pixels: 100_000_000, max_bytes: 256 << 20 }
    }
}

/// The range of [`Limits::max_pixels`].
const MAX_PIXELS: RangeInclusive<u64> = 1..=1 << 32;
/// The range of [`Limits::max_bytes`].
const MAX_BYTES: RangeInclusive<u64> = 1..=1 << 40;

/// The longest side of an image file, in pixels, as JPEG has it: rows of one pixel cost a hundred times what their pixels do.
const MOST_SIDE: u64 = 65_535;

impl Limits {
    /// Reads `max_pixels` and `max_bytes`.
    pub fn read(section: &mut Section<'_>) -> Limits {
        let default = Limits::default();
        Limits {
            max_pixels: section
                .key("max_pixels", "Width times height of an image, in pixels, at most.", "40000000")
                .whole(MAX_PIXELS)
                .or(default.max_pixels),
            max_bytes: section
                .key("max_bytes", "Bytes of one image file at most.", "10000000")
                .whole(MAX_BYTES)
                .or(default.max_bytes),
        }
    }

    /// Whether a manifest could have said so.
    pub fn is_in_range(&self) -> bool {
        MAX_PIXELS.contains(&self.max_pixels) && MAX_BYTES.contains(&self.max_bytes)
    }

    /// The bytes of an image of this shape and depth, if it may be had.
    ///
    /// # Errors
    /// The reason why not, to follow the image's name.
    pub fn check_decoded(&self, shape: ImageShape, depth: Depth) -> Result<u64, String> {
        let (width, height) = (shape.width as u64, shape.height as u64);
        self.check_size(width, height)?;
        if width.max(height) > MOST_SIDE {
            return Err(format!("is {width}x{height} pixels, more than {MOST_SIDE} on a side"));
        }
        let n = width.saturating_mul(height).saturating_mul((shape.channels * depth.bytes()) as u64);
        if n > self.max_pixels.saturating_mul(4) {
            return Err(format!("decodes to {n} bytes, more than 4 for each of `max_pixels = {}`", self.max_pixels));
        }
        Ok(n)
    }

    /// Whether an image of this size may be decoded.
    ///
    /// # Errors
    /// The reason why not, to follow the image's name.
    pub fn check_size(&self, width: u64, height: u64) -> Result<(), String> {
        if width == 0 || height == 0 {
            return Err(format!("is {width}x{height} pixels, expected at least 1x1"));
        }
        if width.saturating_mul(height) > self.max_pixels {
            return Err(format!("is {width}x{height} pixels, more than `max_pixels = {}`", self.max_pixels));
        }
        Ok(())
    }

    /// Whether images of this shape and depth may be read.
    ///
    /// # Errors
    /// The reason why not, to follow the source's name.
    pub fn check_raw(&self, shape: ImageShape, depth: Depth) -> Result<(), String> {
        self.check_size(shape.width as u64, shape.height as u64)?;
        let bytes = (shape.width as u64).saturating_mul(shape.height as u64).saturating_mul(shape.channels as u64);
        self.check_bytes(bytes.saturating_mul(depth.bytes() as u64))
    }

    /// Whether a file of this length may be read.
    ///
    /// # Errors
    /// The reason why not, to follow the file's name.
    pub fn check_bytes(&self, len: u64) -> Result<(), String> {
        if len > self.max_bytes {
            return Err(format!("has {len} bytes, more than `max_bytes = {}`", self.max_bytes));
        }
        Ok(())
    }
}
