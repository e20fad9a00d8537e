//! The command line: apply, get, console, stop, delete.

fn main() {}
