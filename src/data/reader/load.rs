//! From a listed source to decoded images, in parallel, in order, in bounded memory.
//!
//! One thread reads the source and cuts it into chunks; a pool decodes each chunk; the images of a chunk are handed on
//! in the source's order. How many threads there are, and how long the chunks are, cannot change what comes out.

use std::cell::RefCell;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::input::open_regular;
use super::{Content, Error, GivenSplit, Pick, Reader, Sample};
use crate::data::decode::{DecodePolicy, Decoded, Fault, Refused, pixel_digest, too_large};
use crate::files;

/// The decoded images and the undecoded bytes of one chunk stay below this, unless a single image is larger.
const CHUNK_BYTES: usize = 16 << 20;
/// The longest chunk: long enough that handing it over costs nothing.
const CHUNK_LEN: usize = 1024;

/// An image with all that is known of it.
#[derive(Debug)]
pub struct Loaded {
    /// Where it is, relative to the source.
    pub path: String,
    /// Its class.
    pub label: u32,
    /// The split the source puts it in.
    pub given: Option<GivenSplit>,
    /// Its group.
    pub group: Option<String>,
    /// What the columns that were asked for say of it.
    pub cells: Vec<String>,
    /// Its pixels and their digest, or why there are none.
    pub image: Result<(Decoded, u128), Refused>,
}

/// An image with the digest of its pixels, by its path in the source, where it is known without decoding.
pub type Known<'a> = dyn Fn(&str) -> Option<(Decoded, u128)> + Sync + 'a;

/// How to load.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// How images are decoded.
    pub policy: &'a DecodePolicy,
    /// Which images.
    pub pick: Pick,
    /// Threads that decode.
    pub threads: usize,
    /// Finds images, by their paths in the source, that need not be decoded: the same bytes were, by the same policy.
    pub known: Option<&'a Known<'a>>,
}

impl std::fmt::Debug for Plan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("pick", &self.pick).field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Decodes what `plan` picks and hands it to `each`, in order.
///
/// # Errors
/// The first one of `each`, else the reader's.
pub fn load<E: From<Error> + Send>(
    reader: &dyn Reader,
    plan: &Plan<'_>,
    each: &mut (dyn FnMut(Loaded) -> Result<(), E> + Send),
) -> Result<(), E> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(plan.threads)
        .thread_name(|i| format!("decode {i}"))
        .build()
        .map_err(|e| Error::new(format!("cannot start threads to decode with: {e}")))?;
    // The first chunk is one image: its size says how many fit into the next ones.
    let chunk_len = AtomicUsize::new(1);
    let (sender, receiver) = sync_channel(1);
    std::thread::scope(|scope| {
        let consumer = scope.spawn(|| consume(receiver, &pool, plan, &chunk_len, each));
        let produced = produce(reader, plan.pick, &sender, &chunk_len);
        drop(sender);
        match consumer.join() {
            // A reader that was told to stop has no say.
            Ok(consumed) => consumed.and_then(|()| Ok(produced?)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn produce(
    reader: &dyn Reader,
    pick: Pick,
    sender: &SyncSender<Vec<Sample>>,
    chunk_len: &AtomicUsize,
) -> Result<(), Error> {
    let stopped = || Error::new("stopped");
    let mut chunk = Vec::new();
    let mut n_bytes = 0;
    reader.read(&pick, &mut |sample| {
        n_bytes += match &sample.content {
            Content::Encoded(bytes) => bytes.len(),
            Content::Raw(raw) => raw.pixels.len(),
            Content::File(_) | Content::Bad(_) => 0,
        };
        chunk.push(sample);
        if chunk.len() >= chunk_len.load(Ordering::Relaxed) || n_bytes >= CHUNK_BYTES {
            n_bytes = 0;
            sender.send(std::mem::take(&mut chunk)).map_err(|_| stopped())?;
        }
        Ok(())
    })?;
    sender.send(chunk).map_err(|_| stopped())
}

fn consume<E: From<Error> + Send>(
    chunks: Receiver<Vec<Sample>>,
    pool: &rayon::ThreadPool,
    plan: &Plan<'_>,
    chunk_len: &AtomicUsize,
    each: &mut (dyn FnMut(Loaded) -> Result<(), E> + Send),
) -> Result<(), E> {
    // While one chunk is decoded, the one before it is handed on.
    let mut pending = Vec::new();
    for chunk in chunks {
        let hand_on = std::mem::take(&mut pending);
        let (handed, loaded) = pool.install(|| {
            rayon::join(
                || hand_on.into_iter().try_for_each(&mut *each),
                || chunk.into_par_iter().map(|sample| decoded(sample, plan)).collect::<Vec<Loaded>>(),
            )
        });
        handed?;
        let failed = |loaded: &&Loaded| loaded.image.as_ref().is_err_and(|refused| refused.fault == Fault::Machine);
        if let Some(Loaded { path, image: Err(refused), .. }) = loaded.iter().find(failed) {
            return Err(Error::new(format!("`{path}` {refused}"))
                .help("it may well be sound: see to the machine, and run again")
                .into());
        }
        if let Some((image, _)) = loaded.iter().find_map(|loaded| loaded.image.as_ref().ok()) {
            let most = CHUNK_BYTES / image.pixels.len().max(1);
            chunk_len.store(most.clamp(plan.threads, CHUNK_LEN), Ordering::Relaxed);
        }
        pending = loaded;
    }
    pending.into_iter().try_for_each(each)
}

/// Decodes one image.
pub fn decoded(sample: Sample, plan: &Plan<'_>) -> Loaded {
    let Sample { path, label, given, group, cells, content } = sample;
    if let (Content::File(_), Some(known)) = (&content, plan.known)
        && let Some(image) = known(&path)
    {
        return Loaded { path, label, given, group, cells, image: Ok(image) };
    }
    let image = match content {
        Content::File(path) => decode_file(&path, plan),
        Content::Encoded(bytes) => plan.policy.decode(&bytes),
        Content::Raw(raw) => plan.policy.apply(raw),
        Content::Bad(refused) => Err(refused),
    };
    let image = image.map(|image| {
        let digest = pixel_digest(image.shape, image.depth, &image.pixels);
        (image, digest)
    });
    Loaded { path, label, given, group, cells, image }
}

thread_local! {
    /// One buffer per thread for the bytes of image files.
    static FILE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Buffers longer than this are given back after use.
const KEPT_BUFFER: usize = 4 << 20;

/// Reads an image file, if it has a size that may be read, and decodes it.
fn decode_file(path: &Path, plan: &Plan<'_>) -> Result<Decoded, Refused> {
    let unread = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => Refused { fault: Fault::Absent, reason: "does not exist".to_owned() },
        // Left out, a sound image would be missing from what is kept under the digest of its content.
        _ if !files::is_lasting(&e) => Refused { fault: Fault::Machine, reason: format!("cannot be read now: {e}") },
        _ => Refused { fault: Fault::Absent, reason: format!("cannot be read: {e}") },
    };
    let (mut file, len) = open_regular(path).map_err(unread)?;
    plan.policy.limits.check_bytes(len).map_err(too_large)?;
    FILE.with_borrow_mut(|buffer| {
        // One byte more than there should be: a short read is then the end of the file, without asking again.
        let wanted = len as usize + 1;
        if buffer.len() < wanted {
            buffer.resize(wanted, 0);
        }
        let mut filled = 0;
        while filled < wanted {
            match file.read(&mut buffer[filled..wanted]) {
                Ok(n) => {
                    filled += n;
                    if n == 0 || filled as u64 == len {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(unread(e)),
            }
        }
        if filled as u64 != len {
            return Err("changed while it was read".to_owned().into());
        }
        let decoded = plan.policy.decode(&buffer[..filled]);
        if buffer.len() > KEPT_BUFFER {
            *buffer = Vec::new();
        }
        decoded
    })
}
