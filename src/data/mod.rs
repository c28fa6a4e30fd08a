//! Samples before any model: readers, splits, transforms, metrics.
