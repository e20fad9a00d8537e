//! What pods take of their nodes' memory, whatever their guests do: a table, and that no machine is killed for it.
//!
//! `cargo nextest run -p rvm-e2e --profile full -E 'binary(memory)'` prints the tables; deploy/OPERATING.md has the last ones.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::{Duration, Instant};

use rvm_e2e::installed::{Installed, RELEASE};
use rvm_e2e::pod_memory::{Memory, OnNode, Seen, Shape, exercise};

const MIB: u64 = 1 << 20;

/// The most that is promised to be asked for besides the memory of a small guest under KVM.
const PROMISED: u64 = 32 * MIB;

/// Its pod had to give back what it kept of files, and nobody was killed for want of memory.
fn is_kept_within_its_limit(seen: &Seen) {
    let last = seen.last().unwrap();
    assert_eq!(last.kills, 0, "{seen}");
    assert!(last.met > 0, "no limit was ever met:\n{seen}");
}

/// How long the installation's programs are watched, so that their share of a processor is that of a while.
const WATCHED: Duration = Duration::from_secs(20);

/// What the programs of the installation themselves take on a node.
fn of_the_installation(installed: &Installed, node: &str, on_node: OnNode<'_>) -> String {
    let on = format!("--field-selector=spec.nodeName={node}");
    let pods = installed.kubectl().get(&["pods", "-n", RELEASE, &on]).unwrap();
    let pods = pods["items"].as_array().unwrap();
    let look = || -> Vec<Memory> {
        let looked = pods.iter().map(|pod| Memory::of(pod, on_node).unwrap());
        looked.collect()
    };
    let (before, since) = (look(), Instant::now());
    thread::sleep(WATCHED);
    let (after, watched) = (look(), since.elapsed());
    let mut said =
        format!("| on {node} | MiB of its own and the kernel's | most, with files | processor |\n");
    said.push_str("| --- | ---: | ---: | ---: |\n");
    for ((pod, before), after) in pods.iter().zip(before).zip(after) {
        let app = pod["metadata"]["labels"]["app"].as_str().unwrap_or_default();
        let [kept, most] = [after.kept(), after.most].map(|bytes| bytes / MIB);
        let share = (after.processor - before.processor).as_secs_f64() / watched.as_secs_f64();
        said.push_str(&format!("| {app} | {kept} | {most} | {:.1}m |\n", share * 1e3));
    }
    said
}

#[test]
fn full_a_pod_by_emulation_stays_within_its_memory_whatever_its_guest_does() {
    let installed = Installed::start(&[]).unwrap();
    let node = installed.cluster().node().unwrap();
    let on_node = |argv: &[&str]| node.run(argv);
    println!("{}", of_the_installation(&installed, "n1", &on_node));
    let shapes = [
        Shape {
            name: "small",
            cpus: 1,
            mebibytes: 256,
            disks: &[768],
        },
        Shape {
            name: "larger",
            cpus: 4,
            mebibytes: 1024,
            disks: &[768, 768],
        },
    ];
    for shape in shapes {
        let seen = exercise(&installed, &on_node, shape).unwrap();
        println!("{seen}");
        is_kept_within_its_limit(&seen);
        let over = installed
            .kubectl()
            .ok(&["delete", "vmi", shape.name, "--timeout=120s"]);
        over.unwrap();
    }
    println!("{}", of_the_installation(&installed, "n1", &on_node));
}

#[test]
fn full_lab_a_pod_under_kvm_stays_within_its_memory_whatever_its_guest_does() {
    let (installed, far) = Installed::prepare_mixed(&["rvm-handler", "rvmm"]).unwrap();
    installed
        .install(&[
            "useEmulation=false",
            "api.nodeSelector.kubernetes\\.io/hostname=n1",
        ])
        .unwrap();
    let on_node = |argv: &[&str]| far.run(argv);
    println!("{}", of_the_installation(&installed, "n2", &on_node));
    let shapes = [
        Shape {
            name: "small",
            cpus: 1,
            mebibytes: 256,
            disks: &[320],
        },
        Shape {
            name: "larger",
            cpus: 4,
            mebibytes: 512,
            disks: &[288, 288],
        },
    ];
    for shape in shapes {
        let seen = exercise(&installed, &on_node, shape).unwrap();
        println!("{seen}");
        is_kept_within_its_limit(&seen);
        let limit = seen.last().unwrap().limit;
        assert!(limit <= (shape.mebibytes << 20) + PROMISED, "{seen}");
        let over = installed
            .kubectl()
            .ok(&["delete", "vmi", shape.name, "--timeout=120s"]);
        over.unwrap();
    }
    println!("{}", of_the_installation(&installed, "n2", &on_node));
}
