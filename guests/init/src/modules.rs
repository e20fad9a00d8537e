//! The kernel's modules that lie beside us in the initramfs, put in in the order that their list gives.

use std::fs::{self, File};
use std::path::{Component, Path};

use rustix::system::finit_module;

use crate::say;

const OURS: &str = "/rvm";
const FOLDER: &str = "/rvm/modules";
const LIST: &str = "/rvm/modules.order";

/// The list names far fewer.
const MAX_MODULES: usize = 256;

/// Loads every listed module; what fails is said and left out.
pub fn load_all() {
    let list = match fs::read_to_string(LIST) {
        Ok(list) => list,
        Err(error) => return say::problem(&format!("cannot read {LIST}"), error),
    };
    for name in names(&list) {
        if let Err(error) = load(&Path::new(FOLDER).join(name)) {
            say::problem(&format!("cannot load module {name}"), error);
        }
    }
    // They are in the kernel now; their files would only take the guest's memory.
    let _ = fs::remove_dir_all(OURS);
}

fn load(module: &Path) -> std::io::Result<()> {
    let file = File::open(module)?;
    Ok(finit_module(file, c"", 0)?)
}

/// The file names in the list. A name that is a path is none of ours.
fn names(list: &str) -> impl Iterator<Item = &str> {
    let plain = |name: &&str| {
        let mut parts = Path::new(name).components();
        matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none()
    };
    list.lines().map(str::trim).filter(plain).take(MAX_MODULES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_taken_in_its_order_and_without_paths() {
        let list = "virtio_mmio.ko\n\n../etc/evil.ko\n/abs.ko\nvirtio_blk.ko\n";
        assert_eq!(
            names(list).collect::<Vec<_>>(),
            ["virtio_mmio.ko", "virtio_blk.ko"]
        );
    }

    #[test]
    fn an_endless_list_ends() {
        assert_eq!(names(&"a.ko\n".repeat(1000)).count(), MAX_MODULES);
    }
}
