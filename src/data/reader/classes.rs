//! Which class and which split an image belongs to: by the folders it lies in, or by a column of labels.

use std::collections::BTreeSet;

use super::{Error, GivenSplit};

/// Classes in the order of their labels, and what each image is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Names by label.
    pub classes: Vec<String>,
    /// For each file: its label and split; `None` for a file that lies in no class folder.
    pub files: Vec<Option<(u32, Option<GivenSplit>)>>,
}

/// Assigns by folders: `class/…/image`, also below `train/`, `valid/`, `test/`, also below one more folder that holds
/// everything. `files` and `folders` are relative paths with `/`; a folder without files is an empty class.
///
/// # Errors
/// If there is no class folder.
pub fn by_folder(files: &[String], folders: &[String]) -> Result<Assigned, Error> {
    let depth = wrapper_depth(files, folders);
    let tops: BTreeSet<&str> = files
        .iter()
        .filter_map(|path| component(path, depth, true))
        .chain(folders.iter().filter_map(|path| component(path, depth, false)))
        .collect();
    let has_splits = !tops.is_empty() && tops.iter().all(|name| GivenSplit::parse(name).is_some());
    let class_depth = depth + usize::from(has_splits);
    let classes: BTreeSet<&str> = files
        .iter()
        .filter_map(|path| component(path, class_depth, true))
        .chain(folders.iter().filter_map(|path| component(path, class_depth, false)))
        .collect();
    if classes.is_empty() {
        return Err(match files.first() {
            None => Error::new("the source has no image"),
            Some(file) => Error::new(format!("the source has no class folders: `{file}` lies in none")),
        }
        .help("put each image into a folder that is named after its class"));
    }
    let classes: Vec<&str> = classes.into_iter().collect();
    // Splits of which there is one only set nothing apart.
    let is_apart =
        has_splits && tops.iter().filter_map(|name| GivenSplit::parse(name)).any(|split| split != GivenSplit::Train);
    let files = files
        .iter()
        .map(|path| {
            let class = component(path, class_depth, true)?;
            let label = classes.binary_search(&class).ok()? as u32;
            let given = if is_apart { component(path, depth, true).and_then(GivenSplit::parse) } else { None };
            Some((label, given))
        })
        .collect();
    Ok(Assigned { classes: classes.into_iter().map(str::to_owned).collect(), files })
}

/// How many folders hold everything else and are neither a split nor a class.
fn wrapper_depth(files: &[String], folders: &[String]) -> usize {
    let mut depth = 0;
    loop {
        let mut names = files
            .iter()
            .filter_map(|path| component(path, depth, true))
            .chain(folders.iter().filter_map(|path| component(path, depth, false)));
        let Some(first) = names.next() else { return depth };
        let is_alone = names.all(|name| name == first);
        // A class has images in it; a wrapper has folders.
        let has_inner = files.iter().any(|path| component(path, depth + 1, true).is_some());
        let has_images = files.iter().any(|path| {
            component(path, depth, true).is_some()
                && component(path, depth + 1, true).is_none()
                && looks_like_image(path)
        });
        if !is_alone || GivenSplit::parse(first).is_some() || !has_inner || has_images {
            return depth;
        }
        depth += 1;
    }
}

/// Whether a loose file beside folders says that its folder is a class. Only a hint, so the name may decide.
fn looks_like_image(path: &str) -> bool {
    let suffix = path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    matches!(&*suffix, "png" | "jpg" | "jpeg" | "gif" | "bmp" | "webp" | "tif" | "tiff" | "ppm" | "pgm" | "pbm" | "pnm")
}

/// The folder at `depth` of a path; of a file's path the last component is not a folder.
fn component(path: &str, depth: usize, is_file: bool) -> Option<&str> {
    let mut parts = path.split('/');
    let part = parts.nth(depth)?;
    (!is_file || parts.next().is_some()).then_some(part)
}

/// Assigns by a column: whole numbers in their order, else names in the order of their bytes.
///
/// Returns the classes and the label of each row.
pub fn by_column(names: &[String]) -> (Vec<String>, Vec<u32>) {
    let mut classes: Vec<&str> = names.iter().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect();
    let number = |name: &str| name.parse::<i64>().ok();
    let are_numbers = classes.iter().all(|name| number(name).is_some());
    if are_numbers {
        classes.sort_by_key(|name| (number(name), *name));
    }
    let labels = names
        .iter()
        .map(|name| {
            let found = match are_numbers {
                true => classes.binary_search_by_key(&(number(name), name.as_str()), |class| (number(class), *class)),
                false => classes.binary_search(&name.as_str()),
            };
            // Every name is among the classes, which are made of them.
            found.unwrap_or_default() as u32
        })
        .collect();
    (classes.into_iter().map(str::to_owned).collect(), labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use GivenSplit::{Test, Train, Validation};

    #[track_caller]
    fn case(paths: &[&str], classes: &[&str], files: &[Option<(u32, Option<GivenSplit>)>]) {
        let (folders, paths): (Vec<String>, Vec<String>) =
            paths.iter().map(|path| (*path).to_owned()).partition(|path| path.ends_with('/'));
        let folders: Vec<String> = folders.iter().map(|path| path.trim_end_matches('/').to_owned()).collect();
        let assigned = by_folder(&paths, &folders).unwrap();
        assert_eq!(assigned.classes, classes);
        assert_eq!(assigned.files, files);
    }

    #[test]
    fn folders_name_classes_and_splits() {
        case(&["b/1.png", "a/1.png"], &["a", "b"], &[Some((1, None)), Some((0, None))]);
        case(&["a/x/y/1.png", "b/1.png"], &["a", "b"], &[Some((0, None)), Some((1, None))]);
        case(
            &["train/a/1.png", "val/b/1.png", "Test/a/1.png"],
            &["a", "b"],
            &[Some((0, Some(Train))), Some((1, Some(Validation))), Some((0, Some(Test)))],
        );
        // One split alone sets nothing apart; a class may be called as a split is.
        case(&["train/a/1.png", "train/b/1.png"], &["a", "b"], &[Some((0, None)), Some((1, None))]);
        case(&["train/1.png", "bus/1.png"], &["bus", "train"], &[Some((1, None)), Some((0, None))]);
        // A folder around everything, loose files, an empty class.
        case(&["set/train/a/1.png", "set/test/b/1.png"], &["a", "b"], &[Some((0, Some(Train))), Some((1, Some(Test)))]);
        case(&["README.md", "a/1.png", "b/"], &["a", "b"], &[None, Some((0, None))]);
        case(&["a/1.png"], &["a"], &[Some((0, None))]);
        case(&["a/1.png", "a/more/2.png"], &["a"], &[Some((0, None)), Some((0, None))]);
    }

    #[test]
    fn images_without_folders_are_an_error() {
        let error = by_folder(&["1.png".to_owned()], &[]).unwrap_err();
        assert!(error.message.contains("`1.png` lies in none"), "{error}");
        assert!(by_folder(&[], &[]).is_err());
    }

    #[test]
    fn columns_are_ordered_as_numbers_or_as_names() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(by_column(&names(&["10", "9", "10"])), (names(&["9", "10"]), vec![1, 0, 1]));
        assert_eq!(by_column(&names(&["10", "9", "x"])), (names(&["10", "9", "x"]), vec![0, 1, 2]));
    }
}
