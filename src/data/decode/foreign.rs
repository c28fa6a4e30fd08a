//! Image formats that are not read and that the decoding crate does not know either: the one place that knows what
//! their files begin with.

/// The name of such a format, by a file's first bytes.
pub fn name_of(head: &[u8]) -> Option<&'static str> {
    match head {
        [_, _, _, _, b'f', b't', b'y', b'p', b'h', b'e', b'i' | b'v', ..]
        | [_, _, _, _, b'f', b't', b'y', b'p', b'm', b'i' | b's', b'f', b'1', ..] => Some("heic"),
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => Some("jpeg 2000"),
        [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] | [0xff, 0x0a, ..] => Some("jpeg xl"),
        [b'8', b'B', b'P', b'S', ..] => Some("psd"),
        _ if is_svg(head) => Some("svg"),
        [b'I', b'I', b'+', 0, ..] | [b'M', b'M', 0, b'+', ..] => Some("bigtiff"),
        // Behind 128 bytes that may be anything.
        _ if head.get(128..132) == Some(b"DICM") => Some("dicom"),
        _ => None,
    }
}

/// Whether it is XML whose first element is `svg`, as far as its beginning tells.
fn is_svg(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let is_xml = head.starts_with(b"<?xml") || head.starts_with(b"<!--") || head.starts_with(b"<!DOCTYPE svg");
    let begins = |text: &[u8]| text.starts_with(b"<svg") && text.get(4).is_none_or(|b| !b.is_ascii_alphanumeric());
    begins(head) || is_xml && head[..head.len().min(1024)].windows(5).any(begins)
}
