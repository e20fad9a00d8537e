//! A real node runs pods, serves them, and goes without a trace.

use std::collections::BTreeSet;
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
    let before = traces().unwrap();
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start_on_node(&tools).unwrap();
    let kubectl = cluster.kubectl();
    let node = cluster.node().unwrap();
    assert_ne!(traces().unwrap(), before, "what is looked for would be seen");

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
    assert_eq!(traces().unwrap(), before);
}

fn ask(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// All that a node could leave on its machine: cgroups, links, mounts, files, settings, processes.
fn traces() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        for group in fs::read_dir(hierarchy.path()).into_iter().flatten().flatten() {
            if group.file_type()?.is_dir() {
                found.insert(format!("cgroup {}", group.path().display()));
            }
        }
    }
    let ours = |path: &str| fs::read_to_string(path);
    found.extend(ours("/proc/self/mountinfo")?.lines().map(str::to_owned));
    let links = ours("/proc/net/dev")?;
    found.extend(
        links
            .lines()
            .filter_map(|line| Some(format!("link {}", line.split_once(':')?.0))),
    );
    for name in ["vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"] {
        found.insert(format!("{name} {}", ours(&format!("/proc/sys/{name}"))?));
    }
    for folder in ["/var/lib", "/opt", "/run", "/etc", "/usr/libexec"] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            found.insert(entry.path().display().to_string());
        }
    }
    for process in fs::read_dir("/proc")?.flatten() {
        let Ok(words) = fs::read(process.path().join("cmdline")) else {
            continue;
        };
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains("rvm-node-") || words.contains("containerd") {
            found.insert(format!("process {words}"));
        }
    }
    Ok(found)
}
