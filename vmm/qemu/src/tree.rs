//! The device tree of a TCG guest: QEMU's own, asked for before the machine is started, with our overlays.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use rvmm_boot::dtb::MAX_BLOB;
use rvmm_spec::{Spec, Thp};

use crate::QemuError;
use crate::command::{Findings, tree_arguments};
use crate::process::spawn;

/// The files' names in the work folder.
const OWN: &str = "own.dtb";
const CHANGED: &str = "changed.dtb";

/// Bytes of QEMU's error output that are looked at.
const MAX_ERRORS: u64 = 4 << 10;

/// The tree that this machine's guest would find.
pub(crate) fn build(
    program: &Path,
    spec: &Spec,
    findings: &Findings,
    work_dir: &Path,
) -> Result<Vec<u8>, QemuError> {
    let file = work_dir.join(OWN);
    let mut child = spawn(
        program,
        &tree_arguments(spec, findings, &file),
        Vec::new(),
        Thp::Always,
    )
    .map_err(|error| QemuError::Spawn(program.display().to_string(), error))?;
    let mut errors = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        pipe.take(MAX_ERRORS)
            .read_to_end(&mut errors)
            .map_err(QemuError::System)?;
    }
    let status = child.wait().map_err(QemuError::System)?;
    if !status.success() {
        let text = String::from_utf8_lossy(&errors);
        let last = text.lines().rev().find(|line| line.contains(": "));
        return Err(QemuError::Start(
            last.unwrap_or("it gave no device tree").to_owned(),
        ));
    }
    let blob = read_bounded(&file).map_err(QemuError::System)?;
    rvmm_boot::apply_overlays(blob, &spec.boot().overlays).map_err(QemuError::Tree)
}

/// Where there are overlays, writes the changed tree for QEMU to use.
pub(crate) fn change(
    program: &Path,
    spec: &Spec,
    findings: &mut Findings,
    work_dir: &Path,
) -> Result<(), QemuError> {
    if !spec.boot().overlays.is_empty() {
        let file = work_dir.join(CHANGED);
        let tree = build(program, spec, findings, work_dir)?;
        fs::write(&file, tree).map_err(QemuError::System)?;
        findings.device_tree = Some(file);
    }
    Ok(())
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut blob = Vec::new();
    fs::File::open(path)?
        .take(MAX_BLOB as u64)
        .read_to_end(&mut blob)?;
    // QEMU leaves room behind the tree; what it says of its length is what counts.
    let len = blob
        .get(4..8)
        .and_then(|len| len.try_into().ok())
        .map(u32::from_be_bytes);
    blob.truncate(len.and_then(|len| usize::try_from(len).ok()).unwrap_or(MAX_BLOB));
    Ok(blob)
}
