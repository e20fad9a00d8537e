//! The memory of pods by their cgroups' own account, and a guest that has its pod take as much as it can.
//!
//! ```text
//!   idle ─► its memory is full, and its kernel kills whoever wants more ─► all its programs have run
//!        ─► a disk larger than the pod's limit is written and read ─► its network is busy
//! ```
//!
//! Each is looked at when it is over. What a pod has of files its node's kernel takes back when it wants memory; what it has of its
//! own and what the kernel has for it count.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Console, Manifest};
use rvm_outer::Output;
use serde_json::{Value, json};

use crate::installed::Installed;

/// What a pod's cgroup says of its memory, in the same words whichever version its node has. Of version 1 the kills are each
/// cgroup's own.
const LOOK: &str = r#"
for group in $(find /sys/fs/cgroup -type d -name "pod$1"); do
    cd "$group"
    if [ -e memory.current ]; then
        echo "now $(cat memory.current)"
        echo "most $(cat memory.peak)"
        echo "limit $(cat memory.max)"
        grep -E '^(anon|file|shmem|kernel) ' memory.stat
        sed -n 's/^max /met /p; s/^oom_kill /kills /p' memory.events
        sed -n 's/^usage_usec /processor /p' cpu.stat
    elif [ -e memory.usage_in_bytes ]; then
        echo "now $(cat memory.usage_in_bytes)"
        echo "most $(cat memory.max_usage_in_bytes)"
        echo "limit $(cat memory.limit_in_bytes)"
        echo "kernel $(cat memory.kmem.usage_in_bytes)"
        echo "met $(cat memory.failcnt)"
        sed -n 's/^total_rss /anon /p; s/^total_cache /file /p; s/^total_shmem /shmem /p' memory.stat
        cat memory.oom_control */memory.oom_control | sed -n 's/^oom_kill /kills /p'
    elif [ -e cpuacct.usage ]; then
        echo "processor $(($(cat cpuacct.usage) / 1000))"
    fi
done"#;

/// Where the guest serves what fills its memory, and where it takes what is sent.
const SERVED: u16 = 8080;
const TAKEN: u16 = 9000;
/// How much is moved each way: less than what fills the smallest guest's memory.
const MOVED: usize = 32 << 20;

/// Runs a command on a pod's node, as its root.
pub type OnNode<'a> = &'a dyn Fn(&[&str]) -> Result<Output>;

/// The memory of a pod, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// All of it.
    pub now: u64,
    /// The most of it there ever was.
    pub most: u64,
    /// What it may have.
    pub limit: u64,
    /// What its processes have of their own, memory that they share included.
    pub own: u64,
    /// What is kept of files, which the kernel takes back.
    pub files: u64,
    /// The kernel's own for it: page tables, sockets.
    pub kernel: u64,
    /// How often it met its limit, and something had to be taken back.
    pub met: u64,
    /// How many of its processes were killed for that.
    pub kills: u64,
    /// Besides: how long it has had a processor since it began.
    pub processor: Duration,
}

impl Memory {
    /// That of a pod on its node.
    ///
    /// # Errors
    /// The node has no such cgroup, or an unknown kind of them.
    pub fn of(pod: &Value, on_node: OnNode<'_>) -> Result<Self> {
        let uid = pod["metadata"]["uid"].as_str().context("a pod has a uid")?;
        let said = on_node(&["sh", "-c", LOOK, "look", uid])?;
        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        let text = said.text();
        for line in text.lines() {
            if let Some((name, value)) = line.split_once(' ') {
                // "max": as much as there is.
                *told.entry(name.to_owned()).or_default() += value.parse().unwrap_or(u64::MAX);
            }
        }
        let of = |name: &str| {
            let value = told.get(name).copied();
            value.with_context(|| format!("no {name} of pod {uid}: {text}{}", said.error_text()))
        };
        Ok(Self {
            now: of("now")?,
            most: of("most")?,
            limit: of("limit")?,
            own: of("anon")? + of("shmem")?,
            files: of("file")?.saturating_sub(of("shmem")?),
            kernel: of("kernel")?,
            met: of("met")?,
            kills: of("kills")?,
            processor: Duration::from_micros(of("processor")?),
        })
    }

    /// What the kernel cannot take back.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.own + self.kernel
    }
}

/// A machine whose pod's memory is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// How many vCPUs it has.
    pub cpus: u32,
    /// Its guest's memory.
    pub mebibytes: u64,
    /// How large each of its disks is; more than the pod may have, in all, or there are none.
    pub disks: &'static [u64],
}

impl Shape {
    /// Its manifest: a machine whose pod is limited to what is computed for it.
    ///
    /// # Errors
    /// The demo's cannot be read.
    pub fn manifest(&self) -> Result<Manifest> {
        let disks = || self.disks.iter().enumerate();
        let add = |list: &mut Value, one| {
            if let Some(list) = list.as_array_mut() {
                list.push(one);
            }
        };
        let manifest = Manifest::demo()?.named(self.name);
        let manifest = manifest.memory(&format!("{}Mi", self.mebibytes));
        Ok(manifest.with(|vmi| {
            let domain = &mut vmi["spec"]["domain"];
            let memory = json!({"memory": format!("{}Mi", self.mebibytes)});
            domain["resources"] = json!({"requests": memory, "limits": memory});
            domain["cpu"] = json!({"cores": self.cpus});
            domain["devices"]["interfaces"] = json!([{"name": "default", "masquerade": {}}]);
            for (number, _) in disks() {
                let disk = json!({"name": format!("disk{number}"), "disk": {"bus": "virtio"}});
                add(&mut domain["devices"]["disks"], disk);
            }
            vmi["spec"]["networks"] = json!([{"name": "default", "pod": {}}]);
            for (number, mebibytes) in disks() {
                let empty = json!({"capacity": format!("{mebibytes}Mi")});
                let volume = json!({"name": format!("disk{number}"), "emptyDisk": empty});
                add(&mut vmi["spec"]["volumes"], volume);
            }
        }))
    }
}

/// What was seen of one machine.
#[derive(Debug)]
pub struct Seen {
    shape: Shape,
    rows: Vec<(&'static str, Memory)>,
}

impl Seen {
    /// The most that could not have been taken back at any time that was looked at, besides the guest's memory.
    #[must_use]
    pub fn besides(&self) -> u64 {
        let most = self.rows.iter().map(|(_, memory)| memory.kept()).max();
        most.unwrap_or_default()
            .saturating_sub(self.shape.mebibytes << 20)
    }

    /// The memory at the end.
    ///
    /// # Errors
    /// Nothing was seen.
    pub fn last(&self) -> Result<Memory> {
        self.rows
            .last()
            .map(|(_, memory)| *memory)
            .context("nothing was seen")
    }
}

impl Display for Seen {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| {
            let tenths = bytes * 10 / (1 << 20);
            format!("{}.{}", tenths / 10, tenths % 10)
        };
        let Shape {
            cpus,
            mebibytes: guest,
            disks,
            ..
        } = self.shape;
        let limit = self.rows.first().map_or(0, |(_, memory)| memory.limit);
        writeln!(
            f,
            "{cpus} vCPU, {guest} MiB, {} disks; its pod may have {} MiB",
            disks.len(),
            mebibytes(limit)
        )?;
        writeln!(
            f,
            "| the guest | now | its own | the kernel's | files | most | met its limit |"
        )?;
        writeln!(f, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for (what, memory) in &self.rows {
            let Memory {
                now,
                own,
                kernel,
                files,
                most,
                met,
                ..
            } = *memory;
            let [now, own, kernel, files, most] = [now, own, kernel, files, most].map(mebibytes);
            writeln!(
                f,
                "| {what} | {now} | {own} | {kernel} | {files} | {most} | {met} |"
            )?;
        }
        writeln!(f, "besides the guest's: {} MiB", mebibytes(self.besides()))
    }
}

/// Starts a machine, has its guest do all that takes memory, and looks after each; it runs at the end.
///
/// # Errors
/// It does not start, or the guest does not do it; the pod is gone, or was started anew.
pub fn exercise(installed: &Installed, on_node: OnNode<'_>, shape: Shape) -> Result<Seen> {
    installed.kubectl().apply(&[shape.manifest()?])?;
    installed.await_running(shape.name)?;
    let viewer = installed
        .kubectl()
        .on_terminal(&["rvm", "console", shape.name], &[])?;
    let prompt = format!("{}:~# ", shape.name);
    let mut console = Console::at_prompt(viewer, &prompt).with_context(|| installed.story())?;
    let pod = pod_of(installed, shape.name)?;
    let address = pod["status"]["podIP"].as_str().context("a pod has an address")?;
    let mut rows = Vec::new();
    let mut look = |what| -> Result<()> {
        rows.push((what, Memory::of(&pod, on_node)?));
        Ok(())
    };
    look("is idle")?;
    fill_memory(&mut console, shape.mebibytes)?;
    look("has filled its memory")?;
    run_programs(&mut console)?;
    look("has run its programs")?;
    if !shape.disks.is_empty() {
        fill_disks(&mut console, shape.disks.len())?;
        look("has written its disks")?;
        read_disks(&mut console, shape.disks.len())?;
        look("has read them")?;
    }
    use_network(installed, &mut console, address)?;
    look("has used its network")?;
    console.leave()?;

    let now = pod_of(installed, shape.name)?;
    let same = |pod: &Value| {
        let container = &pod["status"]["containerStatuses"][0];
        (
            container["containerID"].clone(),
            container["restartCount"].clone(),
        )
    };
    ensure!(
        now["status"]["phase"] == "Running" && same(&now) == same(&pod),
        "the pod is not what it was: {}",
        now["status"]
    );
    Ok(Seen { shape, rows })
}

/// The pod of the machine of this name.
fn pod_of(installed: &Installed, name: &str) -> Result<Value> {
    let is_its = |pod: &Value| pod["metadata"]["labels"]["vmi.kubevirt.io/id"] == name;
    let pods = installed.pods()?;
    let pod = pods.into_iter().find(is_its);
    pod.with_context(|| format!("{name} has no pod"))
}

/// Most of it with what no two pages have in common, and the rest with what the guest's kernel then kills its owner for.
fn fill_memory(console: &mut Console, mebibytes: u64) -> Result<()> {
    console.ask("mkdir -p /w && mount -t tmpfs -o size=40% w /w")?;
    console.ask("cat /dev/urandom >/w/fill")?;
    // As much as there is in all, which nobody is refused beforehand.
    console.ask("echo 1 >/proc/sys/vm/overcommit_memory")?;
    let said = console.ask(&format!("dd if=/dev/zero of=/dev/null bs={mebibytes}M; echo =$?"))?;
    ensure!(said.contains("=137"), "the guest had memory left: {said}");
    Ok(())
}

/// Every program is new code, which an emulator translates.
fn run_programs(console: &mut Console) -> Result<()> {
    console.ask("all=$(busybox --list)")?;
    console.ask("for a in $all; do $a --help >/dev/null 2>&1; done")?;
    Ok(())
}

/// How the guest calls its disks, all of which are its own.
fn disks(count: usize) -> impl Iterator<Item = char> {
    ('a'..='z').take(count)
}

/// Until nothing more fits.
fn fill_disks(console: &mut Console, count: usize) -> Result<()> {
    for disk in disks(count) {
        let write = format!("while cat /w/fill; do :; done >/dev/vd{disk}");
        let said = console.ask(&write)?;
        ensure!(said.contains("No space left"), "the guest wrote no disk: {said}");
    }
    console.ask("sync; echo 3 >/proc/sys/vm/drop_caches")?;
    Ok(())
}

fn read_disks(console: &mut Console, count: usize) -> Result<()> {
    for disk in disks(count) {
        let said = console.ask(&format!("cat /dev/vd{disk} >/dev/null; echo =$?"))?;
        ensure!(said.contains("=0"), "the guest read no disk: {said}");
    }
    Ok(())
}

/// It gives what fills its memory, and is given as much as it can take.
fn use_network(installed: &Installed, console: &mut Console, address: &str) -> Result<()> {
    console.ask(&format!("httpd -p {SERVED} -h /w"))?;
    let node = installed.cluster().node()?;
    let served = node.lead(&format!("{address}:{SERVED}"))?;
    eventually("what the guest serves", || {
        let came = TcpStream::connect(("127.0.0.1", served.port())).and_then(|mut stream| {
            stream.write_all(b"GET /fill HTTP/1.0\r\n\r\n")?;
            io::copy(&mut stream.take(MOVED as u64), &mut io::sink())
        });
        let is_all = came.as_ref().is_ok_and(|&came| came == MOVED as u64);
        Ok(Look::of(is_all.then_some(()), || format!("{came:?}")))
    })?;
    console.ask(&format!("nc -l -p {TAKEN} </dev/null | wc -c >/tmp/came &"))?;
    let taken = node.lead(&format!("{address}:{TAKEN}"))?;
    // Nobody takes it before the guest listens.
    eventually("who takes what the guest is sent", || {
        let sent = TcpStream::connect(("127.0.0.1", taken.port()))?.write_all(&vec![0x5a; MOVED]);
        Ok(Look::of(sent.as_ref().ok().copied(), || format!("{sent:?}")))
    })?;
    let wanted = MOVED.to_string();
    let came = eventually("what the guest was sent", || {
        let came = console.ask("cat /tmp/came")?;
        Ok(Look::of(came.contains(&wanted).then_some(()), || came))
    });
    came.with_context(|| installed.story())
}
