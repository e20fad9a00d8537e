//! Helm, for the plain manifests and the tests of our charts: built from the Go module `tests/harness/helm`, whose `go.sum` pins every source.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache::{Cache, sha256};
use crate::command::{output, run};
use crate::cross::workspace;
use crate::kube;

/// The module's folder in the workspace.
const MODULE: &str = "tests/harness/helm";

/// What is built there.
const PACKAGE: &str = "helm.sh/helm/v3/cmd/helm";

/// Its version; `go.mod` has the same.
const VERSION: &str = "v3.19.5";

/// The program, or the one that `RVM_HELM` names.
pub fn program(cache: &Cache) -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("RVM_HELM").filter(|given| !given.is_empty()) {
        return Ok(given.into());
    }
    let (module, go) = (workspace().join(MODULE), kube::go(cache)?);
    let mut key = format!("helm 2\n{VERSION}\n");
    for name in ["go.mod", "go.sum"] {
        let file = fs::read(module.join(name)).with_context(|| format!("cannot read {MODULE}/{name}"))?;
        key.push_str(&sha256(&file));
    }
    let place = cache.slow_entry("helm", &key, Duration::from_secs(180), |dir| {
        // As Helm's own build sets them: which Kubernetes a chart is rendered for where none is asked.
        let mut version = format!("-s -w -X helm.sh/helm/v3/internal/version.version={VERSION}");
        for package in ["pkg/lint/rules", "pkg/chartutil"] {
            let package = format!("helm.sh/helm/v3/{package}");
            version.push_str(&format!(
                " -X {package}.k8sVersionMajor=1 -X {package}.k8sVersionMinor=34"
            ));
        }
        let mut build = Command::new(&go);
        build
            .args(["build", "-trimpath", "-ldflags", &version, "-o"])
            .arg(dir.join("bin/helm"))
            .arg(PACKAGE);
        run(kube::in_module(&mut build, &module))
    })?;
    Ok(place.join("bin/helm"))
}

/// The namespace that all of the plain manifests is in, and its object: helm makes it where it installs.
const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: rvm\n";

/// What the chart installs as plain YAML, for those who have no helm; `arguments` are given to `helm template` as they are.
pub fn manifests(cache: &Cache, arguments: &[String]) -> Result<Vec<u8>> {
    let mut template = Command::new(program(cache)?);
    // What is done before an uninstallation would be done at once.
    template.args(["template", "rvm", "--namespace", "rvm", "--no-hooks"]);
    template.arg(workspace().join("deploy/helm/rvm")).args(arguments);
    let rendered = output(&mut template)?;
    Ok([NAMESPACE.as_bytes(), &rendered].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_takes_the_version_that_the_program_says_it_is() {
        let module = fs::read_to_string(workspace().join(MODULE).join("go.mod")).unwrap();
        assert!(module.contains(&format!("helm.sh/helm/v3 {VERSION}")));
        assert!(module.contains(&format!("tool {PACKAGE}")));
    }
}
