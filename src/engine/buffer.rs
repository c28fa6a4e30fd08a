//! Memory for activations and panels, aligned to cache lines.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use memmap2::MmapMut;

/// Bytes of a cache line and of the widest vector: a vector that straddles two lines costs two loads.
const ALIGN: usize = 64;

/// Bytes of a huge page. Activations are swept whole, pass by pass: with pages of 4 KiB every few rows miss the buffer
/// of address translations, which costs most in a virtual machine (Sapphire Rapids under KVM, 1 thread, images/s
/// without and with huge pages: MBN on 32x32x3 769 and 837, L 172 and 180).
const HUGE: usize = 2 << 20;

/// A slice of f32 that starts on a cache line. Allocate once, keep for the run.
pub struct Buffer {
    start: NonNull<f32>,
    len: usize,
    /// What the values lie in, where they have pages of their own.
    pages: Option<MmapMut>,
}

// SAFETY: a `Buffer` owns its memory, as a `Vec<f32>` does.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// So many zeros.
    pub fn zeros(len: usize) -> Buffer {
        if len == 0 {
            return Buffer { start: NonNull::dangling(), len, pages: None };
        }
        let layout = Buffer::layout(len);
        if let Some((start, pages)) = Buffer::on_huge_pages(layout.size()) {
            return Buffer { start, len, pages: Some(pages) };
        }
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) }.cast::<f32>();
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Buffer { start, len, pages: None }
    }

    /// Zeros that start on a huge page, and the system asked to use such pages; what does not fill one stays on small
    /// pages. `None` for what is too small to gain, and where the system has none.
    fn on_huge_pages(bytes: usize) -> Option<(NonNull<f32>, MmapMut)> {
        #[cfg(all(target_os = "linux", not(miri)))]
        if bytes >= HUGE {
            let mut pages = MmapMut::map_anon(bytes.checked_add(HUGE)?).ok()?;
            let before = pages.as_ptr().align_offset(HUGE);
            // A system without huge pages says no, and all is as well on small ones.
            let _ = pages.advise_range(memmap2::Advice::HugePage, before, bytes / HUGE * HUGE);
            let start = NonNull::new(pages[before..].as_mut_ptr().cast())?;
            return Some((start, pages));
        }
        let _ = bytes;
        None
    }

    fn layout(len: usize) -> Layout {
        let bytes = len.checked_mul(size_of::<f32>()).and_then(|bytes| Layout::from_size_align(bytes, ALIGN).ok());
        bytes.unwrap_or_else(|| panic!("a buffer of {len} values is too large"))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 && self.pages.is_none() {
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
        for len in [0, 1, 15, 16, 17, 1000, HUGE / 4 - 1, HUGE / 4, HUGE / 2 + 17] {
            let mut buffer = Buffer::zeros(len);
            assert!(buffer.iter().all(|&x| x == 0.0) && buffer.len() == len);
            assert!(len == 0 || buffer.as_ptr().addr().is_multiple_of(64));
            buffer.fill(2.0);
            assert_eq!(&buffer.clone()[..], &vec![2.0; len][..]);
        }
    }
}
