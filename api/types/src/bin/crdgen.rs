//! Writes the CustomResourceDefinitions into the folder that the argument names, or to standard output; with `--fields FILE` the page of
//! their fields.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    if let [flag, file] = arguments.as_slice()
        && flag == "--fields"
    {
        return Ok(fs::write(file, rvm_types::reference::page())?);
    }
    let folder = arguments.first().map(PathBuf::from);
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
