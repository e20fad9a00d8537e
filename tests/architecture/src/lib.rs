//! The dependency arrows that must never exist, and those that must. All of it is in `tests/arrows.rs`.
