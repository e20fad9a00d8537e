//! Who the guest is: its host name, and the greeting that says which image it runs.

use std::fs::File;
use std::io::Read;

use crate::cmdline::Options;
use crate::say;

/// More of `os-release` than this is not read; the real ones have some hundred bytes.
const MAX_RELEASE: u64 = 64 << 10;

/// The longest name that is shown.
const MAX_NAME: usize = 120;

/// Sets the host name that the kernel's command line gives.
pub fn take_name(options: &Options) {
    let name = options.hostname.as_deref().unwrap_or("rvm");
    if let Err(error) = rustix::system::sethostname(name.as_bytes()) {
        say::problem("cannot set the host name", error);
    }
}

/// Says what is running.
pub fn greet() {
    let release = read_bounded("/etc/os-release").or_else(|| read_bounded("/usr/lib/os-release"));
    let name = release
        .as_deref()
        .and_then(pretty_name)
        .unwrap_or_else(|| "a container image".to_owned());
    say::line(&format!("\nThis is {name}, run by rvm as a virtual machine.\n"));
}

fn read_bounded(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_RELEASE)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `PRETTY_NAME` of an `os-release` file, with nothing in it that would move the terminal's cursor.
fn pretty_name(release: &str) -> Option<String> {
    let value = release
        .lines()
        .find_map(|line| line.trim().strip_prefix("PRETTY_NAME="))?;
    let value = value.trim().trim_matches(['"', '\'']);
    let name: String = value
        .chars()
        .filter(|letter| !letter.is_control())
        .take(MAX_NAME)
        .collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_called_what_its_release_file_calls_it() {
        let release = "ID=alpine\nPRETTY_NAME=\"Alpine Linux v3.23\"\n";
        assert_eq!(pretty_name(release).as_deref(), Some("Alpine Linux v3.23"));
        assert_eq!(pretty_name("PRETTY_NAME='x y'").as_deref(), Some("x y"));
        assert_eq!(pretty_name("ID=alpine\n"), None);
        assert_eq!(pretty_name("PRETTY_NAME=\"\"\n"), None);
    }

    #[test]
    fn a_name_cannot_play_with_the_terminal_or_fill_it() {
        assert_eq!(
            pretty_name("PRETTY_NAME=\"\u{1b}[2Jhello\u{7}\"").as_deref(),
            Some("[2Jhello")
        );
        let long = format!("PRETTY_NAME={}", "x".repeat(5000));
        assert_eq!(pretty_name(&long).map(|name| name.len()), Some(MAX_NAME));
    }
}
