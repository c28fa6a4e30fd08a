//! L-BFGS: a quasi-Newton method that looks at all samples at once, for small problems.

use std::sync::Arc;

use super::{Kind, OptimizerConfig, Update};
use crate::config::Section;
use crate::engine::{self, Buffer, Engine};

pub(super) const KIND: Kind = Kind {
    word: "lbfgs",
    meaning: "A quasi-Newton method over all samples at once, for small problems.",
    read: |section| Arc::new(Lbfgs::read(section)),
};

/// Limited-memory BFGS (Liu and Nocedal 1989) with a line search for the strong Wolfe conditions, as PyTorch has it.
///
/// An iteration goes along `d = -H g`, where H is an estimate of the inverse Hessian from the last `history` pairs of
/// steps `s` and differences of gradients `y` (the two loops of Nocedal 1980, starting from `s·y / y·y`). The step
/// length `t` meets `f(x + t d) <= f(x) + 1e-4 t g·d` and `|g(x + t d)·d| <= 0.9 |g·d|`; the first length tried is 1,
/// or `min(1, 1 / |g|₁)` without a pair. A pair with `s·y <= 1e-10` is not kept. Nothing moves where the largest
/// gradient is at most 1e-7.
///
/// The loss is that of all training samples, and includes L2. An epoch is one iteration: one pass over the samples for
/// each length tried, most often one or two.
#[derive(Clone, Debug, PartialEq)]
pub struct Lbfgs {
    /// Pairs that are remembered, from 1 to 1,000, default 10. Each takes twice the memory of the weights.
    pub history: usize,
    /// Lengths tried in one iteration at most, from 1 to 1,000, default 25.
    pub line_search: usize,
}

impl Default for Lbfgs {
    fn default() -> Lbfgs {
        Lbfgs { history: 10, line_search: 25 }
    }
}

impl Lbfgs {
    /// Reads `history`, `line_search`.
    pub fn read(section: &mut Section<'_>) -> Lbfgs {
        Lbfgs {
            history: section
                .key("history", "Pairs of steps and gradients that are remembered.", "20")
                .whole(1..=1_000)
                .or(10) as usize,
            line_search: section
                .key("line_search", "Step lengths tried in one iteration at most.", "10")
                .whole(1..=1_000)
                .or(25) as usize,
        }
    }
}

impl OptimizerConfig for Lbfgs {
    fn word(&self) -> &'static str {
        "lbfgs"
    }

    /// The steps, the oldest first, then the differences of gradients; those that are not there yet are 0.
    fn n_moments(&self) -> usize {
        2 * self.history
    }

    fn full_batch(&self) -> Option<&Lbfgs> {
        Some(self)
    }

    fn update(&self, _: Update<'_>, _: &mut [&mut [f32]]) {
        panic!("L-BFGS moves all tensors at once, from the gradient of all samples");
    }
}

/// What is minimised.
pub(in crate::nn) trait Objective {
    /// What is known of a point besides its loss.
    type Seen: Clone;

    /// The loss at `point`, infinite where it is no number; writes its gradient.
    fn evaluate(&mut self, point: &[f32], gradient: &mut [f32]) -> (f64, Self::Seen);
}

/// A point that has been evaluated.
#[derive(Clone, Debug)]
pub(in crate::nn) struct Evaluated<S> {
    /// The loss there.
    pub loss: f64,
    /// Its gradient.
    pub gradient: Vec<f32>,
    /// What else the objective saw.
    pub seen: S,
}

const ARMIJO: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
const LEAST_GRADIENT: f64 = 1e-7;
const LEAST_CURVATURE: f64 = 1e-10;
const LEAST_CHANGE: f64 = 1e-9;

impl Lbfgs {
    /// One iteration: moves `point`, where `here` is what is known of it, and returns what is known of the new one and
    /// the step length (0 where nothing moved).
    ///
    /// # Shapes
    /// - `moments`: [`OptimizerConfig::n_moments`] tensors as long as `point`
    ///
    /// # Determinism
    /// Sums are the engine's; everything else is element by element.
    pub(in crate::nn) fn iterate<O: Objective>(
        &self,
        engine: &Engine,
        objective: &mut O,
        point: &mut [f32],
        here: &Evaluated<O::Seen>,
        moments: &mut [Buffer],
    ) -> (Evaluated<O::Seen>, f64) {
        let dot = |a: &[f32], b: &[f32]| engine::dot(engine, a, b);
        let (steps, changes) = moments.split_at_mut(self.history);
        let largest = here.gradient.iter().fold(0.0f32, |most, g| most.max(g.abs()));
        if !here.loss.is_finite() || f64::from(largest) <= LEAST_GRADIENT {
            return (here.clone(), 0.0);
        }
        let curvatures: Vec<f64> = steps.iter().zip(&*changes).map(|(s, y)| dot(s, y)).collect();
        let first = curvatures.iter().position(|&sy| sy > 0.0).unwrap_or(self.history);
        let mut direction: Vec<f32> = here.gradient.iter().map(|g| -g).collect();
        let mut shares = vec![0.0; self.history];
        for i in (first..self.history).rev() {
            shares[i] = dot(&steps[i], &direction) / curvatures[i];
            add_scaled(&mut direction, -shares[i], &changes[i]);
        }
        if first < self.history {
            let newest = &changes[self.history - 1];
            let scale = curvatures[self.history - 1] / dot(newest, newest);
            direction.iter_mut().for_each(|d| *d = (f64::from(*d) * scale) as f32);
        }
        for i in first..self.history {
            let share = shares[i] - dot(&changes[i], &direction) / curvatures[i];
            add_scaled(&mut direction, share, &steps[i]);
        }
        let slope = dot(&here.gradient, &direction);
        if slope > -LEAST_CHANGE {
            return (here.clone(), 0.0);
        }
        let length = if first < self.history { 1.0 } else { 1.0f64.min(1.0 / sum_of_magnitudes(&here.gradient)) };
        let start = point.to_vec();
        let mut candidate = point.to_vec();
        let mut along = |t: f64| {
            for ((x, x0), d) in candidate.iter_mut().zip(&start).zip(&direction) {
                *x = (f64::from(*x0) + t * f64::from(*d)) as f32;
            }
            let mut gradient = vec![0.0; candidate.len()];
            let (loss, seen) = objective.evaluate(&candidate, &mut gradient);
            let slope = dot(&gradient, &direction);
            Tried { t, loss, slope, at: Evaluated { loss, gradient, seen } }
        };
        let origin = Tried { t: 0.0, loss: here.loss, slope, at: here.clone() };
        let widest = direction.iter().fold(0.0f32, |most, d| most.max(d.abs()));
        let found = search(&mut along, origin, length, f64::from(widest), self.line_search);
        if found.t == 0.0 {
            return (found.at, 0.0);
        }
        for ((x, x0), d) in point.iter_mut().zip(&start).zip(&direction) {
            *x = (f64::from(*x0) + found.t * f64::from(*d)) as f32;
        }
        steps.rotate_left(1);
        changes.rotate_left(1);
        let (step, change) = (&mut steps[self.history - 1], &mut changes[self.history - 1]);
        for ((s, x), x0) in step.iter_mut().zip(&*point).zip(&start) {
            *s = x - x0;
        }
        for ((y, g), g0) in change.iter_mut().zip(&found.at.gradient).zip(&here.gradient) {
            *y = g - g0;
        }
        if dot(step, change) <= LEAST_CURVATURE {
            // The oldest pair is gone, which costs little; this one says nothing of the curvature.
            step.fill(0.0);
            change.fill(0.0);
            steps.rotate_right(1);
            changes.rotate_right(1);
        }
        (found.at, found.t)
    }
}

/// A step length that was tried.
#[derive(Clone)]
struct Tried<S> {
    t: f64,
    loss: f64,
    slope: f64,
    at: Evaluated<S>,
}

/// A step length that meets the strong Wolfe conditions (Nocedal and Wright 2006, algorithms 3.5 and 3.6, with the
/// safeguards of PyTorch), or the best of those tried.
fn search<S: Clone>(
    along: &mut dyn FnMut(f64) -> Tried<S>,
    origin: Tried<S>,
    length: f64,
    widest: f64,
    most: usize,
) -> Tried<S> {
    let (loss, slope) = (origin.loss, origin.slope);
    let falls_short = |tried: &Tried<S>| tried.loss > loss + ARMIJO * tried.t * slope;
    let is_flat = |tried: &Tried<S>| tried.slope.abs() <= -CURVATURE * slope;
    let mut n_tried = 0;
    let mut before = origin.clone();
    let mut new = along(length);
    // Lengths grow until a good one lies between two of them.
    let mut bracket = loop {
        if n_tried == most {
            break [origin, new];
        }
        if falls_short(&new) || n_tried > 1 && new.loss >= before.loss {
            break [before, new];
        }
        if is_flat(&new) {
            return new;
        }
        if new.slope >= 0.0 {
            break [before, new];
        }
        let bounds = (new.t + 0.01 * (new.t - before.t), new.t * 10.0);
        let t = cubic_minimum(&before, &new, bounds);
        before = new;
        new = along(t);
        n_tried += 1;
    };
    // The two close in on it; `low` is the better one.
    let mut low = usize::from(bracket[0].loss > bracket[1].loss);
    let mut is_stuck = false;
    while n_tried < most {
        let (least, greatest) = (bracket[0].t.min(bracket[1].t), bracket[0].t.max(bracket[1].t));
        if (greatest - least) * widest < LEAST_CHANGE {
            break;
        }
        let mut t = cubic_minimum(&bracket[0], &bracket[1], (least, greatest));
        let margin = 0.1 * (greatest - least);
        if (greatest - t).min(t - least) < margin {
            // Twice near an end, or at it: a step inside.
            if is_stuck || t >= greatest || t <= least {
                t = if (t - greatest).abs() < (t - least).abs() { greatest - margin } else { least + margin };
                is_stuck = false;
            } else {
                is_stuck = true;
            }
        } else {
            is_stuck = false;
        }
        let new = along(t);
        n_tried += 1;
        if falls_short(&new) || new.loss >= bracket[low].loss {
            bracket[1 - low] = new;
            low = usize::from(bracket[0].loss > bracket[1].loss);
        } else {
            let is_done = is_flat(&new);
            if !is_done && new.slope * (bracket[1 - low].t - bracket[low].t) >= 0.0 {
                bracket[1 - low] = bracket[low].clone();
            }
            bracket[low] = new;
            if is_done {
                break;
            }
        }
    }
    let [a, b] = bracket;
    if low == 0 { a } else { b }
}

/// Where the cubic through two points, with their slopes, is least, within `bounds`; their middle if it has no minimum.
fn cubic_minimum<S>(a: &Tried<S>, b: &Tried<S>, (least, greatest): (f64, f64)) -> f64 {
    let (a, b) = if a.t <= b.t { (a, b) } else { (b, a) };
    let d1 = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.t - b.t);
    let square = d1 * d1 - a.slope * b.slope;
    let t = b.t - (b.t - a.t) * ((b.slope + square.sqrt() - d1) / (b.slope - a.slope + 2.0 * square.sqrt()));
    // Not a number where the square is below 0, or a loss is infinite.
    if t.is_finite() { t.max(least).min(greatest) } else { (least + greatest) * 0.5 }
}

fn add_scaled(to: &mut [f32], scale: f64, values: &[f32]) {
    for (x, v) in to.iter_mut().zip(values) {
        *x = (f64::from(*x) + scale * f64::from(*v)) as f32;
    }
}

fn sum_of_magnitudes(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |sum, x| sum + f64::from(x.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rosenbrock's function in pairs of coordinates, and how often it was asked.
    struct Valley(usize);

    impl Objective for Valley {
        type Seen = ();

        fn evaluate(&mut self, point: &[f32], gradient: &mut [f32]) -> (f64, ()) {
            self.0 += 1;
            let mut loss = 0.0;
            for (x, g) in point.chunks_exact(2).zip(gradient.chunks_exact_mut(2)) {
                let (a, b) = (f64::from(x[0]), f64::from(x[1]));
                loss += (1.0 - a) * (1.0 - a) + 100.0 * (b - a * a) * (b - a * a);
                g[0] = (-2.0 * (1.0 - a) - 400.0 * a * (b - a * a)) as f32;
                g[1] = (200.0 * (b - a * a)) as f32;
            }
            (if loss.is_finite() { loss } else { f64::INFINITY }, ())
        }
    }

    #[test]
    fn it_comes_through_rosenbrocks_valley() {
        let config = Lbfgs { history: 5, ..Lbfgs::default() };
        let engine = Engine::new(1);
        let mut point: Vec<f32> = (0..8).map(|i| if i % 2 == 0 { -1.2 - 0.1 * i as f32 } else { 1.0 }).collect();
        let mut moments: Vec<Buffer> = (0..10).map(|_| Buffer::zeros(8)).collect();
        let mut valley = Valley(0);
        let mut gradient = vec![0.0; 8];
        let (loss, seen) = valley.evaluate(&point, &mut gradient);
        let mut here = Evaluated { loss, gradient, seen };
        for _ in 0..300 {
            let (next, length) = config.iterate(&engine, &mut valley, &mut point, &here, &mut moments);
            assert!(next.loss <= here.loss && length >= 0.0);
            here = next;
        }
        // Points are f32, which leaves little to see of a valley as flat as this one's end.
        assert!(here.loss < 1e-6, "{} after {} evaluations, at {point:?}", here.loss, valley.0);
        assert!(valley.0 < 600, "{} evaluations", valley.0);
    }

    #[test]
    fn a_step_into_nothing_is_shortened() {
        /// A logarithm's end: infinite from 1 on.
        struct Wall;
        impl Objective for Wall {
            type Seen = ();
            fn evaluate(&mut self, point: &[f32], gradient: &mut [f32]) -> (f64, ()) {
                let x = f64::from(point[0]);
                gradient[0] = if x < 1.0 { (x - 0.999) as f32 * 40.0 } else { f32::NAN };
                (if x < 1.0 { 20.0 * (x - 0.999) * (x - 0.999) } else { f64::INFINITY }, ())
            }
        }
        let engine = Engine::new(1);
        let (mut point, mut moments) = (vec![0.9], vec![Buffer::zeros(1), Buffer::zeros(1)]);
        let mut gradient = vec![0.0];
        let (loss, seen) = Wall.evaluate(&point, &mut gradient);
        let mut here = Evaluated { loss, gradient, seen };
        for _ in 0..20 {
            here =
                Lbfgs { history: 1, ..Lbfgs::default() }.iterate(&engine, &mut Wall, &mut point, &here, &mut moments).0;
        }
        assert!((point[0] - 0.999).abs() < 1e-5, "{point:?}");
    }
}
