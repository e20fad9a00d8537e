//! The first process of a guest whose root file system is a container image.

fn main() {}
