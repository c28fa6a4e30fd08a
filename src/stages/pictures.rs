//! Pictures of images for a report, as tasks of their own (`Part::Pictures`): what learns and what evaluates reads no pixel for
//! them, and a change of them computes nothing else.

use crate::artifact::Sink;
use crate::artifact::dataset::Numbers;
use crate::artifact::gallery::{Gallery, MISTAKES, Mistake, Mistakes, SAMPLES, Samples};
use crate::artifact::sheet::Tiles;
use crate::data::samples::Values;
use crate::stages::StageError;
use crate::tensor::ImageShape;

/// Larger samples are made smaller than this, in pixels.
const MOST_SAMPLE: usize = 48;
/// Larger mistakes are.
const MOST_MISTAKE: usize = 96;
/// Smaller images are enlarged by a whole number, up to this.
const LEAST: usize = 32;
/// Classes on a sheet of samples.
const MOST_CLASSES: usize = 40;
/// Samples of a class on it.
const MOST_OF_CLASS: usize = 8;
/// Pixels of all its tiles, so that a report of it stays small.
const MOST_PIXELS: usize = 320_000;
/// Mistakes on a sheet.
pub(super) const MOST_MISTAKES: usize = 24;

/// How an image becomes a tile: smaller or larger by a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale {
    shape: ImageShape,
    smaller: usize,
    larger: usize,
    /// The value that is drawn as white.
    white: u64,
}

impl Scale {
    /// For images of `shape`; values go up to `largest`. Where that is dark (digits with 17 shades, say), it is drawn as white.
    fn new(shape: ImageShape, most: usize, largest: u8) -> Scale {
        let longest = shape.height.max(shape.width).max(1);
        let smaller = longest.div_ceil(most).max(1);
        let larger = if smaller == 1 { (LEAST / longest).max(1) } else { 1 };
        let white = if (1..128).contains(&largest) { u64::from(largest) } else { 255 };
        Scale { shape, smaller, larger, white }
    }

    /// Width and height of a tile.
    fn size(self) -> (usize, usize) {
        let of = |side: usize| side.div_ceil(self.smaller) * self.larger;
        (of(self.shape.width), of(self.shape.height))
    }

    /// `[height, width, 3]` of the tile: three channels as red, green and blue, of others the first one as grey. `value` gives
    /// a channel of a pixel, `0..=255`.
    fn tile(self, value: impl Fn(usize) -> u8) -> Vec<u8> {
        let ImageShape { height, width, channels } = self.shape;
        let (wide, tall) = self.size();
        let mut tile = Vec::with_capacity(wide * tall * 3);
        for y in 0..tall {
            for x in 0..wide {
                let (top, left) = (y / self.larger * self.smaller, x / self.larger * self.smaller);
                for colour in 0..3 {
                    let channel = if channels == 3 { colour } else { 0 };
                    let (mut sum, mut n) = (0u64, 0u64);
                    for row in top..(top + self.smaller).min(height) {
                        for column in left..(left + self.smaller).min(width) {
                            sum += u64::from(value((row * width + column) * channels + channel));
                            n += 1;
                        }
                    }
                    let n = n.max(1) * self.white;
                    tile.push(((sum * 255 + n / 2) / n).min(255) as u8);
                }
            }
        }
        tile
    }

    /// The largest of `values`, in 256 shades.
    fn largest(values: Values<'_>) -> u8 {
        match values {
            Values::U8(values) => values.iter().copied().max().unwrap_or(0),
            Values::U16(values) => values.iter().map(|value| value[1]).max().unwrap_or(0),
            Values::F32(_) => 255,
        }
    }

    fn tile_of(self, values: Values<'_>) -> Vec<u8> {
        match values {
            Values::U8(values) => self.tile(|i| values[i]),
            // The upper byte.
            Values::U16(values) => self.tile(|i| values[i][1]),
            Values::F32(values) => self.tile(|i| f32::from_le_bytes(values[i]).clamp(0.0, 255.0) as u8),
        }
    }
}

/// How many samples of each class fit on a sheet with so many rows a class.
fn n_of_class(n_classes: usize, rows: usize, scale: Scale) -> usize {
    let (width, height) = scale.size();
    (MOST_PIXELS / (n_classes.max(1) * rows * width * height).max(1)).clamp(1, MOST_OF_CLASS)
}

/// Images of the first classes, evenly spread over those that `is_shown`: for each class their indices.
fn picked(numbers: &Numbers, n: usize, is_shown: impl Fn(usize) -> bool) -> Vec<(u32, Vec<usize>)> {
    let mut by_class: Vec<Vec<usize>> = vec![Vec::new(); numbers.n_classes().min(MOST_CLASSES)];
    for (i, &label) in numbers.labels().iter().enumerate().filter(|(i, _)| is_shown(*i)) {
        if let Some(class) = by_class.get_mut(label as usize) {
            class.push(i);
        }
    }
    let spread = |all: &Vec<usize>| -> Vec<usize> {
        let n = n.min(all.len());
        (0..n).map(|k| all[k * all.len() / n]).collect()
    };
    let classes = by_class.iter().enumerate().filter(|(_, all)| !all.is_empty());
    classes.map(|(class, all)| (class as u32, spread(all))).collect()
}

/// Writes the sheet of samples: the images that `is_shown`, as they are stored (`stored`), and where `changed` says so a
/// second row of each class, of the values that training sees in their place, `0..=255`.
pub(super) fn samples<'v>(
    numbers: &Numbers,
    is_shown: impl Fn(usize) -> bool,
    stored: impl Fn(usize) -> Values<'v>,
    mut changed: Option<&mut dyn FnMut(usize) -> Option<Vec<f32>>>,
    sink: &mut dyn Sink,
) -> Result<Option<Samples>, StageError> {
    let n_classes = numbers.n_classes().min(MOST_CLASSES);
    let rows = if changed.is_some() { 2 } else { 1 };
    let columns = n_of_class(n_classes, rows, Scale::new(numbers.shape(), MOST_SAMPLE, 255));
    let classes = picked(numbers, columns, is_shown);
    if classes.is_empty() {
        return Ok(None);
    }
    let images = classes.iter().flat_map(|(_, images)| images);
    let largest = images.map(|&image| Scale::largest(stored(image))).max().unwrap_or(0);
    let scale = Scale::new(numbers.shape(), MOST_SAMPLE, largest);
    let (width, height) = scale.size();
    let tiles = Tiles { width, height, columns };
    let mut drawn: Vec<Option<Vec<u8>>> = Vec::new();
    for (_, images) in &classes {
        let places = || (0..columns).map(move |k| images.get(k).copied());
        drawn.extend(places().map(|place| Some(scale.tile_of(stored(place?)))));
        if let Some(changed) = &mut changed {
            let one = |place: Option<usize>| {
                let values = changed(place?)?;
                Some(scale.tile(|i| values[i].clamp(0.0, 255.0) as u8))
            };
            drawn.extend(places().map(one));
        }
    }
    sink.put(SAMPLES, &tiles.draw(&drawn)?)?;
    let classes = classes.iter().map(|(class, _)| *class).collect();
    Ok(Some(Samples { tiles, classes, n_classes: numbers.n_classes(), rows }))
}

/// Writes the sheet of mistakes: those of `mistakes`, each with the index of its image.
pub(super) fn mistakes<'v>(
    shape: ImageShape,
    about: (String, String, usize, usize),
    worst: Vec<(usize, Mistake)>,
    stored: impl Fn(usize) -> Values<'v>,
    sink: &mut dyn Sink,
) -> Result<Option<Mistakes>, StageError> {
    if worst.is_empty() {
        return Ok(None);
    }
    let largest = worst.iter().map(|(image, _)| Scale::largest(stored(*image))).max().unwrap_or(0);
    let scale = Scale::new(shape, MOST_MISTAKE, largest);
    let (width, height) = scale.size();
    let tiles = Tiles { width, height, columns: worst.len().min(MOST_OF_CLASS) };
    let drawn: Vec<Option<Vec<u8>>> = worst.iter().map(|(image, _)| Some(scale.tile_of(stored(*image)))).collect();
    sink.put(MISTAKES, &tiles.draw(&drawn)?)?;
    let (model, split, n, n_wrong) = about;
    let worst = worst.into_iter().map(|(_, mistake)| mistake).collect();
    Ok(Some(Mistakes { tiles, model, split, n, n_wrong, worst }))
}

/// White pixels between the images of one tile.
const BETWEEN: usize = 4;

/// Writes the sheet `name`: a tile for each of `tiles`, of its images side by side; as many in each.
pub(super) fn sheet<'v>(
    name: &str,
    shape: ImageShape,
    tiles: &[Vec<usize>],
    stored: impl Fn(usize) -> Values<'v>,
    sink: &mut dyn Sink,
) -> Result<Tiles, StageError> {
    let n = tiles.first().map_or(1, Vec::len);
    let largest = tiles.iter().flatten().map(|&image| Scale::largest(stored(image))).max().unwrap_or(0);
    let scale = Scale::new(shape, MOST_MISTAKE, largest);
    let (width, height) = scale.size();
    let wide = n * width + (n - 1) * BETWEEN;
    let tile = |images: &Vec<usize>| {
        let mut tile = vec![255u8; wide * height * 3];
        for (k, &image) in images.iter().enumerate() {
            let left = k * (width + BETWEEN);
            for (y, line) in scale.tile_of(stored(image)).chunks_exact(width * 3).enumerate() {
                tile[(y * wide + left) * 3..][..line.len()].copy_from_slice(line);
            }
        }
        Some(tile)
    };
    let sheet = Tiles { width: wide, height, columns: tiles.len().min(MOST_OF_CLASS / n) };
    sink.put(name, &sheet.draw(&tiles.iter().map(tile).collect::<Vec<_>>())?)?;
    Ok(sheet)
}

/// Writes what is on the sheets.
pub(super) fn write(
    samples: Option<Samples>,
    mistakes: Option<Mistakes>,
    sink: &mut dyn Sink,
) -> Result<(), StageError> {
    Ok(Gallery::new(samples, mistakes).write(sink)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_images_are_enlarged_and_large_ones_averaged() {
        let shape = |height, width, channels| ImageShape { height, width, channels };
        let scale = Scale::new(shape(8, 8, 1), 48, 255);
        assert_eq!(scale.size(), (32, 32));
        assert_eq!(&scale.tile_of(Values::U8(&[9; 64]))[..6], [9; 6]);
        let scale = Scale::new(shape(100, 50, 3), 48, 255);
        assert_eq!((scale.smaller, scale.size()), (3, (17, 34)));
        let scale = Scale::new(shape(2, 98, 1), 49, 255);
        let values: Vec<u8> = (0..196).map(|i| if i < 98 { 10 } else { 21 }).collect();
        assert_eq!(scale.tile_of(Values::U8(&values)), vec![16; 49 * 3]);
        assert_eq!(Scale::new(shape(1, 1, 2), 48, 255).tile_of(Values::U16(&[[1, 2], [3, 4]])), vec![2; 32 * 32 * 3]);
        // Sixteen shades from black to white; a few more than half of all are left as they are.
        let dim = Scale::new(shape(1, 2, 1), 48, 16);
        assert_eq!(&dim.tile_of(Values::U8(&[16, 8]))[45..51], [255, 255, 255, 128, 128, 128]);
        assert_eq!([Scale::new(shape(1, 1, 1), 48, 128).white, Scale::new(shape(1, 1, 1), 48, 0).white], [255; 2]);
        // 40 classes of photos still fit into a report.
        let photos = Scale::new(shape(224, 224, 3), MOST_SAMPLE, 255);
        let (width, height) = photos.size();
        assert!(40 * 2 * n_of_class(40, 2, photos) * width * height <= MOST_PIXELS.max(40 * 2 * width * height));
    }
}
