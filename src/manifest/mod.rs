//! TOML in, checked manifest or diagnostics out.
