//! What a pass does with parts of its operands while the cache has them, on behalf of the layer before or after it.

use std::ops::Range;

/// Told, in the middle of a pass, which pixels of the target are complete.
pub(super) trait Watch: Sync {
    /// `values` are all pixels that this worker has completed in this pass, from pixel `first` on, the last `new` of them
    /// just now. The target's rows are whole. Nobody else touches them meanwhile, and `worker` is nobody else's number.
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
