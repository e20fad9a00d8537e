//! `make bench ROWS=scale`: a thousand VMIs through a real kube-apiserver, on one node, each a process that only speaks rvmm's control
//! protocol. All else is as it is installed: rvm-api behind kube-apiserver's aggregation, a handler, networks.
//!
//! ```text
//!   crowd ── 10 a second ──► kube-apiserver ◄── watch ── rvm-handler ──► rvm-stand-in × 1000
//!                              │ audit log              rvm-api
//! ```

mod audit;
mod crowd;
mod figures;
mod memory;

use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use rvm_guests::oci::{About, Layer, write_layout};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Api, Cluster, Handler, HandlerSetup, Tools};

use audit::{Audit, Requests};
use crowd::Times;
use figures::{Figure, Unit, percentile};

/// The accounts of our programs.
const HANDLER: &str = "system:serviceaccount:rvm:rvm-handler";
const API: &str = "system:serviceaccount:rvm:rvm-api";

/// What stands in the place of rvmm.
const STAND_IN: &str = "rvm-stand-in";

/// Addresses for more machines than one node is made for.
const NETWORK: &str = "10.244.0.0/20";

/// Makes machines that are none, and measures what that takes.
#[derive(Debug, Parser)]
struct Args {
    /// How many
    #[arg(long, default_value_t = 1000)]
    machines: u32,
    /// How many are made a second
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Seconds after a restart in which requests are counted
    #[arg(long, default_value_t = 60)]
    quiet: u64,
    /// No networks for the machines
    #[arg(long)]
    no_network: bool,
    /// Where the figures go, a line each
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

/// The cluster with all that runs in it.
struct Stage {
    cluster: Cluster,
    api: Api,
    handler: Handler,
    audit: Audit,
    _folder: tempfile::TempDir,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "rvm-scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let mut stage = Stage::set(args)?;
    let mut figures = stage.fill(args)?;
    figures.extend(stage.memory()?);
    figures.extend(stage.restart(args)?);
    let emptied = stage.empty();
    figures.extend(emptied.as_ref().ok().cloned());
    writeln!(stdout(), "{}", figures::table(&figures))?;
    if let Some(results) = &args.results {
        std::fs::write(results, figures::lines(&figures))?;
    }
    emptied.map(drop)
}

fn say(text: &str) {
    // Who does not listen gets the table all the same.
    let _ = writeln!(stderr(), "scale: {text}");
}

// === impl Stage ===

impl Stage {
    fn set(args: &Args) -> Result<Self> {
        let tools = Tools::open()?;
        let cluster = Cluster::start_audited(&tools)?;
        cluster.add_node("n1")?;
        let folder = tempfile::tempdir()?;
        let mut layer = Layer::new();
        // Nobody boots it.
        layer.file("kernel", 0o644, &[0; 4096])?;
        let about = About {
            tag: "1",
            command: &[],
            made_by: "rvm-scale",
        };
        let layout = folder.path().join("image");
        write_layout(&layout, &about, layer)?;
        let mirror = format!("{}=oci:{}:1", crowd::IMAGE, layout.display());
        let stand_in = std::env::current_exe()?.with_file_name(STAND_IN);
        let stand_in = stand_in
            .to_str()
            .context("the stand-in's path is no text")?
            .to_owned();
        let network = if args.no_network { "none" } else { NETWORK };
        let setup = HandlerSetup::on_node(&cluster, "n1").with(&[
            "--grpc-listen",
            "127.0.0.1:0",
            "--mirror",
            &mirror,
            "--rvmm",
            &stand_in,
            "--pod-network",
            network,
        ]);
        let handler = setup.start(&tools)?;
        let api = Api::start(&tools, &cluster)?;
        Ok(Self {
            audit: Audit::new(cluster.audit_log()),
            cluster,
            api,
            handler,
            _folder: folder,
        })
    }

    /// Makes all, and tells how fast they ran and what was asked for that.
    fn fill(&mut self, args: &Args) -> Result<Vec<Figure>> {
        say(&format!("{} machines, {} a second", args.machines, args.rate));
        self.audit.since()?;
        let runtime = tokio::runtime::Runtime::new()?;
        let times = runtime.block_on(async {
            let client = crowd::client(&self.cluster.kubeconfig()).await?;
            crowd::make(client, args.machines, args.rate).await
        })?;
        std::thread::sleep(Duration::from_secs(args.quiet));
        let requests = self.audit.since()?;
        for user in [HANDLER, API] {
            say(&format!("{user}: {}", requests.kinds_of(user)));
        }
        let mut figures = speed(&times, args);
        figures.extend(per_machine(&requests, args.machines));
        Ok(figures)
    }

    fn memory(&self) -> Result<Vec<Figure>> {
        let api = memory::of(self.api.id()?)?;
        let handler = memory::of(self.handler.id()?)?;
        let run_dir = self.handler.run_dir();
        // The handler itself is started with that folder, too.
        let helpers = memory::of_those_in(&run_dir, STAND_IN.as_ref())? - handler;
        let row = |row, value, kubevirt| Figure {
            row,
            value,
            unit: Unit::Bytes,
            kubevirt,
        };
        Ok(vec![
            row(
                "rss-api-and-controller",
                api,
                "virt-api 133–145 MB, virt-controller 58–66 MB, with 100 VMIs",
            ),
            row(
                "rss-handler",
                handler,
                "15–27 MB for each VMI of the node, weekly mean",
            ),
            row("rss-handler-s-helpers", helpers, "–"),
            row(
                "rss-in-all",
                api + handler + helpers,
                "2275Mi requested before any VMI",
            ),
        ])
    }

    /// Ends each program and starts it again, and counts what it asks until it is quiet.
    fn restart(&mut self, args: &Args) -> Result<Vec<Figure>> {
        let quiet = Duration::from_secs(args.quiet);
        self.audit.since()?;
        self.api.terminate()?;
        self.api.start_again()?;
        self.api.await_available(self.cluster.kubectl())?;
        std::thread::sleep(quiet);
        let of_api = self.audit.since()?;
        say(&format!("rvm-api, once more: {}", of_api.kinds_of(API)));
        self.handler.terminate()?;
        self.handler.start()?;
        std::thread::sleep(quiet);
        let of_handler = self.audit.since()?;
        say(&format!(
            "rvm-handler, once more: {}",
            of_handler.kinds_of(HANDLER)
        ));
        let row = |row, value| Figure {
            row,
            value: count(value),
            unit: Unit::Count,
            kubevirt: "–",
        };
        Ok(vec![
            row("requests-after-restart-of-api", of_api.of(API)),
            row("changes-after-restart-of-api", of_api.changes_of(API)),
            row("requests-after-restart-of-handler", of_handler.of(HANDLER)),
            row("changes-after-restart-of-handler", of_handler.changes_of(HANDLER)),
        ])
    }

    /// Deletes all.
    fn empty(&self) -> Result<Figure> {
        let begun = Instant::now();
        let kubectl = self.cluster.kubectl();
        // Waiting for each, kubectl asks for each, and not faster than it lets itself.
        kubectl.ok(&["delete", "vmi", "--all", "--wait=false"])?;
        let gone = eventually("end of all", || {
            let left = kubectl.ok(&["get", "vmi", "-o", "name"])?;
            Ok(Look::of(left.is_empty().then_some(()), || {
                left.lines().count().to_string()
            }))
        });
        gone.map(|()| Figure {
            row: "deleting-all",
            value: begun.elapsed().as_secs_f64(),
            unit: Unit::Seconds,
            kubevirt: "–",
        })
    }
}

fn speed(times: &Times, args: &Args) -> Vec<Figure> {
    let rows = [
        (
            "creation-to-running-p50",
            percentile(&times.stamped, 50),
            "16–19 s (12–26 s since 2025), 100 VMIs",
        ),
        (
            "creation-to-running-p95",
            percentile(&times.stamped, 95),
            "25–28 s (15–39 s), 100 VMIs",
        ),
        (
            "creation-to-running-p50-watched",
            percentile(&times.watched, 50),
            "–",
        ),
        (
            "creation-to-running-p95-watched",
            percentile(&times.watched, 95),
            "–",
        ),
        (
            "creation-to-running-most-watched",
            percentile(&times.watched, 100),
            "–",
        ),
        (
            "creations-a-second",
            Some(f64::from(args.machines) / times.making),
            "10",
        ),
    ];
    let figure = |(row, value, kubevirt): (&'static str, Option<f64>, &'static str)| {
        let unit = if row == "creations-a-second" {
            Unit::Ratio
        } else {
            Unit::Seconds
        };
        Some(Figure {
            row,
            value: value?,
            unit,
            kubevirt,
        })
    };
    rows.into_iter().filter_map(figure).collect()
}

fn per_machine(requests: &Requests, machines: u32) -> Vec<Figure> {
    let row = |row, number| Figure {
        row,
        value: count(number) / f64::from(machines),
        unit: Unit::Ratio,
        kubevirt: "–",
    };
    vec![
        row("requests-for-each-by-handler", requests.of(HANDLER)),
        row("changes-for-each-by-handler", requests.changes_of(HANDLER)),
        row("requests-for-each-by-api", requests.of(API)),
        row("changes-for-each-by-api", requests.changes_of(API)),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "nobody makes 2^52 requests")]
fn count(number: u64) -> f64 {
    number as f64
}
