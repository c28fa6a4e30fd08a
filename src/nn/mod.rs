//! Layers, losses, optimizers, schedules, networks.
