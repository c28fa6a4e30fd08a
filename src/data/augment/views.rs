//! Test-time augmentation: the views of an image over which probabilities are averaged when it is predicted.
//!
//! Each operation of the list gives several views of each view before it, the image as it is first: `flip` the image and its
//! mirror image, `shift` the image and the four that are moved by so many pixels along both axes, to the corners. So
//! `["flip", { shift = 1 }]` has ten views, as the ten crops of Krizhevsky et al. (2012). They act where `augment` does: on
//! stored pixels, before the fitted transforms.

use serde::{Deserialize, Serialize};

use super::geometry::{self, Fill};
use super::{Direction, Misfit};
use crate::config::{Choice, Section};
use crate::data::feed::Feed;
use crate::data::samples::SampleIndex;
use crate::engine::Engine;
use crate::tensor::{ImageShape, SampleShape};

/// Samples that one thread loads at a time.
const LOADED_TOGETHER: usize = 64;

/// One operation of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Operation {
    /// The image and its mirror image: `flip`.
    Flip {
        /// "horizontal" (the default), "vertical", or "both": four views.
        direction: Direction,
    },
    /// The image, and the image moved to each corner: `shift`.
    Shift {
        /// By so many pixels along both axes, below the image's height and width; default 1.
        pixels: usize,
        /// What is moved in; default "black".
        fill: Fill,
    },
}

const CHOICES: &[Choice<Operation>] = &[
    Choice {
        word: "flip",
        meaning: "The image and its mirror image.",
        read: |section| Operation::Flip {
            direction: section.key("direction", "Which axes are mirrored.", "\"vertical\"").short().word(&[
                ("horizontal", "Left and right change places.", Direction::Horizontal),
                ("vertical", "Top and bottom change places.", Direction::Vertical),
                ("both", "Either and both: four views.", Direction::Both),
            ]),
        },
    },
    Choice {
        word: "shift",
        meaning: "The image, and the image moved to each of the four corners.",
        read: |section| Operation::Shift {
            pixels: section
                .key("pixels", "How far along both axes, below the image's height and width.", "2")
                .short()
                .whole(1..=65_536)
                .or(1) as usize,
            fill: Fill::read(section),
        },
    },
];

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Operation::Flip { .. } => "flip",
            Operation::Shift { .. } => "shift",
        }
    }

    fn n_views(self) -> usize {
        match self {
            Operation::Flip { direction: Direction::Both } => 4,
            Operation::Flip { .. } => 2,
            Operation::Shift { .. } => 5,
        }
    }

    /// Makes its `view`-th of an image, from 0, which is the image itself; `before` is room for the image as it was.
    fn change(self, view: usize, shape: ImageShape, before: &mut [f32], image: &mut [f32]) {
        match self {
            _ if view == 0 => {}
            Operation::Flip { direction } => {
                let (across, down) = match direction {
                    Direction::Horizontal => (true, false),
                    Direction::Vertical => (false, true),
                    Direction::Both => (view & 1 == 1, view & 2 == 2),
                };
                if across {
                    geometry::flip_horizontally(shape, image);
                }
                if down {
                    geometry::flip_vertically(shape, image);
                }
            }
            Operation::Shift { pixels, fill } => {
                let by = |is_forward: bool| if is_forward { pixels as isize } else { -(pixels as isize) };
                before.copy_from_slice(image);
                geometry::shift(shape, (by(view > 2), by(view.is_multiple_of(2))), fill, before, image);
            }
        }
    }
}

/// The views of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Views {
    operations: Vec<Operation>,
}

impl Views {
    /// Reads `predict` [the image alone]: a list such as `["flip", { shift = 1 }]`.
    pub fn read(section: &mut Section<'_>) -> Views {
        let meaning = "Views of an image over which its probabilities are averaged; absent: the image alone.";
        Views { operations: section.key("predict", meaning, "[\"flip\", { shift = 1 }]").optional_choices(CHOICES) }
    }

    /// Whether an image is seen as it is and no other way.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// How many there are; the image as it is is the first.
    pub fn n(&self) -> usize {
        self.operations.iter().map(|operation| operation.n_views()).product()
    }

    /// What does not fit samples of `shape` (`None`: not known yet), in the order of the list.
    pub fn misfits(&self, shape: Option<SampleShape>) -> Vec<Misfit> {
        let mut misfits = Vec::new();
        for (at, &operation) in self.operations.iter().enumerate() {
            let word = operation.word();
            let mut misfit = |message: String, help: &str| misfits.push(Misfit::about(at, message).help(help));
            if self.operations[..at].iter().any(|other| other.word() == word) {
                misfit(format!("`{word}` stands in `predict` twice, expected once"), "remove one of them");
                continue;
            }
            match (operation, shape) {
                (_, None) => {}
                (_, Some(SampleShape::Flat(n))) => {
                    let message = format!("`{word}` needs an image with a height and a width, got {n} flat features");
                    misfit(message, "remove `predict`, or let the stage read images");
                }
                (Operation::Shift { pixels, .. }, Some(SampleShape::Image(image)))
                    if pixels >= image.height.min(image.width) =>
                {
                    misfit(
                        format!("`shift` by {pixels} pixels moves a {image} image out of sight"),
                        "use less than its smaller side",
                    );
                }
                _ => {}
            }
        }
        misfits
    }

    /// Which pixel of an image, rows first, stands at each place of its `view`-th view, from 0; `None`: a black one.
    pub fn sources(&self, view: usize, shape: ImageShape) -> Vec<Option<usize>> {
        let shape = ImageShape { channels: 1, ..shape };
        // Whole numbers of so many pixels are exact in single precision.
        let mut places: Vec<f32> = (1..=shape.len()).map(|place| place as f32).collect();
        let mut before = places.clone();
        let mut rest = view;
        for operation in &self.operations {
            operation.change(rest % operation.n_views(), shape, &mut before, &mut places);
            rest /= operation.n_views();
        }
        places.into_iter().map(|place| (place as usize).checked_sub(1)).collect()
    }

    /// Loads the `view`-th view, from 0, of the samples `rows` into `out`, transformed, on all threads of `engine`.
    ///
    /// # Shapes
    /// - `out`: `[rows.len(), sample_shape]`
    ///
    /// # Panics
    /// If `out` has another length, there is no such view or row, or samples are no images where there are several views.
    pub fn load_on(&self, engine: &Engine, view: usize, feed: &Feed, rows: &[impl SampleIndex], out: &mut [f32]) {
        assert!(view < self.n(), "view {view} of {}", self.n());
        if view == 0 {
            return feed.load_on(engine, rows, out);
        }
        let SampleShape::Image(shape) = feed.sample_shape() else { panic!("views of {}", feed.sample_shape()) };
        assert_eq!(out.len(), rows.len() * shape.len(), "values of {} samples of {shape}", rows.len());
        engine.for_each_chunk(out, LOADED_TOGETHER * shape.len(), |i, out| {
            let mut before = vec![0.0; shape.len()];
            let rows = &rows[i * LOADED_TOGETHER..];
            for (row, out) in rows.iter().zip(out.chunks_exact_mut(shape.len())) {
                feed.samples().values(row.index()).copy_to(out);
                let mut rest = view;
                for operation in &self.operations {
                    operation.change(rest % operation.n_views(), shape, &mut before, out);
                    rest /= operation.n_views();
                }
                feed.chain().apply_in_place(out);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::data::samples::{Samples, Values};
    use crate::data::transform::{Affine, Fitted, Per};
    use crate::engine::Isa;

    /// One image of 2x3 pixels, `1..=6`, and 80 copies of it.
    #[derive(Debug)]
    struct Pixels;

    const SHAPE: ImageShape = ImageShape { height: 2, width: 3, channels: 1 };

    impl Samples for Pixels {
        fn n_samples(&self) -> usize {
            81
        }
        fn shape(&self) -> SampleShape {
            SampleShape::Image(SHAPE)
        }
        fn values(&self, _: usize) -> Values<'_> {
            Values::U8(&[1, 2, 3, 4, 5, 6])
        }
    }

    fn view(operations: &[Operation], view: usize) -> Vec<f32> {
        let engine = Engine::with_isa(2, Isa::detect());
        let double = Affine { per: Per::Global, subtract: vec![0.0], multiply: vec![2.0], add: vec![0.0] };
        let feed = Feed::new(Arc::new(Pixels), vec![Fitted::Affine(double)]);
        let views = Views { operations: operations.to_vec() };
        let rows: Vec<u32> = (0..81).collect();
        let mut out = vec![f32::NAN; 81 * 6];
        views.load_on(&engine, view, &feed, &rows, &mut out);
        assert!(out.chunks(6).all(|image| image == &out[..6]), "all images are alike");
        out[..6].iter().map(|x| x / 2.0).collect()
    }

    const FLIP: Operation = Operation::Flip { direction: Direction::Horizontal };
    const SHIFT: Operation = Operation::Shift { pixels: 1, fill: Fill::Black };

    #[test]
    fn views_are_the_image_its_mirror_image_and_the_four_corners() {
        let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mirrored = [3.0, 2.0, 1.0, 6.0, 5.0, 4.0];
        assert_eq!((view(&[FLIP], 0), view(&[FLIP], 1)), (image.to_vec(), mirrored.to_vec()));
        let corners = [
            image,
            [5.0, 6.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 4.0, 5.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 2.0, 3.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 1.0, 2.0],
        ];
        for (i, corner) in corners.iter().enumerate() {
            assert_eq!(view(&[SHIFT], i), corner, "{i}");
        }
        let both = Operation::Flip { direction: Direction::Both };
        assert_eq!(view(&[both], 3), [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]);
        assert_eq!(view(&[both], 2), [4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn operations_multiply() {
        let views = Views { operations: vec![FLIP, SHIFT] };
        assert_eq!((views.n(), Views::default().n()), (10, 1));
        let distinct: BTreeSet<Vec<u32>> =
            (0..10).map(|i| view(&[FLIP, SHIFT], i).iter().map(|x| x.to_bits()).collect()).collect();
        assert_eq!(distinct.len(), 10);
        // The mirror image, moved up and to the left.
        assert_eq!(view(&[FLIP, SHIFT], 3), [5.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(view(&[], 0), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_place() {
        let misfits = |operations: &[Operation], shape| {
            let views = Views { operations: operations.to_vec() };
            views.misfits(shape).into_iter().map(|misfit| (misfit.at, misfit.message)).collect::<Vec<_>>()
        };
        let image = Some(SampleShape::Image(SHAPE));
        assert_eq!(misfits(&[FLIP, SHIFT], image), []);
        let flat = "`flip` needs an image with a height and a width, got 7 flat features".to_owned();
        assert_eq!(misfits(&[FLIP], Some(SampleShape::Flat(7))), [(0, flat)]);
        let far = Operation::Shift { pixels: 2, fill: Fill::Edge };
        let message = "`shift` by 2 pixels moves a 3x2x1 image out of sight".to_owned();
        assert_eq!(misfits(&[FLIP, far], image), [(1, message)]);
        let message = "`flip` stands in `predict` twice, expected once".to_owned();
        assert_eq!(misfits(&[FLIP, FLIP], None), [(1, message)]);
    }
}
