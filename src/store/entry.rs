//! The record of one finished task as it lies on the disk: readable text that says what the task was and names its
//! outputs.
//!
//! ```text
//! convoy entry 3
//! fingerprint 8a…
//! label digits train fold 1
//! task 57                            so many lines: the task record, whose digest is the fingerprint
//! …
//! output weights.safetensors 4096 3f…
//! warning class `b` has 2 images     what the task told about its data, in the order in which it did
//! end 77…                            digest of everything above
//! ```

use super::digest::Digest;
use super::fingerprint::{TaskRecord, escape_into, unescape};

/// The first line, with the format's number.
const HEAD: &str = "convoy entry ";
const VERSION: u32 = 3;
/// The oldest that is read: a record without warnings.
const OLDEST: u32 = 2;

/// Whether a newer program wrote this record.
pub(super) fn is_newer(text: &str) -> bool {
    let number = text.lines().next().and_then(|line| line.strip_prefix(HEAD)?.parse::<u32>().ok());
    number.is_some_and(|number| number > VERSION)
}

/// One file of an artifact, by content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Output {
    /// Its name within the artifact.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its content.
    pub digest: Digest,
}

/// A finished task: its fingerprint and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it was computed from.
    pub fingerprint: Digest,
    /// Pipeline, stage and part that computed it first: for `cache list`, never compared.
    pub label: String,
    /// Sorted by name.
    pub outputs: Vec<Output>,
    /// What it told about its data and its results, each text once: to be repeated where they are shown. Nothing that
    /// reads the artifact depends on it.
    pub warnings: Vec<String>,
}

impl Entry {
    /// The digest of the artifact: of the names, sizes and digests of its files. This is what a task below reads.
    pub fn artifact(&self) -> Digest {
        artifact_digest(self.outputs.iter().map(|output| (output.name.as_str(), output.digest)))
    }

    /// Bytes of all outputs.
    pub fn size(&self) -> u64 {
        self.outputs.iter().map(|output| output.size).sum()
    }

    /// The record as text.
    pub fn render(&self, task: &TaskRecord) -> String {
        use std::fmt::Write as _;
        let mut text = format!("{HEAD}{VERSION}\n");
        let _ = writeln!(text, "fingerprint {}", self.fingerprint);
        let _ = writeln!(text, "label {}", escape(&self.label));
        let task = task.text();
        let _ = write!(text, "task {}\n{task}", task.lines().count());
        for output in &self.outputs {
            let _ = writeln!(text, "output {} {} {}", escape(&output.name), output.size, output.digest);
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning {}", escape(warning));
        }
        let end = Digest::of(text.as_bytes());
        let _ = writeln!(text, "end {end}");
        text
    }

    /// Reads a record; `None` if it is not whole, not ours, or not of the task that it says it is.
    pub fn parse(text: &str) -> Option<Entry> {
        let (entry, _) = Entry::parse_with_task(text)?;
        Some(entry)
    }

    /// Reads a record, and the text of the task record in it.
    pub fn parse_with_task(text: &str) -> Option<(Entry, &str)> {
        let (body, end) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let (body, end) = (&text[..=body.len()], end.strip_prefix("end ")?);
        if end.parse() != Ok(Digest::of(body.as_bytes())) {
            return None;
        }
        let (version, rest) = body.strip_prefix(HEAD)?.split_once('\n')?;
        if !version.parse().is_ok_and(|version: u32| (OLDEST..=VERSION).contains(&version)) {
            return None;
        }
        let (fingerprint, rest) = rest.strip_prefix("fingerprint ")?.split_once('\n')?;
        let (label, rest) = rest.strip_prefix("label ")?.split_once('\n')?;
        let (n_lines, rest) = rest.strip_prefix("task ")?.split_once('\n')?;
        let n_lines: usize = n_lines.parse().ok()?;
        let ends = rest.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        let end_of_task = ends.take(n_lines).last()?;
        let (task, rest) = rest.split_at(end_of_task);
        let fingerprint = fingerprint.parse().ok()?;
        if Digest::of(task.as_bytes()) != fingerprint {
            return None;
        }
        let (mut outputs, mut warnings) = (Vec::new(), Vec::new());
        for line in rest.lines() {
            if let Some(warning) = line.strip_prefix("warning ") {
                warnings.push(unescape(warning));
                continue;
            }
            let (rest, digest) = line.strip_prefix("output ")?.rsplit_once(' ')?;
            let (name, size) = rest.rsplit_once(' ')?;
            outputs.push(Output { name: unescape(name), size: size.parse().ok()?, digest: digest.parse().ok()? });
        }
        Some((Entry { fingerprint, label: unescape(label), outputs, warnings }, task))
    }
}

/// The digest of an artifact with these files, sorted by name. Sizes follow from the digests.
pub fn artifact_digest<'a>(files: impl Iterator<Item = (&'a str, Digest)>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"convoy artifact 1");
    for (name, digest) in files {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&digest.0);
    }
    Digest(*hasher.finalize().as_bytes())
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(text, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> (Entry, TaskRecord) {
        let task =
            TaskRecord { kind: "train".into(), keys: vec![("a\nb".into(), "\"x\\\"".into())], ..TaskRecord::default() };
        let outputs = vec![
            Output { name: "a b.csv".into(), size: 3, digest: Digest::of(b"abc") },
            Output { name: "odd\nname".into(), size: 0, digest: Digest::of(b"") },
        ];
        let warnings = vec!["class `b\nc` has 2 images".to_owned(), "output 1 2".to_owned()];
        (Entry { fingerprint: task.fingerprint(), label: "digits train fold 1".into(), outputs, warnings }, task)
    }

    #[test]
    fn a_record_survives_its_text() {
        let (entry, task) = entry();
        let text = entry.render(&task);
        let (read, record) = Entry::parse_with_task(&text).unwrap();
        assert_eq!((read, TaskRecord::parse(record)), (entry, Some(task)));
    }

    #[test]
    fn a_record_of_the_format_without_warnings_is_read() {
        let (entry, task) = entry();
        let entry = Entry { warnings: Vec::new(), ..entry };
        let text = entry.render(&task).replacen("convoy entry 3", "convoy entry 2", 1);
        let (body, _) = text.trim_end().rsplit_once('\n').unwrap();
        let old = format!("{body}\nend {}\n", Digest::of(format!("{body}\n").as_bytes()));
        assert_eq!(Entry::parse(&old), Some(entry));
    }

    #[test]
    fn a_record_of_another_task_is_refused() {
        let (entry, task) = entry();
        let other = TaskRecord { seed: Some(1), ..task };
        assert_eq!(Entry::parse(&entry.render(&other)), None);
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let (entry, task) = entry();
        let text = entry.render(&task);
        for cut in 0..text.len() {
            assert_eq!(Entry::parse(&text[..cut]), None, "cut at {cut}");
        }
        for (i, _) in text.char_indices().filter(|(_, c)| c.is_ascii_digit()) {
            let mut bytes = text.clone().into_bytes();
            bytes[i] ^= 1;
            assert_eq!(Entry::parse(&String::from_utf8(bytes).unwrap()), None, "flip at {i}");
        }
    }
}
