//! Resizing in whole numbers: the same bytes on every machine, for any number of threads.
//!
//! Separable: columns first (whole rows at a time, which vectorises), then rows. When an image shrinks, a filter is
//! widened to cover what a target pixel stands for (antialiasing), as Pillow and `torchvision` do. Weights are computed
//! in f64 with +, -, *, / only and rounded to 14 bits such that they add up to one exactly.

use serde::{Deserialize, Serialize};

use crate::config::{Entry, Form, Node, Section, Short, Table, Value};
use crate::data::pixels::Depth;
use crate::tensor::ImageShape;

/// How every image is brought to one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// Width afterwards, in pixels.
    pub width: usize,
    /// Height afterwards, in pixels.
    pub height: usize,
    /// What happens to the aspect ratio.
    pub fit: Fit,
    /// How pixels are weighed.
    pub filter: Filter,
}

/// What happens to the aspect ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Width and height are scaled apart.
    Stretch,
    /// Scaled to cover the target, what sticks out is cut off on both sides alike.
    Cover,
    /// Scaled to fit inside the target, centred on black.
    Contain,
}

/// How pixels are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// The mean of the area a pixel stands for; the nearest pixel when enlarging.
    Box,
    /// Linear ("bilinear").
    Triangle,
    /// Cubic, sharper (E. Catmull, R. Rom, 1974; Keys' kernel with a = -1/2, 1981).
    CatmullRom,
}

/// The table that a side stands for. Which of two is the width is said differently everywhere: equal ones tell nothing
/// apart.
fn expand(node: &Node) -> Short {
    let table = |side: &Node| {
        let entry = |key: &str| Entry { key: key.to_owned(), key_span: node.span, node: side.clone() };
        Short::Table(Table { entries: vec![entry("width"), entry("height")] })
    };
    match &node.value {
        Value::Integer(_) => table(node),
        Value::List(sides) => match &sides[..] {
            [a, b] if a.value == b.value && matches!(a.value, Value::Integer(_)) => table(a),
            [a, b, ..] => match (&a.value, &b.value) {
                (Value::Integer(a), Value::Integer(b)) => Short::Unclear(Some(format!(
                    "write `resize = {{ width = {a}, height = {b} }}`, or the other way round"
                ))),
                _ => Short::Unclear(None),
            },
            _ => Short::Unclear(None),
        },
        Value::Text { text, .. } => {
            let sides: Vec<&str> = text.split(['x', 'X', '×', '*', ',']).map(str::trim).collect();
            let sides: Vec<u64> = sides.iter().filter_map(|side| side.trim_end_matches("px").parse().ok()).collect();
            Short::Unclear(match sides[..] {
                [a] => Some(format!("write `resize = {a}`")),
                [a, b] if a == b => Some(format!("write `resize = {a}`")),
                [a, b] => Some(format!("write `resize = {{ width = {a}, height = {b} }}`")),
                _ => None,
            })
        }
        _ => Short::Unclear(Some("write `resize = { width = 64, height = 64 }`".to_owned())),
    }
}

/// Bits of a weight.
const WEIGHT_BITS: u32 = 14;
/// Bits after the point that the values between the two passes keep; with 8 bits before it and Catmull-Rom's overshoot
/// they still fit an i16.
const KEPT_BITS: u32 = 6;

impl Resize {
    /// Reads the key `resize`: `{ width, height, fit, filter }`, or a side or two equal ones for a square.
    pub fn read_key(section: &mut Section<'_>) -> Option<Resize> {
        let side = || Form::Whole(1..=65_535);
        let square = vec![side(), Form::List(Box::new(side()), 2..=2)];
        let key = section.key("resize", "Brings every image to one size.", "{ width = 32, height = 32 }");
        key.table_or(square, expand, Resize::read)
    }

    /// Reads `{ width, height, fit, filter }`.
    fn read(section: &mut Section<'_>) -> Resize {
        let width = section.key("width", "Width afterwards, in pixels.", "32").whole(1..=65_535).required() as usize;
        let height = section.key("height", "Height afterwards, in pixels.", "32").whole(1..=65_535).required() as usize;
        let fit = section.key("fit", "What happens to the aspect ratio.", "\"cover\"").word(&[
            ("stretch", "Width and height are scaled apart.", Fit::Stretch),
            ("cover", "Scaled to cover the target; what sticks out is cut off.", Fit::Cover),
            ("contain", "Scaled to fit inside the target, centred on black.", Fit::Contain),
        ]);
        let filters = [
            ("box", "The mean of the area a pixel stands for; the nearest pixel when enlarging.", Filter::Box),
            ("triangle", "Linear.", Filter::Triangle),
            ("catmull-rom", "Cubic, sharper.", Filter::CatmullRom),
        ];
        let filter = section.key("filter", "How pixels are weighed.", "\"catmull-rom\"").word_or(&filters, 1);
        Resize { width, height, fit, filter }
    }

    /// Resizes an image `[height, width, channels]`; 16-bit values are little-endian.
    ///
    /// # Shapes
    /// - `pixels`: `from.len()` values
    /// - returns `[self.height, self.width, from.channels]`
    ///
    /// # Panics
    /// If `pixels` has not the bytes of `from`.
    pub fn apply(&self, from: ImageShape, depth: Depth, pixels: Vec<u8>) -> Vec<u8> {
        assert_eq!(pixels.len(), from.len() * depth.bytes(), "bytes of an image of shape {from}");
        if (from.width, from.height) == (self.width, self.height) {
            return pixels;
        }
        let (columns, rows, inside) = self.plan(from);
        let resized = match depth {
            Depth::U8 => resample_u8(from, &pixels, &columns, &rows),
            Depth::U16 => resample_u16(from, &pixels, &columns, &rows),
        };
        if (inside.width, inside.height) == (self.width, self.height) {
            return resized;
        }
        // Contain: a frame of black around it.
        let pixel_len = from.channels * depth.bytes();
        let mut framed = vec![0; self.width * self.height * pixel_len];
        let left = (self.width - inside.width) / 2;
        let top = (self.height - inside.height) / 2;
        for (y, row) in resized.chunks_exact(inside.width * pixel_len).enumerate() {
            let start = ((top + y) * self.width + left) * pixel_len;
            framed[start..start + row.len()].copy_from_slice(row);
        }
        framed
    }

    /// The weights of columns and rows, and the size they lead to.
    fn plan(&self, from: ImageShape) -> (Vec<Taps>, Vec<Taps>, ImageShape) {
        let (source_w, source_h) = (from.width as f64, from.height as f64);
        let (target_w, target_h) = (self.width as f64, self.height as f64);
        let (mut width, mut height) = (self.width, self.height);
        let (mut window_w, mut window_h) = (source_w, source_h);
        let is_wider = source_w * target_h > source_h * target_w;
        match self.fit {
            Fit::Stretch => {}
            Fit::Cover if is_wider => window_w = source_h * target_w / target_h,
            Fit::Cover => window_h = source_w * target_h / target_w,
            Fit::Contain if is_wider => height = whole(source_h * target_w / source_w, self.height),
            Fit::Contain => width = whole(source_w * target_h / source_h, self.width),
        }
        let columns = taps(from.width, (source_w - window_w) / 2.0, window_w, width, self.filter);
        let rows = taps(from.height, (source_h - window_h) / 2.0, window_h, height, self.filter);
        (columns, rows, ImageShape { height, width, channels: from.channels })
    }
}

/// A length in pixels, at least 1, at most `most`.
fn whole(length: f64, most: usize) -> usize {
    ((length + 0.5) as usize).clamp(1, most)
}

/// What one target pixel reads along one axis.
#[derive(Debug, PartialEq)]
struct Taps {
    first: usize,
    /// They add up to `1 << WEIGHT_BITS`.
    weights: Vec<i16>,
}

/// The weights of `n_out` target pixels over a window (`start`, `length`) of `n_in` source pixels.
fn taps(n_in: usize, start: f64, length: f64, n_out: usize, filter: Filter) -> Vec<Taps> {
    let scale = length / n_out as f64;
    let widening = if scale > 1.0 { scale } else { 1.0 };
    let support = widening
        * match filter {
            Filter::Box => 0.5,
            Filter::Triangle => 1.0,
            Filter::CatmullRom => 2.0,
        };
    (0..n_out)
        .map(|i| {
            let centre = start + (i as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let first = first.min(n_in - 1);
            let end = ((centre + support + 0.5).max(0.0) as usize).clamp(first + 1, n_in);
            let exact: Vec<f64> = (first..end).map(|j| weight(filter, (j as f64 + 0.5 - centre) / widening)).collect();
            let mut total = 0.0;
            for &w in &exact {
                total += w;
            }
            // The nearest pixel, where the window is so thin that no centre falls into it.
            if total <= 0.0 {
                let nearest = (centre.max(0.0) as usize).min(n_in - 1);
                return Taps { first: nearest, weights: vec![1 << WEIGHT_BITS] };
            }
            // Rounding the running total, and not each weight, keeps the sum exact however many there are.
            let one = f64::from(1 << WEIGHT_BITS);
            let mut sum = 0.0;
            let mut given = 0;
            let weights = exact
                .iter()
                .map(|&w| {
                    sum += w;
                    let upto = (sum / total * one + one + 0.5) as i32 - (1 << WEIGHT_BITS);
                    let weight = upto - given;
                    given = upto;
                    weight as i16
                })
                .collect();
            Taps { first, weights }
        })
        .collect()
}

fn weight(filter: Filter, x: f64) -> f64 {
    let x = x.abs();
    match filter {
        // Half open, so that a pixel on the border belongs to one side; `x` is symmetric here, but for equal shares the
        // two target pixels take it together.
        Filter::Box => f64::from(u8::from(x <= 0.5)),
        Filter::Triangle if x < 1.0 => 1.0 - x,
        Filter::CatmullRom if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        Filter::CatmullRom if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}

fn resample_u8(from: ImageShape, pixels: &[u8], columns: &[Taps], rows: &[Taps]) -> Vec<u8> {
    let row_len = from.width * from.channels;
    let mut sums = vec![0_i32; row_len];
    let mut between = vec![0_i16; row_len];
    let mut out = Vec::with_capacity(rows.len() * columns.len() * from.channels);
    for row in rows {
        sums.fill(1 << (WEIGHT_BITS - KEPT_BITS - 1));
        let lines = &pixels[row.first * row_len..][..row.weights.len() * row_len];
        // Four lines at a time, so that a sum is loaded and stored once for four products.
        let mut fours = lines.chunks_exact(4 * row_len);
        let (weights, weights_left) = row.weights.as_chunks::<4>();
        for (four, weights) in fours.by_ref().zip(weights) {
            add_four(&mut sums, four, weights);
        }
        for (line, &weight) in fours.remainder().chunks_exact(row_len).zip(weights_left) {
            for (sum, &value) in sums.iter_mut().zip(line) {
                *sum += i32::from(i16::from(value)) * i32::from(weight);
            }
        }
        for (kept, &sum) in between.iter_mut().zip(&sums) {
            *kept = (sum >> (WEIGHT_BITS - KEPT_BITS)) as i16;
        }
        match from.channels {
            1 => across::<1>(&between, columns, &mut out),
            3 => across::<3>(&between, columns, &mut out),
            channels => {
                for taps in columns {
                    for c in 0..channels {
                        let mut sum = 1 << (WEIGHT_BITS + KEPT_BITS - 1);
                        for (j, &weight) in taps.weights.iter().enumerate() {
                            sum += i32::from(between[(taps.first + j) * channels + c]) * i32::from(weight);
                        }
                        out.push((sum >> (WEIGHT_BITS + KEPT_BITS)).clamp(0, 255) as u8);
                    }
                }
            }
        }
    }
    out
}

fn add_four(sums: &mut [i32], four: &[u8], weights: &[i16; 4]) {
    let n = sums.len();
    let (a, rest) = four.split_at(n);
    let (b, rest) = rest.split_at(n);
    let (c, d) = rest.split_at(n);
    let [wa, wb, wc, wd] = weights.map(i32::from);
    let product = |value: u8, weight: i32| i32::from(i16::from(value)) * weight;
    for ((((sum, &a), &b), &c), &d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *sum += product(a, wa) + product(b, wb) + product(c, wc) + product(d, wd);
    }
}

/// The second pass for a fixed number of channels, which keeps their sums in registers.
fn across<const C: usize>(between: &[i16], columns: &[Taps], out: &mut Vec<u8>) {
    let (values, _) = between.as_chunks::<C>();
    for taps in columns {
        let mut sums = [1_i32 << (WEIGHT_BITS + KEPT_BITS - 1); C];
        for (value, &weight) in values[taps.first..].iter().zip(&taps.weights) {
            for c in 0..C {
                sums[c] += i32::from(value[c]) * i32::from(weight);
            }
        }
        out.extend(sums.map(|sum| (sum >> (WEIGHT_BITS + KEPT_BITS)).clamp(0, 255) as u8));
    }
}

/// The definition, in i64 and for 16-bit values; `resample_u8` agrees with it bit for bit.
fn resample_wide(from: ImageShape, values: &[u16], columns: &[Taps], rows: &[Taps], most: i64) -> Vec<u16> {
    let channels = from.channels;
    let row_len = from.width * channels;
    let mut out = Vec::with_capacity(rows.len() * columns.len() * channels);
    let mut between = vec![0_i64; row_len];
    for row in rows {
        for (x, kept) in between.iter_mut().enumerate() {
            let mut sum = 1_i64 << (WEIGHT_BITS - KEPT_BITS - 1);
            for (j, &weight) in row.weights.iter().enumerate() {
                sum += i64::from(values[(row.first + j) * row_len + x]) * i64::from(weight);
            }
            *kept = sum >> (WEIGHT_BITS - KEPT_BITS);
        }
        for taps in columns {
            for c in 0..channels {
                let mut sum = 1_i64 << (WEIGHT_BITS + KEPT_BITS - 1);
                for (j, &weight) in taps.weights.iter().enumerate() {
                    sum += between[(taps.first + j) * channels + c] * i64::from(weight);
                }
                out.push((sum >> (WEIGHT_BITS + KEPT_BITS)).clamp(0, most) as u16);
            }
        }
    }
    out
}

fn resample_u16(from: ImageShape, pixels: &[u8], columns: &[Taps], rows: &[Taps]) -> Vec<u8> {
    let values: Vec<u16> = pixels.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect();
    resample_wide(from, &values, columns, rows, 65_535).into_iter().flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTERS: [Filter; 3] = [Filter::Box, Filter::Triangle, Filter::CatmullRom];
    const FITS: [Fit; 3] = [Fit::Stretch, Fit::Cover, Fit::Contain];

    fn resize(width: usize, height: usize, fit: Fit, filter: Filter) -> Resize {
        Resize { width, height, fit, filter }
    }

    fn noise(n: usize) -> Vec<u8> {
        (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    #[test]
    fn weights_add_up_to_one() {
        for filter in FILTERS {
            for (n_in, n_out) in [(1, 1), (1, 9), (9, 1), (500, 64), (64, 500), (7, 5), (60_000, 1), (3, 4)] {
                for taps in taps(n_in, 0.0, n_in as f64, n_out, filter) {
                    assert_eq!(taps.weights.iter().map(|&w| i32::from(w)).sum::<i32>(), 1 << WEIGHT_BITS);
                    assert!(taps.first + taps.weights.len() <= n_in, "{filter:?} {n_in} {n_out}");
                }
            }
        }
    }

    #[test]
    fn the_fast_path_is_the_definition_bit_for_bit() {
        for (width, height, channels) in [(13, 9, 1), (50, 37, 3), (5, 40, 3), (8, 8, 2)] {
            let from = ImageShape { height, width, channels };
            let pixels = noise(from.len());
            let wide: Vec<u16> = pixels.iter().map(|&v| u16::from(v)).collect();
            for filter in FILTERS {
                for fit in FITS {
                    for (w, h) in [(7, 7), (64, 20), (3, 90)] {
                        let (columns, rows, _) = resize(w, h, fit, filter).plan(from);
                        let fast = resample_u8(from, &pixels, &columns, &rows);
                        let slow = resample_wide(from, &wide, &columns, &rows, 255);
                        assert!(fast.iter().map(|&v| u16::from(v)).eq(slow), "{from} {filter:?} {fit:?} {w}x{h}");
                    }
                }
            }
        }
    }

    #[test]
    fn one_colour_stays_one_colour_and_the_same_size_stays_as_it_is() {
        for filter in FILTERS {
            let from = ImageShape { height: 31, width: 50, channels: 3 };
            let grey = resize(8, 70, Fit::Stretch, filter).apply(from, Depth::U8, vec![201; from.len()]);
            assert!(grey.iter().all(|&v| v == 201) && grey.len() == 8 * 70 * 3, "{filter:?}");
            let wide = resize(8, 7, Fit::Stretch, filter).apply(from, Depth::U16, vec![0xab; 2 * from.len()]);
            assert!(wide.iter().all(|&v| v == 0xab) && wide.len() == 8 * 7 * 3 * 2, "{filter:?}");
            let pixels = noise(from.len());
            assert_eq!(resize(50, 31, Fit::Cover, filter).apply(from, Depth::U8, pixels.clone()), pixels);
        }
    }

    #[test]
    fn known_values() {
        let line = |width| ImageShape { height: 1, width, channels: 1 };
        let apply = |filter, n_in, n_out, pixels: &[u8]| {
            resize(n_out, 1, Fit::Stretch, filter).apply(line(n_in), Depth::U8, pixels.to_vec())
        };
        assert_eq!(apply(Filter::Box, 4, 2, &[10, 20, 30, 50]), [15, 40]);
        assert_eq!(apply(Filter::Box, 2, 4, &[10, 20]), [10, 10, 20, 20]);
        // Halfway between neighbours at a quarter and three quarters; the border repeats.
        assert_eq!(apply(Filter::Triangle, 2, 4, &[0, 100]), [0, 25, 75, 100]);
        // Shrinking by two: weights 1/8, 3/8, 3/8, 1/8, less what lies outside.
        assert_eq!(apply(Filter::Triangle, 4, 2, &[0, 0, 0, 80]), [0, 34]);
        // Catmull-Rom overshoots and is clipped.
        let steep = apply(Filter::CatmullRom, 4, 8, &[0, 0, 255, 255]);
        assert_eq!((steep[0], steep[7]), (0, 255));
        assert!(steep.is_sorted(), "{steep:?}");
    }

    #[test]
    fn fits_keep_what_they_promise() {
        // A wide picture: black, white in the middle third, black.
        let from = ImageShape { height: 10, width: 30, channels: 1 };
        let pixels: Vec<u8> = (0..300).map(|i| if (10..20).contains(&(i % 30)) { 255 } else { 0 }).collect();
        let cover = resize(10, 10, Fit::Cover, Filter::Box).apply(from, Depth::U8, pixels);
        assert!(cover.iter().all(|&v| v == 255), "{cover:?}");
        let contain = resize(10, 10, Fit::Contain, Filter::Box).apply(from, Depth::U8, vec![255; 300]);
        let rows: Vec<bool> = contain.chunks_exact(10).map(|row| row.iter().all(|&v| v == 255)).collect();
        assert_eq!(rows, [false, false, false, true, true, true, false, false, false, false]);
        let tall = ImageShape { height: 30, width: 10, channels: 1 };
        let contain = resize(10, 10, Fit::Contain, Filter::Box).apply(tall, Depth::U8, vec![255; 300]);
        assert_eq!(contain[..10], [0, 0, 0, 255, 255, 255, 0, 0, 0, 0]);
        assert_eq!(contain.iter().filter(|&&v| v == 255).count(), 30);
    }
}
