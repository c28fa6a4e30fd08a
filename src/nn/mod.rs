//! Layers, losses, optimizers, schedules, networks.
//!
//! An [`architecture`] (a manifest's list of [`layer`] configs) and an input shape make a [`plan`] (shapes, tensors,
//! cost, fusion; nothing allocated), a plan makes a [`network`], which [`training`] moves step by step with an
//! [`optimizer`] at the rate that a [`schedule`] gives. All randomness comes from [`seeds`]. What does not live here:
//! pixels and files (`data`), epochs and folds (`stages`), lanes and threads (`engine`). Start at
//! [`plan::NetworkPlan::new`].

pub mod architecture;
#[cfg(test)]
mod contract;
pub mod init;
pub mod layer;
pub(crate) mod network;
pub mod optimizer;
pub mod plan;
pub mod schedule;
pub mod seeds;
pub mod training;
