//! Which way up an image is, wherever a program may have written it: EXIF with or without its own mark, before or
//! behind the pixels, in a chunk of text, or XMP.
//!
//! The first EXIF block counts, as for Pillow and OpenCV; XMP where there is none.

use std::io::Read as _;

use image::metadata::Orientation;

/// What EXIF begins with in JPEG; elsewhere it should not, and often does.
const MARK: &[u8] = b"Exif\0\0";
/// What XMP begins with in JPEG.
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
/// The longest text that is unpacked in search of EXIF.
const MAX_TEXT: u64 = 1 << 20;

/// The orientation in a block of EXIF.
pub(super) fn of_exif(block: &[u8]) -> Option<Orientation> {
    Orientation::from_exif_chunk(block.strip_prefix(MARK).unwrap_or(block))
}

/// The orientation in a packet of XMP: `tiff:Orientation="6"`, or as an element.
pub(super) fn of_xmp(packet: &[u8]) -> Option<Orientation> {
    const KEY: &[u8] = b"tiff:Orientation";
    let at = packet.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let rest = packet[at..].trim_ascii_start();
    let value = match rest {
        [b'>', rest @ ..] => rest,
        [b'=', rest @ ..] => rest.trim_ascii_start().get(1..)?,
        _ => return None,
    };
    match value.trim_ascii_start() {
        [digit @ b'1'..=b'8', b'"' | b'\'' | b'<' | b' ', ..] => Orientation::from_exif(digit - b'0'),
        _ => None,
    }
}

/// The marker before the pixels.
const START_OF_SCAN: u8 = 0xda;

/// Marker and content of each segment of a JPEG file, up to the header of its first scan.
pub(super) fn jpeg_segments(bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut segments = Vec::new();
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let Some(at) = rest.iter().position(|&byte| byte == 0xff) {
        rest = &rest[at..];
        let Some(at) = rest.iter().position(|&byte| byte != 0xff) else { break };
        let marker = rest[at];
        rest = &rest[at + 1..];
        match marker {
            // Filling, restarts, and marks without a content.
            0 | 1 | 0xd0..=0xd8 => continue,
            0xd9 => break,
            _ => {}
        }
        let Some((len, _)) = rest.split_first_chunk::<2>() else { break };
        let len = usize::from(u16::from_be_bytes(*len));
        let Some(content) = rest.get(2..len) else { break };
        segments.push((marker, content));
        if marker == START_OF_SCAN {
            break;
        }
        rest = &rest[len..];
    }
    segments
}

/// The orientation of a JPEG file with these segments.
pub(super) fn of_jpeg(segments: &[(u8, &[u8])]) -> Option<Orientation> {
    let app1 = |mark: &'static [u8]| {
        segments.iter().filter(|(marker, _)| *marker == 0xe1).find_map(move |(_, content)| content.strip_prefix(mark))
    };
    match app1(MARK) {
        Some(block) => of_exif(block).or_else(|| of_xmp(app1(XMP)?)),
        None => of_xmp(app1(XMP)?),
    }
}

/// The orientation of a PNG file: an `eXIf` chunk anywhere, else one that ImageMagick wrote as text, else XMP.
pub(super) fn of_png(bytes: &[u8]) -> Option<Orientation> {
    let mut rest = bytes.get(8..)?;
    let (mut exif, mut text, mut xmp) = (None, None, None);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (Some(kind), Some(data)) = (after.get(..4), length.checked_add(4).and_then(|end| after.get(4..end))) else {
            break;
        };
        match kind {
            b"eXIf" if exif.is_none() => exif = of_exif(data),
            b"tEXt" | b"zTXt" | b"iTXt" if text.is_none() || xmp.is_none() => {
                if let Some((keyword, value)) = text_of(kind, data) {
                    match keyword {
                        b"Raw profile type exif" | b"Raw profile type APP1" if text.is_none() => {
                            text = of_profile(&value)
                        }
                        b"XML:com.adobe.xmp" if xmp.is_none() => xmp = of_xmp(&value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        let Some(next) = length.checked_add(8).and_then(|end| after.get(end..)) else { break };
        rest = next;
    }
    exif.or(text).or(xmp)
}

/// Keyword and text of a chunk of PNG, if it is one that may hold an orientation.
fn text_of<'a>(kind: &[u8], data: &'a [u8]) -> Option<(&'a [u8], Vec<u8>)> {
    let end = data.iter().position(|&byte| byte == 0)?;
    let (keyword, rest) = (&data[..end], &data[end + 1..]);
    if !keyword.starts_with(b"Raw profile type ") && keyword != b"XML:com.adobe.xmp" {
        return None;
    }
    let inflated = |packed: &[u8]| {
        let mut text = Vec::new();
        flate2::bufread::ZlibDecoder::new(packed).take(MAX_TEXT).read_to_end(&mut text).ok()?;
        Some(text)
    };
    let text = match kind {
        b"tEXt" => rest.to_vec(),
        b"zTXt" => inflated(rest.get(1..)?)?,
        _ => {
            let (is_packed, rest) = (*rest.first()? == 1, rest.get(2..)?);
            let mut parts = rest.splitn(3, |&byte| byte == 0).skip(2);
            let text = parts.next()?;
            if is_packed { inflated(text)? } else { text.to_vec() }
        }
    };
    Some((keyword, text))
}

/// ImageMagick's `\nexif\n   LENGTH\nHEX…`.
fn of_profile(text: &[u8]) -> Option<Orientation> {
    let mut lines = text.trim_ascii_start().splitn(3, |&byte| byte == b'\n').skip(2);
    let digits: Vec<u8> =
        lines.next()?.iter().filter_map(|&byte| char::from(byte).to_digit(16)).map(|d| d as u8).collect();
    let block: Vec<u8> = digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect();
    of_exif(&block)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EXIF with orientation 6 only.
    const EXIF: &[u8] = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        [&(data.len() as u32).to_be_bytes()[..], kind, data, &[0; 4]].concat()
    }

    fn png(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
        chunks.iter().for_each(|chunk| out.extend(chunk));
        out
    }

    fn profile() -> Vec<u8> {
        let hex: String = [MARK, EXIF].concat().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("\nexif\n      {}\n{}\n{}\n", hex.len() / 2, &hex[..20], &hex[20..]).into_bytes()
    }

    #[test]
    fn exif_is_found_in_every_form() {
        let expected = Orientation::from_exif(6);
        assert_eq!(of_exif(EXIF), expected);
        assert_eq!(of_exif(&[MARK, EXIF].concat()), expected);
        let packed = {
            use std::io::Write as _;
            let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(&profile()).unwrap();
            out.finish().unwrap()
        };
        let xmp = b"<rdf:Description tiff:Orientation=\"6\"/>";
        for chunks in [
            vec![chunk(b"eXIf", EXIF), chunk(b"IDAT", b"x")],
            vec![chunk(b"IDAT", b"x"), chunk(b"eXIf", EXIF)],
            vec![chunk(b"tEXt", &[b"Raw profile type exif\0".as_slice(), &profile()].concat())],
            vec![chunk(b"IDAT", b"x"), chunk(b"zTXt", &[b"Raw profile type APP1\0\0".as_slice(), &packed].concat())],
            vec![chunk(b"iTXt", &[b"XML:com.adobe.xmp\0\0\0\0\0".as_slice(), xmp].concat())],
        ] {
            assert_eq!(of_png(&png(&chunks)), expected);
        }
        assert_eq!(of_png(&png(&[chunk(b"IDAT", b"x")])), None);
    }

    #[test]
    fn the_first_block_of_a_jpeg_file_counts() {
        let segment = |content: &[u8]| {
            let len = (content.len() as u16 + 2).to_be_bytes();
            [&[0xff, 0xff, 0xe1][..], &len, content].concat()
        };
        let upright: Vec<u8> = EXIF.iter().map(|&byte| if byte == 6 { 1 } else { byte }).collect();
        let six = segment(&[MARK, EXIF].concat());
        let one = segment(&[MARK, &upright].concat());
        let xmp = segment(&[XMP, b"<tiff:Orientation>6</tiff:Orientation>"].concat());
        for (segments, expected) in [
            (vec![&six, &one], Orientation::from_exif(6)),
            (vec![&one, &six], Orientation::from_exif(1)),
            (vec![&xmp, &one], Orientation::from_exif(1)),
            (vec![&xmp], Orientation::from_exif(6)),
            (vec![], None),
        ] {
            let mut bytes = vec![0xff, 0xd8];
            segments.into_iter().for_each(|segment| bytes.extend(segment));
            bytes.extend([0xff, 0xda]);
            assert_eq!(of_jpeg(&jpeg_segments(&bytes)), expected);
        }
    }

    #[test]
    fn nonsense_has_no_orientation() {
        for len in 0..EXIF.len() {
            of_exif(&EXIF[..len]);
            of_png(&png(&[chunk(b"eXIf", EXIF)])[..8 + len]);
            of_jpeg(&jpeg_segments(&EXIF[..len]));
        }
        assert_eq!(of_xmp(b"tiff:Orientation=\"9\""), None);
        assert_eq!(of_profile(b"\nexif\n 4\nzz"), None);
    }
}
