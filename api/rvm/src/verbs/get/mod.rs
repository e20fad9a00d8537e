//! `rvm get`: objects as a table or as they are, once or for as long as somebody looks.
//!
//! Which API is asked makes no difference but one: rvm.v1 knows VirtualMachineInstances alone, and no selectors.

mod kubernetes;
mod rvm;

use anyhow::{Context, Result, bail};
use rvm_types::manifest;
use serde_json::{Value, json};

use super::metadata;
use crate::args::{Get, Global, Output};
use crate::cluster::Resource;
use crate::connect::Door;
use crate::screen::say;

pub async fn run(global: &Global, args: &Get) -> Result<()> {
    let asked = Asked::parse(&args.what)?;
    if args.all_namespaces && asked.name.is_some() {
        bail!("a name and --all-namespaces exclude each other");
    }
    if args.selector.is_some() && asked.name.is_some() {
        bail!("a name and --selector exclude each other");
    }
    let beyond = if args.selector.is_some() {
        Some("selectors")
    } else {
        Resource::beyond_rvm([asked.resource])
    };
    match Door::find_for(global, beyond).await? {
        Door::Rvm(client) => {
            let namespace = global.namespace.as_deref().unwrap_or_default();
            rvm::run(client, namespace, asked.name.unwrap_or_default(), args).await
        }
        Door::Kubernetes(cluster) => kubernetes::run(&cluster, &asked, args).await,
    }
}

/// One object, or all of its kind.
struct Asked<'a> {
    resource: Resource,
    name: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// `get [KIND] [NAME]`, and `get KIND/NAME`.
    fn parse(words: &'a [String]) -> Result<Self> {
        let (resource, name) = match words {
            [] => (Resource::Instance, None),
            [word] => match (Resource::named(word), word.split_once('/')) {
                (Some(resource), _) => (resource, None),
                (None, Some((kind, name))) => (self::kind(kind)?, Some(name)),
                (None, None) => (Resource::Instance, Some(word.as_str())),
            },
            [kind, name, ..] => (self::kind(kind)?, Some(name.as_str())),
        };
        Ok(Self { resource, name })
    }
}

/// The kind of this name.
fn kind(word: &str) -> Result<Resource> {
    Resource::named(word).with_context(|| {
        format!("{word:?} is not a kind of machine; use vmi, vm or vmirs, and kubectl for others")
    })
}

fn nothing_in(namespace: Option<&str>) -> String {
    match namespace {
        None => "No machines found.".to_owned(),
        Some(namespace) => format!("No machines found in namespace {namespace:?}."),
    }
}

/// Objects in a form for programs.
fn list(output: Output, resource: Resource, items: &[Value]) -> Result<()> {
    match output {
        Output::Name => items.iter().try_for_each(|object| one(output, resource, object)),
        _ => one(
            output,
            resource,
            &json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items }),
        ),
    }
}

/// One object in a form for programs.
fn one(output: Output, resource: Resource, object: &Value) -> Result<()> {
    let text = match output {
        Output::Name => format!("{}.kubevirt.io/{}", resource.singular(), metadata(object, "name")),
        Output::Yaml => format!("---\n{}", manifest::to_yaml(object)?.trim_end()),
        Output::Table | Output::Wide | Output::Json => serde_json::to_string_pretty(object)?,
    };
    Ok(say(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Option<(Resource, Option<String>)> {
        let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
        let asked = Asked::parse(&words).ok()?;
        Some((asked.resource, asked.name.map(str::to_owned)))
    }

    #[test]
    fn a_kind_may_stand_alone_before_a_name_or_nowhere() {
        let named = |resource, name: &str| Some((resource, Some(name.to_owned())));
        assert_eq!(parsed(&[]), Some((Resource::Instance, None)));
        assert_eq!(parsed(&["VirtualMachine"]), Some((Resource::Machine, None)));
        assert_eq!(parsed(&["a"]), named(Resource::Instance, "a"));
        assert_eq!(parsed(&["vm/a"]), named(Resource::Machine, "a"));
        assert_eq!(parsed(&["vmis.kubevirt.io", "a"]), named(Resource::Instance, "a"));
        assert_eq!(parsed(&["vmirs", "a"]), named(Resource::ReplicaSet, "a"));
        assert_eq!(parsed(&["pod", "a"]), None);
        assert_eq!(parsed(&["pod/a"]), None);
    }
}
