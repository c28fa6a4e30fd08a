//! The ten layers: GFLOP/s, share of peak, and the ratio to oneDNN in the same process.
//!
//!     cargo bench --bench conv [-- THREADS [LAYER]]
//!
//! `CONVOY_ONEDNN=<path>` names a shared library with the C interface `dn_make`, `dn_exec`, `dn_threads` around oneDNN; its
//! calls are then interleaved with ours, so that both see the same machine. A probe of multiply-adds runs around each
//! sample; samples with a probe 15 % below the best are discarded and counted. FLOPs are nominal: taps outside the image
//! count, so a share of peak may exceed 100 %.

use std::env;
use std::time::Instant;

use convoy::engine::{Activation, Buffer, Conv, ConvShape, Dense, Engine};

const N_SAMPLES: usize = 15;

struct Layer {
    name: &'static str,
    /// Images, channels, height and width, filters, kernel.
    size: [usize; 6],
    is_first: bool,
    is_dense: bool,
}

#[rustfmt::skip]
const LAYERS: [Layer; 10] = [
    Layer { name: "1 28x28x1->32 k3", size: [64, 1, 28, 28, 32, 3], is_first: true, is_dense: false },
    Layer { name: "2 28x28x32->64 k3", size: [64, 32, 28, 28, 64, 3], is_first: false, is_dense: false },
    Layer { name: "3 14x14x64->64 k3", size: [64, 64, 14, 14, 64, 3], is_first: false, is_dense: false },
    Layer { name: "4 32x32x3->32 k5", size: [64, 3, 32, 32, 32, 5], is_first: true, is_dense: false },
    Layer { name: "5 32x32x32->64 k3", size: [64, 32, 32, 32, 64, 3], is_first: false, is_dense: false },
    Layer { name: "6 16x16x128->128 k3", size: [64, 128, 16, 16, 128, 3], is_first: false, is_dense: false },
    Layer { name: "7 8x8x256->256 k3", size: [64, 256, 8, 8, 256, 3], is_first: false, is_dense: false },
    Layer { name: "8 56x56x64->64 k3", size: [16, 64, 56, 56, 64, 3], is_first: false, is_dense: false },
    Layer { name: "9 14x14x256->256 k1", size: [64, 256, 14, 14, 256, 1], is_first: false, is_dense: false },
    Layer { name: "10 FC 3136->128", size: [64, 3136, 1, 1, 128, 1], is_first: false, is_dense: true },
];

const PASSES: [&str; 3] = ["forward", "backward data", "backward weights"];

fn main() {
    // `cargo bench` adds `--bench`.
    let mut args = env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let threads: usize = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(1);
    let only: Option<usize> = args.next().and_then(|arg| arg.parse().ok());
    let engine = Engine::new(threads);
    let peer = env::var("CONVOY_ONEDNN").ok().and_then(|path| peer::Library::open(&path));
    let caches = engine.caches();
    println!(
        "{}, {threads} threads, L1 {} KiB, L2 {} KiB, peak {:.0} GFLOP/s",
        engine.isa(),
        caches.l1 >> 10,
        caches.l2 >> 10,
        (0..20).map(|_| engine.measure_peak()).fold(0.0, f64::max) / 1e9
    );
    println!(
        "layer\tpass\tbest GFLOP/s\tmedian\t% of peak\tpeer best\tpeer median\tratio of best\tof medians\tdiscarded"
    );
    for (i, layer) in LAYERS.iter().enumerate() {
        if only.is_none_or(|only| only == i + 1) {
            measure(&engine, layer, peer.as_ref(), threads);
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

fn measure(engine: &Engine, layer: &Layer, library: Option<&peer::Library>, threads: usize) {
    let [n, c, h, w, f, k] = layer.size;
    let shape = ConvShape::same(n, h, w, c, f, k);
    let (x, weights, g) = (values(n * shape.input_len()), values(shape.weights_len()), values(n * shape.output_len()));
    let (mut y, mut dx) = (Buffer::zeros(g.len()), Buffer::zeros(x.len()));
    let (mut dw, mut db) = (Buffer::zeros(weights.len()), Buffer::zeros(f));
    let mut conv = Conv::new(engine, shape);
    let mut dense = Dense::new(engine, n, c, f);
    let flops = 2.0 * n as f64 * shape.multiply_adds() as f64;
    for (pass, name) in PASSES.iter().enumerate() {
        if layer.is_first && pass == 1 {
            continue;
        }
        let mut ours = || match (pass, layer.is_dense) {
            (0, false) => conv.forward(n, &x, &weights, None, Activation::None, &mut y),
            (1, false) => conv.backward_data(n, &g, &weights, None, &mut dx),
            (_, false) => conv.backward_weights(n, &x, &g, &mut dw, Some(&mut db)),
            (0, true) => dense.forward(n, &x, &weights, None, Activation::None, &mut y),
            (1, true) => dense.backward_data(n, &g, &weights, None, &mut dx),
            (_, true) => dense.backward_weights(n, &x, &g, &mut dw, Some(&mut db)),
        };
        let peer = library.and_then(|library| library.layer(layer, pass, threads));
        let (mut own, mut theirs) = (Samples::default(), Samples::default());
        // Warm up; then so many calls per sample that one lasts two milliseconds.
        ours();
        let start = Instant::now();
        ours();
        let calls = (0.002 / start.elapsed().as_secs_f64()).ceil() as usize;
        if let Some(peer) = &peer {
            peer.run();
        }
        for _ in 0..N_SAMPLES {
            own.take(engine, flops, calls, &mut ours);
            if let Some(peer) = &peer {
                theirs.take(engine, flops, calls, &mut || peer.run());
            }
        }
        let best_probe = own.probes().chain(theirs.probes()).fold(0.0, f64::max);
        let (a, a_discarded) = own.keep(best_probe);
        print!(
            "{}\t{name}\t{:.1}\t{:.1}\t{:.0}",
            layer.name,
            best(&a) / 1e9,
            median(&a) / 1e9,
            100.0 * best(&a) / best_probe
        );
        if peer.is_some() {
            let (b, b_discarded) = theirs.keep(best_probe);
            print!(
                "\t{:.1}\t{:.1}\t{:.2}\t{:.2}\t{}",
                best(&b) / 1e9,
                median(&b) / 1e9,
                best(&a) / best(&b),
                median(&a) / median(&b),
                a_discarded + b_discarded
            );
        }
        println!();
    }
}

/// Speeds, and the slower of the probes before and after each, in FLOP/s.
#[derive(Default)]
struct Samples(Vec<(f64, f64)>);

impl Samples {
    fn take(&mut self, engine: &Engine, flops: f64, calls: usize, f: &mut dyn FnMut()) {
        let before = engine.measure_peak();
        let start = Instant::now();
        for _ in 0..calls {
            f();
        }
        let speed = flops * calls as f64 / start.elapsed().as_secs_f64();
        self.0.push((speed, before.min(engine.measure_peak())));
    }

    fn probes(&self) -> impl Iterator<Item = f64> {
        self.0.iter().map(|sample| sample.1)
    }

    /// Sorted speeds of the samples whose probes were not slow (all, if none would be left), and how many are not.
    fn keep(&self, best_probe: f64) -> (Vec<f64>, usize) {
        let mut kept: Vec<f64> = self.0.iter().filter(|s| s.1 > 0.85 * best_probe).map(|s| s.0).collect();
        if kept.is_empty() {
            kept = self.0.iter().map(|s| s.0).collect();
        }
        kept.sort_by(f64::total_cmp);
        let discarded = self.0.len() - kept.len();
        (kept, discarded)
    }
}

fn best(sorted: &[f64]) -> f64 {
    sorted[sorted.len() - 1]
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
            let [n, c, h, w, f, k] = layer.size.map(|v| v as c_int);
            let (kind, pass, threads, pad) =
                (c_int::from(layer.is_dense), pass as c_int, threads as c_int, (k - 1) / 2);
            // Stride 1, f32, whatever layout it likes best.
            // SAFETY: plain numbers.
            let handle = unsafe { (self.make)(kind, pass, threads, n, c, h, w, f, k, 1, pad, 0, 0) };
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
