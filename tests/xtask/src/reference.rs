//! The pages that are written by programs: the options of each of ours, from its own help, and the fields of the objects.
//!
//! The fields' page is compared by a test of rvm-types; the others here, since they need the programs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rvm_guests::command::output;
use rvm_guests::cross::workspace;

use crate::{build, step};

/// The page beside each program.
const PAGE: &str = "FLAGS.md";
/// Programs, and the folders that they are made of.
const PROGRAMS: [(&str, &str); 4] = [
    ("rvm", "api/rvm"),
    ("rvm-api", "api/server"),
    ("rvm-handler", "handler"),
    ("rvmm", "vmm/rvmm"),
];
/// Commands within commands; ours have two.
const MAX_DEPTH: usize = 4;

/// Writes all pages anew.
pub fn write() -> Result<()> {
    let mut fields = build::crdgen();
    fields
        .arg("--fields")
        .arg(workspace().join("api/types/FIELDS.md"));
    step::run("fields", &mut fields)?;
    for (path, text) in pages(&build::for_this_machine()?)? {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The pages that are not what the programs in `folder` say.
pub fn stale(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut stale = pages(folder)?;
    stale.retain(|(path, text)| fs::read_to_string(path).ok().as_ref() != Some(text));
    Ok(stale.into_iter().map(|(path, _)| path).collect())
}

fn pages(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let page = |(program, place): &(&str, &str)| {
        let mut page = format!(
            "# Options of `{program}`\n\nWritten by `cargo xtask reference` from the program's own help; `make test` compares them.\n"
        );
        tell(&mut page, &folder.join(program), &[program], MAX_DEPTH)?;
        Ok((workspace().join(place).join(PAGE), page))
    };
    PROGRAMS.iter().map(page).collect()
}

/// Adds what a command says of itself, then what its own commands say.
fn tell(page: &mut String, program: &Path, words: &[&str], depth: usize) -> Result<()> {
    if depth == 0 {
        bail!("{} has commands within commands within commands", words.join(" "));
    }
    let mut command = Command::new(program);
    // Nobody's home and no terminal's width may show in it.
    command.env_clear().args(&words[1..]).arg("--help");
    let help = String::from_utf8(output(&mut command)?).context("a help is text")?;
    let help = help.trim_end();
    write!(page, "\n## `{}`\n\n```text\n{help}\n```\n", words.join(" "))?;
    for name in commands(help) {
        let mut words = words.to_vec();
        words.push(name);
        tell(page, program, &words, depth - 1)?;
    }
    Ok(())
}

/// The commands that a help lists.
fn commands(help: &str) -> impl Iterator<Item = &str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    listed
        .take_while(|line| !line.is_empty())
        // What goes on with the line before is indented deeper.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
}

#[cfg(test)]
mod tests {
    use super::commands;

    #[test]
    fn the_commands_of_a_help_are_found() {
        let help = "Does it\n\nUsage: it [COMMAND]\n\nCommands:\n  run   Runs\n        it\n  help  Tells\n\nOptions:\n  -h\n";
        assert_eq!(commands(help).collect::<Vec<_>>(), ["run"]);
        assert_eq!(commands("Usage: it\n").count(), 0);
    }
}
