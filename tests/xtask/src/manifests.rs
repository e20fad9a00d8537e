//! The chart's manifests as plain YAML, for those who have no helm.

use std::fs;
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::Args;
use rvm_guests::command::output;
use rvm_guests::cross::{target_dir, workspace};
use rvm_guests::helm;

use crate::setup;

/// The namespace that all of it is in, and its object: helm makes it where it installs.
const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: rvm\n";

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
    let mut template = Command::new(helm::program(&ready.cache)?);
    // What is done before an uninstallation would be done at once.
    template.args(["template", "rvm", "--namespace", "rvm", "--no-hooks"]);
    template
        .arg(workspace().join("deploy/helm/rvm"))
        .args(&wish.arguments);
    let rendered = output(&mut template)?;
    let folder = target_dir().join("manifests");
    fs::create_dir_all(&folder)?;
    let place = folder.join("rvm.yaml");
    fs::write(&place, [NAMESPACE.as_bytes(), &rendered].concat())?;
    println!("{}", place.display());
    Ok(ExitCode::SUCCESS)
}
