//! From a listed source to decoded images, in parallel, in order, in bounded memory.
//!
//! One thread reads the source and cuts it into chunks; a pool decodes each chunk; the images of a chunk are handed on in
//! the source's order. How many threads there are, and how long the chunks are, cannot change what comes out.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::input::open_regular;
use super::{Content, Error, GivenSplit, Limits, Pick, Reader, Sample};
use crate::data::decode::{DecodePolicy, Decoded, pixel_digest};

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
    /// Its pixels and their digest, or why there are none.
    pub image: Result<(Decoded, u128), String>,
}

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// How images are decoded.
    pub policy: &'a DecodePolicy,
    /// What one image may cost.
    pub limits: Limits,
    /// Which images.
    pub pick: Pick,
    /// Threads that decode.
    pub threads: usize,
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
    for chunk in chunks {
        let loaded: Vec<Loaded> = pool.install(|| chunk.into_par_iter().map(|sample| decoded(sample, plan)).collect());
        if let Some((image, _)) = loaded.iter().find_map(|loaded| loaded.image.as_ref().ok()) {
            let most = CHUNK_BYTES / image.pixels.len().max(1);
            chunk_len.store(most.clamp(plan.threads, CHUNK_LEN), Ordering::Relaxed);
        }
        for loaded in loaded {
            each(loaded)?;
        }
    }
    Ok(())
}

fn decoded(sample: Sample, plan: &Plan<'_>) -> Loaded {
    let Sample { path, label, given, group, content } = sample;
    let image = match content {
        Content::File(path) => match read_file(&path, &plan.limits) {
            Ok(bytes) => plan.policy.decode(&bytes, &plan.limits),
            Err(reason) => Err(reason),
        },
        Content::Encoded(bytes) => plan.policy.decode(&bytes, &plan.limits),
        Content::Raw(raw) => plan.policy.apply(raw),
        Content::Bad(reason) => Err(reason),
    };
    let image = image.map(|image| {
        let digest = pixel_digest(image.shape, image.depth, &image.pixels);
        (image, digest)
    });
    Loaded { path, label, given, group, image }
}

/// The bytes of an image file, if it is one of a size that may be read.
fn read_file(path: &std::path::Path, limits: &Limits) -> Result<Vec<u8>, String> {
    let (mut file, len) = open_regular(path).map_err(|e| format!("cannot be read: {e}"))?;
    limits.check_bytes(len)?;
    let mut bytes = Vec::with_capacity(len as usize + 1);
    // A file may grow while it is read; the limit holds all the same.
    file.by_ref()
        .take(limits.max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| format!("cannot be read: {e}"))?;
    limits.check_bytes(bytes.len() as u64)?;
    Ok(bytes)
}
