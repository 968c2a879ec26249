//! The index extension `TREE`: which tree each directory of an index is, so that git need not find out.
//!
//! Git writes it whenever it makes an index from a tree; without it the first status and the first commit take longer.

use std::io::Write as _;

use gix::bstr::BString;
use gix::objs::FindExt as _;
use gix::objs::tree::EntryKind;
use gix::{ObjectId, oid};

/// One directory.
struct Node {
    name: BString,
    id: ObjectId,
    /// How many index entries are in it and below.
    entries: usize,
    children: Vec<Node>,
}

/// Makes the extension for an index that was made from this tree and nothing else.
pub(super) fn extension(objects: &impl gix::objs::Find, tree: &oid) -> gix::Result<Vec<u8>> {
    let root = node(objects, tree.to_owned(), BString::default(), &mut Vec::new())?;
    let mut written = Vec::new();
    write(&root, &mut written);
    let mut extension = b"TREE".to_vec();
    let length = u32::try_from(written.len()).unwrap_or(u32::MAX);
    extension.extend_from_slice(&length.to_be_bytes());
    extension.append(&mut written);
    Ok(extension)
}

fn node(
    objects: &impl gix::objs::Find,
    id: ObjectId,
    name: BString,
    buffer: &mut Vec<u8>,
) -> gix::Result<Node> {
    let mut entries = 0;
    let mut below = Vec::new();
    for entry in objects.find_tree(&id, buffer)?.entries {
        if entry.mode.kind() == EntryKind::Tree {
            below.push((entry.oid.to_owned(), entry.filename.to_owned()));
        } else {
            entries += 1;
        }
    }
    // As git sorts them: the shorter names first.
    below.sort_by(|(_, one), (_, other)| (one.len(), one).cmp(&(other.len(), other)));
    let mut children = Vec::with_capacity(below.len());
    for (id, name) in below {
        let child = node(objects, id, name, buffer)?;
        entries += child.entries;
        children.push(child);
    }
    Ok(Node { name, id, entries, children })
}

fn write(node: &Node, to: &mut Vec<u8>) {
    to.extend_from_slice(&node.name);
    to.push(0);
    // Writing to memory does not fail.
    drop(writeln!(to, "{} {}", node.entries, node.children.len()));
    to.extend_from_slice(node.id.as_slice());
    for child in &node.children {
        write(child, to);
    }
}
