//! `reduce` on 60,000 images of 28 x 28 bytes: seconds to fit and to project, beside scikit-learn's on such a matrix.
//!
//! `cargo bench --bench reduce -- [METHOD…] [--threads N] [--repeats N] [--idx FILE | --samples N --side N]`
//!
//! FILE is MNIST's `train-images-idx3-ubyte.gz`; without it, images are blurred noise.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Instant;

use convoy::config::{Entry, Log, Node, Section, Span, Table, Value};
use convoy::data::feed::{Feed, TrainingSamples};
use convoy::data::fit_set::{Fit, Partition, Place};
use convoy::data::reduce::{Fitting, PROJECTED, Reduction, read_method};
use convoy::data::samples::{Samples, Values};
use convoy::data::transform::moments::Statistics;
use convoy::data::transform::{Affine, Fitted, Per};
use convoy::engine::Engine;
use convoy::rng::Stream;
use convoy::tensor::{ImageShape, SampleShape};

/// Keys of a method and what they are set to.
type Keys = &'static [(&'static str, Value)];

/// Name, method, keys.
const METHODS: &[(&str, &str, Keys)] = &[
    ("pca-50", "pca", &[("components", Value::Integer(50))]),
    ("pca-whiten", "pca", &[("variance", Value::Integer(1)), ("whiten", Value::Boolean(true))]),
    ("zca", "pca", &[("zca", Value::Boolean(true))]),
    ("gaussian-128", "gaussian-projection", &[("components", Value::Integer(128))]),
    ("sparse-128", "sparse-projection", &[("components", Value::Integer(128))]),
];

/// Blurred noise: neighbours are alike and variances fall, as in images.
#[derive(Debug)]
struct Images {
    shape: ImageShape,
    pixels: Vec<u8>,
}

impl Images {
    fn new(n: usize, side: usize) -> Images {
        let len = side * side;
        let mut pixels = vec![0; n * len];
        let mut words = vec![0u32; len];
        for (i, image) in pixels.chunks_exact_mut(len).enumerate() {
            Stream::new(1, "image", &[]).words((i * len) as u64, &mut words);
            for (j, pixel) in image.iter_mut().enumerate() {
                let near = [0, 1, 2, side, side + 1, 2 * side].map(|step| words[(j + step) % len] >> 24);
                *pixel = (near.iter().fold(words[(j / 64) % 7] >> 24, |sum, x| sum + x) / 7) as u8;
            }
        }
        Images { shape: ImageShape { height: side, width: side, channels: 1 }, pixels }
    }
}

impl Images {
    /// The images of an IDX file of 28 x 28 bytes, compressed.
    fn read(path: &str) -> std::io::Result<Images> {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(std::fs::File::open(path)?).read_to_end(&mut bytes)?;
        Ok(Images { shape: ImageShape { height: 28, width: 28, channels: 1 }, pixels: bytes.split_off(16) })
    }
}

impl Samples for Images {
    fn n_samples(&self) -> usize {
        self.pixels.len() / self.shape.len()
    }

    fn shape(&self) -> SampleShape {
        SampleShape::Image(self.shape)
    }

    fn values(&self, i: usize) -> Values<'_> {
        Values::U8(&self.pixels[i * self.shape.len()..][..self.shape.len()])
    }
}

fn table(keys: &[(&str, Value)]) -> Table {
    let node = |value: &Value| Node { value: value.clone(), span: Span::default() };
    let entry =
        |(key, value): &(&str, Value)| Entry { key: (*key).to_owned(), key_span: Span::default(), node: node(value) };
    Table { entries: keys.iter().map(entry).collect() }
}

fn read(method: &str, keys: &[(&str, Value)]) -> Box<dyn Reduction> {
    let table = table(&[("method", Value::Table(table(&[(method, Value::Table(table(keys)))])))]);
    let mut log = Log::default();
    read_method(&mut Section::new(Some(&table), Span::default(), "", &mut log)).expect("a method")
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let value = |name: &str, otherwise: usize| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(otherwise)
    };
    let (threads, repeats) = (value("--threads", 2), value("--repeats", 3));
    let idx = arguments.iter().position(|argument| argument == "--idx").and_then(|at| arguments.get(at + 1));
    let is_wanted = |name: &str| {
        let is_any = METHODS.iter().any(|(known, ..)| arguments.iter().any(|argument| argument == known));
        !is_any || arguments.iter().any(|argument| argument == name)
    };
    let engine = Engine::new(threads);
    let images = match idx {
        Some(path) => Images::read(path).unwrap_or_else(|error| panic!("{path}: {error}")),
        None => Images::new(value("--samples", 60_000), value("--side", 28)),
    };
    let images: Arc<dyn Samples> = Arc::new(images);
    let n = images.n_samples();
    let scaled = Fitted::Affine(Affine { multiply: vec![1.0 / 255.0], ..Affine::identity(Per::Global, 1) });
    let feed = Feed::new(Arc::clone(&images), vec![scaled]);
    let partition = Partition::new(vec![Place::Train; n], 0).expect("a partition");
    let fit_set = partition.fit_set(Fit::All);
    let samples = TrainingSamples::new(&feed, fit_set.training());
    let all: Vec<u32> = (0..n as u32).collect();
    let mut out = std::io::stdout().lock();
    let mut say = |line: String| drop(writeln!(out, "{line}"));
    let start = Instant::now();
    Statistics::new(samples, threads).moments(Per::Pixel);
    say(format!("mean and deviation: {:.3} s", start.elapsed().as_secs_f64()));
    for (name, method, keys) in METHODS.iter().filter(|(name, ..)| is_wanted(name)) {
        let method = read(method, keys);
        let stream = Stream::new(42, "bench", &[]);
        let fitting = Fitting { samples, engine: &engine, stream: &stream, is_stopped: &|| false };
        let (mut fits, mut projections) = (Vec::new(), Vec::new());
        for _ in 0..repeats.max(1) {
            let start = Instant::now();
            let projection = method.fit(&fitting).unwrap_or_else(|error| panic!("{error:?}"));
            fits.push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            let projector = projection.projector(&engine, &feed);
            let mut features = vec![0.0; PROJECTED.min(n) * projection.output.len()];
            for rows in all.chunks(PROJECTED) {
                let features = &mut features[..rows.len() * projection.output.len()];
                projector.project(rows, features);
            }
            projections.push(start.elapsed().as_secs_f64());
        }
        fits.sort_by(f64::total_cmp);
        projections.sort_by(f64::total_cmp);
        say(format!(
            "{name}: fit {:.3} s (least {:.3}), project {:.3} s (least {:.3}), {threads} threads",
            fits[fits.len() / 2],
            fits[0],
            projections[fits.len() / 2],
            projections[0]
        ));
    }
}
