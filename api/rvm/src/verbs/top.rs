//! `rvm top`: what the machines that run take of their nodes.
//!
//! ```text
//!   who runs? ─► what has each taken? ─► a second ─► what has each taken? ─► the differences, by the nodes' own clocks
//! ```

use std::cmp::Reverse;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use rvm_proto::v1::{ListRequest, UsageRequest, UsageResponse};
use rvm_types::{Phase, VirtualMachineInstance};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{bare_name, parse};
use crate::args::{Global, Top, TopOrder, TopOutput};
use crate::cluster::Resource;
use crate::connect::Door;
use crate::screen::{columns, progress, say};

/// Between two looks.
const WHILE: Duration = Duration::from_secs(1);
/// Machines that are asked about at once.
const AT_ONCE: usize = 16;
/// Where nothing could be learnt.
const UNKNOWN: &str = "<unknown>";

/// A machine's namespace and name.
type Name = (String, String);

/// What was taken between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    /// Thousandths of a processor.
    millicores: u64,
    cpus: u32,
    memory: u64,
    guest_memory: u64,
}

/// A machine, and what it takes, if that is known.
struct Line {
    name: Name,
    taken: Option<Taken>,
}

pub async fn run(global: &Global, args: &Top) -> Result<()> {
    let door = Door::find(global).await?;
    let namespace = match (&door, &global.namespace) {
        (Door::Kubernetes(cluster), _) => cluster.namespace().to_owned(),
        (Door::Rvm(_), Some(namespace)) => namespace.clone(),
        (Door::Rvm(_), None) => "default".to_owned(),
    };
    let names = match &args.name {
        Some(name) => vec![(namespace, bare_name(name)?.to_owned())],
        None => {
            let here = (!args.all_namespaces).then_some(namespace.as_str());
            let names = running(&door, here).await?;
            if names.is_empty() && args.output == TopOutput::Table {
                let place = here.map_or(String::new(), |namespace| format!(" in namespace {namespace:?}"));
                progress(&format!("No machines run{place}."));
                return Ok(());
            }
            names
        }
    };
    let before = look(&door, &names).await;
    sleep(WHILE).await;
    let after = look(&door, &names).await;
    let mut lines = lines(names, before, after)?;
    match args.sort_by {
        TopOrder::Name => lines.sort_by(|one, other| one.name.cmp(&other.name)),
        TopOrder::Cpu => lines.sort_by_key(|line| Reverse(line.taken.map(|taken| taken.millicores))),
        TopOrder::Memory => lines.sort_by_key(|line| Reverse(line.taken.map(|taken| taken.memory))),
    }
    match args.output {
        TopOutput::Json => {
            let lines: Vec<_> = lines.iter().filter_map(Line::object).collect();
            Ok(say(&serde_json::to_string_pretty(&lines)?)?)
        }
        TopOutput::Table => Ok(say(&table(&lines, args.all_namespaces))?),
    }
}

/// The machines that run.
async fn running(door: &Door, namespace: Option<&str>) -> Result<Vec<Name>> {
    let machines: Vec<VirtualMachineInstance> = match door {
        Door::Rvm(client) => {
            let namespace = namespace.unwrap_or_default().to_owned();
            let listed = client.clone().list(ListRequest { namespace }).await?.into_inner();
            let machines = listed.objects.iter().map(|object| parse(object));
            machines.collect::<Result<_>>()?
        }
        Door::Kubernetes(cluster) => {
            let mut list = cluster
                .get(&cluster.collection(Resource::Instance, namespace.is_none()))
                .await?;
            serde_json::from_value(list["items"].take())
                .context("the server sent an object that cannot be understood")?
        }
    };
    let runs = |vmi: &VirtualMachineInstance| vmi.phase() == Some(&Phase::Running);
    let name = |vmi: VirtualMachineInstance| {
        let metadata = vmi.metadata;
        (
            metadata.namespace.unwrap_or_default(),
            metadata.name.unwrap_or_default(),
        )
    };
    Ok(machines.into_iter().filter(runs).map(name).collect())
}

/// What each has taken, in the same order.
async fn look(door: &Door, names: &[Name]) -> Vec<Result<UsageResponse>> {
    let asked = names.iter().map(|name| usage(door, name));
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

async fn usage(door: &Door, (namespace, name): &Name) -> Result<UsageResponse> {
    match door {
        Door::Rvm(client) => {
            let (namespace, name) = (namespace.clone(), name.clone());
            let said = client.clone().usage(UsageRequest { namespace, name }).await;
            Ok(said?.into_inner())
        }
        Door::Kubernetes(cluster) => {
            let cluster = cluster.in_another(namespace);
            let said = cluster
                .get(&cluster.below(Resource::Instance, name, "usage"))
                .await?;
            let number = |field: &str| said[field].as_u64().unwrap_or_default();
            Ok(UsageResponse {
                at_microseconds: number("atMicroseconds"),
                cpu_microseconds: number("cpuMicroseconds"),
                memory_bytes: number("memoryBytes"),
                cpus: u32::try_from(number("cpus")).unwrap_or_default(),
                guest_memory_bytes: number("guestMemoryBytes"),
            })
        }
    }
}

/// The differences. Of one that has ended meanwhile nothing is known; of none, the first reason is told.
fn lines(
    names: Vec<Name>,
    before: Vec<Result<UsageResponse>>,
    after: Vec<Result<UsageResponse>>,
) -> Result<Vec<Line>> {
    let (mut lines, mut first) = (Vec::new(), None);
    for (name, looks) in names.into_iter().zip(before.into_iter().zip(after)) {
        let taken = match looks {
            (Ok(before), Ok(after)) => Some(Taken::between(&before, &after)),
            (Err(why), _) | (_, Err(why)) => {
                first.get_or_insert(why);
                None
            }
        };
        lines.push(Line { name, taken });
    }
    match first {
        Some(why) if lines.iter().all(|line| line.taken.is_none()) => Err(why),
        _ => Ok(lines),
    }
}

fn table(lines: &[Line], namespaces: bool) -> String {
    let header = ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"];
    let rows: Vec<_> = lines.iter().map(Line::cells).collect();
    if !namespaces {
        return columns(header, &rows);
    }
    let [name, rest @ ..] = header;
    let [cpu, cpu_share, memory, memory_share] = rest;
    let header = ["NAMESPACE", name, cpu, cpu_share, memory, memory_share];
    let rows: Vec<_> = lines
        .iter()
        .zip(rows)
        .map(|(line, [name, cpu, cpu_share, memory, memory_share])| {
            [line.name.0.clone(), name, cpu, cpu_share, memory, memory_share]
        })
        .collect();
    columns(header, &rows)
}

// === impl Taken ===

impl Taken {
    fn between(before: &UsageResponse, after: &UsageResponse) -> Self {
        let time = after.at_microseconds.saturating_sub(before.at_microseconds);
        let spent = after.cpu_microseconds.saturating_sub(before.cpu_microseconds);
        Self {
            millicores: spent.saturating_mul(1000).checked_div(time).unwrap_or_default(),
            cpus: after.cpus,
            memory: after.memory_bytes,
            guest_memory: after.guest_memory_bytes,
        }
    }
}

// === impl Line ===

impl Line {
    fn cells(&self) -> [String; 5] {
        let name = self.name.1.clone();
        let Some(taken) = self.taken else {
            return [
                name,
                UNKNOWN.into(),
                UNKNOWN.into(),
                UNKNOWN.into(),
                UNKNOWN.into(),
            ];
        };
        let share = |part: u64, whole: u64| {
            let percent = part.saturating_mul(100).checked_div(whole);
            percent.map_or(UNKNOWN.to_owned(), |percent| format!("{percent}%"))
        };
        [
            name,
            format!("{}m", taken.millicores),
            share(taken.millicores, u64::from(taken.cpus) * 1000),
            format!("{}Mi", taken.memory >> 20),
            share(taken.memory, taken.guest_memory),
        ]
    }

    fn object(&self) -> Option<Value> {
        let (namespace, name) = &self.name;
        let taken = self.taken?;
        Some(json!({
            "namespace": namespace, "name": name, "cpuMillicores": taken.millicores, "cpus": taken.cpus,
            "memoryBytes": taken.memory, "guestMemoryBytes": taken.guest_memory,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, cpu: u64) -> UsageResponse {
        UsageResponse {
            at_microseconds: seconds * 1_000_000,
            cpu_microseconds: cpu,
            memory_bytes: 96 << 20,
            cpus: 2,
            guest_memory_bytes: 128 << 20,
        }
    }

    fn named(names: &[&str]) -> Vec<Name> {
        names
            .iter()
            .map(|name| ("lab".to_owned(), (*name).to_owned()))
            .collect()
    }

    #[test]
    fn the_difference_of_two_looks_is_what_is_taken() {
        let looks = |cpu| vec![Ok(at(2, cpu)), Err(anyhow::anyhow!("it has ended"))];
        let before = vec![Ok(at(1, 500_000)), Ok(at(1, 0))];
        let lines = lines(named(&["a", "b"]), before, looks(2_000_000)).unwrap();
        assert_eq!(
            table(&lines, true),
            "NAMESPACE   NAME   CPU(cores)   CPU(%)      MEMORY(bytes)   MEMORY(%)\n\
             lab         a      1500m        75%         96Mi            75%\n\
             lab         b      <unknown>    <unknown>   <unknown>       <unknown>"
        );
        // A clock that stands is no division by nothing.
        assert_eq!(Taken::between(&at(1, 5), &at(1, 9)).millicores, 0);
    }

    #[test]
    fn where_nothing_is_known_the_first_reason_is_told() {
        let no = |why: &'static str| Err(anyhow::anyhow!(why));
        let told = lines(
            named(&["a", "b"]),
            vec![no("one"), no("two")],
            vec![no("three"), no("four")],
        );
        assert_eq!(told.err().unwrap().to_string(), "one");
        assert!(lines(Vec::new(), Vec::new(), Vec::new()).unwrap().is_empty());
    }
}
