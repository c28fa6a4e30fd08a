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

fn all() -> [Operation; 9] {
    [
        Operation::ColorJitter(Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 }),
        Operation::Zoom { scale: [0.3, 0.9], ratio: [0.5, 2.0] },
        Operation::Perspective { distortion: 0.5, probability: 1.0, fill: Fill::Edge },
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

/// What holds of draws, over many views.
#[test]
fn parts_and_corners_are_drawn_as_they_should_be() {
    let stream = Stream::new(3, "test", &[]);
    let shape = ImageShape { height: 60, width: 40, channels: 1 };
    let n = 4000;
    let parts: Vec<Part> = (0..n).map(|i| draw_part(shape, [0.2, 0.5], [0.5, 2.0], &stream, i * DRAWS)).collect();
    let (mut areas, mut tops, mut lefts) = (0.0, 0.0, 0.0);
    for part in &parts {
        assert!(part.top + part.height <= 60 && part.left + part.width <= 40, "{part:?}");
        let (area, ratio) = ((part.height * part.width) as f64 / 2400.0, part.width as f64 / part.height as f64);
        assert!((0.17..=0.53).contains(&area) && (0.45..=2.2).contains(&ratio), "{part:?}");
        areas += area;
        tops += part.top as f64 / (60 - part.height).max(1) as f64;
        lefts += part.left as f64 / (40 - part.width).max(1) as f64;
    }
    // Wide parts of a large area do not fit, so that the mean area is a little below the middle of the range.
    let mean = |sum: f64| sum / n as f64;
    assert!((0.31..0.36).contains(&mean(areas)), "{}", mean(areas));
    assert!((mean(tops) - 0.5).abs() < 0.03 && (mean(lefts) - 0.5).abs() < 0.03);
    // What cannot fit is the largest part in the middle.
    let whole = |ratio| draw_part(shape, [1.0, 1.0], ratio, &stream, 0);
    assert_eq!(whole([2.0, 2.0]), Part { top: 20, left: 0, height: 20, width: 40 });
    assert_eq!(whole([0.25, 0.25]), Part { top: 0, left: 12, height: 60, width: 15 });
    let corners: Vec<geometry::Corners> = (0..n).map(|i| draw_corners(shape, 0.5, &stream, i * DRAWS)).collect();
    // 0..=10 across, 0..=15 down, from each corner.
    for (corner, (x, y)) in [(0.0, 0.0), (39.0, 0.0), (39.0, 59.0), (0.0, 59.0)].into_iter().enumerate() {
        let moves: Vec<(f64, f64)> =
            corners.iter().map(|corners| ((corners[corner].0 - x).abs(), (corners[corner].1 - y).abs())).collect();
        assert!(moves.iter().all(|(across, down)| *across <= 10.0 && *down <= 15.0));
        let sums = moves.iter().fold((0.0, 0.0), |sums, one| (sums.0 + one.0, sums.1 + one.1));
        assert!((mean(sums.0) - 5.0).abs() < 0.25 && (mean(sums.1) - 7.5).abs() < 0.4, "{corner}: {sums:?}");
    }
}

#[test]
fn numbers_of_16_bits_keep_their_range_and_one_channel_its_colour() {
    #[derive(Debug)]
    struct Deep;
    const GREY: ImageShape = ImageShape { height: 6, width: 5, channels: 1 };
    impl Samples for Deep {
        fn n_samples(&self) -> usize {
            1
        }
        fn shape(&self) -> SampleShape {
            SampleShape::Image(GREY)
        }
        fn values(&self, _: usize) -> Values<'_> {
            Values::U16(&[[0, 255]; 30])
        }
    }
    let load = |operation: Operation| {
        let augmentation = Augmentation { operations: vec![operation] };
        let mut augmenter = Augmenter::new(&augmentation, SampleShape::Image(GREY));
        augmenter.begin(|i| Stream::new(1, "augment", &[("operation", i)]));
        let mut out = vec![f32::NAN; 30];
        augmenter.load(&Feed::new(Arc::new(Deep), Vec::new()), first_rows(1)[0], 0, &mut out);
        out
    };
    let still = Jitter { brightness: 0.0, contrast: 0.0, saturation: 3.0, hue: 0.5 };
    assert_eq!(load(Operation::ColorJitter(still)), [65280.0; 30]);
    let bright = (0..8).map(|i| f64::from(i) / 4.0).map(|brightness| {
        load(Operation::ColorJitter(Jitter { brightness, contrast: 0.0, saturation: 0.0, hue: 0.0 }))[0]
    });
    assert!(bright.clone().all(|x| (0.0..=65535.0).contains(&x)) && bright.clone().any(|x| x > 255.0 && x != 65280.0));
    for operation in &all()[1..3] {
        let view = load(*operation);
        assert!(view.iter().all(|x| (x - 65280.0).abs() < 0.1), "{operation:?}: {view:?}");
    }
}

#[test]
fn wrong_ranges_are_told() {
    for (keys, expected) in [
        ("scale = [0.9, 0.5]", "`scale` goes from 0.9 to 0.5, expected the smaller number first"),
        ("scale = [0, 0.5]", "`scale` expects two numbers, from and to, each a share above 0, at most 1, got a list"),
        ("ratio = 2", "`ratio` expects two numbers, from and to, each a number above 0, got `2`"),
        ("ratio = [1, 2, 3]", "`ratio` expects two numbers, from and to, each a number above 0, got a list"),
    ] {
        let text = format!("{{ augment = [{{ zoom = {{ {keys} }} }}] }}");
        let Some(Value::Table(table)) = crate::config::parse(&text) else { panic!("{text}") };
        let mut log = Log::default();
        let mut section = Section::new(Some(&table), Span::default(), "", &mut log);
        Augmentation::read(&mut section);
        assert_eq!(log.problems[0].message, expected);
    }
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
    let jitter = Jitter { brightness: 0.1, contrast: 0.0, saturation: 0.0, hue: 0.0 };
    let augmentation = Augmentation { operations: vec![Operation::ColorJitter(jitter)] };
    for (channels, n) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        let shape = ImageShape { channels, ..SHAPE };
        assert_eq!(augmentation.misfits(Some(SampleShape::Image(shape))).len(), n, "{channels} channels");
    }
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
