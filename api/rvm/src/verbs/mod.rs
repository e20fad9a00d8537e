//! What `rvm` does, one file per verb, and what they share: names, manifests, waiting.

mod apply;
mod console;
mod create;
mod credentials;
mod delete;
mod events;
mod expose;
mod get;
mod images;
mod machine;
mod permitted_devices;
mod port_forward;
mod refused;
mod ssh;
mod stop;
mod story;
mod top;
mod version;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use rvm_proto::v1::WatchRequest;
use rvm_proto::v1::watch_response::Change;
use rvm_types::names::GROUP;
use rvm_types::{VirtualMachineInstance, manifest};
use serde_json::Value;
use tonic::Streaming;

use crate::args::{Cli, Global, Target, Verb};
use crate::cluster::{Cluster, Resource};
use crate::completion;
use crate::connect::{Client, connect_to_images};
use crate::paths;
use crate::screen::say;

/// What the cluster calls a machine, before its name.
const KIND: &str = "virtualmachineinstance.kubevirt.io";

/// Does what was asked for.
pub async fn run(cli: Cli) -> Result<()> {
    let Cli { global, verb } = cli;
    let namespace = global.namespace.clone().unwrap_or_default();
    match verb {
        Verb::Apply(args) => apply::run(&global, &args).await,
        Verb::Get(args) => get::run(&global, &args).await,
        Verb::Console(args) => console::run(&global, &args).await,
        Verb::Logs(args) => console::logs::run(&global, &args).await,
        Verb::PortForward(args) => port_forward::run(&global, &args).await,
        Verb::Ssh(args) => Err(ssh::ssh(&global, &args)?.into()),
        Verb::Scp(args) => Err(ssh::scp(&global, &args)?.into()),
        Verb::Stop(args) => stop::run(&global, &namespace, &args).await,
        Verb::Delete(args) => delete::run(&global, &args).await,
        Verb::Top(args) => top::run(&global, &args).await,
        Verb::Events(args) => events::run(&Cluster::of(&global).await?, &args).await,
        Verb::Create(args) => create::run(&args),
        Verb::Credentials(args) => credentials::run(&Cluster::of(&global).await?, &args).await,
        Verb::Expose(args) => expose::run(&Cluster::of(&global).await?, &args).await,
        Verb::PermittedDevices => permitted_devices::run(&Cluster::of(&global).await?).await,
        Verb::Images(args) => images::run(connect_to_images(&global).await?, &args).await,
        Verb::Version(args) => version::run(&global, &args).await,
        Verb::Refused(verb) => Err(refused::because(&verb)),
        Verb::Kubeconfig => Ok(say(&paths::kubeconfig()?.display().to_string())?),
        Verb::Web => Ok(say(&paths::web_console()?)?),
        Verb::Completion { shell } => completion::script(shell, &mut io::stdout()),
        Verb::Machine(verb) => machine::run(&Cluster::of(&global).await?, &verb).await,
    }
}

/// An instance's name, without the kind that may stand before it. The instance of a VirtualMachine has its name.
fn bare_name(name: &str) -> Result<&str> {
    match name.split_once('/') {
        None => Ok(name),
        Some((kind, name)) if Target::resource(kind).is_some() => Ok(name),
        Some((kind, _)) => bail!("{kind:?} is not a kind of machine; use vmi or vm"),
    }
}

/// The objects of these files, in their order.
fn read_manifests(files: &[PathBuf]) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for file in files {
        let name = if file == Path::new("-") {
            "standard input".to_owned()
        } else {
            file.display().to_string()
        };
        let bytes = read(file).with_context(|| format!("cannot read {name}"))?;
        let found = manifest::parse(&bytes).with_context(|| name.clone())?;
        if found.is_empty() {
            bail!("{name} holds no object");
        }
        objects.extend(found);
    }
    Ok(objects)
}

/// A file, or standard input; no more of either than a manifest may have, and one byte to see that it has more.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(fs::File::open(file)?)
    };
    let mut bytes = Vec::new();
    source
        .take(manifest::MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a manifest's object is, where that is something of machines.
fn resource_of(object: &Value) -> Option<Resource> {
    let group = object["apiVersion"].as_str()?.split('/').next()?;
    let resource = Resource::named(object["kind"].as_str()?)?;
    (group == GROUP && resource != Resource::Installation).then_some(resource)
}

/// The cluster, in the namespace that a manifest's object names, which must be the one that was asked for, if one was.
fn in_namespace_of(cluster: &Cluster, global: &Global, object: &Value) -> Result<Cluster> {
    match (metadata(object, "namespace"), global.namespace.as_deref()) {
        ("", _) => Ok(cluster.clone()),
        (own, Some(asked)) if own != asked => {
            bail!("the namespace from the provided object {own:?} does not match the namespace {asked:?}")
        }
        (own, _) => Ok(cluster.in_another(own)),
    }
}

/// An object's name, which is one: what has none, or a path in it, must not lead to others.
fn own_name(object: &Value) -> Result<&str> {
    let name = metadata(object, "name");
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) || !name.bytes().all(fits) {
        bail!("{name:?} is not the name of an object");
    }
    Ok(name)
}

/// A text field of an object's metadata.
fn metadata<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn parse(object: &[u8]) -> Result<VirtualMachineInstance> {
    serde_json::from_slice(object).context("the server sent an object that cannot be understood")
}

/// The changes of one machine, beginning with what it is now.
struct Changes(Streaming<rvm_proto::v1::WatchResponse>);

impl Changes {
    async fn of(client: &mut Client, namespace: &str, name: &str) -> Result<Self> {
        let request = WatchRequest {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        Ok(Self(client.watch(request).await?.into_inner()))
    }

    /// The machine after its next change; none when it is gone.
    async fn next(&mut self) -> Result<Option<VirtualMachineInstance>> {
        let response = self
            .0
            .message()
            .await?
            .context("the server has closed the watch")?;
        match response.change() {
            Change::Deleted => Ok(None),
            Change::Applied | Change::Unspecified => parse(&response.object).map(Some),
        }
    }
}
