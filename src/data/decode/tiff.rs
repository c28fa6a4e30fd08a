//! What the decoder of TIFF leaves out: tags that change what samples mean.
//!
//! Only classic TIFF and the first image of a file, as everywhere here. Palettes are read by letting the decoder take
//! the indices for grey, and looking them up afterwards.

use super::{Fault, Refused};
use crate::data::pixels::Depth;
use crate::data::pixels::{Raw, RawAlpha};

/// Tags, by their numbers in TIFF 6.0.
mod tag {
    pub(super) const BITS: u16 = 258;
    pub(super) const COMPRESSION: u16 = 259;
    pub(super) const PHOTOMETRIC: u16 = 262;
    pub(super) const FILL_ORDER: u16 = 266;
    pub(super) const COLOR_MAP: u16 = 320;
    pub(super) const EXTRA_SAMPLES: u16 = 338;
    pub(super) const SAMPLE_FORMAT: u16 = 339;
}

/// The tags of the first image.
pub(super) struct Tags<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
    /// Tag, type, number of values, and where the values (or their place) stand.
    entries: Vec<(u16, u16, usize, usize)>,
}

impl<'a> Tags<'a> {
    /// Reads the directory; empty where there is none that can be read (the decoder will say why).
    pub(super) fn of(bytes: &'a [u8]) -> Tags<'a> {
        let mut tags = Tags { bytes, is_big_endian: bytes.starts_with(b"MM"), entries: Vec::new() };
        if let Some(directory) = tags.u32(4).filter(|_| tags.u16(2) == Some(42)) {
            let directory = directory as usize;
            for i in 0..usize::from(tags.u16(directory).unwrap_or(0)) {
                let at = directory.saturating_add(2 + 12 * i);
                let (Some(tag), Some(kind), Some(n)) = (tags.u16(at), tags.u16(at + 2), tags.u32(at + 4)) else {
                    break;
                };
                tags.entries.push((tag, kind, n as usize, at + 8));
            }
        }
        tags
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let two = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.is_big_endian { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let four = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.is_big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
    }

    /// The values of a tag of 16-bit numbers.
    fn shorts(&self, wanted: u16) -> Option<Vec<u16>> {
        let &(_, _, n, at) = self.entries.iter().find(|(tag, kind, ..)| *tag == wanted && *kind == 3)?;
        let start = if n <= 2 { at } else { self.u32(at)? as usize };
        (0..n.min(3 << 16)).map(|i| self.u16(start.checked_add(2 * i)?)).collect()
    }

    fn short(&self, wanted: u16) -> Option<u16> {
        self.shorts(wanted)?.first().copied()
    }

    /// What the last of the samples is.
    pub(super) fn alpha(&self) -> RawAlpha {
        match self.short(tag::EXTRA_SAMPLES) {
            Some(1) => RawAlpha::Premultiplied,
            _ => RawAlpha::Straight,
        }
    }

    /// Refuses, by name, what the decoder would read wrongly.
    pub(super) fn check(&self) -> Result<(), Refused> {
        if self.short(tag::FILL_ORDER) == Some(2) {
            return Err(unsupported("whose bits lie in reversed order (FillOrder 2)"));
        }
        if self.short(tag::EXTRA_SAMPLES) == Some(0) && matches!(self.short(tag::PHOTOMETRIC), Some(2)) {
            return Err(unsupported("with a fourth channel that is not said to be alpha (ExtraSamples 0)"));
        }
        Ok(())
    }

    /// What is special about the file, for an error that it is not supported.
    pub(super) fn named(&self) -> String {
        let bits = self.short(tag::BITS).unwrap_or(1);
        let format = self.short(tag::SAMPLE_FORMAT).unwrap_or(1);
        let compression = match self.short(tag::COMPRESSION).unwrap_or(1) {
            1 | 5 | 8 | 32_773 | 32_946 => None,
            2..=4 => Some("CCITT compression"),
            6 | 7 => Some("JPEG compression"),
            50_000 => Some("Zstandard compression"),
            _ => Some("an unusual compression"),
        };
        let colours = match self.short(tag::PHOTOMETRIC) {
            Some(3) => Some("a palette"),
            Some(5) => Some("CMYK colours"),
            Some(6) => Some("YCbCr colours"),
            Some(8..=10) => Some("Lab colours"),
            _ => None,
        };
        let mut said: Vec<String> = [colours, compression].into_iter().flatten().map(str::to_owned).collect();
        match format {
            2 => said.push(format!("signed samples of {bits} bits")),
            3 => said.push(format!("floating-point samples of {bits} bits")),
            _ if !matches!(bits, 8 | 16) || said.is_empty() => said.push(format!("samples of {bits} bits")),
            _ => {}
        }
        said.join(" and ")
    }

    /// For a file with a palette: the same with its indices as grey values, and the colours.
    pub(super) fn palette(&self) -> Option<(Vec<u8>, Palette)> {
        let &(_, kind, _, at) = self.entries.iter().find(|(tag, ..)| *tag == tag::PHOTOMETRIC)?;
        if self.short(tag::PHOTOMETRIC) != Some(3) || kind != 3 {
            return None;
        }
        let bits = self.short(tag::BITS).unwrap_or(1);
        let n = 1_usize.checked_shl(u32::from(bits)).filter(|_| matches!(bits, 1 | 8))?;
        let map = self.shorts(tag::COLOR_MAP).filter(|map| map.len() == 3 * n)?;
        // Values have 16 bits; some programs write 8.
        let shift = if map.iter().all(|&value| value < 256) { 0 } else { 8 };
        let colours = (0..n).map(|i| [0, 1, 2].map(|c| (map[c * n + i] >> shift) as u8)).collect();
        let mut grey = self.bytes.to_vec();
        let one = if self.is_big_endian { 1_u16.to_be_bytes() } else { 1_u16.to_le_bytes() };
        grey.get_mut(at..at + 2)?.copy_from_slice(&one);
        Some((grey, Palette::of(colours)))
    }
}

/// The colours of indices.
pub(super) struct Palette {
    colours: Vec<[u8; 3]>,
}

impl Palette {
    /// A palette of these colours, by index.
    pub(super) fn of(colours: Vec<[u8; 3]>) -> Palette {
        Palette { colours }
    }

    /// Colours for indices that were decoded as grey.
    pub(super) fn apply(&self, indices: Raw) -> Result<Raw, Refused> {
        if indices.shape.channels != 1 || indices.depth != Depth::U8 {
            return Err(unsupported("with a palette beside other channels"));
        }
        // One bit was spread over the whole range.
        let unit = if self.colours.len() == 2 { 255 } else { 1 };
        let black = [0; 3];
        let colour = |&index: &u8| *self.colours.get(usize::from(index / unit)).unwrap_or(&black);
        let pixels = indices.pixels.iter().flat_map(colour).collect();
        let mut shape = indices.shape;
        shape.channels = 3;
        Ok(Raw { shape, pixels, ..indices })
    }
}

fn unsupported(what: &str) -> Refused {
    Refused { fault: Fault::Unsupported, reason: format!("is a TIFF file {what}, which is not supported") }
}
