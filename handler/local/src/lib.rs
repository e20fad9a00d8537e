//! The embedded API and store of local mode.
