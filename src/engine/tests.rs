//! Every kernel against the definition, bit by bit: random shapes, every instruction set, several thread counts, forced
//! blocking, and values that go wrong (-0, infinities, NaN, denormals).

use std::io::Write as _;

use super::reference::winograd::applies;
use super::threads::Choice;
use super::{
    Activation, Algorithm, BackwardData, Conv, ConvShape, Dense, Engine, Forward, GradOutput, Input, Isa, LocalConv,
    PoolShape, gram, matmul, max_pool, max_pool_backward, reference,
};

/// A small generator of test values (SplitMix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Values in (-1, 1).
    pub(super) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// The same with some that go wrong among them.
    pub(super) fn wild(&mut self, n: usize) -> Vec<f32> {
        let odd = [-0.0, 0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40, -1e-42, 1e-30, -1e-25, 3e38];
        let mut values = self.values(n);
        for value in &mut values {
            if self.below(12) == 0 {
                *value = self.pick(&odd);
            }
        }
        values
    }
}

/// # Panics
/// If any bit differs; all NaN are alike, since their payload is the processor's affair.
#[track_caller]
pub(super) fn assert_same(ours: &[f32], theirs: &[f32], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        let same = a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        assert!(same, "{what}: value {i} of {}: {a:e}, not {b:e}", ours.len());
    }
}

/// Engines of every instruction set here, with several thread counts and forced choices.
pub(super) fn engines() -> Vec<(String, Engine)> {
    let plain = Choice { least_shared: 0, ..Choice::default() };
    let choices = [
        plain,
        Choice { packs_first: Some(false), images: Some(2), ..plain },
        Choice { nr: 1, rows: Some(2), images: Some(1), steps: Some(5), ..plain },
        Choice { packs_first: Some(true), rows: Some(3), steps: Some(64), ..plain },
    ];
    let mut engines = Vec::new();
    for isa in Isa::available() {
        for threads in [1, 2, 3, 5, 8] {
            let choice = choices[(threads + isa as usize) % choices.len()];
            engines.push((format!("{isa}, {threads} threads"), Engine::with_isa(threads, isa).with_choice(choice)));
        }
        for choice in choices {
            engines.push((format!("{isa}, {choice:?}"), Engine::with_isa(1, isa).with_choice(choice)));
        }
    }
    engines
}

fn random_shape(dice: &mut Dice) -> ConvShape {
    loop {
        let groups = dice.pick(&[1, 1, 1, 1, 2, 3]);
        let is_depthwise = dice.below(6) == 0;
        let (c, f) = (dice.pick(&[1, 2, 3, 4, 5, 7, 16, 17]), dice.pick(&[1, 3, 8, 10, 17, 32, 37]));
        let shape = ConvShape {
            batch: dice.pick(&[1, 2, 3, 5]),
            height: 1 + dice.below(9),
            width: 1 + dice.below(12),
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
        let size = shape.multiply_adds() * shape.batch as u64;
        if shape.height_out() > 0 && shape.width_out() > 0 && size < 400_000 {
            return shape;
        }
    }
}

/// What an algorithm must give.
#[allow(clippy::type_complexity)]
struct Definition {
    algorithm: Algorithm,
    forward: fn(&ConvShape, usize, &[f32], &[f32], Option<&[f32]>, Activation, &mut [f32]),
    backward_data: fn(&ConvShape, usize, &[f32], &[f32], Option<&[f32]>, &mut [f32]),
    backward_weights: fn(&ConvShape, usize, &[f32], &[f32], &mut [f32], Option<&mut [f32]>),
}

const DIRECT: Definition = Definition {
    algorithm: Algorithm::Direct,
    forward: reference::forward,
    backward_data: reference::backward_data,
    backward_weights: reference::backward_weights,
};

const WINOGRAD: Definition = Definition {
    algorithm: Algorithm::Winograd,
    forward: reference::winograd_forward,
    backward_data: reference::winograd_backward_data,
    backward_weights: reference::winograd_backward_weights,
};

/// All three passes of one shape against the direct definition, on one engine.
fn check(engine: &Engine, name: &str, s: &ConvShape, n: usize, is_wild: bool, dice: &mut Dice) {
    check_by(&DIRECT, engine, name, s, n, is_wild, dice);
}

fn check_by(by: &Definition, engine: &Engine, name: &str, s: &ConvShape, n: usize, is_wild: bool, dice: &mut Dice) {
    let mut values = |len: usize| if is_wild { dice.wild(len) } else { dice.values(len) };
    let (x, w, b) = (values(n * s.input_len()), values(s.weights_len()), values(s.filters));
    let g = values(n * s.output_len());
    let mut conv = Conv::plan(engine, *s, by.algorithm, false);
    for (bias, activation) in [(None, Activation::None), (Some(&b[..]), Activation::Relu)] {
        let (mut ours, mut theirs) = (vec![7.0; n * s.output_len()], vec![7.0; n * s.output_len()]);
        conv.forward(n, &x, &w, bias, activation, &mut ours);
        (by.forward)(s, n, &x, &w, bias, activation, &mut theirs);
        assert_same(&ours, &theirs, &format!("forward, {name}, {s:?}"));
    }
    for mask in [None, Some(&x[..])] {
        let (mut ours, mut theirs) = (vec![7.0; n * s.input_len()], vec![7.0; n * s.input_len()]);
        conv.backward_data(n, &g, &w, mask, &mut ours);
        (by.backward_data)(s, n, &g, &w, mask, &mut theirs);
        assert_same(&ours, &theirs, &format!("backward data, {name}, {s:?}"));
    }
    let (mut ours, mut our_bias) = (vec![7.0; s.weights_len()], vec![7.0; s.filters]);
    let (mut theirs, mut their_bias) = (vec![7.0; s.weights_len()], vec![7.0; s.filters]);
    conv.backward_weights(n, &x, &g, &mut ours, Some(&mut our_bias));
    (by.backward_weights)(s, n, &x, &g, &mut theirs, Some(&mut their_bias));
    assert_same(&ours, &theirs, &format!("backward weights, {name}, {s:?}"));
    assert_same(&our_bias, &their_bias, &format!("backward bias, {name}, {s:?}"));
    conv.backward_weights(n, &x, &g, &mut ours, None);
    assert_same(&ours, &theirs, &format!("backward weights without bias, {name}, {s:?}"));
    if s.height_out().is_multiple_of(2) && s.width_out().is_multiple_of(2) {
        check_pooled(by, engine, name, s, n, [&x, &w, &b, &g]);
    }
}

/// The pooled passes of one shape against convolution and pooling one after the other.
fn check_pooled(by: &Definition, engine: &Engine, name: &str, s: &ConvShape, n: usize, [x, w, b, g]: [&[f32]; 4]) {
    let (len, quarter) = (n * s.output_len(), n * s.output_len() / 4);
    let (g, plain) = (&g[..quarter], Engine::with_isa(1, Isa::Portable));
    let pool = PoolShape {
        height: s.height_out(),
        width: s.width_out(),
        channels: s.filters,
        size_h: 2,
        size_w: 2,
        stride_h: 2,
        stride_w: 2,
        pad_top: 0,
        pad_left: 0,
        height_out: s.height_out() / 2,
        width_out: s.width_out() / 2,
    };
    let mut conv = Conv::plan(engine, *s, by.algorithm, true);
    for (bias, activation) in [(None, Activation::None), (Some(b), Activation::Relu)] {
        let relu_mask = activation == Activation::Relu;
        let (mut whole, mut theirs, mut their_taps) = (vec![7.0; len], vec![7.0; quarter], vec![9; quarter]);
        (by.forward)(s, n, x, w, bias, activation, &mut whole);
        max_pool(&plain, &pool, n, &whole, relu_mask, &mut theirs, Some(&mut their_taps));
        let (mut ours, mut taps) = (vec![7.0; quarter], vec![9; quarter]);
        let forward = || Forward { n, input: Input::Given(x), weights: w, bias, activation };
        conv.forward_pooled(forward(), &mut ours, None);
        assert_same(&ours, &theirs, &format!("pooled forward without taps, {name}, {s:?}"));
        ours.fill(7.0);
        conv.forward_pooled(forward(), &mut ours, Some(&mut taps));
        assert_same(&ours, &theirs, &format!("pooled forward, {name}, {s:?}"));
        let bytes: Vec<u8> = their_taps.iter().map(|&tap| tap as u8).collect();
        assert_eq!(taps, bytes, "taps, {name}, {s:?}");

        max_pool_backward(&plain, &pool, n, &their_taps, g, &mut whole);
        let (mut ours, mut theirs) = (vec![7.0; n * s.input_len()], vec![7.0; n * s.input_len()]);
        let mask = relu_mask.then_some(x);
        let backward = BackwardData { n, grad_output: g, weights: w, relu_mask: mask };
        conv.backward_data_pooled(backward, &taps, &mut ours, None);
        (by.backward_data)(s, n, &whole, w, mask, &mut theirs);
        assert_same(&ours, &theirs, &format!("pooled backward data, {name}, {s:?}"));
        let (mut ours, mut our_bias) = (vec![7.0; s.weights_len()], vec![7.0; s.filters]);
        let (mut theirs, mut their_bias) = (vec![7.0; s.weights_len()], vec![7.0; s.filters]);
        let grad = GradOutput::Pooled { values: g, taps: &taps };
        conv.backward_weights_fused(n, x, grad, &mut ours, Some(&mut our_bias));
        (by.backward_weights)(s, n, x, &whole, &mut theirs, Some(&mut their_bias));
        assert_same(&ours, &theirs, &format!("pooled backward weights, {name}, {s:?}"));
        assert_same(&our_bias, &their_bias, &format!("pooled backward bias, {name}, {s:?}"));
    }
}

#[test]
fn the_instruction_sets_that_ran_are_told_and_a_build_server_has_avx2() {
    let ran: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
    // Not captured by the test harness: it is told whether the test passes or not.
    let _ = writeln!(std::io::stderr(), "kernels tested on {}", ran.join(", "));
    let is_checked = cfg!(target_arch = "x86_64") && std::env::var_os("CI").is_some();
    assert!(!is_checked || Isa::Avx2.is_available(), "CI is set, but only {ran:?} ran");
}

/// A chain of k fused steps is off by at most k units of the last place of the sum of its products' sizes (Higham 2002,
/// section 3.1), and the bias adds one.
#[test]
fn the_forward_pass_is_as_near_to_f64_as_theory_says() {
    let mut dice = Dice::new(7);
    for isa in Isa::available() {
        let engine = Engine::with_isa(2, isa);
        for shape in
            [ConvShape::same(2, 9, 10, 17, 12, 3), ConvShape { groups: 2, ..ConvShape::valid(2, 7, 7, 6, 8, 3) }]
        {
            let (x, w) = (dice.values(2 * shape.input_len()), dice.values(shape.weights_len()));
            let (b, mut y) = (dice.values(shape.filters), vec![0.0; 2 * shape.output_len()]);
            Conv::new(&engine, shape).forward(2, &x, &w, Some(&b), Activation::None, &mut y);
            let (depth, columns) = (shape.group_in(), shape.group_out());
            for (i, y) in y.iter().enumerate() {
                let (f, pixel) = (i % shape.filters, i / shape.filters);
                let (ow, oh) = (pixel % shape.width_out(), pixel / shape.width_out() % shape.height_out());
                let image = &x[pixel / shape.width_out() / shape.height_out() * shape.input_len()..];
                let (mut sum, mut sizes) = (f64::from(b[f]), f64::from(b[f].abs()));
                for (kh, kw) in (0..9).map(|tap| (tap / 3, tap % 3)) {
                    let (ih, iw) = ((oh + kh).wrapping_sub(shape.pad_top), (ow + kw).wrapping_sub(shape.pad_left));
                    if ih >= shape.height || iw >= shape.width {
                        continue;
                    }
                    for c in 0..depth {
                        let x = image[(ih * shape.width + iw) * shape.channels_in + f / columns * depth + c];
                        let product = f64::from(x) * f64::from(w[((kh * 3 + kw) * depth + c) * shape.filters + f]);
                        (sum, sizes) = (sum + product, sizes + product.abs());
                    }
                }
                let unit = f64::from(f32::EPSILON) / 2.0;
                let bound = (9 * depth + 1) as f64 * unit * 1.0001 * sizes;
                assert!((f64::from(*y) - sum).abs() <= bound, "{isa}: {y} for {sum}, bound {bound:e}");
            }
        }
    }
}

#[test]
fn random_convolutions_have_the_bits_of_the_definition() {
    let mut dice = Dice::new(1);
    let engines = engines();
    for (round, (name, engine)) in engines.iter().cycle().take(4 * engines.len()).enumerate() {
        let shape = random_shape(&mut dice);
        let n = 1 + dice.below(shape.batch);
        check(engine, name, &shape, n, round % 3 == 2, &mut dice);
    }
}

#[test]
fn odd_sizes_have_the_bits_of_the_definition() {
    let mut dice = Dice::new(2);
    for (isa, threads) in Isa::available().into_iter().zip([1, 2, 3]) {
        let engine = Engine::with_isa(threads, isa);
        for shape in [
            ConvShape::same(2, 29, 31, 3, 10, 3),
            ConvShape::same(2, 13, 15, 7, 17, 3),
            ConvShape::same(1, 6, 5, 33, 100, 3),
            ConvShape::same(9, 2, 2, 40, 32, 3),
            ConvShape::same(5, 14, 12, 1, 32, 3),
            ConvShape::same(2, 8, 30, 1, 40, 5),
            ConvShape::same(3, 6, 18, 3, 48, 3),
            ConvShape { pad_top: 9, pad_bottom: 10, ..ConvShape::same(3, 8, 6, 5, 7, 2) },
            ConvShape { pad_bottom: 14, dilation_h: 2, ..ConvShape::valid(3, 8, 9, 2, 7, 2) },
            ConvShape::same(3, 10, 8, 34, 70, 3),
            ConvShape::valid(70, 1, 1, 57, 43, 1),
            ConvShape::valid(3, 4, 3, 160, 37, 1),
            ConvShape { stride_w: 2, pad_left: 1, ..ConvShape::valid(2, 4, 5, 128, 20, 1) },
            ConvShape { stride_h: 2, stride_w: 2, ..ConvShape::same(3, 15, 15, 3, 12, 5) },
        ] {
            check(&engine, isa.name(), &shape, shape.batch, false, &mut dice);
        }
    }
}

#[test]
fn winograds_convolutions_have_the_bits_of_their_definition() {
    let mut dice = Dice::new(10);
    let engines = engines();
    for (round, (name, engine)) in engines.iter().cycle().take(4 * engines.len()).enumerate() {
        let shape = loop {
            let shape = ConvShape {
                height: 4 + dice.below(6),
                width: 4 + dice.below(9),
                pad_top: dice.below(3),
                pad_bottom: dice.below(3),
                pad_left: dice.below(3),
                pad_right: dice.below(3),
                ..ConvShape::valid(dice.pick(&[1, 2, 3, 5]), 1, 1, dice.pick(&[5, 7, 16, 17, 40]), 1, 3)
            };
            let shape = ConvShape { filters: dice.pick(&[1, 3, 8, 17, 32, 37, 70]), ..shape };
            let size = shape.multiply_adds() * shape.batch as u64;
            if applies(&shape) && size < 1_000_000 {
                break shape;
            }
        };
        let n = 1 + dice.below(shape.batch);
        check_by(&WINOGRAD, engine, name, &shape, n, round % 3 == 2, &mut dice);
    }
    // Several chunks, and images of several pieces.
    for (name, engine) in engines.iter().filter(|(_, engine)| engine.isa() != Isa::Portable) {
        for s in [ConvShape::same(23, 12, 15, 6, 7, 3), ConvShape::same(2, 40, 44, 33, 34, 3)] {
            check_by(&WINOGRAD, engine, name, &s, s.batch, false, &mut dice);
        }
    }
}

/// Output, gradient of the input and gradient of the weights in f64.
fn in_f64(s: &ConvShape, n: usize, x: &[f32], w: &[f32], g: &[f32]) -> [Vec<f64>; 3] {
    let [mut y, mut dx, mut dw] = [vec![0.0; g.len()], vec![0.0; x.len()], vec![0.0; w.len()]];
    let (height, width) = (s.height_out(), s.width_out());
    for pixel in 0..n * height * width {
        let (image, oh, ow) = (pixel / width / height, pixel / width % height, pixel % width);
        for (kh, kw) in (0..9).map(|tap| (tap / 3, tap % 3)) {
            let (ih, iw) = ((oh + kh).wrapping_sub(s.pad_top), (ow + kw).wrapping_sub(s.pad_left));
            if ih >= s.height || iw >= s.width {
                continue;
            }
            for c in 0..s.channels_in {
                let at = ((image * s.height + ih) * s.width + iw) * s.channels_in + c;
                for f in 0..s.filters {
                    let (to, tap) = (pixel * s.filters + f, ((kh * 3 + kw) * s.channels_in + c) * s.filters + f);
                    y[to] += f64::from(x[at]) * f64::from(w[tap]);
                    dx[at] += f64::from(g[to]) * f64::from(w[tap]);
                    dw[tap] += f64::from(x[at]) * f64::from(g[to]);
                }
            }
        }
    }
    [y, dx, dw]
}

/// Relative to all of the result (Euclidean norms), output, gradient of the input and of the weights were off by
/// 3.6e-7, 3.3e-7 and 4.6e-7 in one chain, by 2.3e-7, 2.1e-7 and 4.2e-7 by Winograd's algorithm, whose chains are
/// shorter.
#[test]
fn winograds_convolutions_are_as_near_to_f64_as_those_of_one_chain() {
    let mut dice = Dice::new(11);
    let (engine, n) = (Engine::new(1), 4);
    let s = ConvShape::same(n, 13, 14, 48, 40, 3);
    let (x, w) = (dice.values(n * s.input_len()), dice.values(s.weights_len()));
    let g = dice.values(n * s.output_len());
    let exact = in_f64(&s, n, &x, &w, &g);
    let errors = |algorithm| {
        let mut conv = Conv::plan(&engine, s, algorithm, false);
        let (mut y, mut dx, mut dw) = (vec![0.0; g.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
        conv.forward(n, &x, &w, None, Activation::None, &mut y);
        conv.backward_data(n, &g, &w, None, &mut dx);
        conv.backward_weights(n, &x, &g, &mut dw, None);
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let ours = [y, dx, dw];
        ours.iter()
            .zip(&exact)
            .map(|(ours, exact)| {
                let error = norm(&mut ours.iter().zip(exact).map(|(a, b)| f64::from(*a) - b));
                error / norm(&mut exact.iter().copied())
            })
            .collect::<Vec<f64>>()
    };
    let (direct, winograd) = (errors(Algorithm::Direct), errors(Algorithm::Winograd));
    for (direct, winograd) in direct.iter().zip(&winograd) {
        assert!(*winograd < 1e-6 && *winograd < 1.2 * direct, "off by {winograd:e}, directly by {direct:e}");
    }
}

#[test]
fn other_shapes_are_convolved_directly_whatever_is_asked_for() {
    let mut dice = Dice::new(12);
    let engine = Engine::new(2);
    for s in [
        ConvShape::same(2, 8, 8, 3, 8, 3),
        ConvShape::same(2, 8, 8, 8, 8, 5),
        ConvShape { stride_w: 2, ..ConvShape::same(2, 8, 8, 8, 8, 3) },
        ConvShape { groups: 2, ..ConvShape::same(2, 8, 8, 16, 8, 3) },
        ConvShape { dilation_h: 2, ..ConvShape::same(2, 8, 8, 8, 8, 3) },
        ConvShape { pad_top: 3, ..ConvShape::same(2, 8, 8, 8, 8, 3) },
        ConvShape::same(2, 8, 5, 8, 8, 3),
    ] {
        let by = Definition { algorithm: Algorithm::Winograd, ..DIRECT };
        check_by(&by, &engine, "winograd asked for", &s, 2, false, &mut dice);
    }
}

#[test]
fn weight_gradients_work_where_threads_are_more_than_rows_of_weights() {
    let (n, inputs, units) = (3, 130, 20);
    let s = ConvShape::valid(n, 1, 1, inputs, units, 1);
    let mut dice = Dice::new(9);
    let (x, g) = (dice.values(n * inputs), dice.values(n * units));
    let mut theirs = vec![7.0; inputs * units];
    reference::backward_weights(&s, n, &x, &g, &mut theirs, None);
    for isa in Isa::available() {
        for capacity in [3, 9, 10, 200] {
            let engine = Engine::with_capacity(1, capacity, isa);
            let mut ours = vec![7.0; inputs * units];
            Dense::new(&engine, n, inputs, units).backward_weights(n, &x, &g, &mut ours, None);
            assert_same(&ours, &theirs, &format!("{isa}, at most {capacity} threads"));
        }
    }
}

#[test]
fn dense_layers_have_the_bits_of_the_definition() {
    let mut dice = Dice::new(3);
    for (round, (name, engine)) in engines().iter().enumerate() {
        for _ in 0..3 {
            let (batch, inputs, units) = (1 + dice.below(40), dice.pick(&[1, 7, 16, 60, 130]), 1 + dice.below(70));
            let n = 1 + dice.below(batch);
            let s = ConvShape::valid(batch, 1, 1, inputs, units, 1);
            let mut values = |len: usize| if round % 3 == 2 { dice.wild(len) } else { dice.values(len) };
            let (x, w, b, g) = (values(n * inputs), values(inputs * units), values(units), values(n * units));
            let mut dense = Dense::new(engine, batch, inputs, units);
            let what = format!("{name}, {n} of {batch} x {inputs} x {units}");
            let (mut ours, mut theirs) = (vec![7.0; n * units], vec![7.0; n * units]);
            dense.forward(n, &x, &w, Some(&b), Activation::Relu, &mut ours);
            reference::forward(&s, n, &x, &w, Some(&b), Activation::Relu, &mut theirs);
            assert_same(&ours, &theirs, &format!("dense forward, {what}"));
            dense.forward(n, &x, &w, None, Activation::None, &mut ours);
            matmul(engine, n, inputs, units, &x, &w, &mut theirs);
            assert_same(&ours, &theirs, &format!("product, {what}"));
            for mask in [None, Some(&x[..])] {
                let (mut ours, mut theirs) = (vec![7.0; n * inputs], vec![7.0; n * inputs]);
                dense.backward_data(n, &g, &w, mask, &mut ours);
                reference::backward_data(&s, n, &g, &w, mask, &mut theirs);
                assert_same(&ours, &theirs, &format!("dense backward data, {what}"));
            }
            let (mut ours, mut our_bias) = (vec![7.0; inputs * units], vec![7.0; units]);
            let (mut theirs, mut their_bias) = (vec![7.0; inputs * units], vec![7.0; units]);
            dense.backward_weights(n, &x, &g, &mut ours, Some(&mut our_bias));
            reference::backward_weights(&s, n, &x, &g, &mut theirs, Some(&mut their_bias));
            assert_same(&ours, &theirs, &format!("dense backward weights, {what}"));
            assert_same(&our_bias, &their_bias, &format!("dense backward bias, {what}"));
        }
    }
}

#[test]
fn tall_products_and_gram_matrices_have_the_bits_of_the_definition() {
    let mut dice = Dice::new(4);
    for (name, engine) in engines() {
        let (m, k, n) = (if engine.isa() == Isa::Portable { 20 } else { 300 }, 1 + dice.below(40), 1 + dice.below(50));
        let (a, b) = (dice.values(m * k), dice.values(k * n));
        let (mut ours, mut theirs) = (vec![7.0; m * n], vec![7.0; m * n]);
        matmul(&engine, m, k, n, &a, &b, &mut ours);
        reference::matmul(m, k, n, &a, &b, &mut theirs);
        assert_same(&ours, &theirs, &format!("product, {name}, {m} x {k} x {n}"));

        let (samples, features) = (dice.pick(&[1, 511, 512, 700]), 1 + dice.below(40));
        let (x, c) = (dice.values(samples * features), dice.values(features));
        for centre in [None, Some(&c[..])] {
            let (mut ours, mut theirs) = (vec![7.0; features * features], vec![7.0; features * features]);
            assert!(gram(&engine, (samples, features), &x, centre, &|| false, &mut ours));
            reference::gram(samples, features, &x, centre, &mut theirs);
            let bits = |g: &[f64]| g.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&ours), bits(&theirs), "gram, {name}, {samples} x {features}");
        }
    }
}

#[test]
fn many_chunks_have_the_bits_of_the_definition() {
    let mut dice = Dice::new(5);
    for (name, engine) in engines() {
        if engine.isa() == Isa::Portable {
            continue;
        }
        for (c, f) in [(1, 5), (3, 32), (8, 20)] {
            let s = ConvShape::same(23, 11, 12, c, f, 3);
            check(&engine, &name, &s, 20 + dice.below(4), false, &mut dice);
        }
    }
}

#[test]
fn locally_connected_layers_have_the_bits_of_the_definition() {
    let mut dice = Dice::new(6);
    for (round, (name, engine)) in engines().iter().enumerate() {
        let s = loop {
            let s = random_shape(&mut dice);
            if s.groups == 1 && s.multiply_adds() < 60_000 {
                break s;
            }
        };
        let n = 1 + dice.below(s.batch);
        let mut local = LocalConv::new(engine, s);
        let mut values = |len: usize| if round % 3 == 2 { dice.wild(len) } else { dice.values(len) };
        let (x, w, b) = (values(n * s.input_len()), values(local.weights_len()), values(s.output_len()));
        let g = values(n * s.output_len());
        let (mut ours, mut theirs) = (vec![7.0; n * s.output_len()], vec![7.0; n * s.output_len()]);
        local.forward(n, &x, &w, Some(&b), Activation::Relu, &mut ours);
        reference::local_forward(&s, n, &x, &w, Some(&b), Activation::Relu, &mut theirs);
        assert_same(&ours, &theirs, &format!("local forward, {name}, {s:?}"));
        let (mut ours, mut theirs) = (vec![7.0; n * s.input_len()], vec![7.0; n * s.input_len()]);
        local.backward_data(n, &g, &w, Some(&x), &mut ours);
        reference::local_backward_data(&s, n, &g, &w, Some(&x), &mut theirs);
        assert_same(&ours, &theirs, &format!("local backward data, {name}, {s:?}"));
        let (mut ours, mut our_bias) = (vec![7.0; local.weights_len()], vec![7.0; s.output_len()]);
        let (mut theirs, mut their_bias) = (vec![7.0; local.weights_len()], vec![7.0; s.output_len()]);
        local.backward_weights(n, &x, &g, &mut ours, Some(&mut our_bias));
        reference::local_backward_weights(&s, n, &x, &g, &mut theirs, Some(&mut their_bias));
        assert_same(&ours, &theirs, &format!("local backward weights, {name}, {s:?}"));
        assert_same(&our_bias, &their_bias, &format!("local backward bias, {name}, {s:?}"));
    }
}
