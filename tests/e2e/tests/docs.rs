//! The documentation tells the truth: every command in it is one that our programs and the Makefile know.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A command that stands in a document.
struct Example {
    place: String,
    words: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Every Markdown file that git tracks.
fn documents() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "*.md"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(listed.status.success());
    String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(|name| root().join(name))
        .collect()
}

/// Lines of code (indented by four, or fenced) that call one of these programs.
fn examples(programs: &[&str]) -> Vec<Example> {
    let mut found = Vec::new();
    for document in documents() {
        // Fences without a language, or of text, hold pictures.
        let mut fence: Option<String> = None;
        for (number, line) in fs::read_to_string(&document).unwrap().lines().enumerate() {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                fence = fence.is_none().then(|| language.to_owned());
            }
            let is_code = match fence.as_deref() {
                Some(language) => ["sh", "console"].contains(&language),
                None => line.starts_with("    "),
            };
            if !is_code {
                continue;
            }
            let code = line
                .split(" #")
                .next()
                .unwrap()
                .trim_end_matches([' ', '&', '\\']);
            let words = code
                .split_whitespace()
                .skip_while(|word| *word == "$" || word.contains('='));
            let words: Vec<String> = words.map(str::to_owned).collect();
            if words
                .first()
                .is_some_and(|first| programs.contains(&first.as_str()))
            {
                let place = format!(
                    "{}:{}",
                    document.strip_prefix(root()).unwrap().display(),
                    number + 1
                );
                found.push(Example { place, words });
            }
        }
    }
    found
}

/// What the program's help, and that of the commands that lead to this one, say.
fn help(folder: &Path, place: &str, words: &[String]) -> String {
    let help_of = |argv: &[String]| {
        let output = Command::new(folder.join(&argv[0]))
            .args(&argv[1..])
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success(), "{place}: {argv:?} is not a command");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut argv = vec![words[0].clone()];
    let mut last = help_of(&argv);
    let mut text = last.clone();
    for (before, word) in words.iter().zip(&words[1..]) {
        let entry = format!("\n  {word} ");
        let commands = last.rsplit("\nCommands:\n").next().unwrap_or_default();
        // What cannot do without a command takes the word behind it for one: its help says if that is none.
        let needs_one = last
            .lines()
            .any(|line| line.starts_with("Usage: ") && line.ends_with("<COMMAND>"));
        let behind_it = Some(before) == argv.last() && !word.starts_with('-');
        if (needs_one && behind_it) || format!("\n{commands}").contains(&entry) {
            argv.push(word.clone());
            last = help_of(&argv);
            text.push_str(&last);
        }
    }
    text
}

#[test]
fn every_option_in_the_documentation_is_one_that_the_program_has() {
    let folder = rvm_outer::here::built_programs().unwrap();
    let examples = examples(&["rvmm", "rvm", "rvm-handler"]);
    assert!(examples.len() >= 4, "the README shows each program at work");
    for Example { place, words } in examples {
        let help = help(&folder, &place, &words);
        for option in words
            .iter()
            .filter(|word| word.starts_with('-') && word.len() > 1)
        {
            let name = option.split('=').next().unwrap();
            let known = help.split([' ', ',', '\n', '[', '=']).any(|word| word == name);
            assert!(known, "{place}: {words:?} has no {name}");
        }
    }
}

#[test]
fn every_make_target_in_the_documentation_exists() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let phony = makefile.lines().find(|line| line.starts_with(".PHONY:")).unwrap();
    let examples = examples(&["make"]);
    assert!(!examples.is_empty());
    for Example { place, words } in examples {
        let target = words.get(1).unwrap();
        assert!(
            phony.split_whitespace().any(|known| known == target),
            "{place}: make has no {target}"
        );
    }
}

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            let local = !target.is_empty() && !target.contains("://");
            let there = document.parent().unwrap().join(target).exists();
            assert!(there || !local, "{}: {link} leads nowhere", document.display());
        }
    }
}
