//! Arrays as NPY files (version 1.0, C order) that are mapped: a header of one length, then the values.

use super::{Bytes, Error};

/// Bytes of the header: enough for any shape, and a multiple of 64 as the format asks, so that the values of a mapped
/// file are aligned.
pub const HEADER_LEN: usize = 128;

/// The type of an array's values; all little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    U8,
    /// Whole numbers of 16 bits.
    U16,
    /// Whole numbers of 32 bits.
    U32,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
    /// Texts of at most so many characters, each of four bytes (UCS-4), filled up with zeros.
    Text(usize),
}

impl Kind {
    fn word(self) -> String {
        match self {
            Kind::U8 => "|u1".to_owned(),
            Kind::U16 => "<u2".to_owned(),
            Kind::U32 => "<u4".to_owned(),
            Kind::F32 => "<f4".to_owned(),
            Kind::F64 => "<f8".to_owned(),
            Kind::Text(n) => format!("<U{n}"),
        }
    }

    fn bytes(self) -> usize {
        match self {
            Kind::U8 => 1,
            Kind::U16 => 2,
            Kind::U32 | Kind::F32 => 4,
            Kind::F64 => 8,
            Kind::Text(n) => 4 * n,
        }
    }
}

/// The header of an array of this shape, [`HEADER_LEN`] bytes.
pub fn header(kind: Kind, shape: &[usize]) -> Vec<u8> {
    let axes: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A tuple of one needs its comma.
    let comma = if axes.len() == 1 { "," } else { "" };
    let (word, axes) = (kind.word(), axes.join(", ") + comma);
    let text = format!("{{'descr': '{word}', 'fortran_order': False, 'shape': ({axes}), }}");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend(((HEADER_LEN - 10) as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out.resize(HEADER_LEN - 1, b' ');
    out.push(b'\n');
    out
}

/// Whether `bytes`, of the file called `file`, are an array as `said_by` describes it.
///
/// # Errors
/// If they are not.
pub fn check(file: &str, bytes: &Bytes, kind: Kind, shape: &[usize], said_by: &str) -> Result<(), Error> {
    let wrong = |message: String| Err(Error { file: file.to_owned(), message });
    if !bytes.starts_with(&header(kind, shape)) {
        return wrong(format!("has a header that does not agree with {said_by}"));
    }
    let len = shape.iter().try_fold(kind.bytes(), |len, &axis| len.checked_mul(axis));
    if Some(bytes.len()) != len.and_then(|len| len.checked_add(HEADER_LEN)) {
        return wrong(format!("has {} bytes, which is not what {said_by} says", bytes.len()));
    }
    Ok(())
}
