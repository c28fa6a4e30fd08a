//! Memory for activations and panels, aligned to cache lines.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

/// Bytes of a cache line and of the widest vector: a vector that straddles two lines costs two loads.
const ALIGN: usize = 64;

/// A slice of f32 that starts on a cache line. Allocate once, keep for the run.
pub struct Buffer {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: a `Buffer` owns its memory, as a `Vec<f32>` does.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// So many zeros.
    pub fn zeros(len: usize) -> Buffer {
        if len == 0 {
            return Buffer { start: NonNull::dangling(), len };
        }
        let layout = Buffer::layout(len);
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) }.cast::<f32>();
        Buffer { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), len }
    }

    fn layout(len: usize) -> Layout {
        let bytes = len.checked_mul(size_of::<f32>()).and_then(|bytes| Layout::from_size_align(bytes, ALIGN).ok());
        bytes.unwrap_or_else(|| panic!("a buffer of {len} values is too large"))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated with this layout and not freed before.
            unsafe { dealloc(self.start.as_ptr().cast(), Buffer::layout(self.len)) };
        }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Buffer {
        let mut copy = Buffer::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::zeros(0)
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `start` is good for `len` initialised values.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and nobody else holds it.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_cloned() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let mut buffer = Buffer::zeros(len);
            assert!(buffer.iter().all(|&x| x == 0.0) && buffer.len() == len);
            assert!(len == 0 || buffer.as_ptr().addr().is_multiple_of(64));
            buffer.fill(2.0);
            assert_eq!(&buffer.clone()[..], &vec![2.0; len][..]);
        }
    }
}
