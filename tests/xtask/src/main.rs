//! Set-up, build, test and bench, in one place.

fn main() {}
