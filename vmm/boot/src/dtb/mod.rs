//! Device trees as data: read from a blob, changed by [overlays](overlay), written again.
//!
//! (Devicetree specification, release 0.4, chapter 5.) An overlay's file is hostile: every offset is looked at before it
//! is followed, and depth and length have limits.

pub mod overlay;

use std::collections::HashMap;

/// Largest blob in bytes that is read.
pub const MAX_BLOB: usize = 2 << 20;
/// Deepest nesting of nodes.
const MAX_DEPTH: usize = 32;
/// Longest name of a node or property in bytes; the specification has 31 and a unit address.
const MAX_NAME: usize = 255;

const MAGIC: u32 = 0xd00d_feed;
/// The version that is written, and the oldest one whose reader can read it.
const VERSION: u32 = 17;
const COMPATIBLE: u32 = 16;
const HEADER: usize = 40;
/// An empty table of reserved memory: one entry of zeros.
const RESERVATIONS: usize = 16;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOTHING: u32 = 4;
const END: u32 = 9;

/// A node with all below it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Name and unit address, such as `serial@10000000`; empty for the root.
    pub name: String,
    /// In their order.
    pub properties: Vec<(String, Vec<u8>)>,
    /// In their order.
    pub children: Vec<Node>,
}

/// Why a blob is no device tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DtbError {
    /// More than we read.
    #[error("has more than {MAX_BLOB} bytes")]
    TooLarge,
    /// Something else.
    #[error("is no device tree blob")]
    Magic,
    /// From before version 16, or from after all that we know.
    #[error("is a device tree blob of version {0}, which cannot be read")]
    Version(u32),
    /// An offset or a length leads out of it.
    #[error("is truncated or has a length that is not valid")]
    Truncated,
    /// Tokens in an order that makes no tree.
    #[error("has a structure that is no tree")]
    Structure,
    /// A name that is none.
    #[error("has a name that is not valid")]
    Name,
    /// Deeper than anybody needs.
    #[error("has nodes deeper than {MAX_DEPTH} levels")]
    Depth,
}

struct Reader<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
    at: usize,
}

/// Reads a blob.
///
/// # Errors
/// What is wrong with it.
pub fn parse(blob: &[u8]) -> Result<Node, DtbError> {
    if blob.len() > MAX_BLOB {
        return Err(DtbError::TooLarge);
    }
    let field = |index: usize| word(blob, index * 4).ok_or(DtbError::Truncated);
    if word(blob, 0) != Some(MAGIC) {
        return Err(DtbError::Magic);
    }
    let (version, compatible) = (field(5)?, field(6)?);
    if version < COMPATIBLE || compatible > VERSION {
        return Err(DtbError::Version(version));
    }
    let part = |offset: u32, len: Option<u32>| {
        let from = usize::try_from(offset).ok();
        let rest = from
            .and_then(|from| blob.get(from..))
            .ok_or(DtbError::Truncated)?;
        match len.map(usize::try_from) {
            Some(len) => len
                .ok()
                .and_then(|len| rest.get(..len))
                .ok_or(DtbError::Truncated),
            None => Ok(rest),
        }
    };
    // Version 16 does not tell how long its structure is.
    let structure_len = if version < VERSION { None } else { Some(field(9)?) };
    let mut reader = Reader {
        structure: part(field(2)?, structure_len)?,
        strings: part(field(3)?, Some(field(8)?))?,
        at: 0,
    };
    reader.tree()
}

/// Writes a blob.
///
/// # Errors
/// When it would have more than [`MAX_BLOB`] bytes.
pub fn write(root: &Node) -> Result<Vec<u8>, DtbError> {
    let (mut structure, mut strings) = (Vec::new(), Strings::default());
    write_node(root, &mut structure, &mut strings)?;
    put(&mut structure, END);
    let structure_at = HEADER + RESERVATIONS;
    let strings_at = structure_at + structure.len();
    let total = strings_at + strings.bytes.len();
    if total > MAX_BLOB {
        return Err(DtbError::TooLarge);
    }
    let number = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let header = [
        MAGIC,
        number(total),
        number(structure_at),
        number(strings_at),
        number(HEADER),
        VERSION,
        COMPATIBLE,
        0,
        number(strings.bytes.len()),
        number(structure.len()),
    ];
    let mut blob: Vec<u8> = header.into_iter().flat_map(u32::to_be_bytes).collect();
    blob.extend([0; RESERVATIONS]);
    blob.extend(structure);
    blob.extend(strings.bytes);
    Ok(blob)
}

/// Names of properties, each once.
#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
    places: HashMap<String, u32>,
}

fn write_node(node: &Node, structure: &mut Vec<u8>, strings: &mut Strings) -> Result<(), DtbError> {
    put(structure, BEGIN_NODE);
    structure.extend(node.name.as_bytes());
    structure.push(0);
    pad(structure);
    for (name, value) in &node.properties {
        put(structure, PROPERTY);
        put(
            structure,
            u32::try_from(value.len()).map_err(|_| DtbError::TooLarge)?,
        );
        put(structure, strings.place(name)?);
        structure.extend(value);
        pad(structure);
    }
    for child in &node.children {
        write_node(child, structure, strings)?;
    }
    put(structure, END_NODE);
    // Each level has passed here: no more than one node is written beyond the limit.
    if structure.len() > MAX_BLOB {
        Err(DtbError::TooLarge)
    } else {
        Ok(())
    }
}

fn put(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend(value.to_be_bytes());
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

// === impl Strings ===

impl Strings {
    fn place(&mut self, name: &str) -> Result<u32, DtbError> {
        if let Some(&place) = self.places.get(name) {
            return Ok(place);
        }
        let place = u32::try_from(self.bytes.len()).map_err(|_| DtbError::TooLarge)?;
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.places.insert(name.to_owned(), place);
        Ok(place)
    }
}

// === impl Reader ===

impl Reader<'_> {
    /// Without recursion: the depth is the file's choice.
    fn tree(&mut self) -> Result<Node, DtbError> {
        let mut open: Vec<Node> = Vec::new();
        loop {
            match self.word()? {
                NOTHING => {}
                BEGIN_NODE if open.len() == MAX_DEPTH => return Err(DtbError::Depth),
                BEGIN_NODE => {
                    let name = self.name()?;
                    open.push(Node {
                        name,
                        ..Node::default()
                    });
                }
                PROPERTY => {
                    let property = self.property()?;
                    open.last_mut()
                        .ok_or(DtbError::Structure)?
                        .properties
                        .push(property);
                }
                END_NODE => {
                    let done = open.pop().ok_or(DtbError::Structure)?;
                    match open.last_mut() {
                        Some(parent) => parent.children.push(done),
                        None if self.word()? == END => return Ok(done),
                        None => return Err(DtbError::Structure),
                    }
                }
                _ => return Err(DtbError::Structure),
            }
        }
    }

    fn word(&mut self) -> Result<u32, DtbError> {
        let value = word(self.structure, self.at).ok_or(DtbError::Truncated)?;
        self.at += 4;
        Ok(value)
    }

    fn name(&mut self) -> Result<String, DtbError> {
        let name = text(self.structure.get(self.at..).unwrap_or_default())?;
        self.at = (self.at + name.len() + 1).next_multiple_of(4);
        Ok(name)
    }

    fn property(&mut self) -> Result<(String, Vec<u8>), DtbError> {
        let len = usize::try_from(self.word()?).map_err(|_| DtbError::Truncated)?;
        let name_at = usize::try_from(self.word()?).map_err(|_| DtbError::Truncated)?;
        let name = text(self.strings.get(name_at..).ok_or(DtbError::Truncated)?)?;
        let value = self
            .at
            .checked_add(len)
            .and_then(|end| self.structure.get(self.at..end));
        let value = value.ok_or(DtbError::Truncated)?.to_vec();
        self.at = (self.at + len).next_multiple_of(4);
        Ok((name, value))
    }
}

/// A name up to its NUL.
fn text(bytes: &[u8]) -> Result<String, DtbError> {
    let most = bytes.get(..=MAX_NAME).unwrap_or(bytes);
    let len = most.iter().position(|&byte| byte == 0).ok_or(DtbError::Name)?;
    let name = most.get(..len).unwrap_or_default();
    if !name.iter().all(u8::is_ascii_graphic) || name.contains(&b'/') {
        return Err(DtbError::Name);
    }
    String::from_utf8(name.to_vec()).map_err(|_| DtbError::Name)
}

// === impl Node ===

impl Node {
    /// The value of a property.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.properties.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_slice())
    }

    /// Gives a property this value, whether it was there or not.
    pub fn set(&mut self, name: &str, value: Vec<u8>) {
        match self.properties.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value,
            None => self.properties.push((name.to_owned(), value)),
        }
    }

    /// The child of this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The child of this name, made where it is not there.
    pub fn child_or_new(&mut self, name: &str) -> &mut Self {
        let at = self.children.iter().position(|child| child.name == name);
        let at = at.unwrap_or_else(|| {
            self.children.push(Self {
                name: name.to_owned(),
                ..Self::default()
            });
            self.children.len() - 1
        });
        &mut self.children[at]
    }

    /// The node at an absolute path. A unit address may be left out, as in `/soc/rtc`.
    pub fn at(&self, path: &str) -> Option<&Self> {
        parts(path)?.try_fold(self, |node, part| {
            node.children.iter().find(|child| is_called(child, part))
        })
    }

    /// The node at an absolute path, to be changed.
    pub fn at_mut(&mut self, path: &str) -> Option<&mut Self> {
        parts(path)?.try_fold(self, |node, part| {
            node.children.iter_mut().find(|child| is_called(child, part))
        })
    }

    /// Calls `look` with each node and its path, the root's being empty.
    pub fn walk<'a>(&'a self, path: &str, look: &mut impl FnMut(&str, &'a Self)) {
        look(path, self);
        for child in &self.children {
            child.walk(&format!("{path}/{}", child.name), look);
        }
    }
}

fn parts(path: &str) -> Option<impl Iterator<Item = &str>> {
    Some(path.strip_prefix('/')?.split('/').filter(|part| !part.is_empty()))
}

fn is_called(node: &Node, part: &str) -> bool {
    let unit = |rest: &str| rest.is_empty() || rest.starts_with('@');
    node.name == part || !part.contains('@') && node.name.strip_prefix(part).is_some_and(unit)
}

#[cfg(test)]
mod tests;
