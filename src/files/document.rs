//! Documents of JSON that we write and read back: artifacts' descriptions, notes, `run.json`.
//!
//! Their bytes are digested and compared, so there is one way to write them: keys in the order of the type, two spaces
//! to indent, a line feed at the end.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The largest document that is read, in bytes.
pub const MOST: u64 = 256 << 20;

/// A document's bytes.
///
/// # Errors
/// If it is nothing that JSON can say.
pub fn to_bytes(value: &(impl Serialize + ?Sized)) -> io::Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
    json.push(b'\n');
    Ok(json)
}

/// Reads a document; where `format` says so, one whose key `format` has this number.
///
/// # Errors
/// What is wrong with it, to follow the file's name.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8], format: Option<u32>) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let unreadable = |cause: serde_json::Error| format!("is not readable ({cause})");
    if bytes.len() as u64 > MOST {
        return Err(format!("has {} bytes, expected at most {MOST}", bytes.len()));
    }
    // The number first: another form may have other keys.
    if let Some(expected) = format {
        let Form { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if format != expected {
            return Err(format!("has format {format}, expected {expected}"));
        }
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Example {
        format: u32,
        value: f64,
    }

    #[test]
    fn a_document_survives_and_one_of_another_form_is_told_by_its_number() {
        let example = Example { format: 2, value: 0.1 + 0.2 };
        let bytes = to_bytes(&example).unwrap();
        assert_eq!(bytes, b"{\n  \"format\": 2,\n  \"value\": 0.30000000000000004\n}\n");
        assert_eq!(from_bytes(&bytes, Some(2)), Ok(example));
        let read = |bytes: &[u8]| from_bytes::<Example>(bytes, Some(2)).unwrap_err();
        assert_eq!(read(b"{\"format\": 3, \"other\": {}}"), "has format 3, expected 2");
        assert!(read(b"{\"value\": 1}").starts_with("is not readable (missing field `format`"));
        for len in 0..bytes.len() - 1 {
            assert!(read(&bytes[..len]).starts_with("is not readable ("), "cut at {len}");
        }
    }
}
