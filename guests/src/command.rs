//! Runs one program and says in one line what went wrong.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// The longest part of a failed program's own words that is repeated.
const WORDS: usize = 2000;

/// Runs `command` to its end; its output is shown only where it fails.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(|_| ())
}

/// Runs `command` to its end and returns what it wrote to standard output.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name} (`make setup` says which package has it)"))?;
    if !done.status.success() {
        bail!("{name} failed ({}): {}", done.status, last_words(&done));
    }
    Ok(done.stdout)
}

fn last_words(done: &Output) -> String {
    let said = if done.stderr.is_empty() {
        &done.stdout
    } else {
        &done.stderr
    };
    let from = said.len().saturating_sub(WORDS);
    String::from_utf8_lossy(&said[from..]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_is_named_with_its_last_words() {
        let error = run(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "sh failed (exit status: 3): no such thing");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("rvm-no-such-program")).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot run rvm-no-such-program"),
            "{error}"
        );
    }
}
