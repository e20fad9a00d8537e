//! Device-tree overlays (`.dtbo`): changes to a tree, as `dtc -@` writes them.
//!
//! ```text
//!   / { fragment@0 { target-path = "/soc"; | target = <&label>;  __overlay__ { … merged into the target … }; };
//!       __fixups__       { label = "/fragment@0:target:0"; };     where the base's labels are used
//!       __local_fixups__ { fragment@0 { __overlay__ { … }; }; };  where the overlay's own phandles are used
//!       __symbols__      { own = "/fragment@0/__overlay__/own"; }; }
//! ```
//!
//! The overlay's own phandles are moved behind the base's first. All is checked before the base is changed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{DtbError, Node};

const OVERLAY: &str = "__overlay__";
const FIXUPS: &str = "__fixups__";
const LOCAL_FIXUPS: &str = "__local_fixups__";
const SYMBOLS: &str = "__symbols__";
const SYMBOLS_PATH: &str = "/__symbols__";
const PHANDLES: [&str; 2] = ["phandle", "linux,phandle"];

/// Largest overlay in bytes.
pub const MAX_OVERLAY: usize = 256 << 10;

/// Why an overlay cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The file system's word.
    #[error("cannot be read")]
    Io(#[source] io::Error),
    /// A directory or a device.
    #[error("is not a file")]
    NotAFile,
    /// More than any is.
    #[error("has more than {MAX_OVERLAY} bytes, more than an overlay may have")]
    TooLarge,
    /// No device tree at all.
    #[error(transparent)]
    Blob(DtbError),
    /// A tree without fragments.
    #[error("is no overlay: it has no fragment with a node '{OVERLAY}'")]
    NoFragment,
    /// The fragment's target does not exist.
    #[error("wants to change '{0}', which this machine's device tree does not have")]
    Target(String),
    /// The fragment has no target.
    #[error("has a fragment '{0}' without a target that can be followed")]
    NoTarget(String),
    /// A label of the base is not there.
    #[error("uses the label '{0}', which this machine's device tree does not have; it has: {1}")]
    Label(String, String),
    /// A reference to be fixed is not there.
    #[error("has a reference that leads nowhere: '{0}'")]
    Reference(String),
    /// There are no numbers left.
    #[error("has phandles that do not fit behind those of the machine")]
    Phandles,
}

/// Labels that overlays can name: every node of the machine by its name, with `_` in place of what a label cannot hold.
/// `serial@10000000` is `&serial_10000000`.
pub fn label(base: &mut Node) {
    let mut labels: Vec<(String, Vec<u8>)> = Vec::new();
    base.walk("", &mut |path, node| {
        let name: String = node
            .name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        if !path.is_empty() && path != SYMBOLS_PATH && !labels.iter().any(|(other, _)| *other == name) {
            labels.push((name, [path.as_bytes(), &[0]].concat()));
        }
    });
    base.child_or_new(SYMBOLS).properties = labels;
}

/// Reads an overlay's file.
///
/// # Errors
/// Why not.
pub fn read(path: &Path) -> Result<Vec<u8>, OverlayError> {
    // Looked at first: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(OverlayError::Io)?.is_file() {
        return Err(OverlayError::NotAFile);
    }
    let mut blob = Vec::new();
    let most = MAX_OVERLAY as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut blob));
    read.map_err(OverlayError::Io)?;
    if blob.len() > MAX_OVERLAY {
        return Err(OverlayError::TooLarge);
    }
    Ok(blob)
}

/// Applies an overlay's blob.
///
/// # Errors
/// Why not; the base is as it was then.
pub fn apply(base: &mut Node, blob: &[u8]) -> Result<(), OverlayError> {
    if blob.len() > MAX_OVERLAY {
        return Err(OverlayError::TooLarge);
    }
    let mut overlay = super::parse(blob).map_err(OverlayError::Blob)?;
    let mut changed = base.clone();
    let behind = highest_phandle(&changed);
    move_phandles(&mut overlay, behind)?;
    if let Some(fixups) = overlay.child(LOCAL_FIXUPS).cloned() {
        fix_local(&mut overlay, &fixups, behind)?;
    }
    if let Some(fixups) = overlay.child(FIXUPS).cloned() {
        let next = highest_phandle(&overlay).max(behind);
        fix_labels(&mut overlay, &mut changed, &fixups, next)?;
    }
    let mut targets = HashMap::new();
    for fragment in &overlay.children {
        let Some(content) = fragment.child(OVERLAY) else {
            continue;
        };
        let path = target(fragment, &changed)?;
        let node = changed
            .at_mut(&path)
            .ok_or_else(|| OverlayError::Target(path.clone()))?;
        merge(node, content);
        targets.insert(format!("/{}/{OVERLAY}", fragment.name), path);
    }
    if targets.is_empty() {
        return Err(OverlayError::NoFragment);
    }
    if let Some(symbols) = overlay.child(SYMBOLS) {
        add_symbols(&mut changed, symbols, &targets);
    }
    *base = changed;
    Ok(())
}

fn phandle(node: &Node) -> Option<u32> {
    let value = PHANDLES.iter().find_map(|name| node.get(name))?;
    value.try_into().ok().map(u32::from_be_bytes)
}

fn highest_phandle(tree: &Node) -> u32 {
    let mut highest = 0;
    tree.walk("", &mut |_, node| {
        highest = highest.max(phandle(node).unwrap_or(0));
    });
    highest
}

fn move_phandles(node: &mut Node, by: u32) -> Result<(), OverlayError> {
    for (name, value) in &mut node.properties {
        if PHANDLES.contains(&name.as_str()) {
            add(value, 0, by).ok_or(OverlayError::Phandles)?;
        }
    }
    node.children
        .iter_mut()
        .try_for_each(|child| move_phandles(child, by))
}

/// Adds to a cell; a phandle is never 0 nor -1.
fn add(value: &mut [u8], at: usize, by: u32) -> Option<()> {
    let cell: &mut [u8; 4] = value.get_mut(at..)?.first_chunk_mut()?;
    let moved = u32::from_be_bytes(*cell)
        .checked_add(by)
        .filter(|&moved| moved < u32::MAX)?;
    *cell = moved.to_be_bytes();
    Some(())
}

/// Each property of `fixups` lists the places in the property of the same name where a phandle of the overlay is.
fn fix_local(node: &mut Node, fixups: &Node, by: u32) -> Result<(), OverlayError> {
    for (name, places) in &fixups.properties {
        let wrong = || OverlayError::Reference(name.clone());
        let found = node.properties.iter_mut().find(|(other, _)| other == name);
        let (_, value) = found.ok_or_else(wrong)?;
        for place in places.chunks(4) {
            let place = place.try_into().map(u32::from_be_bytes).map_err(|_| wrong())?;
            let place = usize::try_from(place).map_err(|_| wrong())?;
            add(value, place, by).ok_or_else(wrong)?;
        }
    }
    for child in &fixups.children {
        let wrong = || OverlayError::Reference(child.name.clone());
        let node = node.children.iter_mut().find(|other| other.name == child.name);
        fix_local(node.ok_or_else(wrong)?, child, by)?;
    }
    Ok(())
}

/// Each property is a label of the base; its strings are the places `path:property:offset` in the overlay.
fn fix_labels(overlay: &mut Node, base: &mut Node, fixups: &Node, mut next: u32) -> Result<(), OverlayError> {
    for (label, places) in &fixups.properties {
        let node = labelled(base, label)?;
        let number = match phandle(node) {
            Some(number) => number,
            None => {
                next = next
                    .checked_add(1)
                    .filter(|&next| next < u32::MAX)
                    .ok_or(OverlayError::Phandles)?;
                node.set("phandle", next.to_be_bytes().to_vec());
                next
            }
        };
        for place in places.split(|&byte| byte == 0).filter(|place| !place.is_empty()) {
            let wrong = || OverlayError::Reference(place.escape_ascii().to_string());
            let text = std::str::from_utf8(place).map_err(|_| wrong())?;
            let mut fields = text.rsplitn(3, ':');
            let offset: usize = fields
                .next()
                .and_then(|offset| offset.parse().ok())
                .ok_or_else(wrong)?;
            let (name, path) = (fields.next().ok_or_else(wrong)?, fields.next().ok_or_else(wrong)?);
            let node = overlay.at_mut(path).ok_or_else(wrong)?;
            let property = node.properties.iter_mut().find(|(other, _)| other == name);
            let cell = property.and_then(|(_, value)| value.get_mut(offset..)?.first_chunk_mut());
            *cell.ok_or_else(wrong)? = number.to_be_bytes();
        }
    }
    Ok(())
}

fn labelled<'a>(base: &'a mut Node, label: &str) -> Result<&'a mut Node, OverlayError> {
    let symbols = base.child(SYMBOLS);
    let path = symbols
        .and_then(|symbols| symbols.get(label))
        .and_then(string)
        .map(str::to_owned);
    let names = || {
        let known = symbols.into_iter().flat_map(|symbols| &symbols.properties);
        known
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let unknown = || OverlayError::Label(label.to_owned(), names());
    let path = path.ok_or_else(unknown)?;
    let known = base.at(&path).is_some();
    if !known {
        return Err(OverlayError::Target(path));
    }
    base.at_mut(&path).ok_or(OverlayError::Target(path))
}

fn string(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0])?).ok()
}

fn target(fragment: &Node, base: &Node) -> Result<String, OverlayError> {
    let lost = || OverlayError::NoTarget(fragment.name.clone());
    if let Some(path) = fragment.get("target-path") {
        return string(path).map(str::to_owned).ok_or_else(lost);
    }
    let wanted = fragment
        .get("target")
        .and_then(|cell| cell.try_into().ok())
        .map(u32::from_be_bytes);
    let wanted = wanted.ok_or_else(lost)?;
    let mut found = None;
    base.walk("", &mut |path, node| {
        if phandle(node) == Some(wanted) {
            found = Some(format!("/{}", path.trim_start_matches('/')));
        }
    });
    found.ok_or_else(lost)
}

fn merge(node: &mut Node, content: &Node) {
    for (name, value) in &content.properties {
        node.set(name, value.clone());
    }
    for child in &content.children {
        merge(node.child_or_new(&child.name), child);
    }
}

/// The overlay's labels are for the overlays after it.
fn add_symbols(base: &mut Node, symbols: &Node, targets: &HashMap<String, String>) {
    for (name, value) in &symbols.properties {
        let path = string(value).unwrap_or_default();
        let moved = targets.iter().find_map(|(from, to)| {
            let rest = path.strip_prefix(from.as_str())?;
            Some(format!("{}{rest}\0", to.trim_end_matches('/')))
        });
        if let Some(moved) = moved {
            base.child_or_new(SYMBOLS).set(name, moved.into_bytes());
        }
    }
}
