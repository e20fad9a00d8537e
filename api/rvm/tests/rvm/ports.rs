//! Ports of a guest on this host, by the real program.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::process::{Child, ChildStderr};
use tokio::time::timeout;

use crate::lab::{Lab, PATIENCE};

/// The local address that a forwarder announces.
pub async fn announced(forwarder: &mut Child) -> (String, BufReader<ChildStderr>) {
    let mut lines = BufReader::new(forwarder.stderr.take().expect("it is piped"));
    let mut line = String::new();
    timeout(PATIENCE, lines.read_line(&mut line))
        .await
        .expect("it says something")
        .expect("it can be read");
    let address = line.split_whitespace().nth(2).expect("an address");
    (address.to_owned(), lines)
}

/// A guest that sends back all that it gets, and then ends.
pub async fn echo() -> u16 {
    let guest = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = guest.local_addr().expect("it has one").port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = guest.accept().await.expect("a connection");
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
    });
    port
}

#[tokio::test]
async fn a_local_port_leads_into_the_guest() {
    let lab = Lab::new().await;
    lab.machine_in("Running");
    let port = echo().await;
    let mut forwarder = lab
        .command(&["port-forward", "vmi/alpine", &format!("0:{port}")])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let (address, mut errors) = announced(&mut forwarder).await;
    let mut all = Vec::new();
    let mut stream = TcpStream::connect(&address).await.expect("it listens");
    stream.write_all(b"there and back").await.expect("it takes it");
    stream.shutdown().await.expect("half of it closes");
    timeout(PATIENCE, stream.read_to_end(&mut all))
        .await
        .expect("an end")
        .expect("a good one");
    assert_eq!(all, b"there and back");
    lab.api.remove("default", "alpine");
    let mut stream = TcpStream::connect(&address).await.expect("it still listens");
    assert_eq!(
        timeout(PATIENCE, stream.read(&mut [0]))
            .await
            .expect("an end")
            .expect("a good one"),
        0
    );
    let mut line = String::new();
    errors.read_line(&mut line).await.expect("a line");
    assert!(line.contains("not found"), "{line}");
}

#[tokio::test]
async fn datagrams_are_forwarded_and_answered() {
    let lab = Lab::new().await;
    lab.machine_in("Running");
    let guest = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let port = guest.local_addr().expect("it has one").port();
    let mut forwarder = lab
        .command(&["port-forward", "alpine", &format!("udp/0:{port}")])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let (address, _errors) = announced(&mut forwarder).await;
    let local = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    local.send_to(b"question", &address).await.expect("it goes");
    let mut datagram = [0; 100];
    let heard = timeout(PATIENCE, guest.recv_from(&mut datagram))
        .await
        .expect("a datagram");
    let (length, from) = heard.expect("it is good");
    assert_eq!(&datagram[..length], b"question");
    guest.send_to(b"answer", from).await.expect("it goes");
    let heard = timeout(PATIENCE, local.recv(&mut datagram))
        .await
        .expect("a datagram");
    assert_eq!(&datagram[..heard.expect("it is good")], b"answer");
}

#[tokio::test]
async fn ssh_connects_by_this_program() {
    let lab = Lab::new().await;
    lab.machine_in("Running");
    let port = echo().await;
    // A stand-in that does with its ProxyCommand what ssh does, and says what else it was told.
    let programs = lab.folder.path().join("programs");
    let script = "#!/bin/sh\necho \"$@\"\nfor word; do case $word in ProxyCommand=*) printf through | sh -c \"exec ${word#ProxyCommand=}\";; esac; done\nexit 7\n";
    std::fs::create_dir(&programs).expect("a folder");
    std::fs::write(programs.join("ssh"), script).expect("a file");
    std::fs::set_permissions(programs.join("ssh"), std::fs::Permissions::from_mode(0o700)).expect("its mode");
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let output = lab
        .command(&[
            "ssh",
            "-p",
            &port.to_string(),
            "-l",
            "root",
            "vmi/alpine",
            "-c",
            "uname -m",
        ])
        .env("PATH", path)
        .output();
    let output = timeout(PATIENCE, output)
        .await
        .expect("an end")
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("root@vmi.alpine uname -m\n"), "{said}");
    assert!(said.ends_with("through"), "{said} {output:?}");
    assert_eq!(output.status.code(), Some(7), "the status is ssh's");
}

#[tokio::test]
async fn who_interrupts_a_forwarder_ends_it_well() {
    let lab = Lab::new().await;
    lab.machine_in("Running");
    let mut command = lab.command(&["port-forward", "vmi/alpine", "0:80", "--address", "localhost"]);
    let mut forwarder = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let (address, _errors) = announced(&mut forwarder).await;
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let pid = forwarder
        .id()
        .and_then(|pid| Pid::from_raw(pid.cast_signed()))
        .expect("it runs");
    kill_process(pid, Signal::INT).expect("it is told");
    let status = timeout(PATIENCE, forwarder.wait())
        .await
        .expect("it ends")
        .expect("it can be waited for");
    assert_eq!(status.code(), Some(0));
    let two = lab
        .error(&["port-forward", "--stdio", "vm/alpine", "1", "2"])
        .await;
    assert_eq!(two, "error: only one port supported when forwarding to stdout");
}
