//! The whole, seen from outside: one file per promise.
