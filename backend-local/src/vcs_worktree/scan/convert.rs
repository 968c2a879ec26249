//! Decides about files to which a conversion may apply: line ends, `$Id$`, encodings, filters. Runs no filter.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use gix::filter::plumbing::eol;
use gix::objs::Kind;
use rustix::fs::{CWD, Mode, OFlags, openat};
use windlass_core::vcs_worktree::VcsWorktreeError;

use super::config::Config;
use super::full::Doubt;
use super::staged::Objects;
use super::{content, walk};
use crate::group::Cancel;
use crate::vcs_worktree::verify::Found;
use crate::vcs_worktree::{Inner, failed};

/// Larger files are not converted to be compared: they count as changed unless their bytes are HEAD's.
const MAX_BYTES: u64 = 64 << 20;
const ATTRIBUTES: [&str; 6] = ["text", "crlf", "eol", "ident", "working-tree-encoding", "filter"];

/// What git makes of a file when it checks it out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Conversion {
    None,
    BuiltIn {
        ends: eol::AttributesDigest,
        ident: bool,
    },
    /// Only a program, or what we do not do alike, can tell.
    Unknown,
}

impl Inner {
    /// Says which of the doubtful files are not exactly what a checkout of HEAD gives.
    pub(super) fn resolve(
        &self,
        cancel: &Cancel,
        found: &Found,
        config: &Config,
        objects: &Objects,
        doubts: Vec<Doubt>,
        index_has_attributes_of_head: bool,
    ) -> Result<Vec<Vec<u8>>, VcsWorktreeError> {
        if doubts.is_empty() {
            return Ok(Vec::new());
        }
        let attributes = self.attributes(cancel, found, &doubts, index_has_attributes_of_head)?;
        let top = openat(
            CWD,
            &found.path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| failed("look", &found.path, error.into()))?;
        let mut changed = Vec::new();
        for doubt in doubts {
            let none = BTreeMap::new();
            let same = match conversion(attributes.get(&doubt.path).unwrap_or(&none), config) {
                Conversion::None => doubt.raw,
                Conversion::Unknown => false,
                Conversion::BuiltIn { ends, ident } => {
                    let bytes = read(&top, &doubt);
                    let made = checked_out(objects, &doubt, ends, ident, config);
                    bytes.is_some() && bytes == made
                }
            };
            if !same {
                changed.push(doubt.path);
            }
        }
        Ok(changed)
    }

    /// Asks git for the attributes that HEAD gives to files.
    fn attributes(
        &self,
        cancel: &Cancel,
        found: &Found,
        doubts: &[Doubt],
        index_has_attributes_of_head: bool,
    ) -> Result<BTreeMap<Vec<u8>, Values>, VcsWorktreeError> {
        let failed = |error| failed("look", &found.path, error);
        let scratch = self.scratch.dir().map_err(failed)?;
        let mut list = Vec::new();
        for doubt in doubts {
            list.extend_from_slice(&doubt.path);
            list.push(0);
        }
        let asked = self.git.on_worktree(&found.admin, &found.path, "check-attr");
        let mut asked = asked
            .args(["--cached", "-z", "--stdin"])
            .args(ATTRIBUTES)
            .stdin(scratch.input("paths", &list).map_err(failed)?);
        if !index_has_attributes_of_head {
            let index: PathBuf = scratch.path().join("index");
            let read = self.git.on_worktree(&found.admin, &found.path, "read-tree");
            let read = read.env("GIT_INDEX_FILE", &index).env("GIT_NO_LAZY_FETCH", "1");
            read.arg(&found.verified.head.0).output(cancel)?;
            asked = asked.env("GIT_INDEX_FILE", index);
        }
        let output = asked.output(cancel)?;
        let mut attributes: BTreeMap<Vec<u8>, Values> = BTreeMap::new();
        let mut parts = output.split(|byte| *byte == 0);
        while let (Some(path), Some(name), Some(value)) = (parts.next(), parts.next(), parts.next())
        {
            let values = attributes.entry(path.to_vec()).or_default();
            values.insert(String::from_utf8_lossy(name).into_owned(), value.to_vec());
        }
        Ok(attributes)
    }
}

type Values = BTreeMap<String, Vec<u8>>;

/// Puts attributes and configuration together as git does.
fn conversion(values: &Values, config: &Config) -> Conversion {
    use eol::AttributesDigest as Ends;
    let value = |name: &str| values.get(name).map_or(&b"unspecified"[..], Vec::as_slice);
    let is_set = |value: &[u8]| !matches!(value, b"unspecified" | b"unset");
    let filter = value("filter");
    let encoding = value("working-tree-encoding");
    // UTF-8 is what an object holds anyway.
    let encoded = is_set(encoding)
        && !encoding.eq_ignore_ascii_case(b"utf-8")
        && !encoding.eq_ignore_ascii_case(b"utf8");
    if encoded || (is_set(filter) && filter != b"set" && config.smudges(filter)) {
        return Conversion::Unknown;
    }
    let text = |value: &[u8]| match value {
        b"set" => Some(Ends::Text),
        b"unset" => Some(Ends::Binary),
        b"input" => Some(Ends::TextInput),
        b"auto" => Some(Ends::TextAuto),
        _ => None,
    };
    let ends = text(value("text")).or_else(|| text(value("crlf")));
    let ends = match (ends, value("eol")) {
        (Some(Ends::Binary), _) => Some(Ends::Binary),
        (Some(Ends::TextAuto), b"lf") => Some(Ends::TextAutoInput),
        (Some(Ends::TextAuto), b"crlf") => Some(Ends::TextAutoCrlf),
        (_, b"lf") => Some(Ends::TextInput),
        (_, b"crlf") => Some(Ends::TextCrlf),
        (ends, _) => ends,
    };
    let ends = ends.unwrap_or(match auto_crlf(config) {
        eol::AutoCrlf::Disabled => Ends::Binary,
        eol::AutoCrlf::Enabled => Ends::TextAutoCrlf,
        eol::AutoCrlf::Input => Ends::TextAutoInput,
    });
    let ident = value("ident") == b"set";
    let makes_crlf = ends.to_eol(ends_config(config)) == Some(eol::Mode::CrLf);
    if makes_crlf || ident { Conversion::BuiltIn { ends, ident } } else { Conversion::None }
}

/// What `core.autocrlf` says.
fn auto_crlf(config: &Config) -> eol::AutoCrlf {
    match config.get("core.autocrlf") {
        Some(value) if value.eq_ignore_ascii_case(b"input") => eol::AutoCrlf::Input,
        _ if config.is("core.autocrlf", false) => eol::AutoCrlf::Enabled,
        _ => eol::AutoCrlf::Disabled,
    }
}

/// Says whether files without any attribute are converted.
pub(super) fn converts_without_attributes(config: &Config) -> bool {
    auto_crlf(config) != eol::AutoCrlf::Disabled
}

fn ends_config(config: &Config) -> eol::Configuration {
    let eol = match config.get("core.eol") {
        Some(value) if value.eq_ignore_ascii_case(b"crlf") => Some(eol::Mode::CrLf),
        Some(value) if value.eq_ignore_ascii_case(b"lf") => Some(eol::Mode::Lf),
        _ => None,
    };
    eol::Configuration { auto_crlf: auto_crlf(config), eol }
}

fn read(top: &std::os::fd::OwnedFd, doubt: &Doubt) -> Option<Vec<u8>> {
    if doubt.stamp.size > MAX_BYTES {
        return None;
    }
    let (parent, name) = match doubt.path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&doubt.path[..at], &doubt.path[at + 1..]),
        None => (&doubt.path[..0], doubt.path.as_slice()),
    };
    let dir = walk::open_below(top, parent).ok()?;
    let file: File =
        content::open(&dir, &CString::new(OsStr::from_bytes(name).as_bytes()).ok()?, &doubt.stamp)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// What git writes when it checks the object out.
fn checked_out(
    objects: &Objects,
    doubt: &Doubt,
    ends: eol::AttributesDigest,
    ident: bool,
    config: &Config,
) -> Option<Vec<u8>> {
    let mut bytes = objects.read(&doubt.head.oid, Kind::Blob).ok()?;
    if ident {
        bytes = with_id(&bytes, &doubt.head.oid.to_string());
    }
    let mut converted = Vec::new();
    if eol::convert_to_worktree(&bytes, ends, &mut converted, ends_config(config)).ok()? {
        bytes = converted;
    }
    Some(bytes)
}

/// Puts the object's name into each `$Id$`, as git does; those that another system filled in are left alone.
fn with_id(bytes: &[u8], name: &str) -> Vec<u8> {
    let mut made = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(dollar) = rest.iter().position(|byte| *byte == b'$') {
        made.extend_from_slice(&rest[..=dollar]);
        rest = &rest[dollar + 1..];
        let end = match rest {
            [b'I', b'd', b'$', ..] => 3,
            [b'I', b'd', b':', filled @ ..] => {
                let Some(length) = filled.iter().position(|byte| *byte == b'$') else { break };
                let filled = &filled[..length];
                let inner = filled.get(1..).unwrap_or_default();
                let space = inner.iter().position(|byte| *byte == b' ');
                let foreign = space.is_some_and(|at| at + 1 < inner.len());
                if filled.contains(&b'\n') || foreign {
                    continue;
                }
                3 + length + 1
            }
            _ => continue,
        };
        made.extend_from_slice(b"Id: ");
        made.extend_from_slice(name.as_bytes());
        made.extend_from_slice(b" $");
        rest = &rest[end..];
    }
    made.extend_from_slice(rest);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_objects_are_put_where_git_puts_them() {
        for (before, after) in [
            ("$Id$", "$Id: n $"),
            ("a $Id: old $ b $Id:$ $Id", "a $Id: n $ b $Id: n $ $Id"),
            ("$Id: by another system $", "$Id: by another system $"),
            ("$Id: over\nlines $ $Id$", "$Id: over\nlines $ $Id: n $"),
            ("$Id: never ends", "$Id: never ends"),
            ("$$Id$ $Ident$", "$$Id: n $ $Ident$"),
        ] {
            assert_eq!(
                String::from_utf8(with_id(before.as_bytes(), "n")).unwrap(),
                after,
                "{before}"
            );
        }
    }
}
