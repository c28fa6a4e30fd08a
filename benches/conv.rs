//! Single layers, direction by direction: GFLOP/s, share of peak, and the ratio to oneDNN in the same process.
//!
//!     cargo bench --bench conv -- [layers | odd | M | M32 | L]… [--threads N] [--only NAME] [--pairs N]
//!         [--winograd] [--rows FILE]
//!
//! `layers` (the default) are ten layers of common sizes; `odd` are sizes that fit no vector, strides, dilations and
//! groups; `M`, `M32` and `L` are the layers of whole nets as a training step calls them, with their time per step.
//! `--winograd` computes ours by Winograd's algorithm where it is for that shape; FLOPs are those of the direct way.
//!
//! `CONVOY_ONEDNN=<path>` names a shared library with the C interface `dn_make`, `dn_exec`, `dn_free` around oneDNN;
//! its calls then take turns with ours, so that both see the same machine. A probe of multiply-adds runs around each
//! sample; on one thread, pairs with a probe 15 % below the median are discarded and counted, and repeated, up to three
//! times as many as asked for. (On several threads the short probe depends on how fast they wake.)
//! Ratios are those of medians. FLOPs are nominal: taps outside the image count, so a share of peak may exceed 100 %.
//! `--rows` appends every sample, discarded ones too, to a file.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use convoy::engine::{
    Activation, Algorithm, BackwardData, Buffer, Conv, ConvShape, Dense, Engine, Forward, GradOutput, Input,
};

/// One layer; a dense one is a convolution of one pixel.
struct Layer {
    name: String,
    shape: ConvShape,
    /// Whether nobody needs its input gradient.
    is_first: bool,
    is_dense: bool,
    /// Whether 2x2 windows of its output are pooled on the way.
    is_pooled: bool,
    /// Whether bias, ReLU and its mask are applied, as within a net.
    is_fused: bool,
}

impl Layer {
    fn new(name: impl Into<String>, shape: ConvShape) -> Layer {
        Layer { name: name.into(), shape, is_first: false, is_dense: false, is_pooled: false, is_fused: false }
    }

    fn dense(name: impl Into<String>, batch: usize, inputs: usize, units: usize) -> Layer {
        Layer { is_dense: true, ..Layer::new(name, ConvShape::valid(batch, 1, 1, inputs, units, 1)) }
    }

    fn first(self) -> Layer {
        Layer { is_first: true, ..self }
    }

    fn pooled(self) -> Layer {
        Layer { is_pooled: true, ..self }
    }

    fn fused(self) -> Layer {
        Layer { is_fused: true, ..self }
    }
}

fn ten_layers() -> Vec<Layer> {
    let same = ConvShape::same;
    vec![
        Layer::new("1 28x28x1->32 k3", same(64, 28, 28, 1, 32, 3)).first(),
        Layer::new("2 28x28x32->64 k3", same(64, 28, 28, 32, 64, 3)),
        Layer::new("3 14x14x64->64 k3", same(64, 14, 14, 64, 64, 3)),
        Layer::new("4 32x32x3->32 k5", same(64, 32, 32, 3, 32, 5)).first(),
        Layer::new("5 32x32x32->64 k3", same(64, 32, 32, 32, 64, 3)),
        Layer::new("6 16x16x128->128 k3", same(64, 16, 16, 128, 128, 3)),
        Layer::new("7 8x8x256->256 k3", same(64, 8, 8, 256, 256, 3)),
        Layer::new("8 56x56x64->64 k3", same(16, 56, 56, 64, 64, 3)),
        Layer::new("9 14x14x256->256 k1", same(64, 14, 14, 256, 256, 1)),
        Layer::dense("10 FC 3136->128", 64, 3136, 128),
    ]
}

fn odd_layers() -> Vec<Layer> {
    let mut layers = Vec::new();
    for c in [1, 3, 7, 10, 17, 100] {
        for f in [3, 10, 17, 100] {
            let layer = Layer::new(format!("29x31x{c}->{f} k3"), ConvShape::same(32, 29, 31, c, f, 3));
            layers.push(if c < 7 { layer.first() } else { layer });
        }
    }
    for (c, f) in [(17, 17), (32, 32), (100, 100)] {
        let valid = ConvShape::same(32, 29, 31, c, f, 3);
        let strided = ConvShape { stride_h: 2, stride_w: 2, ..valid };
        layers.push(Layer::new(format!("29x31x{c}->{f} k3 stride 2"), strided));
        let dilation =
            ConvShape { dilation_h: 2, dilation_w: 2, pad_top: 2, pad_bottom: 2, pad_left: 2, pad_right: 2, ..valid };
        layers.push(Layer::new(format!("29x31x{c}->{f} k3 dilation 2"), dilation));
        layers.push(Layer::new(format!("29x31x{c}->{f} k1"), ConvShape::same(32, 29, 31, c, f, 1)));
        layers.push(Layer::new(format!("29x31x{c}->{f} k5"), ConvShape::same(32, 29, 31, c, f, 5)));
    }
    for c in [17, 32, 64, 100] {
        let depthwise = ConvShape { groups: c, ..ConvShape::same(32, 29, 31, c, c, 3) };
        layers.push(Layer::new(format!("29x31x{c} k3 depthwise"), depthwise));
        let strided = ConvShape { stride_h: 2, stride_w: 2, ..depthwise };
        layers.push(Layer::new(format!("29x31x{c} k3 depthwise stride 2"), strided));
    }
    for (c, groups) in [(32, 2), (64, 4), (64, 8), (64, 16), (100, 10), (128, 4)] {
        let grouped = ConvShape { groups, ..ConvShape::same(32, 29, 31, c, c, 3) };
        layers.push(Layer::new(format!("29x31x{c} k3 groups {groups}"), grouped));
    }
    layers.push(Layer::dense("FC 1000->10", 32, 1000, 10));
    layers.push(Layer::dense("FC 333->77", 50, 333, 77));
    layers
}

/// The layers of `[CONV32-RELU]*2-POOL-[CONV64-RELU]*2-POOL-FC128-RELU-FC10`, batch 64.
fn net_m(side: usize, channels: usize) -> Vec<Layer> {
    let same = ConvShape::same;
    let (half, quarter) = (side / 2, side / 4);
    vec![
        Layer::new(format!("{side}x{side}x{channels}->32"), same(64, side, side, channels, 32, 3)).first().fused(),
        Layer::new(format!("{side}x{side}x32->32 pooled"), same(64, side, side, 32, 32, 3)).pooled().fused(),
        Layer::new(format!("{half}x{half}x32->64"), same(64, half, half, 32, 64, 3)).fused(),
        Layer::new(format!("{half}x{half}x64->64 pooled"), same(64, half, half, 64, 64, 3)).pooled().fused(),
        Layer::dense("FC 128", 64, quarter * quarter * 64, 128).fused(),
        Layer::dense("FC 10", 64, 128, 10),
    ]
}

/// The layers of VGG-11 for images of 32x32, batch 128.
fn net_l() -> Vec<Layer> {
    let same = ConvShape::same;
    vec![
        Layer::new("32x32x3->64", same(128, 32, 32, 3, 64, 3)).first(),
        Layer::new("16x16x64->128", same(128, 16, 16, 64, 128, 3)),
        Layer::new("8x8x128->256", same(128, 8, 8, 128, 256, 3)),
        Layer::new("8x8x256->256", same(128, 8, 8, 256, 256, 3)),
        Layer::new("4x4x256->512", same(128, 4, 4, 256, 512, 3)),
        Layer::new("4x4x512->512", same(128, 4, 4, 512, 512, 3)),
        Layer::new("2x2x512->512", same(128, 2, 2, 512, 512, 3)),
        Layer::new("2x2x512->512", same(128, 2, 2, 512, 512, 3)),
        Layer::dense("FC 10", 128, 512, 10),
    ]
}

const PASSES: [&str; 3] = ["forward", "backward data", "backward weights"];

/// A probe below this share of the median is of a machine that was busy. (The processor's own clock takes steps of 7
/// %.)
const SLOW_PROBE: f64 = 0.85;

struct Bench {
    engine: Engine,
    library: Option<peer::Library>,
    pairs: usize,
    algorithm: Algorithm,
    rows: Option<File>,
}

fn main() {
    // `cargo bench` adds `--bench`.
    let mut args = env::args().skip(1).filter(|arg| arg != "--bench");
    let (mut modes, mut threads, mut pairs, mut only, mut rows) = (Vec::new(), 1, 9, None, None);
    let mut algorithm = Algorithm::Direct;
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("`{arg}` needs a value"));
        match arg.as_str() {
            "--threads" => threads = value().parse().expect("`--threads` needs a number"),
            "--pairs" => pairs = value().parse().expect("`--pairs` needs a number"),
            "--only" => only = Some(value()),
            "--rows" => rows = Some(value()),
            "--winograd" => algorithm = Algorithm::Winograd,
            "layers" | "odd" | "M" | "M32" | "L" => modes.push(arg),
            _ => panic!("unknown argument `{arg}`"),
        }
    }
    if modes.is_empty() {
        modes.push("layers".to_owned());
    }
    let engine = Engine::new(threads);
    let rows = rows.map(|path| OpenOptions::new().create(true).append(true).open(path).expect("`--rows` needs a file"));
    let library = env::var("CONVOY_ONEDNN").ok().map(|path| {
        peer::Library::open(&path).unwrap_or_else(|| panic!("`{path}` has no `dn_make`, `dn_exec` and `dn_free`"))
    });
    engine.settle();
    let mut bench = Bench { engine, library, pairs, algorithm, rows };
    let (engine, caches) = (&bench.engine, bench.engine.caches());
    println!(
        "{}, {threads} threads, L1 {} KiB, L2 {} KiB, peak {:.0} GFLOP/s",
        engine.isa(),
        caches.l1 >> 10,
        caches.l2 >> 10,
        (0..20).map(|_| engine.measure_peak()).fold(0.0, f64::max) / 1e9
    );
    for mode in modes {
        println!("{mode}\tpass\tms\tGFLOP/s\tbest\t% of peak\toneDNN\tbest\tratio\tdiscarded");
        let layers = match mode.as_str() {
            "layers" => ten_layers(),
            "odd" => odd_layers(),
            "M" => net_m(28, 1),
            "M32" => net_m(32, 3),
            _ => net_l(),
        };
        let (mut seconds, mut flops, mut ratios) = (0.0, 0.0, Vec::new());
        for layer in &layers {
            if only.as_ref().is_none_or(|only| layer.name.starts_with(only.as_str())) {
                let (of_layer, of_passes) = bench.measure(&mode, layer, &mut ratios);
                (seconds, flops) = (seconds + of_layer, flops + of_passes);
            }
        }
        println!("{mode}\tall\t{:.3}\t{:.1}", seconds * 1e3, flops / seconds / 1e9);
        if !ratios.is_empty() {
            ratios.sort_by(f64::total_cmp);
            println!("{mode}\tratios: least {:.2}, median {:.2}, {} cells", ratios[0], median(&ratios), ratios.len());
        }
    }
}

/// Reproducible values in (-0.5, 0.5).
fn values(n: usize) -> Buffer {
    let mut buffer = Buffer::zeros(n);
    for (i, value) in buffer.iter_mut().enumerate() {
        *value = ((i as u32).wrapping_mul(2_654_435_761) >> 8 & 1023) as f32 / 1024.0 - 0.5;
    }
    buffer
}

/// One sample: speed, and the slower of the probes before and after, in FLOP/s.
#[derive(Clone, Copy)]
struct Sample {
    speed: f64,
    probe: f64,
}

impl Bench {
    /// Prints a line for each pass. Returns the median seconds and the FLOPs of all passes together.
    fn measure(&mut self, mode: &str, layer: &Layer, ratios: &mut Vec<f64>) -> (f64, f64) {
        let (engine, s) = (&self.engine, layer.shape);
        let (n, f) = (s.batch, s.filters);
        let (x, weights, bias) = (values(n * s.input_len()), values(s.weights_len()), values(f));
        let output_len = n * s.output_len() / if layer.is_pooled { 4 } else { 1 };
        let g = values(output_len);
        let mut taps = vec![0; if layer.is_pooled { output_len } else { 0 }];
        let (mut y, mut dx) = (Buffer::zeros(output_len), Buffer::zeros(x.len()));
        let (mut dw, mut db) = (Buffer::zeros(weights.len()), Buffer::zeros(f));
        let mut conv = Conv::plan(engine, s, self.algorithm, layer.is_pooled);
        let mut dense = Dense::new(engine, n, s.channels_in, f);
        let flops = 2.0 * n as f64 * s.multiply_adds() as f64;
        let (bias, activation) =
            if layer.is_fused { (Some(&bias[..]), Activation::Relu) } else { (None, Activation::None) };
        let mask = if layer.is_fused { Some(&x[..]) } else { None };
        let (mut seconds, mut total) = (0.0, 0.0);
        for (pass, name) in PASSES.iter().enumerate() {
            if layer.is_first && pass == 1 {
                continue;
            }
            let mut ours = || match (pass, layer.is_dense, layer.is_pooled) {
                (0, true, _) => dense.forward(n, &x, &weights, bias, activation, &mut y),
                (1, true, _) => dense.backward_data(n, &g, &weights, mask, &mut dx),
                (_, true, _) => dense.backward_weights(n, &x, &g, &mut dw, Some(&mut db)),
                (0, _, false) => conv.forward(n, &x, &weights, bias, activation, &mut y),
                (1, _, false) => conv.backward_data(n, &g, &weights, mask, &mut dx),
                (_, _, false) => conv.backward_weights(n, &x, &g, &mut dw, Some(&mut db)),
                (0, _, true) => {
                    let forward = Forward { n, input: Input::Given(&x), weights: &weights, bias, activation };
                    conv.forward_pooled(forward, &mut y, Some(&mut taps));
                }
                (1, _, true) => {
                    let backward = BackwardData { n, grad_output: &g, weights: &weights, relu_mask: mask };
                    conv.backward_data_pooled(backward, &taps, &mut dx, None);
                }
                (_, _, true) => {
                    let grad = GradOutput::Pooled { values: &g, taps: &taps };
                    conv.backward_weights_fused(n, &x, grad, &mut dw, Some(&mut db));
                }
            };
            let threads = engine.threads();
            let peer = self.library.as_ref().and_then(|library| library.layer(layer, pass, threads));
            // Warm up; then so many calls per sample that one lasts two milliseconds; on several threads twenty.
            ours();
            let start = Instant::now();
            ours();
            let least = if threads == 1 { 0.002 } else { 0.02 };
            let calls = (least / start.elapsed().as_secs_f64()).ceil() as usize;
            let mut pairs: Vec<[Sample; 2]> = Vec::new();
            let kept = loop {
                let own = sample(engine, flops, calls, false, &mut ours);
                let theirs = match &peer {
                    Some(peer) => {
                        peer.run();
                        sample(engine, flops, calls, threads > 1, &mut || peer.run())
                    }
                    None => own,
                };
                pairs.push([own, theirs]);
                let mut probes: Vec<f64> = pairs.iter().flatten().map(|s| s.probe).collect();
                probes.sort_by(f64::total_cmp);
                let least = if threads == 1 { SLOW_PROBE * median(&probes) } else { 0.0 };
                let is_quiet = |pair: &[Sample; 2]| pair.iter().all(|s| s.probe >= least);
                let n_quiet = pairs.iter().filter(|pair| is_quiet(pair)).count();
                if n_quiet >= self.pairs || pairs.len() >= 3 * self.pairs {
                    break pairs.iter().map(is_quiet).collect::<Vec<bool>>();
                }
            };
            if let Some(rows) = &mut self.rows {
                for (i, (pair, kept)) in pairs.iter().zip(&kept).enumerate() {
                    for (side, s) in ["convoy", "onednn"].iter().zip(pair).take(1 + usize::from(peer.is_some())) {
                        let (speed, probe) = (s.speed / 1e9, s.probe / 1e9);
                        let outcome = if *kept { "kept" } else { "discarded" };
                        let line = format!(
                            "{mode}\t{threads}\t{}\t{name}\t{side}\t{i}\t{speed:.1}\t{probe:.1}\t{outcome}",
                            layer.name
                        );
                        writeln!(rows, "{line}").expect("`--rows` cannot be written");
                    }
                }
            }
            let quiet = pairs.iter().zip(&kept).filter(|pair| *pair.1).map(|pair| pair.0);
            let sorted = |side: usize| {
                let mut speeds: Vec<f64> = quiet.clone().map(|pair| pair[side].speed).collect();
                speeds.sort_by(f64::total_cmp);
                speeds
            };
            let own = sorted(0);
            let probes: f64 = quiet.clone().map(|pair| pair[0].probe).sum::<f64>() / own.len() as f64;
            let ms = flops / median(&own) * 1e3;
            let share = 100.0 * median(&own) / probes;
            let (middle, best) = (median(&own) / 1e9, own[own.len() - 1] / 1e9);
            print!("{}\t{name}\t{ms:.3}\t{middle:.1}\t{best:.1}\t{share:.0}", layer.name);
            if peer.is_some() {
                let theirs = sorted(1);
                let ratio = median(&own) / median(&theirs);
                ratios.push(ratio);
                let (middle, best) = (median(&theirs) / 1e9, theirs[theirs.len() - 1] / 1e9);
                print!("\t{middle:.1}\t{best:.1}\t{ratio:.2}");
            } else {
                print!("\t\t\t");
            }
            println!("\t{} of {}", pairs.len() - own.len(), pairs.len());
            (seconds, total) = (seconds + ms / 1e3, total + flops);
        }
        (seconds, total)
    }
}

/// Times some calls between two probes. On several threads the calls are first repeated for a while untimed: either
/// side's threads may have been woken on one processor, and the system takes up to 25 ms to spread them. The peer's
/// threads spin for some milliseconds after its last call (`spins`): the second probe, and our next sample, wait until
/// they sleep.
fn sample(engine: &Engine, flops: f64, calls: usize, spins: bool, f: &mut dyn FnMut()) -> Sample {
    let before = engine.measure_peak();
    let start = Instant::now();
    f();
    while engine.threads() > 1 && start.elapsed() < Duration::from_millis(50) {
        f();
    }
    let start = Instant::now();
    for _ in 0..calls {
        f();
    }
    let speed = flops * calls as f64 / start.elapsed().as_secs_f64();
    if spins {
        thread::sleep(Duration::from_millis(30));
    }
    Sample { speed, probe: before.min(engine.measure_peak()) }
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// oneDNN behind a small C interface, opened at run time.
mod peer {
    use std::ffi::{CString, c_char, c_int, c_void};

    use super::Layer;

    #[cfg(unix)]
    unsafe extern "C" {
        fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
        fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    }

    type Make = unsafe extern "C" fn(
        c_int,
        c_int,
        c_int,
        c_int,
        c_int,
        c_int,
        c_int,
        c_int,
        c_int,
        c_int,
        c_int,
        c_int,
        c_int,
    ) -> *mut c_void;
    type Run = unsafe extern "C" fn(*mut c_void);

    pub struct Library {
        make: Make,
        run: Run,
        free: Run,
    }

    pub struct Call<'a> {
        library: &'a Library,
        handle: *mut c_void,
    }

    impl Library {
        #[cfg(unix)]
        pub fn open(path: &str) -> Option<Library> {
            let path = CString::new(path).ok()?;
            let symbol = |library, name: &str| {
                let name = CString::new(name).ok()?;
                // SAFETY: the library is open; the name is a C string.
                let found = unsafe { dlsym(library, name.as_ptr()) };
                (!found.is_null()).then_some(found)
            };
            // SAFETY: the user vouches for the library; 2 is RTLD_NOW on every Unix.
            let library = unsafe { dlopen(path.as_ptr(), 2) };
            if library.is_null() {
                return None;
            }
            let (make, run, free) =
                (symbol(library, "dn_make")?, symbol(library, "dn_exec")?, symbol(library, "dn_free")?);
            // SAFETY: the shim declares its functions with these types.
            unsafe {
                Some(Library {
                    make: std::mem::transmute::<*mut c_void, Make>(make),
                    run: std::mem::transmute::<*mut c_void, Run>(run),
                    free: std::mem::transmute::<*mut c_void, Run>(free),
                })
            }
        }

        #[cfg(not(unix))]
        pub fn open(_: &str) -> Option<Library> {
            None
        }

        pub fn layer(&self, layer: &Layer, pass: usize, threads: usize) -> Option<Call<'_>> {
            let s = &layer.shape;
            if s.groups > 1 || s.dilation_h > 1 || layer.is_pooled {
                return None;
            }
            let sizes = [s.batch, s.channels_in, s.height, s.width, s.filters, s.kernel_h, s.stride_h, s.pad_top];
            let [n, c, h, w, f, k, stride, pad] = sizes.map(|v| v as c_int);
            let (kind, pass, threads) = (c_int::from(layer.is_dense), pass as c_int, threads as c_int);
            // f32, whatever layout it likes best.
            // SAFETY: plain numbers.
            let handle = unsafe { (self.make)(kind, pass, threads, n, c, h, w, f, k, stride, pad, 0, 0) };
            (!handle.is_null()).then_some(Call { library: self, handle })
        }
    }

    impl Call<'_> {
        pub fn run(&self) {
            // SAFETY: the handle is alive.
            unsafe { (self.library.run)(self.handle) };
        }
    }

    impl Drop for Call<'_> {
        fn drop(&mut self) {
            // SAFETY: the handle is alive and not used again.
            unsafe { (self.library.free)(self.handle) };
        }
    }
}
