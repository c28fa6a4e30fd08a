//! Whole training steps of the nets S, M, MBN and L: images per second, at batch 64 (L: 128).
//!
//! On a busy machine compare images per processor second (1 thread, Linux): time spent waiting for a core is not in it.
//!
//! `cargo bench --bench steps -- [NET…] [--threads N] [--seconds S]`; NET is `S`, `M`, `MBN`, `M32`, `MBN32` or `L`.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use convoy::config::{Entry, Log, Node, Section, Span, Table, Value};
use convoy::engine::{Engine, Targets};
use convoy::nn::architecture;
use convoy::nn::init::Initializer;
use convoy::nn::network::{Network, Training};
use convoy::nn::optimizer::Sgd;
use convoy::nn::plan::NetworkPlan;
use convoy::nn::seeds::Seeds;
use convoy::rng::Stream;
use convoy::tensor::{ImageShape, SampleShape};

const M: &str = "INPUT - [CONV(32) - RELU]*2 - POOL - [CONV(64) - RELU]*2 - POOL - DROPOUT(0.25) - FC(128) - RELU - FC";
const MBN: &str =
    "INPUT - [CONV(32) - BN - RELU]*2 - POOL - [CONV(64) - BN - RELU]*2 - POOL - DROPOUT(0.25) - FC(128) - RELU - FC";
const L: &str = "INPUT - CONV(64) - BN - RELU - POOL - CONV(128) - BN - RELU - POOL - [CONV(256) - BN - RELU]*2 - POOL - \
    [CONV(512) - BN - RELU]*2 - POOL - [CONV(512) - BN - RELU]*2 - POOL - FC";

/// Name, architecture, side of the images, their channels, batch.
const NETS: &[(&str, &str, usize, usize, usize)] = &[
    ("S", "INPUT - CONV(32) - RELU - POOL - FC", 28, 1, 64),
    ("M", M, 28, 1, 64),
    ("MBN", MBN, 28, 1, 64),
    ("M32", M, 32, 3, 64),
    ("MBN32", MBN, 32, 3, 64),
    ("L", L, 32, 3, 128),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1)?.parse().ok());
    let threads = value("--threads").unwrap_or(1.0) as usize;
    let seconds = value("--seconds").unwrap_or(2.0);
    let named = NETS.iter().filter(|net| arguments.iter().any(|argument| argument == net.0)).count() > 0;
    let mut out = std::io::stdout();
    for &(name, text, side, channels, batch) in NETS {
        if named && !arguments.iter().any(|argument| argument == name) {
            continue;
        }
        let (rate, best, busy, multiply_adds) = measure(text, side, channels, batch, threads, seconds);
        let gflops = 6.0 * multiply_adds as f64 * best * 1e-9;
        let _ = writeln!(
            out,
            "{name:6} {threads} threads: median {rate:8.0} images/s, best {best:8.0} ({gflops:5.0} GFLOP/s counted as 3 passes), {busy:8.0} a processor second"
        );
    }
}

/// Seconds that this thread has been on a processor; NaN where the system does not say.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).map_or(f64::NAN, |ns| ns * 1e-9)
}

/// Median and best images per second over steps of a few seconds, images per processor second, and the multiply-adds of
/// one forward pass.
fn measure(
    text: &str,
    side: usize,
    channels: usize,
    batch: usize,
    threads: usize,
    seconds: f64,
) -> (f64, f64, f64, u64) {
    let span = Span::default();
    let node = Node { value: Value::Text { text: text.to_owned(), inner: None }, span };
    let table = Table { entries: vec![Entry { key: "architecture".to_owned(), key_span: span, node }] };
    let mut log = Log::default();
    let architecture = architecture::read(&mut Section::new(Some(&table), span, "", &mut log));
    let architecture = architecture.unwrap_or_else(|| panic!("{:?}", log.problems));
    let input = SampleShape::Image(ImageShape { height: side, width: side, channels });
    let plan = NetworkPlan::new(&architecture.layers, input, 10).unwrap_or_else(|problems| panic!("{problems:?}"));
    let engine = Engine::new(threads);
    let training = Training {
        seeds: Seeds { seed: 1, indices: Vec::new() },
        initializer: Initializer::HeNormal,
        optimizer: Arc::new(Sgd { momentum: 0.9, is_nesterov: false }),
        l2: 0.0,
        weight_decay: None,
        decays_all: false,
        clip: None,
        label_smoothing: 0.0,
        class_weights: None,
    };
    let mut network = Network::for_training(&engine, &plan, batch, training);
    let mut images = vec![0.0; batch * input.len()];
    Stream::new(1, "bench images", &[]).fill_normal32(0, &mut images);
    let labels: Vec<u32> = (0..batch as u32).map(|i| i % 10).collect();
    let mut step = || {
        let stats = network.train_step(&images, Targets::Labels(&labels), 0.001, None);
        assert!(stats.is_finite());
    };
    step();
    step();
    let (begin, busy, mut times) = (Instant::now(), processor_seconds(), Vec::new());
    while begin.elapsed() < Duration::from_secs_f64(seconds) {
        let start = Instant::now();
        step();
        times.push(start.elapsed().as_secs_f64());
    }
    let busy = (batch * times.len()) as f64 / (processor_seconds() - busy);
    times.sort_by(f64::total_cmp);
    let rate = |time: f64| batch as f64 / time;
    (rate(times[times.len() / 2]), rate(times[0]), busy, plan.multiply_adds())
}
