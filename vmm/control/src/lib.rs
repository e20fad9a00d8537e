//! The per-VM control socket and run directory: messages, framing, both ends.
