//! Fetching memory before it is needed.

/// Memory that the next block of work will touch, brought into the second-level cache bit by bit while this block is
/// worked on: the processor's own prefetchers see tiles that jump about, and guess wrong.
pub(super) struct Ahead<const N: usize> {
    /// Start and values of each piece that is left.
    pieces: [(*const f32, usize); N],
    /// Values per step.
    step: usize,
}

impl<const N: usize> Ahead<N> {
    /// Spreads the pieces over so many steps.
    pub(super) fn new(pieces: [(*const f32, usize); N], steps: usize) -> Ahead<N> {
        let len: usize = pieces.iter().map(|p| p.1).sum();
        Ahead { pieces, step: len.div_ceil(steps.max(1)).next_multiple_of(16) }
    }

    /// Asks for the next part.
    pub(super) fn step(&mut self) {
        let mut left = self.step;
        for (start, len) in &mut self.pieces {
            let now = left.min(*len);
            prefetch(*start, now);
            *start = start.wrapping_add(now);
            *len -= now;
            left -= now;
        }
    }
}

/// Asks for `len` values to be brought into the second-level cache.
pub(super) fn prefetch(start: *const f32, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for at in (0..len).step_by(16) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch touches nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(at).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (start, len);
}
