//! Shapes: what one sample looks like, and how a person reads it.

use std::fmt;

/// The shape of one image, channels innermost (NHWC is the one layout at every room's border).
///
/// Shown in the course's order, width x height x depth: `32x32x3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageShape {
    /// Rows, in pixels.
    pub height: usize,
    /// Columns, in pixels.
    pub width: usize,
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
}

/// The shape of one sample as a network or a transform sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SampleShape {
    /// Has height and width.
    Image(ImageShape),
    /// A row of features: after FLATTEN, FC, PCA or a projection.
    Flat(usize),
}

impl ImageShape {
    /// Values in one image.
    pub fn len(self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether any axis is zero.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl SampleShape {
    /// Values in one sample.
    pub fn len(self) -> usize {
        match self {
            SampleShape::Image(shape) => shape.len(),
            SampleShape::Flat(n) => n,
        }
    }

    /// Whether there is no value at all.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The image shape, if there still is a height and a width.
    pub fn image(self) -> Option<ImageShape> {
        match self {
            SampleShape::Image(shape) => Some(shape),
            SampleShape::Flat(_) => None,
        }
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.width, self.height, self.channels)
    }
}

impl fmt::Display for SampleShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SampleShape::Image(shape) => shape.fmt(f),
            SampleShape::Flat(n) => write!(f, "{n}"),
        }
    }
}
