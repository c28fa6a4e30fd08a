//! Images to look at by eye: whose label held-out predictions contradict ([`labels`]), that are nearly another one
//! ([`duplicates`]), that are unlike their class ([`unlike`]). Nothing is learned from them.

pub mod duplicates;
pub mod labels;
pub mod thumbnail;
pub mod unlike;
