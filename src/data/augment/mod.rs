//! Augmentation: the training samples look a little different in each epoch. Validation and test samples never do.
//!
//! An [`Augmentation`] is what a manifest lists; an [`Augmenter`] is that, ready to draw. Where an operation acts:
//!
//! | operation | acts on | why |
//! |---|---|---|
//! | flip, crop, shift, rotate, zoom, perspective | stored pixels, before the fitted transforms, in the order of the list | a mean per pixel belongs to the place of the pixel in the picture that the network sees, not to where it came from; what is moved in is a black pixel, as torchvision pads, or the image's own edge |
//! | brightness, color-jitter | stored pixels, in the order of the list | light multiplies pixels, and the range they are cut to is that of pixels |
//! | cutout | the transformed sample | DeVries and Taylor (2017) cut out 0 of normalised images: the mean where the transforms centre, so that the hole is no contrast of its own |
//! | mixup | the transformed sample, last | it mixes what the network sees |
//!
//! # Determinism
//! Each number is drawn from the stream of (run, epoch, operation), at an address made of the sample's index in the
//! data set (and, when it is drawn more than once an epoch, of the turn): never of its place in a batch, or of who
//! loads it.

mod colour;
mod draw;
mod geometry;
mod views;

use serde::{Deserialize, Serialize};

use super::feed::Feed;
use super::fit_set::TrainingRow;
use crate::config::{
    Bounds, Choice, Complaint, Form, Problem, Section, Value, as_number, canonical_float, positive_zero,
};
use crate::data::samples::Values;
use crate::elementary::{cos, exp, ln, sin};
use crate::rng::Stream;
use crate::tensor::{ImageShape, SampleShape};

pub use colour::Jitter;
pub use geometry::Fill;
pub use views::Views;

use geometry::{Part, Tap};

/// Draws that one view of one sample may take from the stream of an operation.
const DRAWS: u64 = 64;

/// One way to change a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Mirrors the image: `flip`.
    Flip {
        /// Which axes may be mirrored, each on its own: "horizontal" (the default), "vertical" or "both".
        direction: Direction,
        /// How often, in `[0, 1]`; default 0.5.
        probability: f64,
    },
    /// Pads the image on each side and cuts a part of its old size out at a random place: `crop`.
    Crop {
        /// Pixels on each side, below the image's height and width; default 4.
        padding: usize,
        /// What is padded with; default "black".
        fill: Fill,
    },
    /// Moves the image by whole pixels, up to a share of its height and width: `shift`.
    Shift {
        /// In `[0, 1)`; default 0.1.
        fraction: f64,
        /// What is moved in; default "black".
        fill: Fill,
    },
    /// Turns the image about its centre by up to so many degrees either way, bilinearly: `rotate`.
    Rotate {
        /// In `[0, 180]`; default 15.
        degrees: f64,
        /// What is turned in; default "black".
        fill: Fill,
    },
    /// Multiplies pixels by a number within `1 ± factor` and cuts them to their range (whitened images have none):
    /// `brightness`.
    Brightness {
        /// In `[0, 1]`; default 0.2.
        factor: f64,
    },
    /// Changes brightness, contrast, saturation and hue, in random order: `color-jitter`. Images have 1 or 3 channels.
    ColorJitter(Jitter),
    /// Enlarges a random part of the image to its whole size, bilinearly: `zoom`, torchvision's `RandomResizedCrop`.
    Zoom {
        /// Share of the image's area that is cut out, from and to, in `(0, 1]`; default `[0.5, 1]`.
        scale: [f64; 2],
        /// Width over height of what is cut out, from and to, above 0; default `[0.75, 4/3]`.
        ratio: [f64; 2],
    },
    /// Tilts the image, bilinearly, as torchvision's `RandomPerspective` does: `perspective`.
    Perspective {
        /// How far a corner moves towards the middle at most, as a share of the way, in `[0, 1)`; default 0.5.
        distortion: f64,
        /// How often, in `[0, 1]`; default 0.5.
        probability: f64,
        /// What is moved in; default "black".
        fill: Fill,
    },
    /// Sets a square around a random pixel to 0, the mean of centred pixels (DeVries and Taylor 2017); it may reach
    /// beyond the image: `cutout`.
    Cutout {
        /// Its side in pixels; default 8.
        size: usize,
    },
    /// Mixes each sample, and its target, with another training sample: `weight * a + (1 - weight) * b`, the weight
    /// drawn from Beta(alpha, alpha) (Zhang et al. 2018): `mixup`. The one operation that features can take.
    Mixup {
        /// Above 0; default 0.2.
        alpha: f64,
    },
}

/// `direction` of a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Left and right change places.
    Horizontal,
    /// Top and bottom change places.
    Vertical,
    /// Either, drawn apart.
    Both,
}

/// The operations of a manifest.
pub const CHOICES: &[Choice<Operation>] = &[
    Choice {
        word: "flip",
        meaning: "Mirrors the image.",
        read: |section| Operation::Flip {
            direction: section
                .key("direction", "Which axes may be mirrored, each on its own.", "\"both\"")
                .short()
                .word(&[
                    ("horizontal", "Left and right change places.", Direction::Horizontal),
                    ("vertical", "Top and bottom change places.", Direction::Vertical),
                    ("both", "Either, drawn apart.", Direction::Both),
                ]),
            probability: section.key("probability", "How often.", "0.25").number(Bounds::Fraction).or(0.5),
        },
    },
    Choice {
        word: "crop",
        meaning: "Pads the image on each side and cuts a part of its old size out at a random place.",
        read: |section| Operation::Crop {
            padding: section
                .key("padding", "Pixels on each side, below the image's height and width.", "2")
                .short()
                .whole(1..=65_536)
                .or(4) as usize,
            fill: Fill::read(section),
        },
    },
    Choice {
        word: "shift",
        meaning: "Moves the image by whole pixels.",
        read: |section| Operation::Shift {
            fraction: section
                .key("fraction", "At most, as a share of height and width.", "0.2")
                .short()
                .number(Bounds::Rate)
                .or(0.1),
            fill: Fill::read(section),
        },
    },
    Choice {
        word: "rotate",
        meaning: "Turns the image about its centre, either way.",
        read: |section| Operation::Rotate {
            degrees: section.key("degrees", "At most, in degrees.", "10").short().number(Bounds::UpTo(180.0)).or(15.0),
            fill: Fill::read(section),
        },
    },
    Choice {
        word: "brightness",
        meaning: "Multiplies pixels by a number within 1 ± factor and cuts them to their range.",
        read: |section| Operation::Brightness {
            factor: section.key("factor", "How far from 1 at most.", "0.1").short().number(Bounds::Fraction).or(0.2),
        },
    },
    Choice {
        word: "color-jitter",
        meaning: "Changes brightness, contrast, saturation and hue, in random order (torchvision's ColorJitter).",
        read: |section| Operation::ColorJitter(read_jitter(section)),
    },
    Choice {
        word: "zoom",
        meaning: "Enlarges a random part of the image to its whole size (torchvision's RandomResizedCrop).",
        read: |section| {
            let meaning = "Share of the image's area that is cut out, from and to.";
            let scale = read_range(section, ("scale", meaning, "[0.25, 1]"), Bounds::Share, [0.5, 1.0]);
            let meaning = "Width over height of what is cut out, from and to.";
            let ratio = read_range(section, ("ratio", meaning, "[0.5, 2]"), Bounds::Positive, [0.75, 4.0 / 3.0]);
            Operation::Zoom { scale, ratio }
        },
    },
    Choice {
        word: "perspective",
        meaning: "Tilts the image (torchvision's RandomPerspective).",
        read: |section| Operation::Perspective {
            distortion: section
                .key("distortion", "How far a corner moves at most, as a share of the way to the middle.", "0.3")
                .short()
                .number(Bounds::Rate)
                .or(0.5),
            probability: section.key("probability", "How often.", "0.25").number(Bounds::Fraction).or(0.5),
            fill: Fill::read(section),
        },
    },
    Choice {
        word: "cutout",
        meaning: "Sets a square around a random pixel to 0 (DeVries and Taylor 2017).",
        read: |section| Operation::Cutout {
            size: section.key("size", "The square's side, in pixels.", "4").short().whole(1..=65_536).or(8) as usize,
        },
    },
    Choice {
        word: "mixup",
        meaning: "Mixes each sample, and its target, with another training sample (Zhang et al. 2018).",
        read: |section| Operation::Mixup {
            alpha: section
                .key("alpha", "Of the Beta distribution of weights.", "0.4")
                .short()
                .number(Bounds::Positive)
                .or(0.2),
        },
    },
];

/// Reads the keys of `color-jitter`.
fn read_jitter(section: &mut Section<'_>) -> Jitter {
    let brightness = section.key("brightness", "How far from 1 pixels are multiplied at most.", "0.4");
    let brightness = brightness.number(Bounds::NonNegative).or(0.2);
    let contrast =
        section.key("contrast", "How far from 1 the distance to the mean grey is multiplied at most.", "0.4");
    let contrast = contrast.number(Bounds::NonNegative).or(0.2);
    let saturation = section.key("saturation", "How far from 1 the distance to grey is multiplied at most.", "0.4");
    let saturation = saturation.number(Bounds::NonNegative).or(0.2);
    let hue = section.key("hue", "How far the hue is turned at most, as a share of the circle.", "0.1");
    let hue = hue.number(Bounds::UpTo(0.5)).or(0.02);
    Jitter { brightness, contrast, saturation, hue }
}

/// Reads a key whose value is `[from, to]`, both within `bounds`.
fn read_range(
    section: &mut Section<'_>,
    (key, meaning, example): (&'static str, &'static str, &'static str),
    bounds: Bounds,
    default: [f64; 2],
) -> [f64; 2] {
    let text = |[from, to]: [f64; 2]| format!("[{}, {}]", canonical_float(from), canonical_float(to));
    let form = || Form::List(Box::new(Form::Number(bounds)), 2..=2);
    let Some(node) = section.key(key, meaning, example).form(Some(&text(default)), form) else {
        section.record(key, text(default), None);
        return default;
    };
    let items = match &node.value {
        Value::List(items) => &items[..],
        _ => &[],
    };
    let numbers: Vec<f64> = items.iter().filter_map(|item| as_number(&item.value)).map(positive_zero).collect();
    match numbers[..] {
        [from, to] if items.len() == 2 && bounds.holds(from) && bounds.holds(to) => {
            if from <= to {
                section.record(key, text([from, to]), Some(node.span));
                return [from, to];
            }
            let message = format!("`{key}` goes from {from} to {to}, expected the smaller number first");
            let swapped = format!("write `{key} = {}`", text([to, from]));
            section.log().push(Problem::error(node.span, message).help(swapped));
        }
        _ => section.expected(key, node, format_args!("two numbers, from and to, each {bounds}")),
    }
    default
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Operation::Flip { .. } => "flip",
            Operation::Crop { .. } => "crop",
            Operation::Shift { .. } => "shift",
            Operation::Rotate { .. } => "rotate",
            Operation::Brightness { .. } => "brightness",
            Operation::ColorJitter(_) => "color-jitter",
            Operation::Zoom { .. } => "zoom",
            Operation::Perspective { .. } => "perspective",
            Operation::Cutout { .. } => "cutout",
            Operation::Mixup { .. } => "mixup",
        }
    }
}

/// What a manifest lists under `augment`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Augmentation {
    operations: Vec<Operation>,
}

/// An operation that cannot be, by its place in the list, from 0.
pub type Misfit = Complaint<usize>;

impl Augmentation {
    /// Reads `augment` [nothing]: a list such as `["flip", { crop = { padding = 4 } }]`.
    pub fn read(section: &mut Section<'_>) -> Augmentation {
        Augmentation {
            operations: section
                .key(
                    "augment",
                    "What is done to training images, anew in each epoch, in this order.",
                    "[\"flip\", { crop = { padding = 4 } }]",
                )
                .choices(CHOICES),
        }
    }

    /// The words of its operations, in order.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.operations.iter().map(|operation| operation.word())
    }

    /// Whether it does something to single images.
    pub fn changes_images(&self) -> bool {
        self.operations.iter().any(|operation| !matches!(operation, Operation::Mixup { .. }))
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// What does not fit samples of `shape` (`None`: not known yet), in the order of the list.
    pub fn misfits(&self, shape: Option<SampleShape>) -> Vec<Misfit> {
        let mut misfits = Vec::new();
        let mut mixups = 0;
        for (operation, &what) in self.operations.iter().enumerate() {
            let word = what.word();
            let mut misfit = |message: String, help: &str| {
                misfits.push(Misfit::about(operation, message).help(help));
            };
            if let Operation::Mixup { .. } = what {
                mixups += 1;
                if mixups == 2 {
                    misfit("`mixup` stands in `augment` twice, expected once".to_owned(), "remove one of them");
                }
                continue;
            }
            let image = match shape {
                None => continue,
                Some(SampleShape::Flat(n)) => {
                    let message = format!("`{word}` needs an image with a height and a width, got {n} flat features");
                    misfit(message, "of all of `augment`, only `mixup` can change features");
                    continue;
                }
                Some(SampleShape::Image(image)) => image,
            };
            let side = image.height.min(image.width);
            match what {
                Operation::Crop { padding, .. } if padding >= side => {
                    let message = format!("`padding` of {padding} can push a {image} image out of sight");
                    misfit(message, "use less than its smaller side");
                }
                Operation::ColorJitter(_) if !matches!(image.channels, 1 | 3) => {
                    let message = format!("`{word}` needs images of 1 or 3 channels, got {image}");
                    misfit(message, "bring them to one or three: `channels = \"gray\"` or \"rgb\" of `ingest`");
                }
                Operation::Perspective { .. } if side < 2 => {
                    let message = format!("`{word}` needs images of at least 2x2 pixels, got {image}");
                    misfit(message, "remove it");
                }
                Operation::Cutout { size } if size >= 2 * side => {
                    let message = format!("`cutout` of {size} pixels always covers a {image} image");
                    misfit(message, "use a `size` of about half its side");
                }
                _ => {}
            }
        }
        misfits
    }
}

/// An [`Augmentation`] that is ready to draw, with room to work in. It allocates nothing after [`Augmenter::new`].
#[derive(Debug)]
pub struct Augmenter {
    operations: Vec<Operation>,
    /// One per operation, of the epoch.
    streams: Vec<Stream>,
    shape: SampleShape,
    /// The image before an operation that moves pixels.
    before: Vec<f32>,
    /// Where a row's pixels come from.
    taps: Vec<Tap>,
    /// The sample that one is mixed with.
    other: Vec<f32>,
}

impl Augmenter {
    /// For samples of `shape`.
    pub fn new(augmentation: &Augmentation, shape: SampleShape) -> Augmenter {
        Augmenter {
            operations: augmentation.operations.clone(),
            streams: Vec::with_capacity(augmentation.operations.len()),
            shape,
            before: vec![0.0; shape.len()],
            taps: vec![Tap::default(); if let SampleShape::Image(shape) = shape { shape.width } else { 0 }],
            other: vec![0.0; shape.len()],
        }
    }

    /// Begins an epoch; `stream` gives the stream of the operation at a place in the list.
    pub fn begin(&mut self, stream: impl Fn(u64) -> Stream) {
        self.streams.clear();
        self.streams.extend((0..self.operations.len() as u64).map(stream));
    }

    /// Whether samples are mixed, so that targets are probabilities.
    pub fn mixes(&self) -> bool {
        self.operations.iter().any(|operation| matches!(operation, Operation::Mixup { .. }))
    }

    /// Loads one view of the sample `row`: the `turn`-th of this epoch, from 0, but not mixed yet.
    ///
    /// # Panics
    /// If no epoch has begun, or `out` has another length.
    pub fn load(&mut self, feed: &Feed, row: TrainingRow, turn: u32, out: &mut [f32]) {
        assert_eq!(self.streams.len(), self.operations.len(), "an epoch has begun");
        let values = feed.samples().values(row.index());
        let most = match values {
            Values::U8(_) => Some(255.0),
            Values::U16(_) => Some(65535.0),
            Values::F32(_) => None,
        };
        values.copy_to(out);
        let SampleShape::Image(shape) = self.shape else { return feed.chain().apply_in_place(out) };
        let first = address(row, turn);
        for (operation, stream) in self.operations.iter().zip(&self.streams) {
            change_pixels(*operation, stream, first, (shape, most), (&mut self.before, &mut self.taps), out);
        }
        feed.chain().apply_in_place(out);
        for (operation, stream) in self.operations.iter().zip(&self.streams) {
            if let Operation::Cutout { size } = *operation {
                let (y, x) = (stream.below(first, shape.height as u64), stream.below(first + 1, shape.width as u64));
                geometry::cut_out(shape, (y as usize, x as usize), size, out);
            }
        }
    }

    /// Mixes `sample`, the `turn`-th view of `row`, with one of the samples `rows`, and its `target` with that one's.
    ///
    /// # Shapes
    /// - `target`: `[n_classes]`, to be written
    pub fn mix(
        &mut self,
        feed: &Feed,
        (row, turn): (TrainingRow, u32),
        rows: &[TrainingRow],
        label: impl Fn(TrainingRow) -> u32,
        sample: &mut [f32],
        target: &mut [f32],
    ) {
        target.fill(0.0);
        target[label(row) as usize] = 1.0;
        let at = self.operations.iter().position(|operation| matches!(operation, Operation::Mixup { .. }));
        let Some(Operation::Mixup { alpha }) = at.map(|at| self.operations[at]) else { return };
        let stream = &self.streams[at.unwrap_or(0)];
        let first = address(row, turn);
        let partner = rows[stream.below(first, rows.len() as u64) as usize];
        let weight = draw::beta(alpha, stream, first + 1) as f32;
        let mut other = std::mem::take(&mut self.other);
        self.load(feed, partner, 0, &mut other);
        for (x, y) in sample.iter_mut().zip(&other) {
            *x = weight * *x + (1.0 - weight) * *y;
        }
        self.other = other;
        target[label(row) as usize] = weight;
        target[label(partner) as usize] += 1.0 - weight;
    }
}

/// The first draw of a view of a sample, in each operation's stream.
fn address(row: TrainingRow, turn: u32) -> u64 {
    (u64::from(turn) << 32 | row.index() as u64) * DRAWS
}

/// What `operation` does to stored pixels, as f32, in place. They are at most `most`, where they have a range; `before` is room
/// for the image as it was, `taps` for a row.
fn change_pixels(
    operation: Operation,
    stream: &Stream,
    first: u64,
    (shape, most): (ImageShape, Option<f32>),
    (before, taps): (&mut [f32], &mut [Tap]),
    image: &mut [f32],
) {
    let ImageShape { height, width, .. } = shape;
    let mut u = [0.0; 2];
    stream.fill_uniform(first, &mut u);
    // A whole number of `-n..=n`.
    let within = |u: f64, n: usize| (u * (2 * n + 1) as f64) as isize - n as isize;
    match operation {
        Operation::Flip { direction, probability } => {
            if direction != Direction::Vertical && u[0] < probability {
                geometry::flip_horizontally(shape, image);
            }
            if direction != Direction::Horizontal && u[1] < probability {
                geometry::flip_vertically(shape, image);
            }
        }
        Operation::Crop { padding, fill } => {
            before.copy_from_slice(image);
            geometry::shift(shape, (within(u[0], padding), within(u[1], padding)), fill, before, image);
        }
        Operation::Shift { fraction, fill } => {
            let most = |n: usize| (fraction * n as f64 + 0.5) as usize;
            before.copy_from_slice(image);
            geometry::shift(shape, (within(u[0], most(height)), within(u[1], most(width))), fill, before, image);
        }
        Operation::Rotate { degrees, fill } => {
            let turn = (2.0 * u[0] - 1.0) * degrees * (std::f64::consts::PI / 180.0);
            before.copy_from_slice(image);
            geometry::rotate(shape, (sin(turn), cos(turn)), fill, before, image);
        }
        Operation::Brightness { factor } => {
            let factor = (1.0 + factor * (2.0 * u[0] - 1.0)) as f32;
            match most {
                Some(most) => image.iter_mut().for_each(|x| *x = (*x * factor).min(most)),
                None => image.iter_mut().for_each(|x| *x *= factor),
            }
        }
        Operation::ColorJitter(jitter) => {
            let mut draws = [0.0; 7];
            stream.fill_uniform(first, &mut draws);
            jitter.apply(draws, shape, most, image);
        }
        Operation::Zoom { scale, ratio } => {
            let part = draw_part(shape, scale, ratio, stream, first);
            before.copy_from_slice(image);
            geometry::zoom(shape, part, taps, before, image);
        }
        Operation::Perspective { distortion, probability, fill } => {
            if u[0] < probability {
                let corners = draw_corners(shape, distortion, stream, first + 1);
                before.copy_from_slice(image);
                geometry::tilt(shape, corners, fill, before, image);
            }
        }
        Operation::Cutout { .. } | Operation::Mixup { .. } => {}
    }
}

/// The part that a zoom shows: of an area and a ratio within their ranges, at a random place; where ten draws do not fit into the
/// image, the largest part in its middle whose ratio is within the range.
fn draw_part(shape: ImageShape, scale: [f64; 2], ratio: [f64; 2], stream: &Stream, first: u64) -> Part {
    const TRIES: u64 = 10;
    let (height, width) = (shape.height as f64, shape.width as f64);
    let logs = ratio.map(ln);
    for i in 0..TRIES {
        let within = |[from, to]: [f64; 2], index: u64| from + (to - from) * stream.uniform(first + 2 * i + index);
        let (area, ratio) = (height * width * within(scale, 0), exp(within(logs, 1)));
        let (wide, tall) = (((area * ratio).sqrt() + 0.5) as usize, ((area / ratio).sqrt() + 0.5) as usize);
        if (1..=shape.width).contains(&wide) && (1..=shape.height).contains(&tall) {
            let place = |index: u64, rest: usize| stream.below(first + 2 * TRIES + index, rest as u64 + 1) as usize;
            let (top, left) = (place(0, shape.height - tall), place(1, shape.width - wide));
            return Part { top, left, height: tall, width: wide };
        }
    }
    let (wide, tall) = if width < height * ratio[0] {
        (shape.width, ((width / ratio[0] + 0.5) as usize).clamp(1, shape.height))
    } else if width > height * ratio[1] {
        (((height * ratio[1] + 0.5) as usize).clamp(1, shape.width), shape.height)
    } else {
        (shape.width, shape.height)
    };
    Part { top: (shape.height - tall) / 2, left: (shape.width - wide) / 2, height: tall, width: wide }
}

/// Where the corners of a tilted image come to lie, in whole pixels, clockwise from the top left.
fn draw_corners(shape: ImageShape, distortion: f64, stream: &Stream, first: u64) -> geometry::Corners {
    let most = |n: usize| (distortion * (n / 2) as f64) as u64;
    let (across, down) = (most(shape.width), most(shape.height));
    let (right, bottom) = ((shape.width - 1) as f64, (shape.height - 1) as f64);
    let [x0, x1, x2, x3] = [0, 1, 2, 3].map(|corner| stream.below(first + 2 * corner, across + 1) as f64);
    let [y0, y1, y2, y3] = [0, 1, 2, 3].map(|corner| stream.below(first + 2 * corner + 1, down + 1) as f64);
    [(x0, y0), (right - x1, y1), (right - x2, bottom - y2), (x3, bottom - y3)]
}

#[cfg(test)]
mod tests;
