//! One file of a folder changes, and one image is decoded: what comes out is what an ingest from nothing gives.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use convoy::manifest::{Manifest, Overrides};
use convoy::runner::{Event, Events, Options, Session};
use convoy::stages::Part;
use convoy::store::{Access, Digest};
use proptest::prelude::*;

const MANIFEST: &str = "schema = 1\nname = \"m\"\n[stages.ingest]\nsource = \"img\"\non_corrupt = \"skip\"\n\
                        resize = { width = 3, height = 2 }\n";

/// The last note of the ingest's progress.
#[derive(Default)]
struct Noted(Mutex<String>);

impl Events for Noted {
    fn event(&self, event: &Event<'_>) {
        if let Event::Progress { note, .. } = event {
            *self.0.lock().unwrap() = (*note).to_owned();
        }
    }
}

struct Project {
    dir: tempfile::TempDir,
}

/// What an ingest came to: its key and the digest of each file, or why there is none; and how many images were as before.
type Came = (Result<BTreeMap<String, Digest>, String>, usize);

impl Project {
    fn new() -> Project {
        let project = Project { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(project.dir.path().join(".git")).unwrap();
        for i in 0..12_u8 {
            let class = if i % 3 == 0 { "cat" } else { "dog" };
            project.put(&format!("{class}/{i:02}.pgm"), &pgm(i, 4));
        }
        project.put("dog/notes.txt", b"no image");
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("img").join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// The images that there are, by name.
    fn names(&self) -> Vec<String> {
        let files = walkdir::WalkDir::new(self.path("")).sort_by_file_name().into_iter().flatten();
        let files = files.filter(|file| !file.file_type().is_dir() && file.path().extension() != Some("txt".as_ref()));
        files.map(|file| file.path().strip_prefix(self.path("")).unwrap().to_str().unwrap().to_owned()).collect()
    }

    /// Runs with the project's store, or with one of its own.
    fn run(&self, text: &str, store: Option<&Path>, force: bool) -> Came {
        let path = self.dir.path().join("m.toml");
        fs::write(&path, text).unwrap();
        let manifest = Manifest::load(&path, &Overrides::default()).unwrap_or_else(|found| panic!("{found}"));
        let session = Session::open(&manifest, None, store, Access::Write).unwrap();
        let cancel = AtomicBool::new(false);
        let mut options = Options::new(2, &cancel);
        options.force.extend(force.then_some(0));
        let noted = Noted::default();
        let outcome = match session.run(&options, &noted) {
            Ok(outcome) => outcome,
            Err(error) => return (Err(error.to_string()), 0),
        };
        let n_known = noted.0.lock().unwrap().split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        if let Some((_, failure)) = outcome.failures().next() {
            return (Err(format!("{failure:?}")), n_known);
        }
        let entry = outcome.task(0, Part::Whole).and_then(|task| task.entry.clone()).expect("it is finished");
        let mut files: BTreeMap<String, Digest> =
            entry.outputs.iter().map(|output| (output.name.clone(), output.digest)).collect();
        files.insert("key".to_owned(), entry.fingerprint);
        (Ok(files), n_known)
    }

    #[track_caller]
    fn is_as_from_nothing(&self, text: &str) -> usize {
        let empty = tempfile::tempdir().unwrap();
        let (whole, none) = self.run(text, Some(&empty.path().join("store")), false);
        assert_eq!(none, 0, "nothing is known from nothing");
        let (part, n_known) = self.run(text, None, false);
        assert_eq!(part, whole);
        n_known
    }
}

fn pgm(value: u8, side: u8) -> Vec<u8> {
    let mut bytes = format!("P5\n{side} {side}\n255\n").into_bytes();
    bytes.extend((0..side as usize * side as usize).map(|i| value.wrapping_mul(7).wrapping_add(i as u8)));
    bytes
}

#[test]
fn one_edited_added_removed_moved_or_renamed_image_is_all_that_is_decoded() {
    let project = Project::new();
    assert_eq!(project.is_as_from_nothing(MANIFEST), 0);
    project.put("cat/03.pgm", &pgm(77, 5));
    assert_eq!(project.is_as_from_nothing(MANIFEST), 11, "edited");
    project.put("dog/new.pgm", &pgm(78, 4));
    assert_eq!(project.is_as_from_nothing(MANIFEST), 12, "added");
    fs::remove_file(project.path("dog/01.pgm")).unwrap();
    assert_eq!(project.is_as_from_nothing(MANIFEST), 12, "removed");
    fs::rename(project.path("dog/02.pgm"), project.path("dog/zz.pgm")).unwrap();
    assert_eq!(project.is_as_from_nothing(MANIFEST), 12, "renamed: the same bytes");
    fs::rename(project.path("dog/04.pgm"), project.path("cat/04.pgm")).unwrap();
    assert_eq!(project.is_as_from_nothing(MANIFEST), 12, "of another class");
    project.put("dog/05.pgm", b"P5 broken");
    assert_eq!(project.is_as_from_nothing(MANIFEST), 11, "broken");
    project.put("dog/05.pgm", &pgm(55, 4));
    assert_eq!(project.is_as_from_nothing(MANIFEST), 11, "whole again");
}

#[test]
fn what_decodes_otherwise_is_decoded_and_so_is_what_is_forced() {
    let project = Project::new();
    project.is_as_from_nothing(MANIFEST);
    for other in ["width = 4", "width = 3, filter = \"box\"", "width = 3"] {
        project.put("cat/00.pgm", &pgm(other.len() as u8, 4));
        let n_known = project.is_as_from_nothing(&MANIFEST.replace("width = 3", other));
        assert_eq!(n_known, 0, "{other}");
    }
    project.put("cat/00.pgm", &pgm(99, 4));
    let limited = format!("{MANIFEST}limit = 6\n");
    assert!(project.is_as_from_nothing(&limited) >= 5, "a limit changes no image");
    let (forced, n_known) = project.run(&limited, None, true);
    assert!(forced.is_ok() && n_known == 0, "{forced:?}: {n_known} known");
}

#[test]
fn what_is_remembered_of_a_folder_is_believed_only_if_it_gives_its_digest() {
    let project = Project::new();
    project.is_as_from_nothing(MANIFEST);
    // Two images of the listing that the store remembers trade their digests, under the seal of a whole note.
    let trees = project.dir.path().join(".convoy/index/trees");
    let tree = fs::read_dir(&trees).unwrap().next().unwrap().unwrap().path();
    let name = tree.file_name().unwrap().to_str().unwrap().to_owned();
    let mut bytes = fs::read(&tree).unwrap();
    let at = |bytes: &[u8], path: &str| {
        let start = bytes.windows(path.len()).position(|window| window == path.as_bytes()).unwrap();
        start + path.len() + 32
    };
    let (one, two) = (at(&bytes, "dog/01.pgm"), at(&bytes, "dog/02.pgm"));
    for i in 0..32 {
        bytes.swap(one + i, two + i);
    }
    let length = bytes.len() - "\nend \n".len() - 64;
    let mut hasher = blake3::Hasher::new();
    let sealed = format!("index/trees/{name}");
    hasher.update(&(sealed.len() as u64).to_le_bytes());
    hasher.update(sealed.as_bytes());
    hasher.update(&bytes[..length]);
    let seal = format!("\nend {}\n", hasher.finalize().to_hex());
    bytes.truncate(length);
    bytes.extend_from_slice(seal.as_bytes());
    fs::write(&tree, bytes).unwrap();
    project.put("cat/00.pgm", &pgm(99, 4));
    assert_eq!(project.is_as_from_nothing(MANIFEST), 0, "a forged listing is none");
}

#[derive(Clone, Debug)]
enum Edit {
    Put(u8, u8, u8),
    Remove(usize),
    Copy(usize, u8),
    Move(usize, u8),
    Swap(usize, usize),
    Break(usize),
    Text(usize),
    Resize(bool),
}

fn edits() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (0..20_u8, any::<u8>(), 1..6_u8).prop_map(|(name, value, side)| Edit::Put(name, value, side)),
        any::<usize>().prop_map(Edit::Remove),
        (any::<usize>(), 0..20_u8).prop_map(|(from, name)| Edit::Copy(from, name)),
        (any::<usize>(), 0..20_u8).prop_map(|(from, name)| Edit::Move(from, name)),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Edit::Swap(a, b)),
        any::<usize>().prop_map(Edit::Break),
        any::<usize>().prop_map(Edit::Text),
        any::<bool>().prop_map(Edit::Resize),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_edits_give_the_bytes_of_an_ingest_from_nothing(edits in proptest::collection::vec((edits(), edits()), 1..6)) {
        let project = Project::new();
        project.is_as_from_nothing(MANIFEST);
        let mut text = MANIFEST.to_owned();
        let place = |name: u8| format!("{}/{name:02}.pgm", if name.is_multiple_of(2) { "cat" } else { "dog" });
        for (one, two) in edits {
            for edit in [one, two] {
                let names = project.names();
                let of = |i: usize| project.path(&names[i % names.len().max(1)]);
                if names.is_empty() && !matches!(edit, Edit::Put(..) | Edit::Resize(_)) {
                    continue;
                }
                match edit {
                    Edit::Put(name, value, side) => project.put(&place(name), &pgm(value, side)),
                    Edit::Remove(i) => fs::remove_file(of(i)).unwrap(),
                    Edit::Copy(i, name) => project.put(&place(name), &fs::read(of(i)).unwrap()),
                    Edit::Move(i, name) => fs::rename(of(i), project.path(&place(name))).unwrap(),
                    Edit::Swap(a, b) => {
                        let (one, two) = (fs::read(of(a)).unwrap(), fs::read(of(b)).unwrap());
                        fs::write(of(a), two).unwrap();
                        fs::write(of(b), one).unwrap();
                    }
                    Edit::Break(i) => fs::write(of(i), b"P5\n4 4\n255\n1").unwrap(),
                    Edit::Text(i) => fs::write(of(i), b"words").unwrap(),
                    Edit::Resize(wide) => text = MANIFEST.replace("width = 3", if wide { "width = 5" } else { "width = 3" }),
                }
            }
            project.is_as_from_nothing(&text);
        }
    }
}
