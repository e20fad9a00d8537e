//! A guest that does a list of things, and says of each how long it took by its own clock, which counts instructions too.
//!
//! The words are the probe's: `moved 4096 bytes in 12345 ns`, `answered 100 times in 12345 ns`.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use anyhow::{Context, Result, ensure};
use rvm_guests::cpio::Archive;
use rvm_guests::{Cache, Kernel, tiny};

use super::System;
use crate::image::write_with;

/// Something that is done: its name, and the guest's command.
pub type Step<C = &'static str> = (&'static str, C);

const HEAD: &str = "#!/bin/sh\n\
    export PATH=/bin\n\
    mount -t proc proc /proc\n\
    mount -t sysfs sysfs /sys\n\
    mount -t devtmpfs devtmpfs /dev\n\
    for module in $(cat /modules/order); do insmod \"/modules/$module\"; done\n";

/// Nanoseconds for each byte or answer, by system, what was measured (a word of the job's) and step.
pub type Times = BTreeMap<(System, String, String), f64>;

/// The init that first does `before` and then the steps, and switches off.
#[must_use]
pub fn init(before: &str, steps: &[Step<impl Display>]) -> String {
    let mut script = format!("{HEAD}{before}\n");
    for (step, command) in steps {
        let _ = writeln!(
            script,
            "echo 3 >/proc/sys/vm/drop_caches; echo STEP {step}; {command} 2>&1"
        );
    }
    script.push_str("poweroff -f\n");
    script
}

/// The init that does each step when it is told to by a line on its console.
#[must_use]
pub fn obedient(steps: &[Step]) -> String {
    let mut script = format!("{HEAD}exec 0</dev/console 1>/dev/console 2>&1\nstty -echo\n");
    for (step, command) in steps {
        let _ = writeln!(script, "echo READY {step}; read -r line; {command}");
    }
    script.push_str("while :; do sleep 3600; done\n");
    script
}

/// The tiny guest's initramfs with another init, and with more of the kernel's modules in `/more`.
pub fn initrd(cache: &Cache, init: &str, modules: &[&str]) -> Result<Vec<u8>> {
    let folder = tempfile::Builder::new().prefix("rvm-guest-").tempdir()?;
    let place = folder.path().join("initrd");
    let mut overlay = Archive::new();
    overlay.file("init", 0o755, init).folder("more", 0o755);
    for (module, number) in Kernel::debian(cache)?.modules_for(modules)?.iter().zip(10..) {
        overlay.file_from(&format!("more/{number}.ko"), 0o644, module);
    }
    write_with(&tiny::build(cache)?, &overlay, &place)?;
    Ok(std::fs::read(&place)?)
}

/// Reads what a job has said: `SYSTEM name what`, then for each step `STEP name` and the probe's words.
pub fn parse(said: &str) -> Result<Times> {
    let mut times = Times::new();
    let (mut system, mut what, mut step) = (None, String::new(), String::new());
    for line in said.lines().map(str::trim) {
        if let Some((name, word)) = line.strip_prefix("SYSTEM ").and_then(|rest| rest.split_once(' ')) {
            system = System::ALL.into_iter().find(|system| system.name() == name);
            word.clone_into(&mut what);
        } else if let Some(name) = line.strip_prefix("STEP ") {
            name.clone_into(&mut step);
        } else if let Some(nanos) = nanos_for_each(line) {
            let system = system.context("a time without a system")?;
            times.insert((system, what.clone(), step.clone()), nanos);
        }
    }
    ensure!(!times.is_empty(), "no guest told a time; the lab said:\n{said}");
    Ok(times)
}

/// What the probe says, as nanoseconds for each of what it counted.
fn nanos_for_each(line: &str) -> Option<f64> {
    let (done, nanos) = line.strip_suffix(" ns")?.split_once(" in ")?;
    let (_, rest) = done
        .split_once("moved ")
        .or_else(|| done.split_once("answered "))?;
    let count: f64 = rest.split(' ').next()?.parse().ok()?;
    Some(nanos.parse::<f64>().ok()? / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_to_the_system_and_the_step_that_were_named_before_them() {
        let said = "SYSTEM rvmm qcow2\nnoise\nSTEP read-4k\nmoved 4096 bytes in 8192 ns\r\n\
                    STEP ask\nanswered 10 times in 5 ns\r\n";
        let key = |step: &str| (System::Rvmm, "qcow2".to_owned(), step.to_owned());
        assert_eq!(
            parse(said).unwrap(),
            Times::from([(key("read-4k"), 2.0), (key("ask"), 0.5)])
        );
    }

    #[test]
    fn a_guest_that_tells_no_time_is_an_error_with_its_words() {
        let error = parse("SYSTEM rvmm raw\nSTEP read-4k\ncannot open /dev/vda\n").unwrap_err();
        assert!(error.to_string().contains("cannot open /dev/vda"), "{error}");
    }
}
