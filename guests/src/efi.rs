//! A disk with an EFI system, as firmware finds it: one partition with systemd-boot, the kernel and the tiny guest.
//!
//! ```text
//!   sector 0       partition table (MBR): one EFI system partition
//!   sector 2048    FAT: /EFI/BOOT/BOOTRISCV64.EFI   systemd-boot, of the distribution
//!                       /loader/entries/rvm.conf    kernel, initrd, command line
//!                       /Image, /tiny.cpio.gz
//! ```
//!
//! The guest is the one of [`crate::tiny`] with a shell on `ttyS0`. Nothing needs root or a loop device: the file system is
//! written by a library.

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

use crate::cache::{Cache, sha256_of};
use crate::debian::Debian;
use crate::kernel::Kernel;
use crate::oci::{About, Layer, write_layout};
use crate::tiny;

const PACKAGE: &str = "systemd-boot-efi";
const LOADER: &str = "usr/lib/systemd/boot/efi/systemd-bootriscv64.efi";

const SECTOR: u64 = 512;
/// Where the partition starts, aligned as all tools do.
const FIRST: u32 = 2048;
/// Room in the partition besides its files: tables, folders, slack.
const SLACK: u64 = 4 << 20;

/// `EFI system partition` in a partition table of the old kind.
const EFI_SYSTEM: u8 = 0xef;

const LOADER_CONF: &str = "default rvm.conf\ntimeout 0\n";
const ENTRY: &str = "title rvm\nlinux /Image\ninitrd /tiny.cpio.gz\noptions console=ttyS0 quiet\n";

/// The disk's image.
pub fn build(cache: &Cache) -> Result<PathBuf> {
    let kernel = Kernel::debian(cache)?.image;
    let initrd = tiny::build(cache)?;
    let loader = loader(cache)?;
    let hashes = [sha256_of(&kernel)?, sha256_of(&initrd)?, sha256_of(&loader)?];
    let key = format!("efi 1\n{hashes:?}\n{LOADER_CONF}\n{ENTRY}");
    let place = cache.entry("efi", &key, |dir| {
        let files = [
            ("EFI/BOOT/BOOTRISCV64.EFI", read(&loader)?),
            ("loader/loader.conf", LOADER_CONF.into()),
            ("loader/entries/rvm.conf", ENTRY.into()),
            ("Image", read(&kernel)?),
            ("tiny.cpio.gz", read(&initrd)?),
        ];
        write_disk(&dir.join("efi.img"), &files)
    })?;
    Ok(place.join("efi.img"))
}

/// The disk as the one file of an image, in an image layout: what a VMI's containerDisk names.
pub fn image(cache: &Cache) -> Result<PathBuf> {
    let disk = build(cache)?;
    let key = format!("efi-image 1\n{}", sha256_of(&disk)?);
    cache.entry("efi-image", &key, |dir| {
        let mut layer = Layer::new();
        layer
            .folder("disk", 0o755)?
            .file("disk/efi.img", 0o644, &read(&disk)?)?;
        let made_by = "rvm-guests, from Debian's systemd-boot, kernel and busybox-static";
        write_layout(
            dir,
            &About {
                tag: "efi",
                command: &[],
                made_by,
            },
            layer,
        )
    })
}

/// What firmware starts: the release's systemd-boot.
pub(crate) fn loader(cache: &Cache) -> Result<PathBuf> {
    Ok(Debian::of(cache).extract_one("riscv64", PACKAGE)?.join(LOADER))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write_disk(path: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let content: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let size = (content + content / 64 + SLACK).next_multiple_of(1 << 20);
    let partition = write_fat(size, files)?;
    let disk = File::create(path)?;
    let start = u64::from(FIRST) * SECTOR;
    disk.set_len(start + size)?;
    disk.write_all_at(&partition_table(u32::try_from(size / SECTOR)?), 0)?;
    Ok(disk.write_all_at(&partition, start)?)
}

/// A FAT file system of `size` bytes with these files.
pub(crate) fn write_fat(size: u64, files: &[(&str, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut disk = Cursor::new(vec![0; usize::try_from(size)?]);
    let options = FormatVolumeOptions::new()
        .volume_id(0x7276_6d00)
        .volume_label(*b"RVM EFI    ");
    fatfs::format_volume(&mut disk, options)?;
    let system = FileSystem::new(&mut disk, FsOptions::new())?;
    for (path, bytes) in files {
        let mut folder = system.root_dir();
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            folder = folder.create_dir(part)?;
        }
        folder.create_file(name)?.write_all(bytes)?;
    }
    system.unmount()?;
    Ok(disk.into_inner())
}

/// One partition up to the end; sectors are counted, cylinders are not.
fn partition_table(sectors: u32) -> [u8; 512] {
    let mut table = [0; 512];
    let entry = &mut table[446..462];
    entry[1..4].fill(0xff);
    entry[4] = EFI_SYSTEM;
    entry[5..8].fill(0xff);
    entry[8..12].copy_from_slice(&FIRST.to_le_bytes());
    entry[12..].copy_from_slice(&sectors.to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn files_are_found_where_the_partition_table_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("efi.img");
        write_disk(&path, &[("a/b/deep", vec![7; 70_000]), ("top", vec![1])]).unwrap();
        let disk = fs::read(&path).unwrap();
        assert_eq!((disk[450], disk[510], disk[511]), (0xef, 0x55, 0xaa));
        let start = usize::try_from(u64::from(FIRST) * SECTOR).unwrap();
        let system = FileSystem::new(Cursor::new(disk[start..].to_vec()), FsOptions::new()).unwrap();
        let mut deep = Vec::new();
        system
            .root_dir()
            .open_file("a/b/deep")
            .unwrap()
            .read_to_end(&mut deep)
            .unwrap();
        assert_eq!(deep, vec![7; 70_000]);
    }

    #[test]
    fn the_same_files_give_the_same_disk() {
        let files = [("a", vec![1; 100])];
        assert_eq!(
            write_fat(8 << 20, &files).unwrap(),
            write_fat(8 << 20, &files).unwrap()
        );
    }
}
