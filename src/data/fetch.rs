//! Files of data sets from the network: resumed, checked before they get their name, from one place after another until
//! one gives the file.
//!
//! What is loaded lies beside its place as `.NAME.part`, so that a later try, or another mirror, goes on where the last
//! one ended. Nothing is believed of a server but the bytes, and those by their digest: whatever else goes wrong (a status,
//! a page of HTML, a body that is cut or too long, silence) only says that the next place is asked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::catalogue;
use super::reader::Error;
use crate::files::{self, Calls, System};

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// To be reached.
    pub connect: Duration,
    /// To say something more.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { connect: Duration::from_secs(15), silence: Duration::from_secs(30) }
    }
}

/// What goes on.
#[derive(Debug)]
pub enum Step<'s> {
    /// A place is asked; so many bytes are here already.
    Asking(&'s str, u64),
    /// So many bytes are here, of so many, if that is known.
    Loaded(u64, Option<u64>),
    /// A place did not give the file, and why.
    Failed(&'s str, &'s str),
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It was here, and is what it should be.
    Here,
    /// It was loaded: so many bytes, this many of them in this call.
    Loaded(u64, u64),
}

/// Bytes beyond which a file of unknown size is not loaded.
const MOST: u64 = 1 << 40;

/// A place is asked again so often, as long as each time brings something.
const MOST_TRIES: u32 = 8;

/// How a try ended.
enum Ended {
    /// The body is whole, as far as can be told.
    Whole,
    /// Why not; whether it is worth to ask the same place again.
    Cut(String, bool),
}

/// Brings `file` into `folder`, from the first of `urls` that gives it.
///
/// # Errors
/// If another file stands in its place; if nobody gave it, with what each place said; those of the file system.
pub fn fetch(
    file: &catalogue::File,
    of: &str,
    urls: &[String],
    folder: &Path,
    patience: Patience,
    told: &mut dyn FnMut(Step<'_>),
) -> Result<Fetched, Error> {
    if let Some(path) = file.path_in(folder) {
        file.verify(&path, of)?;
        return Ok(Fetched::Here);
    }
    let path = folder.join(&file.name);
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new(format!("`{}` is no name of a file", file.name)));
    };
    let part = above.join(format!(".{}.part", name.to_string_lossy()));
    fs::create_dir_all(above).map_err(cannot("create", above))?;
    if let Some(Err(what)) = files::seen(&part).map_err(cannot("read", &part))? {
        let error = Error::new(format!("`{}` is {what}, not a file that was loaded in part", part.display()));
        return Err(error.help("remove it"));
    }
    let mut to = OpenOptions::new().read(true).append(true).create(true).open(&part).map_err(cannot("write", &part))?;
    if to.try_lock().is_err() {
        return Err(Error::new(format!("`{}` is being loaded by another `convoy`", path.display())));
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.silence))
        .timeout_per_read(Some(patience.silence))
        .max_redirects(5)
        .http_status_as_error(false)
        .accept_encoding("identity")
        .user_agent(concat!("convoy/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut said: Vec<String> = Vec::new();
    let mut n_loaded = 0;
    for url in urls {
        let mut reason = String::new();
        for _ in 0..MOST_TRIES {
            if file.sha256.is_none() && file.unpacked_sha256.is_none() {
                // What was begun may be of another version of the file, and nothing would tell.
                to.set_len(0).map_err(cannot("write", &part))?;
            }
            let before = length(&to, &part)?;
            // What is here may be whole: the last try was stopped before it was looked at.
            if before > 0 && file.size.is_some_and(|size| before >= size) {
                if file.verify(&part, of).is_ok() {
                    break;
                }
                to.set_len(0).map_err(cannot("write", &part))?;
                continue;
            }
            told(Step::Asking(url, before));
            let ended = load(&agent, url, file, &mut to, &part, told)?;
            let now = length(&to, &part)?;
            n_loaded += now.saturating_sub(before);
            reason = match ended {
                Ended::Whole if file.verify(&part, of).is_ok() => {
                    finish(&to, &part, &path)?;
                    return Ok(Fetched::Loaded(now, n_loaded));
                }
                Ended::Whole => {
                    to.set_len(0).map_err(cannot("write", &part))?;
                    // Joined to what another place gave it may be wrong though each is right in itself.
                    if before > 0 {
                        continue;
                    }
                    "gives another file: its SHA-256 is another".to_owned()
                }
                Ended::Cut(reason, may_go_on) => {
                    if may_go_on && now > before {
                        continue;
                    }
                    reason
                }
            };
            break;
        }
        let length = length(&to, &part)?;
        if file.size == Some(length) && file.verify(&part, of).is_ok() {
            finish(&to, &part, &path)?;
            return Ok(Fetched::Loaded(length, n_loaded));
        }
        if reason.is_empty() {
            reason = format!("did not give all of it in {MOST_TRIES} tries");
        }
        told(Step::Failed(url, &reason));
        said.push(format!("{url} {reason}"));
    }
    if length(&to, &part)? == 0 {
        // Nothing is left behind where nothing came.
        let _ = fs::remove_file(&part);
    }
    let mut error = Error::new(format!("`{}` could not be fetched: {}", file.name, said.join("; ")));
    if urls.is_empty() {
        error = Error::new(format!("where `{}` can be fetched from is not known", file.name));
    }
    Err(error.help(format!("put it into `{}` by hand", above.display())))
}

fn cannot<'p>(doing: &'static str, path: &'p Path) -> impl Fn(io::Error) -> Error + 'p {
    move |error| Error::new(format!("cannot {doing} `{}`: {}", path.display(), files::reason(&error)))
}

fn length(file: &File, path: &Path) -> Result<u64, Error> {
    Ok(file.metadata().map_err(cannot("read", path))?.len())
}

/// Gives what was loaded its name.
fn finish(file: &File, part: &Path, path: &Path) -> Result<(), Error> {
    System.sync(file, part).and_then(|()| System.rename(part, path)).map_err(cannot("write", path))
}

/// Asks one place for what is not here yet, and appends what it gives.
fn load(
    agent: &ureq::Agent,
    url: &str,
    file: &catalogue::File,
    to: &mut File,
    part: &Path,
    told: &mut dyn FnMut(Step<'_>),
) -> Result<Ended, Error> {
    let cut = |reason: String| Ok(Ended::Cut(reason, false));
    if !(url.starts_with("https://") || url.starts_with("http://")) {
        return cut("is no address of HTTP".to_owned());
    }
    let before = length(to, part)?;
    let mut request = agent.get(url);
    if before > 0 {
        request = request.header("Range", format!("bytes={before}-"));
    }
    let response = match request.call() {
        Ok(response) => response,
        Err(ureq::Error::Timeout(_)) => return cut("does not answer".to_owned()),
        Err(error) => return cut(format!("cannot be reached: {error}")),
    };
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let status = response.status();
    let start = match status.as_u16() {
        200 => 0,
        206 if header("content-range").starts_with(&format!("bytes {before}-")) => before,
        206 => return cut("answers with another part than was asked for".to_owned()),
        // There is nothing beyond what is here: it is the file, or it goes.
        416 if before > 0 => return Ok(Ended::Whole),
        _ => return cut(format!("answers with status {status}")),
    };
    const PAGE: &str = "answers with a page of HTML, not with the file";
    let may_be_page = [".html", ".htm"].iter().any(|ending| file.name.ends_with(ending));
    if !may_be_page && header("content-type").trim_start().to_ascii_lowercase().starts_with("text/html") {
        return cut(PAGE.to_owned());
    }
    let announced = response.body().content_length().map(|length| start + length);
    if let (Some(size), Some(announced)) = (file.size, announced)
        && size != announced
    {
        return cut(format!("has a file of {announced} bytes, not of {size}"));
    }
    let total = file.size.or(announced);
    let most = total.unwrap_or(MOST);
    let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
    let mut buffer = vec![0; 1 << 16];
    let mut done = start;
    let mut is_first = true;
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let of = total.map_or(String::new(), |total| format!(" of {total}"));
                let what = if error.kind() == io::ErrorKind::TimedOut { "falls silent" } else { "breaks off" };
                return Ok(Ended::Cut(format!("{what} after {done}{of} bytes"), true));
            }
        };
        if is_first {
            let head = buffer[..n.min(32)].trim_ascii_start().to_ascii_lowercase();
            if start == 0
                && !may_be_page
                && [&b"<!doctype html"[..], b"<html"].iter().any(|page| head.starts_with(page))
            {
                return cut(PAGE.to_owned());
            }
            if start == 0 {
                // It does not go on where the last try ended, so that goes.
                to.set_len(0).map_err(cannot("write", part))?;
            }
            is_first = false;
        }
        if done + n as u64 > most {
            to.set_len(0).map_err(cannot("write", part))?;
            return cut(format!("gives more than {most} bytes"));
        }
        to.write_all(&buffer[..n]).map_err(cannot("write", part))?;
        done += n as u64;
        told(Step::Loaded(done, total));
    }
    match total {
        Some(total) if done < total => Ok(Ended::Cut(format!("breaks off after {done} of {total} bytes"), true)),
        _ => Ok(Ended::Whole),
    }
}

/// What a file from an address is called: the last part of its path.
///
/// # Errors
/// If that is no name.
pub fn name_of(url: &str) -> Result<String, Error> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let name = path.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let name = name.rsplit('/').next().unwrap_or_default();
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+'));
    if name.is_empty() || !is_plain || name.starts_with('.') {
        return Err(
            Error::new(format!("`{url}` does not end with a plain name of a file")).help("name it with `--name`")
        );
    }
    Ok(name.to_owned())
}

/// The addresses of a file: its own, then each mirror's.
pub fn addresses(entry: &catalogue::Entry, file: &catalogue::File) -> Vec<String> {
    let mut path = String::new();
    for byte in file.name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    let mirrors = entry.mirrors.iter().map(|mirror| format!("{}/{path}", mirror.trim_end_matches('/')));
    file.urls.iter().cloned().chain(mirrors).collect()
}

/// Where the files of an entry go that has none yet: into the folder of data sets that was named, else the project's.
pub fn target(entry: &catalogue::Entry, data_dir: Option<&Path>, root: &Path) -> PathBuf {
    data_dir.map_or_else(|| root.join("datasets"), Path::to_owned).join(&entry.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_or_refused() {
        assert_eq!(name_of("https://a.example/b/c.tar.gz?x=1#y").unwrap(), "c.tar.gz");
        for odd in ["https://a.example", "https://a.example/", "https://a.example/..", "https://a.example/a%2Fb", "c"] {
            assert!(name_of(odd).is_err(), "{odd}");
        }
    }
}
