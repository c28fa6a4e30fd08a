//! The identity of a training run: what all its random streams are derived from.

use crate::rng::Stream;

/// A seed and the indices of the run: fit set, trial, member. Two runs with the same identity draw the same numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeds {
    /// The stage's or the manifest's seed.
    pub seed: u64,
    /// Such as `("fit set", 2)`, `("trial", 7)`: at most 4.
    pub indices: Vec<(&'static str, u64)>,
}

/// The most indices of one stream: 4 of the run, 4 of the place within it.
const MOST: usize = 8;

impl Seeds {
    /// The stream for `purpose` at `place` within the run (`[("layer", 3), ("step", 117)]`). Does not allocate.
    ///
    /// # Panics
    /// If there are more than 8 indices in all.
    pub fn stream(&self, purpose: &str, place: &[(&'static str, u64)]) -> Stream {
        let mut all = [("", 0); MOST];
        let n = self.indices.len();
        all[..n].copy_from_slice(&self.indices);
        all[n..n + place.len()].copy_from_slice(place);
        Stream::new(self.seed, purpose, &all[..n + place.len()])
    }
}
