//! Generates the Rust code of `rvm.v1` without a `protoc` on the machine: protox parses the file, tonic writes the
//! client and the server.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/rvm/v1/rvm.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
