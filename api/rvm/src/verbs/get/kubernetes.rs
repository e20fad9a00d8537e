//! Objects by the Kubernetes API. The server makes the tables, so their columns are those that kubectl prints.

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use http::Request;
use http::header::{ACCEPT, HeaderValue};
use kube::api::{GetParams, ListParams, WatchEvent, WatchParams};
use serde_json::Value;

use super::{Asked, list, nothing_in, one};
use crate::args::{Get, Output};
use crate::cluster::{Cluster, Resource, Said};
use crate::screen::{Row, Table, progress, say};

/// A table, and the objects themselves from a server that makes none.
const TABLE: HeaderValue =
    HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io,application/json");

pub(super) async fn run(cluster: &Cluster, asked: &Asked<'_>, args: &Get) -> Result<()> {
    let inquiry = Inquiry {
        cluster,
        asked,
        args,
        path: cluster.collection(asked.resource, args.all_namespaces),
    };
    let said = cluster.exchange(inquiry.now()?).await?;
    let said: Value = serde_json::from_str(&said).context("the server sent something that is no JSON")?;
    let mut printer = Printer {
        output: args.output,
        resource: asked.resource,
        namespaces: args.all_namespaces,
        table: None,
    };
    let is_empty = printer.items(&said).is_some_and(<[Value]>::is_empty);
    if is_empty && printer.is_table() {
        progress(&nothing_in((!args.all_namespaces).then(|| cluster.namespace())));
    } else {
        printer.print(&said)?;
    }
    if args.watch {
        let version = said["metadata"]["resourceVersion"].as_str().unwrap_or("0");
        return inquiry.watch(version.to_owned(), &mut printer).await;
    }
    Ok(())
}

/// What is asked, and how.
struct Inquiry<'a> {
    cluster: &'a Cluster,
    asked: &'a Asked<'a>,
    args: &'a Get,
    path: String,
}

impl Inquiry<'_> {
    fn now(&self) -> Result<Request<Vec<u8>>> {
        let collection = kube::core::Request::new(self.path.clone());
        let request = match (self.asked.name, &self.args.selector) {
            (Some(name), _) => collection.get(name, &GetParams::default()),
            (None, Some(selector)) => collection.list(&ListParams::default().labels(selector)),
            (None, None) => collection.list(&ListParams::default()),
        };
        Ok(self.wanting(request?))
    }

    fn later(&self, version: &str) -> Result<Request<Vec<u8>>> {
        let mut params = WatchParams::default().disable_bookmarks();
        if let Some(selector) = &self.args.selector {
            params = params.labels(selector);
        }
        if let Some(name) = self.asked.name {
            params = params.fields(&format!("metadata.name={name}"));
        }
        let request = kube::core::Request::new(self.path.clone()).watch(&params, version);
        Ok(self.wanting(request?))
    }

    fn wanting(&self, mut request: Request<Vec<u8>>) -> Request<Vec<u8>> {
        if matches!(self.args.output, Output::Table | Output::Wide) {
            request.headers_mut().insert(ACCEPT, TABLE);
        }
        request
    }

    /// Prints each change. A server ends its watches now and then; the next one goes on where that was.
    async fn watch(&self, mut version: String, printer: &mut Printer) -> Result<()> {
        loop {
            let request = self.later(&version)?;
            let events = self.cluster.client().request_events::<Value>(request).await;
            let mut events = std::pin::pin!(events.map_err(Said::from)?);
            while let Some(event) = events.try_next().await.map_err(Said::from)? {
                match event {
                    WatchEvent::Added(object)
                    | WatchEvent::Modified(object)
                    | WatchEvent::Deleted(object) => {
                        let of = object.pointer("/rows/0/object").unwrap_or(&object);
                        if let Some(newer) = of["metadata"]["resourceVersion"].as_str() {
                            newer.clone_into(&mut version);
                        }
                        printer.print(&object)?;
                    }
                    WatchEvent::Bookmark(_) => {}
                    WatchEvent::Error(status) => bail!("the server has closed the watch: {}", status.message),
                }
            }
        }
    }
}

/// Prints what the server says in the form that was asked for.
struct Printer {
    output: Output,
    resource: Resource,
    namespaces: bool,
    /// None before its first line.
    table: Option<Printed>,
}

/// A table of which a part is printed.
struct Printed {
    table: Table,
    /// Which of the server's columns are in it.
    chosen: Vec<usize>,
}

impl Printer {
    fn is_table(&self) -> bool {
        matches!(self.output, Output::Table | Output::Wide)
    }

    /// The rows of a table, or the objects of a list.
    fn items<'a>(&self, said: &'a Value) -> Option<&'a [Value]> {
        let field = if said["kind"] == "Table" { "rows" } else { "items" };
        said[field].as_array().map(Vec::as_slice)
    }

    fn print(&mut self, said: &Value) -> Result<()> {
        if self.is_table() && said["kind"] == "Table" {
            return self.table(said);
        }
        match self.items(said) {
            Some(items) => list(self.output, self.resource, items),
            None => one(self.output, self.resource, said),
        }
    }

    fn table(&mut self, said: &Value) -> Result<()> {
        let rows = self.items(said).unwrap_or_default().to_vec();
        let (wide, namespaces) = (self.output == Output::Wide, self.namespaces);
        // A watch says its columns once.
        let printed = self
            .table
            .get_or_insert_with(|| Printed::new(said, wide, namespaces));
        let rows = rows.iter().map(|row| printed.row(row, namespaces)).collect();
        Ok(say(&printed.table.lines(rows))?)
    }
}

impl Printed {
    fn new(said: &Value, wide: bool, namespaces: bool) -> Self {
        let columns = said["columnDefinitions"].as_array().map(Vec::as_slice);
        let shown = |column: &Value| wide || column["priority"].as_i64().unwrap_or(0) == 0;
        let columns = columns.unwrap_or_default().iter().enumerate();
        let chosen: Vec<_> = columns.filter(|(_, column)| shown(column)).collect();
        let names = chosen
            .iter()
            .map(|(_, column)| text(&column["name"]).to_uppercase());
        let header = namespaces
            .then(|| "NAMESPACE".to_owned())
            .into_iter()
            .chain(names);
        Self {
            table: Table::new(header.collect()),
            chosen: chosen.iter().map(|(index, _)| *index).collect(),
        }
    }

    fn row(&self, row: &Value, namespaces: bool) -> Row {
        let namespace = namespaces.then(|| text(&row["object"]["metadata"]["namespace"]));
        let cells = self.chosen.iter().map(|index| text(&row["cells"][*index]));
        namespace.into_iter().chain(cells).collect()
    }
}

/// A cell as people read it.
fn text(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_servers_columns_are_shown_and_more_of_them_where_that_is_asked_for() {
        let table = json!({
            "kind": "Table",
            "columnDefinitions": [{"name": "Name"}, {"name": "Status", "priority": 0}, {"name": "Paused", "priority": 1}],
            "rows": [{"cells": ["a", "Running", null], "object": {"metadata": {"namespace": "lab"}}}],
        });
        let shown = |wide, namespaces| {
            let mut printed = Printed::new(&table, wide, namespaces);
            let row = printed.row(&table["rows"][0], namespaces);
            anstream::adapter::strip_str(&printed.table.lines(vec![row])).to_string()
        };
        assert_eq!(shown(false, false), "NAME   STATUS\na      Running");
        assert_eq!(
            shown(true, true),
            "NAMESPACE   NAME   STATUS    PAUSED\nlab         a      Running"
        );
    }
}
