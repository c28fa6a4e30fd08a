//! Images that an earlier ingest of the same folder decoded, found again by the content of their files: one edited file
//! costs the decoding of one image.
//!
//! The folder's digests prove which content each path had and has; an image is taken over where the same bytes were decoded
//! by the same policy, wherever they lie now and whatever their class is.

use std::collections::HashMap;

use crate::artifact::dataset::{Dataset, Names, Numbers, SeenTable, read_decode_policy};
use crate::data::decode::{DecodePolicy, Decoded, Seen};
use crate::data::samples::{Samples as _, Values};
use crate::stages::Before;

/// The images of an earlier data set, by the content of their files.
pub(super) struct Earlier {
    before: Before,
    dataset: Dataset,
    seen: Vec<Seen>,
    rows: HashMap<[u8; 32], usize>,
}

impl Earlier {
    /// What `before` holds, if it was decoded by `policy`. What cannot be read is not taken.
    pub(super) fn of(before: Before, policy: &DecodePolicy) -> Option<Earlier> {
        if read_decode_policy(&before.files).ok()? != *policy {
            return None;
        }
        let (dataset, names) = (Dataset::read(&before.files).ok()?, Names::read(&before.files).ok()?);
        let seen = SeenTable::read(&before.files).ok()?.0;
        if names.n_samples() != dataset.n_samples() || seen.len() != dataset.n_samples() {
            return None;
        }
        let content = |row: usize| Some((*before.then.get(names.path(row))?, row));
        let rows = (0..dataset.n_samples()).filter_map(content).collect();
        Some(Earlier { dataset, seen, rows, before })
    }

    /// The image at `path` of the source and the digest of its pixels, if the file's bytes were decoded before.
    pub(super) fn image(&self, path: &str) -> Option<(Decoded, u128)> {
        let row = *self.rows.get(self.before.now.get(path)?)?;
        let pixels = match self.dataset.values(row) {
            Values::U8(bytes) => bytes.to_vec(),
            Values::U16(values) => values.as_flattened().to_vec(),
            Values::F32(_) => return None,
        };
        let (shape, depth) = (Numbers::shape(&self.dataset), self.dataset.depth());
        Some((Decoded { shape, depth, pixels, seen: self.seen[row] }, self.dataset.digest(row)))
    }
}
