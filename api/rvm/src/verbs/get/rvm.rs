//! Machines by rvm.v1.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use jiff::Timestamp;
use rvm_proto::v1::{GetRequest, ListRequest, WatchRequest};
use serde_json::Value;

use super::{list, nothing_in, one};
use crate::args::{Get, Output};
use crate::cluster::Resource;
use crate::connect::Client;
use crate::screen::{Columns, Table, progress, say};
use crate::verbs::parse;

pub(super) async fn run(mut client: Client, namespace: &str, name: &str, args: &Get) -> Result<()> {
    let namespace = match (args.all_namespaces, namespace) {
        (true, _) => "",
        (false, "") => "default",
        (false, namespace) => namespace,
    };
    let columns = Columns {
        namespaces: args.all_namespaces,
        wide: args.output == Output::Wide,
    };
    let mut printer = Printer {
        output: args.output,
        columns,
        table: Table::new(columns.header()),
    };
    if args.watch {
        return watch(&mut client, namespace, name, &mut printer).await;
    }
    if name.is_empty() {
        let request = ListRequest {
            namespace: namespace.to_owned(),
        };
        let objects = client.list(request).await?.into_inner().objects;
        if objects.is_empty() && printer.is_table() {
            progress(&nothing_in((!namespace.is_empty()).then_some(namespace)));
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
    columns: Columns,
    table: Table,
}

impl Printer {
    fn is_table(&self) -> bool {
        matches!(self.output, Output::Table | Output::Wide)
    }

    fn list(&mut self, objects: &[Bytes]) -> Result<()> {
        if self.is_table() {
            return self.rows(objects);
        }
        let items = objects
            .iter()
            .map(|object| read(object))
            .collect::<Result<Vec<_>>>()?;
        list(self.output, Resource::Instance, &items)
    }

    fn one(&mut self, object: &Bytes) -> Result<()> {
        if self.is_table() {
            return self.rows(std::slice::from_ref(object));
        }
        one(self.output, Resource::Instance, &read(object)?)
    }

    fn rows(&mut self, objects: &[Bytes]) -> Result<()> {
        let now = Timestamp::now();
        let rows = objects
            .iter()
            .map(|object| Ok(self.columns.row(&parse(object)?, now)))
            .collect::<Result<Vec<_>>>()?;
        Ok(say(&self.table.lines(rows))?)
    }
}

fn read(object: &[u8]) -> Result<Value> {
    serde_json::from_slice(object).context("the server sent something that is no JSON")
}
