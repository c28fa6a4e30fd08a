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

    /// What so many steps fetch, to be asked for bit by bit over so many rounds of a kernel: all at once it waits for
    /// itself, since a processor keeps track of only some 16 lines that are on their way. (28x28x32 -> 32 k3 within a
    /// step of M, Sapphire Rapids: backward data 5.86 ms all at once before each tile, 5.55 spread; forward the same.)
    pub(super) fn next(&mut self, steps: usize, rounds: usize) -> Fetch {
        for (start, len) in &mut self.pieces {
            let now = (steps * self.step).min(*len);
            if now > 0 {
                let from = *start;
                *start = start.wrapping_add(now);
                *len -= now;
                // A line each round; a short kernel has no time for all of it.
                let at_once = now.saturating_sub(16 * rounds);
                prefetch(from, at_once);
                let step = (4 * (now - at_once)).div_ceil(rounds.max(1));
                return Fetch { at: from.wrapping_add(at_once).cast(), step };
            }
        }
        Fetch::NOTHING
    }
}

/// Memory that a kernel asks for on its way.
#[derive(Clone, Copy)]
pub(super) struct Fetch {
    at: *const u8,
    /// Bytes from one round to the next. Several rounds may ask for one line.
    step: usize,
}

/// What is fetched where there is nothing to fetch.
static NOTHING: u8 = 0;

impl Fetch {
    pub(super) const NOTHING: Fetch = Fetch { at: &raw const NOTHING, step: 0 };

    /// One round.
    #[inline(always)]
    pub(super) fn go(&mut self) {
        ask(self.at);
        self.at = self.at.wrapping_add(self.step);
    }
}

/// Asks for `len` values to be brought into the second-level cache, at once.
pub(super) fn prefetch(start: *const f32, len: usize) {
    for at in (0..len).step_by(16) {
        ask(start.wrapping_add(at).cast());
    }
}

/// Asks for the cache line at an address, where the processor can be asked.
#[inline(always)]
fn ask(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch touches nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}
