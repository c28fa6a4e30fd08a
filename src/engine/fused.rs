//! What a pass does with parts of its operands while the cache has them, on behalf of the layer before or after it.

use std::ops::Range;

use super::Engine;
use super::threads::Shares;

/// Told, in the middle of a pass, which pixels of the target are complete.
pub(super) trait Watch: Sync {
    /// `values` are all pixels that this worker has completed in this pass, from pixel `first` on, the last `new` of
    /// them just now. The target's rows are whole. Nobody else touches them meanwhile, and `worker` is nobody else's
    /// number.
    fn completed(&self, first: usize, new: usize, values: &mut [f32], worker: usize);

    /// What it reads when those values of the target are complete, to be fetched ahead.
    fn reads(&self, values: Range<usize>) -> (*const f32, usize);
}

/// Makes an operand of a pass, image by image, when the pass is about to read it.
pub(super) trait Prepare: Sync {
    /// Writes some images of the operand, which begins at `to`.
    ///
    /// # Safety
    /// The operand has room for them, and nobody else touches those images.
    unsafe fn prepare(&self, images: Range<usize>, to: *mut f32, worker: usize);

    /// What most of the time is spent waiting for when those images are made, to be fetched ahead.
    fn reads(&self, images: Range<usize>) -> (*const f32, usize);
}

/// Where an operand of a pass comes from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    start: Shares<f32>,
    len: usize,
    /// Who makes it, image by image, where it is not there yet.
    pub(super) by: Option<&'a dyn Prepare>,
}

impl<'a> Source<'a> {
    pub(super) fn given(values: &'a [f32]) -> Source<'a> {
        Source { start: Shares(values.as_ptr().cast_mut()), len: values.len(), by: None }
    }

    pub(super) fn made(by: &'a dyn Prepare, into: &'a mut [f32]) -> Source<'a> {
        Source { start: Shares(into.as_mut_ptr()), len: into.len(), by: Some(by) }
    }

    /// Where it starts; it is checked that it is so long.
    pub(super) fn start(&self, len: usize) -> Shares<f32> {
        assert!(self.len >= len, "an operand has {} values, of {len}", self.len);
        self.start
    }

    /// Makes all of it, for a pass that does not go image by image.
    pub(super) fn make(&mut self, engine: &Engine, n: usize) {
        let Some(by) = self.by.take() else { return };
        let start = self.start;
        engine.parallel_for(n, |images, worker| {
            // SAFETY: images are disjoint, and whoever asks has checked that there is room for them.
            unsafe { by.prepare(images, start.get(), worker) };
        });
    }
}
