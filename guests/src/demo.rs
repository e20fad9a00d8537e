//! The demo guest: all that the handler needs to run `guests/vmi-alpine.yaml` without a registry.
//!
//! | in the folder | what |
//! | --- | --- |
//! | `Image` | the kernel |
//! | `init.cpio` | our first process as `/rvm-init`, the kernel's modules in `/rvm/modules/`, their order in `/rvm/modules.order` |
//! | `alpine-3.23/` | an OCI image layout that stands in for `docker.io/library/alpine:3.23`: of its shape, made of busybox, and its `os-release` says so |

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::busybox::Busybox;
use crate::cache::{Cache, sha256_of};
use crate::cpio::{Archive, Device};
use crate::cross;
use crate::kernel::Kernel;
use crate::oci::{About, Layer, write_layout};
use crate::tiny::add_modules;

/// What the handler looks for in the folder.
pub const KERNEL: &str = "Image";
/// The archive that comes with the kernel.
pub const INIT: &str = "init.cpio";
/// The image layout.
pub const ALPINE: &str = "alpine-3.23";

/// What a guest with a container's root can drive: disks, networks, the clock, and disks' file systems.
const MODULES: [&str; 15] = [
    "virtio_mmio",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "virtio_net",
    "virtio_rng",
    "virtio_balloon",
    "af_packet",
    "rtc_goldfish",
    "crc32c_generic",
    "ext4",
    "vfat",
    "isofs",
    "nls_ascii",
    "nls_cp437",
];

const OS_RELEASE: &str = "NAME=\"rvm demo guest\"\n\
    ID=rvm-demo\n\
    VERSION_ID=3.23\n\
    PRETTY_NAME=\"rvm demo guest (busybox, shaped like alpine:3.23)\"\n";

const PROFILE: &str = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
    export PAGER=less\n\
    umask 022\n\
    PS1='\\h:\\w\\$ '\n\
    for script in /etc/profile.d/*.sh; do\n    [ -r \"$script\" ] && . \"$script\"\ndone\n\
    unset script\n";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:2:2:daemon:/sbin:/sbin/nologin\n\
    nobody:x:65534:65534:nobody:/:/sbin/nologin\n";

const GROUP: &str = "root:x:0:root\ndaemon:x:2:\ntty:x:5:\ndisk:x:6:root\nnobody:x:65534:\n";

const SHADOW: &str = "root:*::0:::::\ndaemon:!::0:::::\nnobody:!::0:::::\n";

const HOSTS: &str = "127.0.0.1\tlocalhost localhost.localdomain\n::1\tlocalhost localhost.localdomain\n";

/// Plain files of the image: path, mode, content.
const FILES: [(&str, u32, &str); 10] = [
    ("etc/group", 0o644, GROUP),
    ("etc/hostname", 0o644, "localhost\n"),
    ("etc/hosts", 0o644, HOSTS),
    (
        "etc/issue",
        0o644,
        "rvm demo guest (busybox, shaped like alpine:3.23)\n\n",
    ),
    ("etc/os-release", 0o644, OS_RELEASE),
    ("etc/passwd", 0o644, PASSWD),
    ("etc/profile", 0o644, PROFILE),
    ("etc/shadow", 0o640, SHADOW),
    ("etc/shells", 0o644, "/bin/sh\n/bin/ash\n"),
    ("etc/securetty", 0o644, "console\nttyS0\nhvc0\n"),
];

/// Folders of the image and their modes.
const FOLDERS: [(&str, u32); 26] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/profile.d", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/local", 0o755),
    ("usr/sbin", 0o755),
    ("usr/share", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/empty", 0o555),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// The demo guest in the cache.
#[derive(Debug, Clone)]
pub struct DemoGuest {
    /// What `rvm-handler --guests` takes.
    pub folder: PathBuf,
}

impl DemoGuest {
    /// The image layout that stands in for `docker.io/library/alpine:3.23`.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.folder.join(ALPINE)
    }
}

/// Builds the demo guest.
pub fn build(cache: &Cache) -> Result<DemoGuest> {
    let kernel = Kernel::debian(cache)?;
    let busybox = Busybox::debian(cache)?;
    let init = cross::program(cache, "rvm-guest-init", "rvm-guest-init")?;
    let text = format!("{MODULES:?}{FILES:?}{FOLDERS:?}");
    let (init_hash, busybox_hash) = (sha256_of(&init)?, sha256_of(&busybox.program)?);
    let key = format!("demo 1\n{}\n{init_hash}\n{busybox_hash}\n{text}", kernel.version);
    let folder = cache.entry("demo", &key, |dir| {
        fs::hard_link(&kernel.image, dir.join(KERNEL))
            .or_else(|_| fs::copy(&kernel.image, dir.join(KERNEL)).map(drop))?;
        write_init(&kernel, &init, &dir.join(INIT))?;
        write_alpine(&busybox, &dir.join(ALPINE))
    })?;
    Ok(DemoGuest { folder })
}

fn write_init(kernel: &Kernel, init: &Path, path: &Path) -> Result<()> {
    let mut archive = Archive::new();
    archive
        .file_from("rvm-init", 0o755, init)
        .device("dev/console", 0o600, Device::Character(5, 1))
        .device("dev/null", 0o666, Device::Character(1, 3));
    add_modules(
        &mut archive,
        "rvm/modules",
        "rvm/modules.order",
        &kernel.modules_for(&MODULES)?,
    );
    Ok(archive.write_to(&mut File::create(path)?)?)
}

fn write_alpine(busybox: &Busybox, into: &Path) -> Result<()> {
    let mut layer = Layer::new();
    for (path, mode) in FOLDERS {
        layer.folder(path, mode)?;
    }
    for merged in ["bin", "lib", "sbin"] {
        layer.link(merged, &format!("usr/{merged}"))?;
    }
    for (path, mode, text) in FILES {
        layer.file(path, mode, text.as_bytes())?;
    }
    layer
        .link("var/run", "../run")?
        .link("usr/lib/os-release", "../../etc/os-release")?;
    layer.file("usr/bin/busybox", 0o755, &fs::read(&busybox.program)?)?;
    for applet in &busybox.applets {
        layer.link(&format!("usr/bin/{applet}"), "busybox")?;
    }
    let made_by = "rvm-guests, from Debian's busybox-static";
    write_layout(
        into,
        &About {
            tag: "3.23",
            command: &["/bin/sh"],
            made_by,
        },
        layer,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_says_in_its_release_file_what_it_is_and_what_it_is_not() {
        assert!(OS_RELEASE.contains("ID=rvm-demo\n"));
        assert!(OS_RELEASE.contains("PRETTY_NAME=\"rvm demo guest (busybox, shaped like alpine:3.23)\"\n"));
        assert!(!OS_RELEASE.contains("ID=alpine"));
    }

    #[test]
    fn every_file_of_the_image_lies_in_a_folder_of_it() {
        let folder_of = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
        let homeless = FILES.iter().filter(|(path, ..)| {
            let folder = folder_of(path);
            !FOLDERS.iter().any(|(known, _)| folder.as_deref() == Some(known))
        });
        assert_eq!(homeless.count(), 0);
    }

    #[test]
    fn an_image_layout_is_written_with_a_link_for_each_applet() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("busybox");
        fs::write(&program, "program").unwrap();
        let busybox = Busybox {
            program,
            applets: vec!["sh".to_owned(), "ls".to_owned()],
        };
        write_alpine(&busybox, &root.path().join("image")).unwrap();
        assert_eq!(
            fs::read_dir(root.path().join("image/blobs/sha256"))
                .unwrap()
                .count(),
            3
        );
        assert!(root.path().join("image/oci-layout").exists());
    }
}
