//! Puts the parts of a machine together and keeps them running.
