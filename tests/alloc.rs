//! Neither the engine nor a training step allocates anything after the first call.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use convoy::engine::{Activation, Buffer, Conv, ConvShape, Dense, Engine, Targets};
use convoy::nn::architecture;
use convoy::nn::optimizer::Sgd;
use convoy::nn::plan::NetworkPlan;
use convoy::nn::seeds::Seeds;
use convoy::nn::training::{Trainer, Training};
use convoy::tensor::{ImageShape, SampleShape};

static N_ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting.
struct Counting;

// SAFETY: every call is passed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        N_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test and no harness, whose own thread would be counted: the count is of the whole process.
fn main() {
    training_steps();
    engine_calls();
}

/// The fewest allocations in one of several looks at three steps: a step that allocates does so each time, while a
/// thread of the engine does so once, at its first piece of work.
fn fewest(step: &mut dyn FnMut(usize), sizes: [usize; 3]) -> usize {
    let look = |_| {
        let before = N_ALLOCATIONS.load(Ordering::Relaxed);
        sizes.into_iter().for_each(&mut *step);
        N_ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    (0..8).map(look).min().unwrap_or_default()
}

fn training_steps() {
    training_steps_of(
        "INPUT - CONV(8) - RELU - POOL - CONV(20) - BN - RELU - POOL - CONV(8) - BN - RELU - DROPOUT(0.25) - FC(12) - RELU - FC",
    );
    training_steps_of(
        "INPUT - CONV(8) - RELU - [CONV(20, convolution=winograd) - BN - RELU]*2 - CONV(8, convolution=winograd) - POOL - FC",
    );
}

fn training_steps_of(net: &str) {
    let architecture = architecture::from_shorthand(net).expect("a network");
    let input = SampleShape::Image(ImageShape { height: 12, width: 16, channels: 3 });
    let plan = NetworkPlan::new(&architecture.layers, input, 4).expect("a plan");
    for threads in [1, 3] {
        let training = Training {
            seeds: Seeds { seed: 1, indices: Vec::new() },
            last_layer_gain: 1.0,
            optimizer: Arc::new(Sgd { momentum: 0.9, is_nesterov: false }),
            l2: 1e-3,
            clip: Some(1.0),
            ..Training::default()
        };
        let mut trainer = Trainer::new(&Engine::new(threads), &plan, 8, training);
        let images = vec![0.5; 8 * input.len()];
        let labels: Vec<u32> = (0..8).map(|i| i % 4).collect();
        let mut step = |n: usize| {
            trainer.train_step(&images[..n * input.len()], Targets::Labels(&labels[..n]), 0.01, None);
        };
        step(8);
        assert_eq!(fewest(&mut step, [8, 5, 8]), 0, "{threads} threads");
    }
}

fn engine_calls() {
    for threads in [1, 3] {
        let engine = Engine::new(threads);
        for shape in [ConvShape::same(8, 14, 14, 16, 40, 3), ConvShape::same(8, 14, 14, 3, 8, 5)] {
            let n = shape.batch;
            let (x, w) = (Buffer::zeros(n * shape.input_len()), Buffer::zeros(shape.weights_len()));
            let g = Buffer::zeros(n * shape.output_len());
            let (mut y, mut dx, mut dw) = (g.clone(), x.clone(), w.clone());
            let mut db = Buffer::zeros(shape.filters);
            let mut conv = Conv::new(&engine, shape);
            let (inputs, units) = (shape.input_len(), 9);
            let (fw, mut fdw) = (Buffer::zeros(inputs * units), Buffer::zeros(inputs * units));
            let mut fy = Buffer::zeros(n * units);
            let mut dense = Dense::new(&engine, n, inputs, units);
            let mut step = |n: usize| {
                conv.forward(n, &x, &w, Some(&db), Activation::Relu, &mut y);
                conv.backward_data(n, &g, &w, Some(&x), &mut dx);
                conv.backward_weights(n, &x, &g, &mut dw, Some(&mut db));
                dense.forward(n, &x, &fw, None, Activation::None, &mut fy);
                dense.backward_data(n, &fy, &fw, None, &mut dx);
                dense.backward_weights(n, &x, &fy, &mut fdw, None);
            };
            step(n);
            assert_eq!(fewest(&mut step, [n, n - 3, n]), 0, "{threads} threads, {shape:?}");
        }
    }
}
