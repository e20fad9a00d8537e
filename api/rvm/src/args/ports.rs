//! The arguments of `port-forward`, `ssh` and `scp`: as virtctl has them.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args};

use crate::cluster::Resource;
use crate::completion;

/// A machine: `vmi/NAME`, `vm/NAME`, either with `/NAMESPACE` behind it, or only an instance's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A VirtualMachine or an instance; the instance of a VirtualMachine has its name.
    pub resource: Resource,
    /// The machine.
    pub name: String,
    /// Where that is, if it was said.
    pub namespace: Option<String>,
}

/// What has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    Tcp,
    Udp,
}

/// A local port, and the guest's that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    pub protocol: Forwarded,
    /// 0 is any free one.
    pub local: u16,
    pub remote: u16,
}

/// Arguments of `port-forward`.
#[derive(Debug, Args)]
#[command(
    after_help = "PORT is LOCAL:REMOTE, or one number for both; udp/LOCAL:REMOTE forwards datagrams. \
    A LOCAL of 0 is any free port."
)]
pub struct PortForward {
    /// The machine: vmi/NAME, vm/NAME, vmi/NAME/NAMESPACE, or NAME
    #[arg(value_name = "MACHINE", add = completion::instances())]
    pub target: Target,
    /// Which ports
    #[arg(value_name = "PORT", required = true)]
    pub ports: Vec<Forward>,
    /// The local address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = address)]
    pub address: IpAddr,
    /// Standard input and output instead of a local port; one TCP port
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    pub stdio: bool,
    /// Not there: by the machine's vsock instead of its network
    #[arg(long, hide = true)]
    pub vsock: bool,
}

/// An address, or this machine's own name for itself.
fn address(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
        text => text
            .parse()
            .map_err(|_| format!("{text:?} is no address; use one such as 127.0.0.1, ::1 or 0.0.0.0")),
    }
}

/// What ssh and scp are told.
#[derive(Debug, Args)]
pub struct SshOptions {
    /// The user to log in as [default: ssh's own]
    #[arg(short = 'l', long, value_name = "USER")]
    pub username: Option<String>,
    /// The file of the private key
    #[arg(short, long, value_name = "FILE")]
    pub identity_file: Option<PathBuf>,
    /// The file of known host keys [default: ssh's own]
    #[arg(long, value_name = "FILE")]
    pub known_hosts: Option<PathBuf>,
    /// The guest's port
    #[arg(short, long, value_name = "PORT", default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// One more argument for the program, as in -t "-v"
    #[arg(
        short = 't',
        long = "local-ssh-opts",
        value_name = "ARG",
        allow_hyphen_values = true
    )]
    pub options: Vec<String>,
}

/// Arguments of `ssh`.
#[derive(Debug, Args)]
pub struct Ssh {
    /// The machine: [USER@]vmi/NAME, [USER@]vm/NAME, [USER@]vmi/NAME/NAMESPACE, or [USER@]NAME
    #[arg(value_name = "MACHINE", add = completion::logins())]
    pub target: String,
    /// Run this instead of a shell
    #[arg(short, long, value_name = "COMMAND")]
    pub command: Option<String>,
    #[command(flatten)]
    pub options: SshOptions,
}

/// Arguments of `scp`.
#[derive(Debug, Args)]
pub struct Scp {
    /// What is copied: a local path, or [USER@]vmi/NAME:PATH, [USER@]vm/NAME:PATH
    #[arg(add = completion::ends())]
    pub from: String,
    /// Where to: a local path, or [USER@]vmi/NAME:PATH
    #[arg(add = completion::ends())]
    pub to: String,
    /// Whole directories
    #[arg(short, long)]
    pub recursive: bool,
    /// Keep times and modes
    #[arg(long)]
    pub preserve: bool,
    #[command(flatten)]
    pub options: SshOptions,
}

// === impl Target ===

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/');
        let (first, second, third) = (parts.next(), parts.next(), parts.next());
        let (kind, name, namespace) = match (first, second) {
            (Some(name), None) => ("vmi", name, None),
            (Some(kind), Some(name)) => (kind, name, third),
            (None, _) => ("vmi", "", None),
        };
        let resource = Self::resource(kind)
            .ok_or_else(|| format!("{kind:?} is not a kind of machine; use vmi or vm"))?;
        // Nothing but the characters of Kubernetes' names: they become a part of a command line, too.
        let plain = |part: &str| {
            let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            !part.is_empty() && !part.starts_with('-') && part.bytes().all(good)
        };
        if parts.next().is_some() || !plain(name) || !namespace.is_none_or(plain) {
            return Err(format!(
                "{text:?} is no machine; use vmi/NAME, vm/NAME or vmi/NAME/NAMESPACE"
            ));
        }
        Ok(Self {
            resource,
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
        })
    }
}

impl Target {
    /// What a word before a name means.
    pub fn resource(word: &str) -> Option<Resource> {
        let machines = [Resource::Instance, Resource::Machine];
        Resource::named(word).filter(|resource| machines.contains(resource))
    }
}

impl fmt::Display for Target {
    /// As it can be read again.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.resource.short_name(), self.name)?;
        match &self.namespace {
            Some(namespace) => write!(out, "/{namespace}"),
            None => Ok(()),
        }
    }
}

// === impl Forward ===

impl FromStr for Forward {
    type Err = String;

    /// `80`, `8080:80`, `udp/5353:53`; the protocol may stand behind as well.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no port; use [udp/][LOCAL:]REMOTE");
        let (protocol, ports) = match text.split_once('/') {
            None => ("tcp", text),
            Some((ports, protocol @ ("tcp" | "udp"))) => (protocol, ports),
            Some((protocol, ports)) => (protocol, ports),
        };
        let protocol = match protocol {
            "tcp" => Forwarded::Tcp,
            "udp" => Forwarded::Udp,
            _ => return Err(wrong()),
        };
        let (local, remote) = ports.split_once(':').unwrap_or((ports, ports));
        let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
        let (local, remote) = (number(local)?, number(remote)?);
        if remote == 0 {
            return Err(wrong());
        }
        Ok(Self {
            protocol,
            local,
            remote,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_named_as_virtctl_names_them() {
        let target = |text: &str| text.parse::<Target>().map(|target| target.to_string());
        let named = |text: &str| Ok(text.to_owned());
        assert_eq!(target("a"), named("vmi/a"));
        assert_eq!(target("vmi/a"), named("vmi/a"));
        assert_eq!(target("vmi/a/lab"), named("vmi/a/lab"));
        assert_eq!(target("virtualmachines.kubevirt.io/a"), named("vm/a"));
        assert_eq!(target("vm/a/lab"), named("vm/a/lab"));
        for wrong in [
            "",
            "vmirs/a",
            "vmi/",
            "vmi/a/",
            "vmi/a/b/c",
            "vmi/-a",
            "vmi/a b",
            "vmi/$(x)",
        ] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ports_are_one_number_or_two() {
        let forward = |text: &str| {
            text.parse::<Forward>()
                .map(|forward| (forward.protocol, forward.local, forward.remote))
        };
        assert_eq!(forward("80"), Ok((Forwarded::Tcp, 80, 80)));
        assert_eq!(forward("0:80"), Ok((Forwarded::Tcp, 0, 80)));
        assert_eq!(forward("udp/5353:53"), Ok((Forwarded::Udp, 5353, 53)));
        assert_eq!(forward("5353:53/udp"), Ok((Forwarded::Udp, 5353, 53)));
        for wrong in ["", "0", "80:0", "80:", "a", "sctp/80", "80/x", "65536", "1:2:3"] {
            assert!(forward(wrong).is_err(), "{wrong}");
        }
    }
}
