//! `--fs tag=NAME,socket=PATH`.

use anyhow::{Context, bail};
use rvmm_spec::Share;

/// What `--help` says of the option.
pub const HELP: &str = "\
A folder of the host that the guest mounts (mount -t virtiofs NAME /mnt), served by a virtiofsd that listens at the Unix \
socket PATH; needs --memory SIZE,shared; may be repeated";

/// Reads the option's value.
///
/// # Errors
/// The word that is not known or not possible.
pub fn parse(text: &str) -> anyhow::Result<Share> {
    let (mut tag, mut socket) = (None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("tag", name)) => tag = Some(name),
            Some(("socket", path)) => socket = Some(path),
            _ => bail!("'{part}' is not known; 'tag=NAME' and 'socket=PATH' are"),
        }
    }
    let socket = socket.context("needs socket=PATH")?;
    Ok(Share::new(tag.context("needs tag=NAME")?, socket)?)
}
