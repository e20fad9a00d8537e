//! Generates the Rust code of `rvm.v1` without a `protoc` on the machine: protox parses the file, tonic writes the
//! client and the server. What was parsed, comments and all, is kept for the server to tell.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/rvm/v1/rvm.proto"], ["proto"])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    // The kubelet's own, which is no part of what we tell of ourselves.
    let files = protox::compile(["proto/kubelet/v1beta1/deviceplugin.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
