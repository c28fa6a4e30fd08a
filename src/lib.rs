//! Convoy: image-classification pipelines from TOML manifests, on CPUs, the same bytes every time.

pub mod artifact;
pub mod cli;
pub mod config;
pub mod data;
pub mod elementary;
pub mod engine;
pub mod escape;
pub mod files;
pub mod manifest;
pub mod memory;
pub mod nn;
pub mod report;
pub mod rng;
pub mod runner;
pub mod stages;
pub mod store;
pub mod tensor;
