//! Convoy: image-classification pipelines from TOML manifests, on CPUs, the same bytes every time.

pub mod artifact;
pub mod cli;
pub mod config;
pub mod data;
pub(crate) mod elementary;
pub mod engine;
pub(crate) mod escape;
pub(crate) mod files;
pub mod manifest;
pub(crate) mod memory;
pub mod nn;
pub(crate) mod report;
pub mod rng;
pub mod runner;
pub mod stages;
pub mod store;
pub mod tensor;
