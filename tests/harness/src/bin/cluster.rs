//! `cluster [--bare] [--riscv64] [IMAGE…]`: a cluster with a real node to work in by hand, until a line or the end of the input
//! comes.
//!
//! `--bare` leaves out our CRDs and roles, for an installation by hand. `--riscv64` adds a node of riscv64 with KVM, and images of
//! ours are for it too. Each IMAGE, such as `rvm-api`, is pushed to the node's
//! registry from what cargo has built; the demo guest's image is there as `library/alpine:3.23`.

use std::io::BufRead;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use rvm_guests::product::NAMES;
use rvm_harness::node::REGISTRY;
use rvm_harness::{Cluster, Tools, images};

const BARE: &str = "--bare";
const RISCV64: &str = "--riscv64";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (flags, wanted): (Vec<&str>, Vec<&str>) = words
        .iter()
        .map(String::as_str)
        .partition(|word| word.starts_with('-'));
    ensure!(
        flags.iter().all(|flag| [BARE, RISCV64].contains(flag))
            && wanted.iter().all(|image| NAMES.contains(image)),
        "usage: cluster [{BARE}] [{RISCV64}] [IMAGE...]; images: {}",
        NAMES.join(" ")
    );
    let tools = Tools::open()?;
    let cluster = if flags.contains(&BARE) {
        Cluster::start_bare_on_node(&tools)?
    } else {
        Cluster::start_on_node(&tools)?
    };
    let node = cluster.node()?;
    node.push(&tools.demo().image(), "library/alpine:3.23")?;
    let second = flags.contains(&RISCV64);
    if second {
        images::push_for_both(&tools, node, &wanted)?;
    } else {
        images::push(&tools, node, &wanted)?;
    }
    let _second = second.then(|| cluster.start_riscv64_node()).transpose()?;
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    println!(
        "images: {REGISTRY}/NAME:{}, pushed at 127.0.0.1:{}",
        images::TAG,
        node.registry_port()
    );
    println!("the node: nsenter -t {} -m -n -u -i -p -C", node.pid());
    println!("Enter ends it");
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}
