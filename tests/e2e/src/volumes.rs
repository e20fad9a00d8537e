//! VMIs with volumes, and what a guest says of the disks that these became.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Console, Kubectl, Manifest};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The guest's own tools for this, short of `blkid`, which its busybox does not have: the disk of a label (ISO 9660 has it
/// there) or of a serial, and a file of a label's disk. Lines are not to be wrapped where they are typed.
const TOOLS: [&str; 5] = [
    "stty cols 400; mkdir -p /v",
    r#"id() { dd if=$1 bs=8 skip=4101 count=4 2>/dev/null; }"#,
    r#"of() { for d in /dev/vd?; do id $d | grep -q "^$1 " && echo $d; done; }"#,
    r#"on() { mount -t iso9660 -o ro $(of $1) /v && (cd /v; $2); umount /v; }"#,
    r#"by() { cd /sys/block; echo /dev/$(grep -l "^$1$" */serial | cut -d/ -f1); cd; }"#,
];

/// Gives the guest `of`, `on` and `by`: the disk of a label, a command on it, the disk of a serial.
///
/// # Errors
/// The guest does not answer.
pub fn equip(console: &mut Console) -> Result<()> {
    TOOLS.iter().try_for_each(|tool| console.ask(tool).map(drop))
}

/// What is in a file of the disk of a label, where the guest was equipped.
///
/// # Errors
/// The guest does not answer.
pub fn read(console: &mut Console, label: &str, file: &str) -> Result<String> {
    console.ask(&format!("on {label} 'cat {file}'"))
}

/// The lines that a command prints.
///
/// # Errors
/// The guest does not answer.
pub fn lines(console: &mut Console, command: &str) -> Result<Vec<String>> {
    let said = console.ask(command)?;
    Ok(said.lines().map(|line| line.trim().to_owned()).collect())
}

/// The demo with a volume more, which is its first disk.
///
/// # Errors
/// The demo cannot be read.
pub fn with_disk(name: &str, source: &Value) -> Result<Manifest> {
    let mut manifest = Manifest::demo()?.named(name);
    let mut volume = source.clone();
    volume["name"] = json!("data");
    let spec = &mut manifest.0["spec"];
    let volumes = spec["volumes"].as_array_mut();
    volumes.context("the demo has no volumes")?.push(volume);
    spec["domain"]["devices"]["disks"] = json!([{"name": "data", "serial": "DATA", "disk": {}}]);
    Ok(manifest)
}

/// The message of the condition that says why a VMI is not what it should be, once it has these words.
///
/// # Errors
/// It does not come.
pub fn out_of_sync(kubectl: &Kubectl, name: &str, words: &str) -> Result<String> {
    let path = "jsonpath={.status.conditions[?(@.type=='Synchronized')].message}";
    eventually(&format!("a condition of {name} that says {words:?}"), || {
        let message = kubectl.ok(&["get", "vmi", name, "-o", path])?;
        Ok(Look::of(message.contains(words).then(|| message.clone()), || {
            message
        }))
    })
}

/// Waits until this is said of a VMI's volume; nothing where it is to be gone.
///
/// # Errors
/// It is not said.
pub fn await_volume(kubectl: &Kubectl, vmi: &str, name: &str, phase: Option<&str>) -> Result<Value> {
    eventually(&format!("the volume {name} that is {phase:?}"), || {
        let vmi = kubectl.vmi(vmi)?;
        let mut all = vmi["status"]["volumeStatus"].as_array().into_iter().flatten();
        let told = all.find(|told| told["name"] == name).cloned().unwrap_or_default();
        let found = told["phase"].as_str() == phase;
        Ok(Look::of(found.then_some(told), || vmi["status"].to_string()))
    })
}

/// Waits in the guest until the disk is there, or is not.
///
/// # Errors
/// The guest does not answer.
pub fn sees(console: &mut Console, disk: &str, is_there: bool) -> Result<()> {
    let until = if is_there { "until" } else { "while" };
    let wait = format!("{until} [ -e /dev/{disk} ]; do sleep 1; done; echo seen=$((6 * 7))");
    let said = lines(console, &wait)?;
    ensure!(said == ["seen=42"], "the guest said {said:?}");
    Ok(())
}

/// A folder that host disks may lie in, whatever the umask.
///
/// # Errors
/// The file system's.
pub fn folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("rvm-disks-").tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))?;
    Ok(folder)
}

/// A block device of the node over a file, for as long as this is held.
#[derive(Debug)]
pub struct LoopDevice(String);

impl LoopDevice {
    /// Only root has them, and only where the kernel does.
    ///
    /// # Errors
    /// There is none for this user.
    pub fn over(file: &Path) -> Result<Self> {
        let attached = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output()?;
        ensure!(attached.status.success(), "this user can make no loop device");
        Ok(Self(String::from_utf8(attached.stdout)?.trim().to_owned()))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        Command::new("losetup").args(["--detach", &self.0]).status().ok();
    }
}
