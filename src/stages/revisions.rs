//! The revisions of everything that a task computes with: one table, whose digests a test computes anew.
//!
//! A *room* is a piece of the program whose bytes people's results depend on: a kind of layer, an optimizer, a filter
//! of images, what a stage itself does. A task's fingerprint holds the revisions of exactly its rooms
//! ([`Stage::rooms`]), so that a mended layer makes those networks stale that have it, and no others.
//! `revisions/tests.rs` computes each room on a tiny input and compares the digest of (revision, bytes) with the
//! table's: a changed byte fails there by the room's name, and no new digest is right for the old revision.
//!
//! What several rooms stand on (elementary functions, streams of random numbers, the engine's sums) has no line of its
//! own:
//! where it changes, so do the digests of those rooms.
//!
//! [`Stage::rooms`]: super::Stage::rooms

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its name: the word of the manifest, where it has one.
    pub name: &'static str,
    /// From 1, one more whenever the same input gives other bytes.
    pub revision: u32,
    /// The first 16 hexadecimal digits of BLAKE3 over the revision and what the room makes of a tiny input.
    pub golden: &'static str,
}

const fn room(name: &'static str, revision: u32, golden: &'static str) -> Room {
    Room { name, revision, golden }
}

/// Every room, by name.
#[rustfmt::skip]
pub const ROOMS: &[Room] = &[
    room("abstain", 1, "f76a9fc989463cb5"),
    room("adagrad", 2, "bb07ab99c4897eaf"),
    room("adam", 2, "21fd67dfba73b825"),
    room("adamw", 2, "15199bb0ea79f5b0"),
    room("affine", 1, "f3fae932b056b478"),
    room("avgpool", 2, "7e96206fd2f6068f"),
    room("bn", 2, "fde7d55587e5e172"),
    room("bootstrap", 1, "93d45973ae9e4ba9"),
    room("brightness", 1, "a283ce34f0e61b12"),
    room("center", 1, "1d1b7b9e31285ef0"),
    room("color-jitter", 1, "81dcc9f1b0261ad3"),
    room("constant", 1, "e0525fcbe52dfccf"),
    room("conv", 2, "1f7e6123429e2a6c"),
    room("cosine", 1, "8483c1a34604821e"),
    room("crop", 1, "cdb87e2b54247911"),
    room("cutout", 1, "15405bc849973ecb"),
    room("decode", 1, "3164eacd7c36bf21"),
    room("divide", 1, "a3848d8fc6d38527"),
    room("draw", 2, "5a1f76c83617b360"),
    room("dropout", 2, "d06850b7855fb470"),
    room("elu", 2, "6de1816b258843ea"),
    room("ensemble", 2, "21ff90c10874db73"),
    room("evaluate", 4, "e0f0354370cdef70"),
    room("exponential", 1, "1c51eff6e358b4b9"),
    room("fc", 2, "a1e0b75594ab350a"),
    room("flatten", 2, "6afc8d83e0128faa"),
    room("flip", 1, "63dd017ac66a4f92"),
    room("gap", 2, "76b780d82327f7f6"),
    room("gaussian-projection", 1, "66f53a12c3998b6d"),
    room("ingest", 4, "08cabe4f28d581bf"),
    room("init", 2, "27c54c42b0357625"),
    room("input", 2, "1d1d491526c5a5bc"),
    room("intervals", 1, "2e884c25b6ed97a8"),
    room("lbfgs", 2, "a9388fcd9672ab6d"),
    room("leaky", 2, "61a274ccc3cf36bd"),
    room("local", 2, "bec62d2c114dc13b"),
    room("mean-probability", 1, "e3701d711ffe315c"),
    room("metrics", 1, "c47fbe70cd9d413e"),
    room("mixup", 1, "dc5950a5caf8e76f"),
    room("noise", 2, "9ef3650f49112af1"),
    room("pca", 4, "e1b690a002a2b5ab"),
    room("perspective", 1, "8df04196ec7a6c7e"),
    room("pictures", 1, "a37958c2f1554eb6"),
    room("plateau", 1, "7f9aa265f2c695f0"),
    room("pool", 2, "3f65813d6cfcdb08"),
    room("preprocess", 1, "65681c748b8c5b6d"),
    room("readers", 3, "0c00350a8cac10ab"),
    room("reduce", 1, "8e035223fda2c6b6"),
    room("relu", 2, "7cfed8ca8fb758ce"),
    room("resize", 1, "e913a3caa106c08b"),
    room("rmsprop", 2, "d3e3c4538ebb7b61"),
    room("rotate", 1, "3f4d6d327fd7ece2"),
    room("sanity", 2, "eec12e99237c484a"),
    room("scale", 1, "06a7420076c29efe"),
    room("search", 3, "52c31e777145eeaf"),
    room("sgd", 2, "490a8b4350db7731"),
    room("shift", 1, "2d05054fc11f8c3a"),
    room("softmax", 1, "6dee97a65c672f7e"),
    room("sparse-projection", 1, "7712d1263741eeb8"),
    room("split", 1, "0c126a9ddbde310d"),
    room("stacking", 2, "f5dfee0d1a7ee7d1"),
    room("standardize-image", 1, "a91729826afc21a1"),
    room("step", 1, "e55b6edfd16cc690"),
    room("suspects", 1, "2fd042b58c1398f1"),
    room("temperature", 1, "56a9c33135f87625"),
    room("train", 3, "60cb0733784b8c99"),
    room("trust", 1, "3e062c40d89985a7"),
    room("views", 1, "3824b1d9a890be8b"),
    room("vote", 1, "23b155759e8ffbda"),
    room("weighted", 1, "c93f5cc52e900307"),
    room("winograd", 2, "33c44edb52c24a4e"),
    room("zca", 2, "bddb569bfae61334"),
    room("zoom", 1, "5436e61773ec66a4"),
];

/// The revision of the room called `name`.
pub fn revision_of(name: &str) -> Option<u32> {
    ROOMS.binary_search_by_key(&name, |room| room.name).ok().map(|at| ROOMS[at].revision)
}

/// The rooms `names` with their revisions, sorted by name, none twice.
///
/// # Panics
/// If a room is not in the table: a stage names one that nobody keeps a revision of.
pub fn of(names: &[&'static str]) -> Vec<(String, u32)> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    let pair = |name: &str| match revision_of(name) {
        Some(revision) => (name.to_owned(), revision),
        None => panic!("room `{name}` has no line in the table of revisions"),
    };
    names.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests;
