//! Pixels that move: mirroring, shifting, turning, cutting out. Images are `[height, width, channels]`, f32.

use serde::{Deserialize, Serialize};

use crate::config::Section;
use crate::tensor::ImageShape;

/// What stands where the image does not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    /// 0: black pixels; the mean of whitened images. The default.
    Black,
    /// The nearest pixel.
    Edge,
    /// The image, mirrored about its outermost pixels.
    Reflect,
}

impl Fill {
    /// Reads `fill` ["black"].
    pub(super) fn read(section: &mut Section<'_>) -> Fill {
        section.key("fill", "What stands where the image does not reach.", "\"edge\"").word(&[
            ("black", "Black pixels.", Fill::Black),
            ("edge", "The nearest pixel.", Fill::Edge),
            ("reflect", "The image, mirrored about its outermost pixels.", Fill::Reflect),
        ])
    }

    /// Which of `0..n` stands at `i`; `None` for black.
    fn source(self, i: isize, n: usize) -> Option<usize> {
        let n = n as isize;
        if (0..n).contains(&i) {
            return Some(i as usize);
        }
        match self {
            Fill::Black => None,
            Fill::Edge => Some(i.clamp(0, n - 1) as usize),
            Fill::Reflect if n == 1 => Some(0),
            Fill::Reflect => {
                let i = i.rem_euclid(2 * (n - 1));
                Some(i.min(2 * (n - 1) - i) as usize)
            }
        }
    }
}

/// Left and right change places.
pub(super) fn flip_horizontally(shape: ImageShape, image: &mut [f32]) {
    for row in image.chunks_exact_mut(shape.width * shape.channels) {
        match shape.channels {
            // Pixels of a known size are moved several times as fast.
            1 => row.reverse(),
            3 => row.as_chunks_mut::<3>().0.reverse(),
            4 => row.as_chunks_mut::<4>().0.reverse(),
            channels => {
                row.reverse();
                row.chunks_exact_mut(channels).for_each(<[f32]>::reverse);
            }
        }
    }
}

/// Top and bottom change places.
pub(super) fn flip_vertically(shape: ImageShape, image: &mut [f32]) {
    let row = shape.width * shape.channels;
    let (top, bottom) = image.split_at_mut(shape.height / 2 * row);
    for (above, below) in top.chunks_exact_mut(row).zip(bottom.chunks_exact_mut(row).rev()) {
        above.swap_with_slice(below);
    }
}

/// `out` is `image` moved down and to the right by so many pixels.
pub(super) fn shift(shape: ImageShape, (down, right): (isize, isize), fill: Fill, image: &[f32], out: &mut [f32]) {
    let ImageShape { height, width, channels } = shape;
    let row = width * channels;
    for (y, out) in out.chunks_exact_mut(row).enumerate() {
        let Some(from) = fill.source(y as isize - down, height) else {
            out.fill(0.0);
            continue;
        };
        let image = &image[from * row..][..row];
        // The columns that the image reaches, all at once; the others one by one.
        let start = right.clamp(0, width as isize) as usize;
        let end = (width as isize + right).clamp(start as isize, width as isize) as usize;
        let first = (start as isize - right).clamp(0, width as isize) as usize;
        out[start * channels..end * channels].copy_from_slice(&image[first * channels..][..(end - start) * channels]);
        for x in (0..start).chain(end..width) {
            let pixel = &mut out[x * channels..][..channels];
            match fill.source(x as isize - right, width) {
                Some(from) => pixel.copy_from_slice(&image[from * channels..][..channels]),
                None => pixel.fill(0.0),
            }
        }
    }
}

/// `out` is `image` turned about its centre, by the angle with this sine and cosine, counter-clockwise as people see it
/// (rows go down); values between pixels are bilinear.
pub(super) fn rotate(shape: ImageShape, (sin, cos): (f64, f64), fill: Fill, image: &[f32], out: &mut [f32]) {
    let ImageShape { height, width, channels } = shape;
    let (middle_y, middle_x) = ((height - 1) as f64 * 0.5, (width - 1) as f64 * 0.5);
    for y in 0..height {
        for x in 0..width {
            let (dy, dx) = (y as f64 - middle_y, x as f64 - middle_x);
            let (from_y, from_x) = (cos * dy + sin * dx + middle_y, cos * dx - sin * dy + middle_x);
            let (y0, y_share) = split(from_y);
            let (x0, x_share) = split(from_x);
            let pixel = |y: isize, x: isize| {
                let (y, x) = (fill.source(y, height)?, fill.source(x, width)?);
                Some(&image[(y * width + x) * channels..][..channels])
            };
            let corners = [pixel(y0, x0), pixel(y0, x0 + 1), pixel(y0 + 1, x0), pixel(y0 + 1, x0 + 1)];
            let out = &mut out[(y * width + x) * channels..][..channels];
            for (c, out) in out.iter_mut().enumerate() {
                let [a, b, below_a, below_b] = corners.map(|corner| corner.map_or(0.0, |pixel| pixel[c]));
                let above = a + (b - a) * x_share;
                let below = below_a + (below_b - below_a) * x_share;
                *out = above + (below - above) * y_share;
            }
        }
    }
}

/// The whole number at or below `x`, and the rest.
fn split(x: f64) -> (isize, f32) {
    let mut whole = x as isize;
    if whole as f64 > x {
        whole -= 1;
    }
    (whole, (x - whole as f64) as f32)
}

/// Sets the square of side `size` around a pixel to 0, as far as it lies within the image.
pub(super) fn cut_out(shape: ImageShape, (y, x): (usize, usize), size: usize, image: &mut [f32]) {
    let ImageShape { height, width, channels } = shape;
    let span = |at: usize, n: usize| at.saturating_sub(size / 2)..(at + size.div_ceil(2)).min(n);
    for y in span(y, height) {
        let columns = span(x, width);
        image[(y * width + columns.start) * channels..(y * width + columns.end) * channels].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { height: 3, width: 4, channels: 1 };

    fn image() -> Vec<f32> {
        (1..=12u8).map(f32::from).collect()
    }

    #[test]
    fn pixels_go_where_they_should() {
        let mut out = image();
        flip_horizontally(SHAPE, &mut out);
        assert_eq!(out, [4.0, 3.0, 2.0, 1.0, 8.0, 7.0, 6.0, 5.0, 12.0, 11.0, 10.0, 9.0]);
        let mut out = image();
        flip_vertically(SHAPE, &mut out);
        assert_eq!(out, [9.0, 10.0, 11.0, 12.0, 5.0, 6.0, 7.0, 8.0, 1.0, 2.0, 3.0, 4.0]);
        for (fill, expected) in [
            (Fill::Black, [0.0, 0.0, 0.0, 0.0, 2.0, 3.0, 4.0, 0.0, 6.0, 7.0, 8.0, 0.0]),
            (Fill::Edge, [2.0, 3.0, 4.0, 4.0, 2.0, 3.0, 4.0, 4.0, 6.0, 7.0, 8.0, 8.0]),
            (Fill::Reflect, [6.0, 7.0, 8.0, 7.0, 2.0, 3.0, 4.0, 3.0, 6.0, 7.0, 8.0, 7.0]),
        ] {
            let mut out = vec![-1.0; 12];
            shift(SHAPE, (1, -1), fill, &image(), &mut out);
            assert_eq!(out, expected, "{fill:?}");
        }
        let mut out = vec![-1.0; 12];
        shift(SHAPE, (-9, 9), Fill::Black, &image(), &mut out);
        assert_eq!(out, [0.0; 12]);
        shift(SHAPE, (-9, 9), Fill::Reflect, &image(), &mut out);
        assert!(out.iter().all(|x| image().contains(x)));
        let mut out = image();
        cut_out(SHAPE, (0, 3), 3, &mut out);
        assert_eq!(out, [1.0, 2.0, 0.0, 0.0, 5.0, 6.0, 0.0, 0.0, 9.0, 10.0, 11.0, 12.0]);
    }

    #[test]
    fn channels_stay_together() {
        for channels in [1, 2, 3, 4, 5] {
            let shape = ImageShape { channels, ..SHAPE };
            let pixels: Vec<f32> =
                (0..shape.len()).map(|i| (i / channels) as f32 + 0.125 * (i % channels) as f32).collect();
            let mut out = pixels.clone();
            flip_horizontally(shape, &mut out);
            assert_eq!(out[1 % channels], 3.0 + 0.125 * (1 % channels) as f32);
            flip_horizontally(shape, &mut out);
            assert_eq!(out, pixels);
        }
    }

    #[test]
    fn turning_by_a_right_angle_moves_whole_pixels_and_by_none_moves_nothing() {
        let square = ImageShape { height: 3, width: 3, channels: 1 };
        let image: Vec<f32> = (1..=9u8).map(f32::from).collect();
        let mut out = vec![0.0; 9];
        rotate(square, (0.0, 1.0), Fill::Black, &image, &mut out);
        assert_eq!(out, image);
        rotate(square, (1.0, 0.0), Fill::Black, &image, &mut out);
        // Counter-clockwise: what was at the right is at the top.
        assert_eq!(out, [3.0, 6.0, 9.0, 2.0, 5.0, 8.0, 1.0, 4.0, 7.0]);
        let half = std::f64::consts::FRAC_1_SQRT_2;
        rotate(square, (half, half), Fill::Black, &[1.0; 9], &mut out);
        assert!(out[4] == 1.0 && out[0] < 0.7 && (out[1] - 1.0).abs() < 1e-6, "{out:?}");
        rotate(square, (half, half), Fill::Edge, &[1.0; 9], &mut out);
        assert!(out.iter().all(|x| (x - 1.0).abs() < 1e-6), "{out:?}");
    }
}
