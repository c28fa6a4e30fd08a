//! Whole training steps: images per second and share of the processor's multiply-add peak.
//!
//! `cargo bench --bench steps -- [NET…] [--threads N] [--isa NAME] [--seconds S] [--steps N] [--batch N] [--json]`; NET
//! is `S`, `M`, `MBN`, `M32`, `MBN32`, `L` (all of them by default), these but `S` with `/winograd` behind (computed by
//! Winograd's algorithm, the default of manifests, where the others are computed the direct way; shares of the peak
//! count the multiply-adds of the direct way), or `VGG16` (138,357,544 parameters, 224x224x3, 1,000 classes).
//! A sample lasts S seconds, or N steps. Right before and after it the peak is measured with multiply-adds that touch
//! no memory: a sample whose probes are slow was not alone. Multiply-adds are counted as three passes, less the input
//! gradient of the first layer, which nobody needs; taps in the padding count as done.
//!
//! `--probe` measures the peak only, for samples of other programs. `--losses DIR` trains net M (without dropout) on
//! `DIR/images.f32` and `DIR/labels.u8`, batch by batch in that order, writes its first weights to `DIR` and prints
//! each batch's loss: `losses.py` lets PyTorch do the same. On a busy machine compare images per processor second (1
//! thread, Linux): time spent waiting for a core is not in it.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use convoy::config::{Entry, Log, Node, Section, Span, Table, Value};
use convoy::engine::{Engine, Isa, Targets};
use convoy::nn::architecture;
use convoy::nn::optimizer::Sgd;
use convoy::nn::plan::NetworkPlan;
use convoy::nn::seeds::Seeds;
use convoy::nn::training::{Trainer, Training};
use convoy::rng::Stream;
use convoy::tensor::{ImageShape, SampleShape};

const S: &str = "INPUT - CONV(32) - RELU - POOL - FC";
const M: &str = "INPUT - [CONV(32) - RELU]*2 - POOL - [CONV(64) - RELU]*2 - POOL - DROPOUT(0.25) - FC(128) - RELU - FC";
const MBN: &str =
    "INPUT - [CONV(32) - BN - RELU]*2 - POOL - [CONV(64) - BN - RELU]*2 - POOL - DROPOUT(0.25) - FC(128) - RELU - FC";
const L: &str = "INPUT - CONV(64) - BN - RELU - POOL - CONV(128) - BN - RELU - POOL - [CONV(256) - BN - RELU]*2 - POOL - \
    [CONV(512) - BN - RELU]*2 - POOL - [CONV(512) - BN - RELU]*2 - POOL - FC";
const VGG16: &str = "INPUT - [CONV(64) - RELU]*2 - POOL - [CONV(128) - RELU]*2 - POOL - [CONV(256) - RELU]*3 - POOL - \
    [[CONV(512) - RELU]*3 - POOL]*2 - [FC(4096) - RELU - DROPOUT(0.5)]*2 - FC";

struct Net {
    name: &'static str,
    architecture: &'static str,
    /// Pixels of a side of the images.
    side: usize,
    channels: usize,
    n_classes: usize,
    batch: usize,
}

const fn net(name: &'static str, architecture: &'static str, side: usize, channels: usize, batch: usize) -> Net {
    Net { name, architecture, side, channels, n_classes: 10, batch }
}

const NETS: &[Net] = &[
    net("S", S, 28, 1, 64),
    net("M", M, 28, 1, 64),
    net("MBN", MBN, 28, 1, 64),
    net("M32", M, 32, 3, 64),
    net("MBN32", MBN, 32, 3, 64),
    net("L", L, 32, 3, 128),
    net("M/winograd", M, 28, 1, 64),
    net("MBN/winograd", MBN, 28, 1, 64),
    net("M32/winograd", M, 32, 3, 64),
    net("MBN32/winograd", MBN, 32, 3, 64),
    net("L/winograd", L, 32, 3, 128),
    Net { name: "VGG16", architecture: VGG16, side: 224, channels: 3, n_classes: 1000, batch: 16 },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let text = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
    let value = |name: &str| text(name).and_then(|text| text.parse::<f64>().ok());
    let threads = value("--threads").unwrap_or(1.0) as usize;
    let isa = text("--isa").map_or_else(Isa::detect, |name| name.parse().expect("an instruction set that is there"));
    let engine = Engine::with_isa(threads, isa);
    let mut out = std::io::stdout();
    if arguments.iter().any(|argument| argument == "--probe") {
        let _ = writeln!(out, "{{\"threads\": {threads}, \"peak\": {:.1}}}", peak(&engine));
        return;
    }
    if let Some(folder) = text("--losses") {
        return losses(&engine, Path::new(folder));
    }
    let named = |net: &Net| arguments.iter().any(|argument| argument == net.name);
    let any_named = NETS.iter().any(named);
    for net in NETS.iter().filter(|net| if any_named { named(net) } else { net.name != "VGG16" }) {
        let batch = value("--batch").map_or(net.batch, |batch| batch as usize);
        let n_steps = value("--steps").map(|n| n as usize);
        let sample = measure(&engine, net, batch, value("--seconds").unwrap_or(2.0), n_steps);
        let line = if arguments.iter().any(|argument| argument == "--json") { sample.json() } else { sample.text() };
        let _ = writeln!(out, "{line}");
    }
}

/// Multiply-adds a second that nothing but registers bounds, in GFLOP/s: the median of some probes.
fn peak(engine: &Engine) -> f64 {
    engine.settle();
    let mut probes: Vec<f64> = (0..31).map(|_| engine.measure_peak() * 1e-9).collect();
    probes.sort_by(f64::total_cmp);
    probes[probes.len() / 2]
}

/// Seconds that this thread has been on a processor; NaN where the system does not say.
fn processor_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).map_or(f64::NAN, |ns| ns * 1e-9)
}

/// The most memory that this process has had so far, in MiB; NaN where the system does not say.
fn peak_mib() -> f64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().map_or(f64::NAN, |kib| kib / 1024.0)
}

struct Sample {
    net: &'static str,
    threads: usize,
    batch: usize,
    /// Images per second: of the median step, of the best, and per second on a processor of the first thread.
    median: f64,
    best: f64,
    busy: f64,
    n_steps: usize,
    /// GFLOP/s of the median step; the peak before and after.
    gflops: f64,
    peaks: [f64; 2],
    /// The process's peak memory, and what `summary` predicts for the network, in MiB.
    memory: f64,
    predicted: f64,
}

impl Sample {
    fn text(&self) -> String {
        let [before, after] = self.peaks;
        let share = 100.0 * self.gflops / before.max(after);
        format!(
            "{:6} {} threads, batch {}: median {:8.1} images/s ({:.2} ms an image), best {:8.1}, {:8.1} a processor \
             second; {:5.0} GFLOP/s, {share:.0} % of a peak of {before:.0} and {after:.0}; {} steps; memory {:.0} MiB, \
             predicted {:.0}",
            self.net,
            self.threads,
            self.batch,
            self.median,
            1e3 / self.median,
            self.best,
            self.busy,
            self.gflops,
            self.n_steps,
            self.memory,
            self.predicted
        )
    }

    fn json(&self) -> String {
        format!(
            "{{\"who\": \"convoy\", \"net\": \"{}\", \"threads\": {}, \"batch\": {}, \"img_s\": {:.1}, \"img_s_best\": {:.1}, \
             \"n_steps\": {}, \"gflops\": {:.1}, \"peaks\": [{:.1}, {:.1}], \"memory_mib\": {:.0}, \"predicted_mib\": {:.0}}}",
            self.net,
            self.threads,
            self.batch,
            self.median,
            self.best,
            self.n_steps,
            self.gflops,
            self.peaks[0],
            self.peaks[1],
            self.memory,
            self.predicted
        )
    }
}

fn plan(architecture: &str, convolution: &str, input: SampleShape, n_classes: usize) -> NetworkPlan {
    let span = Span::default();
    let node = |text: &str| Node { value: Value::Text { text: text.to_owned(), inner: None }, span };
    let entry = |key: &str, text: &str| Entry { key: key.to_owned(), key_span: span, node: node(text) };
    let table = Table { entries: vec![entry("architecture", architecture), entry("convolution", convolution)] };
    let mut log = Log::default();
    let architecture = architecture::read(&mut Section::new(Some(&table), span, "", &mut log));
    let architecture = architecture.unwrap_or_else(|| panic!("{:?}", log.problems));
    NetworkPlan::new(&architecture.layers, input, n_classes).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn trainer(engine: &Engine, plan: &NetworkPlan, batch: usize) -> Trainer {
    let training = Training {
        seeds: Seeds { seed: 1, indices: Vec::new() },
        last_layer_gain: 1.0,
        optimizer: Arc::new(Sgd { momentum: 0.9, is_nesterov: false }),
        ..Training::default()
    };
    Trainer::new(engine, plan, batch, training)
}

fn measure(engine: &Engine, net: &Net, batch: usize, seconds: f64, n_steps: Option<usize>) -> Sample {
    let input = SampleShape::Image(ImageShape { height: net.side, width: net.side, channels: net.channels });
    let of = |convolution: &str| plan(net.architecture, convolution, input, net.n_classes);
    let direct = of("direct");
    let plan = if net.name.ends_with("/winograd") { of("winograd") } else { direct.clone() };
    let mut trainer = trainer(engine, &plan, batch);
    let mut images = vec![0.0; batch * input.len()];
    Stream::new(1, "bench images", &[]).fill_normal32(0, &mut images);
    let labels: Vec<u32> = (0..batch as u32).map(|i| i % net.n_classes as u32).collect();
    let mut step = || {
        let stats = trainer.train_step(&images, Targets::Labels(&labels), 0.001, None);
        assert!(stats.is_finite());
    };
    // The first steps touch all memory for the first time.
    (0..n_steps.map_or(2, |_| 1)).for_each(|_| step());
    let before = peak(engine);
    let (begin, busy, mut times) = (Instant::now(), processor_seconds(), Vec::new());
    while n_steps.map_or(begin.elapsed() < Duration::from_secs_f64(seconds), |n| times.len() < n) {
        let start = Instant::now();
        step();
        times.push(start.elapsed().as_secs_f64());
    }
    let busy = (batch * times.len()) as f64 / (processor_seconds() - busy);
    let after = peak(engine);
    times.sort_by(f64::total_cmp);
    let rate = |time: f64| batch as f64 / time;
    let median = rate(times[times.len() / 2]);
    let first = direct.layers.iter().map(|layer| layer.multiply_adds).find(|&n| n > 0).unwrap_or(0);
    Sample {
        net: net.name,
        threads: engine.threads(),
        batch,
        median,
        best: rate(times[0]),
        busy,
        n_steps: times.len(),
        gflops: 2.0 * (3 * direct.multiply_adds() - first) as f64 * median * 1e-9,
        peaks: [before, after],
        memory: peak_mib(),
        predicted: plan.training_bytes(batch, 1) as f64 / f64::from(1 << 20),
    }
}

/// Trains M without dropout on the folder's images of 28x28x1, in batches of 64, once through.
fn losses(engine: &Engine, folder: &Path) {
    const BATCH: usize = 64;
    let input = SampleShape::Image(ImageShape { height: 28, width: 28, channels: 1 });
    let plan = plan(&M.replace("DROPOUT(0.25) - ", ""), "direct", input, 10);
    let mut trainer = trainer(engine, &plan, BATCH);
    let read = |name: &str| fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let images: Vec<f32> =
        read("images.f32").chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect();
    let labels: Vec<u32> = read("labels.u8").into_iter().map(u32::from).collect();
    for tensor in trainer.network().save() {
        let bytes: Vec<u8> = tensor.values.iter().flat_map(|x| x.to_le_bytes()).collect();
        fs::write(folder.join(format!("{}.f32", tensor.name)), bytes).unwrap_or_else(|error| panic!("{error}"));
    }
    let mut out = std::io::stdout();
    for (images, labels) in images.chunks_exact(BATCH * input.len()).zip(labels.chunks_exact(BATCH)) {
        let stats = trainer.train_step(images, Targets::Labels(labels), 0.002, None);
        let _ = writeln!(out, "{}", stats.loss());
    }
}
