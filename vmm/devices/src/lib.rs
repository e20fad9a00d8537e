//! What the guest sees: registers and virtqueues.
