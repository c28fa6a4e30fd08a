//! Samples before any model: readers, splits, transforms, metrics.

pub mod catalogue;
pub mod decode;
pub mod reader;
pub mod resize;
