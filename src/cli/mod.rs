//! Verbs; the only place for stdout, colour and exit codes.
