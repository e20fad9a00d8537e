//! Writes the CustomResourceDefinition into the folder that the argument names, or to standard output.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

/// What the file is called, as KubeVirt's own generator calls it.
const FILE: &str = "kubevirt.io_virtualmachineinstances.yaml";

fn main() -> Result<(), Box<dyn Error>> {
    let yaml = rvm_types::crd::crd_yaml()?;
    match env::args_os().nth(1) {
        None => print!("{yaml}"),
        Some(folder) => {
            let folder = PathBuf::from(folder);
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(FILE), yaml)?;
        }
    }
    Ok(())
}
