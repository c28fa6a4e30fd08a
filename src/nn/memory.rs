//! Memory of a network: slices of f32 that begin at a cache line, allocated once.

use std::ops::{Deref, DerefMut};

use super::layer::ALIGN;

/// Zeros that begin at a multiple of 64 bytes.
pub(super) struct Aligned {
    data: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub fn zeros(len: usize) -> Aligned {
        let data = vec![0.0f32; len + ALIGN - 1];
        // How many values the allocation lies before the next cache line; 0 if it cannot be told.
        let start = data.as_ptr().align_offset(ALIGN * size_of::<f32>()).min(ALIGN - 1);
        Aligned { data, start, len }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[self.start..][..self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.start..][..self.len]
    }
}

impl Clone for Aligned {
    fn clone(&self) -> Aligned {
        let mut copy = Aligned::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}
