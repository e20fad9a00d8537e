//! Why QEMU did not do it, in one line.

use std::error::Error;

use crate::QemuError;

/// An error with what led to it.
pub(crate) fn in_full(error: &QemuError) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(error) = inner {
        text = format!("{text}: {error}");
        inner = error.source();
    }
    text
}

/// The line of QEMU's error output that says why, without the program's name before it.
pub(crate) fn complaint(errors: &str) -> Option<String> {
    let mut lines = errors.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.find(|line| !line.contains("warning:"))?;
    let (before, after) = line.split_once(": ").unwrap_or(("", line));
    let text = if before.contains("qemu-system") {
        after
    } else {
        line
    };
    Some(text.chars().filter(|c| !c.is_control()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complaint_is_the_first_line_that_is_not_a_warning() {
        let errors = "qemu-system-riscv64: warning: disabling zfa\n\
             qemu-system-riscv64: -device x: Failed to get \"write\" lock\nIs another process using the image?\n";
        assert_eq!(
            complaint(errors).unwrap(),
            "-device x: Failed to get \"write\" lock"
        );
        assert_eq!(complaint("\n\n"), None);
    }

    #[test]
    fn escape_sequences_do_not_get_through() {
        assert_eq!(complaint("bad\x1b[2J file").unwrap(), "bad[2J file");
    }
}
