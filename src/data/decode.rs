//! From the bytes of an image file to pixels under a policy: orientation, alpha, channels, size, depth.
//!
//! Decoding never trusts a file: size limits are checked on the header, before anything is allocated, and a decoder
//! that panics is an error of that image. Everything after the decoder is whole-number arithmetic.

pub mod foreign;
mod jpeg;
mod orientation;
mod tiff;

use std::cell::Cell;
use std::fmt;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageFormat};
use serde::{Deserialize, Serialize};

use super::pixels::{Depth, Limits, Raw, RawAlpha};
use super::resize::Resize;
use crate::config::Section;
use crate::memory;
use crate::tensor::ImageShape;

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
    /// `max_pixels`, `max_bytes`: what one image may cost.
    #[serde(default)]
    pub limits: Limits,
}

/// Why there is no image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whose fault it is.
    pub fault: Fault,
    /// To follow the image's name.
    pub reason: String,
}

/// Whose fault it is that there is no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file is damaged, or no image.
    Damaged,
    /// The file is not there, or may not be read.
    Absent,
    /// The file is sound, but of a form that is not read.
    Unsupported,
    /// The image is larger than it may be.
    TooLarge,
    /// Nothing is known of the file: this machine could not read it now.
    Machine,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl From<String> for Refused {
    fn from(reason: String) -> Refused {
        Refused { fault: Fault::Damaged, reason }
    }
}

/// Of an image that is larger than it may be.
pub fn too_large(reason: String) -> Refused {
    Refused { fault: Fault::TooLarge, reason }
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

/// What an image was before any policy but that of turning it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The file's format: "png", "jpeg", "idx", ….
    pub format: &'static str,
    /// Width in pixels, as it is turned.
    pub width: u32,
    /// Height in pixels, as it is turned.
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
            resize: Resize::read_key(section),
            limits: Limits::read(section),
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
    /// If it is not an image, truncated, too large, of a form that is not read, ….
    pub fn decode(&self, bytes: &[u8]) -> Result<Decoded, Refused> {
        let (stored, orientation, _turn) = guarded(|| open(bytes, &self.limits, self.exif == Exif::Apply))?;
        self.finish(stored, orientation)
    }

    /// Applies the policy to pixels that need no decoding.
    ///
    /// # Errors
    /// If they have channels of which the policy's cannot be made.
    pub fn apply(&self, raw: Raw) -> Result<Decoded, Refused> {
        self.finish(raw, Orientation::NoTransforms)
    }

    fn finish(&self, raw: Raw, orientation: Orientation) -> Result<Decoded, Refused> {
        let Raw { mut shape, mut depth, mut pixels, format, alpha } = raw;
        if orientation != Orientation::NoTransforms {
            (shape, pixels) = oriented(orientation, shape, shape.channels * depth.bytes(), &pixels);
        }
        let seen = Seen {
            format,
            width: shape.width as u32,
            height: shape.height as u32,
            channels: shape.channels as u32,
            depth: depth.bits(),
        };
        if alpha != RawAlpha::None {
            let is_product = alpha == RawAlpha::Premultiplied;
            pixels = match depth {
                Depth::U8 => without_alpha::<1>(&pixels, shape.channels, self.alpha, is_product),
                Depth::U16 => without_alpha::<2>(&pixels, shape.channels, self.alpha, is_product),
            };
            shape.channels -= 1;
        }
        match (self.channels, shape.channels) {
            (Channels::Gray | Channels::Rgb, channels @ (2 | 4..)) => {
                let word = if self.channels == Channels::Gray { "gray" } else { "rgb" };
                let reason =
                    format!("has {channels} channels, of which `channels = \"{word}\"` cannot be made: use \"keep\"");
                return Err(Refused { fault: Fault::Unsupported, reason });
            }
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

/// Whether a file that begins with these bytes (512 will do) is an image of a format that is known by name.
pub fn is_known_image(head: &[u8]) -> bool {
    image::guess_format(head).is_ok() || foreign::name_of(head).is_some()
}

/// Held by an image that needs more memory than this, so that there is one at a time whatever the number of threads.
static LARGE: Mutex<()> = Mutex::new(());
/// Bytes of decoded pixels.
const LARGE_BYTES: u64 = 64 << 20;

type Turn = Option<MutexGuard<'static, ()>>;

/// Waits for its turn if an image of this shape needs one, after it was seen to fit.
fn turn(shape: ImageShape, depth: Depth, limits: &Limits) -> Result<Turn, Refused> {
    let n = limits.check_decoded(shape, depth).map_err(too_large)?;
    if n <= LARGE_BYTES {
        return Ok(None);
    }
    let turn = LARGE.lock().unwrap_or_else(PoisonError::into_inner);
    // The pixels, what the decoder keeps, and what is made of them.
    let what = format!("is {}x{} pixels and", shape.width, shape.height);
    memory::check(&what, n.saturating_mul(3)).map_err(|reason| Refused { fault: Fault::Machine, reason })?;
    Ok(Some(turn))
}

/// Decodes the first image of a file as it is stored.
fn open(bytes: &[u8], limits: &Limits, wants_orientation: bool) -> Result<(Raw, Orientation, Turn), Refused> {
    if bytes.is_empty() {
        return Err("is empty".to_owned().into());
    }
    let not_read = |name: &str| Refused {
        fault: Fault::Unsupported,
        reason: format!("is an image of the format {name}, which is not supported"),
    };
    if let Some(name) = foreign::name_of(bytes) {
        return Err(not_read(name));
    }
    let format = image::guess_format(bytes).map_err(|_| "is not an image of a known format".to_owned())?;
    let name = format_name(format).ok_or_else(|| not_read(format.to_mime_type().trim_start_matches("image/")))?;
    match format {
        ImageFormat::Jpeg => return jpeg::open(bytes, limits, wants_orientation),
        ImageFormat::Tiff => return open_tiff(bytes, limits, wants_orientation),
        ImageFormat::Pnm => check_pnm_header(bytes)?,
        _ => {}
    }
    let (raw, orientation, turn) = open_by_crate(format, name, bytes, limits, wants_orientation)?;
    // In PNG it may stand where the decoder does not look.
    let orientation = match format {
        ImageFormat::Png if wants_orientation => orientation::of_png(bytes).unwrap_or(orientation),
        _ => orientation,
    };
    Ok((raw, orientation, turn))
}

/// Decodes a TIFF file, the tags in mind that the decoder does not heed.
fn open_tiff(bytes: &[u8], limits: &Limits, wants_orientation: bool) -> Result<(Raw, Orientation, Turn), Refused> {
    let tags = tiff::Tags::of(bytes);
    tags.check()?;
    let palette = tags.palette();
    let grey = palette.as_ref().map_or(bytes, |(grey, _)| grey.as_slice());
    let opened = open_by_crate(ImageFormat::Tiff, "tiff", grey, limits, wants_orientation);
    let (mut raw, orientation, turn) = opened.map_err(|refused| match refused.fault {
        Fault::Unsupported => {
            Refused { reason: format!("is a TIFF file with {}, which is not supported", tags.named()), ..refused }
        }
        _ => refused,
    })?;
    if raw.alpha != RawAlpha::None {
        raw.alpha = tags.alpha();
    }
    if let Some((_, palette)) = palette {
        raw = palette.apply(raw)?;
    }
    Ok((raw, orientation, turn))
}

/// The longest header of a PNM file, comments included.
const MAX_PNM_HEADER: usize = 1 << 16;

/// A PNM header may be as long as one likes, and the decoder reads it byte by byte.
fn check_pnm_header(bytes: &[u8]) -> Result<(), Refused> {
    let head = &bytes[..bytes.len().min(MAX_PNM_HEADER)];
    let is_whole = match head {
        [b'P', b'7', ..] => head.windows(6).any(|window| window == b"ENDHDR"),
        _ => {
            let n_numbers = if matches!(head, [b'P', b'1' | b'4', ..]) { 2 } else { 3 };
            let lines = head.split(|&byte| byte == b'\n');
            let uncommented = lines.flat_map(|line| line.split(|&byte| byte == b'#').next());
            let words =
                uncommented.flat_map(|line| line.split(u8::is_ascii_whitespace)).filter(|word| !word.is_empty());
            // The magic is the first word.
            words.take(n_numbers + 1).count() == n_numbers + 1
        }
    };
    if is_whole || bytes.len() < MAX_PNM_HEADER {
        return Ok(());
    }
    Err(format!("is a corrupt pnm file: its header is longer than {MAX_PNM_HEADER} bytes").into())
}

/// Memory that a decoder may take before the size of the image is known: profiles and texts unpack to anything.
const MAX_METADATA: u64 = 64 << 20;

fn open_by_crate(
    format: ImageFormat,
    name: &'static str,
    bytes: &[u8],
    limits: &Limits,
    wants_orientation: bool,
) -> Result<(Raw, Orientation, Turn), Refused> {
    let mut reader = image::ImageReader::with_format(Cursor::new(bytes), format);
    let mut allowed = image::Limits::no_limits();
    allowed.max_alloc = Some(MAX_METADATA);
    reader.limits(allowed.clone());
    let mut decoder = reader.into_decoder().map_err(|e| said(name, e))?;
    let (width, height) = decoder.dimensions();
    limits.check_size(u64::from(width), u64::from(height)).map_err(too_large)?;
    // Room for working buffers of a decoder: a few bytes per pixel beside the output.
    allowed.max_alloc = Some(decoder.total_bytes().saturating_mul(4).saturating_add(MAX_METADATA));
    decoder.set_limits(allowed).map_err(|e| said(name, e))?;
    let (channels, depth, alpha) = match decoder.color_type() {
        ColorType::L8 => (1, Depth::U8, RawAlpha::None),
        ColorType::La8 => (2, Depth::U8, RawAlpha::Straight),
        ColorType::Rgb8 => (3, Depth::U8, RawAlpha::None),
        ColorType::Rgba8 => (4, Depth::U8, RawAlpha::Straight),
        ColorType::L16 => (1, Depth::U16, RawAlpha::None),
        ColorType::La16 => (2, Depth::U16, RawAlpha::Straight),
        ColorType::Rgb16 => (3, Depth::U16, RawAlpha::None),
        ColorType::Rgba16 => (4, Depth::U16, RawAlpha::Straight),
        other => {
            let reason = format!("holds pixels of the type {other:?}, expected 8 or 16 bits per value");
            return Err(Refused { fault: Fault::Unsupported, reason });
        }
    };
    let shape = ImageShape { height: height as usize, width: width as usize, channels };
    let turn = turn(shape, depth, limits)?;
    let orientation = match wants_orientation {
        true => orientation_of(&mut decoder).unwrap_or(Orientation::NoTransforms),
        false => Orientation::NoTransforms,
    };
    let mut pixels = vec![0; shape.len() * depth.bytes()];
    decoder.read_image(&mut pixels).map_err(|e| said(name, e))?;
    if cfg!(target_endian = "big") && depth == Depth::U16 {
        pixels.chunks_exact_mut(2).for_each(<[u8]>::reverse);
    }
    Ok((Raw { shape, depth, pixels, format: name, alpha }, orientation, turn))
}

fn orientation_of(decoder: &mut impl ImageDecoder) -> Option<Orientation> {
    let exif = decoder.exif_metadata().ok().flatten();
    if let Some(found) = exif.and_then(|block| orientation::of_exif(&block)) {
        return Some(found);
    }
    let own = decoder.orientation().ok().filter(|found| *found != Orientation::NoTransforms);
    own.or_else(|| orientation::of_xmp(&decoder.xmp_metadata().ok().flatten()?))
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

/// The format that [`Seen`] calls `name`, of those that files are read in one by one.
pub fn seen_format(name: &str) -> Option<&'static str> {
    ImageFormat::all().filter_map(format_name).find(|known| *known == name)
}

/// A decoder's error in our words, on one line.
fn said(format: &str, error: image::ImageError) -> Refused {
    let fault = match error {
        image::ImageError::Unsupported(_) => Fault::Unsupported,
        image::ImageError::Limits(_) => Fault::TooLarge,
        _ => return said_text(format, &error.to_string()).into(),
    };
    let text = error.to_string().replace(['\n', '\r'], " ");
    let text = text.trim().trim_end_matches('.');
    let reason = match fault {
        Fault::Unsupported => format!("is a {format} file of a kind that is not supported: {text}"),
        _ => format!("is a {format} file that takes too much memory: {text}"),
    };
    Refused { fault, reason }
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

/// Takes the last channel away. Values have `N` bytes. `is_product`: colours are multiplied by it already.
fn without_alpha<const N: usize>(pixels: &[u8], channels: usize, policy: Alpha, is_product: bool) -> Vec<u8> {
    let most = (1_u64 << (8 * N)) - 1;
    let mut out = Vec::with_capacity(pixels.len() / channels * (channels - 1));
    for pixel in pixels.chunks_exact(channels * N) {
        let (colours, alpha) = pixel.split_at((channels - 1) * N);
        let alpha = value::<N>(alpha);
        for colour in colours.chunks_exact(N) {
            let colour = value::<N>(colour);
            let made = match (policy, is_product) {
                (Alpha::Drop, false) => colour,
                // What is wholly transparent has no colour.
                (Alpha::Drop, true) => ((colour * most + alpha / 2) / alpha.max(1)).min(most),
                (Alpha::Black, true) => colour,
                (Alpha::White, true) => (colour + most - alpha).min(most),
                (Alpha::Black, false) => (colour * alpha + most / 2) / most,
                (Alpha::White, false) => (colour * alpha + most * (most - alpha) + most / 2) / most,
            };
            out.extend_from_slice(&made.to_le_bytes()[..N]);
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
fn guarded<T>(decode: impl FnOnce() -> Result<T, Refused>) -> Result<T, Refused> {
    let was_decoding = IS_DECODING.replace(true);
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    IS_DECODING.set(was_decoding);
    decoded.unwrap_or_else(|_| Err("makes its decoder panic".to_owned().into()))
}

#[cfg(test)]
mod tests;
