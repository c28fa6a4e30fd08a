//! Dense arithmetic and the sums: the only room that knows caches, lanes and threads.
//!
//! Start at [`Engine`] (instruction set and worker pool), then [`Conv`] and [`Dense`] (layers as plans: made once from
//! a shape, then called with slices). Activations are NHWC, kernels `[kernel_h, kernel_w, channels_in, filters]`, dense
//! weights `[inputs, units]`; whatever is packed or blocked differently stays in here.
//!
//! The same bits come out for any number of threads and any instruction set. [`reference`] is the definition: naive
//! loops in the canonical order. The kernels may cut and resume its chains, never reorder them.

mod activation;
mod affine;
mod ahead;
mod buffer;
mod bytes;
mod cache;
mod conv;
mod dense;
pub(crate) mod double;
mod fused;
mod gram;
mod isa;
#[expect(clippy::needless_range_loop, reason = "register tiles are arrays of vectors, walked by index in step")]
mod kernel;
mod local;
mod matrix;
mod norm;
mod panels;
mod pooling;
mod prefetch;
pub mod reference;
#[expect(clippy::needless_range_loop, reason = "lanes of several vectors are walked by index in step")]
mod simd;
mod softmax;
mod sparse;
mod sums;
pub(crate) mod symmetric;
#[cfg(test)]
mod tests;
mod threads;
mod update;
mod versions;

pub use activation::{Pointwise, activate};
pub use buffer::Buffer;
pub use bytes::ByteProducts;
pub use cache::Caches;
pub use conv::{Algorithm, BackwardData, Conv, Forward, GradOutput, Input};
pub use dense::{Dense, matmul};
pub use gram::gram;
pub use isa::Isa;
pub use local::LocalConv;
pub use matrix::Matrix;
pub use norm::{BatchNorm, GradientSums, InputGradient, Normalised};
pub use pooling::{
    PoolShape, average_pool, average_pool_backward, channel_means, channel_means_backward, max_pool, max_pool_backward,
};
pub use reference::{Activation, ConvShape};
pub use softmax::{BatchLoss, LossOptions, LossScratch, Targets, softmax, softmax_cross_entropy};
pub use sums::sum_of_squares;
pub use threads::{Engine, Stopped, stoppable};
pub use update::{AdamStep, RmsPropStep, UpdateStep, adagrad, adam, rmsprop, sgd};

pub(crate) use activation::{activate_backward, copy, mask_and_scale, mask_and_scale_in_place};
pub(crate) use affine::{AffineRun, affine, affine_in_place};
pub(crate) use bytes::ByteMoments;
pub(crate) use prefetch::prefetch;
pub(crate) use sums::{dot, sum_of_squared_differences, zero_lanes};
