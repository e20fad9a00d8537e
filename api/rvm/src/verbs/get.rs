//! `rvm get`: machines as a table or as objects, once or for as long as somebody looks.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use jiff::Timestamp;
use rvm_proto::v1::{GetRequest, ListRequest, WatchRequest};
use rvm_types::manifest;
use serde_json::{Value, json};

use super::{KIND, bare_name, is_kind, metadata, parse};
use crate::args::{Get, Output};
use crate::connect::Client;
use crate::screen::{Row, Table, progress, say};

pub async fn run(mut client: Client, namespace: &str, args: &Get) -> Result<()> {
    let name = name(&args.what)?;
    if args.all_namespaces && !name.is_empty() {
        bail!("a name and --all-namespaces exclude each other");
    }
    let namespace = match (args.all_namespaces, namespace) {
        (true, _) => "",
        (false, "") => "default",
        (false, namespace) => namespace,
    };
    let mut printer = Printer {
        output: args.output,
        table: Table::new(args.all_namespaces),
    };
    if args.watch {
        return watch(&mut client, namespace, name, &mut printer).await;
    }
    if name.is_empty() {
        let request = ListRequest {
            namespace: namespace.to_owned(),
        };
        let objects = client.list(request).await?.into_inner().objects;
        if objects.is_empty() && args.output == Output::Table {
            progress(&nothing_in(namespace));
            return Ok(());
        }
        return printer.list(&objects);
    }
    let request = GetRequest {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    printer.one(&client.get(request).await?.into_inner().object)
}

/// `rvm get [vmi] [NAME]`, and `rvm get vmi/NAME`.
fn name(what: &[String]) -> Result<&str> {
    match what {
        [] => Ok(""),
        [word] if is_kind(word) => Ok(""),
        [name] => bare_name(name),
        [kind, name] if is_kind(kind) => Ok(name),
        [kind, ..] => bail!("{kind:?} is not a kind of machine; use vmi"),
    }
}

fn nothing_in(namespace: &str) -> String {
    match namespace {
        "" => "No machines found.".to_owned(),
        namespace => format!("No machines found in namespace {namespace:?}."),
    }
}

async fn watch(client: &mut Client, namespace: &str, name: &str, printer: &mut Printer) -> Result<()> {
    let request = WatchRequest {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let mut changes = client.watch(request).await?.into_inner();
    while let Some(change) = changes.message().await? {
        printer.one(&change.object)?;
    }
    bail!("the server has closed the watch")
}

/// Prints objects in the form that was asked for.
struct Printer {
    output: Output,
    table: Table,
}

impl Printer {
    fn list(&mut self, objects: &[Bytes]) -> Result<()> {
        match self.output {
            Output::Table => self.rows(objects),
            Output::Name => objects.iter().try_for_each(|object| self.one(object)),
            Output::Json | Output::Yaml => {
                let items = objects
                    .iter()
                    .map(|object| read(object))
                    .collect::<Result<Vec<_>>>()?;
                self.value(&json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items }))
            }
        }
    }

    fn one(&mut self, object: &Bytes) -> Result<()> {
        match self.output {
            Output::Table => self.rows(std::slice::from_ref(object)),
            Output::Name => Ok(say(&format!("{KIND}/{}", metadata(&read(object)?, "name")))?),
            Output::Json | Output::Yaml => self.value(&read(object)?),
        }
    }

    fn rows(&mut self, objects: &[Bytes]) -> Result<()> {
        let now = Timestamp::now();
        let rows = objects
            .iter()
            .map(|object| Ok(Row::new(&parse(object)?, now)))
            .collect::<Result<Vec<_>>>()?;
        Ok(say(&self.table.lines(&rows))?)
    }

    fn value(&self, value: &Value) -> Result<()> {
        match self.output {
            Output::Yaml => Ok(say(&format!("---\n{}", manifest::to_yaml(value)?.trim_end()))?),
            _ => Ok(say(&serde_json::to_string_pretty(value)?)?),
        }
    }
}

fn read(object: &[u8]) -> Result<Value> {
    serde_json::from_slice(object).context("the server sent something that is no JSON")
}
