//! What each format must decode to, and what hostile bytes must not do.

use zune_core::bytestream::ZCursor;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::*;

const LIMITS: Limits = Limits { max_pixels: 10_000, max_bytes: 1 << 20 };

fn limited() -> DecodePolicy {
    DecodePolicy { limits: LIMITS, ..DecodePolicy::default() }
}

fn image(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images").join(name);
    std::fs::read(path).unwrap()
}

#[track_caller]
fn decoded(name: &str, policy: &DecodePolicy) -> Decoded {
    policy.decode(&image(name)).unwrap()
}

/// The same 12x8 pictures in every format. A digest that moves without a bump of [`REVISION`] is a defect.
#[test]
fn a_decoder_that_panics_is_an_error_of_its_image() {
    let panicking = || -> Result<(), Refused> {
        assert!(is_decoding(), "the panic hook must know");
        let rows: Vec<u8> = Vec::new();
        Err(format!("row {}", rows[rows.len()]).into())
    };
    assert_eq!(guarded(panicking), Err("makes its decoder panic".to_owned().into()));
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
    assert_eq!((turned.seen.width, turned.seen.height), (8, 12), "as it is looked at");
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
        alpha: if channels % 2 == 0 { RawAlpha::Straight } else { RawAlpha::None },
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
    let policy = limited();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let whole = policy.decode(&bytes).unwrap();
        for len in 0..bytes.len() {
            match policy.decode(&bytes[..len]) {
                // What follows the pixels (a checksum, an end marker, metadata) may be lost.
                Ok(cut) => assert!(cut.seen == whole.seen && len > 40, "{path:?} cut at {len}"),
                Err(refused) => {
                    assert!(!refused.reason.is_empty() && !refused.reason.contains("panic"), "{path:?}: {refused}");
                }
            }
        }
        // Half a picture is not passed off as a whole one.
        assert!(policy.decode(&bytes[..bytes.len() / 2]).is_err(), "{path:?}");
    }
}

#[test]
fn damage_is_an_error_or_an_image_never_a_panic() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images");
    let policy = limited();
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for i in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[i] ^= flip;
                if let Err(refused) = policy.decode(&damaged) {
                    assert!(!refused.reason.is_empty());
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
    let reason = limited().decode(&png).unwrap_err().reason;
    assert_eq!(reason, "is 65536x65536 pixels, more than `max_pixels = 10000`");
    // A JPEG that says 65,535 on both sides.
    let mut jpeg = image("rgb-444.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    let reason = limited().decode(&jpeg).unwrap_err().reason;
    assert_eq!(reason, "is 65535x65535 pixels, more than `max_pixels = 10000`");
}

#[test]
fn bands_of_arrays_are_no_alpha() {
    for channels in [2, 4] {
        let shape = ImageShape { height: 1, width: 1, channels };
        let pixels = vec![7; channels];
        let raw = Raw { shape, depth: Depth::U8, pixels, format: "npy", alpha: RawAlpha::None };
        let kept = DecodePolicy::default().apply(raw.clone()).unwrap();
        assert_eq!((kept.shape.channels, kept.pixels.len()), (channels, channels));
        let gray = DecodePolicy { channels: Channels::Gray, ..DecodePolicy::default() };
        let refused = gray.apply(raw).unwrap_err();
        assert!(
            refused.reason.contains(&format!("has {channels} channels, of which `channels = \"gray\"`")),
            "{refused}"
        );
    }
}

#[test]
fn colours_that_are_products_are_not_multiplied_again() {
    let raw = Raw {
        shape: ImageShape { height: 1, width: 2, channels: 4 },
        depth: Depth::U8,
        pixels: vec![100, 50, 0, 128, 0, 0, 0, 0],
        format: "tiff",
        alpha: RawAlpha::Premultiplied,
    };
    for (alpha, expected) in [
        (Alpha::Drop, [199, 100, 0, 0, 0, 0]),
        (Alpha::Black, [100, 50, 0, 0, 0, 0]),
        (Alpha::White, [227, 177, 127, 255, 255, 255]),
    ] {
        let policy = DecodePolicy { alpha, ..DecodePolicy::default() };
        assert_eq!(policy.apply(raw.clone()).unwrap().pixels, expected);
    }
}

#[test]
fn what_is_sound_but_not_read_is_not_called_corrupt() {
    let mut lossless = image("rgb-444.jpg");
    let frame = lossless.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    lossless[frame + 1] = 0xc3;
    let mut deep = image("rgb-444.jpg");
    deep[frame + 4] = 12;
    for (bytes, expected) in [
        (b"\0\0\0\x18ftypheic".to_vec(), "is an image of the format heic, which is not supported"),
        (b"8BPS\0\x01".to_vec(), "is an image of the format psd, which is not supported"),
        (b"<svg xmlns=".to_vec(), "is an image of the format svg, which is not supported"),
        (
            b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- drawn -->\n<svg xmlns=".to_vec(),
            "is an image of the format svg, which is not supported",
        ),
        ([&[0; 128][..], b"DICM"].concat(), "is an image of the format dicom, which is not supported"),
        (lossless, "is a JPEG file without losses (SOF3), which is not supported"),
        (deep, "is a JPEG file with samples of 12 bits, which is not supported"),
    ] {
        let refused = limited().decode(&bytes).unwrap_err();
        assert_eq!((refused.fault, refused.reason.as_str()), (Fault::Unsupported, expected));
    }
    let refused = limited().decode(b"<?xml version=\"1.0\"?><svgs/>").unwrap_err();
    assert_eq!(refused.reason, "is not an image of a known format");
}

#[test]
fn a_header_without_end_is_refused() {
    for start in ["P2 ", "P5 #", "P7\n#"] {
        let mut bytes = start.as_bytes().to_vec();
        bytes.resize(1 << 19, b' ');
        bytes.extend(b"8 8 255 1");
        let refused = limited().decode(&bytes).unwrap_err();
        assert!(refused.reason.contains("its header is longer than 65536 bytes"), "{refused}");
    }
}

#[test]
fn deep_images_count_by_their_bytes() {
    let shape = |channels| ImageShape { height: 100, width: 100, channels };
    assert_eq!(LIMITS.check_decoded(shape(4), Depth::U8), Ok(40_000));
    let reason = LIMITS.check_decoded(shape(4), Depth::U16).unwrap_err();
    assert!(reason.contains("80000 bytes, more than 4 for each of `max_pixels = 10000`"), "{reason}");
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
        limits: LIMITS,
    };
    let json = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<DecodePolicy>(&json).unwrap(), policy);
    assert!(json.contains("\"catmull-rom\"") && json.contains("\"depth\":\"8\""), "{json}");
}

/// A file that a user of another tool stumbled over.
fn stumbling(name: &str) -> Vec<u8> {
    std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases").join(name)).unwrap()
}

#[track_caller]
fn largest_difference(got: &[u8], expected: &[u8]) -> u8 {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn jpeg_with_a_scan_per_component_is_what_libjpeg_makes_of_it() {
    let got = limited().decode(&stumbling("nonint-420.jpg")).unwrap();
    let expected = limited().decode(&stumbling("nonint-420.expected.png")).unwrap();
    assert_eq!(got.shape, expected.shape);
    assert!(largest_difference(&got.pixels, &expected.pixels) <= 4);
    // Cut and damaged, it is an error or an image.
    let bytes = stumbling("nonint-420.jpg");
    for i in 0..bytes.len() {
        let _ = limited().decode(&bytes[..i]);
        let mut damaged = bytes.clone();
        damaged[i] ^= 0x55;
        if let Err(refused) = limited().decode(&damaged) {
            assert!(!refused.reason.contains("panic"), "{i}: {refused}");
        }
    }
}

#[test]
fn arithmetic_coding_is_refused_by_name() {
    let refused = limited().decode(&stumbling("arithmetic.jpg")).unwrap_err();
    assert_eq!(refused.reason, "is a JPEG file with arithmetic coding, which is not supported");
    assert_eq!(refused.fault, Fault::Unsupported);
}

#[test]
fn orientation_is_found_wherever_it_stands() {
    for name in ["exif-after-idat.png", "exif-prefix.webp", "two-exif-6-then-1.jpg"] {
        let shape = limited().decode(&stumbling(name)).unwrap().shape;
        assert_eq!((shape.height, shape.width), (40, 24), "{name}");
    }
}

#[test]
fn tiff_with_premultiplied_alpha_is_blended_once() {
    let policy = DecodePolicy { alpha: Alpha::White, ..limited() };
    let got = policy.decode(&stumbling("assoc-alpha.tif")).unwrap();
    let npy = stumbling("assoc-alpha.on-white.expected.npy");
    let header = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    assert!(largest_difference(&got.pixels, &npy[header..]) <= 1);
}

#[test]
fn tiff_with_a_palette_is_read() {
    let got = limited().decode(&stumbling("palette.tif")).unwrap();
    assert_eq!((got.shape.channels, got.depth, got.seen.format), (3, Depth::U8, "tiff"));
    assert_eq!(got.pixels[..6], [136, 136, 136, 38, 38, 38]);
    // A palette of two colours, in samples of a bit: its indices were spread over the whole range.
    let indices = Raw { shape: ImageShape { channels: 1, ..got.shape }, pixels: vec![0, 255], ..raw(&got) };
    let two = tiff::Palette::of(vec![[1, 2, 3], [4, 5, 6]]);
    assert_eq!(two.apply(indices).unwrap().pixels, [1, 2, 3, 4, 5, 6]);
}

fn raw(decoded: &Decoded) -> Raw {
    Raw { shape: decoded.shape, depth: decoded.depth, pixels: Vec::new(), format: "tiff", alpha: RawAlpha::None }
}
