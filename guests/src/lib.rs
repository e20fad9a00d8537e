//! Builds guests from distribution packages.
