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
//! The inputs of a task enter by **content**, not by the fingerprint of the task that made them. A stage that reruns
//! and writes the same bytes as before does not wake the ones below it (*early cutoff*). The price: while something
//! above is stale, the fingerprint below cannot be known; such a task is *pending*, and is decided once its inputs are
//! there.
//!
//! # What is in a fingerprint
//!
//! | value | in? | |
//! |---|---|---|
//! | kind of the stage | yes | |
//! | the revisions of the rooms that it computes with | yes | (1) |
//! | which part: whole, fold f, all | yes | |
//! | the keys it reads, resolved | yes | (2) |
//! | the seed in force | where the stage draws from it | (3) |
//! | artifacts it reads, in order: what they are, and the files that are read, by content | yes | (4) |
//! | files from outside: role and content | yes | (5) |
//! | names of the stages | where they are written into the artifact | (6) |
//! | path of the manifest, of the project, of a source file | no | (5) |
//! | modification times, owners, permissions | no | (7) |
//! | number of threads, instruction set, memory, host | no | (8) |
//! | version of the program | no | (1) |
//! | comments, white space, order of keys, spelled-out defaults | no | (2) |
//! | environment variables | no | |
//!
//! 1. A new release must not throw away everybody's cache, and a changed algorithm must not be hidden by it. Each room
//!    (batch normalisation, Adam, a resize filter) carries a number that is bumped when its bytes change; a test with
//!    golden digests fails by the room's name when bytes move and the number did not. A task names those that it
//!    computes with, so that a new PCA retrains no network that stands on pixels.
//! 2. Every key goes in with its value in force, defaults written out. Spelling a default changes nothing; a release
//!    that changes a default makes stale what relied on it, and says so.
//! 3. A new manifest seed leaves `ingest` fresh: it draws nothing. A stage's own `seed` that equals the manifest's
//!    changes nothing.
//! 4. By the digests of the files that the task reads, and no others ([`crate::stages::Reads`]): a renamed image
//!    changes `names.csv` of a data set, which no training reads. Only those files are delivered to the task.
//! 5. A folder enters by the relative path and content of every visible file in it, so that a renamed class is a change
//!    and a renamed parent is none. The role ("images", "labels") is in, since swapping two files must not go
//!    unnoticed.
//! 6. `evaluate` writes a `model` column. A trained network knows no name: renaming a stage retrains nothing.
//! 7. `touch`, a fresh clone and an unpacked archive change times and no content. Times serve only to skip hashing; see
//!    below.
//! 8. The numerics contract promises the same bits for all of them.
//!
//! All of it is the [`TaskRecord`], whose text is canonical: one fact a line, fields between tabs, in one order. The
//! fingerprint is the BLAKE3 digest of that text. A record that is read back is believed only if its text hashes to the
//! name it stands under, and it is complete: a task can be rebuilt from it alone ([`crate::stages::rebuild`]).
//!
//! # The files beside an artifact
//!
//! ```text
//! .convoy/
//!   CACHEDIR.TAG, .gitignore     so that backups and Git leave the folder alone
//!   format                       another number is refused, not misread; on the disk before anything else is
//!   ac/8a31…                     one record per finished task: what it is, its outputs by digest and size
//!   cas/3f90…                    blobs by their own digest, read-only
//!   checkpoints/8a31…            a task that was killed half-way, and may go on from there
//!   history/                     what was run, for people: `convoy runs`, `convoy diff`
//!   index/                       stamps that save hashing: of source files, of verified blobs
//!   locks/                       one flock per fingerprint: the second run waits and then hits
//!   roots/                       where the projects are that use the store: `gc` looks for lock files there
//!   runs/NAME.json               what each task was computed from last time: used only to say *why*
//!   tmp/                         artifacts being written
//!   quarantine/                  blobs and records found damaged; results that contradict a record, whole
//! ```
//!
//! What a task was computed from stands in its record (`ac/`). It is never read to decide whether something is fresh,
//! only to say what changed: `learning_rate` from 0.1 to 0.05, in line 16.
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

use std::fmt::Write as _;

use super::digest::Digest;

/// Everything a task's artifact depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskRecord {
    /// The stage's kind.
    pub kind: String,
    /// `whole`, `fold 3`, `all`.
    pub part: String,
    /// The seed in force, where the stage reads it.
    pub seed: Option<u64>,
    /// The rooms that it computes with and their revisions, sorted.
    pub rooms: Vec<(String, u32)>,
    /// Resolved keys with their values as canonical TOML, sorted by key.
    pub keys: Vec<(String, String)>,
    /// Names of stages that are written into the artifact: its own, then those of the stages that it reads.
    pub names: Vec<String>,
    /// The artifacts it reads, in its own order.
    pub inputs: Vec<Input>,
    /// The files it reads from outside.
    pub sources: Vec<SourceDigest>,
}

/// An artifact that a task reads, as far as it reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Which of the stages that the task reads it is from, numbered from 0 in order of first appearance.
    pub from: u32,
    /// What that stage hands on: `dataset`, `model`, ….
    pub output: String,
    /// Which of its tasks: `whole`, `fold 3`, ….
    pub part: String,
    /// The files that are read, sorted by name.
    pub files: Vec<(String, Digest)>,
}

/// A file or folder from outside, by content.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceDigest {
    /// What it is to the stage.
    pub role: String,
    /// Its content.
    pub digest: Digest,
}

/// The first line of a record's text.
const HEAD: &str = "convoy task 2";

impl TaskRecord {
    /// The digest of its text.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }

    /// It as text: the same for equal records, different for different ones.
    pub fn text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        let mut line = |fields: &[&str]| {
            for (i, field) in fields.iter().enumerate() {
                text.push_str(if i == 0 { "" } else { "\t" });
                escape_into(field, &mut text);
            }
            text.push('\n');
        };
        line(&["kind", &self.kind]);
        line(&["part", &self.part]);
        if let Some(seed) = self.seed {
            line(&["seed", &seed.to_string()]);
        }
        for (room, revision) in &self.rooms {
            line(&["room", room, &revision.to_string()]);
        }
        for (key, value) in &self.keys {
            line(&["key", key, value]);
        }
        for name in &self.names {
            line(&["name", name]);
        }
        for input in &self.inputs {
            line(&["input", &input.from.to_string(), &input.output, &input.part]);
            for (name, digest) in &input.files {
                line(&["file", name, &digest.to_string()]);
            }
        }
        for source in &self.sources {
            line(&["source", &source.role, &source.digest.to_string()]);
        }
        text
    }

    /// Reads a record's text; `None` if it is not one, or not in its canonical form.
    pub fn parse(text: &str) -> Option<TaskRecord> {
        let mut record = TaskRecord::default();
        let mut lines = text.split_terminator('\n');
        if lines.next()? != HEAD {
            return None;
        }
        for line in lines {
            let fields: Vec<String> = line.split('\t').map(unescape).collect();
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            match fields[..] {
                ["kind", kind] => record.kind = kind.to_owned(),
                ["part", part] => record.part = part.to_owned(),
                ["seed", seed] => record.seed = Some(seed.parse().ok()?),
                ["room", room, revision] => record.rooms.push((room.to_owned(), revision.parse().ok()?)),
                ["key", key, value] => record.keys.push((key.to_owned(), value.to_owned())),
                ["name", name] => record.names.push(name.to_owned()),
                ["input", from, output, part] => record.inputs.push(Input {
                    from: from.parse().ok()?,
                    output: output.to_owned(),
                    part: part.to_owned(),
                    files: Vec::new(),
                }),
                ["file", name, digest] => {
                    record.inputs.last_mut()?.files.push((name.to_owned(), digest.parse().ok()?));
                }
                ["source", role, digest] => {
                    record.sources.push(SourceDigest { role: role.to_owned(), digest: digest.parse().ok()? });
                }
                _ => return None,
            }
        }
        // Whatever was read, it is what would be written: there is one text for each record.
        (record.text() == text).then_some(record)
    }
}

/// A field of a line: what would end it is written as in a string of many languages.
pub(super) fn escape_into(field: &str, out: &mut String) {
    for c in field.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => {
                let _ = out.write_char(c);
            }
        }
    }
}

/// What [`escape_into`] wrote.
pub(super) fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> TaskRecord {
        TaskRecord {
            kind: "train".into(),
            part: "fold 1".into(),
            seed: Some(42),
            rooms: vec![("adam".into(), 1), ("train".into(), 3)],
            keys: vec![("epochs".into(), "20".into()), ("vars.\"a\tb\"".into(), "\"x\\\\\"".into())],
            names: vec!["cnn".into()],
            inputs: vec![Input {
                from: 0,
                output: "dataset".into(),
                part: "whole".into(),
                files: vec![("images.npy".into(), Digest::of(b"pixels"))],
            }],
            sources: vec![SourceDigest { role: "odd\nrole".into(), digest: Digest::of(b"folder") }],
        }
    }

    #[test]
    fn the_text_is_pinned() {
        // A change here makes every cache in the world stale: bump the number in `HEAD` with it.
        assert_eq!(
            record().fingerprint().to_string(),
            "377cc6461ac21cc8b5e64c8af91c2a9b6ca93d17390177f97dc9246510b9eead"
        );
    }

    #[test]
    fn a_record_survives_its_text_and_only_its_own() {
        let text = record().text();
        assert_eq!(TaskRecord::parse(&text), Some(record()));
        for other in ["", "convoy task 3\nkind\ttrain\npart\twhole\n", &text[..text.len() - 1], &format!("{text}\n")] {
            assert_eq!(TaskRecord::parse(other), None, "{other}");
        }
        // The same facts in another order are not how it is written.
        let swapped = text.replace("kind\ttrain\npart\tfold 1\n", "part\tfold 1\nkind\ttrain\n");
        assert_ne!(swapped, text);
        assert_eq!(TaskRecord::parse(&swapped), None);
    }

    #[test]
    fn every_fact_counts() {
        let edits: &[fn(&mut TaskRecord)] = &[
            |r| r.kind = "reduce".into(),
            |r| r.part = "fold 2".into(),
            |r| r.seed = Some(43),
            |r| r.seed = None,
            |r| r.rooms[0].1 = 2,
            |r| r.rooms[0].0 = "adamw".into(),
            |r| r.rooms.truncate(1),
            |r| r.keys[0].1 = "21".into(),
            |r| r.keys[0].0 = "epoch".into(),
            // The same bytes, cut elsewhere.
            |r| r.keys[0] = ("epochs\t2".into(), "0".into()),
            |r| r.keys[0] = ("epochs".into(), "20\nkey\tl2\t0".into()),
            |r| r.keys.truncate(1),
            |r| r.names[0] = "net".into(),
            |r| r.names.clear(),
            |r| r.inputs[0].files[0].1 = Digest::of(b"other"),
            |r| r.inputs[0].files[0].0 = "index.csv".into(),
            |r| r.inputs[0].files.clear(),
            |r| r.inputs[0].part = "all".into(),
            |r| r.inputs[0].from = 1,
            |r| r.inputs[0].output = "splits".into(),
            |r| r.inputs.push(r.inputs[0].clone()),
            |r| r.sources[0].role = "labels".into(),
            |r| r.sources[0].digest = Digest::of(b"other"),
        ];
        let mut seen = vec![record().fingerprint()];
        for (i, edit) in edits.iter().enumerate() {
            let mut edited = record();
            edit(&mut edited);
            assert_eq!(TaskRecord::parse(&edited.text()), Some(edited.clone()), "edit {i}");
            let fingerprint = edited.fingerprint();
            assert!(!seen.contains(&fingerprint), "edit {i}");
            seen.push(fingerprint);
        }
    }
}
