//! No kernel reads or writes outside its slices: every operation of the engine, and whole training steps, with all
//! memory between guard pages.
//!
//! The kernels are those of the release build, on every instruction set. While the guard is on, each allocation gets
//! pages of its own with forbidden ones before and behind; it ends at the last byte of its pages, or begins at the
//! first. A step outside kills the process, which is how `a_step_outside_is_caught` knows that the guard works.
#![cfg(all(unix, target_pointer_width = "64"))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use convoy::engine::{
    Activation, AdamStep, Algorithm, BackwardData, BatchNorm, ByteProducts, Conv, ConvShape, Dense, Engine, Forward,
    GradOutput, Input, Isa, LocalConv, LossOptions, LossScratch, Matrix, PoolShape, RmsPropStep, Targets, UpdateStep,
    activate, adagrad, adam, average_pool, average_pool_backward, channel_means, channel_means_backward, gram, matmul,
    max_pool, max_pool_backward, rmsprop, sgd, softmax, softmax_cross_entropy, sum_of_squares,
};
use convoy::nn::architecture;
use convoy::nn::optimizer::{OptimizerConfig, Sgd};
use convoy::nn::plan::NetworkPlan;
use convoy::nn::seeds::Seeds;
use convoy::nn::training::{Trainer, Training};
use convoy::tensor::{ImageShape, SampleShape};

/// Address space for guarded allocations, none of which is used twice.
const ROOM: usize = 1 << 36;
const PAGE: usize = 4096;

static IS_ON: AtomicBool = AtomicBool::new(false);
static IS_AT_START: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicUsize = AtomicUsize::new(0);
static N_GUARDED: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, or pages between guards.
struct Guarded;

fn room() -> usize {
    static START: OnceLock<usize> = OnceLock::new();
    *START.get_or_init(|| {
        let (access, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: new address space, which nothing else refers to.
        let start = unsafe { libc::mmap(null_mut(), ROOM, access, flags, -1, 0) };
        assert!(start != libc::MAP_FAILED, "no address space");
        start as usize
    })
}

/// The whole pages of an allocation, as (first byte, length).
fn pages(address: usize, size: usize) -> (usize, usize) {
    let (start, end) = (address / PAGE * PAGE, (address + size).div_ceil(PAGE) * PAGE);
    (start, end - start)
}

fn is_guarded(address: usize) -> bool {
    let start = if N_GUARDED.load(Ordering::Relaxed) == 0 { return false } else { room() };
    (start..start + ROOM).contains(&address)
}

// SAFETY: guarded allocations are fresh pages of their own; all others are passed on as they are.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        if !IS_ON.load(Ordering::Relaxed) || size < 16 || align > PAGE {
            // SAFETY: as the caller promises.
            return unsafe { System.alloc(layout) };
        }
        N_GUARDED.fetch_add(1, Ordering::Relaxed);
        let whole = size.div_ceil(PAGE) * PAGE;
        let start = room() + NEXT.fetch_add(whole + PAGE, Ordering::Relaxed) + PAGE;
        if start + whole + PAGE > room() + ROOM {
            return null_mut();
        }
        // SAFETY: these pages are in the room, and given to this allocation alone.
        if unsafe { libc::mprotect(start as *mut libc::c_void, whole, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return null_mut();
        }
        let offset = if IS_AT_START.load(Ordering::Relaxed) { 0 } else { (whole - size) / align * align };
        (start + offset) as *mut u8
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        if !is_guarded(p as usize) {
            // SAFETY: as the caller promises.
            return unsafe { System.dealloc(p, layout) };
        }
        let (start, len) = pages(p as usize, layout.size());
        // SAFETY: the pages of this allocation, which ends here; a use after it is caught too.
        unsafe {
            libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED);
            libc::mprotect(start as *mut libc::c_void, len, libc::PROT_NONE);
        }
    }
}

#[global_allocator]
static ALLOCATOR: Guarded = Guarded;

/// Runs `what` with the guard at the end, then at the start, of every allocation.
fn guarded(mut what: impl FnMut()) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for is_at_start in [false, true] {
        IS_AT_START.store(is_at_start, Ordering::Relaxed);
        IS_ON.store(true, Ordering::Relaxed);
        let before = N_GUARDED.load(Ordering::Relaxed);
        what();
        IS_ON.store(false, Ordering::Relaxed);
        assert!(N_GUARDED.load(Ordering::Relaxed) > before + 10, "nothing was guarded");
    }
}

/// SplitMix64: shapes and values.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick(&mut self, from: &[usize]) -> usize {
        from[self.below(from.len())]
    }

    /// Exactly `n` values: not a byte of room behind them.
    fn values(&mut self, n: usize) -> Box<[f32]> {
        (0..n).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

fn zeros(n: usize) -> Box<[f32]> {
    vec![0.0; n].into_boxed_slice()
}

fn engines() -> Vec<Engine> {
    let of_threads = |isa: Isa| [1, 2].map(|threads| Engine::with_isa(threads, isa));
    Isa::available().into_iter().flat_map(of_threads).collect()
}

fn random_shape(dice: &mut Dice, most: u64) -> ConvShape {
    loop {
        let groups = dice.pick(&[1, 1, 1, 1, 2, 3]);
        let is_depthwise = dice.below(5) == 0;
        let (c, f) = (dice.pick(&[1, 2, 3, 5, 7, 16, 17, 33]), dice.pick(&[1, 3, 10, 16, 17, 32, 37]));
        let shape = ConvShape {
            batch: dice.pick(&[1, 2, 3, 5]),
            height: 1 + dice.below(9),
            width: 1 + dice.below(18),
            channels_in: if is_depthwise { f } else { c * groups },
            filters: if is_depthwise { f } else { f * groups },
            kernel_h: dice.pick(&[1, 2, 3, 3, 5]),
            kernel_w: dice.pick(&[1, 2, 3, 3, 5]),
            stride_h: dice.pick(&[1, 1, 2, 3]),
            stride_w: dice.pick(&[1, 1, 2]),
            pad_top: dice.below(4),
            pad_bottom: dice.below(4),
            pad_left: dice.below(3),
            pad_right: dice.below(3),
            dilation_h: dice.pick(&[1, 1, 2]),
            dilation_w: dice.pick(&[1, 1, 3]),
            groups: if is_depthwise { f } else { groups },
        };
        if shape.height_out() > 0 && shape.width_out() > 0 && shape.multiply_adds() * (shape.batch as u64) < most {
            return shape;
        }
    }
}

/// Shapes that a step of a usual network has, small.
fn usual_shapes() -> [ConvShape; 6] {
    [
        ConvShape::same(3, 14, 14, 32, 32, 3),
        ConvShape::same(2, 14, 14, 1, 32, 3),
        ConvShape::same(2, 16, 16, 3, 32, 5),
        ConvShape::same(9, 2, 2, 40, 64, 3),
        ConvShape::same(2, 13, 15, 7, 17, 3),
        ConvShape::valid(8, 7, 7, 32, 48, 1),
    ]
}

/// Portable kernels are for correctness, not speed: they get the small shapes only.
fn is_for(engine: &Engine, shape: &ConvShape) -> bool {
    engine.isa() != Isa::Portable || shape.multiply_adds() * (shape.batch as u64) < 60_000
}

#[test]
fn convolutions_stay_within_their_slices() {
    let mut dice = Dice(1);
    guarded(|| {
        for engine in engines() {
            let random: Vec<ConvShape> = (0..12).map(|_| random_shape(&mut dice, 60_000)).collect();
            for s in random.iter().chain(&usual_shapes()).filter(|s| is_for(&engine, s)) {
                let n = 1 + dice.below(s.batch);
                let (x, w, b) = (dice.values(n * s.input_len()), dice.values(s.weights_len()), dice.values(s.filters));
                let g = dice.values(n * s.output_len());
                let (mut y, mut dx) = (zeros(n * s.output_len()), zeros(n * s.input_len()));
                let (mut dw, mut db) = (zeros(s.weights_len()), zeros(s.filters));
                let can_pool = s.height_out().is_multiple_of(2) && s.width_out().is_multiple_of(2);
                let quarter = if can_pool { n * s.output_len() / 4 } else { 0 };
                let pooled_g = dice.values(quarter);
                let (mut pooled, mut taps) = (zeros(quarter), vec![0; quarter].into_boxed_slice());
                for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
                    let mut conv = Conv::plan(&engine, *s, algorithm, false);
                    conv.forward(n, &x, &w, Some(&b), Activation::Relu, &mut y);
                    conv.forward(n, &x, &w, None, Activation::None, &mut y);
                    conv.backward_data(n, &g, &w, Some(&x), &mut dx);
                    conv.backward_data(n, &g, &w, None, &mut dx);
                    conv.backward_weights(n, &x, &g, &mut dw, Some(&mut db));
                    if !can_pool {
                        continue;
                    }
                    let (y, g) = (&mut pooled, &pooled_g);
                    let mut conv = Conv::plan(&engine, *s, algorithm, true);
                    let forward =
                        |bias, activation| Forward { n, input: Input::Given(&x), weights: &w, bias, activation };
                    conv.forward_pooled(forward(Some(&b), Activation::Relu), y, Some(&mut taps));
                    conv.forward_pooled(forward(None, Activation::None), y, None);
                    let backward = BackwardData { n, grad_output: g, weights: &w, relu_mask: Some(&x) };
                    conv.backward_data_pooled(backward, &taps, &mut dx, None);
                    let grad = GradOutput::Pooled { values: g, taps: &taps };
                    conv.backward_weights_fused(n, &x, grad, &mut dw, Some(&mut db));
                }
            }
        }
    });
}

#[test]
fn dense_and_locally_connected_layers_and_products_stay_within_their_slices() {
    let mut dice = Dice(2);
    guarded(|| {
        for engine in engines() {
            for _ in 0..8 {
                let (batch, inputs, units) = (1 + dice.below(40), dice.pick(&[1, 7, 16, 60, 130]), 1 + dice.below(70));
                let n = 1 + dice.below(batch);
                let (x, w, b) = (dice.values(n * inputs), dice.values(inputs * units), dice.values(units));
                let g = dice.values(n * units);
                let (mut y, mut dx, mut dw, mut db) =
                    (zeros(n * units), zeros(n * inputs), zeros(inputs * units), zeros(units));
                let mut dense = Dense::new(&engine, batch, inputs, units);
                dense.forward(n, &x, &w, Some(&b), Activation::Relu, &mut y);
                dense.backward_data(n, &g, &w, Some(&x), &mut dx);
                dense.backward_weights(n, &x, &g, &mut dw, Some(&mut db));
                matmul(&engine, n, inputs, units, &x, &w, &mut y);
                let mut square = vec![0.0f64; inputs * inputs].into_boxed_slice();
                gram(&engine, (n, inputs), &x, Some(&w[..inputs]), &|| false, &mut square);
                gram(&engine, (n, inputs), &x, None, &|| false, &mut square);
                let matrix = Matrix::new(&engine, inputs, units, &w);
                matrix.product(n, |rows, to| to.copy_from_slice(&x[rows.start * inputs..rows.end * inputs]), &mut y);
                let bytes: Vec<u8> = x.iter().map(|x| (x * 50.0) as u8).collect();
                let mut products = ByteProducts::new(&engine, inputs);
                products.add(n, |i| &bytes[i * inputs..][..inputs], &|| false);
                products.finish();
            }
            for _ in 0..4 {
                let s = ConvShape { groups: 1, ..random_shape(&mut dice, 20_000) };
                if s.multiply_adds() * s.batch as u64 > 60_000 {
                    continue;
                }
                let mut local = LocalConv::new(&engine, s);
                let n = 1 + dice.below(s.batch);
                let (x, w, b) =
                    (dice.values(n * s.input_len()), dice.values(local.weights_len()), dice.values(s.output_len()));
                let g = dice.values(n * s.output_len());
                let (mut y, mut dx) = (zeros(n * s.output_len()), zeros(n * s.input_len()));
                let (mut dw, mut db) = (zeros(local.weights_len()), zeros(s.output_len()));
                local.forward(n, &x, &w, Some(&b), Activation::Relu, &mut y);
                local.backward_data(n, &g, &w, Some(&x), &mut dx);
                local.backward_weights(n, &x, &g, &mut dw, Some(&mut db));
            }
        }
    });
}

#[test]
fn pooling_normalisation_softmax_and_updates_stay_within_their_slices() {
    let mut dice = Dice(3);
    guarded(|| {
        for engine in engines() {
            for (channels, side) in [(1, 4), (3, 6), (16, 8), (17, 7), (40, 5)] {
                let n = 1 + dice.below(3);
                pooling(&engine, &mut dice, n, channels, side);
                normalisation(&engine, &mut dice, n, channels, side);
            }
            for n_classes in [2, 10, 17, 100] {
                let n = 1 + dice.below(9);
                let (logits, mut grad) = (dice.values(n * n_classes), zeros(n * n_classes));
                let labels: Box<[u32]> = (0..n).map(|i| (i % n_classes) as u32).collect();
                let (options, mut scratch) = (LossOptions::default(), LossScratch::default());
                let targets = Targets::Labels(&labels);
                softmax_cross_entropy(&engine, n_classes, &logits, targets, options, Some(&mut grad), &mut scratch);
                softmax(&engine, n_classes, &mut grad);
            }
            for n in [1, 5, 16, 31, 500] {
                updates(&engine, &mut dice, n);
            }
        }
    });
}

fn pooling(engine: &Engine, dice: &mut Dice, n: usize, channels: usize, side: usize) {
    for (size, stride, pad) in [(2, 2, 0), (3, 2, 1), (3, 1, 0)] {
        let out = (side + 2 * pad - size) / stride + 1;
        let shape = PoolShape {
            height: side,
            width: side,
            channels,
            size_h: size,
            size_w: size,
            stride_h: stride,
            stride_w: stride,
            pad_top: pad,
            pad_left: pad,
            height_out: out,
            width_out: out,
        };
        let (x, g) = (dice.values(n * shape.input_len()), dice.values(n * shape.output_len()));
        let (mut y, mut dx) = (zeros(n * shape.output_len()), zeros(n * shape.input_len()));
        let mut taps = vec![0; n * shape.output_len()].into_boxed_slice();
        max_pool(engine, &shape, n, &x, true, &mut y, Some(&mut taps));
        max_pool_backward(engine, &shape, n, &taps, &g, &mut dx);
        average_pool(engine, &shape, n, &x, &mut y);
        average_pool_backward(engine, &shape, n, &g, &mut dx);
    }
    let pixels = side * side;
    let (x, g) = (dice.values(n * pixels * channels), dice.values(n * channels));
    let (mut y, mut dx) = (zeros(n * channels), zeros(n * pixels * channels));
    channel_means(engine, pixels, channels, n, &x, &mut y);
    channel_means_backward(engine, pixels, channels, n, &g, &mut dx);
}

fn normalisation(engine: &Engine, dice: &mut Dice, n: usize, channels: usize, side: usize) {
    let rows = n * side * side;
    let (x, scale, shift) = (dice.values(rows * channels), dice.values(channels), dice.values(channels));
    let (mut y, mut g) = (zeros(rows * channels), dice.values(rows * channels));
    let (mut grad_scale, mut grad_shift) = (zeros(channels), zeros(channels));
    let (mean, variance) = (dice.values(channels), zeros(channels));
    let mut norm = BatchNorm::new(rows, channels, 1e-5);
    norm.measure(engine, &x, &scale);
    norm.values(engine, side * side, &x, &shift, true, None).write(engine, &mut y);
    norm.gradient_sums(engine, &x, &shift, true, None).finish(engine, &mut g);
    norm.gradient(engine, side * side, &x, &scale, None, [&mut grad_scale, &mut grad_shift]).write(engine, &mut g);
    norm.use_running(&scale, &mean, &variance);
    norm.values(engine, side * side, &x, &shift, true, None).write(engine, &mut y);
    sum_of_squares(engine, &x);
    activate(engine, convoy::engine::Pointwise::Relu, &mut y);
    if side.is_multiple_of(2) {
        let quarter = rows / 4 * channels;
        let (mut y, mut taps, mut g) = (zeros(quarter), vec![0; quarter].into_boxed_slice(), dice.values(quarter));
        let mut grad_input = zeros(rows * channels);
        let mut norm = BatchNorm::pooled(engine, rows, channels, 1e-5, side);
        norm.measure(engine, &x, &scale);
        norm.values(engine, side * side, &x, &shift, true, Some(&mut taps)).write(engine, &mut y);
        norm.gradient_sums(engine, &x, &shift, true, Some(&taps)).finish(engine, &mut g);
        norm.gradient(engine, side * side, &x, &scale, Some((&g, &taps)), [&mut grad_scale, &mut grad_shift])
            .write(engine, &mut grad_input);
    }
}

fn updates(engine: &Engine, dice: &mut Dice, n: usize) {
    let step = UpdateStep { learning_rate: 0.1, grad_scale: 1.0, l2: 0.01, decay: 1.0 };
    let rule = AdamStep { beta1: 0.9, beta2: 0.999, correction1: 1.1, correction2: 1.1, epsilon: 1e-8 };
    let (mut weights, grad) = (dice.values(n), dice.values(n));
    let (mut first, mut second) = (zeros(n), zeros(n));
    sgd(engine, step, 0.0, false, &mut weights, &grad, None);
    sgd(engine, step, 0.9, false, &mut weights, &grad, Some(&mut first));
    sgd(engine, step, 0.9, true, &mut weights, &grad, Some(&mut first));
    adam(engine, step, rule, &mut weights, &grad, [&mut first, &mut second]);
    let rule = RmsPropStep { rho: 0.9, momentum: 0.5, epsilon: 1e-8 };
    rmsprop(engine, step, rule, &mut weights, &grad, &mut second, Some(&mut first));
    adagrad(engine, step, 1e-8, &mut weights, &grad, &mut second);
}

#[test]
fn training_steps_stay_within_their_slices() {
    const NETS: &[&str] = &[
        "INPUT - CONV(8) - RELU - POOL - CONV(20) - BN - RELU - POOL - CONV(8) - BN - RELU - DROPOUT(0.25) - FC(12) - RELU - FC",
        "INPUT - NOISE(0.1) - CONV(5, stride=2) - LEAKY - AVGPOOL - LOCAL(3) - ELU - FC",
        "INPUT - CONV(6) - BN - RELU - CONV(6, groups=3) - GAP - FC",
    ];
    let input = SampleShape::Image(ImageShape { height: 12, width: 16, channels: 3 });
    guarded(|| {
        for engine in engines().into_iter().filter(|engine| engine.isa() != Isa::Portable) {
            for text in NETS {
                let architecture = architecture::from_shorthand(text).expect("a network");
                let plan = NetworkPlan::new(&architecture.layers, input, 4).expect("a plan");
                let optimizer: Arc<dyn OptimizerConfig> = Arc::new(Sgd { momentum: 0.9, is_nesterov: false });
                let training = Training {
                    seeds: Seeds { seed: 1, indices: Vec::new() },
                    last_layer_gain: 1.0,
                    optimizer,
                    l2: 1e-3,
                    clip: Some(1.0),
                    ..Training::default()
                };
                let mut trainer = Trainer::new(&engine, &plan, 6, training);
                for n in [6, 5] {
                    let images = Dice(n as u64).values(n * input.len());
                    let labels: Box<[u32]> = (0..n as u32).map(|i| i % 4).collect();
                    trainer.train_step(&images, Targets::Labels(&labels), 0.01, None);
                    trainer.evaluate(&images, &labels, Some(&mut zeros(n * 4)));
                }
            }
        }
    });
}

/// The program again, as a child that steps one value outside a slice on either side.
#[test]
fn a_step_outside_is_caught() {
    const SIDE: &str = "CONVOY_TEST_STEP_OUTSIDE";
    if let Ok(side) = std::env::var(SIDE) {
        guarded(|| {
            let values = zeros(1024);
            let at = if side == "behind" { values.len() as isize } else { -1 };
            // SAFETY: none: this is the step outside that the guard must catch.
            let value = unsafe { values.as_ptr().offset(at).read_volatile() };
            assert!(value.is_finite());
        });
        return;
    }
    for side in ["behind", "before"] {
        let child = std::process::Command::new(std::env::current_exe().expect("a path"))
            .args(["a_step_outside_is_caught", "--exact"])
            .env(SIDE, side)
            .output()
            .expect("the test starts");
        let signal = std::os::unix::process::ExitStatusExt::signal(&child.status);
        assert!(matches!(signal, Some(libc::SIGSEGV | libc::SIGBUS)), "{side}: {}", child.status);
    }
}
