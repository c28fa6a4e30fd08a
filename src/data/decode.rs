//! From the bytes of an image file to pixels under a policy: orientation, alpha, channels, size, depth.
//!
//! Decoding never trusts a file: size limits are checked on the header, before anything is allocated, and a decoder that
//! panics is an error of that image. Everything after the decoder is whole-number arithmetic.

use std::cell::Cell;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageFormat};
use serde::{Deserialize, Serialize};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::reader::{Limits, Raw};
use super::resize::Resize;
use crate::config::Section;
use crate::tensor::ImageShape;

/// Added to the revision of whatever decodes: bumped when a codec or a step here gives other bytes.
pub const REVISION: u32 = 1;

/// Bits of one pixel value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Depth {
    /// One byte.
    U8,
    /// Two bytes, little-endian.
    U16,
}

impl Depth {
    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Depth::U8 => 1,
            Depth::U16 => 2,
        }
    }

    /// Bits of one value: 8 or 16.
    pub fn bits(self) -> u32 {
        8 * self.bytes() as u32
    }

    /// The largest value: 255 or 65535.
    pub fn max(self) -> f32 {
        match self {
            Depth::U8 => 255.0,
            Depth::U16 => 65535.0,
        }
    }
}

/// How images are decoded: the part of ingest that a model must repeat to predict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecodePolicy {
    /// `channels`: `keep` (default; all images must agree), `gray` (ITU-R BT.601 luma) or `rgb`.
    pub channels: Channels,
    /// `alpha`: `drop` (default), or blend over `black` or `white`.
    pub alpha: Alpha,
    /// `exif`: `apply` (default) the orientation that a camera wrote, or `ignore` it.
    pub exif: Exif,
    /// `depth`: `keep` (default; all images must agree), `8` or `16` bits per value.
    pub depth: DepthPolicy,
    /// `resize`: `{ width, height, fit, filter }`; without it all images must have one size.
    pub resize: Option<Resize>,
}

/// Which channels images have afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channels {
    /// Those of the file, without alpha.
    #[default]
    Keep,
    /// One.
    Gray,
    /// Three.
    Rgb,
}

/// What happens to transparency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alpha {
    /// The colour as stored, however transparent.
    #[default]
    Drop,
    /// Blended over black.
    Black,
    /// Blended over white.
    White,
}

/// What happens to the orientation in EXIF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exif {
    /// The image is turned as it says.
    #[default]
    Apply,
    /// The image stays as stored.
    Ignore,
}

/// Which depth images have afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DepthPolicy {
    /// That of the file.
    #[default]
    #[serde(rename = "keep")]
    Keep,
    /// Brought to 8 bits.
    #[serde(rename = "8")]
    To8,
    /// Brought to 16 bits.
    #[serde(rename = "16")]
    To16,
}

/// An image after decoding, and what it was before.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Its shape.
    pub shape: ImageShape,
    /// Bits per value.
    pub depth: Depth,
    /// `[height, width, channels]`; 16-bit values little-endian.
    pub pixels: Vec<u8>,
    /// As it was read.
    pub seen: Seen,
}

/// What an image was before any policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The file's format: "png", "jpeg", "idx", ….
    pub format: &'static str,
    /// Width in pixels, as stored.
    pub width: u32,
    /// Height in pixels, as stored.
    pub height: u32,
    /// Channels, alpha included.
    pub channels: u32,
    /// Bits per value.
    pub depth: u32,
}

thread_local! {
    static IS_DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a decoder, where a panic is an error of the image and not ours: a panic hook asks this
/// and stays silent.
pub fn is_decoding() -> bool {
    IS_DECODING.get()
}

impl DecodePolicy {
    /// Reads the keys of `ingest` that say how images are decoded.
    pub fn read(section: &mut Section<'_>) -> DecodePolicy {
        DecodePolicy {
            channels: section.key("channels", "Which channels images have afterwards.", "\"gray\"").word(&[
                ("keep", "Those of the file, without alpha; all images must agree.", Channels::Keep),
                ("gray", "One: ITU-R BT.601 luma.", Channels::Gray),
                ("rgb", "Three.", Channels::Rgb),
            ]),
            alpha: section.key("alpha", "What happens to transparency.", "\"white\"").word(&[
                ("drop", "The colour as stored, however transparent.", Alpha::Drop),
                ("black", "Blended over black.", Alpha::Black),
                ("white", "Blended over white.", Alpha::White),
            ]),
            exif: section.key("exif", "What happens to the orientation that a camera wrote.", "\"ignore\"").word(&[
                ("apply", "The image is turned as it says.", Exif::Apply),
                ("ignore", "The image stays as stored.", Exif::Ignore),
            ]),
            depth: section.key("depth", "Bits per value afterwards.", "\"8\"").word(&[
                ("keep", "Those of the file; all images must agree.", DepthPolicy::Keep),
                ("8", "Brought to 8 bits.", DepthPolicy::To8),
                ("16", "Brought to 16 bits.", DepthPolicy::To16),
            ]),
            resize: section
                .key("resize", "Brings every image to one size.", "{ width = 32, height = 32 }")
                .table(Resize::read),
        }
    }

    /// The shape of images that have the shape `seen` in their source (without alpha).
    pub fn output_shape(&self, seen: ImageShape) -> ImageShape {
        let (width, height) = self.resize.map_or((seen.width, seen.height), |resize| (resize.width, resize.height));
        ImageShape { height, width, channels: self.channels.output(seen.channels) }
    }

    /// The shape of all images, when the policy alone decides it.
    pub fn fixed_shape(&self) -> Option<ImageShape> {
        let resize = self.resize?;
        let channels = match self.channels {
            Channels::Keep => return None,
            Channels::Gray => 1,
            Channels::Rgb => 3,
        };
        Some(ImageShape { height: resize.height, width: resize.width, channels })
    }

    /// Decodes an image file.
    ///
    /// # Errors
    /// The reason, to follow the image's name: it is not an image, truncated, too large, ….
    pub fn decode(&self, bytes: &[u8], limits: &Limits) -> Result<Decoded, String> {
        let (stored, orientation) = guarded(|| open(bytes, limits, self.exif == Exif::Apply))?;
        self.finish(stored, orientation)
    }

    /// Applies the policy to pixels that need no decoding.
    ///
    /// # Errors
    /// The reason, to follow the image's name.
    pub fn apply(&self, raw: Raw) -> Result<Decoded, String> {
        self.finish(raw, Orientation::NoTransforms)
    }

    fn finish(&self, raw: Raw, orientation: Orientation) -> Result<Decoded, String> {
        let Raw { mut shape, mut depth, mut pixels, format } = raw;
        let seen = Seen {
            format,
            width: shape.width as u32,
            height: shape.height as u32,
            channels: shape.channels as u32,
            depth: depth.bits(),
        };
        if orientation != Orientation::NoTransforms {
            (shape, pixels) = oriented(orientation, shape, shape.channels * depth.bytes(), &pixels);
        }
        if matches!(shape.channels, 2 | 4) {
            pixels = match depth {
                Depth::U8 => without_alpha::<1>(&pixels, shape.channels, self.alpha),
                Depth::U16 => without_alpha::<2>(&pixels, shape.channels, self.alpha),
            };
            shape.channels -= 1;
        }
        match (self.channels, shape.channels) {
            (Channels::Gray, 3) => {
                pixels = match depth {
                    Depth::U8 => luma::<1>(&pixels),
                    Depth::U16 => luma::<2>(&pixels),
                };
                shape.channels = 1;
            }
            (Channels::Rgb, 1) => {
                pixels = pixels.chunks_exact(depth.bytes()).flat_map(|v| [v, v, v]).flatten().copied().collect();
                shape.channels = 3;
            }
            _ => {}
        }
        if let Some(resize) = self.resize {
            pixels = resize.apply(shape, depth, pixels);
            (shape.width, shape.height) = (resize.width, resize.height);
        }
        match (self.depth, depth) {
            (DepthPolicy::To8, Depth::U16) => {
                // 65535 = 255 * 257: the nearest of 256 levels.
                let narrow = |v: &[u8; 2]| ((u32::from(u16::from_le_bytes(*v)) + 128) / 257) as u8;
                pixels = pixels.as_chunks().0.iter().map(narrow).collect();
                depth = Depth::U8;
            }
            (DepthPolicy::To16, Depth::U8) => {
                pixels = pixels.iter().flat_map(|&v| [v, v]).collect();
                depth = Depth::U16;
            }
            _ => {}
        }
        Ok(Decoded { shape, depth, pixels, seen })
    }
}

impl Channels {
    fn output(self, seen: usize) -> usize {
        match self {
            Channels::Keep => seen,
            Channels::Gray => 1,
            Channels::Rgb => 3,
        }
    }
}

/// BLAKE3 of an image's shape, depth and values, cut to 16 bytes.
pub fn pixel_digest(shape: ImageShape, depth: Depth, pixels: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    let mut head = [0; 32];
    for (slot, n) in head.chunks_exact_mut(8).zip([shape.height, shape.width, shape.channels, depth.bytes()]) {
        slot.copy_from_slice(&(n as u64).to_le_bytes());
    }
    hasher.update(&head);
    hasher.update(pixels);
    let hash = hasher.finalize();
    let (head, _) = hash.as_bytes().split_at(16);
    head.iter().fold(0, |digest, &byte| digest << 8 | u128::from(byte))
}

/// Decodes the first image of a file as it is stored.
fn open(bytes: &[u8], limits: &Limits, wants_orientation: bool) -> Result<(Raw, Orientation), String> {
    if bytes.is_empty() {
        return Err("is empty".to_owned());
    }
    let format = image::guess_format(bytes).map_err(|_| "is not an image of a known format".to_owned())?;
    let name = format_name(format).ok_or_else(|| {
        format!(
            "is an image of the format {}, which is not supported",
            format.to_mime_type().trim_start_matches("image/")
        )
    })?;
    if format == ImageFormat::Jpeg {
        return open_jpeg(bytes, limits, wants_orientation);
    }
    let mut decoder = decoder(format, bytes).map_err(|e| said(name, e))?;
    let (width, height) = decoder.dimensions();
    limits.check_size(u64::from(width), u64::from(height))?;
    // Room for working buffers of a decoder: a few bytes per pixel beside the output.
    let room = decoder.total_bytes().saturating_mul(4).saturating_add(64 << 20);
    let mut allowed = image::Limits::no_limits();
    allowed.max_alloc = Some(room);
    decoder.set_limits(allowed).map_err(|e| said(name, e))?;
    let (channels, depth) = match decoder.color_type() {
        ColorType::L8 => (1, Depth::U8),
        ColorType::La8 => (2, Depth::U8),
        ColorType::Rgb8 => (3, Depth::U8),
        ColorType::Rgba8 => (4, Depth::U8),
        ColorType::L16 => (1, Depth::U16),
        ColorType::La16 => (2, Depth::U16),
        ColorType::Rgb16 => (3, Depth::U16),
        ColorType::Rgba16 => (4, Depth::U16),
        other => return Err(format!("holds pixels of the type {other:?}, expected 8 or 16 bits per value")),
    };
    let orientation = match wants_orientation {
        true => decoder.orientation().unwrap_or(Orientation::NoTransforms),
        false => Orientation::NoTransforms,
    };
    let shape = ImageShape { height: height as usize, width: width as usize, channels };
    let mut pixels = vec![0; shape.len() * depth.bytes()];
    decoder.read_image(&mut pixels).map_err(|e| said(name, e))?;
    if cfg!(target_endian = "big") && depth == Depth::U16 {
        pixels.chunks_exact_mut(2).for_each(<[u8]>::reverse);
    }
    Ok((Raw { shape, depth, pixels, format: name }, orientation))
}

fn decoder<'a>(format: ImageFormat, bytes: &'a [u8]) -> image::ImageResult<Box<dyn ImageDecoder + 'a>> {
    image::ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map(|d| Box::new(d) as _)
}

/// Decodes a JPEG file with the decoder that `image` wraps, whose headers are then read once and not three times (half the
/// time of a 32x32 image), and which reports damage inside the image that `image` paints grey.
fn open_jpeg(bytes: &[u8], limits: &Limits, wants_orientation: bool) -> Result<(Raw, Orientation), String> {
    let options = DecoderOptions::default().set_max_width(usize::MAX).set_max_height(usize::MAX);
    // Lenient about what stands between headers, as every other decoder is.
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options.set_strict_mode(false));
    decoder.decode_headers().map_err(said_jpeg)?;
    let (width, height) = decoder.dimensions().ok_or("is a corrupt jpeg file: it has no size")?;
    limits.check_size(width as u64, height as u64)?;
    let (colours, channels) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (ColorSpace::Luma, 1),
        _ => (ColorSpace::RGB, 3),
    };
    decoder.set_options(options.set_strict_mode(true).jpeg_set_out_colorspace(colours));
    let shape = ImageShape { height, width, channels };
    let mut pixels = vec![0; shape.len()];
    decoder.decode_into(&mut pixels).map_err(said_jpeg)?;
    let orientation = match decoder.exif().filter(|_| wants_orientation) {
        Some(exif) => Orientation::from_exif_chunk(exif).unwrap_or(Orientation::NoTransforms),
        None => Orientation::NoTransforms,
    };
    Ok((Raw { shape, depth: Depth::U8, pixels, format: "jpeg" }, orientation))
}

fn said_jpeg(error: DecodeErrors) -> String {
    match error {
        DecodeErrors::ExhaustedData => "is a truncated jpeg file".to_owned(),
        other => said_text("jpeg", &format!("{other:?}")),
    }
}

/// The closed list of formats.
fn format_name(format: ImageFormat) -> Option<&'static str> {
    Some(match format {
        ImageFormat::Png => "png",
        ImageFormat::Jpeg => "jpeg",
        ImageFormat::Gif => "gif",
        ImageFormat::WebP => "webp",
        ImageFormat::Pnm => "pnm",
        ImageFormat::Tiff => "tiff",
        ImageFormat::Bmp => "bmp",
        _ => return None,
    })
}

/// A decoder's error in our words, on one line.
fn said(format: &str, error: image::ImageError) -> String {
    said_text(format, &error.to_string())
}

fn said_text(format: &str, text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ");
    let lower = text.to_lowercase();
    let is_short = [
        "unexpected end",
        "unexpected eof",
        "failed to fill",
        "exhausted",
        "no more bytes",
        "truncated",
        "premature end",
    ];
    if is_short.iter().any(|words| lower.contains(words)) {
        format!("is a truncated {format} file")
    } else {
        format!("is a corrupt {format} file: {}", text.trim().trim_end_matches('.'))
    }
}

/// From the place `(x, y)` of a pixel in the upright image, and the stored `(width, height)`, to its stored place.
type Stored = fn(usize, usize, usize, usize) -> (usize, usize);

/// Turns an image upright. `pixel_len` is in bytes.
fn oriented(orientation: Orientation, shape: ImageShape, pixel_len: usize, pixels: &[u8]) -> (ImageShape, Vec<u8>) {
    let (w, h) = (shape.width, shape.height);
    let (turned, stored): (bool, Stored) = match orientation {
        Orientation::NoTransforms => (false, |x, y, _, _| (x, y)),
        Orientation::FlipHorizontal => (false, |x, y, w, _| (w - 1 - x, y)),
        Orientation::Rotate180 => (false, |x, y, w, h| (w - 1 - x, h - 1 - y)),
        Orientation::FlipVertical => (false, |x, y, _, h| (x, h - 1 - y)),
        Orientation::Rotate90FlipH => (true, |x, y, _, _| (y, x)),
        Orientation::Rotate90 => (true, |x, y, _, h| (y, h - 1 - x)),
        Orientation::Rotate270FlipH => (true, |x, y, w, h| (w - 1 - y, h - 1 - x)),
        Orientation::Rotate270 => (true, |x, y, w, _| (w - 1 - y, x)),
    };
    let (width, height) = if turned { (h, w) } else { (w, h) };
    let mut out = Vec::with_capacity(pixels.len());
    for y in 0..height {
        for x in 0..width {
            let (sx, sy) = stored(x, y, w, h);
            let start = (sy * w + sx) * pixel_len;
            out.extend_from_slice(&pixels[start..start + pixel_len]);
        }
    }
    (ImageShape { height, width, channels: shape.channels }, out)
}

/// One value of `N` little-endian bytes.
fn value<const N: usize>(bytes: &[u8]) -> u64 {
    bytes[..N].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Takes the last channel away. Values have `N` bytes.
fn without_alpha<const N: usize>(pixels: &[u8], channels: usize, policy: Alpha) -> Vec<u8> {
    let most = (1_u64 << (8 * N)) - 1;
    let mut out = Vec::with_capacity(pixels.len() / channels * (channels - 1));
    for pixel in pixels.chunks_exact(channels * N) {
        let (colours, alpha) = pixel.split_at((channels - 1) * N);
        let alpha = value::<N>(alpha);
        for colour in colours.chunks_exact(N) {
            let under = match policy {
                Alpha::Drop => {
                    out.extend_from_slice(colour);
                    continue;
                }
                Alpha::Black => 0,
                Alpha::White => most,
            };
            let blended = (value::<N>(colour) * alpha + under * (most - alpha) + most / 2) / most;
            out.extend_from_slice(&blended.to_le_bytes()[..N]);
        }
    }
    out
}

/// The luma of ITU-R BT.601 in 16-bit fixed point, as Pillow computes it. Values have `N` bytes.
fn luma<const N: usize>(pixels: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pixels.len() / 3);
    for rgb in pixels.chunks_exact(3 * N) {
        let [r, g, b] = [0, 1, 2].map(|c| value::<N>(&rgb[c * N..]));
        let luma = (19_595 * r + 38_470 * g + 7_471 * b + 0x8000) >> 16;
        out.extend_from_slice(&luma.to_le_bytes()[..N]);
    }
    out
}

/// Runs a decoder; a panic in it is an error of its image.
fn guarded<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let was_decoding = IS_DECODING.replace(true);
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    IS_DECODING.set(was_decoding);
    decoded.unwrap_or_else(|_| Err("makes its decoder panic".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_pixels: 10_000, max_bytes: 1 << 20 };

    fn image(name: &str) -> Vec<u8> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images").join(name);
        std::fs::read(path).unwrap()
    }

    #[track_caller]
    fn decoded(name: &str, policy: &DecodePolicy) -> Decoded {
        policy.decode(&image(name), &LIMITS).unwrap()
    }

    /// The same 12x8 pictures in every format. A digest that moves without a bump of [`REVISION`] is a defect.
    #[test]
    fn a_decoder_that_panics_is_an_error_of_its_image() {
        let panicking = || -> Result<(), String> {
            assert!(is_decoding(), "the panic hook must know");
            let rows: Vec<u8> = Vec::new();
            Err(format!("row {}", rows[rows.len()]))
        };
        assert_eq!(guarded(panicking), Err("makes its decoder panic".to_owned()));
        assert!(!is_decoding());
        assert_eq!(guarded(|| Ok(3)), Ok(3));
    }

    #[test]
    fn every_codec_gives_the_golden_bytes() {
        let lossless = "7cba17164d652d56162a4dbcc8fb3652";
        let grey = "268e1ca68abc3aaa81ad6d1cb1d400bd";
        for (name, format, golden) in [
            ("rgb.png", "png", lossless),
            ("rgba.png", "png", lossless),
            ("rgb.bmp", "bmp", lossless),
            ("rgb.ppm", "pnm", lossless),
            ("rgb.tiff", "tiff", lossless),
            ("rgb-lzw.tiff", "tiff", lossless),
            ("rgb-lossless.webp", "webp", lossless),
            ("grey.png", "png", grey),
            ("grey.pgm", "pnm", grey),
            ("palette.png", "png", "3cf7525e1ec529cdfe4a719b4df7dde8"),
            ("palette.gif", "gif", "3cf7525e1ec529cdfe4a719b4df7dde8"),
            ("grey16.png", "png", "a132d49134ad2d96329d7003775dc9e8"),
            ("one-bit.png", "png", "dd60c34b885d60db5a954f650a6f3726"),
            ("grey.jpg", "jpeg", "ace80d7b4f78672bd809f3d6ba0a9184"),
            ("rgb-444.jpg", "jpeg", "4fb9da70e2a105bccd55ab4670f9f12f"),
            ("rgb-420.jpg", "jpeg", "300d1036b147d24c5f2ab97d6a87bf41"),
            ("rgb-progressive.jpg", "jpeg", "300d1036b147d24c5f2ab97d6a87bf41"),
            ("rgb-lossy.webp", "webp", "c5e46aa547d74e5cc7db8af5da838e03"),
        ] {
            let image = decoded(name, &DecodePolicy::default());
            assert_eq!(image.seen.format, format);
            assert_eq!((image.shape.width, image.shape.height), (12, 8), "{name}");
            assert_eq!(format!("{:032x}", pixel_digest(image.shape, image.depth, &image.pixels)), golden, "{name}");
        }
    }

    #[test]
    fn jpeg_has_the_same_bytes_without_vector_instructions() {
        for name in ["grey.jpg", "rgb-444.jpg", "rgb-420.jpg", "rgb-progressive.jpg", "rotated.jpg"] {
            let bytes = image(name);
            let decode = |use_unsafe| {
                let options = DecoderOptions::default().set_use_unsafe(use_unsafe);
                JpegDecoder::new_with_options(ZCursor::new(&bytes[..]), options).decode().unwrap()
            };
            assert_eq!(decode(true), decode(false), "{name}");
        }
    }

    #[test]
    fn orientation_is_applied_or_ignored() {
        let upright = decoded("rgb.png", &DecodePolicy::default());
        // Orientation 6: the first row of the file is the right-hand column of the picture.
        let turned = decoded("rotated.png", &DecodePolicy::default());
        assert_eq!(turned.shape.to_string(), "8x12x3");
        for y in 0..12 {
            for x in 0..8 {
                let stored = ((7 - x) * 12 + y) * 3;
                let shown = (y * 8 + x) * 3;
                assert_eq!(turned.pixels[shown..shown + 3], upright.pixels[stored..stored + 3], "{x} {y}");
            }
        }
        let ignoring = DecodePolicy { exif: Exif::Ignore, ..DecodePolicy::default() };
        assert_eq!(decoded("rotated.png", &ignoring).pixels, upright.pixels);
        assert_eq!(decoded("rotated.jpg", &DecodePolicy::default()).shape.to_string(), "8x12x3");
        assert_eq!(decoded("rotated.jpg", &ignoring).pixels, decoded("rgb-420.jpg", &ignoring).pixels);
    }

    #[test]
    fn each_orientation_is_what_the_standard_says() {
        let shape = ImageShape { height: 2, width: 3, channels: 1 };
        // EXIF 2.3, tag 274: where row 0 and column 0 of the file belong.
        for (exif, expected) in [
            (1, [1, 2, 3, 4, 5, 6]),
            (2, [3, 2, 1, 6, 5, 4]),
            (3, [6, 5, 4, 3, 2, 1]),
            (4, [4, 5, 6, 1, 2, 3]),
            (5, [1, 4, 2, 5, 3, 6]),
            (6, [4, 1, 5, 2, 6, 3]),
            (7, [6, 3, 5, 2, 4, 1]),
            (8, [3, 6, 2, 5, 1, 4]),
        ] {
            let orientation = Orientation::from_exif(exif).unwrap();
            let (turned, pixels) = oriented(orientation, shape, 1, &[1, 2, 3, 4, 5, 6]);
            assert_eq!(pixels, expected, "{exif}");
            assert_eq!((turned.width, turned.height), if exif < 5 { (3, 2) } else { (2, 3) }, "{exif}");
        }
    }

    #[test]
    fn channels_alpha_and_depth_follow_the_policy() {
        let raw = |channels, depth, pixels: &[u8]| Raw {
            shape: ImageShape { height: 1, width: 1, channels },
            depth,
            pixels: pixels.to_vec(),
            format: "png",
        };
        let with = |channels, alpha, depth| DecodePolicy { channels, alpha, depth, ..DecodePolicy::default() };
        let (keep, as_is) = (Channels::Keep, DepthPolicy::Keep);
        for (policy, raw, expected) in [
            (with(Channels::Gray, Alpha::Drop, as_is), raw(3, Depth::U8, &[255, 0, 0]), &[76][..]),
            (with(Channels::Gray, Alpha::Drop, as_is), raw(3, Depth::U8, &[255; 3]), &[255]),
            (with(Channels::Gray, Alpha::Drop, as_is), raw(3, Depth::U16, &[255; 6]), &[255; 2]),
            (with(Channels::Rgb, Alpha::Drop, as_is), raw(1, Depth::U8, &[9]), &[9; 3]),
            (with(Channels::Rgb, Alpha::Drop, as_is), raw(1, Depth::U16, &[1, 2]), &[1, 2, 1, 2, 1, 2]),
            (with(keep, Alpha::Drop, as_is), raw(4, Depth::U8, &[1, 2, 3, 0]), &[1, 2, 3]),
            (with(keep, Alpha::Black, as_is), raw(4, Depth::U8, &[100, 2, 3, 128]), &[50, 1, 2]),
            (with(keep, Alpha::White, as_is), raw(2, Depth::U8, &[0, 0]), &[255]),
            (with(keep, Alpha::White, as_is), raw(2, Depth::U16, &[5, 6, 255, 255]), &[5, 6]),
            (with(Channels::Rgb, Alpha::Black, as_is), raw(2, Depth::U8, &[200, 0]), &[0; 3]),
            (with(keep, Alpha::Drop, DepthPolicy::To8), raw(1, Depth::U16, &[255, 255]), &[255]),
            (with(keep, Alpha::Drop, DepthPolicy::To8), raw(1, Depth::U16, &[129, 0]), &[1]),
            (with(keep, Alpha::Drop, DepthPolicy::To16), raw(1, Depth::U8, &[7]), &[7, 7]),
        ] {
            let decoded = policy.apply(raw.clone()).unwrap();
            assert_eq!(decoded.pixels, expected, "{policy:?} {raw:?}");
            assert_eq!(decoded.shape.len() * decoded.depth.bytes(), expected.len());
        }
    }

    #[test]
    fn every_cut_of_every_file_is_an_error_or_an_image() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images");
        let policy = DecodePolicy::default();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let whole = policy.decode(&bytes, &LIMITS).unwrap();
            for len in 0..bytes.len() {
                match policy.decode(&bytes[..len], &LIMITS) {
                    // What follows the pixels (a checksum, an end marker, metadata) may be lost.
                    Ok(cut) => assert!(cut.seen == whole.seen && len > 40, "{path:?} cut at {len}"),
                    Err(reason) => assert!(!reason.is_empty() && !reason.contains("panic"), "{path:?}: {reason}"),
                }
            }
            // Half a picture is not passed off as a whole one.
            assert!(policy.decode(&bytes[..bytes.len() / 2], &LIMITS).is_err(), "{path:?}");
        }
    }

    #[test]
    fn damage_is_an_error_or_an_image_never_a_panic() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images");
        let policy = DecodePolicy::default();
        for entry in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            for i in 0..bytes.len() {
                for flip in [0x01, 0x80, 0xff] {
                    let mut damaged = bytes.clone();
                    damaged[i] ^= flip;
                    if let Err(reason) = policy.decode(&damaged, &LIMITS) {
                        assert!(!reason.is_empty());
                    }
                }
            }
        }
        assert!(!is_decoding());
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        // A PNG header that promises 4 gigapixels, with nothing behind it.
        let mut png = image("grey.png");
        png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        let crc = {
            let mut crc = flate2::Crc::new();
            crc.update(&png[12..29]);
            crc.sum()
        };
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        let reason = DecodePolicy::default().decode(&png, &LIMITS).unwrap_err();
        assert_eq!(reason, "is 65536x65536 pixels, more than `max_pixels = 10000`");
        // A JPEG that says 65,535 on both sides.
        let mut jpeg = image("rgb-444.jpg");
        let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        jpeg[frame + 5..frame + 9].fill(0xff);
        let reason = DecodePolicy::default().decode(&jpeg, &LIMITS).unwrap_err();
        assert_eq!(reason, "is 65535x65535 pixels, more than `max_pixels = 10000`");
    }

    #[test]
    fn the_policy_survives_json() {
        let policy = DecodePolicy {
            channels: Channels::Rgb,
            alpha: Alpha::White,
            exif: Exif::Ignore,
            depth: DepthPolicy::To8,
            resize: Some(Resize {
                width: 3,
                height: 4,
                fit: super::super::resize::Fit::Cover,
                filter: super::super::resize::Filter::CatmullRom,
            }),
        };
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<DecodePolicy>(&json).unwrap(), policy);
        assert!(json.contains("\"catmull-rom\"") && json.contains("\"depth\":\"8\""), "{json}");
    }
}
