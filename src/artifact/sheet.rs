//! A sheet of small pictures as one PNG: the first components of PCA, say.

use std::io::{self, Cursor};

use serde::{Deserialize, Serialize};

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use crate::tensor::ImageShape;

/// Pictures beside one another.
const COLUMNS: usize = 8;
/// A picture's shorter side is enlarged by a whole number to at least so many pixels, if it is smaller.
const LEAST_SIDE: usize = 32;
/// White pixels between pictures.
const GAP: usize = 2;

/// Draws `pictures`, `[n, height, width, channels]`, eight in a row, each with 0 as middle grey and its value of
/// largest magnitude as black or white. With 3 channels in colour, else the first channel in grey.
///
/// # Errors
/// If there is no picture, or the sheet is too large for the format.
pub fn sheet(pictures: &[f32], shape: ImageShape) -> io::Result<Vec<u8>> {
    let n = pictures.len() / shape.len().max(1);
    if n == 0 {
        return Err(io::Error::other("there is no picture to draw"));
    }
    let zoom = LEAST_SIDE.div_ceil(shape.height.min(shape.width));
    let (tall, wide) = (shape.height * zoom + GAP, shape.width * zoom + GAP);
    let (height, width) = (n.div_ceil(COLUMNS) * tall + GAP, n.min(COLUMNS) * wide + GAP);
    let depth = if shape.channels == 3 { 3 } else { 1 };
    let mut sheet = vec![255u8; height * width * depth];
    for (i, picture) in pictures.chunks_exact(shape.len()).enumerate() {
        let largest = picture.iter().fold(f32::MIN_POSITIVE, |max, x| max.max(x.abs()));
        let (top, left) = (GAP + i / COLUMNS * tall, GAP + i % COLUMNS * wide);
        for y in 0..shape.height * zoom {
            for x in 0..shape.width * zoom {
                let pixel = &picture[(y / zoom * shape.width + x / zoom) * shape.channels..];
                let at = ((top + y) * width + left + x) * depth;
                for (out, value) in sheet[at..at + depth].iter_mut().zip(pixel) {
                    // The conversion cuts off what is left after the point.
                    *out = (128.0 + 127.0 * (value / largest)) as u8;
                }
            }
        }
    }
    let color = if depth == 3 { ExtendedColorType::Rgb8 } else { ExtendedColorType::L8 };
    png(&sheet, width, height, color)
}

/// Draws rows of pictures, each `[side, side, 3]` of bytes, as they are.
///
/// # Errors
/// If there is no picture, or the sheet is too large for the format.
pub fn rows(rows: &[Vec<Vec<u8>>], side: usize) -> io::Result<Vec<u8>> {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    if n_columns == 0 {
        return Err(io::Error::other("there is no picture to draw"));
    }
    let (height, width) = (rows.len() * (side + GAP) + GAP, n_columns * (side + GAP) + GAP);
    let mut sheet = vec![255u8; height * width * 3];
    for (i, row) in rows.iter().enumerate() {
        for (k, picture) in row.iter().enumerate() {
            for (y, line) in picture.chunks_exact(side * 3).enumerate() {
                let at = ((GAP + i * (side + GAP) + y) * width + GAP + k * (side + GAP)) * 3;
                sheet[at..at + line.len()].copy_from_slice(line);
            }
        }
    }
    png(&sheet, width, height, ExtendedColorType::Rgb8)
}

/// How a sheet of tiles of one size is divided: row by row, [`GAP`] white pixels around each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiles {
    /// The width of a tile in pixels.
    pub width: usize,
    /// Its height.
    pub height: usize,
    /// Tiles in a row.
    pub columns: usize,
}

impl Tiles {
    /// Draws tiles, each `[height, width, 3]` of bytes; `None` leaves a place empty.
    ///
    /// # Errors
    /// If there is no tile, or the sheet is too large for the format.
    pub fn draw(self, tiles: &[Option<Vec<u8>>]) -> io::Result<Vec<u8>> {
        let columns = self.columns.max(1);
        if tiles.is_empty() {
            return Err(io::Error::other("there is no picture to draw"));
        }
        let (tall, wide) = (self.height + GAP, self.width + GAP);
        let (height, width) = (tiles.len().div_ceil(columns) * tall + GAP, columns * wide + GAP);
        let mut sheet = vec![255u8; height * width * 3];
        for (i, tile) in tiles.iter().enumerate() {
            let (top, left) = (GAP + i / columns * tall, GAP + i % columns * wide);
            for (y, line) in tile.iter().flat_map(|tile| tile.chunks_exact(self.width * 3)).enumerate() {
                let at = ((top + y) * width + left) * 3;
                sheet[at..at + line.len()].copy_from_slice(line);
            }
        }
        png(&sheet, width, height, ExtendedColorType::Rgb8)
    }

    /// The first `n` tiles of such a sheet, each a PNG of its own.
    ///
    /// # Errors
    /// If it is no such sheet.
    pub fn cut(self, sheet: &[u8], n: usize) -> io::Result<Vec<Vec<u8>>> {
        let columns = self.columns.max(1);
        let place = |i: usize| (GAP + i % columns * (self.width + GAP), GAP + i / columns * (self.height + GAP));
        cut(sheet, (0..n).map(|i| (place(i), (self.width, self.height))))
    }

    /// The first `n` bands of so many rows each of such a sheet, each a PNG of its own.
    ///
    /// # Errors
    /// If it is no such sheet.
    pub fn bands(self, sheet: &[u8], rows: usize, n: usize) -> io::Result<Vec<Vec<u8>>> {
        let tall = rows * (self.height + GAP);
        let size = (self.columns.max(1) * (self.width + GAP) + GAP, tall + GAP);
        cut(sheet, (0..n).map(|i| ((0, i * tall), size)))
    }
}

/// Parts of a picture: left, top, width, height.
fn cut(sheet: &[u8], parts: impl Iterator<Item = ((usize, usize), (usize, usize))>) -> io::Result<Vec<Vec<u8>>> {
    let sheet = image::load_from_memory_with_format(sheet, image::ImageFormat::Png).map_err(io::Error::other)?;
    let sheet = sheet.into_rgb8();
    let (wide, tall) = (sheet.width() as usize, sheet.height() as usize);
    let part = |((left, top), (width, height)): ((usize, usize), (usize, usize))| {
        if left + width > wide || top + height > tall {
            return Err(io::Error::other("the sheet is smaller than what is on it"));
        }
        let lines = (top..top + height).flat_map(|y| {
            let start = (y * wide + left) * 3;
            sheet.as_raw()[start..start + width * 3].iter().copied()
        });
        png(&lines.collect::<Vec<u8>>(), width, height, ExtendedColorType::Rgb8)
    };
    parts.map(part).collect()
}

fn png(pixels: &[u8], width: usize, height: usize, color: ExtendedColorType) -> io::Result<Vec<u8>> {
    let (Ok(height), Ok(width)) = (u32::try_from(height), u32::try_from(width)) else {
        return Err(io::Error::other("the pictures are too large for a sheet"));
    };
    let mut png = Cursor::new(Vec::new());
    PngEncoder::new(&mut png).write_image(pixels, width, height, color).map_err(io::Error::other)?;
    Ok(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_picture_stands_in_its_place_with_its_own_contrast() {
        let shape = ImageShape { height: 2, width: 3, channels: 1 };
        let mut pictures = vec![0.0; 9 * 6];
        pictures[0] = 0.5;
        pictures[1] = -0.25;
        pictures[8 * 6 + 5] = -4.0;
        let png = sheet(&pictures, shape).unwrap();
        let drawn = image::load_from_memory(&png).unwrap().to_luma8();
        assert_eq!(drawn.dimensions(), (8 * (3 * 16 + 2) + 2, 2 * (2 * 16 + 2) + 2));
        let at = |x: u32, y: u32| drawn.get_pixel(x, y).0[0];
        assert_eq!([at(0, 0), at(2, 2), at(17, 17), at(18, 2), at(34, 2)], [255, 255, 255, 64, 128]);
        // The last one, at the left of the second row.
        assert_eq!([at(2 + 47, 36 + 31), at(2, 36), at(52, 36)], [1, 128, 255]);
        assert_eq!(sheet(&pictures, shape).unwrap(), png);
        let colours = ImageShape { height: 1, width: 1, channels: 3 };
        let drawn = image::load_from_memory(&sheet(&[1.0, 0.0, -1.0], colours).unwrap()).unwrap().to_rgb8();
        assert_eq!(drawn.get_pixel(9, 9).0, [255, 128, 1]);
        assert!(sheet(&[], colours).is_err());
    }

    #[test]
    fn tiles_are_cut_out_as_they_were_drawn() {
        let tiles = Tiles { width: 3, height: 2, columns: 2 };
        let tile = |value: u8| Some((0..18).map(|i| value + i).collect::<Vec<u8>>());
        let sheet = tiles.draw(&[tile(1), tile(50), None, tile(100)]).unwrap();
        let cut = tiles.cut(&sheet, 4).unwrap();
        let pixels = |png: &[u8]| image::load_from_memory(png).unwrap().to_rgb8().into_raw();
        assert_eq!(pixels(&cut[0]), tile(1).unwrap());
        assert_eq!(pixels(&cut[3]), tile(100).unwrap());
        assert_eq!(pixels(&cut[2]), [255; 18]);
        let bands = tiles.bands(&sheet, 1, 2).unwrap();
        assert_eq!(image::load_from_memory(&bands[1]).unwrap().to_rgb8().dimensions(), (2 * 5 + 2, 2 + 2 * 2));
        assert!(tiles.cut(&sheet, 7).is_err() && tiles.cut(b"no sheet", 1).is_err());
        assert!(tiles.draw(&[]).is_err());
    }

    #[test]
    fn rows_stand_below_one_another_and_may_be_short() {
        let png = rows(&[vec![vec![7; 12], vec![8; 12]], vec![vec![9; 12]]], 2).unwrap();
        let drawn = image::load_from_memory(&png).unwrap().to_rgb8();
        assert_eq!(drawn.dimensions(), (10, 10));
        let at = |x: u32, y: u32| drawn.get_pixel(x, y).0[0];
        assert_eq!([at(2, 2), at(6, 3), at(3, 7), at(6, 6), at(4, 2), at(0, 0)], [7, 8, 9, 255, 255, 255]);
        assert!(rows(&[Vec::new()], 2).is_err());
    }
}
