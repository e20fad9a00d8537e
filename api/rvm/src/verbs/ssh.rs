//! `rvm ssh` and `rvm scp`: this system's own programs, whose connection is `rvm port-forward --stdio`.
//!
//! They take the place of this process, so that terminal, signals and exit status are theirs.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::args::{Global, Scp, Ssh, SshOptions, Target, is_plugin};
use crate::paths;

/// Becomes ssh; returns only where that fails.
pub fn ssh(global: &Global, args: &Ssh) -> Result<NotRun> {
    let login = Login::parse(&args.target, global.namespace.as_deref())?;
    let mut command = program("ssh", global, &args.options, &login.target)?;
    command.arg(login.address(args.options.username.as_deref()));
    command.args(&args.command);
    Ok(NotRun("ssh", command.exec()))
}

/// Becomes scp; returns only where that fails.
pub fn scp(global: &Global, args: &Scp) -> Result<NotRun> {
    let namespace = global.namespace.as_deref();
    let ends = [
        End::parse(&args.from, namespace)?,
        End::parse(&args.to, namespace)?,
    ];
    let target = match &ends {
        [End::There(login, _), End::Here(_)] | [End::Here(_), End::There(login, _)] => login.target.clone(),
        _ => bail!(
            "one of the two has to be in a machine, as vmi/NAME:PATH or vm/NAME:PATH, and the other one here"
        ),
    };
    let mut command = program("scp", global, &args.options, &target)?;
    command.args(args.recursive.then_some("-r"));
    command.args(args.preserve.then_some("-p"));
    // What follows are paths, whatever they begin with.
    command.arg("--");
    for end in &ends {
        match end {
            End::Here(path) => command.arg(path),
            End::There(login, path) => {
                let address = login.address(args.options.username.as_deref());
                command.arg(format!("{address}:{path}"))
            }
        };
    }
    Ok(NotRun("scp", command.exec()))
}

/// A program that could not take our place.
#[derive(Debug)]
pub struct NotRun(&'static str, io::Error);

impl From<NotRun> for anyhow::Error {
    fn from(NotRun(name, error): NotRun) -> Self {
        anyhow!(error).context(format!("cannot run {name}"))
    }
}

/// A machine, and who is to log in there.
#[derive(Debug, PartialEq, Eq)]
struct Login {
    user: Option<String>,
    target: Target,
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Here(String),
    There(Login, String),
}

impl Login {
    fn parse(text: &str, namespace: Option<&str>) -> Result<Self> {
        let (user, target) = match text.split_once('@') {
            Some((user, target)) => (Some(user.to_owned()), target),
            None => (None, text),
        };
        if user
            .as_deref()
            .is_some_and(|user| user.is_empty() || user.starts_with('-'))
        {
            bail!("{text:?} names no user");
        }
        let mut target: Target = target.parse().map_err(anyhow::Error::msg)?;
        if let (None, Some(namespace)) = (&target.namespace, namespace) {
            target = format!("{target}/{namespace}")
                .parse()
                .map_err(anyhow::Error::msg)?;
        }
        Ok(Self { user, target })
    }

    /// What ssh calls it, which is also what it keeps the host's key under.
    fn address(&self, user: Option<&str>) -> String {
        let target = self.target.to_string().replace('/', ".");
        let user = self.user.as_deref().or(user);
        let user = user.map_or(String::new(), |user| format!("{user}@"));
        format!("{user}{target}")
    }
}

impl End {
    /// In a machine where it begins with a kind; everything else is a path.
    fn parse(text: &str, namespace: Option<&str>) -> Result<Self> {
        let machine = text.split_once(':').filter(|(machine, _)| {
            let target = machine.rsplit('@').next().unwrap_or_default();
            let kind = target
                .split_once('/')
                .and_then(|(kind, _)| Target::resource(kind));
            kind.is_some() && !machine.starts_with(['.', '/'])
        });
        match machine {
            Some((machine, path)) => Ok(Self::There(Login::parse(machine, namespace)?, path.to_owned())),
            None => Ok(Self::Here(text.to_owned())),
        }
    }
}

/// The program, told to connect by us to the server that we were told of.
fn program(name: &str, global: &Global, options: &SshOptions, target: &Target) -> Result<Command> {
    let ourselves = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(name);
    command.arg("-o").arg(proxy(
        ourselves.as_os_str(),
        global.context.as_deref(),
        target,
        options.port,
    ));
    if let Some(file) = &options.known_hosts {
        let mut known = OsString::from("UserKnownHostsFile=");
        known.push(file);
        command.arg("-o").arg(known);
    }
    if let Some(file) = &options.identity_file {
        command.arg("-i").arg(file);
    }
    command.args(&options.options);
    let files = [
        ("RVM_CA", &global.ca),
        ("RVM_CERT", &global.cert),
        ("RVM_KEY", &global.key),
        ("KUBECONFIG", &global.kubeconfig),
    ];
    for (variable, file) in files {
        if let Some(file) = file {
            command.env(variable, file);
        }
    }
    if let Some(server) = &global.server {
        command.env("RVM_SERVER", server);
    }
    // It is not called by kubectl's name, and goes our way all the same.
    let is_named = global.kubeconfig.is_some() || std::env::var_os("KUBECONFIG").is_some();
    if let (true, false, Some(file)) = (is_plugin(), is_named, paths::kubectls_own()) {
        command.env("KUBECONFIG", file);
    }
    Ok(command)
}

/// `ProxyCommand=…`: ssh gives it to a shell, after it has replaced its own %.
fn proxy(ourselves: &OsStr, context: Option<&str>, target: &Target, port: u16) -> OsString {
    let ourselves = quoted(&ourselves.to_string_lossy());
    let context = context.map_or(String::new(), |name| format!(" --context={}", quoted(name)));
    OsString::from(format!(
        "ProxyCommand={ourselves}{context} port-forward --stdio=true {target} {port}"
    ))
}

/// One word for ssh and for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('%', "%%").replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_a_machine_and_perhaps_a_user() {
        let address = |text: &str, user| Login::parse(text, None).map(|login| login.address(user)).ok();
        assert_eq!(address("vmi/a", None).unwrap(), "vmi.a");
        assert_eq!(address("a", Some("debian")).unwrap(), "debian@vmi.a");
        assert_eq!(address("root@vm/a", None).unwrap(), "root@vm.a");
        assert_eq!(
            address("root@vmi/a/lab", Some("debian")).unwrap(),
            "root@vmi.a.lab"
        );
        let named = Login::parse("vmi/a", Some("lab")).unwrap();
        assert_eq!(named.address(None), "vmi.a.lab");
        assert_eq!(address("-oProxyCommand=x@vmi/a", None), None);
        assert_eq!(address("@vmi/a", None), None);
    }

    #[test]
    fn ends_of_a_copy_are_here_or_there() {
        let here = |path: &str| End::Here(path.to_owned());
        assert_eq!(End::parse("/tmp/a:b", None).unwrap(), here("/tmp/a:b"));
        assert_eq!(End::parse("./vmi/a:b", None).unwrap(), here("./vmi/a:b"));
        assert_eq!(End::parse("folder/a:b", None).unwrap(), here("folder/a:b"));
        assert!(matches!(End::parse("vm/a:", None).unwrap(), End::There(_, path) if path.is_empty()));
        let there = End::parse("root@vmi/a:/etc/hosts", None).unwrap();
        assert!(
            matches!(there, End::There(login, path) if login.user.as_deref() == Some("root") && path == "/etc/hosts")
        );
    }

    #[test]
    fn our_own_path_is_one_word_for_the_shell() {
        let target = "vmi/a/lab".parse().unwrap();
        let proxy = proxy(OsStr::new("/it's/100%/rvm"), Some("a b"), &target, 2222);
        assert_eq!(
            proxy,
            OsStr::new(
                r"ProxyCommand='/it'\''s/100%%/rvm' --context='a b' port-forward --stdio=true vmi/a/lab 2222"
            )
        );
    }
}
