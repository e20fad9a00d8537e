//! Helm with a chart of ours, as an operator calls it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use rvm_guests::{Cache, helm};
use rvm_outer::Output;
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::tools::{Tools, shown};

/// Where our charts lie.
const CHARTS: &str = "deploy/helm";

/// A helm.
#[derive(Debug)]
pub struct Helm {
    tools: Arc<Tools>,
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
    home: TempDir,
}

impl Helm {
    /// One that knows no cluster: for `lint` and `template`.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn alone(tools: &Arc<Tools>) -> Result<Self> {
        Ok(Self {
            tools: Arc::clone(tools),
            program: helm::program(&Cache::open()?)?,
            kubeconfig: None,
            home: tempfile::tempdir()?,
        })
    }

    /// The one of a cluster's administrator.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn of(tools: &Arc<Tools>, cluster: &Cluster) -> Result<Self> {
        Ok(Self {
            kubeconfig: Some(cluster.kubeconfig()),
            ..Self::alone(tools)?
        })
    }

    /// The folder of a chart.
    #[must_use]
    pub fn chart(&self, name: &str) -> String {
        shown(&self.tools.source(CHARTS).join(name))
    }

    /// Runs it; how it ended is for the caller to judge.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        let program = shown(&self.program);
        let mut environment = vec![("HOME".to_owned(), shown(self.home.path()))];
        let kubeconfig = self.kubeconfig.as_deref().map(shown).unwrap_or_default();
        environment.push(("KUBECONFIG".to_owned(), kubeconfig));
        self.tools
            .run(&[&[program.as_str()], args].concat(), &environment, "")
    }

    /// What it prints, where it has to go well.
    ///
    /// # Errors
    /// It did not.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?.ok();
        output.with_context(|| format!("helm {}", args.join(" ")))
    }
}
