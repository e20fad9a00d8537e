//! Packages of the Debian release that guests and tools are made of, for any architecture.
//!
//! A private apt with an empty status file resolves and downloads, `dpkg-deb` unpacks: no maintainer script runs, so
//! no foreign code does, nothing needs root, and the machine's own packages and sources stay as they are. Only
//! `main` of the suite is read: the `-updates` and `-security` indexes of ports are at times out of step.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::command::{output, run};

/// The release everything is taken from unless `RVM_DEBIAN_SUITE` names another.
pub const SUITE: &str = "trixie";

/// Who signs the archive; where the file is missing, apt's own trusted keys have to do.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The links that a merged `/usr` has at the root; packages no longer bring them.
const MERGED: [&str; 3] = ["bin", "sbin", "lib"];

/// A suite on a mirror.
#[derive(Debug, Clone)]
pub struct Debian {
    cache: Cache,
    suite: String,
}

impl Debian {
    /// The suite that `RVM_DEBIAN_SUITE` names, or [`SUITE`]. The mirror is looked for only when one is needed.
    #[must_use]
    pub fn of(cache: &Cache) -> Self {
        let suite = std::env::var("RVM_DEBIAN_SUITE")
            .ok()
            .filter(|suite| !suite.is_empty());
        Self {
            cache: cache.clone(),
            suite: suite.unwrap_or_else(|| SUITE.to_owned()),
        }
    }

    /// The suite's name.
    #[must_use]
    pub fn suite(&self) -> &str {
        &self.suite
    }

    /// A root folder with `packages` and everything they depend on, unpacked and not configured.
    ///
    /// `name` is the cache entry's name. Links `bin`, `sbin` and `lib` into `usr` are there.
    pub fn extract_root(&self, name: &str, arch: &str, packages: &[&str]) -> Result<PathBuf> {
        let key = format!("extract_root 1\n{}\n{arch}\n{}", self.suite, packages.join(" "));
        self.cache.slow_entry(name, &key, Duration::from_secs(15), |dir| {
            let apt = PrivateApt::open(self, arch)?;
            for package in apt.download_all(packages, &dir.join(".debs"))? {
                unpack(&package, dir)?;
            }
            fs::remove_dir_all(dir.join(".debs"))?;
            link_merged_usr(dir)
        })
    }

    /// A folder with the package files of `packages` and of everything they depend on.
    pub fn download_root(&self, name: &str, arch: &str, packages: &[&str]) -> Result<PathBuf> {
        let key = format!("download_root 1\n{}\n{arch}\n{}", self.suite, packages.join(" "));
        self.cache.slow_entry(name, &key, Duration::from_secs(15), |dir| {
            PrivateApt::open(self, arch)?.download_all(packages, dir)?;
            // What apt leaves besides.
            fs::remove_dir_all(dir.join("partial"))?;
            let _ = fs::remove_file(dir.join("lock"));
            Ok(())
        })
    }

    /// The package file of `package` alone.
    pub fn download(&self, arch: &str, package: &str) -> Result<PathBuf> {
        let key = format!("download 1\n{}\n{arch}\n{package}", self.suite);
        let dir = self.cache.entry(&format!("deb-{package}-{arch}"), &key, |dir| {
            PrivateApt::open(self, arch)?.download_one(package, dir)
        })?;
        only_file(&dir)
    }

    /// What `package` alone holds, unpacked.
    pub fn extract_one(&self, arch: &str, package: &str) -> Result<PathBuf> {
        let key = format!("extract_one 1\n{}\n{arch}\n{package}", self.suite);
        self.cache.entry(&format!("{package}-{arch}"), &key, |dir| {
            let debs = dir.join(".debs");
            fs::create_dir(&debs)?;
            PrivateApt::open(self, arch)?.download_one(package, &debs)?;
            unpack(&only_file(&debs)?, dir)?;
            Ok(fs::remove_dir_all(&debs)?)
        })
    }

    /// The first package that `package` depends on and whose name starts with `prefix`: how a package that only points
    /// at the current version is followed.
    pub fn dependency(&self, arch: &str, package: &str, prefix: &str) -> Result<String> {
        let shown = PrivateApt::open(self, arch)?.show(package)?;
        first_dependency(&shown, prefix)
            .with_context(|| format!("{package} of {} depends on no {prefix}*", self.suite))
    }
}

/// The architecture of this machine, as Debian names it.
pub fn machine_arch() -> Result<String> {
    let arch = output(Command::new("dpkg").arg("--print-architecture"))?;
    Ok(String::from_utf8_lossy(&arch).trim().to_owned())
}

/// Unpacks a package file; nothing in it is run.
pub fn unpack(package: &Path, into: &Path) -> Result<()> {
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg(into))
}

/// An apt of our own, one per suite and architecture, held by one process at a time.
struct PrivateApt {
    home: PathBuf,
    arch: String,
    _lock: fs::File,
}

impl PrivateApt {
    fn open(debian: &Debian, arch: &str) -> Result<Self> {
        let name = format!("apt-{}-{arch}", debian.suite);
        let lock = debian.cache.lock(&name)?;
        let home = debian.cache.root().join(name);
        fs::create_dir_all(home.join("lists/partial"))?;
        fs::create_dir_all(home.join("cache/archives/partial"))?;
        fs::write(home.join("status"), "")?;
        let signed = if Path::new(KEYRING).exists() {
            format!(" signed-by={KEYRING}")
        } else {
            String::new()
        };
        let line = format!(
            "deb [target=Packages{signed}] {} {} main\n",
            mirror()?,
            debian.suite
        );
        fs::write(home.join("sources.list"), line)?;
        let apt = Self {
            home,
            arch: arch.to_owned(),
            _lock: lock,
        };
        run(apt.command("apt-get").args(["-q", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let home = self.home.display();
        let mut command = Command::new(program);
        for option in [
            format!("APT::Architecture={}", self.arch),
            format!("APT::Architectures={}", self.arch),
            "APT::Sandbox::User=root".to_owned(),
            format!("Dir::Etc::SourceList={home}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::Preferences=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={home}/lists"),
            format!("Dir::State::status={home}/status"),
            format!("Dir::Cache={home}/cache"),
            // The lists and the lock of this folder are ours alone; the machine's dpkg may be busy.
            "Debug::NoLocking=true".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "DPkg::Pre-Install-Pkgs=".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }

    fn download_all(&self, packages: &[&str], into: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(into.join("partial"))?;
        let archives = format!("Dir::Cache::archives={}", into.display());
        let mut apt = self.command("apt-get");
        apt.args([
            "-o",
            &archives,
            "-q",
            "-y",
            "--no-install-recommends",
            "--download-only",
            "install",
            "--",
        ]);
        run(apt.args(packages))?;
        let mut files = Vec::new();
        for file in fs::read_dir(into)? {
            let path = file?.path();
            if path.extension().is_some_and(|ending| ending == "deb") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn download_one(&self, package: &str, into: &Path) -> Result<()> {
        run(self
            .command("apt-get")
            .args(["-q", "download", "--", package])
            .current_dir(into))
    }

    fn show(&self, package: &str) -> Result<String> {
        let shown = output(
            self.command("apt-cache")
                .args(["show", "--no-all-versions", "--", package]),
        )?;
        Ok(String::from_utf8_lossy(&shown).into_owned())
    }
}

fn first_dependency(shown: &str, prefix: &str) -> Option<String> {
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let names = depends.split(',').filter_map(|one| one.split_whitespace().next());
    names
        .into_iter()
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
}

fn only_file(dir: &Path) -> Result<PathBuf> {
    let mut files = fs::read_dir(dir)?;
    Ok(files
        .next()
        .with_context(|| format!("{} is empty", dir.display()))??
        .path())
}

fn link_merged_usr(root: &Path) -> Result<()> {
    for name in MERGED {
        let link = root.join(name);
        if fs::symlink_metadata(&link).is_err() && root.join("usr").join(name).is_dir() {
            std::os::unix::fs::symlink(Path::new("usr").join(name), &link)?;
        }
    }
    Ok(())
}

/// The mirror: `RVM_DEBIAN_MIRROR`, or the one this machine's apt takes Debian from.
pub fn mirror() -> Result<String> {
    if let Some(mirror) = std::env::var("RVM_DEBIAN_MIRROR")
        .ok()
        .filter(|mirror| !mirror.is_empty())
    {
        return Ok(mirror);
    }
    let format = "$(SITE) $(COMPONENT) $(CREATED_BY)";
    let targets = output(Command::new("apt-get").args(["indextargets", "--format", format]));
    let targets = targets.context("cannot ask apt for this machine's mirror; set RVM_DEBIAN_MIRROR")?;
    match main_archive(&String::from_utf8_lossy(&targets)) {
        Some(site) => Ok(site),
        None => bail!("this machine's apt knows no Debian mirror; set RVM_DEBIAN_MIRROR to one"),
    }
}

/// The first site that holds the `main` of a Debian archive: its path ends in `debian`, which those of the security
/// archive and of most third parties do not.
fn main_archive(targets: &str) -> Option<String> {
    let sites = targets.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let site = fields.next()?;
        (fields.next() == Some("main") && fields.next() == Some("Packages")).then_some(site)
    });
    sites
        .map(|site| site.trim_end_matches('/'))
        .find(|site| site.ends_with("/debian"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_main_archive_and_not_the_security_one() {
        let targets = "http://a.example/debian-security main Packages\n\
                       https://third.example/linux/debian stable Packages\n\
                       http://a.example/debian/ main DEP-11\n\
                       http://a.example/debian/ main Packages\n";
        assert_eq!(main_archive(targets).as_deref(), Some("http://a.example/debian"));
        assert_eq!(main_archive("http://a.example/ubuntu main Packages\n"), None);
    }

    #[test]
    fn a_pointing_package_is_followed_to_what_it_points_at() {
        let shown = "Package: linux-image-riscv64\nDepends: foo (>= 2), linux-image-6.12.1+deb13-riscv64 (= 6.12.1-1)\n";
        let found = first_dependency(shown, "linux-image-");
        assert_eq!(found.as_deref(), Some("linux-image-6.12.1+deb13-riscv64"));
        assert_eq!(first_dependency(shown, "bar"), None);
    }

    #[test]
    fn links_of_a_merged_usr_are_made_where_they_are_missing() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        fs::create_dir_all(root.path().join("lib")).unwrap();
        link_merged_usr(root.path()).unwrap();
        assert_eq!(
            fs::read_link(root.path().join("bin")).unwrap(),
            Path::new("usr/bin")
        );
        assert!(root.path().join("lib").is_dir() && !root.path().join("lib").is_symlink());
        assert!(!root.path().join("sbin").exists());
    }
}
