//! Layers, losses, optimizers, schedules, networks.
//!
//! What lives here: [`layer`] (configs, shapes, tensors), [`architecture`] (how a manifest lists them), [`init`]. What does not: pixels and files (`data`), lanes and
//! threads (`engine`). Start at [`layer::KINDS`].

pub mod architecture;
pub mod init;
pub mod layer;
pub mod optimizer;
pub mod schedule;
