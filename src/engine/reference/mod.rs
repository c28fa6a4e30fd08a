//! The definition: naive scalar loops in the canonical order. Every kernel gives these bits, and the tests hold it to
//! that.
//!
//! It stands at the bottom of the room and knows nothing of it. The shapes' rules that results depend on
//! ([`ConvShape`], which sums are cut into which chunks, which convolutions Winograd's algorithm computes) stand here,
//! and the kernels keep to them.
//!
//! - A **product** is one chain of fused multiply-adds per output value, from `+0.0`, in the order stated with each
//!   function. Taps that fall outside the image are skipped. The bias is added at the end, with one rounding; then
//!   comes the activation.
//! - A **sum over samples** (a weight or bias gradient) is a chain inside each chunk of samples; chunks are merged by
//!   [`merge_tree`]. How many samples make a chunk follows from the shape and the number of samples only.

mod chain;
mod conv;
mod product;
pub(super) mod shape;
pub(super) mod winograd;

pub use chain::{Activation, column_sums, finish, merge_tree, relu};
pub use conv::{backward_data, backward_weights, forward, local_backward_data, local_backward_weights, local_forward};
pub use product::{GRAM_CHUNK, gram, matmul};
pub use shape::ConvShape;
pub use winograd::{winograd_backward_data, winograd_backward_weights, winograd_forward};
