//! Network namespaces that are joined like pods: each is held by a process that only waits, and gone with it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long it is waited for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it is waited for what must not come.
const SILENCE: Duration = Duration::from_millis(700);

/// What a test does, tried in a namespace that is gone at once.
const TRIAL: &str = "nft list ruleset && ip link add v0 type veth peer name v1 && ip link add b0 type bridge";

/// Whether this test can make namespaces, links and rules; says so where not.
pub fn possible() -> bool {
    let trial = Command::new("unshare")
        .args(["--net", "sh", "-c", TRIAL])
        .output();
    let able = rustix::process::geteuid().is_root() && trial.is_ok_and(|trial| trial.status.success());
    if !able {
        eprintln!(
            "skipped: this test makes network namespaces, links and rules, which needs root, ip and nft"
        );
    }
    able
}

/// A network namespace.
pub struct Place {
    holder: Child,
}

impl Place {
    pub fn new() -> Self {
        // `cat` ends with the pipe, and so with this test, however that ends. What it says first shows that it is there.
        let mut holder = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        holder.stdin.as_mut().unwrap().write_all(b"!").unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let place = Self { holder };
        place.ip("link set lo up");
        place
    }

    /// Does something in this namespace.
    pub fn within<T: Send>(&self, deed: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        let inside = move || {
            use std::os::fd::AsFd;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            deed()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    /// `ip` with these words.
    pub fn ip(&self, words: &str) {
        let words: Vec<&str> = words.split_whitespace().collect();
        let status = self.within(|| Command::new("ip").args(&words).status().unwrap());
        assert!(status.success(), "ip {words:?}");
    }

    /// Sets a parameter of the kernel.
    pub fn set(&self, path: &str, value: &str) {
        // What is below /proc/sys/net depends on who looks.
        self.within(|| std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap());
    }

    /// An interface here whose other end is another one there.
    pub fn join(&self, name: &str, there: &Self, other: &str) {
        let pid = there.holder.id();
        self.ip(&format!(
            "link add {name} type veth peer name {other} netns {pid}"
        ));
        self.ip(&format!("link set {name} up"));
        there.ip(&format!("link set {other} up"));
    }

    pub fn addresses(&self, name: &str, addresses: &[&str]) {
        for address in addresses {
            self.ip(&format!("addr add {address} dev {name} {}", nodad(address)));
        }
    }

    pub fn listen(&self, port: u16) -> TcpListener {
        self.within(|| TcpListener::bind(("::", port)).unwrap())
    }

    /// Whether a connection from here gets there, where something listens; and as whom.
    pub fn reaches(&self, to: &str, listener: &TcpListener, expected: bool) -> Option<IpAddr> {
        let port = listener.local_addr().unwrap().port();
        let to = SocketAddr::new(to.parse().unwrap(), port);
        let patience = if expected { PATIENCE } else { SILENCE };
        self.within(|| TcpStream::connect_timeout(&to, patience)).ok()?;
        let (_, from) = listener.accept().unwrap();
        Some(from.ip().to_canonical())
    }
}

/// A new IPv6 address is looked at by its neighbours for a second otherwise.
fn nodad(address: &str) -> &'static str {
    if address.contains(':') { "nodad" } else { "" }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
