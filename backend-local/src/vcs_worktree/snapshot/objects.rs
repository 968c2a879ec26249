//! Commits and objects that nothing but the worktree reaches, as a bundle and a pack that plain git reads.
//!
//! The user's repository is only read: git writes packs into a scratch object directory that borrows the repository's.
//! Nothing is ever fetched; what a partial clone lacks stays where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use windlass_core::vcs_worktree::{BranchFate, VcsWorktreeError};
use windlass_core::workspace::{Oid, Worktree};

use super::super::git::{GitCommand, without_newline};
use super::super::own_branch::OwnBranch;
use super::super::refs::{self, HEADS};
use super::super::scratch::ScratchDir;
use super::super::verify::Found;
use super::super::{Inner, failed};
use super::git_state::{GitState, collect};
use super::quote::quote;
use crate::group::Cancel;

/// How many objects are at most written one by one; more are kept as a pack.
const LOOSE_OBJECTS: u32 = 1000;
/// Refs of a bundle that are no branches begin with this.
const LOST: &str = "refs/windlass/lost/";

/// What only the worktree reaches.
#[derive(Debug, Default)]
pub(super) struct Unreached {
    /// Commits that no other branch, tag or remote branch reaches: how many.
    pub(super) commits: u64,
    /// Names for the newest of them.
    refs: Vec<(String, String)>,
    /// Commits before them, which others reach.
    prerequisites: Vec<String>,
    /// Other objects.
    objects: Vec<String>,
    /// It has to be saved: it does not stay with a branch.
    pub(super) holds_work: bool,
}

/// A member made of a text and a file behind it.
#[derive(Debug)]
pub(super) struct Packed {
    header: Vec<u8>,
    pack: PathBuf,
    pub(super) bytes: u64,
}

impl Packed {
    /// Begins to read it.
    pub(super) fn read(&self) -> io::Result<impl Read> {
        Ok(io::Cursor::new(self.header.clone()).chain(File::open(&self.pack)?))
    }
}

impl Inner {
    /// Finds what only this worktree reaches. `staged` says that its index is not what a checkout of HEAD gives.
    #[expect(clippy::too_many_arguments, reason = "it is told what was found out one by one")]
    pub(super) fn unreached_objects(
        &self,
        cancel: &Cancel,
        worktree: &Worktree,
        found: &Found,
        state: &GitState,
        staged: bool,
        fate: BranchFate,
        own: Option<&OwnBranch>,
    ) -> Result<Unreached, VcsWorktreeError> {
        let head = &found.verified.head.0;
        let mut words = state.words.clone();
        words.insert(head.clone());
        let named = own.map_or(worktree.branch.as_str(), |own| &own.name);
        let log = found.common.join("logs").join(HEADS).join(named);
        match File::open(&log) {
            Ok(file) => {
                let mut content = Vec::new();
                let read = file.take(super::LOG_BYTES).read_to_end(&mut content);
                read.map_err(|error| failed("save", &log, error))?;
                collect(&content, head.len(), &mut words);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err(failed("save", &log, error)),
        }
        if found.common.join("reftable").exists() {
            self.tabled(cancel, found, &mut words)?;
        }
        words.extend(own.iter().map(|own| own.oid.0.clone()));
        let mut roots = BTreeSet::new();
        if staged && let Some(index) = &state.index {
            roots.extend(index.objects());
            roots.extend(self.staged(cancel, found)?);
        }
        words.extend(roots.iter().cloned());
        let scratch = self.scratch.dir().map_err(|error| failed("save", &found.path, error))?;
        let kinds = self.kinds(cancel, found, &scratch, &words)?;
        let of = |wanted: &[&str]| -> Vec<&str> {
            let these = kinds.iter().filter(|(_, kind)| wanted.contains(&kind.as_str()));
            these.map(|(oid, _)| oid.as_str()).collect()
        };
        let commits = of(&["commit", "tag"]);
        let mut unreached = Unreached::default();
        // One that was renamed without a trace is taken for its own.
        let current = found.verified.branch.as_deref().filter(|_| own.is_none());
        let named = current.unwrap_or(named);
        let listed = self.commits(cancel, named, found, &scratch, &commits, &mut unreached)?;
        if unreached.commits > 0 {
            let own = own.map(|own| (&own.oid, own.name.as_str()));
            unreached.name(&listed, found, own);
            unreached.holds_work =
                fate == BranchFate::Goes || self.only_here(cancel, found, &scratch, &commits)?;
        }
        unreached.objects = self.objects(cancel, found, &scratch, &of(&["blob", "tree"]))?;
        // What a tag names is among the commits.
        unreached.objects.extend(of(&["tag"]).into_iter().map(str::to_owned));
        unreached.holds_work |= !unreached.objects.is_empty() && state.holds_work;
        Ok(unreached)
    }

    /// Asks git for what its files do not say plainly: logs and refs of this worktree that are kept in tables.
    fn tabled(
        &self,
        cancel: &Cancel,
        found: &Found,
        words: &mut BTreeSet<String>,
    ) -> Result<(), VcsWorktreeError> {
        let digits = found.verified.head.0.len();
        let log =
            self.git.on_repository(&found.admin, "log").args(["-g", "--format=%H", "HEAD", "--"]);
        let log = quiet(log).run(cancel)?;
        let refs = self.git.on_repository(&found.admin, "for-each-ref");
        let refs =
            refs.args(["--format=%(objectname)", "refs/bisect", "refs/worktree", "refs/rewritten"]);
        let refs = quiet(refs).output(cancel)?;
        for output in [&log.stdout, &refs] {
            collect(output, digits, words);
        }
        Ok(())
    }

    /// Lists what the index holds and HEAD does not.
    fn staged(&self, cancel: &Cancel, found: &Found) -> Result<Vec<String>, VcsWorktreeError> {
        let scratch = self.scratch.dir().map_err(|error| failed("save", &found.path, error))?;
        copy_index(found, &scratch).map_err(|error| failed("save", &found.admin, error))?;
        let asked = self.git.on_repository(scratch.path(), "diff-index");
        let asked = asked.env("GIT_COMMON_DIR", &found.common);
        let asked = asked.args(["--cached", "--raw", "-z", "--no-abbrev", "--no-renames"]);
        let asked = asked.args(["--ignore-submodules=none", "--ita-visible-in-index"]);
        let output = quiet(asked).arg(&found.verified.head.0).arg("--").output(cancel)?;
        let mut oids = Vec::new();
        for entry in output.split(|byte| *byte == 0) {
            // `:mode mode object object letter`; paths are between.
            let words: Vec<&[u8]> = entry.split(|byte| *byte == b' ').collect();
            if let [before, mode, _, after, _] = words.as_slice()
                && before.starts_with(b":")
                && *mode != b"160000"
                && let Some(oid) = refs::oid(after)
                && oid.0.bytes().any(|byte| byte != b'0')
            {
                oids.push(oid.0);
            }
        }
        Ok(oids)
    }

    /// Tells of each name that there is an object of which kind it is.
    fn kinds(
        &self,
        cancel: &Cancel,
        found: &Found,
        scratch: &ScratchDir,
        words: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, String>, VcsWorktreeError> {
        let input = lines(scratch, words.iter().map(String::as_str))?;
        let asked = self.git.on_repository(&found.common, "cat-file").stdin(input);
        let asked = asked.arg("--batch-check=%(objectname) %(objecttype)");
        let output = quiet(asked).output(cancel)?;
        let text = String::from_utf8_lossy(&output);
        let known = text.lines().filter_map(|line| line.split_once(' '));
        let known = known.filter(|(_, kind)| matches!(*kind, "commit" | "tree" | "blob" | "tag"));
        Ok(known.map(|(oid, kind)| (oid.to_owned(), kind.to_owned())).collect())
    }

    /// Finds the commits that no other branch, tag or remote branch reaches, their newest, and those before them.
    fn commits(
        &self,
        cancel: &Cancel,
        own: &str,
        found: &Found,
        scratch: &ScratchDir,
        tips: &[&str],
        unreached: &mut Unreached,
    ) -> Result<BTreeSet<String>, VcsWorktreeError> {
        let input = lines(scratch, tips.iter().copied())?;
        let asked = self.git.on_repository(&found.common, "rev-list").stdin(input);
        // A broken ref reaches nothing: then more is kept, not less.
        let asked = asked.args(["--ignore-missing", "--parents", "--boundary", "--stdin", "--not"]);
        let asked = asked.arg(format!("--exclude={own}"));
        let output = quiet(asked.args(["--branches", "--tags", "--remotes"])).output(cancel)?;
        let text = String::from_utf8_lossy(&output);
        let (mut listed, mut parents) = (BTreeSet::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(boundary) = line.strip_prefix('-') {
                let oid = boundary.split(' ').next().unwrap_or(boundary);
                unreached.prerequisites.push(oid.to_owned());
                continue;
            }
            let mut words = line.split(' ');
            listed.extend(words.next());
            parents.extend(words);
        }
        unreached.commits = u64::try_from(listed.len()).unwrap_or(u64::MAX);
        let newest = listed.iter().filter(|oid| !parents.contains(*oid));
        unreached.refs = (1_u32..)
            .zip(newest)
            .map(|(number, oid)| ((*oid).to_owned(), format!("{LOST}{number}")))
            .collect();
        Ok(listed.into_iter().map(str::to_owned).collect())
    }

    /// Says whether some of the commits would go with the worktree though its branch stays.
    fn only_here(
        &self,
        cancel: &Cancel,
        found: &Found,
        scratch: &ScratchDir,
        tips: &[&str],
    ) -> Result<bool, VcsWorktreeError> {
        let input = lines(scratch, tips.iter().copied())?;
        let asked = self.git.on_repository(&found.common, "rev-list").stdin(input);
        let asked = asked.args(["--ignore-missing", "--max-count=1", "--stdin", "--not"]);
        let output = quiet(asked.args(["--branches", "--tags", "--remotes"])).output(cancel)?;
        Ok(!output.is_empty())
    }

    /// Lists blobs and trees that HEAD does not have, with what is in them.
    fn objects(
        &self,
        cancel: &Cancel,
        found: &Found,
        scratch: &ScratchDir,
        roots: &[&str],
    ) -> Result<Vec<String>, VcsWorktreeError> {
        if roots.is_empty() {
            return Ok(Vec::new());
        }
        let without = format!("^{}^{{tree}}", found.verified.head);
        let input = lines(scratch, roots.iter().copied().chain([without.as_str()]))?;
        self.closure(cancel, found, input)
    }

    /// Lists what can be reached and is there.
    fn closure(
        &self,
        cancel: &Cancel,
        found: &Found,
        input: File,
    ) -> Result<Vec<String>, VcsWorktreeError> {
        let asked = self.git.on_repository(&found.common, "rev-list").stdin(input);
        let asked =
            asked.args(["--objects", "--no-object-names", "--missing=allow-any", "--stdin"]);
        let output = quiet(asked).output(cancel)?;
        let text = String::from_utf8_lossy(&output);
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Makes the bundle, if there are commits.
    pub(super) fn bundle(
        &self,
        cancel: &Cancel,
        found: &Found,
        scratch: &ScratchDir,
        unreached: &Unreached,
    ) -> Result<Option<Packed>, VcsWorktreeError> {
        if unreached.commits == 0 {
            return Ok(None);
        }
        let tips = unreached.refs.iter().map(|(oid, _)| oid.clone());
        let without = unreached.prerequisites.iter().map(|oid| format!("^{oid}"));
        let all: Vec<String> = tips.chain(without).collect();
        let input = lines(scratch, all.iter().map(String::as_str))?;
        let objects = self.closure(cancel, found, input)?;
        let mut header = match found.verified.head.0.len() {
            64 => "# v3 git bundle\n@object-format=sha256\n".to_owned(),
            _ => "# v2 git bundle\n".to_owned(),
        };
        for oid in &unreached.prerequisites {
            header.push_str(&format!("-{oid} \n"));
        }
        for (oid, name) in &unreached.refs {
            header.push_str(&format!("{oid} {name}\n"));
        }
        header.push('\n');
        self.pack(cancel, found, scratch, &objects, header.into_bytes()).map(Some)
    }

    /// Makes the pack of other objects, if there are any.
    pub(super) fn object_pack(
        &self,
        cancel: &Cancel,
        found: &Found,
        scratch: &ScratchDir,
        unreached: &Unreached,
    ) -> Result<Option<Packed>, VcsWorktreeError> {
        if unreached.objects.is_empty() {
            return Ok(None);
        }
        self.pack(cancel, found, scratch, &unreached.objects, Vec::new()).map(Some)
    }

    fn pack(
        &self,
        cancel: &Cancel,
        found: &Found,
        scratch: &ScratchDir,
        objects: &[String],
        header: Vec<u8>,
    ) -> Result<Packed, VcsWorktreeError> {
        let input = lines(scratch, objects.iter().map(String::as_str))?;
        let (room, base) = (scratch.path().join("objects"), scratch.path().join("made"));
        let made = fs::create_dir_all(room.join("pack"));
        made.map_err(|error| failed("save", &room, error))?;
        let mut borrowed = Vec::new();
        quote(&mut borrowed, found.common.join("objects").as_os_str().as_encoded_bytes());
        let pack = self.git.on_repository(&found.common, "pack-objects").stdin(input);
        let pack = pack
            .set("pack.packSizeLimit=0")
            .env("GIT_OBJECT_DIRECTORY", &room)
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", String::from_utf8_lossy(&borrowed).as_ref())
            .args(["-q", "--delta-base-offset"])
            .arg(&base);
        let output = quiet(pack).output(cancel)?;
        let name = String::from_utf8_lossy(without_newline(&output)).into_owned();
        let pack = scratch.path().join(format!("made-{name}.pack"));
        let size = pack.metadata().map_err(|error| failed("save", &pack, error))?.len();
        let bytes = u64::try_from(header.len()).unwrap_or_default() + size;
        Ok(Packed { header, pack, bytes })
    }

    /// Brings the objects of a pack, which begins at `from` in the file, into the repository where it lacks them.
    pub(super) fn bring_in(
        &self,
        cancel: &Cancel,
        common: &Path,
        file: &Path,
        from: u64,
    ) -> Result<(), VcsWorktreeError> {
        let failed = |error| failed("restore", file, error);
        let mut pack = File::open(file).map_err(failed)?;
        let mut header = [0; 12];
        pack.seek(SeekFrom::Start(from)).map_err(failed)?;
        pack.read_exact(&mut header).map_err(failed)?;
        pack.seek(SeekFrom::Start(from)).map_err(failed)?;
        let [.., a, b, c, d] = header;
        let command = if u32::from_be_bytes([a, b, c, d]) <= LOOSE_OBJECTS {
            self.git.on_repository(common, "unpack-objects").arg("-q")
        } else {
            self.git.on_repository(common, "index-pack").arg("--stdin")
        };
        let command = command.set("core.fsync=all").set("core.fsyncMethod=fsync").stdin(pack);
        quiet(command).output(cancel).map(drop)
    }
}

impl Unreached {
    /// Gives branches and HEAD their names, if they are among the commits that are not reached.
    fn name(&mut self, listed: &BTreeSet<String>, found: &Found, own: Option<(&Oid, &str)>) {
        let current = found.verified.branch.as_deref();
        let head = &found.verified.head;
        let branches = own.into_iter().chain(current.map(|branch| (head, branch)));
        let named = branches.map(|(oid, branch)| (oid, format!("{HEADS}{branch}")));
        let mut names: Vec<(String, String)> = Vec::new();
        for (oid, name) in named.chain([(head, "HEAD".to_owned())]) {
            if listed.contains(&oid.0) && !names.iter().any(|(_, other)| *other == name) {
                names.push((oid.0.clone(), name));
            }
        }
        names.append(&mut self.refs);
        self.refs = names;
    }
}

/// Copies what git needs to read an index: reading a split one, it touches the part that is shared.
fn copy_index(found: &Found, scratch: &ScratchDir) -> io::Result<()> {
    fs::write(scratch.path().join("HEAD"), format!("{}\n", found.verified.head))?;
    scratch.index(&found.admin)?;
    for entry in fs::read_dir(&found.admin)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b"sharedindex.") && entry.file_type()?.is_file() {
            fs::copy(entry.path(), scratch.path().join(name))?;
        }
    }
    Ok(())
}

/// What a bundle says of itself.
#[derive(Debug, Default)]
pub(super) struct BundleHeader {
    /// Branches with the commit of each, without `refs/heads/`.
    pub(super) branches: Vec<(String, Oid)>,
    /// Where the pack begins.
    pub(super) pack: u64,
}

/// Reads what a bundle says of itself. `None` if it is none.
pub(super) fn bundle_header(file: &Path) -> io::Result<Option<BundleHeader>> {
    use std::io::BufRead as _;
    let mut reader = io::BufReader::new(File::open(file)?);
    let (mut header, mut line) = (BundleHeader::default(), Vec::new());
    loop {
        line.clear();
        let read = reader.by_ref().take(64 << 10).read_until(b'\n', &mut line)?;
        header.pack += u64::try_from(read).unwrap_or_default();
        let Some(line) = line.strip_suffix(b"\n") else { return Ok(None) };
        if line.is_empty() {
            return Ok(Some(header));
        }
        let mut words = line.splitn(2, |byte| *byte == b' ');
        let oid = words.next().and_then(refs::oid);
        let name = words.next().and_then(|name| std::str::from_utf8(name).ok());
        let branch = name.and_then(|name| name.strip_prefix(HEADS));
        if let (Some(oid), Some(branch)) = (oid, branch) {
            header.branches.push((branch.to_owned(), oid));
        }
    }
}

/// Never fetches, whatever is missing, also where git is too old to be told so.
fn quiet(command: GitCommand<'_>) -> GitCommand<'_> {
    command.env("GIT_NO_LAZY_FETCH", "1").env("GIT_ALLOW_PROTOCOL", "none")
}

fn lines<'a>(
    scratch: &ScratchDir,
    lines: impl Iterator<Item = &'a str>,
) -> Result<File, VcsWorktreeError> {
    let write = || -> io::Result<File> {
        let path = scratch.path().join("list");
        let mut file = io::BufWriter::new(File::create(&path)?);
        for line in lines {
            writeln!(file, "{line}")?;
        }
        file.flush()?;
        File::open(path)
    };
    write().map_err(|error| failed("save", scratch.path(), error))
}
