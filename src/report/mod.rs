//! What a run tells people: CSV, text, JSON.
