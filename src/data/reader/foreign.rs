//! What people bring and no reader reads: told by name, with what to do.

use super::classes::some_of;
use super::input::Input;
use super::table::Dialect;
use crate::data::decode::foreign;

/// Starts of files, what begins so, and what to do about it.
const STARTS: &[(&[u8], &str, &str)] = &[
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", ARRAYS),
    (b"MATLAB", "a MATLAB file", ARRAYS),
    (b"CDF", "a NetCDF file", ARRAYS),
    (b"PAR1", "a Parquet file", IMAGE_COLUMN),
    (b"ARROW1", "an Arrow file", IMAGE_COLUMN),
    (b"SQLite format 3\0", "an SQLite database", IMAGE_COLUMN),
    (b"\x80\x02", PICKLE, ARRAYS),
    (b"\x80\x03", PICKLE, ARRAYS),
    (b"\x80\x04", PICKLE, ARRAYS),
    (b"\x80\x05", PICKLE, ARRAYS),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (b"\xfd7zXZ\0", "packed with xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed with Zstandard", UNPACK),
    (b"BZh", "packed with bzip2", UNPACK),
    (b"%PDF", "a PDF file", FOLDERS),
];

const PICKLE: &str = "a Python pickle";
const ARRAYS: &str = "save its arrays as NPZ: `np.savez(\"data.npz\", images=…, labels=…)`";
const IMAGE_COLUMN: &str = "write its images into one folder per class, or its arrays into an NPZ file";
const UNPACK: &str = "unpack it and set `source` to the folder, or make a `.tar.gz` of it";
const FOLDERS: &str = "put images into one folder per class";

/// What a file is that begins with `head`, and what to do about it, if it is of a kind that is known and not read.
pub(super) fn of(path: &str, head: &[u8]) -> Option<(&'static str, &'static str)> {
    if let Some((_, what, help)) = STARTS.iter().find(|(start, ..)| head.starts_with(start)) {
        return Some((what, help));
    }
    // The one image format that holds whole series.
    if foreign::name_of(head) == Some("dicom") {
        return Some(("a DICOM file", "convert its images to PNG, 16 bits deep where that matters"));
    }
    if is_records(head) {
        return Some(("a TFRecord file", IMAGE_COLUMN));
    }
    let name = path.to_ascii_lowercase();
    let first = head.trim_ascii_start().first();
    if super::is_text(head) && (first == Some(&b'{') || first == Some(&b'[') && name.contains(".json")) {
        return Some(match name.ends_with(".ipynb") {
            true => ("a notebook", FOLDERS),
            false => ("a JSON file", "make a CSV table of it, with the columns `path` and `label`"),
        });
    }
    if name.ends_with(".mdb") {
        return Some(("an LMDB database", IMAGE_COLUMN));
    }
    let old = ("text that is neither UTF-8 nor UTF-16", "save it as UTF-8 (`CSV UTF-8` in Excel)");
    is_old_text(head).then_some(old)
}

/// Whether it is text as older programs save it, with accents in some code page.
fn is_old_text(head: &[u8]) -> bool {
    let is_shown = |byte: &u8| *byte >= 0x20 || matches!(byte, b'\t' | b'\n' | b'\r');
    head.contains(&b'\n') && head.iter().all(is_shown) && !super::is_text(head)
}

/// TFRecord: a length in 8 bytes, its masked CRC-32C in 4, then as many bytes.
fn is_records(head: &[u8]) -> bool {
    let Some((length, rest)) = head.split_first_chunk::<8>() else { return false };
    let Some((sum, _)) = rest.split_first_chunk::<4>() else { return false };
    let mut crc = !0_u32;
    for byte in length {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    let crc = !crc;
    crc.rotate_right(15).wrapping_add(0xa282_ead8) == u32::from_le_bytes(*sum)
}

/// Whether [`instead`] has more to say of a file than its name.
pub(super) fn is_known(path: &str, head: &[u8]) -> bool {
    of(path, head).is_some() || readable(path, head).is_some()
}

/// What a folder or an archive has instead of images, for a message that goes on from "has no image"; and what to do.
/// `one` is the path of one of its `n_files` files, with its first bytes.
pub(super) fn instead(n_files: usize, one: Option<(&str, &[u8])>) -> (String, String) {
    const HELP: &str = "put each image into a folder that is named after its class";
    let Some((path, head)) = one else { return ("and no other file".to_owned(), HELP.to_owned()) };
    let files = if n_files == 1 { "1 file".to_owned() } else { format!("{n_files} files") };
    let known = of(path, head).map(|(what, help)| (what, help.to_owned()));
    match known.or_else(|| readable(path, head)) {
        Some((what, help)) => (format!("among its {files}: `{path}` is {what}"), help),
        None => (format!("among its {files}, such as `{path}`"), HELP.to_owned()),
    }
}

/// What is read, but by itself and not within a folder.
fn readable(path: &str, head: &[u8]) -> Option<(&'static str, String)> {
    let is_table = || path.to_ascii_lowercase().ends_with("csv") && Dialect::of(head, |_| false).is_some();
    let what = match head {
        _ if head.get(257..262) == Some(b"ustar") => "a tar archive",
        _ if head.starts_with(b"\x93NUMPY") => "an array",
        _ if head.starts_with(b"PK\x03\x04") => "a zip archive",
        _ if is_table() => "a table",
        _ => return None,
    };
    Some((what, format!("set `source` to the file that has the data, such as `{path}` in this folder")))
}

/// What is wrong with a zip archive that holds no array but these files.
pub(super) fn archive(input: &Input, names: &[String]) -> super::Error {
    if names.iter().any(|name| name == "xl/workbook.xml") {
        return input.wrong("is an Excel workbook").help("save the sheet as CSV");
    }
    if names.iter().any(|name| name.ends_with("data.pkl")) {
        return input.wrong("is a PyTorch file").help(ARRAYS);
    }
    let n_images = names.iter().filter(|name| super::is_image_name(name) == Some(true)).count();
    if n_images > 0 {
        return input
            .wrong(format_args!("is a zip archive of {n_images} image files, which is not read"))
            .help("unpack it and set `source` to the folder, or make a `.tar.gz` of it");
    }
    let files = if names.len() == 1 { "1 file".to_owned() } else { format!("{} files", names.len()) };
    input
        .wrong(format_args!("is a zip archive of {files} and no array: {}", some_of(names.iter().map(String::as_str))))
        .help("unpack it and set `source` to what has the data")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{error_of, png};

    #[test]
    fn known_formats_are_called_by_name() {
        let png = png(1, 1, &[7]);
        let record = [&[24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22][..], &[0; 24]].concat();
        let dicom = [&[0; 128][..], b"DICM", &[0; 9]].concat();
        for (bytes, expected) in [
            (&b"\x89HDF\r\n\x1a\n\0\0"[..], "is an HDF5 file, which is not read"),
            (b"MATLAB 5.0 MAT-file, Platform: GLNXA64 \0\x01IM", "is a MATLAB file, which is not read"),
            (b"PAR1\x15\x04", "is a Parquet file, which is not read"),
            (b"\x80\x04\x95abc", "is a Python pickle"),
            (b"BZh91AY&SY", "is packed with bzip2, which is not read"),
            (b"{\"images\": []}", "is a JSON file, which is not read"),
            (b"path,label\na.png,caf\xe9\n", "is text that is neither UTF-8 nor UTF-16, which is not read"),
            (&png, "is one image, which is not read"),
            (&record, "is a TFRecord file, which is not read"),
            (&dicom, "is a DICOM file, which is not read"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("source");
            std::fs::write(&path, bytes).unwrap();
            assert!(error_of(&path).contains(expected), "{}", error_of(&path));
        }
    }

    #[test]
    fn a_folder_without_images_says_what_it_has() {
        for (name, bytes, expected) in [
            ("a/x.parquet", &b"PAR1\x15"[..], "has no image among its 2 files: `a/x.parquet` is a Parquet file"),
            ("a/x.npy", b"\x93NUMPY\x01\0", "has no image among its 2 files: `a/x.npy` is an array"),
            ("a/x.dat", b"\x01\x02\x03\x04", "has no image among its 2 files, such as `a/x.dat`"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("a")).unwrap();
            std::fs::write(folder.path().join(name), bytes).unwrap();
            std::fs::write(folder.path().join("a/y.txt"), "text").unwrap();
            assert!(error_of(folder.path()).contains(expected), "{}", error_of(folder.path()));
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(error_of(folder.path()).ends_with("has no image and no other file"), "{}", error_of(folder.path()));
    }
}
