//! Real source trees, with some dirt each.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::place::Place;
use crate::vcs_worktree::scan::Standing;

/// The three largest packages below 4 MiB in the local cache of cargo, if there are any.
fn cached() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let cache = home.map(|home| home.join("registry/cache"));
    let registries = cache.and_then(|cache| fs::read_dir(cache).ok()).into_iter().flatten();
    let mut crates: Vec<_> = registries
        .flat_map(|registry| fs::read_dir(registry.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.metadata().unwrap().len(), entry.path()))
        .filter(|(bytes, _)| *bytes < 4 << 20)
        .collect();
    crates.sort();
    crates.into_iter().rev().take(3).map(|(_, path)| path).collect()
}

#[test]
fn a_look_at_real_sources_agrees_with_git() {
    let packages = cached();
    if packages.is_empty() {
        println!("not run: cargo has no packages here");
    }
    for package in packages {
        let place = Place::new(&[]);
        let unpacked =
            Command::new("tar").arg("-xzf").arg(&package).arg("-C").arg(&place.repo).status();
        assert!(unpacked.unwrap().success(), "{}", package.display());
        place.git(&place.repo, &["add", "--all", "--force"]);
        place.git(&place.repo, &["commit", "-q", "-m", "all"]);
        place.worktree();
        place.check();
        assert_eq!(place.standings(), [], "{}", package.display());
        let files = place.git(&place.at, &["ls-files"]);
        let files: Vec<_> = String::from_utf8_lossy(&files).lines().map(str::to_owned).collect();
        let mut changed = 0;
        for (number, file) in files.iter().enumerate().step_by(files.len() / 40 + 1) {
            let path = place.at.join(file);
            match number % 3 {
                0 => fs::remove_file(path).unwrap(),
                1 => {
                    changed += 1;
                    let mut content = fs::read(&path).unwrap();
                    content.push(b'!');
                    fs::write(path, content).unwrap();
                }
                _ => fs::write(path.with_extension("new"), "x\n").unwrap(),
            }
        }
        place.check();
        let found = place.scan().differing;
        let found = found.iter().filter(|one| one.standing == Standing::Changed).count();
        assert_eq!(found, changed);
    }
}
