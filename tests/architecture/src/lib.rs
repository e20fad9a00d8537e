//! The dependency arrows that must never exist.
