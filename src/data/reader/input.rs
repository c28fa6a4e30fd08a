//! Bytes from outside: regular files only, gzip undone where the content says so.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Error;
use crate::files;

/// Something that a reader reads: a file of the user's, or bytes that are compiled in.
#[derive(Clone, Debug)]
pub enum Input {
    /// A file.
    Path(PathBuf),
    /// Bytes in memory, and what to call them.
    Memory(&'static str, &'static [u8]),
}

/// Bytes in order, from any input.
pub type Stream = Box<dyn BufRead + Send>;

impl Input {
    /// What an error calls it.
    pub fn shown(&self) -> String {
        match self {
            Input::Path(path) => path.display().to_string(),
            Input::Memory(name, _) => (*name).to_owned(),
        }
    }

    /// The bytes as they are.
    ///
    /// # Errors
    /// If there is no such file, or it is not a regular file.
    pub fn open_raw(&self) -> Result<Stream, Error> {
        Ok(match self {
            Input::Path(path) => {
                let (file, _) =
                    open_regular(path).map_err(|e| Error::new(format!("cannot read `{}`: {e}", self.shown())))?;
                Box::new(BufReader::with_capacity(1 << 18, file))
            }
            Input::Memory(_, bytes) => Box::new(Cursor::new(*bytes)),
        })
    }

    /// The bytes, inflated if they are gzip.
    ///
    /// # Errors
    /// If there is no such file, or it is not a regular file.
    pub fn open(&self) -> Result<Stream, Error> {
        let mut raw = self.open_raw()?;
        let head = raw.fill_buf().map_err(|e| self.error(e))?;
        Ok(if is_gzip(head) {
            let n_in = Arc::new(AtomicU64::new(0));
            let packed = Counted { inner: raw, n: Arc::clone(&n_in) };
            let inflated = Inflated { inner: flate2::bufread::MultiGzDecoder::new(packed), n_in, n_out: 0 };
            Box::new(BufReader::with_capacity(1 << 18, inflated))
        } else {
            raw
        })
    }

    /// Up to `n` first bytes, inflated if they are gzip.
    ///
    /// # Errors
    /// If there is no such file, it is not a regular file, or its gzip is broken.
    pub fn head(&self, n: usize) -> Result<Vec<u8>, Error> {
        let mut head = Vec::new();
        self.open()?.take(n as u64).read_to_end(&mut head).map_err(|e| self.error(e))?;
        Ok(head)
    }

    /// An error while reading it.
    pub fn error(&self, error: io::Error) -> Error {
        let shown = self.shown();
        Error::new(match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("`{shown}` is truncated"),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => format!("`{shown}` is corrupt: {error}"),
            _ => format!("cannot read `{shown}`: {error}"),
        })
    }

    /// An error about what it holds: `message` goes on from its name.
    pub fn wrong(&self, message: impl std::fmt::Display) -> Error {
        Error::new(format!("`{}` {message}", self.shown()))
    }
}

/// Bytes that may always be inflated.
const FREE_OUTPUT: u64 = 256 << 20;
/// Beyond that, bytes of output for each one of input: DEFLATE reaches 1,032, images never come near.
const MAX_RATIO: u64 = 200;

/// Counts what is taken from a stream.
struct Counted {
    inner: Stream,
    n: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.n.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl BufRead for Counted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.n.fetch_add(n as u64, Ordering::Relaxed);
        self.inner.consume(n);
    }
}

/// Inflates, but not a bomb.
struct Inflated {
    inner: flate2::bufread::MultiGzDecoder<Counted>,
    n_in: Arc<AtomicU64>,
    n_out: u64,
}

impl Read for Inflated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.n_out += n as u64;
        if self.n_out > FREE_OUTPUT && self.n_out / MAX_RATIO > self.n_in.load(Ordering::Relaxed) {
            let message = format!("it inflates to more than {MAX_RATIO} times its size");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(n)
    }
}

fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b, 8])
}

/// Opens a regular file and says how long it is; anything else is an error and never blocks.
///
/// # Errors
/// Those of the file system, and "is not a regular file".
pub fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    files::open_regular(path).map(|(file, metadata)| (file, metadata.len()))
}

/// Reads exactly `out.len()` bytes.
///
/// # Errors
/// "is truncated", or those of the file system.
pub fn read_exact(from: &mut dyn Read, out: &mut [u8], input: &Input) -> Result<(), Error> {
    from.read_exact(out).map_err(|e| input.error(e))
}

/// An unguessable-length buffer without trusting the header that announces it: grows as bytes come.
///
/// # Errors
/// "is truncated", or those of the file system.
pub fn read_len(from: &mut dyn Read, len: u64, input: &Input) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(len.min(1 << 20) as usize);
    from.take(len).read_to_end(&mut bytes).map_err(|e| input.error(e))?;
    if bytes.len() as u64 != len {
        return Err(input.wrong("is truncated"));
    }
    Ok(bytes)
}
