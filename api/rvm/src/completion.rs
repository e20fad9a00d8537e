//! What a shell offers when somebody presses Tab: verbs and flags by their definition, names by asking whoever would be asked for them.
//!
//! ```text
//!   rvm completion bash ─► a script, which calls rvm for each Tab ─► RVM_COMPLETE=bash rvm -- rvm console al ─► alpine
//!   kubectl rvm … Tab ─► kubectl_complete-rvm console al          ─► alpine, and what kubectl is to do with it
//! ```
//!
//! Whoever cannot be asked offers nothing: a shell is no place for an error, nor for a long wait.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{ArgMatches, Command, FromArgMatches};
use clap_complete::CompleteEnv;
use clap_complete::engine::{self, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::Shells;
use kube::config::Kubeconfig;
use rvm_proto::v1::{ListImagesRequest, ListRequest};
use serde_json::Value;
use tokio::time::timeout;

use crate::args::Global;
use crate::cluster::{Cluster, Resource};
use crate::connect::{Door, connect_to_images};

/// By which the scripts say that a word is to be completed, and for which shell.
const VARIABLE: &str = "RVM_COMPLETE";
/// The names under which kubectl asks its plugins (rvm, virt) for completions.
const KUBECTLS: [&str; 2] = ["kubectl_complete-rvm", "kubectl_complete-virt"];
/// What tells kubectl to offer no files where there is nothing else.
const NO_FILES: &str = ":4";
/// How long a name may be sought.
const PATIENCE: Duration = Duration::from_secs(3);
/// Names that a server is asked for.
const MOST: usize = 500;

/// The command line that is to be completed.
static WORDS: OnceLock<Vec<OsString>> = OnceLock::new();
static DEFINITION: OnceLock<Command> = OnceLock::new();

/// Completes what a shell asks for, if this is what we were called for.
pub fn answer(command: &Command) -> Result<bool> {
    let words: Vec<OsString> = std::env::args_os().collect();
    DEFINITION.get_or_init(|| command.clone());
    let called = words.first().map(Path::new).and_then(Path::file_name);
    if called
        .and_then(OsStr::to_str)
        .is_some_and(|name| KUBECTLS.contains(&name))
    {
        WORDS.get_or_init(|| words.clone());
        return for_kubectl(command.clone(), words).map(|()| true);
    }
    let typed = words.iter().skip_while(|word| *word != "--").skip(1);
    WORDS.get_or_init(|| typed.cloned().collect());
    let environment = CompleteEnv::with_factory(|| command.clone()).var(VARIABLE);
    let here = std::env::current_dir().ok();
    Ok(environment.try_complete(words, here.as_deref())?)
}

/// Writes a shell's script.
pub fn script(shell: clap_complete::Shell, out: &mut dyn Write) -> Result<()> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let completer = shells.completer(&name).context("there is no such shell")?;
    Ok(completer.write_registration(VARIABLE, "rvm", "rvm", "rvm", out)?)
}

/// A line for each, and one that says that these are all.
fn for_kubectl(mut command: Command, words: Vec<OsString>) -> Result<()> {
    let last = words.len().saturating_sub(1);
    let mut out = io::stdout().lock();
    for candidate in engine::complete(&mut command, words, last, None)? {
        let value = candidate.get_value().to_string_lossy();
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        match help.lines().next() {
            Some(help) => writeln!(out, "{value}\t{help}")?,
            None => writeln!(out, "{value}")?,
        }
    }
    Ok(writeln!(out, "{NO_FILES}")?)
}

// === what can be offered ===

/// VirtualMachineInstances, and with their kind before them VirtualMachines.
pub fn instances() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| named(current, Resource::Instance))
}

/// VirtualMachines.
pub fn machines() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| named(current, Resource::Machine))
}

/// Both.
pub fn machines_and_instances() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let mut both = named(current, Resource::Machine);
        let others = named(current, Resource::Instance);
        both.extend(
            others
                .into_iter()
                .filter(|other| !both.contains(other))
                .collect::<Vec<_>>(),
        );
        both
    })
}

/// What a kind that was typed before has.
pub fn of_that_kind() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| named(current, kind_before().unwrap_or(Resource::Instance)))
}

/// Kinds and instances, then what that kind has.
pub fn objects() -> ArgValueCompleter {
    ArgValueCompleter::new(Objects)
}

/// A machine to log in to: perhaps a user, then a machine.
pub fn logins() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let current = current.to_string_lossy();
        let (user, target) = current
            .rsplit_once('@')
            .map_or(("", &*current), |(user, target)| (user, target));
        let before = if current.contains('@') {
            format!("{user}@")
        } else {
            String::new()
        };
        let found = named(OsStr::new(target), Resource::Instance);
        found.into_iter().map(|one| one.add_prefix(&before)).collect()
    })
}

/// A file here, or a machine whose file is meant.
pub fn ends() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let mut found = PathCompleter::any().complete(current);
        if current.to_string_lossy().contains('/') {
            let there = named(current, Resource::Instance).into_iter();
            found.extend(
                there.map(|one| CompletionCandidate::new(format!("{}:", one.get_value().to_string_lossy()))),
            );
        }
        found
    })
}

/// Namespaces.
pub fn namespaces() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| offered(current, "", ask(&namespaces_of)))
}

/// The contexts of the kubeconfig.
pub fn contexts() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let global = global().unwrap_or_default();
        let kubeconfig = match &global.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let contexts = kubeconfig
            .map(|kubeconfig| kubeconfig.contexts)
            .unwrap_or_default();
        offered(current, "", contexts.into_iter().map(|context| context.name))
    })
}

/// The images that the node keeps.
pub fn images() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let kept = ask(&async |global: &Global| {
            let listed = connect_to_images(global)
                .await?
                .list_images(ListImagesRequest {})
                .await?;
            Ok(listed
                .into_inner()
                .images
                .into_iter()
                .map(|image| image.name)
                .collect())
        });
        offered(current, "", kept)
    })
}

struct Objects;

impl ValueCompleter for Objects {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        let mut kinds = offered(
            current,
            "",
            Resource::ALL.map(|kind| kind.short_name().to_owned()),
        );
        kinds.extend(named(current, Resource::Instance));
        kinds
    }

    fn complete_at(&self, index: usize, current: &OsStr) -> Vec<CompletionCandidate> {
        match index {
            0 => self.complete(current),
            _ => kind_before().map_or_else(Vec::new, |kind| named(current, kind)),
        }
    }
}

/// The names of this kind, or of the one that stands before the name.
fn named(current: &OsStr, kind: Resource) -> Vec<CompletionCandidate> {
    let typed = current.to_string_lossy();
    let (before, kind) = match typed.split_once('/') {
        None => (String::new(), Some(kind)),
        Some((word, _)) => (format!("{word}/"), Resource::named(word)),
    };
    let Some(kind) = kind else { return Vec::new() };
    offered(
        current,
        &before,
        ask(&async |global: &Global| names(global, kind).await),
    )
}

fn offered(
    current: &OsStr,
    before: &str,
    names: impl IntoIterator<Item = String>,
) -> Vec<CompletionCandidate> {
    let typed = current.to_string_lossy();
    let all = names.into_iter().map(|name| format!("{before}{name}"));
    all.filter(|name| name.starts_with(&*typed))
        .map(CompletionCandidate::new)
        .collect()
}

// === asking ===

/// What comes of a question within a short time.
fn ask(question: &impl AsyncFn(&Global) -> Result<BTreeSet<String>>) -> BTreeSet<String> {
    let Some(global) = global() else {
        return BTreeSet::new();
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer =
        runtime.map(|runtime| runtime.block_on(async { timeout(PATIENCE, question(&global)).await }));
    match answer {
        Ok(Ok(Ok(names))) => names,
        _ => BTreeSet::new(),
    }
}

async fn names(global: &Global, kind: Resource) -> Result<BTreeSet<String>> {
    let door = Door::find_for(global, Resource::beyond_rvm([kind])).await?;
    match door {
        Door::Rvm(mut client) => {
            let namespace = global.namespace.clone().unwrap_or_else(|| "default".to_owned());
            let listed = client.list(ListRequest { namespace }).await?.into_inner();
            Ok(metadata_of(
                listed
                    .objects
                    .iter()
                    .filter_map(|object| serde_json::from_slice(object).ok()),
                "name",
            ))
        }
        Door::Kubernetes(cluster) => {
            let path = format!("{}?limit={MOST}", cluster.collection(kind, false));
            Ok(metadata_of(items(&cluster, &path).await?, "name"))
        }
    }
}

/// Those that the cluster has; where it does not say, those of its machines.
async fn namespaces_of(global: &Global) -> Result<BTreeSet<String>> {
    match Door::find(global).await? {
        Door::Rvm(mut client) => {
            let namespace = String::new();
            let listed = client.list(ListRequest { namespace }).await?.into_inner();
            let objects = listed
                .objects
                .iter()
                .filter_map(|object| serde_json::from_slice(object).ok());
            Ok(metadata_of(objects, "namespace"))
        }
        Door::Kubernetes(cluster) => match items(&cluster, &format!("/api/v1/namespaces?limit={MOST}")).await
        {
            Ok(namespaces) => Ok(metadata_of(namespaces, "name")),
            Err(_) => {
                let path = format!("{}?limit={MOST}", cluster.collection(Resource::Instance, true));
                Ok(metadata_of(items(&cluster, &path).await?, "namespace"))
            }
        },
    }
}

async fn items(cluster: &Cluster, path: &str) -> Result<Vec<Value>> {
    let mut list = cluster.get(path).await?;
    Ok(serde_json::from_value(list["items"].take())?)
}

fn metadata_of(objects: impl IntoIterator<Item = Value>, field: &str) -> BTreeSet<String> {
    let texts = objects
        .into_iter()
        .filter_map(|object| Some(object["metadata"][field].as_str()?.to_owned()));
    // What would steer a terminal, or would be more than one word, is no name.
    texts
        .filter(|text| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        })
        .collect()
}

// === what was typed before ===

/// As far as it can be understood: it is not complete.
fn typed() -> Option<ArgMatches> {
    let words = WORDS.get()?.iter().filter(|word| !word.is_empty());
    let command = DEFINITION.get()?.clone().ignore_errors(true);
    command.try_get_matches_from(words).ok()
}

fn global() -> Option<Global> {
    Global::from_arg_matches(&typed()?).ok()
}

/// The kind that stands before a name, as a word of its own.
fn kind_before() -> Option<Resource> {
    WORDS
        .get()?
        .iter()
        .rev()
        .skip(1)
        .find_map(|word| Resource::named(word.to_str()?))
}
