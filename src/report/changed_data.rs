//! Two data sets beside one another: which images came, went, changed, or bear another label.

use std::collections::{BTreeMap, HashMap};

use crate::artifact::Files;
use crate::artifact::dataset::{Names, Numbers};

/// An image that has another class, or another name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Moved {
    /// Its path before.
    pub path: String,
    /// Its path now, where that is another.
    pub new_path: Option<String>,
    /// Its class before.
    pub old: String,
    /// Its class now.
    pub new: String,
}

/// In what two data sets differ; images are told apart by their paths, and by their pixels where a path is gone. Everything is
/// sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DataChange {
    /// Images before and now; `None` where both are known to be the same without having been looked at.
    pub n: Option<(usize, usize)>,
    /// Paths that are new.
    pub added: Vec<String>,
    /// Paths that are gone.
    pub removed: Vec<String>,
    /// Paths with other pixels.
    pub changed: Vec<String>,
    /// Images with the same pixels and another class.
    pub relabelled: Vec<Moved>,
    /// Images with the same pixels and class under another path.
    pub renamed: Vec<Moved>,
}

impl DataChange {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.removed.is_empty()
            && self.changed.is_empty()
            && self.relabelled.is_empty()
            && self.renamed.is_empty()
    }
}

struct Image {
    class: String,
    digest: u128,
}

fn images(files: &Files) -> Result<BTreeMap<String, Image>, String> {
    let numbers = Numbers::read(files).map_err(|error| error.to_string())?;
    let names = Names::read(files).map_err(|error| error.to_string())?;
    if names.n_samples() != numbers.n_samples() {
        return Err(format!("the data set has {} names for {} images", names.n_samples(), numbers.n_samples()));
    }
    let image = |i: usize| {
        let class = names.classes().get(numbers.label(i) as usize).cloned().unwrap_or_default();
        (names.path(i).to_owned(), Image { class, digest: numbers.digest(i) })
    };
    Ok((0..numbers.n_samples()).map(image).collect())
}

/// In what the data set `new` differs from `old`.
///
/// # Errors
/// If one cannot be read.
pub fn changes(old: &Files, new: &Files) -> Result<DataChange, String> {
    let (old, new) = (images(old)?, images(new)?);
    let mut change = DataChange { n: Some((old.len(), new.len())), ..DataChange::default() };
    // Pixels under a path that only one side has: where they are one image on both sides, it moved.
    let mut gone: HashMap<u128, Vec<&String>> = HashMap::new();
    for (path, image) in old.iter().filter(|(path, _)| !new.contains_key(*path)) {
        gone.entry(image.digest).or_default().push(path);
    }
    let mut come: HashMap<u128, Vec<&String>> = HashMap::new();
    for (path, image) in new.iter().filter(|(path, _)| !old.contains_key(*path)) {
        come.entry(image.digest).or_default().push(path);
    }
    let place = |at: &HashMap<u128, Vec<&String>>, digest: u128| match at.get(&digest).map(Vec::as_slice) {
        Some([one]) => Some((*one).clone()),
        _ => None,
    };
    for (path, before) in &old {
        let moved = |new_path: Option<String>, after: &Image| Moved {
            path: path.clone(),
            new_path,
            old: before.class.clone(),
            new: after.class.clone(),
        };
        if let Some(after) = new.get(path) {
            if before.digest != after.digest {
                change.changed.push(path.clone());
            }
            if before.class != after.class {
                change.relabelled.push(moved(None, after));
            }
            continue;
        }
        let alone = place(&gone, before.digest).and_then(|_| place(&come, before.digest));
        match alone.and_then(|new_path| Some((new.get(&new_path)?, new_path))) {
            Some((after, new_path)) if after.class != before.class => {
                change.relabelled.push(moved(Some(new_path), after));
            }
            Some((after, new_path)) => change.renamed.push(moved(Some(new_path), after)),
            None => change.removed.push(path.clone()),
        }
    }
    let is_moved = |digest: u128| place(&gone, digest).is_some() && place(&come, digest).is_some();
    let added = new.iter().filter(|(path, image)| !old.contains_key(*path) && !is_moved(image.digest));
    change.added = added.map(|(path, _)| path.clone()).collect();
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Bytes;

    /// A data set of images by path, class and digest.
    fn dataset(images: &[(&str, usize, u128)]) -> Files {
        let mut index = "id,label,digest,group,split\n".to_owned();
        let mut names = "id,path,group\n".to_owned();
        for (i, (path, label, digest)) in images.iter().enumerate() {
            index += &format!("{i},{label},{digest:032x},,\n");
            names += &format!("{i},{path},\n");
        }
        let description = format!(
            "{{\"format\":2,\"n_samples\":{},\"n_classes\":2,\"height\":1,\"width\":1,\"channels\":1,\"depth\":8}}",
            images.len()
        );
        let files = [
            ("index.csv", index),
            ("names.csv", names),
            ("classes.json", "[\"ant\",\"bee\"]".to_owned()),
            ("dataset.json", description),
        ];
        Files(files.map(|(name, text)| (name.to_owned(), Bytes::new(text.into_bytes()))).into())
    }

    #[test]
    fn images_come_go_change_and_are_relabelled() {
        let old = dataset(&[("a", 0, 1), ("b", 0, 2), ("c", 1, 3), ("d", 1, 4), ("ant/e", 0, 5), ("f", 0, 6)]);
        let new = dataset(&[("a", 0, 1), ("b", 0, 20), ("c", 0, 3), ("bee/e", 1, 5), ("g", 0, 6), ("h", 1, 7)]);
        let change = changes(&old, &new).unwrap();
        assert_eq!(change.n, Some((6, 6)));
        assert_eq!(
            (change.added, change.removed, change.changed),
            (vec!["h".into()], vec!["d".into()], vec!["b".into()])
        );
        let moved = |path: &str, new_path: Option<&str>, old: &str, new: &str| Moved {
            path: path.to_owned(),
            new_path: new_path.map(str::to_owned),
            old: old.to_owned(),
            new: new.to_owned(),
        };
        let expected = [moved("ant/e", Some("bee/e"), "ant", "bee"), moved("c", None, "bee", "ant")];
        assert_eq!(change.relabelled, expected);
        assert_eq!(change.renamed, [moved("f", Some("g"), "ant", "ant")]);
        assert!(changes(&old, &old).unwrap().is_empty());
    }

    #[test]
    fn copies_of_one_image_are_not_taken_for_one_another() {
        let old = dataset(&[("a", 0, 1), ("b", 1, 1)]);
        let change = changes(&old, &dataset(&[("c", 0, 1), ("b", 1, 1)])).unwrap();
        assert_eq!(change.renamed.len(), 1, "one went and one came");
        let change = changes(&old, &dataset(&[("c", 0, 1), ("d", 1, 1)])).unwrap();
        assert_eq!((change.added.len(), change.removed.len()), (2, 2), "which is which is not known");
    }
}
