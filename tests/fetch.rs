//! `data fetch` against a server of the test's own on the loopback, with every fault that a mirror may have; `data add`,
//! `data verify` and `data show` on what is here.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{ran, unbroken};
use sha2::{Digest, Sha256};

/// How the server answers for a path.
#[derive(Clone)]
enum Answer {
    /// The file, in parts where they are asked for.
    Whole(Vec<u8>),
    /// The file, whatever part is asked for.
    WithoutRanges(Vec<u8>),
    /// So many bytes of the file for each request, then the connection ends.
    Cut(Vec<u8>, usize),
    /// The file without its length, cut after so many bytes.
    CutWithoutLength(Vec<u8>, usize),
    /// A page with status 200.
    Page,
    /// A page with status 200 that does not say so.
    PageAsFile,
    Status(&'static str),
    /// A part that was not asked for.
    OtherPart(Vec<u8>),
    /// So many bytes, then silence.
    Silent(Vec<u8>, usize),
    To(String),
    /// Bytes without an end.
    Endless,
}

#[derive(Default)]
struct Asked {
    answers: BTreeMap<String, Answer>,
    /// Paths, and the first byte that was asked for.
    log: Vec<(String, u64)>,
}

struct Server {
    address: String,
    state: Arc<Mutex<Asked>>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(Asked::default()));
        let shared = Arc::clone(&state);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || drop(answer(stream, &state)));
            }
        });
        Server { address, state }
    }

    fn set(&self, path: &str, answer: Answer) -> String {
        self.state.lock().unwrap().answers.insert(path.to_owned(), answer);
        format!("{}{path}", self.address)
    }

    fn log(&self) -> Vec<(String, u64)> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<Asked>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut start = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        let header = header.to_ascii_lowercase();
        if let Some(range) = header.strip_prefix("range: bytes=") {
            start = range.trim().trim_end_matches('-').parse().unwrap();
        }
    }
    let answer = {
        let mut state = state.lock().unwrap();
        state.log.push((path.clone(), start));
        state.answers.get(&path).cloned().unwrap_or(Answer::Status("404 Not Found"))
    };
    let head = |status: &str, more: &str, length: Option<usize>| {
        let length = length.map_or(String::new(), |n| format!("Content-Length: {n}\r\n"));
        write!(stream.try_clone()?, "HTTP/1.1 {status}\r\n{length}{more}Connection: close\r\n\r\n")
    };
    let from = (start as usize).min(match &answer {
        Answer::Whole(bytes) | Answer::Cut(bytes, _) | Answer::Silent(bytes, _) => bytes.len(),
        _ => 0,
    });
    let range = |total: usize| format!("Content-Range: bytes {from}-{}/{total}\r\n", total.saturating_sub(1));
    match answer {
        Answer::Whole(bytes) if start as usize >= bytes.len() && start > 0 => {
            head("416 Range Not Satisfiable", "", Some(0))?
        }
        Answer::Whole(bytes) => {
            let (status, more) =
                if start > 0 { ("206 Partial Content", range(bytes.len())) } else { ("200 OK", String::new()) };
            head(status, &more, Some(bytes.len() - from))?;
            stream.write_all(&bytes[from..])?;
        }
        Answer::WithoutRanges(bytes) => {
            head("200 OK", "", Some(bytes.len()))?;
            stream.write_all(&bytes)?;
        }
        Answer::Cut(bytes, n) => {
            let (status, more) =
                if start > 0 { ("206 Partial Content", range(bytes.len())) } else { ("200 OK", String::new()) };
            head(status, &more, Some(bytes.len() - from))?;
            stream.write_all(&bytes[from..(from + n).min(bytes.len())])?;
        }
        Answer::CutWithoutLength(bytes, n) => {
            head("200 OK", "", None)?;
            stream.write_all(&bytes[..n])?;
        }
        Answer::Page => {
            let page = b"<!DOCTYPE html><html>Please log in</html>";
            head("200 OK", "Content-Type: text/html; charset=utf-8\r\n", Some(page.len()))?;
            stream.write_all(page)?;
        }
        Answer::PageAsFile => {
            let page = b"\n <HTML>Please log in</HTML>";
            head("200 OK", "Content-Type: application/octet-stream\r\n", Some(page.len()))?;
            stream.write_all(page)?;
        }
        Answer::Status(status) => head(status, "", Some(0))?,
        Answer::OtherPart(bytes) => {
            head("206 Partial Content", "Content-Range: bytes 1-2/9\r\n", Some(bytes.len()))?;
            stream.write_all(&bytes)?;
        }
        Answer::Silent(bytes, n) => {
            let (status, more) =
                if start > 0 { ("206 Partial Content", range(bytes.len())) } else { ("200 OK", String::new()) };
            head(status, &more, Some(bytes.len() - from))?;
            stream.write_all(&bytes[from..(from + n).min(bytes.len())])?;
            std::thread::sleep(Duration::from_secs(20));
        }
        Answer::To(url) => head("302 Found", &format!("Location: {url}\r\n"), Some(0))?,
        Answer::Endless => {
            head("200 OK", "", None)?;
            while stream.write_all(&[7; 4096]).is_ok() {}
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Some hundred kilobytes that do not repeat.
fn content() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn project() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join(".git")).unwrap();
    temp
}

/// An entry `set` of one file `a.bin`; without its size, if so.
fn write_entry(root: &Path, bytes: &[u8], urls: &[String], has_size: bool) {
    let urls: Vec<String> = urls.iter().map(|url| format!("\"{url}\"")).collect();
    let size = if has_size { format!("size = {}\n", bytes.len()) } else { String::new() };
    let text = format!(
        "name = \"set\"\ntitle = \"A set\"\nhomepage = \"\"\nlicence = \"\"\ncitation = \"\"\nformat = \"npy\"\n\
         n_samples = 1\nclasses = []\nsplits = []\n\n[[files]]\nname = \"a.bin\"\nsha256 = \"{}\"\n{size}urls = [{}]\n",
        hex(bytes),
        urls.join(", ")
    );
    fs::create_dir_all(root.join("datasets")).unwrap();
    fs::write(root.join("datasets/set.toml"), text).unwrap();
}

/// Fetches the entry's file through `urls`: whether it came, and what was said.
fn fetched(root: &Path, bytes: &[u8], urls: &[String], has_size: bool) -> (bool, String) {
    write_entry(root, bytes, urls, has_size);
    let (_, out, err) = ran(root, &["data", "fetch", "set", "--timeout", "1"]);
    let place = root.join("datasets/set/a.bin");
    let is_there = place.exists();
    if is_there {
        assert!(fs::read(&place).unwrap() == bytes, "what has the name is the file");
        assert!(!root.join("datasets/set/.a.bin.part").exists());
    }
    (is_there, unbroken(format!("{out}{err}").as_bytes()))
}

#[test]
fn every_fault_of_a_mirror_leads_to_the_next_one() {
    let server = Server::start();
    let bytes = content();
    let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
    let good = server.set("/good", Answer::Whole(bytes.clone()));
    let faults = [
        ("/wrong", Answer::Whole(other), "its SHA-256 is another"),
        ("/page", Answer::Page, "a page of HTML"),
        ("/hidden", Answer::PageAsFile, "HTML"),
        ("/none", Answer::Status("404 Not Found"), "status 404"),
        ("/busy", Answer::Status("503 Service Unavailable"), "status 503"),
        ("/long", Answer::Endless, "gives more than 300000 bytes"),
        ("/part", Answer::OtherPart(bytes.clone()), "another part"),
        ("/silent", Answer::Silent(bytes.clone(), 0), ""),
        ("/cut", Answer::CutWithoutLength(bytes.clone(), 1000), "breaks off after"),
    ];
    for (path, answer, said) in faults {
        let url = server.set(path, answer);
        let root = project();
        let started = Instant::now();
        // Sizes are checked before digests where they are known.
        let has_size = path != "/hidden";
        let (is_there, told) = fetched(root.path(), &bytes, &[url.clone(), good.clone()], has_size);
        assert!(is_there, "{path}: {told}");
        assert!(told.contains(&format!("{url} ")) || path == "/cut", "{path} is told: {told}");
        assert!(started.elapsed() < Duration::from_secs(15), "{path}");
        // Nobody else has it: what was wrong is said, and nothing has its name.
        let root = project();
        let (is_there, told) = fetched(root.path(), &bytes, &[url], has_size);
        assert!(!is_there, "{path}: {told}");
        assert!(told.contains("could not be fetched") && told.contains(said), "{path}: {told}");
    }
    let root = project();
    let nobody = "http://127.0.0.1:1/a".to_owned();
    let (is_there, told) = fetched(root.path(), &bytes, &[nobody, "ftp://127.0.0.1/a".to_owned(), good], true);
    assert!(is_there && told.contains("cannot be reached") && told.contains("no address of HTTP"), "{told}");
}

#[test]
fn what_was_cut_goes_on_where_it_ended_here_and_at_another_mirror() {
    let server = Server::start();
    let bytes = content();
    let root = project();
    let cut = server.set("/cut", Answer::Cut(bytes.clone(), 100_000));
    let (is_there, told) = fetched(root.path(), &bytes, &[cut], true);
    assert!(is_there, "{told}");
    let starts: Vec<u64> = server.log().iter().map(|(_, start)| *start).collect();
    assert_eq!(starts, [0, 100_000, 200_000]);
    // What one gave before it broke off for good is not loaded again from another.
    for has_size in [true, false] {
        let root = project();
        let good = server.set("/good", Answer::Whole(bytes.clone()));
        fs::create_dir_all(root.path().join("datasets/set")).unwrap();
        fs::write(root.path().join("datasets/set/.a.bin.part"), &bytes[..50_000]).unwrap();
        let (is_there, told) = fetched(root.path(), &bytes, &[good], has_size);
        assert!(is_there, "{told}");
        assert_eq!(server.log(), [("/good".to_owned(), 50_000)]);
    }
    // One that falls silent in the middle is asked again.
    let root = project();
    let silent = server.set("/silent", Answer::Silent(bytes.clone(), 200_000));
    assert!(fetched(root.path(), &bytes, &[silent], true).0);
    assert_eq!(server.log(), [("/silent".to_owned(), 0), ("/silent".to_owned(), 200_000)]);
    // What is left of another file is thrown away, with and without a server that gives parts.
    for answer in [Answer::Whole(bytes.clone()), Answer::WithoutRanges(bytes.clone())] {
        for n in [10, bytes.len(), bytes.len() + 10] {
            for has_size in [true, false] {
                let root = project();
                let url = server.set("/file", answer.clone());
                fs::create_dir_all(root.path().join("datasets/set")).unwrap();
                fs::write(root.path().join("datasets/set/.a.bin.part"), vec![9; n]).unwrap();
                let (is_there, told) = fetched(root.path(), &bytes, &[url], has_size);
                assert!(is_there, "{n} {has_size}: {told}");
            }
        }
    }
    // All of it, but for its name.
    let root = project();
    fs::create_dir_all(root.path().join("datasets/set")).unwrap();
    fs::write(root.path().join("datasets/set/.a.bin.part"), &bytes).unwrap();
    server.log();
    let url = server.set("/file", Answer::Whole(bytes.clone()));
    assert!(fetched(root.path(), &bytes, &[url], true).0);
    assert!(server.log().is_empty());
}

#[test]
fn nothing_is_asked_for_what_is_here_nor_offline() {
    let server = Server::start();
    let bytes = content();
    let root = project();
    let url = server.set("/good", Answer::Whole(bytes.clone()));
    write_entry(root.path(), &bytes, std::slice::from_ref(&url), true);
    let (code, _, err) = ran(root.path(), &["data", "fetch", "set", "--offline"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("is not here"), "{err}");
    assert!(fetched(root.path(), &bytes, std::slice::from_ref(&url), true).0);
    server.log();
    assert!(fetched(root.path(), &bytes, std::slice::from_ref(&url), true).0);
    assert!(server.log().is_empty());
    // Another file in its place is left, and told.
    fs::write(root.path().join("datasets/set/a.bin"), b"mine").unwrap();
    let (code, _, err) = ran(root.path(), &["data", "fetch", "set"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("is not the file of") || err.contains("format"), "{err}");
    assert_eq!(fs::read(root.path().join("datasets/set/a.bin")).unwrap(), b"mine");
}

#[test]
fn one_file_is_fetched_by_its_address_and_checked_if_its_digest_is_known() {
    let server = Server::start();
    let bytes = content();
    let root = project();
    let file = server.set("/b/data.npz", Answer::Whole(bytes.clone()));
    let moved = server.set("/a/data.npz?x=1", Answer::To(file));
    let (code, out, err) = ran(root.path(), &["data", "fetch", &moved]);
    assert_eq!(code, Some(0), "{err}");
    assert!(unbroken(out.as_bytes()).contains(&hex(&bytes)), "{out}");
    assert!(fs::read(root.path().join("datasets/data.npz")).unwrap() == bytes);
    let (code, _, err) = ran(root.path(), &["data", "fetch", &moved, "--sha256", &hex(b"other"), "--name", "b.npz"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(!root.path().join("datasets/b.npz").exists());
    // What was begun without a digest may be of another version of the file.
    fs::write(root.path().join("datasets/.c.npz.part"), [7; 100]).unwrap();
    let (code, _, err) = ran(root.path(), &["data", "fetch", &moved, "--name", "c.npz"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(fs::read(root.path().join("datasets/c.npz")).unwrap() == bytes);
    let (code, out, _) = ran(root.path(), &["data", "fetch", &moved, "--name", "c.npz"]);
    assert!(code == Some(0) && out.contains("was here already"), "{out}");
    for odd in [&["--name", "../b.npz"][..], &["--sha256", "12"]] {
        let (code, _, err) = ran(root.path(), &[&["data", "fetch", &moved], odd].concat());
        assert_eq!(code, Some(2), "{err}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_in_the_place_of_what_was_loaded_in_part_is_not_written_through() {
    let server = Server::start();
    let bytes = content();
    let root = project();
    let photo = root.path().join("photo.jpg");
    fs::write(&photo, b"a photo").unwrap();
    fs::create_dir_all(root.path().join("datasets/set")).unwrap();
    std::os::unix::fs::symlink(&photo, root.path().join("datasets/set/.a.bin.part")).unwrap();
    let url = server.set("/good", Answer::Whole(bytes.clone()));
    let (is_there, told) = fetched(root.path(), &bytes, &[url], true);
    assert!(!is_there && told.contains("is a link"), "{told}");
    assert_eq!(fs::read(&photo).unwrap(), b"a photo");
}

#[test]
fn own_data_are_pinned_by_an_entry() {
    let root = project();
    common::draw_images(root.path());
    let (code, out, err) = ran(root.path(), &["data", "add", "images", "--name", "bugs"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(unbroken(out.as_bytes()).contains("24 files"), "{out}");
    let verify = || ran(root.path(), &["data", "verify", "bugs"]);
    assert_eq!(verify().0, Some(0), "{}", verify().2);
    let manifest = "schema = 1\nname = \"bugs\"\n\n[stages.ingest]\nsource = \"bugs\"\n\n[stages.split]\nfolds = 2\n";
    fs::write(root.path().join("bugs.toml"), manifest).unwrap();
    let (code, _, err) = ran(root.path(), &["run", "-q"]);
    assert_eq!(code, Some(0), "{err}");
    // An edit is not computed with.
    let image = root.path().join("images/ant/00.png");
    let before = fs::read(&image).unwrap();
    fs::copy(root.path().join("images/bee/00.png"), &image).unwrap();
    assert_eq!(verify().0, Some(1));
    let (code, _, err) = ran(root.path(), &["run", "-q"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(unbroken(err.as_bytes()).contains("00.png` is not the file of `bugs`"), "{err}");
    fs::write(&image, before).unwrap();
    fs::write(root.path().join("images/ant/99.png"), fs::read(&image).unwrap()).unwrap();
    let (code, _, err) = ran(root.path(), &["run", "-q"]);
    assert_eq!(code, Some(1), "{err}");
    assert_eq!(ran(root.path(), &["data", "add", "images", "--name", "bugs"]).0, Some(1), "another entry is kept");
    assert_eq!(ran(root.path(), &["data", "add", "images", "--name", "bugs", "--replace"]).0, Some(0));
    assert_eq!(ran(root.path(), &["run", "-q"]).0, Some(0));
    let (_, out, _) = ran(root.path(), &["data", "show", "bugs", "--sheet", "sheet.png"]);
    assert!(out.contains("25 images, 2 classes") && out.contains("all 6x6x1"), "{out}");
    let sheet = image::open(root.path().join("sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (8 * 66 + 2, 2 * 66 + 2));
}
