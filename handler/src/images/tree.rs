//! A file tree in memory, as image layers build it up: names, owners and modes; of contents only where they lie.
//!
//! Nothing here touches the host's file system, so a path can lead nowhere: symbolic links are followed inside
//! the tree only, and `..` stops at its root.

use std::collections::BTreeMap;

/// Most nodes, over all layers: a full distribution has 200 000.
pub const MAX_NODES: usize = 500_000;

/// Deepest directory, so that neither a path nor a walk grows without end.
pub const MAX_DEPTH: usize = 512;

/// Most symbolic links followed for one path, as in Linux.
const MAX_LINKS: usize = 40;

/// A name in a directory. Linux takes any bytes but `/` and NUL.
pub type Name = Vec<u8>;

/// Which node of a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

/// The root directory.
pub const ROOT: NodeId = NodeId(0);

/// What every node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Permissions, with the set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u32,
}

/// Where the bytes of a file lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Which layer, counted from the lowest.
    pub layer: usize,
    /// Where in the layer's unpacked archive.
    pub offset: u64,
    /// How many bytes; `newc` has 32 bits for it.
    pub size: u32,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Names, sorted.
    Directory(BTreeMap<Name, NodeId>),
    /// A regular file.
    File(Content),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A file, directory, link or device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Owner and mode.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
}

/// The tree.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
}

/// A layer asks for what cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// More than [`MAX_NODES`].
    #[error("it has more than {MAX_NODES} files")]
    TooMany,
    /// Deeper than [`MAX_DEPTH`].
    #[error("its folders are more than {MAX_DEPTH} deep")]
    TooDeep,
    /// Links in a circle, or a chain of too many.
    #[error("a path in it leads over more than {MAX_LINKS} symbolic links")]
    TooManyLinks,
    /// A path through something that is no directory.
    #[error("'{0}' in it lies below something that is no directory")]
    NotADirectory(String),
    /// A hard link to what is not there.
    #[error("'{0}' in it is a hard link to a file that is not there")]
    NoTarget(String),
    /// The root replaced by a file.
    #[error("its root is not a directory")]
    Root,
}

/// A path for people.
pub fn shown(path: &[Name]) -> String {
    String::from_utf8_lossy(&path.join(&b'/')).into_owned()
}

// === impl Tree ===

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: vec![directory()],
        }
    }
}

impl Tree {
    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Puts a node at a path, making the directories that lead there. A directory over a directory keeps what is
    /// in it; anything else takes the place of what was there.
    ///
    /// # Errors
    /// Any [`TreeError`].
    pub fn put(&mut self, path: &[Name], node: Node) -> Result<(), TreeError> {
        let Some((name, parents)) = path.split_last() else {
            return self.put_root(node);
        };
        let parent = self.walk(parents, true)?.ok_or(TreeError::TooDeep)?;
        if let (Some(old), Kind::Directory(_)) = (self.child(parent, name), &node.kind)
            && matches!(self.node(old).kind, Kind::Directory(_))
        {
            self.nodes[old.0].meta = node.meta;
            return Ok(());
        }
        let id = self.add(node)?;
        self.entries(parent)?.insert(name.clone(), id);
        Ok(())
    }

    /// Gives an existing file a second name.
    ///
    /// # Errors
    /// [`TreeError::NoTarget`] for what is not there, or is a directory.
    pub fn link(&mut self, path: &[Name], target: &[Name]) -> Result<(), TreeError> {
        let missing = || TreeError::NoTarget(shown(path));
        let (name, parents) = path.split_last().ok_or(TreeError::Root)?;
        let found = self.find(target)?.ok_or_else(missing)?;
        if matches!(self.node(found).kind, Kind::Directory(_)) {
            return Err(missing());
        }
        let parent = self.walk(parents, true)?.ok_or_else(missing)?;
        self.entries(parent)?.insert(name.clone(), found);
        Ok(())
    }

    /// Takes away what a path names; a path that is not there is no mistake.
    ///
    /// # Errors
    /// [`TreeError::TooManyLinks`] and its like.
    pub fn remove(&mut self, path: &[Name]) -> Result<(), TreeError> {
        if let Some((name, parents)) = path.split_last()
            && let Some(parent) = self.walk(parents, false)?
        {
            self.entries(parent)?.remove(name);
        }
        Ok(())
    }

    /// Empties a directory; one that is not there is no mistake.
    ///
    /// # Errors
    /// [`TreeError::TooManyLinks`] and its like.
    pub fn clear(&mut self, path: &[Name]) -> Result<(), TreeError> {
        if let Some(found) = self.walk(path, false)? {
            self.entries(found)?.clear();
        }
        Ok(())
    }

    /// The node at a path; the last part is not followed if it is a symbolic link.
    ///
    /// # Errors
    /// [`TreeError::TooManyLinks`] and its like.
    pub fn find(&mut self, path: &[Name]) -> Result<Option<NodeId>, TreeError> {
        let Some((name, parents)) = path.split_last() else {
            return Ok(Some(ROOT));
        };
        let parent = self.walk(parents, false)?;
        Ok(parent.and_then(|parent| self.child(parent, name)))
    }

    /// The bytes of the file at a path, symbolic links followed.
    ///
    /// # Errors
    /// [`TreeError::TooManyLinks`] and its like.
    pub fn file(&mut self, path: &[Name]) -> Result<Option<Content>, TreeError> {
        let mut path = path.to_vec();
        for _ in 0..MAX_LINKS {
            let Some(found) = self.find(&path)? else {
                return Ok(None);
            };
            match &self.node(found).kind {
                Kind::File(content) => return Ok(Some(*content)),
                Kind::Symlink(target) => {
                    path.pop();
                    if target.first() == Some(&b'/') {
                        path.clear();
                    }
                    path.extend(target.split(|&byte| byte == b'/').map(<[u8]>::to_vec));
                }
                _ => return Ok(None),
            }
        }
        Err(TreeError::TooManyLinks)
    }

    fn put_root(&mut self, node: Node) -> Result<(), TreeError> {
        if !matches!(node.kind, Kind::Directory(_)) {
            return Err(TreeError::Root);
        }
        self.nodes[ROOT.0].meta = node.meta;
        Ok(())
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(parent).kind {
            Kind::Directory(entries) => entries.get(name).copied(),
            _ => None,
        }
    }

    /// What is in a directory, to be changed.
    fn entries(&mut self, id: NodeId) -> Result<&mut BTreeMap<Name, NodeId>, TreeError> {
        match &mut self.nodes[id.0].kind {
            Kind::Directory(entries) => Ok(entries),
            _ => Err(TreeError::NotADirectory(String::new())),
        }
    }

    fn add(&mut self, node: Node) -> Result<NodeId, TreeError> {
        if self.nodes.len() >= MAX_NODES {
            return Err(TreeError::TooMany);
        }
        self.nodes.push(node);
        Ok(NodeId(self.nodes.len() - 1))
    }

    /// Goes to a directory. What is missing on the way is made, or ends the search.
    fn walk(&mut self, path: &[Name], make: bool) -> Result<Option<NodeId>, TreeError> {
        let mut todo: Vec<Name> = path.iter().rev().cloned().collect();
        let mut way = vec![ROOT];
        let mut links = 0;
        while let Some(name) = todo.pop() {
            let here = way.last().copied().unwrap_or(ROOT);
            match self.step(here, &name, path)? {
                Go::Stay => {}
                Go::Up => way.truncate((way.len() - 1).max(1)),
                Go::Into(id) => way.push(id),
                Go::Over(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(TreeError::TooManyLinks);
                    }
                    if target.first() == Some(&b'/') {
                        way.truncate(1);
                    }
                    todo.extend(target.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
                }
                Go::Missing if make => {
                    let made = self.add(directory())?;
                    self.entries(here)?.insert(name, made);
                    way.push(made);
                }
                Go::Missing => return Ok(None),
            }
            if way.len() > MAX_DEPTH {
                return Err(TreeError::TooDeep);
            }
        }
        Ok(way.last().copied())
    }

    fn step(&self, here: NodeId, name: &[u8], path: &[Name]) -> Result<Go, TreeError> {
        match name {
            b"" | b"." => return Ok(Go::Stay),
            b".." => return Ok(Go::Up),
            _ => {}
        }
        let Some(id) = self.child(here, name) else {
            return Ok(Go::Missing);
        };
        match &self.node(id).kind {
            Kind::Directory(_) => Ok(Go::Into(id)),
            Kind::Symlink(target) => Ok(Go::Over(target.clone())),
            _ => Err(TreeError::NotADirectory(shown(path))),
        }
    }
}

/// One step of a walk.
enum Go {
    Stay,
    Up,
    Into(NodeId),
    Over(Vec<u8>),
    Missing,
}

/// What is made where an image leaves a directory out.
fn directory() -> Node {
    Node {
        meta: Meta {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
        },
        kind: Kind::Directory(BTreeMap::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<Name> {
        text.split('/').map(|part| part.as_bytes().to_vec()).collect()
    }

    fn file(offset: u64) -> Node {
        Node {
            kind: Kind::File(Content {
                layer: 0,
                offset,
                size: 1,
            }),
            ..directory()
        }
    }

    fn symlink(target: &str) -> Node {
        Node {
            kind: Kind::Symlink(target.as_bytes().to_vec()),
            ..directory()
        }
    }

    #[test]
    fn a_directory_over_a_directory_keeps_what_is_in_it() {
        let mut tree = Tree::default();
        tree.put(&path("etc/passwd"), file(1)).unwrap();
        let strict = Node {
            meta: Meta {
                mode: 0o700,
                uid: 1,
                gid: 2,
                mtime: 3,
            },
            ..directory()
        };
        tree.put(&path("etc"), strict.clone()).unwrap();
        let etc = tree.find(&path("etc")).unwrap().unwrap();
        assert_eq!(tree.node(etc).meta, strict.meta);
        assert!(tree.find(&path("etc/passwd")).unwrap().is_some());
    }

    #[test]
    fn a_file_takes_the_place_of_a_whole_directory() {
        let mut tree = Tree::default();
        tree.put(&path("etc/passwd"), file(1)).unwrap();
        tree.put(&path("etc"), file(2)).unwrap();
        let below = tree.put(&path("etc/passwd"), file(3));
        assert_eq!(below, Err(TreeError::NotADirectory("etc".into())));
    }

    #[test]
    fn a_path_over_a_link_lands_where_the_link_leads_inside_the_tree() {
        let mut tree = Tree::default();
        tree.put(&path("usr/lib"), directory()).unwrap();
        tree.put(&path("lib"), symlink("usr/lib")).unwrap();
        tree.put(&path("lib/libc.so"), file(1)).unwrap();
        assert!(tree.find(&path("usr/lib/libc.so")).unwrap().is_some());
        tree.put(&path("escape"), symlink("../../../../etc")).unwrap();
        tree.put(&path("escape/shadow"), file(2)).unwrap();
        assert!(tree.find(&path("etc/shadow")).unwrap().is_some());
        tree.put(&path("absolute"), symlink("/srv")).unwrap();
        tree.put(&path("absolute/x"), file(3)).unwrap();
        assert!(tree.find(&path("srv/x")).unwrap().is_some());
    }

    #[test]
    fn links_in_a_circle_are_refused() {
        let mut tree = Tree::default();
        tree.put(&path("a"), symlink("b")).unwrap();
        tree.put(&path("b"), symlink("a")).unwrap();
        assert_eq!(tree.put(&path("a/x"), file(1)), Err(TreeError::TooManyLinks));
    }

    #[test]
    fn bottomless_folders_are_refused() {
        let deep = vec![b"d".to_vec(); MAX_DEPTH + 1];
        assert_eq!(Tree::default().put(&deep, file(1)), Err(TreeError::TooDeep));
    }

    #[test]
    fn a_hard_link_is_the_same_node_and_needs_a_file() {
        let mut tree = Tree::default();
        tree.put(&path("bin/busybox"), file(1)).unwrap();
        tree.link(&path("bin/sh"), &path("bin/busybox")).unwrap();
        assert_eq!(
            tree.find(&path("bin/sh")).unwrap(),
            tree.find(&path("bin/busybox")).unwrap()
        );
        let missing = Err(TreeError::NoTarget("x".into()));
        assert_eq!(tree.link(&path("x"), &path("nowhere")), missing);
        assert_eq!(tree.link(&path("x"), &path("bin")), missing);
    }
}
