//! The chart's manifests as plain YAML, for those who have no helm.

use std::fs;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use rvm_guests::cross::target_dir;
use rvm_guests::helm;

use crate::setup;

/// What may be said of the manifests.
#[derive(Args)]
pub struct Wish {
    /// Given to `helm template` as they are, such as --set images.registry=registry.example
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Writes `target/manifests/rvm.yaml`.
pub fn run(wish: &Wish) -> Result<ExitCode> {
    let ready = setup::for_building()?;
    let manifests = helm::manifests(&ready.cache, &wish.arguments)?;
    let folder = target_dir().join("manifests");
    fs::create_dir_all(&folder)?;
    let place = folder.join("rvm.yaml");
    fs::write(&place, manifests)?;
    println!("{}", place.display());
    Ok(ExitCode::SUCCESS)
}
