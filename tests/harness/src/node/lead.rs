//! A port on loopback here that leads into a network that is not this one's.
//!
//! Each connection has a thread that enters the other network, dials there, and stays for that connection: sockets belong
//! to the network in which they were made, and so may be used from threads of either.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The near end. Dropping it closes the port; connections that are open live on.
#[derive(Debug)]
pub struct Lead {
    port: u16,
    closed: Arc<AtomicBool>,
}

impl Lead {
    /// A port that leads to `to`, an address and a port, in the network `net`.
    ///
    /// # Errors
    /// No port is to be had, or that is no address.
    pub(super) fn to(net: &Path, to: &str) -> Result<Self> {
        let to: SocketAddr = to
            .parse()
            .with_context(|| format!("'{to}' is no address and port"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let closed = Arc::new(AtomicBool::new(false));
        let (ends, net) = (Arc::clone(&closed), net.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ends.load(Ordering::SeqCst) {
                    break;
                }
                let net = net.clone();
                // Who cannot be reached leaves its client with a closed connection.
                thread::spawn(move || join(client, &net, to).ok());
            }
        });
        Ok(Self { port, closed })
    }

    /// The port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        // Wakes the listener, which then ends; if it is gone there is nothing to wake.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn join(client: TcpStream, net: &PathBuf, to: SocketAddr) -> io::Result<()> {
    let net = File::open(net)?;
    move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))?;
    let server = TcpStream::connect(to)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (mut up, mut down) = ((client.try_clone()?, server.try_clone()?), (server, client));
    let upwards = thread::spawn(move || {
        io::copy(&mut up.0, &mut up.1).ok();
        up.1.shutdown(Shutdown::Write).ok();
    });
    io::copy(&mut down.0, &mut down.1).ok();
    down.1.shutdown(Shutdown::Write).ok();
    upwards.join().ok();
    Ok(())
}
