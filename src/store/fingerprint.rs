//! When is a stage stale? The essay on reruns, and the fingerprint that decides.
//!
//! # The idea
//!
//! A task (a stage, or one fold of it) is a pure function: the same config, inputs and seed give the same bytes. So its
//! artifact can be named by a digest of everything it could read, its **fingerprint**. Before computing, look the
//! fingerprint up: found, the task is *fresh* and its artifact is used; not found, it is *stale* and is computed.
//! Nothing else decides: no modification time, no "dirty" flag, no order of events. Going back to an old setting is
//! therefore fresh again, two pipelines share what they have in common, and a moved or copied project stays fresh.
//!
//! The inputs of a task enter by **content**, not by the fingerprint of the task that made them. A stage that reruns and
//! writes the same bytes as before does not wake the ones below it (*early cutoff*). The price: while something above is
//! stale, the fingerprint below cannot be known; such a task is *pending*, and is decided once its inputs are there.
//!
//! # What is in a fingerprint
//!
//! | value | in? | |
//! |---|---|---|
//! | kind of the stage | yes | |
//! | its `revision`, with those of the rooms it computes with | yes | (1) |
//! | which part: whole, fold f, all | yes | |
//! | the keys it reads, resolved | yes | (2) |
//! | the seed in force | where the stage draws from it | (3) |
//! | artifacts it reads, in order: content and part | yes | (4) |
//! | files from outside: role and content | yes | (5) |
//! | names of the stages | where they are written into the artifact | (6) |
//! | path of the manifest, of the project, of a source file | no | (5) |
//! | modification times, owners, permissions | no | (7) |
//! | number of threads, instruction set, memory, host | no | (8) |
//! | version of the program | no | (1) |
//! | comments, white space, order of keys, spelled-out defaults | no | (2) |
//! | environment variables | no | |
//!
//! 1. A new release must not throw away everybody's cache, and a changed algorithm must not be hidden by it. Each stage
//!    carries a number that is bumped when its bytes change; tests with golden digests fail when bytes move and no
//!    number did.
//! 2. Every key goes in with its value in force, defaults written out. Spelling a default changes nothing; a release
//!    that changes a default makes stale what relied on it, and says so.
//! 3. A new manifest seed leaves `ingest` fresh: it draws nothing. A stage's own `seed` that equals the manifest's
//!    changes nothing.
//! 4. By the digest over the names and digests of the artifact's files.
//! 5. A folder enters by the relative path and content of every visible file in it, so that a renamed class is a change and a renamed
//!    parent is none. The role ("images", "labels") is in, since swapping two files must not go unnoticed.
//! 6. `evaluate` writes a `model` column. A trained network knows no name: renaming a stage retrains nothing.
//! 7. `touch`, a fresh clone and an unpacked archive change times and no content. Times serve only to skip hashing; see
//!    below.
//! 8. The numerics contract promises the same bits for all of them.
//!
//! The encoding is canonical: every item is preceded by its length, lists by their count, so that no two different sets
//! of parts give the same bytes.
//!
//! # The files beside an artifact
//!
//! ```text
//! .convoy/
//!   CACHEDIR.TAG, .gitignore     so that backups and Git leave the folder alone
//!   format                       another number is refused, not misread; on the disk before anything else is
//!   ac/8a31…                     one record per finished task: its parts as text, its outputs by digest and size
//!   cas/3f90…                    blobs by their own digest, read-only
//!   checkpoints/8a31…            a task that was killed half-way, and may go on from there
//!   index/                       stamps that save hashing: of source files, of verified blobs
//!   locks/                       one flock per fingerprint: the second run waits and then hits
//!   roots/                       where the projects are that use the store: `gc` looks for lock files there
//!   runs/NAME.json               what each task was computed from last time: used only to say *why*
//!   tmp/                         artifacts being written
//!   quarantine/                  blobs and records found damaged; results that contradict a record, whole
//! ```
//!
//! The parts of the fingerprint stand in the record (`ac/`) and in `runs/`. They are never read to decide whether
//! something is fresh, only to say what changed: `learning_rate` from 0.1 to 0.05, in line 16.
//!
//! # When a run is killed midway
//!
//! A task writes into its own folder below `tmp/`. When it has ended well, its files are synced, renamed into `cas/`,
//! the folder synced; only then is the record synced and renamed into `ac/`. (Both folders are flat, so that each task
//! syncs two folders and not one per blob.) So a record that can be seen names blobs
//! that are complete, at every instant, after SIGKILL and after a power cut. Left behind are: a folder in `tmp/`
//! (swept by the next run), blobs without a record (swept by `gc`), a lock that the kernel has already let go of.
//! Finished folds are in the store; the next run finds them by their fingerprints and computes the others, from their
//! last checkpoint where the stage keeps one. Nothing has to be repaired.
//!
//! A blob is checked against its digest on its first read after it changed on disk: its stamp (inode, size,
//! modification and change time) differs from the one remembered. A damaged blob goes to `quarantine/`, its task is
//! stale with the reason *corrupt*, and the same run computes it again.
//!
//! # Known weaknesses
//!
//! - A source file that changes, keeps its size, and whose change time is faked or falls into the same tick of the file
//!   system's clock as the hashing. As in Git, files younger than the clock's grain at the time of hashing are hashed
//!   again next time, so this needs a forged clock, or a file system without change times.
//! - On network file systems stamps are not trusted, so a no-op there reads every source file.
//! - Bits that rot on the disk under an unchanged stamp are seen by `verify` only.
//! - A source that changes while it is read gives an artifact of a mixture; the next run sees the new content and is
//!   stale.
//! - The golden digests can only notice a forgotten `revision` on what they run.

use super::digest::Digest;

/// Everything a task's artifact depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Parts {
    /// The stage's kind.
    pub kind: String,
    /// Its revision and those of what it computes with.
    pub revision: String,
    /// `whole`, `fold 3`, `all`.
    pub part: String,
    /// The seed in force, where the stage reads it.
    pub seed: Option<u64>,
    /// Resolved keys, sorted by key.
    pub keys: Vec<(String, String)>,
    /// Names of stages that are written into the artifact.
    pub names: Vec<String>,
    /// The artifacts it reads, in its own order.
    pub inputs: Vec<Input>,
    /// The files it reads from outside.
    pub sources: Vec<SourceDigest>,
}

/// An artifact that a task reads.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Input {
    /// The stage it is from. For people: not in the fingerprint.
    pub stage: String,
    /// What it is to the task, as `dataset whole`.
    pub role: String,
    /// Its content.
    pub artifact: Digest,
}

/// A file or folder from outside, by content.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceDigest {
    /// What it is to the stage.
    pub role: String,
    /// Its content.
    pub digest: Digest,
}

impl Parts {
    /// The digest of all of it.
    pub fn fingerprint(&self) -> Digest {
        let mut encoder = Encoder(blake3::Hasher::new());
        encoder.text("convoy fingerprint 1");
        encoder.text(&self.kind);
        encoder.text(&self.revision);
        encoder.text(&self.part);
        encoder.count(usize::from(self.seed.is_some()));
        if let Some(seed) = self.seed {
            encoder.0.update(&seed.to_le_bytes());
        }
        encoder.count(self.keys.len());
        for (key, value) in &self.keys {
            encoder.text(key);
            encoder.text(value);
        }
        encoder.count(self.names.len());
        for name in &self.names {
            encoder.text(name);
        }
        encoder.count(self.inputs.len());
        for input in &self.inputs {
            encoder.text(&input.role);
            encoder.0.update(&input.artifact.0);
        }
        encoder.count(self.sources.len());
        for source in &self.sources {
            encoder.text(&source.role);
            encoder.0.update(&source.digest.0);
        }
        Digest(*encoder.0.finalize().as_bytes())
    }

    /// The parts as lines of a record, for people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines =
            vec![format!("kind {}", self.kind), format!("revision {}", self.revision), format!("part {}", self.part)];
        lines.extend(self.seed.map(|seed| format!("seed {seed}")));
        lines.extend(self.keys.iter().map(|(key, value)| format!("key {key} = {value}")));
        lines.extend(self.names.iter().map(|name| format!("name {name}")));
        lines.extend(self.inputs.iter().map(|i| format!("input {} {} {}", i.stage, i.role, i.artifact)));
        lines.extend(self.sources.iter().map(|s| format!("source {} {}", s.role, s.digest)));
        lines
    }
}

/// Length first, so that two lists of texts never encode alike.
struct Encoder(blake3::Hasher);

impl Encoder {
    fn count(&mut self, n: usize) {
        self.0.update(&(n as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts {
            kind: "train".into(),
            revision: "3 engine 1".into(),
            part: "fold 1".into(),
            seed: Some(42),
            keys: vec![("epochs".into(), "20".into()), ("l2".into(), "0.0".into())],
            names: vec!["cnn".into()],
            inputs: vec![Input {
                stage: "ingest".into(),
                role: "dataset whole".into(),
                artifact: Digest::of(b"pixels"),
            }],
            sources: vec![SourceDigest { role: "images".into(), digest: Digest::of(b"folder") }],
        }
    }

    #[test]
    fn the_encoding_is_pinned() {
        // A change here makes every cache in the world stale: bump "convoy fingerprint 1" with it.
        assert_eq!(
            parts().fingerprint().to_string(),
            "abd34112044c8361bba3b0767f85e1732ff69b547ac76d8ae8f882e03018886d"
        );
    }

    #[test]
    fn every_part_counts_and_labels_do_not() {
        let edits: &[fn(&mut Parts)] = &[
            |p| p.kind = "reduce".into(),
            |p| p.revision = "4 engine 1".into(),
            |p| p.part = "fold 2".into(),
            |p| p.seed = Some(43),
            |p| p.seed = None,
            |p| p.keys[0].1 = "21".into(),
            |p| p.keys[0].0 = "epoch".into(),
            // The same bytes, cut elsewhere.
            |p| p.keys = vec![("epochs2".into(), "0".into()), ("l2".into(), "0.0".into())],
            |p| p.keys.truncate(1),
            |p| p.names[0] = "net".into(),
            |p| p.names.clear(),
            |p| p.inputs[0].artifact = Digest::of(b"other"),
            |p| p.inputs[0].role = "dataset all".into(),
            |p| p.inputs.push(p.inputs[0].clone()),
            |p| p.sources[0].role = "labels".into(),
            |p| p.sources[0].digest = Digest::of(b"other"),
        ];
        let mut seen = vec![parts().fingerprint()];
        for (i, edit) in edits.iter().enumerate() {
            let mut edited = parts();
            edit(&mut edited);
            let fingerprint = edited.fingerprint();
            assert!(!seen.contains(&fingerprint), "edit {i}");
            seen.push(fingerprint);
        }
        let mut renamed = parts();
        renamed.inputs[0].stage = "data".into();
        assert_eq!(renamed.fingerprint(), parts().fingerprint());
    }
}
