//! Samples as they are stored: values of one type, all of one shape, by index.

use std::fmt;

use super::fit_set::Row;
use crate::tensor::SampleShape;

/// The values of one sample as they are stored, images as `[height, width, channels]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values<'a> {
    /// `0..=255`.
    U8(&'a [u8]),
    /// `0..=65535`, little-endian.
    U16(&'a [[u8; 2]]),
    /// Single precision, little-endian.
    F32(&'a [[u8; 4]]),
}

impl Values<'_> {
    /// Number of values.
    pub fn len(self) -> usize {
        match self {
            Values::U8(values) => values.len(),
            Values::U16(values) => values.len(),
            Values::F32(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Copies them to `out`, in single precision.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn copy_to(self, out: &mut [f32]) {
        assert_eq!(self.len(), out.len(), "values of a sample");
        match self {
            Values::U8(values) => out.iter_mut().zip(values).for_each(|(out, &x)| *out = f32::from(x)),
            Values::U16(values) => {
                out.iter_mut().zip(values).for_each(|(out, &x)| *out = f32::from(u16::from_le_bytes(x)));
            }
            Values::F32(values) => out.iter_mut().zip(values).for_each(|(out, &x)| *out = f32::from_le_bytes(x)),
        }
    }
}

/// Something that has samples, all of one shape.
pub trait Samples: Send + Sync + fmt::Debug {
    /// How many there are.
    fn n_samples(&self) -> usize;

    /// The shape of each.
    fn shape(&self) -> SampleShape;

    /// The values of sample `i`.
    fn values(&self, i: usize) -> Values<'_>;
}

/// Which sample: a plain index where nothing is learned, else a row that says what it may be used for.
pub trait SampleIndex: Copy + Send + Sync {
    /// The sample's index.
    fn index(self) -> usize;
}

impl SampleIndex for u32 {
    fn index(self) -> usize {
        self as usize
    }
}

impl<U: Copy + Send + Sync> SampleIndex for Row<U> {
    fn index(self) -> usize {
        Row::index(self)
    }
}
