//! What the kernel's command line says to us: `rvm.hostname=NAME` and `rvm.entrypoint="PROGRAM ARGUMENT …"`.
//!
//! Values with spaces stand in double quotes, as the kernel's own do.

use crate::say;

/// The kernel's own limit is lower on every architecture.
const MAX_LENGTH: usize = 8192;

/// What is started on the console unless the command line names something else.
const SHELL: [&str; 2] = ["/bin/sh", "-l"];

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The guest's host name, where a sound one is given.
    pub hostname: Option<String>,
    /// Program and arguments of the session on the console; never empty.
    pub entrypoint: Vec<String>,
}

/// Reads the kernel's command line.
pub fn read() -> Options {
    match std::fs::read("/proc/cmdline") {
        Ok(bytes) => parse(&String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_LENGTH)])),
        Err(error) => {
            say::problem("cannot read the kernel's command line", error);
            parse("")
        }
    }
}

fn parse(line: &str) -> Options {
    let words = words(line);
    let value = |name: &str| words.iter().rev().find_map(|word| word.strip_prefix(name));
    let entrypoint: Vec<String> = value("rvm.entrypoint=")
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    Options {
        hostname: value("rvm.hostname=")
            .filter(|name| is_host_name(name))
            .map(str::to_owned),
        entrypoint: if entrypoint.is_empty() {
            SHELL.map(str::to_owned).to_vec()
        } else {
            entrypoint
        },
    }
}

/// Splits at spaces outside double quotes and drops the quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => quoted = !quoted,
            _ if letter.is_whitespace() && !quoted => words.push(String::new()),
            _ => words
                .last_mut()
                .expect("it starts with one word and only grows")
                .push(letter),
        }
    }
    words
}

/// A host name as Kubernetes allows it: at most 63 letters, digits, dashes and dots.
fn is_host_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    (1..=63).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_command_line_gives_a_login_shell_and_no_name() {
        let options = parse("console=ttyS0 quiet rdinit=/rvm-init\n");
        assert_eq!(
            options,
            Options {
                hostname: None,
                entrypoint: vec!["/bin/sh".into(), "-l".into()]
            }
        );
    }

    #[test]
    fn name_and_entrypoint_are_taken_and_the_last_one_wins() {
        let options =
            parse("rvm.hostname=a rvm.hostname=vmi-alpine rvm.entrypoint=\"/bin/ash -c  date\" quiet\n");
        assert_eq!(options.hostname.as_deref(), Some("vmi-alpine"));
        assert_eq!(options.entrypoint, ["/bin/ash", "-c", "date"]);
    }

    #[test]
    fn quotes_around_the_whole_option_mean_the_same() {
        assert_eq!(
            parse("\"rvm.entrypoint=/bin/ash -i\"").entrypoint,
            ["/bin/ash", "-i"]
        );
        assert_eq!(parse("rvm.entrypoint=\"/bin/ash").entrypoint, ["/bin/ash"]);
    }

    #[test]
    fn a_name_that_is_none_is_left_out() {
        assert_eq!(parse("rvm.hostname=").hostname, None);
        assert_eq!(parse("rvm.hostname=a/b").hostname, None);
        assert_eq!(parse(&format!("rvm.hostname={}", "x".repeat(64))).hostname, None);
    }

    #[test]
    fn an_empty_entrypoint_is_the_shell() {
        assert_eq!(parse("rvm.entrypoint=\"  \"").entrypoint, SHELL);
    }
}
