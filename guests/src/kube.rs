//! The programs of a small Kubernetes for tests: `etcd`, `kube-apiserver`, `kube-controller-manager` and `kubectl` in one folder.
//!
//! etcd is the Debian release's. The others are built from the Go module `tests/harness/kube`, whose `go.sum` pins every source
//! it takes: one program that is called by several names. `KUBEBUILDER_ASSETS` names a folder with all four instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cache::{Cache, sha256};
use crate::command::{output, run};
use crate::cross::workspace;
use crate::debian::{Debian, machine_arch};
use crate::foreign::Foreign;

/// The module's folder in the workspace.
const MODULE: &str = "tests/harness/kube";

/// All that the module consists of.
const FILES: [&str; 3] = ["go.mod", "go.sum", "main.go"];

/// What the program answers when it is asked for its version; `go.mod` has the same.
pub(crate) const VERSION: &str = "v1.34.4";

/// The oldest Go that builds it.
const GO: (u32, u32) = (1, 24);

/// What has to be in the folder.
const PROGRAMS: [&str; 4] = ["etcd", BUILT, ALSO[0], ALSO[1]];

/// What the module's program is built as, and what else it is called.
const BUILT: &str = "kube-apiserver";
const ALSO: [&str; 2] = ["kube-controller-manager", "kubectl"];

/// The folder with the programs.
pub fn assets(cache: &Cache) -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("KUBEBUILDER_ASSETS").filter(|given| !given.is_empty()) {
        let given = PathBuf::from(given);
        for program in PROGRAMS {
            ensure!(
                given.join(program).exists(),
                "KUBEBUILDER_ASSETS={} has no {program}",
                given.display()
            );
        }
        return Ok(given);
    }
    let etcd = Debian::of(cache).extract_root("etcd-root", &machine_arch()?, &["etcd-server"])?;
    let (module, go) = (module(), go(cache)?);
    let key = key(&module, &go)?;
    let place = cache.slow_entry("kube", &key, Duration::from_secs(420), |dir| {
        let bin = dir.join("bin");
        Foreign::of(&etcd)?.write_script(&bin.join("etcd"), "usr/bin/etcd", "", "")?;
        build(&go, &module, "", &machine_arch()?, &bin.join(BUILT))?;
        for name in ALSO {
            fs::hard_link(bin.join(BUILT), bin.join(name))?;
        }
        Ok(())
    })?;
    Ok(place.join("bin"))
}

/// Where the module lies.
pub(crate) fn module() -> PathBuf {
    workspace().join(MODULE)
}

/// All that what is built from the module depends on.
pub(crate) fn key(module: &Path, go: &Path) -> Result<String> {
    let mut key = format!("kube 2\n{VERSION}\n{}\n", go_version(go)?);
    for name in FILES {
        let file = fs::read(module.join(name)).with_context(|| format!("cannot read {MODULE}/{name}"))?;
        key.push_str(&sha256(&file));
    }
    Ok(key)
}

/// Builds the program in `folder` of the module for `arch`, as Go names it.
pub(crate) fn build(go: &Path, module: &Path, folder: &str, arch: &str, into: &Path) -> Result<()> {
    let mut build = Command::new(go);
    build
        .args(["build", "-trimpath", "-ldflags", &link_flags(), "-o"])
        .arg(into)
        .arg(format!("./{folder}"));
    run(in_module(&mut build, module)
        .env("GOOS", "linux")
        .env("GOARCH", arch))
}

/// The settings of the module's own build, whatever the machine's Go is set to.
pub(crate) fn in_module<'a>(go: &'a mut Command, module: &Path) -> &'a mut Command {
    go.current_dir(module)
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=readonly")
        .env("GOWORK", "off")
        .env_remove("GOOS")
        .env_remove("GOARCH")
}

fn link_flags() -> String {
    let (server, client) = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version");
    let mut flags =
        format!("-s -w -X {server}.gitTreeState=clean -X {server}.buildDate=1970-01-01T00:00:00Z");
    for package in [server, client] {
        flags.push_str(&format!(
            " -X {package}.gitVersion={VERSION} -X {package}.gitMajor=1 -X {package}.gitMinor=34"
        ));
    }
    flags
}

/// A Go that is new enough: the machine's, or the Debian release's.
pub(crate) fn go(cache: &Cache) -> Result<PathBuf> {
    let machine = PathBuf::from("go");
    if go_version(&machine).is_ok_and(|version| is_new_enough(&version)) {
        return Ok(machine);
    }
    let root = Debian::of(cache).extract_root("go-root", &machine_arch()?, &["golang-go", "libc6"])?;
    let key = format!("go 1\n{}", root.display());
    let place = cache.entry("go", &key, |dir| {
        let home = go_home(&root)?;
        let before = format!("export GOROOT=\"$root/{home}\"");
        Foreign::of(&root)?.write_script(&dir.join("bin/go"), &format!("{home}/bin/go"), &before, "")
    })?;
    Ok(place.join("bin/go"))
}

/// `usr/lib/go-1.24` or whichever the release has.
fn go_home(root: &Path) -> Result<String> {
    for found in fs::read_dir(root.join("usr/lib"))?.flatten() {
        let name = found.file_name().to_string_lossy().into_owned();
        if name.starts_with("go-") && found.path().join("bin/go").exists() {
            return Ok(format!("usr/lib/{name}"));
        }
    }
    bail!("the Debian release's golang-go holds no go")
}

fn go_version(go: &Path) -> Result<String> {
    let mut command = Command::new(go);
    let said = output(command.args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))?;
    Ok(String::from_utf8_lossy(&said).trim().to_owned())
}

/// Whether `go1.26.8` and its like are new enough.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version
        .trim_start_matches("go")
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(GO.0), Some(GO.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_go_is_not_taken() {
        assert!(is_new_enough("go1.24.4") && is_new_enough("go1.26.8") && is_new_enough("go2.0"));
        assert!(!is_new_enough("go1.19.8") && !is_new_enough("") && !is_new_enough("devel"));
    }

    #[test]
    fn the_module_takes_the_version_that_the_program_says_it_is() {
        let module = fs::read_to_string(workspace().join(MODULE).join("go.mod")).unwrap();
        assert!(module.contains(&format!("k8s.io/kubernetes {VERSION}\n")));
        assert!(link_flags().contains("client-go/pkg/version.gitVersion=v1.34.4"));
    }

    #[test]
    fn the_key_changes_with_every_file_of_the_module() {
        let module = tempfile::tempdir().unwrap();
        let go = Path::new("true");
        for name in FILES {
            fs::write(module.path().join(name), "1").unwrap();
        }
        let before = key(module.path(), go).unwrap();
        fs::write(module.path().join("main.go"), "2").unwrap();
        assert_ne!(before, key(module.path(), go).unwrap());
    }
}
