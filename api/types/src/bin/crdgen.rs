//! Writes the CustomResourceDefinitions into the folder that the argument names, or to standard output.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args_os().nth(1).map(PathBuf::from);
    for (name, text) in rvm_types::crd::files()? {
        match &folder {
            None => print!("---\n{text}"),
            Some(folder) => {
                fs::create_dir_all(folder)?;
                fs::write(folder.join(name), text)?;
            }
        }
    }
    Ok(())
}
