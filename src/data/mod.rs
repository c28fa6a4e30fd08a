//! Samples before any model: readers, splits, transforms, metrics.

pub(crate) mod augment;
pub(crate) mod catalogue;
pub(crate) mod decode;
pub mod feed;
pub(crate) mod fetch;
pub mod fit_set;
pub mod metrics;
pub(crate) mod pixels;
pub(crate) mod reader;
pub mod reduce;
pub(crate) mod resize;
pub mod samples;
pub(crate) mod split;
pub mod suspects;
pub mod transform;
