//! The record of one finished task: readable text that names its outputs by digest and size.
//!
//! ```text
//! convoy entry 2
//! fingerprint 8a…
//! label digits train fold 1
//! kind train
//! …                                 the parts of the fingerprint, for people
//! output weights.safetensors 4096 3f…
//! end 77…                           digest of everything above
//! ```

use super::digest::Digest;
use super::fingerprint::Parts;

/// The first line, with the format's number.
const HEAD: &str = "convoy entry ";
const VERSION: u32 = 2;

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
    pub fn render(&self, parts: &Parts) -> String {
        use std::fmt::Write as _;
        let mut text = format!("{HEAD}{VERSION}\n");
        let _ = writeln!(text, "fingerprint {}", self.fingerprint);
        let _ = writeln!(text, "label {}", escape(&self.label));
        for line in parts.lines() {
            let _ = writeln!(text, "{}", escape(&line));
        }
        for output in &self.outputs {
            let _ = writeln!(text, "output {} {} {}", escape(&output.name), output.size, output.digest);
        }
        let end = Digest::of(text.as_bytes());
        let _ = writeln!(text, "end {end}");
        text
    }

    /// Reads a record; `None` if it is not whole, or not ours.
    pub fn parse(text: &str) -> Option<Entry> {
        let (body, end) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let (body, end) = (&text[..=body.len()], end.strip_prefix("end ")?);
        if end.parse() != Ok(Digest::of(body.as_bytes())) {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()?.strip_prefix(HEAD)?.parse() != Ok(VERSION) {
            return None;
        }
        let fingerprint = lines.next()?.strip_prefix("fingerprint ")?.parse().ok()?;
        let label = unescape(lines.next()?.strip_prefix("label ")?);
        let mut outputs = Vec::new();
        for line in lines.filter_map(|line| line.strip_prefix("output ")) {
            let (rest, digest) = line.rsplit_once(' ')?;
            let (name, size) = rest.rsplit_once(' ')?;
            outputs.push(Output { name: unescape(name), size: size.parse().ok()?, digest: digest.parse().ok()? });
        }
        Some(Entry { fingerprint, label, outputs })
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

/// One fact a line: what would break a line is written as in a Rust string.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
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

    fn entry() -> (Entry, Parts) {
        let parts = Parts { kind: "train".into(), keys: vec![("a\nb".into(), "\"x\\\"".into())], ..Parts::default() };
        let outputs = vec![
            Output { name: "a b.csv".into(), size: 3, digest: Digest::of(b"abc") },
            Output { name: "odd\nname".into(), size: 0, digest: Digest::of(b"") },
        ];
        (Entry { fingerprint: parts.fingerprint(), label: "digits train fold 1".into(), outputs }, parts)
    }

    #[test]
    fn a_record_survives_its_text() {
        let (entry, parts) = entry();
        assert_eq!(Entry::parse(&entry.render(&parts)), Some(entry));
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let (entry, parts) = entry();
        let text = entry.render(&parts);
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
