//! The revisions of everything that a task computes with: one table, whose digests a test computes anew.
//!
//! A *room* is a piece of the program whose bytes people's results depend on: a kind of layer, an optimizer, a filter of
//! images, what a stage itself does. A task's fingerprint holds the revisions of exactly its rooms ([`Stage::rooms`]), so
//! that a mended layer makes those networks stale that have it, and no others. `revisions/tests.rs` computes each room on a
//! tiny input and compares the digest of (revision, bytes) with the table's: a changed byte fails there by the room's name,
//! and no new digest is right for the old revision.
//!
//! What several rooms stand on (elementary functions, streams of random numbers, the engine's sums) has no line of its own:
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
    room("adagrad", 1, ""),
    room("adam", 1, ""),
    room("adamw", 1, ""),
    room("affine", 1, ""),
    room("avgpool", 1, ""),
    room("bn", 1, ""),
    room("bootstrap", 1, ""),
    room("brightness", 1, ""),
    room("center", 1, ""),
    room("constant", 1, ""),
    room("conv", 1, ""),
    room("cosine", 1, ""),
    room("crop", 1, ""),
    room("cutout", 1, ""),
    room("decode", 1, ""),
    room("divide", 1, ""),
    room("draw", 1, ""),
    room("dropout", 1, ""),
    room("elu", 1, ""),
    room("ensemble", 2, ""),
    room("evaluate", 2, ""),
    room("exponential", 1, ""),
    room("fc", 1, ""),
    room("flatten", 1, ""),
    room("flip", 1, ""),
    room("gap", 1, ""),
    room("gaussian-projection", 1, ""),
    room("ingest", 1, ""),
    room("init", 1, ""),
    room("input", 1, ""),
    room("intervals", 1, ""),
    room("lbfgs", 1, ""),
    room("leaky", 1, ""),
    room("local", 1, ""),
    room("mean-probability", 1, ""),
    room("metrics", 1, ""),
    room("mixup", 1, ""),
    room("noise", 1, ""),
    room("pca", 3, ""),
    room("plateau", 1, ""),
    room("pool", 1, ""),
    room("preprocess", 1, ""),
    room("readers", 1, ""),
    room("reduce", 1, ""),
    room("relu", 1, ""),
    room("resize", 1, ""),
    room("rmsprop", 1, ""),
    room("rotate", 1, ""),
    room("sanity", 1, ""),
    room("scale", 1, ""),
    room("search", 1, ""),
    room("sgd", 1, ""),
    room("shift", 1, ""),
    room("softmax", 1, ""),
    room("sparse-projection", 1, ""),
    room("split", 1, ""),
    room("stacking", 1, ""),
    room("standardize-image", 1, ""),
    room("step", 1, ""),
    room("train", 2, ""),
    room("vote", 1, ""),
    room("weighted", 1, ""),
    room("winograd", 1, ""),
    room("zca", 1, ""),
];

/// The revision of the room called `name`.
pub fn revision_of(name: &str) -> Option<u32> {
    ROOMS.binary_search_by_key(&name, |room| room.name).ok().map(|at| ROOMS[at].revision)
}

/// The rooms `names` with their revisions, `room=revision` each, sorted by name, none twice.
///
/// # Panics
/// If a room is not in the table: a stage names one that nobody keeps a revision of.
pub fn of(names: &[&'static str]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    let pair = |name: &str| match revision_of(name) {
        Some(revision) => format!("{name}={revision}"),
        None => panic!("room `{name}` has no line in the table of revisions"),
    };
    names.into_iter().map(pair).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
