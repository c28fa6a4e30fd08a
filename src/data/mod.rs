//! Samples before any model: readers, splits, transforms, metrics.

pub mod decode;
pub mod reader;
