//! Pixels that see the same taps, and the runs of values that their chains go over.
//!
//! A pixel near the edge sees fewer taps. Instead of multiplying by a halo of zeros, target pixels are sorted into
//! *classes*: rows that see the same kernel rows, times columns that see the same kernel columns (nine classes for a
//! 3x3 kernel). All pixels of a class share one list of runs, so any of them can stand together in a register tile:
//! next to each other, in different rows, or in different images. Strides, dilations and transposed convolutions only
//! change the classes.

use std::ops::Range;

use crate::engine::kernel::Run;
use crate::engine::reference::shape::{Axis, ConvShape};

/// Target indices along one axis that see the same taps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AxisClass {
    /// First target index, and from one to the next.
    pub(super) target: usize,
    pub(super) target_step: usize,
    /// The source index that the taps of the first target index are counted from; may lie outside.
    pub(super) source: isize,
    pub(super) source_step: usize,
    pub(super) count: usize,
    /// Kernel index and source index, counted from `source`, of each tap, sources ascending.
    pub(super) taps: Vec<(usize, isize)>,
}

impl AxisClass {
    /// Which of its members have a target in `targets`.
    pub(super) fn members(&self, targets: &Range<usize>) -> Range<usize> {
        let before = |end: usize| end.saturating_sub(self.target).div_ceil(self.target_step).min(self.count);
        before(targets.start)..before(targets.end)
    }
}

/// The classes of one axis, from input to output (a forward pass).
pub(super) fn forward(axis: Axis) -> Vec<AxisClass> {
    let mut classes: Vec<AxisClass> = Vec::new();
    for o in 0..axis.len_out {
        let taps: Vec<_> = (0..axis.kernel)
            .filter(|&k| axis.input(o, k).is_some())
            .map(|k| (k, (k * axis.dilation) as isize - axis.pad as isize))
            .collect();
        match classes.last_mut() {
            Some(class) if class.taps == taps => class.count += 1,
            _ => classes.push(AxisClass {
                target: o,
                target_step: 1,
                source: (o * axis.stride) as isize,
                source_step: axis.stride,
                count: 1,
                taps,
            }),
        }
    }
    classes
}

/// The classes of one axis, from output to input (a backward pass): one set for each phase of the stride.
pub(super) fn backward(axis: Axis) -> Vec<AxisClass> {
    let mut classes: Vec<AxisClass> = Vec::new();
    for phase in 0..axis.stride {
        let mut last: Option<usize> = None;
        for i in (phase..axis.len_in).step_by(axis.stride) {
            let base = (i / axis.stride) as isize;
            let taps: Vec<_> = (0..axis.kernel)
                .rev()
                .filter_map(|k| {
                    let o = (i + axis.pad).checked_sub(k * axis.dilation)?;
                    let is_tap = o.is_multiple_of(axis.stride) && o / axis.stride < axis.len_out;
                    is_tap.then_some((k, (o / axis.stride) as isize - base))
                })
                .collect();
            match last {
                Some(at) if classes[at].taps == taps => classes[at].count += 1,
                _ => {
                    last = Some(classes.len());
                    let class =
                        AxisClass { target: i, target_step: axis.stride, source: base, source_step: 1, count: 1, taps };
                    classes.push(class);
                }
            }
        }
    }
    classes
}

/// Rows times columns that see the same taps.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) rows: AxisClass,
    pub(super) columns: AxisClass,
    pub(super) runs: Vec<Run>,
}

/// All classes of one direction. `is_forward` says which; `depth` is the source channels of a group.
pub(super) fn all(s: &ConvShape, is_forward: bool, depth: usize) -> Vec<Class> {
    let axes = [Axis::rows(s), Axis::columns(s)];
    let [rows, columns] = if is_forward { axes.map(forward) } else { axes.map(backward) };
    let (width, channels) = if is_forward { (s.width, s.channels_in) } else { (s.width_out(), s.filters) };
    let n_taps = s.kernel_h * s.kernel_w;
    let mut classes = Vec::new();
    for row in &rows {
        for column in &columns {
            let mut runs: Vec<Run> = Vec::new();
            for &(kh, r) in &row.taps {
                for &(kw, c) in &column.taps {
                    let tap = kh * s.kernel_w + kw;
                    // The backward panel holds the taps in the order of its chains: descending.
                    let tap = if is_forward { tap } else { n_taps - 1 - tap };
                    let run = Run { x: (r * width as isize + c) * channels as isize, row: tap * depth, len: depth };
                    match runs.last_mut() {
                        Some(last) if last.x + last.len as isize == run.x && last.row + last.len == run.row => {
                            last.len += run.len;
                        }
                        _ => runs.push(run),
                    }
                }
            }
            classes.push(Class { rows: row.clone(), columns: column.clone(), runs });
        }
    }
    // Longest chains first: threads then end together.
    classes.sort_by_key(|class| std::cmp::Reverse(class.rows.count * class.columns.count));
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes() -> Vec<Axis> {
        let mut axes = Vec::new();
        for len_in in [1, 2, 5, 8] {
            for kernel in [1, 2, 3, 5] {
                for stride in [1, 2, 3] {
                    for dilation in [1, 2] {
                        for pad in [0, 1, 2, 4] {
                            let span = dilation * (kernel - 1) + 1;
                            if len_in + 2 * pad >= span {
                                let len_out = (len_in + 2 * pad - span) / stride + 1;
                                axes.push(Axis { len_in, len_out, kernel, stride, dilation, pad });
                            }
                        }
                    }
                }
            }
        }
        axes
    }

    #[test]
    fn each_target_is_in_one_class_with_all_its_taps() {
        for axis in axes() {
            for is_forward in [true, false] {
                let classes = if is_forward { forward(axis) } else { backward(axis) };
                let mut seen = Vec::new();
                for class in &classes {
                    for member in 0..class.count {
                        let target = class.target + member * class.target_step;
                        let base = class.source + (member * class.source_step) as isize;
                        let pairs = class.taps.iter().map(|&(k, rel)| (k, (base + rel) as usize));
                        for (k, source) in pairs.clone() {
                            let (i, o) = if is_forward { (source, target) } else { (target, source) };
                            assert_eq!(axis.input(o, k), Some(i), "{axis:?}");
                        }
                        let sources: Vec<usize> = pairs.map(|(_, source)| source).collect();
                        assert!(sources.is_sorted(), "{axis:?}");
                        seen.push((target, sources.len()));
                    }
                }
                seen.sort_unstable();
                let targets = if is_forward { axis.len_out } else { axis.len_in };
                assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), (0..targets).collect::<Vec<_>>());
                let all_taps = (0..axis.len_out)
                    .map(|o| (0..axis.kernel).filter(|&k| axis.input(o, k).is_some()).count())
                    .sum::<usize>();
                assert_eq!(seen.iter().map(|s| s.1).sum::<usize>(), all_taps, "{axis:?}");
            }
        }
    }

    #[test]
    fn a_dense_kernel_makes_one_run_per_row() {
        let classes = all(&ConvShape::same(1, 9, 9, 4, 8, 3), true, 4);
        assert_eq!(classes.len(), 9);
        let run = |row: isize| Run { x: (row - 1) * 36 - 4, row: (row * 12) as usize, len: 12 };
        assert_eq!(classes[0].runs, [run(0), run(1), run(2)]);
    }
}
