//! What augmentation must keep: addresses, ranges, and what each operation acts on.

use std::sync::Arc;

use super::*;
use crate::config::{Log, Span};
use crate::data::fit_set::first_rows;
use crate::data::samples::Samples;
use crate::data::transform::{Affine, Fitted, Per};

const SHAPE: ImageShape = ImageShape { height: 6, width: 5, channels: 3 };

#[derive(Debug)]
struct Pixels(Vec<u8>);

impl Samples for Pixels {
    fn n_samples(&self) -> usize {
        self.0.len() / SHAPE.len()
    }
    fn shape(&self) -> SampleShape {
        SampleShape::Image(SHAPE)
    }
    fn values(&self, i: usize) -> Values<'_> {
        Values::U8(&self.0[i * SHAPE.len()..][..SHAPE.len()])
    }
}

/// Twenty images, of pixels from 1 to 255, under `(x - 100) * 0.5`.
fn feed() -> Feed {
    let pixels = (0..20 * SHAPE.len()).map(|i| (i * i % 255) as u8 + 1).collect();
    let affine = Affine { per: Per::Global, subtract: vec![100.0], multiply: vec![0.5], add: vec![0.0] };
    Feed::new(Arc::new(Pixels(pixels)), vec![Fitted::Affine(affine)])
}

fn plain(feed: &Feed, row: u32) -> Vec<f32> {
    let mut out = vec![0.0; SHAPE.len()];
    feed.load(&[row], &mut out);
    out
}

fn augmenter(operations: &[Operation], epoch: u64) -> Augmenter {
    let augmentation = Augmentation { operations: operations.to_vec() };
    let mut augmenter = Augmenter::new(&augmentation, SampleShape::Image(SHAPE));
    augmenter.begin(|i| Stream::new(1, "augment", &[("epoch", epoch), ("operation", i)]));
    augmenter
}

fn view(operations: &[Operation], epoch: u64, row: u32, turn: u32) -> Vec<f32> {
    let mut out = vec![f32::NAN; SHAPE.len()];
    augmenter(operations, epoch).load(&feed(), first_rows(20)[row as usize], turn, &mut out);
    out
}

fn sorted(mut values: Vec<f32>) -> Vec<f32> {
    values.sort_unstable_by(f32::total_cmp);
    values
}

fn all() -> [Operation; 6] {
    [
        Operation::Flip { direction: Direction::Both, probability: 0.5 },
        Operation::Crop { padding: 2, fill: Fill::Reflect },
        Operation::Shift { fraction: 0.3, fill: Fill::Edge },
        Operation::Rotate { degrees: 30.0, fill: Fill::Black },
        Operation::Brightness { factor: 0.5 },
        Operation::Cutout { size: 3 },
    ]
}

#[test]
fn a_view_depends_on_its_sample_epoch_and_turn_and_on_nothing_else() {
    let operations = all();
    let expected = view(&operations, 3, 7, 1);
    let (feed, mut augmenter) = (feed(), augmenter(&operations, 3));
    let mut out = vec![0.0; SHAPE.len()];
    for row in [19, 2, 7] {
        augmenter.load(&feed, first_rows(20)[row], 1, &mut out);
    }
    assert_eq!(out, expected, "whatever was loaded before");
    for (epoch, row, turn) in [(4, 7, 1), (3, 8, 1), (3, 7, 0)] {
        assert_ne!(view(&operations, epoch, row, turn), expected);
    }
}

#[test]
fn each_operation_changes_what_it_should_and_where() {
    let feed = feed();
    let (mut flips, mut holes) = (0, 0);
    for row in 0..20 {
        let original = plain(&feed, row);
        // A mirrored image has the same pixels, whose mean is that of the place where they are now.
        let flipped = view(&[Operation::Flip { direction: Direction::Horizontal, probability: 0.5 }], 1, row, 0);
        flips += usize::from(flipped != original);
        assert_eq!(sorted(flipped), sorted(original.clone()));
        // What is moved in is black, so -50 after the transforms, and nothing else is new.
        let cropped = view(&[Operation::Crop { padding: 3, fill: Fill::Black }], 1, row, 0);
        assert!(cropped.iter().all(|x| *x == -50.0 || original.contains(x)));
        let shifted = view(&[Operation::Shift { fraction: 0.0, fill: Fill::Black }], 1, row, 0);
        let turned = view(&[Operation::Rotate { degrees: 0.0, fill: Fill::Black }], 1, row, 0);
        assert_eq!((&shifted, &turned), (&original, &original));
        // A cut out pixel is the mean, so 0 after the transforms.
        let cut = view(&[Operation::Cutout { size: 3 }], 1, row, 0);
        let n_cut = cut.iter().zip(&original).filter(|(cut, x)| cut != x).count();
        assert!(cut.iter().zip(&original).all(|(cut, x)| cut == x || *cut == 0.0));
        assert!((1..=9 * 3).contains(&n_cut), "{n_cut} values cut out");
        holes += n_cut;
        // Brightness is one factor for all pixels, which are cut off at white.
        let bright = view(&[Operation::Brightness { factor: 1.0 }], 1, row, 0);
        let pixel = |x: f32| x * 2.0 + 100.0;
        let darkest = (0..original.len()).min_by(|&i, &j| original[i].total_cmp(&original[j])).unwrap();
        let factor = pixel(bright[darkest]) / pixel(original[darkest]);
        for (bright, x) in bright.iter().zip(&original) {
            assert!((pixel(*bright) - (pixel(*x) * factor).min(255.0)).abs() < 1e-3, "{bright} of {x}");
        }
    }
    assert!((5..=15).contains(&flips), "{flips} of 20 are mirrored");
    assert!(holes > 20 * 9, "holes of {holes} values");
}

#[test]
fn mixing_keeps_the_total_of_a_target_and_lies_between_two_samples() {
    let feed = feed();
    let mut augmenter = augmenter(&[Operation::Mixup { alpha: 1.0 }], 1);
    let rows = first_rows(20);
    let mut n_soft = 0;
    for row in 0..20 {
        let mut sample = plain(&feed, row);
        let mut target = [f32::NAN; 4];
        let label = |row: TrainingRow| row.index() as u32 % 4;
        augmenter.mix(&feed, (rows[row as usize], 0), &rows, label, &mut sample, &mut target);
        assert!((target.iter().sum::<f32>() - 1.0).abs() < 1e-6 && target.iter().all(|x| (0.0..=1.0).contains(x)));
        let weight = target[row as usize % 4];
        n_soft += usize::from(weight < 1.0);
        let is_between = |other: u32| {
            let (a, b) = (plain(&feed, row), plain(&feed, other));
            other % 4 != row % 4
                && sample
                    .iter()
                    .zip(a.iter().zip(&b))
                    .all(|(x, (a, b))| (x - (weight * a + (1.0 - weight) * b)).abs() < 1e-3)
        };
        assert!(weight == 1.0 || (0..20).any(is_between), "row {row}");
    }
    assert!(n_soft > 10);
}

#[test]
fn what_cannot_be_is_told() {
    let operations = vec![
        Operation::Crop { padding: 5, fill: Fill::Black },
        Operation::Mixup { alpha: 0.2 },
        Operation::Cutout { size: 10 },
        Operation::Mixup { alpha: 0.4 },
    ];
    let places = |shape| {
        let augmentation = Augmentation { operations: operations.clone() };
        augmentation.misfits(shape).iter().map(|misfit| misfit.at).collect::<Vec<_>>()
    };
    assert_eq!(places(Some(SampleShape::Image(SHAPE))), [0, 2, 3]);
    assert_eq!(places(Some(SampleShape::Flat(7))), [0, 2, 3]);
    assert_eq!(places(None), [3]);
}

#[test]
fn every_word_is_read() {
    for choice in CHOICES {
        let mut log = Log::default();
        let mut section = Section::new(None, Span::default(), "", &mut log);
        let operation = (choice.read)(&mut section);
        assert_eq!(operation.word(), choice.word);
        assert_eq!(log.problems, []);
    }
}
