//! Which tasks are stale, and running those.
