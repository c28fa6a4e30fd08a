//! A model's numbers as NPZ, for NumPy: what [`Portable`] holds under the same names, each an array of the file.
//!
//! | array | what |
//! |---|---|
//! | `members.0.chain.1.mean`, `members.0.network.1.conv.weights`, … | the tensors, as in the safetensors file |
//! | `classes` | names, by label (`<U`, `[n_classes]`) |
//! | `index` | a text of JSON (`<U`, no axis): `digest`, `model` (as in the safetensors file), and `arrays`: of each array `shape`, `dtype` and what it `is` |
//!
//! `numpy.load` reads it without pickle. Arrays are stored as they are and in the order of their names, all with the
//! first date that ZIP knows, so that the bytes follow from the model. ZIP is written by hand: nothing is compressed, and
//! headers of three kinds are all there is.

use serde_json::{Value, json};

use super::portable::{Content, Portable};
use super::protobuf::CRC32;
use super::{Error, npy};

/// The largest file, and offset in one, that ZIP has without its 64-bit extension.
const MOST: usize = u32::MAX as usize;
/// 1980-01-01.
const FIRST_DATE: u16 = 1 << 5 | 1;

/// The file's bytes: the same for the same model.
///
/// # Errors
/// If an artifact is damaged, or the model is larger than a ZIP file may be.
pub fn to_bytes(model: &Portable) -> Result<Vec<u8>, Error> {
    let Content { model: description, tensors, digest } = model.content()?;
    let mut zip = Zip::default();
    let mut arrays = serde_json::Map::new();
    for (name, kind, shape, bytes) in tensors.arrays() {
        let dtype = if kind == npy::Kind::F64 { "float64" } else { "float32" };
        let about = json!({ "shape": shape, "dtype": dtype, "is": meaning(name) });
        arrays.insert(name.to_owned(), about);
        zip.array(name, kind, shape, bytes)?;
    }
    let index = json!({ "digest": digest, "model": description, "arrays": arrays }).to_string();
    zip.texts("classes", &[model.classes.len()], &model.classes)?;
    zip.texts("index", &[], &[index])?;
    zip.finish()
}

/// What an array is, by the last word of its name.
fn meaning(name: &str) -> Value {
    let is_of_network = name.contains(".network.");
    let word = |n: usize| name.rsplit('.').nth(n).unwrap_or_default();
    Value::from(match (word(0), word(1)) {
        ("weights", "conv") => "[kernel_height, kernel_width, channels_in / groups, filters]; images are NHWC",
        ("weights", "local") => "[height_out, width_out, kernel_height, kernel_width, channels_in, filters]",
        ("weights", "fc") => "[inputs, units]; an image is flattened row by row, channels innermost",
        ("weights", _) => "[values of a sample, features]: what a sample, less the mean, is multiplied by",
        ("bias", _) => "added to the products",
        ("scale", _) => "multiplies what was normalised",
        ("shift", _) => "added to that",
        ("running_mean", _) => "subtracted before normalising",
        ("running_variance", _) => "divided by the root of it plus epsilon",
        ("mean", _) if !is_of_network => "subtracted before the weights; empty: nothing is",
        ("subtract", _) => "(x - subtract) * multiply + add, by value, by channel, or one for all",
        ("multiply", _) => "then multiplied",
        ("add", _) => "then added",
        _ => "as the description says",
    })
}

/// A ZIP file of stored arrays.
#[derive(Default)]
struct Zip {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    n_files: u16,
}

impl Zip {
    fn array(&mut self, name: &str, kind: npy::Kind, shape: &[usize], values: &[u8]) -> Result<(), Error> {
        let (name, header) = (format!("{name}.npy"), npy::header(kind, shape));
        let len = header.len() + values.len();
        let at = self.bytes.len();
        if at + len + name.len() + 64 > MOST || self.n_files == u16::MAX {
            let message = "is larger than an NPZ file may be (4 GiB, 65,535 arrays): export it as safetensors";
            return Err(Error { file: "model".to_owned(), message: message.to_owned() });
        }
        // What both headers of a file have in common, from the version that it needs on.
        let mut about = Vec::with_capacity(26);
        for half in [20, 0, 0, 0, FIRST_DATE] {
            about.extend(half.to_le_bytes());
        }
        for word in [CRC32.of(&[&header, values]), len as u32, len as u32] {
            about.extend(word.to_le_bytes());
        }
        about.extend((name.len() as u16).to_le_bytes());
        about.extend([0, 0]);
        self.bytes.extend(b"PK\x03\x04");
        self.bytes.extend_from_slice(&about);
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(header);
        self.bytes.extend(values);
        self.directory.extend(b"PK\x01\x02\x14\x00");
        self.directory.extend(about);
        // No comment, the first disk, no attributes.
        self.directory.extend([0; 10]);
        self.directory.extend((at as u32).to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.n_files += 1;
        Ok(())
    }

    fn texts(&mut self, name: &str, shape: &[usize], texts: &[String]) -> Result<(), Error> {
        let longest = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
        let mut values = Vec::with_capacity(texts.len() * longest * 4);
        for (i, text) in texts.iter().enumerate() {
            values.extend(text.chars().flat_map(|c| u32::from(c).to_le_bytes()));
            values.resize((i + 1) * longest * 4, 0);
        }
        self.array(name, npy::Kind::Text(longest), shape, &values)
    }

    fn finish(mut self) -> Result<Vec<u8>, Error> {
        let (at, len) = (self.bytes.len() as u32, self.directory.len() as u32);
        self.bytes.extend(self.directory);
        self.bytes.extend(b"PK\x05\x06\0\0\0\0");
        self.bytes.extend([self.n_files.to_le_bytes(), self.n_files.to_le_bytes()].concat());
        self.bytes.extend([len.to_le_bytes(), at.to_le_bytes()].concat());
        self.bytes.extend([0, 0]);
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn arrays_come_back_from_the_file_and_the_bytes_are_the_same() {
        let written = || {
            let mut zip = Zip::default();
            zip.array("a.b", npy::Kind::F32, &[2], &[1.5f32, -2.0].map(f32::to_le_bytes).concat()).unwrap();
            zip.texts("classes", &[2], &["cafe\u{301}".to_owned(), String::new()]).unwrap();
            zip.finish().unwrap()
        };
        assert_eq!(written(), written());
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(written())).unwrap();
        let mut read = |name: &str| {
            let mut bytes = Vec::new();
            // Checks the sum, too.
            archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes[10..npy::HEADER_LEN]).trim_end().to_owned();
            (text, bytes[npy::HEADER_LEN..].to_vec())
        };
        let (header, values) = read("a.b.npy");
        assert_eq!(header, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }");
        assert_eq!(values, [0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]);
        let (header, values) = read("classes.npy");
        assert_eq!(header, "{'descr': '<U5', 'fortran_order': False, 'shape': (2,), }");
        assert_eq!((values.len(), &values[16..20]), (40, &[1, 3, 0, 0][..]));
    }
}
