//! Pixels that move: mirroring, shifting, turning, enlarging, tilting, cutting out. Images are `[height, width, channels]`, f32.

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
            bilinear(shape, (from_y, from_x), fill, image, &mut out[(y * width + x) * channels..][..channels]);
        }
    }
}

/// `out` is the pixel of `image` at a place between pixels, weighed bilinearly.
#[inline]
fn bilinear(shape: ImageShape, (y, x): (f64, f64), fill: Fill, image: &[f32], out: &mut [f32]) {
    let ImageShape { height, width, channels } = shape;
    let (y0, y_share) = split(y);
    let (x0, x_share) = split(x);
    let pixel = |y: isize, x: isize| {
        let (y, x) = (fill.source(y, height)?, fill.source(x, width)?);
        Some(&image[(y * width + x) * channels..][..channels])
    };
    let corners = [pixel(y0, x0), pixel(y0, x0 + 1), pixel(y0 + 1, x0), pixel(y0 + 1, x0 + 1)];
    for (c, out) in out.iter_mut().enumerate() {
        let [a, b, below_a, below_b] = corners.map(|corner| corner.map_or(0.0, |pixel| pixel[c]));
        let above = a + (b - a) * x_share;
        let below = below_a + (below_b - below_a) * x_share;
        *out = above + (below - above) * y_share;
    }
}

/// Where a value of a row or column of `n` comes from: two neighbours, and the share of the second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tap {
    first: usize,
    second: usize,
    share: f32,
}

/// A part of an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

/// `out` is `part` of `image`, enlarged to the whole size: bilinearly, pixels as areas, nothing from beyond the part. `taps` is room
/// for a row.
pub(super) fn zoom(shape: ImageShape, part: Part, taps: &mut [Tap], image: &[f32], out: &mut [f32]) {
    let ImageShape { height, width, channels } = shape;
    let tap = |i: usize, start: usize, size: usize, n: usize| {
        let place = ((i as f64 + 0.5) * (size as f64 / n as f64) - 0.5).max(0.0);
        let first = (place as usize).min(size - 1);
        let second = (first + 1).min(size - 1);
        Tap { first: start + first, second: start + second, share: (place - first as f64) as f32 }
    };
    for (x, of_column) in taps[..width].iter_mut().enumerate() {
        *of_column = tap(x, part.left, part.width, width);
    }
    for (y, out) in out.chunks_exact_mut(width * channels).enumerate() {
        let of_row = tap(y, part.top, part.height, height);
        let row = |y: usize| &image[y * width * channels..][..width * channels];
        let (above, below) = (row(of_row.first), row(of_row.second));
        for (out, of_column) in out.chunks_exact_mut(channels).zip(&taps[..width]) {
            let (first, second) = (of_column.first * channels, of_column.second * channels);
            for (c, out) in out.iter_mut().enumerate() {
                let between = |row: &[f32]| row[first + c] + (row[second + c] - row[first + c]) * of_column.share;
                let (above, below) = (between(above), between(below));
                *out = above + (below - above) * of_row.share;
            }
        }
    }
}

/// `(x, y)` of the corners of a quadrangle, clockwise from the one at the top left.
pub(super) type Corners = [(f64, f64); 4];

/// `out` is `image` tilted so that its corners come to lie at `corners` (which stay in their quarters: the quadrangle is convex);
/// values between pixels are bilinear. As in Pillow and torchvision, corners are numbers of pixels, the last one is `size - 1`,
/// and the middle of a pixel lies half a pixel further.
pub(super) fn tilt(shape: ImageShape, corners: Corners, fill: Fill, image: &[f32], out: &mut [f32]) {
    let ImageShape { height, width, channels } = shape;
    let back = homography(shape, corners);
    for y in 0..height {
        for x in 0..width {
            let (at_x, at_y) = (x as f64 + 0.5, y as f64 + 0.5);
            let [from_x, from_y, by] = back.map(|row| row[0] * at_x + row[1] * at_y + row[2]);
            // Beyond the horizon places are far away, or nowhere: both are no pixel.
            let place = |from: f64| (from / by - 0.5).clamp(-FAR, FAR);
            let out = &mut out[(y * width + x) * channels..][..channels];
            bilinear(shape, (place(from_y), place(from_x)), fill, image, out);
        }
    }
}

/// No image is as large, in pixels.
const FAR: f64 = 1e9;

/// The matrix that takes a place `(x, y, 1)` of the tilted image to where it was, up to a factor: the inverse of Heckbert's map
/// (1989) from a square to a quadrangle.
fn homography(shape: ImageShape, corners: Corners) -> [[f64; 3]; 3] {
    let [(x0, y0), (x1, y1), (x2, y2), (x3, y3)] = corners;
    let (dx1, dx2, sx) = (x1 - x2, x3 - x2, x0 - x1 + x2 - x3);
    let (dy1, dy2, sy) = (y1 - y2, y3 - y2, y0 - y1 + y2 - y3);
    let area = dx1 * dy2 - dx2 * dy1;
    let (g, h) = ((sx * dy2 - dx2 * sy) / area, (dx1 * sy - sx * dy1) / area);
    let [[a, b, c], [d, e, f]] = [[x1 - x0 + g * x1, x3 - x0 + h * x3, x0], [y1 - y0 + g * y1, y3 - y0 + h * y3, y0]];
    // The adjugate, and the unit square enlarged to the image.
    let (wide, tall) = ((shape.width.max(2) - 1) as f64, (shape.height.max(2) - 1) as f64);
    let scaled = |row: [f64; 3], by: f64| row.map(|x| x * by);
    [
        scaled([e - f * h, c * h - b, b * f - c * e], wide),
        scaled([f * g - d, a - c * g, c * d - a * f], tall),
        [d * h - e * g, b * g - a * h, a * e - b * d],
    ]
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
    fn a_part_is_enlarged_and_a_whole_image_stays() {
        let mut taps = [Tap::default(); 4];
        let mut out = vec![-1.0; 12];
        zoom(SHAPE, Part { top: 0, left: 0, height: 3, width: 4 }, &mut taps, &image(), &mut out);
        assert_eq!(out, image());
        zoom(SHAPE, Part { top: 1, left: 1, height: 1, width: 2 }, &mut taps, &image(), &mut out);
        // Pixels as areas: the outer quarter has the outer pixel alone.
        assert_eq!(out, [[6.0, 6.25, 6.75, 7.0]; 3].concat());
        for channels in [1, 3] {
            let shape = ImageShape { channels, ..SHAPE };
            let pixels: Vec<f32> = (0..shape.len()).map(|i| (i % channels) as f32).collect();
            let mut out = vec![-1.0; shape.len()];
            zoom(shape, Part { top: 0, left: 2, height: 2, width: 2 }, &mut taps, &pixels, &mut out);
            assert_eq!(out, pixels, "channels stay together");
        }
    }

    /// `tests/reference/check_augment.py` compares the definitions with torchvision; these numbers are torchvision's.
    #[test]
    fn pixels_are_those_of_torchvision() {
        let shape = ImageShape { height: 4, width: 5, channels: 3 };
        let image: Vec<f32> = (0..60).map(|i| (i * i % 255 + 1) as f32).collect();
        let mut out = vec![-1.0; 60];
        let near = |out: &[f32], expected: [f32; 6]| {
            for (place, expected) in [0, 1, 2, 31, 45, 59].into_iter().zip(expected) {
                assert!((out[place] - expected).abs() < 2e-3, "{place}: {} for {expected}", out[place]);
            }
        };
        zoom(shape, Part { top: 1, left: 1, height: 2, width: 3 }, &mut [Tap::default(); 5], &image, &mut out);
        near(&out, [70.0, 107.0, 146.0, 129.5, 70.0, 152.0]);
        tilt(shape, [(1.0, 0.0), (4.0, 1.0), (3.0, 3.0), (0.0, 2.0)], Fill::Black, &image, &mut out);
        near(&out, [17.434, 0.429, 3.367, 93.99, 0.0, 0.0]);
    }

    #[test]
    fn corners_go_where_they_should() {
        let shape = ImageShape { height: 5, width: 7, channels: 1 };
        let still = [(0.0, 0.0), (6.0, 0.0), (6.0, 4.0), (0.0, 4.0)];
        let image: Vec<f32> = (0..35u8).map(f32::from).collect();
        let mut out = vec![-1.0; 35];
        tilt(shape, still, Fill::Black, &image, &mut out);
        assert!(out.iter().zip(&image).all(|(x, y)| (x - y).abs() < 1e-4), "{out:?}");
        let corners = [(1.0, 1.0), (5.0, 0.0), (6.0, 3.0), (0.0, 4.0)];
        let back = homography(shape, corners);
        for ((x, y), (was_x, was_y)) in corners.into_iter().zip(still) {
            let [from_x, from_y, by] = back.map(|row| row[0] * x + row[1] * y + row[2]);
            assert!((from_x / by - was_x).abs() < 1e-9 && (from_y / by - was_y).abs() < 1e-9, "{x}, {y}");
        }
        tilt(shape, corners, Fill::Black, &[1.0; 35], &mut out);
        assert!(out[0] == 0.0 && out[17] == 1.0, "{out:?}");
        tilt(shape, corners, Fill::Edge, &[1.0; 35], &mut out);
        assert!(out.iter().all(|x| (x - 1.0).abs() < 1e-6), "{out:?}");
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
