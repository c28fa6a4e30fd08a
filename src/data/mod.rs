//! Samples before any model: readers, splits, transforms, metrics.

pub mod augment;
pub mod catalogue;
pub mod decode;
pub mod feed;
pub mod fit_set;
pub mod metrics;
pub mod pixels;
pub mod reader;
pub mod reduce;
pub mod resize;
pub mod samples;
pub mod split;
pub mod transform;
