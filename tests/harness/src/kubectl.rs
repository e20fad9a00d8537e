//! An unmodified kubectl, as the owner of a kubeconfig uses it, with our plugins on its path.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rvm_outer::{Output, Session};
use serde_json::Value;
use tempfile::TempDir;

use crate::manifest::Manifest;
use crate::patience::{Look, eventually};
use crate::tools::{Environment, Tools, shown};

/// The names under which kubectl finds our command line.
const PLUGINS: [&str; 2] = ["kubectl-rvm", "kubectl-virt"];

/// A kubectl.
#[derive(Debug)]
pub struct Kubectl {
    tools: Arc<Tools>,
    kubeconfig: PathBuf,
    plugins: TempDir,
}

impl Kubectl {
    /// The kubectl of who owns this kubeconfig.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(tools: &Arc<Tools>, kubeconfig: &Path) -> Result<Self> {
        let plugins = tempfile::tempdir()?;
        for name in PLUGINS {
            symlink(tools.own("rvm")?, plugins.path().join(name))?;
        }
        Ok(Self {
            tools: Arc::clone(tools),
            kubeconfig: kubeconfig.to_owned(),
            plugins,
        })
    }

    /// Runs it with nothing to read.
    ///
    /// # Errors
    /// It cannot be run; how it ended is for the caller to judge.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        self.feed(args, "")
    }

    /// Runs it with this to read.
    ///
    /// # Errors
    /// As for [`Kubectl::run`].
    pub fn feed(&self, args: &[&str], input: &str) -> Result<Output> {
        // Discovery is cached in HOME, and what was found there must not depend on who ran before.
        let home = tempfile::tempdir()?;
        let mut environment = self.environment();
        environment.push(("HOME".to_owned(), shown(home.path())));
        self.tools.run(&self.argv(args), &environment, input)
    }

    /// What it prints, where it has to go well.
    ///
    /// # Errors
    /// It did not.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?.ok();
        output.with_context(|| format!("kubectl {}", args.join(" ")))
    }

    /// Applies manifests, which has to go well.
    ///
    /// # Errors
    /// It did not.
    pub fn apply(&self, manifests: &[Manifest]) -> Result<String> {
        self.feed(&["apply", "-f", "-"], &Manifest::list(manifests))?
            .ok()
            .context("kubectl apply")
    }

    /// Starts it and leaves it running: `get -w`, say.
    ///
    /// # Errors
    /// As for [`Kubectl::run`].
    pub fn follow(&self, args: &[&str]) -> Result<Session> {
        self.tools.start(&self.argv(args), &self.with_kept_home())
    }

    /// Starts it on a terminal, with these variables besides its own.
    ///
    /// # Errors
    /// As for [`Kubectl::run`].
    pub fn on_terminal(&self, args: &[&str], environment: &[(String, String)]) -> Result<Session> {
        let environment = [self.with_kept_home(), environment.to_vec()].concat();
        self.tools.start_on_terminal(&self.argv(args), &environment)
    }

    /// Objects as JSON: `get` with these words.
    ///
    /// # Errors
    /// They are not there.
    pub fn get(&self, what: &[&str]) -> Result<Value> {
        let text = self.ok(&[&["get", "-o", "json"], what].concat())?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// A VMI of the namespace `default`.
    ///
    /// # Errors
    /// It is not there.
    pub fn vmi(&self, name: &str) -> Result<Value> {
        self.get(&["vmi", name])
    }

    /// The phase of a VMI, empty where it has none; nothing where there is no such VMI.
    ///
    /// # Errors
    /// kubectl's.
    pub fn phase(&self, name: &str) -> Result<Option<String>> {
        let args = [
            "get",
            "vmi",
            name,
            "--ignore-not-found",
            "-o",
            "jsonpath=phase:{.status.phase}",
        ];
        Ok(self.ok(&args)?.strip_prefix("phase:").map(str::to_owned))
    }

    /// Waits until a VMI is in this phase, and returns it.
    ///
    /// # Errors
    /// It ended in another, is gone, or takes too long; the error tells what happened to it.
    pub fn await_phase(&self, name: &str, phase: &str) -> Result<Value> {
        let template = r#"jsonpath={.status.phase}{"\n"}"#;
        let following = self.follow(&["get", "vmi", name, "-w", "-o", template])?;
        let arrived = eventually(&format!("{name} in phase {phase}"), || {
            let said = following.said();
            let last = said.lines().next_back().unwrap_or_default();
            if last == phase {
                return Ok(Look::Here(()));
            }
            if !["", "Pending", "Scheduling", "Scheduled", "Running"].contains(&last) {
                bail!("{name} is in phase {last} and not in {phase}");
            }
            Ok(Look::NotYet(said))
        });
        let story = || {
            self.run(&["describe", "vmi", name])
                .map_or_else(|error| error.to_string(), |output| output.text())
        };
        arrived.with_context(story)?;
        self.vmi(name)
    }

    /// Waits until a VMI is no more.
    ///
    /// # Errors
    /// It stays.
    pub fn await_gone(&self, name: &str) -> Result<()> {
        eventually(&format!("end of {name}"), || {
            Ok(match self.phase(name)? {
                None => Look::Here(()),
                Some(phase) => Look::NotYet(phase),
            })
        })
    }

    /// The reasons of the events of an object, in the order in which they were recorded.
    ///
    /// # Errors
    /// kubectl's.
    pub fn events(&self, name: &str) -> Result<Vec<(String, String)>> {
        let selector = format!("involvedObject.name={name}");
        let events = self.get(&["events", "--field-selector", &selector, "--sort-by", ".eventTime"])?;
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let items = events["items"].as_array().cloned().unwrap_or_default();
        Ok(items
            .iter()
            .map(|event| (text(event, "type"), text(event, "reason")))
            .collect())
    }

    fn argv<'a>(&self, args: &[&'a str]) -> Vec<&'a str>
    where
        Self: 'a,
    {
        [&["kubectl"], args].concat()
    }

    fn with_kept_home(&self) -> Environment {
        let mut environment = self.environment();
        environment.push(("HOME".to_owned(), shown(self.plugins.path())));
        environment
    }

    /// Its kubeconfig; a path with itself and our plugins first.
    fn environment(&self) -> Environment {
        let tools = self.tools.environment();
        let path = tools.iter().find(|(name, _)| name == "PATH");
        let rest = path.map(|(_, path)| path.as_str()).unwrap_or_default();
        let kube = self.tools.kube("");
        vec![
            (
                "PATH".to_owned(),
                format!("{}:{}:{rest}", shown(self.plugins.path()), shown(&kube)),
            ),
            ("KUBECONFIG".to_owned(), shown(&self.kubeconfig)),
        ]
    }
}
