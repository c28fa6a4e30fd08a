//! Small grey pictures of images, in whole numbers: the same for every machine, and nearly the same for an image that was
//! saved again, made smaller or made brighter.

use crate::data::samples::Values;
use crate::tensor::ImageShape;

/// The part of each value's unit that a cell counts in: cells of 8-bit values go from 0 to `255 * UNIT`.
pub const UNIT: u64 = 16;

/// An image in grey, `[height, width]`: of three and more channels their luminance (ITU-R BT.601, in thousandths), else the
/// first channel; values of 16 bits by their upper byte, others cut to `0..=255`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grey {
    height: usize,
    width: usize,
    /// Thousandths.
    values: Vec<u64>,
}

impl Grey {
    /// Of an image's stored values, `[height, width, channels]`.
    pub fn new(shape: ImageShape, values: Values<'_>) -> Grey {
        let byte = |i: usize| match values {
            Values::U8(values) => u64::from(values[i]),
            Values::U16(values) => u64::from(values[i][1]),
            Values::F32(values) => f32::from_le_bytes(values[i]).clamp(0.0, 255.0) as u64,
        };
        let ImageShape { height, width, channels } = shape;
        let grey = |pixel: usize| {
            let at = pixel * channels;
            match channels {
                0..=2 => 1000 * byte(at),
                _ => 299 * byte(at) + 587 * byte(at + 1) + 114 * byte(at + 2),
            }
        };
        Grey { height, width, values: (0..height * width).map(grey).collect() }
    }

    /// The image as `side` times `side` cells, row by row: the mean of each over the area that it covers, pixels in part by
    /// their part, in [`UNIT`]ths of a value, rounded down.
    pub fn cells(&self, side: usize) -> Vec<u64> {
        let (tall, wide) = (overlaps(self.height, side), overlaps(self.width, side));
        // Per row first: a sum of at most 255,000 times the width.
        let mut narrow = Vec::with_capacity(self.height * side);
        for row in self.values.chunks_exact(self.width.max(1)) {
            narrow.extend(wide.iter().map(|part| part.iter().map(|&(x, weight)| weight * row[x]).sum::<u64>()));
        }
        let area = (self.height * self.width) as u64 * 1000;
        let cell = |row: usize, column: usize| {
            let sum: u64 = tall[row].iter().map(|&(y, weight)| weight * narrow[y * side + column]).sum();
            sum * UNIT / area
        };
        (0..side * side).map(|i| cell(i / side, i % side)).collect()
    }
}

/// For each of `side` cells the pixels of a line of `size` that it covers, and how much of each, in `side`ths of a pixel.
fn overlaps(size: usize, side: usize) -> Vec<Vec<(usize, u64)>> {
    let of = |cell: usize| {
        let (from, to) = (cell * size, (cell + 1) * size);
        let pixels = from / side..to.div_ceil(side);
        pixels.map(|p| (p, (((p + 1) * side).min(to) - (p * side).max(from)) as u64)).collect()
    };
    (0..side).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_means_over_areas() {
        let shape = |height, width, channels| ImageShape { height, width, channels };
        let grey = Grey::new(shape(1, 3, 1), Values::U8(&[0, 30, 90]));
        // Two cells of one and a half pixels each.
        assert_eq!(grey.cells(2), [10 * UNIT, 70 * UNIT, 10 * UNIT, 70 * UNIT]);
        assert_eq!(grey.cells(3)[..3], [0, 30 * UNIT, 90 * UNIT]);
        // Larger than the image: pixels are repeated.
        assert_eq!(Grey::new(shape(1, 1, 1), Values::U8(&[9])).cells(4), [9 * UNIT; 16]);
        let colour = Grey::new(shape(1, 1, 3), Values::U8(&[255, 0, 0]));
        assert_eq!(colour.cells(1), [255 * UNIT * 299 / 1000]);
        assert_eq!(Grey::new(shape(1, 1, 1), Values::U16(&[[255, 7]])).cells(1), [7 * UNIT]);
        // The whole has the mean of the whole, whatever its size.
        let image: Vec<u8> = (0..35).map(|i| i * 7).collect();
        assert_eq!(Grey::new(shape(5, 7, 1), Values::U8(&image)).cells(1), [17 * 7 * UNIT]);
    }
}
