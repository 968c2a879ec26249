//! What ships must not carry what tests plant. A build of the whole workspace unifies features, so the programs are built
//! alone and searched.

use std::fs;
use std::path::Path;

use super::{Done, output};
use crate::cargo::{cargo, target};
use crate::failure::{Doing, Failure};

/// Texts that are in a program exactly if it carries crash points or planted bugs.
const MARKERS: [&str; 2] = ["CRASH_AT", "PLANTED_BUG"];

/// Texts that are in a program if the search works at all.
const PRESENT: [(&str, &str); 2] =
    [("windlass", "WINDLASS_EXECUTION_ID"), ("windlass-shim", "journal")];

pub(super) fn check() -> Result<Done, Failure> {
    let done = output::require(cargo().args(["build", "--locked", "-p", "windlass-cli"]))?;
    for (program, present) in PRESENT {
        let path = target().join("debug").join(program);
        let bytes = fs::read(&path).doing(format_args!("read {}", path.display()))?;
        if find(&bytes, present).is_none() {
            return Err(Failure::new(format!(
                "{program} does not contain {present}, so nothing can be said of it"
            )));
        }
        search(&path, &bytes)?;
    }
    Ok(done)
}

fn search(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    match MARKERS.iter().find(|marker| find(bytes, marker).is_some()) {
        None => Ok(()),
        Some(marker) => Err(Failure::new(format!("{} contains {marker}", path.display()))),
    }
}

fn find(bytes: &[u8], text: &str) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_anywhere_is_found() {
        let path = Path::new("program");
        assert!(search(path, b"\x7fELF nothing here").is_ok());
        for marker in MARKERS {
            assert!(search(path, format!("\x7fELF..{marker}\0").as_bytes()).is_err());
        }
    }
}
