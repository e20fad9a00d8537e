//! What the host gives: disks, taps, consoles.
