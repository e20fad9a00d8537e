//! The stock riscv64 kernel of the Debian release: the same one for guests, for the lab's host and for the bench.
//!
//! Its modules come compressed and without a dependency table, since `depmod` belongs to the package's scripts; so
//! [`Kernel::modules_for`] unpacks what is asked for and follows the `depends=` line that every module carries.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::command::output;
use crate::debian::Debian;

/// How deep the dependencies of a module may nest; real ones stay below ten.
const MAX_DEPTH: usize = 32;

/// A kernel in the cache.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The kernel as it is loaded: a raw RISC-V `Image` that is an EFI application too.
    pub image: PathBuf,
    /// Its modules as the package brings them, xz-compressed.
    pub modules: PathBuf,
    /// What `uname -r` says when it runs.
    pub version: String,
    cache: Cache,
}

impl Kernel {
    /// The current kernel of the Debian release.
    pub fn debian(cache: &Cache) -> Result<Self> {
        let debian = Debian::of(cache);
        let key = format!("kernel 1\n{}", debian.suite());
        let root = cache.slow_entry("kernel-riscv64", &key, Duration::from_secs(30), |dir| {
            let package = debian.dependency("riscv64", "linux-image-riscv64", "linux-image-")?;
            let unpacked = debian.extract_one("riscv64", &package)?;
            let version = package.trim_start_matches("linux-image-");
            let modules = unpacked.join("usr/lib/modules").join(version);
            fs::hard_link(
                unpacked.join("boot").join(format!("vmlinux-{version}")),
                dir.join("Image"),
            )?;
            // Both lie in the cache folder: a link of this form survives the folder's being moved.
            let modules = Path::new("..").join(modules.strip_prefix(cache.root())?);
            std::os::unix::fs::symlink(modules, dir.join("modules"))?;
            Ok(fs::write(dir.join("version"), version)?)
        })?;
        let version = fs::read_to_string(root.join("version"))?;
        Ok(Self {
            image: root.join("Image"),
            modules: root.join("modules"),
            version,
            cache: cache.clone(),
        })
    }

    /// The named modules and all they depend on, uncompressed, in the order `insmod` wants them.
    ///
    /// What is built into the kernel is left out; a name the kernel does not know at all is an error.
    pub fn modules_for(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let key = format!("modules 1\n{}\n{}", self.version, names.join(" "));
        let dir = self.cache.entry("modules-riscv64", &key, |dir| {
            let mut picked = Picked {
                tree: Tree::read(&self.modules)?,
                into: dir,
                order: Vec::new(),
            };
            for name in names {
                picked.add(&underscored(name), 0)?;
            }
            Ok(fs::write(dir.join("order"), picked.order.join("\n"))?)
        })?;
        let order = fs::read_to_string(dir.join("order"))?;
        Ok(order.lines().map(|name| dir.join(format!("{name}.ko"))).collect())
    }
}

/// Where each module lies, by its name; `None` for what is built in.
struct Tree(BTreeMap<String, Option<PathBuf>>);

impl Tree {
    fn read(modules: &Path) -> Result<Self> {
        let list = |name: &str| {
            let path = modules.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let built_in = list("modules.builtin")?;
        let mut tree: BTreeMap<_, _> = built_in.lines().map(|path| (module_name(path), None)).collect();
        for path in list("modules.order")?.lines() {
            tree.insert(module_name(path), Some(modules.join(format!("{path}.xz"))));
        }
        Ok(Self(tree))
    }
}

struct Picked<'a> {
    tree: Tree,
    into: &'a Path,
    order: Vec<String>,
}

impl Picked<'_> {
    fn add(&mut self, name: &str, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            bail!("the dependencies of module {name} nest too deep");
        }
        let Some(place) = self.tree.0.get(name).cloned() else {
            bail!("this kernel has no module {name}")
        };
        let Some(place) = place else { return Ok(()) };
        if self.order.iter().any(|taken| taken == name) {
            return Ok(());
        }
        let module = output(Command::new("xz").args(["--decompress", "--stdout"]).arg(&place))?;
        for needed in depends(&module) {
            self.add(&underscored(&needed), depth + 1)?;
        }
        fs::write(self.into.join(format!("{name}.ko")), module)?;
        self.order.push(name.to_owned());
        Ok(())
    }
}

/// `kernel/drivers/block/virtio_blk.ko` is called `virtio_blk`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    underscored(file.trim_end_matches(".ko"))
}

/// Module names are the same with a dash and with an underscore; the kernel itself writes underscores.
fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

/// The modules that the `.modinfo` strings of `module` say it needs.
fn depends(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|window| window == FIELD) else {
        return Vec::new();
    };
    let value = module[at + FIELD.len()..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_read_from_its_own_text() {
        assert_eq!(
            depends(b"\x7fELF..\0license=GPL\0depends=netfs,9pnet\0name=9p\0"),
            ["netfs", "9pnet"]
        );
        assert!(depends(b"\0license=GPL\0depends=\0intree=Y\0").is_empty());
        assert!(depends(b"no text at all").is_empty());
    }

    #[test]
    fn a_module_has_one_name_however_its_file_is_written() {
        assert_eq!(module_name("kernel/drivers/rtc/rtc-goldfish.ko"), "rtc_goldfish");
        assert_eq!(module_name("virtio_blk.ko"), "virtio_blk");
    }

    /// A kernel of two modules, `top` needing `base`, and `inside` built in.
    fn small_kernel(root: &Path) -> Kernel {
        let modules = root.join("modules");
        fs::create_dir_all(modules.join("kernel")).unwrap();
        fs::write(modules.join("modules.builtin"), "kernel/inside.ko\n").unwrap();
        fs::write(modules.join("modules.order"), "kernel/top.ko\nkernel/base.ko\n").unwrap();
        fs::write(modules.join("kernel/top.ko"), b"\0depends=base,inside\0").unwrap();
        fs::write(modules.join("kernel/base.ko"), b"\0depends=\0").unwrap();
        let files = [modules.join("kernel/top.ko"), modules.join("kernel/base.ko")];
        output(Command::new("xz").args(files)).unwrap();
        let cache = Cache::at(&root.join("cache")).unwrap();
        Kernel {
            image: root.join("Image"),
            modules,
            version: "1".to_owned(),
            cache,
        }
    }

    #[test]
    fn modules_come_after_what_they_need_and_without_what_is_built_in() {
        let root = tempfile::tempdir().unwrap();
        let order = small_kernel(root.path())
            .modules_for(&["top", "base", "inside"])
            .unwrap();
        let names: Vec<_> = order
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["base.ko", "top.ko"]);
        assert_eq!(fs::read(&order[0]).unwrap(), b"\0depends=\0");
    }

    #[test]
    fn a_module_that_the_kernel_does_not_have_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = small_kernel(root.path()).modules_for(&["nowhere"]).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "cannot build modules-riscv64: this kernel has no module nowhere"
        );
    }
}
