//! Colours that change: brightness, contrast, saturation and hue, as torchvision defines them for float tensors. Images are
//! `[height, width, channels]`, f32.

use crate::tensor::ImageShape;

/// How far each property may move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter {
    /// Pixels are multiplied by a number within `1 ± brightness`. At least 0; a factor below 0 is 0.
    pub brightness: f64,
    /// Pixels are moved from the mean grey of the image, times a number within `1 ± contrast`.
    pub contrast: f64,
    /// Pixels are moved from their own grey, times a number within `1 ± saturation`.
    pub saturation: f64,
    /// The hue is turned by a share of the circle within `±hue`. In `[0, 0.5]`.
    pub hue: f64,
}

/// Shares of red, green and blue in grey, as torchvision has them.
const GREY: [f32; 3] = [0.2989, 0.587, 0.114];

fn grey(pixel: [f32; 3]) -> f32 {
    GREY[0] * pixel[0] + GREY[1] * pixel[1] + GREY[2] * pixel[2]
}

impl Jitter {
    /// Draws a view: `draws` are 7 numbers of `[0, 1)`, the four strengths and the order of the four steps. Values are cut to
    /// `0..=most` after each step, where there is such a range. Saturation and hue of one channel are left alone.
    pub(super) fn apply(self, draws: [f64; 7], shape: ImageShape, most: Option<f32>, image: &mut [f32]) {
        let factor = |strength: f64, u: f64| {
            let least = (1.0 - strength).max(0.0);
            (least + u * (1.0 + strength - least)) as f32
        };
        let turn = ((2.0 * draws[3] - 1.0) * self.hue) as f32;
        // Fisher and Yates.
        let mut order = [0, 1, 2, 3];
        for (i, u) in [(3, draws[4]), (2, draws[5]), (1, draws[6])] {
            order.swap(i, (u * (i + 1) as f64) as usize);
        }
        for step in order {
            match step {
                0 if self.brightness > 0.0 => brighten(factor(self.brightness, draws[0]), most, image),
                1 if self.contrast > 0.0 => {
                    let mean = mean_grey(shape.channels, image);
                    blend_with(mean, factor(self.contrast, draws[1]), most, image);
                }
                2 if self.saturation > 0.0 && shape.channels == 3 => {
                    saturate(factor(self.saturation, draws[2]), most, image);
                }
                3 if self.hue > 0.0 && shape.channels == 3 => turn_hue(turn, image),
                _ => {}
            }
        }
    }
}

fn cut(x: f32, most: Option<f32>) -> f32 {
    most.map_or(x, |most| x.clamp(0.0, most))
}

fn brighten(factor: f32, most: Option<f32>, image: &mut [f32]) {
    image.iter_mut().for_each(|x| *x = cut(*x * factor, most));
}

/// The mean grey of an image, summed in f64 in sixteen lanes.
fn mean_grey(channels: usize, image: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0f64; LANES];
    let mut add = |i: usize, grey: f32| lanes[i % LANES] += f64::from(grey);
    let n = image.len() / channels;
    match channels {
        3 => image.as_chunks::<3>().0.iter().enumerate().for_each(|(i, &pixel)| add(i, grey(pixel))),
        _ => image.chunks_exact(channels).enumerate().for_each(|(i, pixel)| add(i, pixel[0])),
    }
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    (lanes[0] / n as f64) as f32
}

/// `factor * x + (1 - factor) * other` for all values.
fn blend_with(other: f32, factor: f32, most: Option<f32>, image: &mut [f32]) {
    let rest = (1.0 - factor) * other;
    image.iter_mut().for_each(|x| *x = cut(factor * *x + rest, most));
}

fn saturate(factor: f32, most: Option<f32>, image: &mut [f32]) {
    for pixel in image.as_chunks_mut::<3>().0 {
        let rest = (1.0 - factor) * grey(*pixel);
        pixel.iter_mut().for_each(|x| *x = cut(factor * *x + rest, most));
    }
}

/// Turns the hue by a share of the circle. The largest and the smallest value of a pixel stay what they are (in HSV: value, and
/// value times saturation), so that no range is needed.
fn turn_hue(turn: f32, image: &mut [f32]) {
    for pixel in image.as_chunks_mut::<3>().0 {
        let [red, green, blue] = *pixel;
        let (most, least) = (red.max(green).max(blue), red.min(green).min(blue));
        let range = most - least;
        if range <= 0.0 {
            continue;
        }
        // In sixths of the circle, from red.
        let hue = if most == red {
            (green - blue) / range
        } else if most == green {
            2.0 + (blue - red) / range
        } else {
            4.0 + (red - green) / range
        };
        let hue = hue + 6.0 * turn;
        // Within -1 - 3 and 5 + 3.
        let hue = if hue < 0.0 { hue + 6.0 } else { hue };
        let hue = if hue >= 6.0 { hue - 6.0 } else { hue };
        let sixth = hue as u32;
        let share = hue - sixth as f32;
        let (rising, falling) = (least + range * share, most - range * share);
        *pixel = match sixth {
            0 => [most, rising, least],
            1 => [falling, most, least],
            2 => [least, most, rising],
            3 => [least, falling, most],
            4 => [rising, least, most],
            _ => [most, least, falling],
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_what_it_is_called() {
        let mut image = [10.0, 100.0, 200.0];
        brighten(1.5, Some(255.0), &mut image);
        assert_eq!(image, [15.0, 150.0, 255.0]);
        blend_with(50.0, 0.5, Some(255.0), &mut image);
        assert_eq!(image, [32.5, 100.0, 152.5]);
        // Without a colour only grey is left, and grey has none to gain.
        let mut image = [255.0, 0.0, 0.0, 7.0, 7.0, 7.0];
        saturate(0.0, Some(255.0), &mut image);
        assert!((image[0] - 255.0 * 0.2989).abs() < 1e-3 && image[0] == image[1] && image[1] == image[2]);
        saturate(1.9, Some(255.0), &mut image);
        assert!((image[3] - 7.0).abs() < 1e-2, "{image:?}");
        // Red, green, blue, and back by any whole turn.
        let mut image = [200.0, 20.0, 20.0];
        turn_hue(1.0 / 3.0, &mut image);
        assert_eq!(image.map(f32::round), [20.0, 200.0, 20.0]);
        turn_hue(-2.0 / 3.0 + 1.0 / 6.0, &mut image);
        assert_eq!(image.map(f32::round), [200.0, 20.0, 200.0]);
        let mut image = [-3.0, 4.0, 0.5];
        turn_hue(0.25, &mut image);
        turn_hue(0.25, &mut image);
        turn_hue(0.5, &mut image);
        assert!(image.iter().zip([-3.0, 4.0, 0.5]).all(|(x, y)| (x - y).abs() < 1e-4), "{image:?}");
        assert_eq!(mean_grey(1, &[1.0, 2.0, 6.0]), 3.0);
        assert!((mean_grey(3, &[100.0, 100.0, 100.0, 0.0, 0.0, 0.0]) - 50.0).abs() < 0.01);
    }

    /// `tests/reference/check_augment.py` compares the definitions with torchvision; these numbers are torchvision's.
    #[test]
    fn pixels_are_those_of_torchvision() {
        let image: Vec<f32> = (0..60).map(|i| (i * i % 255 + 1) as f32).collect();
        let near = |change: &dyn Fn(&mut [f32]), expected: [f32; 6]| {
            let mut image = image.clone();
            change(&mut image);
            for (place, expected) in [0, 1, 2, 31, 45, 59].into_iter().zip(expected) {
                assert!((image[place] - expected).abs() < 2e-3, "{place}: {} for {expected}", image[place]);
            }
        };
        let contrast = |image: &mut [f32]| blend_with(mean_grey(3, image), 1.5, Some(255.0), image);
        near(&contrast, [0.0, 0.0, 0.0, 242.477, 255.0, 197.477]);
        near(&|image| saturate(0.4, Some(255.0), image), [1.626, 2.026, 3.226, 172.916, 178.368, 129.907]);
        near(&|image| turn_hue(0.2, image), [4.8, 1.0, 5.0, 197.0, 241.0, 50.0]);
        near(&|image| turn_hue(-0.3, image), [1.2, 5.0, 1.0, 5.0, 77.0, 190.0]);
    }

    #[test]
    fn order_and_strengths_are_drawn() {
        let shape = ImageShape { height: 1, width: 1, channels: 3 };
        let jitter = Jitter { brightness: 3.0, contrast: 0.9, saturation: 0.9, hue: 0.4 };
        let view = |draws: [f64; 7]| {
            let mut image = [100.0, 150.0, 20.0];
            jitter.apply(draws, shape, Some(255.0), &mut image);
            image
        };
        let one = [0.9, 0.3, 0.8, 0.2, 0.1, 0.4, 0.7];
        for i in 0..7 {
            let mut other = one;
            other[i] = 1.0 - other[i] * 0.9;
            // The order of the first two of those that are left may not matter.
            assert!(view(one) != view(other) || i > 4, "draw {i}");
        }
        // A factor below 0 is 0: `1 - brightness` is not the least.
        let dark = Jitter { brightness: 3.0, contrast: 0.0, saturation: 0.0, hue: 0.0 };
        let mut image = [9.0; 3];
        dark.apply([0.0; 7], shape, Some(255.0), &mut image);
        assert_eq!(image, [0.0; 3]);
        let mut image = [9.0; 3];
        dark.apply([0.5; 7], shape, None, &mut image);
        assert_eq!(image, [18.0; 3]);
    }
}
