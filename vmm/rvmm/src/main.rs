//! One virtual machine in one process.

fn main() {}
