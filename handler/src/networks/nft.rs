//! Gives nftables' rules to the namespace that this thread is in.

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Rules cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// It is not installed.
    #[error("'nft' cannot be run, which networks need: install the package nftables")]
    Missing(#[source] io::Error),
    /// It went away.
    #[error("nft does not take its rules")]
    Talk(#[source] io::Error),
    /// It, or the kernel, refused.
    #[error("nft refuses the rules: {0}")]
    Refused(String),
}

/// Adds rules, all of them or none.
///
/// # Errors
/// [`NftError`].
pub fn apply(rules: &str) -> Result<(), NftError> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NftError::Missing)?;
    if let Some(mut input) = nft.stdin.take() {
        input.write_all(rules.as_bytes()).map_err(NftError::Talk)?;
    }
    let done = nft.wait_with_output().map_err(NftError::Talk)?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let first = said.lines().next().unwrap_or("it says nothing");
    Err(NftError::Refused(first.to_owned()))
}
