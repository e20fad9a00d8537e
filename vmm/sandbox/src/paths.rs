//! Landlock: the files that stay reachable, and in which way.
//!
//! | path | how | why after the start |
//! | --- | --- | --- |
//! | kernel, initrd and other files to boot from | read | a reset boots again |
//! | disks | read, or read and write | a reset opens them again |
//! | `/dev/kvm`, `/dev/net/tun`, `/dev/zero` … | read and write, requests to the device | a reset makes a new VM |
//! | run directory | make, write, rename and remove files and sockets in it | `console.log`, `exit.json` |
//! | the folder of the vsock's socket | make and remove sockets | a reset listens again |
//! | what `--sandbox-allow` names | read and write, everything below it | disks that are plugged in later |
//! | (TCG) QEMU, its libraries and data | read, run | a reset starts QEMU again |
//! | (TCG) the work folder | read, write, remove | the unpacked kernel |
//!
//! A rule holds on to the file that is at a path when the walls go up, not to the path. What is missing then stays out of
//! reach. Besides: no TCP, no abstract Unix sockets and no signals to processes outside.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};

use crate::{Emulator, Plan, SandboxError};

/// The newest rules that are asked for; older kernels keep those that they know.
const NEWEST: ABI = ABI::V6;

/// Devices that a machine may open.
const DEVICES: [&str; 6] = [
    "/dev/kvm",
    "/dev/net/tun",
    "/dev/vhost-net",
    "/dev/vhost-vsock",
    "/dev/zero",
    "/dev/null",
];

/// Where the pools of huge pages say how full they are.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// Where programs, libraries and their data lie, for QEMU.
const SYSTEM: [&str; 8] = [
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc",
    "/opt",
    "/nix/store",
];

/// Other files that QEMU and its C library read.
const ABOUT_HOST: [&str; 4] = ["/proc", "/sys", "/dev/urandom", "/dev/random"];

/// Which rules the kernel keeps.
pub(crate) struct Kept(LandlockStatus);

/// A path and what may be done below it.
type Rule = (PathBuf, BitFlags<AccessFs>);

/// Makes all but the machine's files unreachable, as far as this kernel can.
pub(crate) fn restrict(plan: &Plan<'_>) -> Result<Kept, SandboxError> {
    keep(rules(plan)).map(Kept).map_err(SandboxError::Landlock)
}

fn keep(rules: Vec<Rule>) -> Result<LandlockStatus, landlock::RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for (path, access) in rules {
        let Ok(there) = PathFd::new(&path) else { continue };
        // A file has none of the rights that belong to folders.
        let access = if path.is_dir() {
            access
        } else {
            access & AccessFs::from_file(NEWEST)
        };
        ruleset = ruleset.add_rule(PathBeneath::new(there, access))?;
    }
    Ok(ruleset.restrict_self()?.landlock)
}

fn rules(plan: &Plan<'_>) -> Vec<Rule> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    let keep = write | AccessFs::MakeReg | AccessFs::MakeSock | AccessFs::RemoveFile;
    let mut rules: Vec<Rule> = DEVICES.iter().map(|path| (path.into(), write)).collect();
    for file in plan.spec.files() {
        rules.push((
            file.path.to_owned(),
            if file.written {
                write
            } else {
                read | AccessFs::IoctlDev
            },
        ));
    }
    if plan.spec.memory_backing().huge_pages.is_some() {
        rules.push((HUGE_PAGES.into(), read));
    }
    rules.extend(plan.run_dir.map(|path| (path.to_owned(), keep)));
    // Variables that are not there yet are made from a template, beside their place.
    let vars = plan.spec.boot().written_file().filter(|path| !path.exists());
    rules.extend(vars.map(|path| (folder(path), keep)));
    // A reset listens at the vsock's path anew.
    let sockets = AccessFs::MakeSock | AccessFs::RemoveFile;
    let vsock = plan.spec.vsock();
    rules.extend(vsock.map(|vsock| (folder(vsock.socket()), sockets)));
    let allowed = plan.spec.sandbox().allowed.iter();
    rules.extend(allowed.map(|path| (path.clone(), write)));
    if let Some(emulator) = &plan.emulator {
        rules.extend(emulator_rules(emulator, plan.run_dir));
    }
    rules
}

fn emulator_rules(emulator: &Emulator<'_>, run_dir: Option<&Path>) -> Vec<Rule> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let run = read | AccessFs::Execute;
    let work = run
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
        | AccessFs::MakeDir
        | AccessFs::RemoveDir;
    let mut rules: Vec<Rule> = SYSTEM.iter().map(|path| (path.into(), run)).collect();
    rules.extend(ABOUT_HOST.iter().map(|path| (path.into(), read)));
    // A QEMU outside the system's folders lies in `PREFIX/bin` and has its data in `PREFIX`; one that is started by a
    // script lies beside the script's `PREFIX`.
    let program = emulator.program.canonicalize();
    let program = program.unwrap_or_else(|_| emulator.program.to_owned());
    let prefix = program.parent().filter(|folder| folder.ends_with("bin"));
    let prefix = prefix.and_then(Path::parent);
    let beside = prefix.and_then(Path::parent).filter(|_| is_script(&program));
    let with_program = [Some(program.as_path()), prefix, beside];
    rules.extend(
        with_program
            .into_iter()
            .flatten()
            .map(|path| (path.to_owned(), run)),
    );
    rules.extend(emulator.firmware.map(|path| (path.to_owned(), read)));
    rules.push((emulator.work_dir.to_owned(), work));
    // A work folder of its own is removed at the end; empty ones beside it could be, too.
    let beside = emulator.work_dir.parent().filter(|_| run_dir.is_none());
    rules.extend(beside.map(|path| (path.to_owned(), AccessFs::RemoveDir.into())));
    rules
}

/// The folder that a path lies in.
fn folder(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new(".")).to_owned()
}

fn is_script(program: &Path) -> bool {
    let mut start = [0; 2];
    let read = File::open(program).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"#!"
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => {
                f.write_str("no Landlock (this kernel has none, or has it switched off)")
            }
            LandlockStatus::Available { effective_abi, .. } => {
                let kept = (*effective_abi as i32).min(NEWEST as i32);
                write!(f, "Landlock ABI {kept} of {}", NEWEST as i32)
            }
        }
    }
}
