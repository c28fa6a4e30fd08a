//! Samples before any model: readers, splits, transforms, metrics.

pub mod decode;
pub mod fit_set;
pub mod reader;
pub mod split;
