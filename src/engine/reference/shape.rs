//! The shape of a convolution, and what follows from it alone: output size, taps, and how weight sums are cut.

use std::ops::Range;

/// The shape of a two-dimensional convolution of NHWC images. All lengths in pixels or channels.
///
/// # Shapes
/// - input: `[batch, height, width, channels_in]`
/// - weights: `[kernel_h, kernel_w, channels_in / groups, filters]`
/// - output: `[batch, height_out, width_out, filters]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// The most images of one call.
    pub batch: usize,
    /// Rows of an input image.
    pub height: usize,
    /// Columns of an input image.
    pub width: usize,
    /// Channels of an input image.
    pub channels_in: usize,
    /// Channels of the output, over all groups.
    pub filters: usize,
    /// Rows of the kernel.
    pub kernel_h: usize,
    /// Columns of the kernel.
    pub kernel_w: usize,
    /// Rows from one output pixel to the next.
    pub stride_h: usize,
    /// Columns from one output pixel to the next.
    pub stride_w: usize,
    /// Rows of nothing above the image. Taps that fall there are skipped, not multiplied by zero.
    pub pad_top: usize,
    /// Rows of nothing below the image.
    pub pad_bottom: usize,
    /// Columns of nothing to the left of the image.
    pub pad_left: usize,
    /// Columns of nothing to the right of the image.
    pub pad_right: usize,
    /// Rows from one tap to the next; 1 for a dense kernel.
    pub dilation_h: usize,
    /// Columns from one tap to the next.
    pub dilation_w: usize,
    /// Channels are cut into so many groups that do not see each other; 1 for a plain convolution,
    /// `channels_in` for a depthwise one.
    pub groups: usize,
}

/// Sums over samples are cut into at most so many chunks: enough for the threads of a large machine when a layer has
/// few weights, few enough that merging them costs nothing.
const MAX_CHUNKS: usize = 16;

/// A chunk sums at least so many pixels, or merging would show.
const MIN_PIXELS: usize = 512;

/// From so many weights on (256 KiB) there is one chunk: the weights themselves give every thread work, and 16 copies
/// of them would leave the caches.
const MAX_WEIGHTS: usize = 1 << 16;

/// How the sum over `n` samples of `pixels` products each is cut, for a gradient of `weights` values: samples per
/// chunk. A function of the shape and of `n` only, so that the bits never depend on threads or caches.
pub(in crate::engine) fn chunk_samples(n: usize, pixels: usize, weights: usize) -> usize {
    if weights >= MAX_WEIGHTS {
        return n.max(1);
    }
    let n_chunks = (n * pixels / MIN_PIXELS).clamp(1, MAX_CHUNKS);
    n.div_ceil(n_chunks).max(1)
}

/// Up to so many input channels (grey, RGB, RGBA), taps outside the image count as products with `+0.0`.
pub(in crate::engine) const HALO_CHANNELS: usize = 4;

/// Whether the weight gradient of this shape is defined on images with a halo of zeros.
pub(in crate::engine) fn has_halo(s: &ConvShape) -> bool {
    s.groups == 1 && s.channels_in <= HALO_CHANNELS && s.kernel_h * s.kernel_w > 1
}

impl ConvShape {
    /// The "same" convolution of stride 1 that leaves the image's size as it is (odd kernels pad alike on both sides).
    pub fn same(batch: usize, height: usize, width: usize, channels_in: usize, filters: usize, kernel: usize) -> Self {
        let before = (kernel - 1) / 2;
        let after = kernel - 1 - before;
        ConvShape {
            pad_top: before,
            pad_left: before,
            pad_bottom: after,
            pad_right: after,
            ..ConvShape::valid(batch, height, width, channels_in, filters, kernel)
        }
    }

    /// The convolution of stride 1 without padding.
    pub fn valid(batch: usize, height: usize, width: usize, channels_in: usize, filters: usize, kernel: usize) -> Self {
        ConvShape {
            batch,
            height,
            width,
            channels_in,
            filters,
            kernel_h: kernel,
            kernel_w: kernel,
            stride_h: 1,
            stride_w: 1,
            pad_top: 0,
            pad_bottom: 0,
            pad_left: 0,
            pad_right: 0,
            dilation_h: 1,
            dilation_w: 1,
            groups: 1,
        }
    }

    /// Rows of the output; 0 if the kernel does not fit.
    pub fn height_out(&self) -> usize {
        length_out(self.height + self.pad_top + self.pad_bottom, self.kernel_h, self.stride_h, self.dilation_h)
    }

    /// Columns of the output; 0 if the kernel does not fit.
    pub fn width_out(&self) -> usize {
        length_out(self.width + self.pad_left + self.pad_right, self.kernel_w, self.stride_w, self.dilation_w)
    }

    /// Values of one input image.
    pub fn input_len(&self) -> usize {
        self.height * self.width * self.channels_in
    }

    /// Values of one output image.
    pub fn output_len(&self) -> usize {
        self.height_out() * self.width_out() * self.filters
    }

    /// Values of the kernel.
    pub fn weights_len(&self) -> usize {
        self.kernel_h * self.kernel_w * self.group_in() * self.filters
    }

    /// Input channels that one filter sees.
    pub fn group_in(&self) -> usize {
        self.channels_in / self.groups
    }

    /// Filters of one group.
    pub fn group_out(&self) -> usize {
        self.filters / self.groups
    }

    /// Multiply-adds of one image, taps outside the image counted, as is the custom when FLOPs are quoted.
    pub fn multiply_adds(&self) -> u64 {
        (self.height_out() * self.width_out() * self.weights_len()) as u64
    }

    /// Samples in each chunk of a weight gradient over `n` images.
    pub(in crate::engine) fn chunk_images(&self, n: usize) -> usize {
        chunk_samples(n, self.height_out() * self.width_out(), self.weights_len())
    }

    /// # Panics
    /// If an axis is zero, the kernel does not fit, or the groups do not divide the channels.
    pub(in crate::engine) fn check(&self) {
        let lengths = [self.channels_in, self.filters, self.stride_h, self.stride_w, self.dilation_h, self.dilation_w];
        assert!(self.batch > 0 && self.groups > 0 && lengths.iter().all(|&l| l > 0), "an axis is zero: {self:?}");
        assert!(self.height_out() > 0 && self.width_out() > 0, "the kernel does not fit: {self:?}");
        assert!(
            self.channels_in.is_multiple_of(self.groups) && self.filters.is_multiple_of(self.groups),
            "groups do not divide the channels: {self:?}"
        );
    }
}

fn length_out(padded: usize, kernel: usize, stride: usize, dilation: usize) -> usize {
    let span = dilation * (kernel.max(1) - 1) + 1;
    if kernel == 0 || padded < span { 0 } else { (padded - span) / stride + 1 }
}

/// One axis of a convolution, for either axis.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Axis {
    pub(in crate::engine) len_in: usize,
    pub(in crate::engine) len_out: usize,
    pub(in crate::engine) kernel: usize,
    pub(in crate::engine) stride: usize,
    pub(in crate::engine) dilation: usize,
    pub(in crate::engine) pad: usize,
}

impl Axis {
    pub(in crate::engine) fn rows(s: &ConvShape) -> Axis {
        Axis {
            len_in: s.height,
            len_out: s.height_out(),
            kernel: s.kernel_h,
            stride: s.stride_h,
            dilation: s.dilation_h,
            pad: s.pad_top,
        }
    }

    pub(in crate::engine) fn columns(s: &ConvShape) -> Axis {
        Axis {
            len_in: s.width,
            len_out: s.width_out(),
            kernel: s.kernel_w,
            stride: s.stride_w,
            dilation: s.dilation_w,
            pad: s.pad_left,
        }
    }

    /// The input index that tap `k` of output `o` touches, if it lies inside.
    pub(in crate::engine) fn input(&self, o: usize, k: usize) -> Option<usize> {
        (o * self.stride + k * self.dilation).checked_sub(self.pad).filter(|&i| i < self.len_in)
    }

    /// The output indices whose tap `k` lies inside the image.
    pub(in crate::engine) fn outputs(&self, k: usize) -> Range<usize> {
        let reach = k * self.dilation;
        let start = self.pad.saturating_sub(reach).div_ceil(self.stride);
        let end = (self.len_in + self.pad).saturating_sub(reach).div_ceil(self.stride).min(self.len_out);
        start.min(end)..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_usual_formula() {
        let s = ConvShape { stride_h: 2, stride_w: 3, dilation_w: 2, ..ConvShape::valid(1, 9, 12, 3, 8, 3) };
        assert_eq!((s.height_out(), s.width_out()), (4, 3));
        let s = ConvShape::same(2, 29, 31, 3, 7, 4);
        assert_eq!((s.height_out(), s.width_out(), s.pad_top, s.pad_bottom), (29, 31, 1, 2));
        assert_eq!(ConvShape::valid(1, 2, 2, 1, 1, 3).height_out(), 0);
    }

    #[test]
    fn outputs_of_a_tap_are_those_whose_input_lies_inside() {
        for (len_in, kernel, stride, dilation, pad) in
            [(7, 3, 1, 1, 1), (5, 5, 2, 1, 2), (9, 3, 3, 2, 4), (2, 3, 1, 1, 1), (4, 2, 3, 3, 5)]
        {
            let len_out = length_out(len_in + 2 * pad, kernel, stride, dilation);
            let axis = Axis { len_in, len_out, kernel, stride, dilation, pad };
            for k in 0..kernel {
                let by_hand: Vec<usize> = (0..len_out).filter(|&o| axis.input(o, k).is_some()).collect();
                assert_eq!(axis.outputs(k).collect::<Vec<_>>(), by_hand, "{axis:?}, tap {k}");
            }
        }
    }

    #[test]
    fn chunks_depend_on_the_shape_only_and_cover_the_batch() {
        assert_eq!(chunk_samples(64, 784, 9 * 32 * 64), 4);
        assert_eq!(chunk_samples(64, 1, 1000), 64);
        assert_eq!(chunk_samples(128, 64, 9 * 256 * 256), 128);
        assert_eq!(chunk_samples(1, 784, 288), 1);
    }
}
