//! Random numbers: streams derived by name, addressed by index, never taken in turn.
//!
//! A [`Stream`] is a ChaCha8 key, BLAKE3 of (seed, purpose, named indices). Draw `i` of a stream is a function of the
//! key and `i` alone, so that any thread may compute any draw in any order. The sampling functions are ours, with pinned
//! test vectors, since rand's may change in a minor release.

use rand::Rng as _;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// A stream of random numbers that are addressed by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u8; 32],
}

impl Stream {
    /// The stream of this `seed`, `purpose` ("shuffle", "init", …) and indices (`[("fold", 2), ("epoch", 7)]`).
    pub fn new(seed: u64, purpose: &str, indices: &[(&str, u64)]) -> Stream {
        let mut hasher = blake3::Hasher::new();
        let mut text = |s: &str| {
            hasher.update(&(s.len() as u64).to_le_bytes());
            hasher.update(s.as_bytes());
        };
        text("convoy stream 1");
        text(purpose);
        for (name, _) in indices {
            text(name);
        }
        hasher.update(&seed.to_le_bytes());
        for (_, index) in indices {
            hasher.update(&index.to_le_bytes());
        }
        Stream { key: *hasher.finalize().as_bytes() }
    }

    /// 64 random bits at `index`.
    pub fn bits(&self, index: u64) -> u64 {
        let mut rng = ChaCha8Rng::from_seed(self.key);
        rng.set_word_pos(u128::from(index) * 2);
        rng.next_u64()
    }
}
