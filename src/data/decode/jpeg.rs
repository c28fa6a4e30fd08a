//! JPEG: by zune-jpeg, and by jpeg-decoder where that one makes garbage of a sound file.

use image::metadata::Orientation;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::{Fault, Refused, Turn, orientation, said_text, too_large, turn};
use crate::data::pixels::Depth;
use crate::data::pixels::{Limits, Raw, RawAlpha};
use crate::tensor::ImageShape;

/// Pixels that all scans of a progressive file may go over: 20 scans of the largest images, which are some two seconds,
/// and 100 of those below 20 megapixels. Encoders write up to ten.
const SCANNED: usize = 2_000_000_000;

/// Decodes a JPEG file with the decoder that `image` wraps, whose headers are then read once and not three times (half
/// the time of a 32x32 image), and which reports damage inside the image that `image` paints grey.
pub(super) fn open(
    bytes: &[u8],
    limits: &Limits,
    wants_orientation: bool,
) -> Result<(Raw, Orientation, Turn), Refused> {
    let segments = orientation::jpeg_segments(bytes);
    check_frame(&segments)?;
    let orientation = match wants_orientation {
        true => orientation::of_jpeg(&segments).unwrap_or(Orientation::NoTransforms),
        false => Orientation::NoTransforms,
    };
    if has_scans_apart(&segments) {
        let (raw, turn) = open_scans(bytes, limits)?;
        return Ok((raw, orientation, turn));
    }
    let options = DecoderOptions::default().set_max_width(usize::MAX).set_max_height(usize::MAX);
    // Lenient about what stands between headers, as every other decoder is.
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options.set_strict_mode(false));
    decoder.decode_headers().map_err(said)?;
    let (width, height) = decoder.dimensions().ok_or_else(|| "is a corrupt jpeg file: it has no size".to_owned())?;
    limits.check_size(width as u64, height as u64).map_err(too_large)?;
    let (colours, channels) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (ColorSpace::Luma, 1),
        _ => (ColorSpace::RGB, 3),
    };
    let most = SCANNED.div_ceil((width * height).max(1)).clamp(20, 100);
    decoder.set_options(options.set_strict_mode(true).jpeg_set_out_colorspace(colours).jpeg_set_max_scans(most));
    let shape = ImageShape { height, width, channels };
    let turn = turn(shape, Depth::U8, limits)?;
    let mut pixels = vec![0; shape.len()];
    decoder.decode_into(&mut pixels).map_err(said)?;
    Ok((Raw { shape, depth: Depth::U8, pixels, format: "jpeg", alpha: RawAlpha::None }, orientation, turn))
}

/// Whether a file that is not progressive has its components in scans of their own (or two of three in one).
fn has_scans_apart(segments: &[(u8, &[u8])]) -> bool {
    let content =
        |wanted: &[u8]| segments.iter().find(|(marker, _)| wanted.contains(marker)).map(|(_, content)| *content);
    match (content(&[0xc0, 0xc1]), content(&[0xda])) {
        (Some([_, _, _, _, _, n_components, ..]), Some([n_in_scan, ..])) => n_in_scan < n_components,
        _ => false,
    }
}

/// Decodes a JPEG file with a scan per component: zune-jpeg (as of 0.5.15) makes garbage of it.
fn open_scans(bytes: &[u8], limits: &Limits) -> Result<(Raw, Turn), Refused> {
    let said = |error: jpeg_decoder::Error| match error {
        jpeg_decoder::Error::Unsupported(what) => Refused {
            fault: Fault::Unsupported,
            reason: format!("is a JPEG file of a kind that is not supported: {what:?}"),
        },
        other => said_text("jpeg", &other.to_string()).into(),
    };
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    decoder.read_info().map_err(said)?;
    let info = decoder.info().ok_or_else(|| "is a corrupt jpeg file: it has no size".to_owned())?;
    limits.check_size(info.width.into(), info.height.into()).map_err(too_large)?;
    if info.pixel_format != jpeg_decoder::PixelFormat::RGB24 {
        let reason = "is a JPEG file of CMYK colours with a scan per component, which is not supported".to_owned();
        return Err(Refused { fault: Fault::Unsupported, reason });
    }
    let shape = ImageShape { height: info.height.into(), width: info.width.into(), channels: 3 };
    let turn = turn(shape, Depth::U8, limits)?;
    decoder.set_max_decoding_buffer_size(shape.len());
    let pixels = decoder.decode().map_err(said)?;
    if pixels.len() != shape.len() {
        return Err("is a corrupt jpeg file: it has not all its pixels".to_owned().into());
    }
    Ok((Raw { shape, depth: Depth::U8, pixels, format: "jpeg", alpha: RawAlpha::None }, turn))
}

/// Refuses, by name, kinds of JPEG that no usual decoder reads.
fn check_frame(segments: &[(u8, &[u8])]) -> Result<(), Refused> {
    let frame =
        segments.iter().find(|(marker, _)| matches!(marker, 0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf));
    let Some((marker, frame)) = frame else { return Ok(()) };
    let what = match (marker, frame.first()) {
        (0xc3 | 0xcb, _) => "without losses (SOF3)".to_owned(),
        (0xc5..=0xc7 | 0xcd..=0xcf, _) => "in a hierarchy of frames".to_owned(),
        (0xc9 | 0xca, _) => "with arithmetic coding".to_owned(),
        (_, Some(&bits)) if bits != 8 => format!("with samples of {bits} bits"),
        _ => return Ok(()),
    };
    Err(Refused { fault: Fault::Unsupported, reason: format!("is a JPEG file {what}, which is not supported") })
}

fn said(error: DecodeErrors) -> Refused {
    match error {
        DecodeErrors::ExhaustedData => "is a truncated jpeg file".to_owned().into(),
        DecodeErrors::Unsupported(what) => Refused {
            fault: Fault::Unsupported,
            reason: format!("is a JPEG file of a kind that is not supported: {what:?}"),
        },
        other => said_text("jpeg", &format!("{other:?}")).into(),
    }
}
