//! A real registry on loopback, and a wire to it that can be cut after any number of bytes.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use rvm_guests::{Cache, registry};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::certificates::Pair;
use crate::patience::{Look, eventually};
use crate::process::Process;
use crate::tokens;

/// What the registry says before the address that the system gave it.
const LISTENS: &str = "listening on 127.0.0.1:";

/// The one user of a registry that has one, and its password. The file holds it as bcrypt does.
pub const LOGIN: (&str, &str) = ("puller", "wordpass");
const HTPASSWD: &str = "puller:$2b$05$LvFLKrn6CsTxDujNg7eDZOKxTA0G/.Burj8cbIwzqlDew8bIcu9IO\n";

/// A running `docker-registry` with a folder of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    process: Process,
    port: u16,
    folder: TempDir,
    config: Value,
    starts: u32,
    program: PathBuf,
}

impl Registry {
    /// Starts one that everybody may use.
    ///
    /// # Errors
    /// It cannot be had, or does not start.
    pub fn start() -> Result<Self> {
        Self::start_in(folder()?, None)
    }

    /// Starts one that only [`LOGIN`] may use.
    ///
    /// # Errors
    /// It cannot be had, or does not start.
    pub fn start_guarded() -> Result<Self> {
        let auth = json!({"htpasswd": {"realm": "test", "path": "htpasswd"}});
        Self::start_in(folder()?, Some(auth))
    }

    /// Starts one that only [`LOGIN`] may use, and that wants a token of another server, who knows the login.
    ///
    /// # Errors
    /// It cannot be had, or does not start.
    pub fn start_with_tokens() -> Result<Self> {
        let folder = folder()?;
        let port = tokens::serve(folder.path())?;
        let auth = json!({"token": {
            "realm": format!("http://127.0.0.1:{port}/token"), "service": tokens::NAME, "issuer": tokens::NAME,
            "rootcertbundle": tokens::CERTIFICATE,
        }});
        Self::start_in(folder, Some(auth))
    }

    fn start_in(folder: TempDir, auth: Option<Value>) -> Result<Self> {
        let program = registry::server(&Cache::open()?)?;
        let mut config = json!({
            "version": 0.1, "log": {"level": "info"}, "http": {"addr": "127.0.0.1:0"},
            "storage": {"filesystem": {"rootdirectory": "store"}},
        });
        if let Some(auth) = auth {
            config["auth"] = auth;
        }
        fs::write(folder.path().join("htpasswd"), HTPASSWD)?;
        let (process, port) = serve(&program, folder.path(), &config, 0)?;
        Ok(Self {
            process,
            port,
            folder,
            config,
            starts: 1,
            program,
        })
    }

    /// Ends it and starts it again with what it had, from now on by TLS only.
    ///
    /// # Errors
    /// It does not start.
    pub fn lock_up(&mut self, pair: &Pair) -> Result<()> {
        self.kill()?;
        self.config["http"]["tls"] = json!({"certificate": pair.certificate, "key": pair.key});
        self.start_again()
    }

    /// Its port on loopback; another one after each start.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Pushes an image layout under this name and tag.
    ///
    /// # Errors
    /// The registry's.
    pub fn push(&self, layout: &Path, name: &str) -> Result<()> {
        let login = format!("{}:{}", LOGIN.0, LOGIN.1);
        let reference = format!("127.0.0.1:{}/{name}", self.port);
        rvm_guests::push::push(layout, &reference, Some(&login))
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again, with what it had.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_again(&mut self) -> Result<()> {
        (self.process, self.port) = serve(&self.program, self.folder.path(), &self.config, self.starts)?;
        self.starts += 1;
        Ok(())
    }

    /// The requests with this text in them that it has answered since its last start, as it logs them.
    #[must_use]
    pub fn requests(&self, text: &str) -> Vec<String> {
        let said = self.process.said();
        let lines = said.lines().filter(|line| line.contains(" HTTP/1.1\" "));
        let lines = lines.filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }

    /// Where it keeps the bytes of a blob, by its digest in hex.
    #[must_use]
    pub fn blob(&self, digest: &str) -> PathBuf {
        let blobs = self.folder.path().join("store/docker/registry/v2/blobs/sha256");
        blobs
            .join(digest.get(..2).unwrap_or_default())
            .join(digest)
            .join("data")
    }
}

fn folder() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("rvm-registry-").tempdir()?)
}

fn serve(program: &Path, folder: &Path, config: &Value, number: u32) -> Result<(Process, u16)> {
    // It reads YAML, of which this is some.
    fs::write(folder.join("config.yml"), config.to_string())?;
    let log = folder.join(format!("registry-{number}.log"));
    let mut process = Process::start(program, &log, |command| {
        command.args(["serve", "config.yml"]).current_dir(folder);
    })?;
    let port = eventually("port of the registry", || {
        process.must_live()?;
        let said = process.said();
        let after = said.split_once(LISTENS).map(|(_, after)| after);
        let digits = after.and_then(|after| {
            let end = after.find(|c: char| !c.is_ascii_digit())?;
            after.get(..end)?.parse().ok()
        });
        Ok(Look::of(digits, || said.clone()))
    })?;
    Ok((process, port))
}

/// A port that leads to another, until so many bytes have come back through it.
#[derive(Debug)]
pub struct Wire {
    port: u16,
    to: Arc<AtomicU16>,
    left: Arc<AtomicU64>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    /// A wire to this port on loopback that carries `bytes` back.
    ///
    /// # Errors
    /// No port is to be had.
    pub fn to(port: u16, bytes: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let wire = Self {
            port: listener.local_addr()?.port(),
            to: Arc::new(AtomicU16::new(port)),
            left: Arc::new(AtomicU64::new(bytes)),
            open: Arc::default(),
        };
        let (to, left, open) = (
            Arc::clone(&wire.to),
            Arc::clone(&wire.left),
            Arc::clone(&wire.open),
        );
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = SocketAddr::from((Ipv4Addr::LOCALHOST, to.load(Ordering::SeqCst)));
                // Who cannot be reached leaves its client with a closed connection.
                if let Ok(server) = TcpStream::connect(server) {
                    join(&client, server, &left, &open).ok();
                }
            }
        });
        Ok(wire)
    }

    /// The near end.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many bytes it still carries.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::SeqCst)
    }

    /// Leads it elsewhere, and has it carry so many bytes from now on.
    pub fn mend(&self, port: u16, bytes: u64) {
        self.to.store(port, Ordering::SeqCst);
        self.left.store(bytes, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.left.store(0, Ordering::SeqCst);
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in open.iter() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

fn join(
    client: &TcpStream,
    server: TcpStream,
    left: &Arc<AtomicU64>,
    open: &Arc<Mutex<Vec<TcpStream>>>,
) -> io::Result<()> {
    let (mut up, mut down) = (
        (client.try_clone()?, server.try_clone()?),
        (server, client.try_clone()?),
    );
    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
    open.extend([client.try_clone()?, down.0.try_clone()?]);
    thread::spawn(move || io::copy(&mut up.0, &mut up.1).and_then(|_| up.1.shutdown(Shutdown::Write)));
    let left = Arc::clone(left);
    thread::spawn(move || {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(count @ 1..) = down.0.read(&mut bytes) {
            let wanted = count as u64;
            let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                Some(left.saturating_sub(wanted))
            });
            let passed = taken.unwrap_or_default().min(wanted);
            let part = usize::try_from(passed).unwrap_or_default();
            if down.1.write_all(bytes.get(..part).unwrap_or_default()).is_err() || passed < wanted {
                break;
            }
        }
        // Both ends learn it.
        down.0.shutdown(Shutdown::Both).ok();
        down.1.shutdown(Shutdown::Both).ok();
    });
    Ok(())
}
