//! `data show` and `data add`: what a data set holds, and an entry that pins it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use serde_json::json;

use super::Exit;
use super::terminal::Terminal;
use crate::artifact::sheet;
use crate::config::{did_you_mean, quote};
use crate::data::catalogue::{self, files_below};
use crate::data::decode::{Channels, DecodePolicy, DepthPolicy};
use crate::data::reader::load::{Plan, decoded};
use crate::data::reader::{self, Files, Found, GivenSplit, Pick, Reader};
use crate::data::resize::{Filter, Fit, Resize};
use crate::files;
use crate::manifest::shown_path;
use crate::report::text::{Align, aligned, bytes, grouped};
use crate::store;

/// Images that are decoded to tell their sizes, evenly spread.
const LOOKED_AT: u64 = 2_000;
/// Samples of a class on a sheet.
const SAMPLES: u64 = 8;
/// Classes on a sheet.
const MOST_ROWS: usize = 100;
/// A picture's side on a sheet, in pixels.
const SIDE: usize = 64;

/// What a data set holds.
#[derive(Default)]
struct Seen {
    classes: Vec<String>,
    /// By class.
    counts: Vec<u64>,
    /// By class, those of each own split.
    given: BTreeMap<GivenSplit, u64>,
    /// Width, height and channels of the images that were looked at, with how many there are.
    sizes: BTreeMap<(u32, u32, u32), u64>,
    n_looked_at: u64,
    n_unreadable: u64,
    n_groups: usize,
    n_left_out: usize,
}

impl Seen {
    fn n_samples(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Reads the list, and decodes a part of it.
    fn of(reader: &dyn Reader) -> Result<Seen, reader::Error> {
        let n_classes = reader.classes().len();
        let mut seen = Seen { classes: reader.classes().to_vec(), counts: vec![0; n_classes], ..Seen::default() };
        let all = Pick::new(reader.n_samples(), None);
        let looked = Pick::new(reader.n_samples(), Some(LOOKED_AT));
        let policy = DecodePolicy::default();
        let plan = Plan { policy: &policy, pick: all, threads: 1, known: None };
        let mut groups = std::collections::BTreeSet::new();
        let mut n = 0;
        reader.read(&all, &mut |mut sample| {
            seen.counts[sample.label as usize] += 1;
            if let Some(split) = sample.given {
                *seen.given.entry(split).or_default() += 1;
            }
            groups.extend(sample.group.take());
            n += 1;
            if looked.wants(n - 1) {
                seen.n_looked_at += 1;
                match decoded(sample, &plan).image {
                    Ok((image, _)) => {
                        let size = (image.seen.width, image.seen.height, image.seen.channels);
                        *seen.sizes.entry(size).or_default() += 1;
                    }
                    Err(_) => seen.n_unreadable += 1,
                }
            }
            Ok::<(), reader::Error>(())
        })?;
        seen.n_groups = groups.len();
        seen.n_left_out = reader.aside().map_or(0, |aside| aside.images.len() + aside.others.len());
        Ok(seen)
    }

    /// Height, width and channels, where all that were looked at have the same.
    fn shape(&self) -> Option<[u32; 3]> {
        let mut sizes = self.sizes.keys();
        match (sizes.next(), sizes.next(), self.n_unreadable) {
            (Some(&(width, height, channels)), None, 0) => Some([height, width, channels]),
            _ => None,
        }
    }

    fn json(&self, name: &str) -> serde_json::Value {
        let classes = self.classes.iter().zip(&self.counts).map(|(class, n)| json!({ "class": class, "images": n }));
        let sizes = self.sizes.iter().map(|((width, height, channels), n)| {
            json!({ "width": width, "height": height, "channels": channels, "images": n })
        });
        let splits: BTreeMap<&str, u64> = self.given.iter().map(|(split, n)| (split.name(), *n)).collect();
        json!({
            "name": name, "images": self.n_samples(), "classes": classes.collect::<Vec<_>>(),
            "looked_at": self.n_looked_at, "unreadable": self.n_unreadable, "sizes": sizes.collect::<Vec<_>>(),
            "splits": splits, "groups": self.n_groups, "left_out": self.n_left_out,
        })
    }

    fn text(&self, name: &str) -> String {
        let n = self.n_samples();
        let mut text = format!("{name}: {} images, {} classes\n", grouped(n), self.classes.len());
        let rows = self.classes.iter().zip(&self.counts).map(|(class, count)| {
            let share = *count as f64 * 100.0 / n.max(1) as f64;
            vec![format!("  {class}"), grouped(*count), format!("{share:.1} %")]
        });
        text.push_str(&aligned(
            &["  class", "images", "share"],
            &[Align::Left, Align::Right, Align::Right],
            &rows.collect::<Vec<_>>(),
        ));
        let looked_at = match self.n_looked_at == n {
            true => String::new(),
            false => format!(" (of {} images looked at)", grouped(self.n_looked_at)),
        };
        let one = |(width, height, channels): &(u32, u32, u32)| format!("{width}x{height}x{channels}");
        let sizes = match (self.sizes.len(), self.sizes.keys().next()) {
            (1, Some(size)) => format!("all {}", one(size)),
            (n_sizes, _) => {
                let range = |side: fn(&(u32, u32, u32)) -> u32| {
                    let sides = || self.sizes.keys().map(side);
                    format!("{} to {}", sides().min().unwrap_or_default(), sides().max().unwrap_or_default())
                };
                let most = self.sizes.iter().max_by_key(|(_, n)| **n);
                let most =
                    most.map_or(String::new(), |(size, n)| format!(", most often {} ({})", one(size), grouped(*n)));
                format!("{n_sizes} different, width {}, height {}{most}", range(|s| s.0), range(|s| s.1))
            }
        };
        let _ = writeln!(text, "sizes: {sizes}{looked_at}");
        if self.n_unreadable > 0 {
            let _ = writeln!(text, "unreadable: {}{looked_at}", grouped(self.n_unreadable));
        }
        if !self.given.is_empty() {
            let splits = self.given.iter().map(|(split, n)| format!("{} {}", split.name(), grouped(*n)));
            let _ = writeln!(text, "own splits: {}", splits.collect::<Vec<_>>().join(", "));
        }
        if self.n_groups > 0 {
            let _ = writeln!(text, "groups: {}", grouped(self.n_groups as u64));
        }
        if self.n_left_out > 0 {
            let _ = writeln!(text, "files that are no images of a class: {}", grouped(self.n_left_out as u64));
        }
        text
    }
}

/// What manifests may write before the name of a data set that is built in.
const BUILTIN: &str = "builtin:";

/// The entry called `name`; else what is wrong, and what helps.
pub fn entry_of(name: &str, root: &Path) -> Result<catalogue::Entry, reader::Error> {
    let name = name.strip_prefix(BUILTIN).unwrap_or(name);
    if let Some(entry) = catalogue::find_entry(name, root)? {
        return Ok(entry);
    }
    let names = catalogue::embedded().iter().map(|entry| entry.name.as_str());
    let help = did_you_mean(name, names.clone())
        .unwrap_or_else(|| format!("the catalogue has `{}`", names.collect::<Vec<_>>().join("`, `")));
    Err(reader::Error::new(format!("unknown data set `{name}`")).help(help))
}

/// Tells what is wrong, in the document of JSON too.
pub fn tell(error: &reader::Error, name: &str, is_json: bool, terminal: &Terminal) {
    terminal.fault(&error.message, error.help.as_deref());
    if is_json {
        let error = json!({ "message": error.message, "help": error.help });
        terminal.json(json!({ "name": name, "ok": false, "error": error }));
    }
}

/// What is meant: a data set of the catalogue, or a path.
fn find(data: &str, data_dir: Option<&Path>) -> Result<Box<dyn Found>, reader::Error> {
    let root = store::project_root(Path::new("."));
    let data = data.strip_prefix(BUILTIN).unwrap_or(data);
    let path = Path::new(data);
    let is_entry = catalogue::is_name(data) && catalogue::find_entry(data, &root)?.is_some();
    if !is_entry && (path.exists() || !catalogue::is_name(data)) {
        return reader::find(path, &reader::Hints::default(), "auto");
    }
    let entry = entry_of(data, &root)?;
    match (entry.locate(&entry.folders(data_dir, &root)), catalogue::builtin(data)) {
        (Ok(located), _) => Ok(located.found),
        (Err(_), Some((found, _))) => Ok(found),
        (Err(error), None) => Err(error),
    }
}

/// `data show`.
pub fn show(
    data: &str,
    sheet: Option<&Path>,
    data_dir: Option<&Path>,
    is_json: bool,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    let shown = find(data, data_dir).and_then(|found| {
        let policy = DecodePolicy::default();
        let reader = found.open(&policy.limits)?;
        let seen = Seen::of(&*reader)?;
        let sheet = sheet.map(|path| Ok::<_, reader::Error>((path, draw(&*reader, &seen)?))).transpose()?;
        Ok((seen, sheet))
    });
    let (seen, sheet) = match shown {
        Ok(shown) => shown,
        Err(error) => {
            tell(&error, data, is_json, terminal);
            return Ok(Exit::Failed);
        }
    };
    if let Some((path, png)) = &sheet {
        files::replace(path, png, false)?;
    }
    if is_json {
        terminal.json(seen.json(data));
        return Ok(Exit::Done);
    }
    let mut text = seen.text(data);
    if let Some((path, _)) = &sheet {
        let rows =
            if seen.classes.len() > MOST_ROWS { format!("the first {MOST_ROWS} classes") } else { "each class".into() };
        let _ = writeln!(text, "{}: a row for {rows}, in the order above", shown_path(path));
    }
    terminal.result(&text);
    Ok(Exit::Done)
}

/// A sheet: a row for each class, of images that are evenly spread over it.
fn draw(reader: &dyn Reader, seen: &Seen) -> Result<Vec<u8>, reader::Error> {
    let resize = Resize { width: SIDE, height: SIDE, fit: Fit::Contain, filter: Filter::Box };
    let policy = DecodePolicy {
        channels: Channels::Rgb,
        depth: DepthPolicy::To8,
        resize: Some(resize),
        ..DecodePolicy::default()
    };
    let all = Pick::new(reader.n_samples(), None);
    let plan = Plan { policy: &policy, pick: all, threads: 1, known: None };
    let picks: Vec<Pick> = seen.counts.iter().map(|n| Pick::new(*n, Some(SAMPLES))).collect();
    let mut rows: Vec<Vec<Vec<u8>>> = vec![Vec::new(); seen.classes.len().min(MOST_ROWS)];
    let mut n_of = vec![0; seen.classes.len()];
    reader.read(&all, &mut |sample| {
        let label = sample.label as usize;
        n_of[label] += 1;
        if picks[label].wants(n_of[label] - 1)
            && let Some(row) = rows.get_mut(label)
            && let Ok((image, _)) = decoded(sample, &plan).image
        {
            row.push(image.pixels);
        }
        Ok::<(), reader::Error>(())
    })?;
    sheet::rows(&rows, SIDE).map_err(|error| reader::Error::new(format!("no sheet can be drawn: {error}")))
}

/// `data add`.
pub fn add(
    data: &Path,
    name: Option<&str>,
    may_replace: bool,
    data_dir: Option<&Path>,
    is_json: bool,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    let root = store::project_root(Path::new("."));
    let shown = shown_path(data);
    let entry = match describe(data, name, data_dir, &root) {
        Ok(entry) => entry,
        Err(error) => {
            tell(&error, &shown, is_json, terminal);
            return Ok(Exit::Usage);
        }
    };
    let path = root.join("datasets").join(format!("{}.toml", entry.name));
    let text = entry.text;
    if !may_replace && path.exists() && std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
        let error = reader::Error::new(format!("`{}` is there, and says something else", shown_path(&path)));
        tell(&error.help("`--replace` writes it anew"), &entry.name, is_json, terminal);
        return Ok(Exit::Failed);
    }
    files::replace(&path, text.as_bytes(), false)?;
    if is_json {
        terminal.json(json!({
            "name": entry.name, "ok": true, "entry": shown_path(&path), "files": entry.n_files, "bytes": entry.n_bytes,
        }));
        return Ok(Exit::Done);
    }
    terminal.result(&format!(
        "{}: {} files, {}; a manifest pins them with `source = {}`\n",
        shown_path(&path),
        grouped(entry.n_files as u64),
        bytes(entry.n_bytes),
        quote(&entry.name)
    ));
    Ok(Exit::Done)
}

/// An entry to be written.
struct Described {
    name: String,
    text: String,
    n_files: usize,
    n_bytes: u64,
}

fn describe(data: &Path, name: Option<&str>, data_dir: Option<&Path>, root: &Path) -> Result<Described, reader::Error> {
    let shown = data.display();
    let cannot =
        |error: std::io::Error| reader::Error::new(format!("cannot read `{shown}`: {}", files::reason(&error)));
    let absolute = data.canonicalize().map_err(cannot)?;
    let stem = absolute.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.map_or(stem, str::to_owned);
    if !catalogue::is_name(&name) {
        return Err(reader::Error::new(format!("`{name}` is no name of a data set: letters, digits, `-` and `_`"))
            .help("name it with `--name`"));
    }
    if catalogue::entry(&name).is_some() {
        return Err(
            reader::Error::new(format!("`{name}` is a data set of the catalogue")).help("name it with `--name`")
        );
    }
    let (format, found) = reader::find_format(data)?;
    if format == "csv-paths" {
        return Err(reader::Error::new(format!("`{shown}` is a table of paths, whose images lie elsewhere"))
            .help("add the folder of the images"));
    }
    let folder = if absolute.is_dir() { absolute.clone() } else { above(&absolute) };
    let paths: Vec<PathBuf> = match found.files() {
        Files::Folder(_) => files_below(&folder)?,
        Files::Each(each) => {
            let paths = each.into_iter().map(|(_, path)| path.canonicalize().map_err(cannot));
            paths.collect::<Result<_, _>>()?
        }
    };
    let named = data_dir.map(|dir| dir.join(&name)).and_then(|dir| dir.canonicalize().ok());
    let own = root.join("datasets").join(&name).canonicalize().ok();
    let root = root.canonicalize().map_err(cannot)?;
    let place = match folder.strip_prefix(&root) {
        _ if named.as_ref() == Some(&folder) || own.as_ref() == Some(&folder) => None,
        Ok(place) if place.components().next().is_some() => Some(slashed(place)?),
        _ => {
            return Err(reader::Error::new(format!("`{shown}` is not below the project's root `{}`", root.display()))
                .help(format!("put it into a folder there, or into the folder `{name}` of `--data-dir`")));
        }
    };
    let seen = Seen::of(&*found.open(&DecodePolicy::default().limits)?)?;
    let mut text =
        String::from("# Written by `convoy data add`: these files and no others. `convoy data verify` checks them.\n");
    let list = |words: &mut dyn Iterator<Item = &str>| words.map(quote).collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "name      = {}\ntitle     = {}", quote(&name), quote(&name));
    let _ = writeln!(text, "homepage  = \"\"\nlicence   = \"not stated\"\ncitation  = \"\"");
    let _ = writeln!(text, "format    = {}", quote(format));
    if let Some([height, width, channels]) = seen.shape() {
        let _ = writeln!(text, "shape     = [{height}, {width}, {channels}]      # height, width, channels");
    }
    let _ = writeln!(text, "n_samples = {}", seen.n_samples());
    let _ = writeln!(text, "classes   = [{}]", list(&mut seen.classes.iter().map(String::as_str)));
    let _ = writeln!(text, "splits    = [{}]", list(&mut seen.given.keys().map(|split| split.name())));
    if let Some(place) = &place {
        let _ = writeln!(text, "place     = {}", quote(place));
    }
    let mut n_bytes = 0;
    for path in &paths {
        let below = path
            .strip_prefix(&folder)
            .map_err(|_| reader::Error::new(format!("`{}` is not below `{}`", path.display(), folder.display())))?;
        let (size, sha256) = catalogue::digest_of(path)?;
        n_bytes += size;
        let _ =
            write!(text, "\n[[files]]\nname   = {}\nsize   = {size}\nsha256 = \"{sha256}\"\n", quote(&slashed(below)?));
    }
    Ok(Described { name, text, n_files: paths.len(), n_bytes })
}

fn above(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_owned()
}

/// A path below a folder, as entries write it.
fn slashed(path: &Path) -> Result<String, reader::Error> {
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => name.to_str().map(str::to_owned),
        _ => None,
    };
    let parts: Option<Vec<String>> = path.components().map(part).collect();
    parts.map(|parts| parts.join("/")).ok_or_else(|| {
        reader::Error::new(format!("the name `{}` is not UTF-8, or leads elsewhere", path.to_string_lossy()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_an_entry_that_pins_its_files() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        for (i, name) in ["my images/a/1.png", "my images/b/2.png", "my images/b/ü \"3\".png"].iter().enumerate() {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::GrayImage::from_pixel(2, 3, image::Luma([i as u8])).save(path).unwrap();
        }
        let data = root.join("my images");
        assert!(describe(&data, None, None, &root).err().unwrap().message.contains("no name of a data set"));
        let described = describe(&data, Some("mine"), None, &root).unwrap();
        assert_eq!(described.n_files, 3);
        std::fs::create_dir(root.join("datasets")).unwrap();
        std::fs::write(root.join("datasets/mine.toml"), &described.text).unwrap();
        let entry = catalogue::find_entry("mine", &root).unwrap().unwrap();
        assert_eq!((entry.n_samples, entry.classes.len(), entry.shape().to_string()), (3, 2, "2x3x1".to_owned()));
        let verify = || entry.locate(&entry.folders(None, &root))?.verify(&entry);
        verify().unwrap();
        let place = root.join("my images/b/2.png");
        let before = std::fs::read(&place).unwrap();
        std::fs::write(&place, &before[1..]).unwrap();
        assert!(verify().unwrap_err().message.contains("its SHA-256 is another"));
        std::fs::write(&place, &before).unwrap();
        std::fs::write(root.join("my images/b/4.png"), &before).unwrap();
        assert!(verify().unwrap_err().message.contains("4.png` is not a file of `mine`"));
        std::fs::remove_file(root.join("my images/b/4.png")).unwrap();
        std::fs::remove_file(&place).unwrap();
        assert!(verify().unwrap_err().message.contains("no `b/2.png` in"));
        let odd = described.text.replace("b/2.png", "../../2.png");
        std::fs::write(root.join("datasets/mine.toml"), odd).unwrap();
        assert!(catalogue::find_entry("mine", &root).unwrap_err().message.contains("not below its folder"));
    }
}
