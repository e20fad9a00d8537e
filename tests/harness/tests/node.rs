//! A real node runs pods, serves them, and goes without a trace.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::Result;
use rvm_harness::{Cluster, Tools};

/// A web server in a pod, and a Service for it.
const WEB: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: web, labels: { app: web } }
spec:
  terminationGracePeriodSeconds: 0
  securityContext: { runAsUser: 107, runAsNonRoot: true, seccompProfile: { type: RuntimeDefault } }
  containers:
    - name: web
      image: 198.18.0.1:5000/busybox:1
      command: [sh, -c, "echo it serves; echo hello from a pod > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
      securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: [ALL] } }
      readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }
      resources: { limits: { memory: 64Mi, cpu: 100m } }
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { clusterIP: 198.18.2.20, selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] }
"#;

#[test]
fn a_pod_runs_is_served_and_the_node_leaves_nothing() {
    let before = machine().unwrap();
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start_on_node(&tools).unwrap();
    let kubectl = cluster.kubectl();
    let node = cluster.node().unwrap();
    let (name, folder) = (node.cgroups().to_owned(), node.folder().to_owned());
    let there = traces(&name).unwrap();
    for kind in ["cgroup", "process"] {
        assert!(
            there.iter().any(|trace| trace.starts_with(kind)),
            "no {kind} is seen: {there:?}"
        );
    }

    kubectl.feed(&["apply", "-f", "-"], WEB).unwrap().ok().unwrap();
    kubectl
        .ok(&["wait", "--for=condition=Ready", "--timeout=120s", "pod/web"])
        .unwrap();
    assert_eq!(kubectl.ok(&["logs", "web"]).unwrap(), "it serves\n");
    let id = kubectl.ok(&["exec", "web", "--", "id", "-u"]).unwrap();
    assert_eq!(id, "107\n");
    let seccomp = kubectl.ok(&["exec", "web", "--", "grep", "Seccomp:", "/proc/self/status"]);
    assert_eq!(seccomp.unwrap(), "Seccomp:\t2\n");

    // By its Service, from here as from the node.
    let lead = node.lead("198.18.2.20:80").unwrap();
    assert!(ask(lead.port()).unwrap().ends_with("hello from a pod\n"));
    let memory = node
        .run(&["sh", "-c", "cat $(find /sys/fs/cgroup -path '*kubepods*' -name memory.limit_in_bytes -o -path '*kubepods*' -name memory.max)"])
        .unwrap();
    assert!(memory.text().contains("67108864"), "{}", memory.text());

    drop(lead);
    drop(cluster);
    assert_eq!(traces(&name).unwrap(), Vec::<String>::new());
    assert!(!folder.exists());
    assert_eq!(machine().unwrap(), before);
}

fn ask(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What a node has on its machine while it is there, one line each: of this node alone, since others may be about.
fn traces(node: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let group = hierarchy.path().join(node);
        if group.is_dir() {
            found.push(format!("cgroup {}", group.display()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    found.extend(
        mounts
            .lines()
            .filter(|line| line.contains(node))
            .map(str::to_owned),
    );
    for process in fs::read_dir("/proc")?.flatten() {
        let about = |file: &str| fs::read(process.path().join(file)).unwrap_or_default();
        let about = [about("cmdline"), about("cgroup")].concat();
        if String::from_utf8_lossy(&about).contains(node) {
            found.push(format!("process {}", process.file_name().display()));
        }
    }
    Ok(found)
}

/// What a node must not touch: settings of the whole machine, links, and the folders of containerd and kubelet.
fn machine() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in ["vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"] {
        found.push(fs::read_to_string(format!("/proc/sys/{name}"))?);
    }
    let places = [
        "/sys/class/net/cni0",
        "/sys/class/net/node0",
        "/run/containerd",
        "/opt/containerd",
        "/var/lib/cni",
        "/var/lib/containerd",
        "/var/lib/kubelet",
        "/etc/cni",
        "/usr/libexec/kubernetes",
    ];
    found.extend(places.map(|place| format!("{place}: {}", fs::exists(place).unwrap_or(true))));
    Ok(found)
}
