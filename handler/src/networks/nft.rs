//! Gives nftables' rules to the namespace that this thread is in.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

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

/// Rules that nft is being given: it works for as long as making all links of a machine takes.
#[must_use]
pub struct Applying(Child);

/// Adds rules, all of them or none.
///
/// # Errors
/// [`NftError`].
pub fn apply(rules: &str) -> Result<(), NftError> {
    begin(rules)?.finish()
}

/// Begins to add rules, all of them or none, to the namespace that this thread is in now.
///
/// # Errors
/// [`NftError`].
pub fn begin(rules: &str) -> Result<Applying, NftError> {
    let nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NftError::Missing)?;
    let mut applying = Applying(nft);
    let input = applying.0.stdin.take();
    let told = input.map_or(Ok(()), |mut input| input.write_all(rules.as_bytes()));
    match told {
        Ok(()) => Ok(applying),
        // Why it did not listen it says itself, if it can.
        Err(error) => applying.finish().and(Err(NftError::Talk(error))),
    }
}

// === impl Applying ===

impl Applying {
    /// Waits until the rules hold.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn finish(self) -> Result<(), NftError> {
        let done = self.0.wait_with_output().map_err(NftError::Talk)?;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        let first = said.lines().next().unwrap_or("it says nothing");
        Err(NftError::Refused(first.to_owned()))
    }
}
