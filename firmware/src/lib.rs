//! The catalog of firmware images, checked when used.
